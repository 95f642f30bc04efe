"""`longrecipe runs`: what ran in a store, how it ended, and what resumes it."""

import argparse
import itertools
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longrecipe_core.artifacts import RunRecord

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_runs_command(commands: "Commands", store: argparse.ArgumentParser) -> None:
    """Add the command; `store` has the argument `--store`."""
    text = "list the runs that a store knows, newest first"
    command = commands.add_parser("runs", parents=[store], help=text, description=text)
    command.set_defaults(command=runs)
    command.add_argument("--last", type=int, default=20, metavar="N", help="the newest N only (default: 20)")
    command.add_argument("--json", action="store_true", help="print the records as one JSON list")


def runs(arguments: argparse.Namespace) -> int:
    """Print a table, or JSON."""
    from longrecipe_core.artifacts import ArtifactStore, RunRecords

    store = ArtifactStore(arguments.store)
    found = list(itertools.islice(RunRecords(store).newest_first(), max(arguments.last, 0)))
    if arguments.json:
        print(json.dumps([run.model_dump(mode="json") | {"state": run.state_now()} for run in found], indent=1))
        return 0
    if not found:
        print(f"no run is recorded in {store.root}")
        return 0
    rows = [("started (UTC)", "flow", "recipe", "state", "hit", "ran", "model"), *map(row_of, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    print(lines[0])
    for run, line in zip(found, lines[1:], strict=True):
        print(line)
        for label, text in (("", run.error), ("to resume: ", run.resume)):
            if text and run.state_now() != "running":
                print(f"    {label}{text}")
    return 0


def row_of(run: "RunRecord") -> tuple[str, ...]:
    """A run's cells."""
    counts = [sum(stage.status == status for stage in run.stages) for status in ("hit", "ran")]
    started = run.started[:16].replace("T", " ")
    return (started, run.flow, run.name, run.state_now(), *map(str, counts), run.uri("merge") or "")
