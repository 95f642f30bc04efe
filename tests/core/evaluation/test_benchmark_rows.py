"""Rows of lm-eval's numbers, and what a sweep makes of them."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from longrecipe_core.evaluation.benchmarks import _rows
from longrecipe_core.evaluation.sweep import swept_model
from longrecipe_core.recipe import BenchmarksSection


def test_each_length_of_ruler_counts_its_own_samples() -> None:
    metrics = {"4096,none": 0.5, "8192,none": 0.25, "16384,none": -1.0, "sample_len": 1000.0}
    found = [(row["length"], row["value"], row["count"]) for row in _rows("niah_single_1", metrics)]
    assert found == [(4096, 0.5, 500), (8192, 0.25, 500)]


def test_a_limit_that_would_drop_lengths_is_refused() -> None:
    BenchmarksSection(tasks=("ruler",), limit=9, lengths=(4096,))
    with pytest.raises(ValidationError, match="limit 9 takes the first samples, which are all of length 4096"):
        BenchmarksSection(tasks=("ruler",), limit=9, lengths=(4096, 8192))


def test_home_is_found_by_us_as_lm_eval_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert BenchmarksSection(tasks=("x",), include_path="~/tasks").include_path == str(tmp_path / "tasks")


def test_a_group_counts_once_in_a_sweep() -> None:
    def row(task: str, metric: str, value: float) -> dict[str, Any]:
        return {"model": "m", "measure": "benchmark", "task": task, "metric": metric, "value": value}

    nll = {"model": "m", "measure": "nll", "start": 0, "end": 8, "value": 2.0, "count": 8}
    rows = [nll, row("mmlu", "acc", 0.2), *(row(f"mmlu_{part}", "acc", 0.9) for part in range(60))]
    rows += [row("gsm8k", "exact_match,strict", 0.6), row("gsm8k", "word_perplexity,strict", 99.0)]
    found = swept_model(rows, "m", 8, 0.5, "uri", ("mmlu", "gsm8k"))
    assert found.benchmarks == pytest.approx(0.4)
