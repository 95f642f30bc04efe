"""`longrecipe import-index`: the reference implementation's pickled position lists as index shards."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_import_command(commands: "Commands") -> None:
    """Add the command."""
    text = "read the reference implementation's .pkl index and right-point files into index shards"
    command = commands.add_parser("import-index", help=text, description=text)
    command.set_defaults(command=import_index)
    command.add_argument(
        "--positions", type=Path, required=True, metavar="FILE.pkl", help="position lists, its --fs_PI-path"
    )
    command.add_argument(
        "--right-points",
        type=Path,
        metavar="FILE.pkl",
        help="right points, its --right_points-path, where it uses them",
    )
    command.add_argument(
        "--tokens",
        required=True,
        metavar="DIRECTORY_OR_URI",
        help="tokens artifact whose train documents are in the order of the lists",
    )
    command.add_argument("--train-length", type=int, required=True, metavar="N", help="positions in each list")
    command.add_argument("--target-length", type=int, required=True, metavar="T", help="positions stay below it")
    command.add_argument("output", type=Path, metavar="OUTPUT", help="directory for the shards; must not be there yet")


def import_index(arguments: argparse.Namespace) -> int:
    """Write the shards; the last line on stdout is one JSON object of counts."""
    from longrecipe_core.corpus import TokenShards
    from longrecipe_core.positions.reference_import import import_index as write_index

    counts = write_index(
        arguments.positions,
        arguments.right_points,
        TokenShards(_tokens_directory(arguments.tokens), "train"),
        arguments.output,
        train_length=arguments.train_length,
        target_length=arguments.target_length,
        progress=lambda line: print(line, flush=True),
    )
    print(json.dumps(counts), flush=True)
    return 0


def _tokens_directory(place: str) -> Path:
    """A directory with token shards as it is; anything else is an artifact, fetched and checked by its store."""
    from longrecipe_core.artifacts import ArtifactStore

    local = Path(place)
    if any(local.glob("train-*.arrow")) and not (local.parent / "manifest.json").exists():
        return local
    uri = str(local.resolve()) if local.exists() else place.rstrip("/")
    store = ArtifactStore.containing(uri)
    return store.fetch(store.ref(store.manifest_of(uri)))
