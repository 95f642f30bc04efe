"""The paper's four runs (arXiv 2409.00509, section 5: GPUs, hours, memory), and the constants fitted on two of them.

What a row means is not all in the paper. Here it is taken as: the hours of stage 0 alone (with annealing's 68 to 100 M
tokens the A800 would have to reach 90 to 99 % of its peak); memory summed over the GPUs (no A800 holds 104 GB); on two
GPUs one sequence shared by both as a ring (52 GB on each at 38,400 tokens is less than 56 GB on one at 24,000); ZeRO-3
in pure bf16 with weights and optimizer offloaded, full gradient checkpointing and whole logits, as in the reference's
code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longrecipe_core.cost.gpus import A800, H100, H200, Gpu
from longrecipe_core.cost.hours import Speed, compute_and_network, training_seconds
from longrecipe_core.cost.memory import GB, gpu_memory, host_memory
from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import LLAMA3_8B, QWEN2_7B, ModelShape

SAMPLES, GLOBAL_BATCH = 10_000, 96
LOGIT_BYTES = 6
"""Of the reference's loss: fp32 logits, whose gradient takes their place, and that gradient in bf16."""


@dataclass(frozen=True)
class PaperRun:
    """One column of the paper's table."""

    name: str
    shape: ModelShape
    length: int
    gpus: int
    hours_a800: float
    hours_h100: float
    gpu_gb: float
    """Over all GPUs, as `host_gb`."""
    host_gb: float

    @property
    def setup(self) -> Setup:
        """How it was computed; see above for what is assumed."""
        return Setup(
            length=self.length,
            ranks=self.gpus,
            parallel="ring" if self.gpus > 1 else "local",
            sequence_ranks=self.gpus,
            sharding="zero3",
            cpu_offload=True,
            checkpointing="full",
            micro_batches=GLOBAL_BATCH,
            loss_chunk=None,
            logit_bytes=LOGIT_BYTES,
            pure_bf16=True,
        )

    def hours(self, gpu: Gpu) -> float:
        """As printed."""
        return self.hours_a800 if gpu is A800 else self.hours_h100


LLAMA3_RUNS = (
    PaperRun("llama3-8b-80k", LLAMA3_8B, 24_000, 1, 26, 16, 56, 148),
    PaperRun("llama3-8b-128k", LLAMA3_8B, 38_400, 2, 30, 20, 104, 172),
)
QWEN2_RUNS = (
    PaperRun("qwen2-7b-80k", QWEN2_7B, 24_000, 1, 23, 15, 64, 168),
    PaperRun("qwen2-7b-128k", QWEN2_7B, 38_400, 1, 44, 28, 72, 208),
)


@dataclass(frozen=True)
class Constants:
    """The five numbers that are fitted, on the eight of the Llama-3 rows."""

    speed: Speed
    """Two shares of the peak, and the network."""
    held: float
    """Bytes per parameter that DeepSpeed with offload holds on each GPU beside what `gpu_memory` counts."""
    process: float
    """Bytes of host memory per process beside what `host_memory` counts."""


def fit(runs: Sequence[PaperRun]) -> Constants:
    """Each constant from the rows that show it: a GPU's share of its peak from those on one GPU, the network from what
    those on more take longer than their arithmetic, memory from all, by least squares of the relative error.
    """
    efficiency = {}
    for gpu in (A800, H100):
        ideal = Speed({gpu.name: 1.0}, 1.0)
        alone = [run for run in runs if run.gpus == 1]
        shares = [_compute(run, gpu, ideal)[0] / (3600 * run.hours(gpu)) for run in alone]
        efficiency[gpu.name] = sum(shares) / len(shares)
    efficiency[H200.name] = efficiency[H100.name]  # the same chip with other memory
    received = waited = 0.0
    for run in runs:
        for gpu in (A800, H100) if run.gpus > 1 else ():
            compute, network = _compute(run, gpu, Speed(efficiency, 1.0))
            received, waited = received + network, waited + 3600 * run.hours(gpu) - compute
    # (measured - counted) = constant x weight, with the measured number as the unit of each row.
    held = _through_origin([(run.shape.parameters * run.gpus, _beyond_gpu(run), run.gpu_gb * GB) for run in runs])
    process = _through_origin([(run.gpus, _beyond_host(run), run.host_gb * GB) for run in runs])
    return Constants(Speed(efficiency, received / waited), held, process)


def predict(run: PaperRun, constants: Constants) -> dict[str, float]:
    """The row's four numbers, by their names."""
    hours = {gpu: training_seconds(run.shape, run.setup, gpu, constants.speed, SAMPLES) / 3600 for gpu in (A800, H100)}
    held = constants.held * run.shape.parameters
    return {
        "hours_a800": hours[A800],
        "hours_h100": hours[H100],
        "gpu_gb": run.gpus * (gpu_memory(run.shape, run.setup).total + held) / GB,
        "host_gb": run.gpus * (host_memory(run.shape, run.setup) + constants.process) / GB,
    }


def _compute(run: PaperRun, gpu: Gpu, speed: Speed) -> tuple[float, float]:
    return compute_and_network(run.shape, run.setup, gpu, speed, SAMPLES)


def _beyond_gpu(run: PaperRun) -> float:
    return run.gpu_gb * GB - run.gpus * gpu_memory(run.shape, run.setup).total


def _beyond_host(run: PaperRun) -> float:
    return run.host_gb * GB - run.gpus * host_memory(run.shape, run.setup)


def _through_origin(rows: Sequence[tuple[float, float, float]]) -> float:
    """The c that makes the sum of ((y - c x) / unit)² least, over rows (x, y, unit)."""
    return sum(x * y / u**2 for x, y, u in rows) / sum(x * x / u**2 for x, _, u in rows)


FITTED = fit(LLAMA3_RUNS)
