"""Training that is cancelled, whose server is restarted, whose worker is killed, and two runs at once: all real."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psutil
from browser import browser_page
from polling import PATIENCE
from prefect.events.schemas.events import ResourceSpecification
from prefect_site import eventually, stored_steps

from deployments.automations import crash_detection
from longrecipe_core.training.metrics import read_metrics

ENDLESS = 100_000  # steps that no test waits for


def steps(store: Path, stage: str) -> int:
    """Optimizer steps that the stage's job has told of."""
    for job in store.glob("staging/*/job.json"):
        with contextlib.suppress(FileNotFoundError):
            if f'"stage": "{stage}"' in job.read_text():
                return len(read_metrics(job.parent / "logs" / "metrics.jsonl"))
    return 0


def processes(store: Path) -> list[psutil.Process]:
    """All that has the store in its command line: supervisors, launchers, ranks."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(store) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_cancelled_in_the_browser_resumes_in_the_next_run(site, tmp_path):
    """No process remains, the state is Cancelled, and the next run goes on at the checkpoint, with the same model."""
    store = tmp_path / "store"
    run = site.run(store, f"extend.steps={ENDLESS}")
    eventually(lambda: stored_steps(store), lambda: f"for a stored state\n{site.logs(run)}")
    with browser_page() as page:
        page.goto(f"{site.server.ui}/runs/flow-run/{run}")
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
        eventually(lambda: not processes(store), "for the job to go")
        site.wait_for_state(run, "Cancelled")
    reached = max(stored_steps(store))

    again = site.run(store, f"extend.steps={ENDLESS}")
    eventually(lambda: f"resumes after step {reached}" in site.logs(again), lambda: f"to resume\n{site.logs(again)}")
    before = steps(store, "extend")  # of the first run there may be some after its last checkpoint
    eventually(lambda: steps(store, "extend") > before, lambda: f"to go on\n{site.logs(again)}")
    site.server.post(f"/flow_runs/{again}/set_state", {"state": {"type": "CANCELLING"}})
    site.wait_for_state(again, "Cancelled")
    eventually(lambda: not processes(store), "for the job to go")


def test_training_goes_on_while_the_server_restarts(site, tmp_path):
    store = tmp_path / "store"
    run = site.run(store, "extend.steps=1200", "launch.checkpoint_every=500")
    eventually(lambda: steps(store, "extend") > 5, lambda: f"for training\n{site.logs(run)}")
    site.stop_server()
    before = steps(store, "extend")
    (supervisor,) = [one for one in processes(store) if "longrecipe_core.launching.supervisor" in one.cmdline()]
    eventually(lambda: steps(store, "extend") > before + 100, "for training to go on without a server")
    assert supervisor.is_running()
    site.start_server()
    site.wait_for_state(run, "Completed", "Failed", "Crashed")
    assert site.state(run) == "Completed", site.logs(run)


# At the start of a run's process: it renews its place every three seconds instead of every 225.
RENEW_SOON = """
import sys
if any("prefect" in argument for argument in sys.orig_argv):
    from prefect.concurrency import _leases
    assert _leases._RENEWAL_FRACTION == 0.75
    _leases._RENEWAL_FRACTION = 0.01
"""


def test_training_goes_on_when_the_restarted_server_has_forgotten_its_place(site, tmp_path):
    """Its place in the deployment's limit, kept in the server's memory; Prefect would end the run."""
    store = tmp_path / "store"
    (tmp_path / "sitecustomize.py").write_text(RENEW_SOON)
    run = site.run(store, "extend.steps=500", variables={"PYTHONPATH": str(tmp_path)})
    eventually(lambda: steps(store, "extend") > 5, lambda: f"for training\n{site.logs(run)}")
    held = [one for one in processes(store) if "longrecipe_core.launching.supervisor" not in one.cmdline()]
    for process in held:
        process.suspend()  # so that it isn't done before
    site.stop_server()
    site.start_server()
    warning = "lease renewal failed - slots are no longer reserved. Execution will continue"
    eventually(lambda: warning in site.logs(run), lambda: f"for the warning\n{site.logs(run)}")
    for process in held:
        process.resume()
    site.wait_for_state(run, "Completed", "Failed", "Crashed", "Cancelled")
    assert site.state(run) == "Completed", site.logs(run)
    assert site.logs(run).count(warning) == 1


def test_of_two_runs_at_once_one_trains_and_the_other_reuses(site, tmp_path):
    store = tmp_path / "store"
    runs = [site.run(store, "extend.steps=200") for _ in range(2)]
    for run in runs:
        site.wait_for_state(run, "Completed", "Failed", "Crashed")
        assert site.state(run) == "Completed", site.logs(run)
    logs = [site.logs(run) for run in runs]
    assert sum("extend: done in" in log for log in logs) == 1
    assert sum("extend: hit" in log for log in logs) == 1
    assert len(list(store.glob("checkpoint/*/manifest.json"))) == 4  # base, extend, anneal, merge


def test_a_killed_worker_takes_its_runs_along_and_a_retry_resumes(site, tmp_path):
    store = tmp_path / "store"
    run = site.run(store, "extend.steps=600")
    eventually(lambda: stored_steps(store), lambda: f"for a stored state\n{site.logs(run)}")
    os.kill(site.worker.pid, signal.SIGKILL)
    eventually(lambda: not processes(store), "for the job to go")
    site.wait_for_state(run, "Crashed")
    reached = max(stored_steps(store))
    site.start_worker()
    retry(site, run, store)
    site.wait_for_state(run, "Completed", "Failed", "Cancelled")
    assert site.state(run) == "Completed", site.logs(run)
    (resumed,) = re.findall(r"resumes after step (\d+)", site.logs(run))
    assert int(resumed) >= reached  # the job's newest checkpoint need not have reached the store


def test_a_run_whose_machine_is_gone_is_marked_as_crashed(site, tmp_path):
    """Worker and run get SIGKILL at once, so nobody is left to tell: an automation misses the heartbeats."""
    store = tmp_path / "store"
    run = site.run(store, f"extend.steps={ENDLESS}")
    # The shipped automation, for this run only and with less patience than 5 minutes.
    shipped, this = crash_detection(), ResourceSpecification({"prefect.resource.id": f"prefect.flow-run.{run}"})
    trigger = shipped.trigger.model_copy(update={"within": timedelta(seconds=90), "match": this})
    hasty = shipped.model_copy(update={"name": "hasty", "trigger": trigger})
    site.server.post("/automations/", hasty.model_dump(mode="json"))
    eventually(lambda: stored_steps(store), lambda: f"for a stored state\n{site.logs(run)}")
    gone = [site.worker, *site.worker.children()]
    for process in gone:
        process.kill()
    eventually(lambda: not processes(store), "for the job to go")
    site.start_worker()
    site.wait_for_state(run, "Crashed")
    assert "No sign of life" in site.server.get(f"/flow_runs/{run}")["state"]["message"]


def retry(site, run: str, store: Path) -> None:
    """As the run's record in the store says, which is what the button Retry does."""
    (record,) = [json.loads(path.read_text()) for path in store.glob("runs/*.json")]
    assert record["resume"] == f"prefect flow-run retry {run}"
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        record["resume"], shell=True, env=site.environment | {"PATH": programs},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
