"""`longrecipe positions`: which relative distances each position strategy trains."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from longrecipe_core.errors import LongRecipeError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_positions_command(commands: "Commands", recipe: argparse.ArgumentParser) -> None:
    """Add the command; `recipe` has the arguments of every command that takes one."""
    text = "draw and tabulate which relative distances each position strategy trains"
    command = commands.add_parser("positions", parents=[recipe], help=text, description=text)
    command.add_argument(
        "--samples", type=int, default=100, metavar="N", help="samples drawn per strategy (default: 100)"
    )
    command.add_argument(
        "--segment-length",
        type=float,
        default=88.0,
        metavar="TOKENS",
        help="mean length of the segments that are drawn in place of sentences (default: 88, the paper's mean "
        "contiguous run)",
    )
    command.add_argument(
        "--output", type=Path, metavar="DIR", help="for the plot and the tables (default: ./positions/NAME of recipe)"
    )
    command.set_defaults(command=show_positions)


def show_positions(arguments: argparse.Namespace) -> int:
    """Print the table and write `positions.png`, `positions.tsv` and `distances.tsv`."""
    from longrecipe_core.recipe import Recipe

    recipe = Recipe.load(arguments.recipe, arguments.set)

    from longrecipe_core.positions.coverage import recipe_coverages
    from longrecipe_core.positions.coverage_plot import plot_coverages
    from longrecipe_core.positions.coverage_table import text_table, write_tables

    coverages, left_out = recipe_coverages(recipe, arguments.samples, arguments.segment_length)
    context = recipe.context
    title = f"{recipe.name}: {context.train_length:,} tokens over {context.target_length:,} positions"
    print(title)
    print(
        f"No corpus is read: segments have geometrically drawn lengths, mean {arguments.segment_length:g} tokens, and "
        f"documents the target length."
    )
    print(text_table(coverages))
    for reason in left_out:
        print(f"left out: {reason}")

    output: Path = arguments.output or Path("positions") / recipe.name
    try:
        output.mkdir(parents=True, exist_ok=True)
        plot_coverages(coverages, title, output / "positions.png")
        write_tables(coverages, output)
    except OSError as error:
        raise LongRecipeError(f"--output {output}: can't be written: {error}") from error
    print(f"plot      {output / 'positions.png'}")
    print(f"table     {output / 'positions.tsv'}")
    print(f"distances {output / 'distances.tsv'}")
    return 0
