"""A run whose every stage is in the store: how long it takes, and how much it leaves with the server."""

import json
import statistics
import time
from pathlib import Path

from benchmarks.figures import REPEATS, Figure, Report
from benchmarks.flow.site import Site


def measure(report: Report, site: Site) -> None:
    """`cached_run_s`, `cached_stage_s`, `result_bytes_max`, and what lies behind them."""
    first = site.run()
    seconds: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        summary = site.run()
        seconds.append(time.perf_counter() - started)
        if any(stage["status"] != "hit" for stage in summary["stages"]):
            raise SystemExit(f"not all stages were hits: {summary}")
    detail = {"seconds": seconds, "stages": len(first["stages"])}
    report.add(Figure("cached_run_s", statistics.median(seconds), "s", "<= 10", detail))

    newest = site.post("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": REPEATS})
    by_stage: dict[str, list[float]] = {}
    recorded = [len(json.dumps(run["parameters"])) for run in newest]
    for run in newest:
        for task in site.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}}):
            by_stage.setdefault(task["task_key"], []).append(task["total_run_time"])
            recorded.append(len(json.dumps(task["task_inputs"])))
    medians = {stage: statistics.median(found) for stage, found in by_stage.items()}
    report.add(Figure("cached_stage_s", max(medians.values()), "s", "<= 1.5", {"by_task": medians}))

    results = Path(site.environment["PREFECT_HOME"]) / "benchmark-results"
    site.run(PREFECT_RESULTS_PERSIST_BY_DEFAULT="true", PREFECT_LOCAL_STORAGE_PATH=str(results))
    stored = [path.stat().st_size for path in results.rglob("*") if path.is_file()]
    largest = max(stored + recorded)
    report.add(Figure("result_bytes_max", largest, "bytes", "<= 10000", {"results": stored, "recorded": recorded}))
    artifacts = site.post("/artifacts/filter", {"artifacts": {}})
    report.add(Figure("artifact_bytes_max", max(len(json.dumps(one["data"])) for one in artifacts), "bytes"))
