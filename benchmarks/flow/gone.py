"""How soon no process of a training job remains: after a run is cancelled, and after its supervisor is killed."""

import json
import statistics
import time
from pathlib import Path

from benchmarks.figures import Figure, Report
from benchmarks.flow.site import FEW, Site, processes_with, wait_until
from longrecipe_core.launching.processes import SUPERVISOR, TOKEN_VARIABLE, job_processes

REPEATS = 3
ENDLESS = ["extend.steps=100000", "launch.restarts=0"]


def measure(report: Report, site: Site) -> None:
    """`cancel_to_gone_s`, `supervisor_to_gone_s`."""
    cancelled, killed = [], []
    for repeat in range(REPEATS):
        store = site.store.with_name(f"cancelled-{repeat}")
        run = _in_training(site, store)
        started = time.perf_counter()
        state = site.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
        if state["status"] != "ACCEPT":
            raise SystemExit(f"the run can't be cancelled: {state}")
        wait_until(lambda store=store: not processes_with(str(store)), "for a cancelled job to go", every=0.1)  # type: ignore[misc]
        cancelled.append(time.perf_counter() - started)

        store = site.store.with_name(f"killed-{repeat}")
        _in_training(site, store)
        (supervisor,) = [one for one in processes_with(str(store)) if SUPERVISOR in one.cmdline()]
        token = supervisor.children()[0].environ()[TOKEN_VARIABLE]
        started = time.perf_counter()
        supervisor.kill()
        wait_until(lambda token=token: not job_processes(token), "for a job without supervisor to go", every=0.1)  # type: ignore[misc]
        killed.append(time.perf_counter() - started)
    report.add(Figure("cancel_to_gone_s", statistics.median(cancelled), "s", "<= 15", {"seconds": cancelled}))
    report.add(Figure("supervisor_to_gone_s", statistics.median(killed), "s", "<= 10", {"seconds": killed}))


def _in_training(site: Site, store: Path) -> str:
    """A triggered run whose stage extend has stored a state."""
    run = site.trigger(store, *ENDLESS)

    def trains() -> bool:
        state = site.get(f"/flow_runs/{run}")["state"]
        if state["type"] in ("FAILED", "CRASHED", "CANCELLED"):
            raise SystemExit(f"the run ended as {json.dumps(state)}")
        stored = store.glob("state/*/step-*/manifest.json")
        return any(int(manifest.parent.name.removeprefix("step-")) > FEW["steps"] for manifest in stored)

    wait_until(trains, "for training to begin")
    return run
