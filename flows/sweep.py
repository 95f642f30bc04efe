"""`longrecipe merge-sweep`: the base model's weight in the merge, long against short loss, the knee marked."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from flows.output import make_output
from longrecipe_core.errors import LongRecipeError, StartFromError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_sweep_command(commands: "Commands", recipe: argparse.ArgumentParser) -> None:
    """Add the command; `recipe` has the arguments of every command that takes one."""
    text = "merge base and annealed model at several weights and measure each; what has run must be in the store"
    command = commands.add_parser("merge-sweep", parents=[recipe], help=text, description=text)
    command.add_argument(
        "--weights",
        type=_weight,
        nargs="+",
        metavar="WEIGHT",
        help="of the base model, 0 to 1; the annealed model has the rest (default: 0 0.25 0.5 0.75 1)",
    )
    command.add_argument(
        "--output", type=Path, metavar="DIR", help="for the plot and the table (default: ./merge-sweep/NAME of recipe)"
    )
    command.set_defaults(command=sweep)


def sweep(arguments: argparse.Namespace) -> int:
    """Run the flow, print table and JSON as `run` does, write `merge-sweep.png` and `merge-sweep.tsv`."""
    from longrecipe_core.cost.heads import check_recipe
    from longrecipe_core.recipe import Recipe

    recipe = Recipe.load(arguments.recipe, arguments.set)
    check_recipe(recipe)
    output = make_output(arguments.output or Path("merge-sweep") / recipe.name)

    from flows.merge_sweep import WEIGHTS, merge_sweep
    from flows.own_server import start_own_server
    from longrecipe_core.artifacts import ArtifactStore
    from longrecipe_core.evaluation.sweep_plot import plot_sweep

    store = ArtifactStore(arguments.store)
    store.location.children()  # as in `run`: a store that is not there is told at once
    start_own_server()
    try:
        summary = merge_sweep(
            recipe=arguments.recipe,
            overrides=arguments.set,
            store=store.root,
            base_weights=tuple(arguments.weights or WEIGHTS),
        )
    except StartFromError as error:
        error.add_note(f"a sweep takes the checkpoints of a run: longrecipe run {arguments.recipe} makes them")
        raise
    print("mean NLL (nats per token): short, inside the base model's window; long, beyond it")
    print(summary.sweep.text_table())
    print(summary.sweep.verdict)
    picture, table = output / "merge-sweep.png", output / "merge-sweep.tsv"
    try:
        plot_sweep(summary.sweep, recipe.name, picture)
        summary.sweep.write_table(table)
    except OSError as error:
        raise LongRecipeError(f"--output {output}: can't be written: {error}") from error
    print(f"plot    {picture}")
    print(f"table   {table}")
    print(json.dumps(summary.to_json()), flush=True)
    return 0


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1")
    return weight
