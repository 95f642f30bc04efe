"""`longrecipe evaluate`: any one model on a recipe's validation documents."""

import argparse
import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_evaluate_command(commands: "Commands", recipe: argparse.ArgumentParser) -> None:
    """Add the command; `recipe` has the arguments of every command that takes one."""
    text = "measure any one model on a recipe's documents, with the recipe's measures"
    command = commands.add_parser("evaluate", parents=[recipe], help=text, description=text)
    command.add_argument(
        "model", metavar="MODEL", help="a directory, fsspec URL, hub id, or URI of a checkpoint as run prints it"
    )
    command.set_defaults(command=evaluate_command)


def evaluate_command(arguments: argparse.Namespace) -> int:
    """Run the flow and print its table; the last line on stdout is one JSON object, of the same form as `run`'s."""
    from longrecipe_core.cost.heads import check_recipe
    from longrecipe_core.recipe import Recipe

    check_recipe(Recipe.load(arguments.recipe, arguments.set))

    from flows.evaluate_model import evaluate_model
    from flows.own_server import start_own_server
    from longrecipe_core.artifacts import ArtifactStore
    from longrecipe_core.evaluation.table import read_rows, text_table

    store = ArtifactStore(arguments.store)
    store.location.children()  # as in `run`: a store that is not there is told at once
    start_own_server()
    summary = evaluate_model(
        recipe=arguments.recipe, overrides=arguments.set, store=store.root, checkpoint=arguments.model
    )
    measured = store.fetch(summary.outcomes[-1].ref)
    model = os.path.abspath(arguments.model) if os.path.isdir(arguments.model) else arguments.model
    print(text_table(read_rows(measured)))
    print(f"rows    {measured / 'evaluation.parquet'}")
    print(f"plot    {measured / 'nll.png'}")
    print(f"model   {model}")
    print(json.dumps(summary.to_json() | {"model": model}), flush=True)
    return 0
