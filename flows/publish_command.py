"""`longrecipe publish`: a merged model with its card to the hub or to any URL."""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_publish_command(commands: "Commands", store: argparse.ArgumentParser) -> None:
    """Add the command; `store` has the argument `--store`."""
    text = "copy a recipe's merged model with its card to the hub or to any URL"
    command = commands.add_parser("publish", parents=[store], help=text, description=text)
    command.set_defaults(command=publish)
    command.add_argument(
        "source", metavar="RECIPE_OR_URI", help="RECIPE.yaml that was run, or URI of its report or merged model"
    )
    command.add_argument("target", metavar="TARGET", help="hf://ORGANIZATION/NAME, a directory or any fsspec URL")
    command.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one key, as it was run"
    )
    command.add_argument("--private", action="store_true", help="a repository that is made on the hub is private")
    command.add_argument("--replace", action="store_true", help="put this model in the place of another one")


def publish(arguments: argparse.Namespace) -> int:
    """Publish in this process, without a server; the last line on stdout is one JSON object."""
    from longrecipe_core.artifacts import ArtifactStore
    from longrecipe_core.publishing import check_target
    from longrecipe_core.recipe import Recipe
    from tasks.publish import publish_report, report_of_artifact, report_of_recipe

    check_target(arguments.target, arguments.private)
    if arguments.source.endswith((".yaml", ".yml")):
        store = ArtifactStore(arguments.store)
        report = report_of_recipe(Recipe.load(arguments.source, arguments.set), store)
    else:
        store, report = report_of_artifact(arguments.source)

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    published = publish_report(store, report, arguments.target, arguments.private, arguments.replace, log)
    print(published.model_dump_json(), flush=True)
    return 0
