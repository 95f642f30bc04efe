"""`longrecipe positions`: which relative distances each position strategy trains."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_positions_command(commands: "Commands", recipe: argparse.ArgumentParser) -> None:
    """Add the command; `recipe` has the arguments of every command that takes one."""
    text = "draw and tabulate which relative distances each position strategy trains"
    command = commands.add_parser("positions", parents=[recipe], help=text, description=text)
    command.set_defaults(command=show_positions)


def show_positions(arguments: argparse.Namespace) -> int:
    """Print the table and write the plot."""
    raise NotImplementedError
