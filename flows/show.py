"""`longrecipe show`: what an artifact is, and what it was made from."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from longrecipe_core.artifacts import ArtifactStore, Manifest

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

LONGEST_LIST = 8


def add_show_command(commands: "Commands") -> None:
    """Add the command."""
    text = "tell what an artifact is, and what it was made from, up to the sources"
    command = commands.add_parser("show", help=text, description=text)
    command.set_defaults(command=show)
    command.add_argument("uri", metavar="URI", help="of an artifact, as run prints it, or of the directory above it")


def show(arguments: argparse.Namespace) -> int:
    """Print it; nothing but manifests is read."""
    from longrecipe_core.artifacts import lineage

    store, manifest = find_artifact(arguments.uri)
    print("\n".join(described(store, manifest)))
    print("made from")
    for line in lineage(store, store.ref(manifest)).lines()[1:] or ["  nothing in a store"]:
        print(line)
    return 0


def find_artifact(uri: str) -> "tuple[ArtifactStore, Manifest]":
    """The artifact at a local path or URL, and its store.

    Raises ArtifactMissingError, ArtifactDamagedError for a manifest that can't be read.
    """
    from longrecipe_core.artifacts import ArtifactStore

    place = str(Path(uri).resolve()) if Path(uri).exists() else uri.rstrip("/")
    store = ArtifactStore.containing(place)
    return store, store.manifest_of(place)


def described(store: "ArtifactStore", manifest: "Manifest") -> Iterator[str]:
    """Lines about one artifact."""
    what = f"stage {manifest.stage}" if manifest.stage else "a stage that it does not name"
    yield f"{manifest.kind} of {what}"
    facts: dict[str, Any] = {
        "uri": store.ref(manifest).uri,
        "fingerprint": manifest.fingerprint,
        "made": f"{manifest.created[:19].replace('T', ' ')} UTC, in {manifest.seconds:.1f} s",
        "files": f"{len(manifest.files)}, {sum(file.size for file in manifest.files):,} bytes",
        "code": f"{manifest.git_commit or 'no commit'}, version {manifest.stage_version or '?'} of the stage",
        "packages": ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())),
        "adopted": manifest.adopted and f"from {manifest.adopted.uri}",
        "forced": manifest.forced and f"by run {manifest.forced}",
    }
    for name, value in facts.items():
        if value:
            yield f"{name:<12} {value}"
    for title, tree in (("recipe", manifest.recipe), ("metrics", shortened(manifest.metrics))):
        if tree:
            yield title
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110)
            yield from (f"  {line}" for line in text.splitlines())


def shortened(value: Any) -> Any:
    """Metrics without their long lists."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list) and len(value) > LONGEST_LIST:
        return f"{len(value)} values"
    return value
