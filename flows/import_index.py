"""`longrecipe import-index`: the reference implementation's pickled position lists as index shards."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_import_command(commands: "Commands") -> None:
    """Add the command."""
    text = "read the reference implementation's .pkl index and right-point files into index shards"
    command = commands.add_parser("import-index", help=text, description=text)
    command.set_defaults(command=import_index)


def import_index(arguments: argparse.Namespace) -> int:
    """Write the shards."""
    raise NotImplementedError
