"""`longrecipe compare`: several variants of one recipe, several seeds of each, in one table."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_compare_command(commands: "Commands", store: argparse.ArgumentParser) -> None:
    """Add the command; `store` has the argument `--store`."""
    text = "train variants of one recipe with several seeds each, and compare them; results in the store are taken"
    command = commands.add_parser("compare", parents=[store], help=text, description=text)
    command.set_defaults(command=compare_command)
    command.add_argument("comparison", metavar="COMPARISON.yaml")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key of the shared recipe; VALUE is YAML",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="DIRECTORY",
        help="for tables, rows and picture (default: ./comparison/NAME)",
    )


def compare_command(arguments: argparse.Namespace) -> int:
    """Run the flow and print its tables; the last line on stdout is one JSON object."""
    from longrecipe_core.cost.heads import check_recipe
    from longrecipe_core.recipe.comparison import BASE, Comparison

    asked = Comparison.load(arguments.comparison, arguments.set)
    check_recipe(asked.shared)

    from flows.compare import compare
    from flows.own_server import start_own_server
    from longrecipe_core.artifacts import ArtifactStore
    from longrecipe_core.evaluation.seeds_report import PAGE, PICTURE, ROWS
    from longrecipe_core.evaluation.seeds_rows import read_tsv
    from longrecipe_core.evaluation.seeds_table import tables

    store = ArtifactStore(arguments.store)
    store.location.children()  # one look: a stage would try for minutes before it says that there is no such store
    start_own_server()
    output = str(arguments.output) if arguments.output else None
    found = compare(comparison=arguments.comparison, overrides=arguments.set, store=store.root, output=output)
    directory = Path(found.output)
    for table in tables(read_tsv(directory / ROWS), BASE, asked.reference):
        print(table.text(), end="\n\n")
    print(f"tables  {directory / PAGE}")
    print(f"rows    {directory / ROWS}")
    print(f"plot    {directory / PICTURE}")
    models = {variant: {str(seed): uri for seed, uri in by_seed.items()} for variant, by_seed in found.models.items()}
    print(json.dumps(found.summary.to_json() | {"models": models, "output": found.output}), flush=True)
    return 0
