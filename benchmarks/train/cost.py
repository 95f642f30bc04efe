"""The cost model against what it was not fitted on: the paper's Qwen2 rows, and training steps on this machine."""

import ctypes
import gc
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch
from scipy.optimize import nnls
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.figures import REPEATS, Figure, Report
from longrecipe_core.attention import attach
from longrecipe_core.cost.flops import attention_flops_per_token, training_flops_per_token
from longrecipe_core.cost.memory import gpu_memory
from longrecipe_core.cost.paper import FITTED, LLAMA3_RUNS, QWEN2_RUNS, PaperRun, predict
from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import ModelShape
from longrecipe_core.training.activation_checkpointing import checkpoint_activations
from longrecipe_core.training.loss import SummedLoss

TARGET = "<= 0.3"
VOCABULARY = 2048


def measure(report: Report) -> None:
    """`cost_model_error` and `cost_model_local_error`, each the largest relative error, with every number as info."""
    _paper(report)
    _local(report)


def _paper(report: Report) -> None:
    units = {"hours_a800": "h", "hours_h100": "h", "gpu_gb": "GB", "host_gb": "GB"}
    errors: dict[str, float] = {}
    for run in QWEN2_RUNS:
        for name, value in predict(run, FITTED).items():
            printed = getattr(run, name)
            errors[f"{run.name} {name}"] = value / printed - 1
            figure = f"cost_{run.name.replace('-', '_')}_{name}"
            report.add(Figure(figure, value, units[name], detail={"paper": printed, "error": value / printed - 1}))
    constants = {
        "efficiency": FITTED.speed.efficiency,
        "network_bytes_per_second": FITTED.speed.network,
        "held_bytes_per_parameter": FITTED.held,
        "process_bytes": FITTED.process,
    }
    detail = {"errors": errors, "errors_on_fitted_rows": _fitted_errors(LLAMA3_RUNS), "constants": constants}
    worst = max(abs(error) for error in errors.values())
    report.add(Figure("cost_model_error", worst, "relative", TARGET, detail=detail))


def _fitted_errors(runs: tuple[PaperRun, ...]) -> dict[str, float]:
    return {
        f"{run.name} {name}": value / getattr(run, name) - 1
        for run in runs
        for name, value in predict(run, FITTED).items()
    }


@dataclass(frozen=True)
class Case:
    """One local training: a Llama of this width and depth on one sequence."""

    hidden: int
    layers: int
    length: int
    checkpointing: str = "none"

    @property
    def shape(self) -> ModelShape:
        heads = self.hidden // 32
        return ModelShape(self.layers, self.hidden, self.hidden * 8 // 3, heads, heads // 2, VOCABULARY, 32, tied=True)

    @property
    def setup(self) -> Setup:
        return replace(Setup(self.length, precision="fp32"), checkpointing=self.checkpointing)

    @property
    def name(self) -> str:
        checkpointing = "" if self.checkpointing == "none" else f"_{self.checkpointing}"
        return f"{self.hidden}x{self.layers}_{self.length}{checkpointing}"


FITTED_ON = [Case(h, n, length) for h in (192, 384) for n in (2, 6) for length in (256, 1024)]
PREDICTED = [
    Case(192, 6, 512),
    Case(384, 2, 2048),
    Case(384, 6, 2048),
    Case(576, 4, 512),
    Case(576, 4, 1024),
    Case(576, 4, 1024, "full"),
]


class LocalRun:
    """A model in training with the project's own attention, loss and optimizer."""

    def __init__(self, case: Case) -> None:
        shape = case.shape
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.query_heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_size,
            tie_word_embeddings=shape.tied,
        )
        model = attach(AutoModelForCausalLM.from_config(config, dtype=torch.float32)).train()
        checkpoint_activations(model, case.checkpointing)
        self._loss = SummedLoss(model, 512)
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self._ids = torch.randint(shape.vocabulary, (1, case.length))
        self._positions = torch.arange(case.length)[None]

    def step(self) -> float:
        """One optimizer step; its seconds."""
        started = time.perf_counter()
        loss = self._loss(self._ids, self._positions, self._ids.roll(-1, 1)) / self._ids.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._loss.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - started


def _local(report: Report) -> None:
    cases = [*FITTED_ON, *PREDICTED]
    grown = {case: _grown_by(case) for case in cases}
    runs = {case: LocalRun(case) for case in cases}
    for run in runs.values():
        run.step()
    # In turns, so that a busy moment falls on all alike; the machine's own matrix products among them.
    taken: dict[Case, list[float]] = {case: [] for case in cases}
    peaks = []
    for _ in range(REPEATS):
        peaks.append(_matmul_flops())
        for case, run in runs.items():
            taken[case].append(run.step())
    peak = statistics.median(peaks)
    report.add(Figure("cost_local_matmul_peak", peak / 1e9, "GFLOP/s", detail={"rounds": peaks}))
    seconds = {case: statistics.median(each) for case, each in taken.items()}
    rows = np.array([_terms(case, peak) for case in FITTED_ON])
    measured = np.array([seconds[case] for case in FITTED_ON])
    constants, _ = nnls(rows / measured[:, None], np.ones(len(FITTED_ON)))  # relative errors, no negative cost
    held, overhead = _memory_constants(grown)
    errors, memory_errors = {}, {}
    for case in PREDICTED:
        told = float(np.dot(_terms(case, peak), constants))
        errors[case.name] = told / seconds[case] - 1
        memory = held * gpu_memory(case.shape, case.setup).total + overhead
        memory_errors[case.name] = memory / grown[case] - 1
        detail = {"measured": seconds[case], "error": errors[case.name], "rounds": taken[case]}
        report.add(Figure(f"cost_local_{case.name}_seconds", told, "s", detail=detail))
        detail = {"measured": grown[case] / 1e6, "error": memory_errors[case.name]}
        report.add(Figure(f"cost_local_{case.name}_memory", memory / 1e6, "MB", detail=detail))
    fitted = {case.name: float(np.dot(_terms(case, peak), constants)) / seconds[case] - 1 for case in FITTED_ON}
    names = ["matrix products", "attention", "bytes per peak FLOP", "seconds per layer"]
    detail = {
        "errors": errors,
        "errors_on_fitted_runs": fitted,
        "constants": dict(zip(names, constants.tolist(), strict=True)),
        "fitted_on": {case.name: seconds[case] for case in FITTED_ON},
    }
    worst = max(abs(error) for error in errors.values())
    report.add(Figure("cost_model_local_error", worst, "relative", TARGET, detail=detail))
    worst = max(abs(error) for error in memory_errors.values())
    detail = {"errors": memory_errors, "factor": held, "overhead_mb": overhead / 1e6}
    report.add(Figure("cost_model_local_memory_error", worst, "relative", TARGET, detail=detail))


def _terms(case: Case, peak: float) -> list[float]:
    """What a step's seconds are a sum of: matrix products and attention at the peak, bytes moved, layers called."""
    shape, setup = case.shape, case.setup
    passes = 3 if case.checkpointing == "none" else 4  # backward is two forwards
    attention = case.length * passes * attention_flops_per_token(shape, case.length)
    products = case.length * training_flops_per_token(shape, setup) - attention
    state = 16 * shape.parameters  # read and written by the optimizer
    kept = gpu_memory(shape, replace(setup, checkpointing="none")).saved  # written in forward, read in backward
    return [products / peak, attention / peak, (state + kept * passes / 3) / peak, passes * shape.layers]


def _memory_constants(grown: dict[Case, float]) -> tuple[float, float]:
    """Factor on the counted bytes and bytes beside them, of the runs to fit on, by relative error."""
    measured = np.array([grown[case] for case in FITTED_ON])
    counted = np.array([[gpu_memory(case.shape, case.setup).total, 1.0] for case in FITTED_ON])
    (factor, beside), _ = nnls(counted / measured[:, None], np.ones(len(FITTED_ON)))
    return float(factor), float(beside)


def _matmul_flops(size: int = 1024, repeats: int = 8) -> float:
    """FLOP/s of fp32 products of square matrices, the best of some."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _grown_by(case: Case) -> float:
    """Bytes by which this process's resident memory is higher at most during two steps than before the model."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier runs have freed would be taken again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    before = psutil.Process().memory_info().rss
    run = LocalRun(case)
    run.step()
    run.step()
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(high.split()[1]) * 1024 - before
