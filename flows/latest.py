"""`longrecipe latest`: where the model is that retraining has promoted."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_latest_command(commands: "Commands", store: argparse.ArgumentParser) -> None:
    """Add the command; `store` has the argument `--store`."""
    text = "print the URI of the model that was promoted last"
    command = commands.add_parser("latest", parents=[store], help=text, description=text)
    command.set_defaults(command=latest)
    command.add_argument("name", metavar="NAME", help="of the recipe")


def latest(arguments: argparse.Namespace) -> int:
    """Print the URI, once the model's manifest has been seen there."""
    from longrecipe_core.artifacts import ArtifactStore
    from longrecipe_core.artifacts.pointers import pointer_names, read_pointer
    from longrecipe_core.errors import ArtifactMissingError

    store = ArtifactStore(arguments.store)
    pointer = read_pointer(store, arguments.name)
    if pointer is None:
        names = ", ".join(pointer_names(store)) or "none"
        raise ArtifactMissingError(
            f"{store.root}: no model of recipe {arguments.name} was promoted; of others: {names}"
        )
    store.manifest_of(pointer.model)
    print(pointer.model)
    return 0
