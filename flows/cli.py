"""`longrecipe`: run, plan and verify here; each other command in a file of its own."""

import argparse
import json
import os
import sys
from typing import Any, NoReturn

from flows.collect import add_collect_command
from flows.compare_command import add_compare_command
from flows.evaluate_command import add_evaluate_command
from flows.import_index import add_import_command
from flows.latest import add_latest_command
from flows.positions import add_positions_command
from flows.publish_command import add_publish_command
from flows.runs import add_runs_command
from flows.show import add_show_command, find_artifact
from flows.sweep import add_sweep_command
from longrecipe_core.errors import LongRecipeError, RecipeError

# Before Prefect is imported: no telemetry, and time enough for its server to start on a busy machine.
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def main() -> None:
    """Entry point; a known error is one line on stderr and code 1; a wrong recipe or command is 2, Ctrl-C 130."""
    arguments = parser().parse_args()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        sys.exit(arguments.command(arguments))
    except LongRecipeError as error:
        fail(str(error), error, 2 if isinstance(error, RecipeError) else 1)
    except KeyboardInterrupt as error:
        fail("interrupted", error, 130)
    except Exception as error:
        from longrecipe_core.artifacts.location import redact
        from tasks.retries import is_storage_error

        if not is_storage_error(error) and not type(error).__module__.startswith("botocore."):
            raise
        fail(f"storage can't be used: {redact(' '.join(str(error).split())) or type(error).__name__}", error, 1)


def fail(message: str, error: BaseException, code: int) -> NoReturn:
    """End with one line, and what was noted on the error."""
    print(f"longrecipe: {message}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
    sys.exit(code)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="longrecipe", description="Extend a language model's context window.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument(
        "--store",
        metavar="URL",
        default=os.environ.get("LONGRECIPE_STORE", "./artifacts"),
        help="where artifacts are kept: a directory or any fsspec URL (default: $LONGRECIPE_STORE, else ./artifacts)",
    )
    recipe = argparse.ArgumentParser(add_help=False, parents=[store])
    recipe.add_argument("recipe", metavar="RECIPE.yaml")
    recipe.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key; VALUE is YAML",
    )
    for name, function, parent, text in (
        ("run", run, recipe, "run a recipe; stages whose results are in the store are skipped"),
        ("plan", show_plan, recipe, "tell which stages would run, and why, and what they cost; does nothing"),
        ("verify", verify, store, "check an artifact's files against its manifest"),
    ):
        command = commands.add_parser(name, parents=[parent], help=text, description=text)
        command.set_defaults(command=function)
        if function in (run, show_plan):
            add_choices(command)
        if name == "verify":
            command.add_argument("uri", metavar="URI", help="of an artifact, as run prints it")
    add_evaluate_command(commands, recipe)
    add_positions_command(commands, recipe)
    add_sweep_command(commands, recipe)
    add_import_command(commands)
    add_latest_command(commands, store)
    add_runs_command(commands, store)
    add_show_command(commands)
    add_publish_command(commands, store)
    add_collect_command(commands, store)
    add_compare_command(commands, store)
    return top


def add_choices(command: argparse.ArgumentParser) -> None:
    """How to go on from what is in the store."""
    command.add_argument(
        "--start-from",
        metavar="STAGE",
        help="the first stage that may be computed; those before it must be in the store",
    )
    command.add_argument(
        "--force",
        action="append",
        default=[],
        metavar="STAGE",
        help="make a stage again although it is in the store; may be given several times",
    )
    command.add_argument(
        "--adopt",
        action="append",
        default=[],
        type=_stage_and_uri,
        metavar="STAGE=URI",
        help="take a checkpoint, a directory or an artifact, as a stage's result; may be given several times",
    )


def choices_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_choices` as a run's parameters."""
    return {"start_from": arguments.start_from, "force": arguments.force, "adopt": dict(arguments.adopt)}


def _stage_and_uri(text: str) -> tuple[str, str]:
    stage, _, uri = text.partition("=")
    if not stage or not uri:
        raise argparse.ArgumentTypeError(f"{text!r} must read STAGE=URI, such as extend=/models/extended")
    return stage, uri


def run(arguments: argparse.Namespace) -> int:
    """Run the flow; the last line on stdout is one JSON object."""
    from longrecipe_core.cost.heads import check_recipe
    from longrecipe_core.recipe import Recipe

    recipe = Recipe.load(arguments.recipe, arguments.set)
    check_recipe(recipe)

    from flows.extend_context import extend_context
    from flows.own_server import start_own_server
    from tasks.decide import check_choices
    from tasks.run import Run

    choices = choices_of(arguments)
    asked = Run(recipe=recipe, store=arguments.store, **choices)
    check_choices(asked)
    store = asked.open_store()
    store.location.children()  # one look: a stage would try for minutes before it says that there is no such store
    start_own_server()
    summary = extend_context(recipe=arguments.recipe, overrides=arguments.set, store=store.root, **choices)
    report = store.fetch(summary.outcomes[-1].ref)
    print((report / "evaluation.txt").read_text())
    print(f"report  {report / 'report.html'}")
    print(f"plot    {report / 'nll.png'}")
    print(f"model   {summary.uri('merge')}")
    print(json.dumps(summary.to_json()), flush=True)
    return 0


def show_plan(arguments: argparse.Namespace) -> int:
    """Print one line per stage, and what the trainings cost."""
    from longrecipe_core.cost.heads import check_recipe
    from longrecipe_core.recipe import Recipe

    recipe = Recipe.load(arguments.recipe, arguments.set)
    check_recipe(recipe)

    from flows.plan import print_plan
    from tasks.run import Run

    return print_plan(Run(recipe=recipe, store=arguments.store, **choices_of(arguments)))


def verify(arguments: argparse.Namespace) -> int:
    """Read every byte of an artifact and compare digests."""
    store, manifest = find_artifact(arguments.uri)
    store.verify(store.ref(manifest), memory=False)
    print(f"whole: {manifest.kind} {manifest.fingerprint}, {len(manifest.files)} files")
    return 0


if __name__ == "__main__":
    main()
