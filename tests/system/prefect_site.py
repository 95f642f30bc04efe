"""A Prefect server on PostgreSQL with the project's set-up and deployments, and a worker, for tests."""

import contextlib
import functools
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import yaml
from polling import wait_until
from ports import free_port
from prefect_servers import ROOT, prefect_server, worker

POOL = "longrecipe"


# Servers are asked no more than twice a second.
eventually = partial(wait_until, every=0.5)


def write_recipe(root: Path) -> Path:
    """Twenty documents, a model of some thousand weights, a checkpoint every twenty steps."""
    (root / "documents").mkdir()
    for number in range(20):
        lines = [f"Line {number * n % 97} of book {number} has word{n % 13} in it." for n in range(60)]
        (root / "documents" / f"{number:02}.txt").write_text("\n".join(lines))
    rows = "".join(f'{{"q": "What is {n} plus 1?", "a": "It is {n + 1}."}}\n' for n in range(80))
    (root / "replay.jsonl").write_text(rows)
    training = {"learning_rate": 1e-3, "steps": 3, "global_batch": 4, "precision": "fp32"}
    model = {"vocabulary_size": 300, "hidden_size": 16, "intermediate_size": 24, "layers": 1, "query_heads": 2}
    columns = {"prompt_column": "q", "response_column": "a"}
    tree = {
        "name": "interrupted",
        "base": {**model, "kv_heads": 1, "window": 32, "training": training},
        "context": {"target_length": 128, "train_length": 40},
        "corpus": {"sources": [{"path": str(root / "documents"), "format": "text"}], "validation_share": 0.3},
        "index": {"samples": 60},
        "extend": training,
        "replay": {"sources": [{"path": str(root / "replay.jsonl"), "format": "jsonl", **columns}]},
        "anneal": {**training, "schedule": "linear"},
        "evaluation": {"documents": 2, "buckets": 4, "precision": "fp32"},
        "launch": {"threads": 1, "checkpoint_every": 20, "preemption_grace": 25},
    }
    path = root / "interrupted.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def stored_steps(store: Path) -> list[int]:
    """Steps of stored states above the three that `write_recipe` lets every training have; only the newest are kept."""
    names = [manifest.parent.name for manifest in store.glob("state/*/step-*/manifest.json")]
    return sorted(step for name in names if (step := int(name.removeprefix("step-"))) > 3)


class Site:
    """A server with the project's own set-up and deployments, and a worker; as `make ui` has them."""

    def __init__(self, directory: Path, recipe: Path, database: str) -> None:
        self.directory, self.recipe, self.database = directory, recipe, database
        self.port = free_port()
        self.stack = contextlib.ExitStack()
        self.server_stack = contextlib.ExitStack()
        self.start_server()
        for command in (["-m", "deployments.set_up"], ["-m", "prefect", "--no-prompt", "deploy", "--all"]):
            done = subprocess.run(
                [sys.executable, *command], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        self.start_worker()

    @property
    def environment(self) -> dict[str, str]:
        places = {name: str(self.directory / name.lower()) for name in ("LONGRECIPE_CACHE", "LONGRECIPE_STORE")}
        return {**self.server.environment, **places, "LONGRECIPE_CODE": str(ROOT)}

    def start_server(self) -> None:
        self.server = self.server_stack.enter_context(
            prefect_server(self.directory, database=self.database, port=self.port)
        )

    def stop_server(self) -> None:
        self.server_stack.close()

    def start_worker(self) -> None:
        self.worker = self.stack.enter_context(worker(self.server, POOL, self.directory, environment=self.environment))

    def close(self) -> None:
        self.stack.close()
        self.server_stack.close()

    def run(self, store: Path, *overrides: str, variables: Mapping[str, str] | None = None) -> str:
        """Trigger a run as the UI does, `variables` added to its environment; its id.

        A store that is not there begins as a copy of one with the recipe's base and data.
        """
        if not store.exists():
            shutil.copytree(self._prepared, store, ignore=shutil.ignore_patterns("runs"))
        return self._trigger("extend-context", store, overrides, variables or {})

    @functools.cached_property
    def _prepared(self) -> Path:
        store = self.directory / "prepared"
        run = self._trigger("prepare-data", store, (), {})
        self.wait_for_state(run, "Completed", "Failed", "Crashed")
        assert self.state(run) == "Completed", self.logs(run)
        return store

    def _trigger(self, flow: str, store: Path, overrides: Sequence[str], variables: Mapping[str, str]) -> str:
        deployment = self.server.get(f"/deployments/name/{flow}/{flow}")
        parameters = {"recipe": str(self.recipe), "store": str(store), "overrides": list(overrides)}
        body = {"parameters": parameters, "job_variables": {"env": dict(variables)}}
        return self.server.post(f"/deployments/{deployment['id']}/create_flow_run", body)["id"]

    def state(self, run: str) -> str:
        return self.server.get(f"/flow_runs/{run}")["state"]["name"]

    def wait_for_state(self, run: str, *names: str) -> None:
        eventually(lambda: self.state(run) in names, lambda: f"for {names}: {self.state(run)}\n{self.logs(run)}")

    def logs(self, run: str) -> str:
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(line["message"] for line in self.server.post("/logs/filter", body))

    def artifacts(self, run: str) -> dict[str, str]:
        """Ids by key."""
        found = self.server.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {one["key"]: one["id"] for one in found}
