"""The fit on the paper's Llama-3 rows, and what it says of the Qwen2 rows, which it must not see."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from longrecipe_core.cost import paper
from longrecipe_core.cost.gpus import A800, H100
from longrecipe_core.cost.hours import (
    host_bytes_per_pass,
    network_bytes_per_pass,
    network_bytes_per_step,
    training_seconds,
)
from longrecipe_core.cost.paper import FITTED, LLAMA3_RUNS, QWEN2_RUNS, fit, predict
from longrecipe_core.cost.setup import Setup
from longrecipe_core.cost.shapes import LLAMA3_8B

SOURCE = Path(paper.__file__).read_text()
# The paper's table, section 5, once more: GPUs, hours on A800 and H100, GPU and CPU memory.
TABLE = {
    "llama3-8b-80k": (24_000, 1, 26, 16, 56, 148),
    "llama3-8b-128k": (38_400, 2, 30, 20, 104, 172),
    "qwen2-7b-80k": (24_000, 1, 23, 15, 64, 168),
    "qwen2-7b-128k": (38_400, 1, 44, 28, 72, 208),
}


def constants_of(source: str) -> str:
    """`FITTED` of a module with this text."""
    module = ModuleType("changed_paper")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, module.__name__, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return repr(module.FITTED)


def changed(row: str) -> str:
    """The module's text with other hours and memory in one of its rows."""
    pattern = rf'(PaperRun\("{row}", \w+, [0-9_]+, \d), \d.*\)'
    text, count = re.subn(pattern, r"\1, 36, 27, 90, 300)", SOURCE)
    assert count == 1
    return text


def test_the_rows_are_the_papers():
    rows = {run.name: run for run in (*LLAMA3_RUNS, *QWEN2_RUNS)}
    assert set(rows) == set(TABLE)
    for name, numbers in TABLE.items():
        run = rows[name]
        assert (run.length, run.gpus, run.hours_a800, run.hours_h100, run.gpu_gb, run.host_gb) == numbers


@pytest.mark.parametrize("row", TABLE)
def test_the_fit_sees_llama_rows_and_no_qwen_row(row):
    same = constants_of(changed(row)) == repr(FITTED)
    assert same == row.startswith("qwen2")


def test_the_qwen_rows_are_predicted_within_thirty_percent():
    for run in QWEN2_RUNS:
        for name, told in predict(run, FITTED).items():
            assert told == pytest.approx(getattr(run, name), rel=0.3), (run.name, name)


def test_the_constants_are_of_this_world():
    for share in FITTED.speed.efficiency.values():
        assert 0.2 < share < 0.8
    assert 5e9 < FITTED.speed.network < 400e9  # between a slow PCIe link and NVLink
    assert 0 < FITTED.held < 16
    assert 0 < FITTED.process < 40e9


def test_the_share_of_the_peak_by_hand():
    """Llama-3-8B, 24,000 tokens: 8.03e9 parameters of which 0.525e9 are looked up, 32 layers of width 4096."""
    tokens = 10_000 * 24_000
    products = 6 * (8.03e9 - 0.525e9) + 2 * (8.03e9 - 2 * 0.525e9)
    attention = (6 + 2) * 32 * 4096 * 24_000
    for gpu, peak, hours in ((A800, 312e12, 26), (H100, 989e12, 16)):
        share = tokens * (products + attention) / (hours * 3600 * peak)
        assert FITTED.speed.efficiency[gpu.name] == pytest.approx(share, rel=0.01)


def test_runs_that_the_constants_made_give_the_constants_back():
    """A fit must find what is there: rows computed from known constants, in place of the paper's."""
    known = replace(FITTED, speed=replace(FITTED.speed, network=7e9), held=2.0, process=4e9)
    made = [replace(run, **predict(run, known)) for run in LLAMA3_RUNS]
    found = fit(made)
    assert found.speed.efficiency == pytest.approx(known.speed.efficiency)
    assert (found.speed.network, found.held, found.process) == pytest.approx((7e9, 2.0, 4e9))


def test_seconds_grow_with_what_is_asked_for():
    one = Setup(24_000, checkpointing="full")

    def seconds(setup: Setup, gpu=A800) -> float:
        return training_seconds(LLAMA3_8B, setup, gpu, FITTED.speed, 9600)

    assert seconds(one, H100) < seconds(one)
    assert seconds(replace(one, checkpointing="none")) == pytest.approx(seconds(one) * 3 / 4, rel=0.05)
    two = replace(one, ranks=2, micro_batches=48)
    gradients = 100 * 2 * 4 * LLAMA3_8B.parameters / 2 / FITTED.speed.network  # of DDP, in each of 100 steps
    assert seconds(two) == pytest.approx(seconds(one) / 2 + gradients)
    shared = replace(two, parallel="ring", sequence_ranks=2, micro_batches=96)
    assert seconds(shared) > seconds(two)
    short = Setup(128, checkpointing="full", sharding="zero3", cpu_offload=True)
    host_link = 9600 * 2 * 4 * LLAMA3_8B.parameters / A800.host_link  # fp32 weights twice for each short sequence
    assert seconds(short) == pytest.approx(host_link)


def test_bytes_from_host_memory_by_hand():
    """Weights twice over all ranks, in fp32; the inputs of 32 layers, 4096 wide, in fp32."""
    deepspeed = Setup(2048, ranks=4, sharding="zero3", cpu_offload=True)
    assert host_bytes_per_pass(LLAMA3_8B, deepspeed) == 2 * 4 * LLAMA3_8B.parameters / 4
    assert host_bytes_per_pass(LLAMA3_8B, replace(deepspeed, pure_bf16=True)) == 2 * 2 * LLAMA3_8B.parameters / 4
    away = Setup(2048, micro_batch=3, checkpointing="offload")
    assert host_bytes_per_pass(LLAMA3_8B, away) == 32 * 3 * 2048 * 4096 * 4
    assert host_bytes_per_pass(LLAMA3_8B, Setup(2048)) == 0


def test_bytes_between_ranks_by_hand():
    """Keys and values of 1024 in bf16: a ring of two passes one block in forward, two with gradients in backward."""
    ring = Setup(2048, ranks=2, parallel="ring", sequence_ranks=2)
    assert network_bytes_per_pass(LLAMA3_8B, ring) == 32 * 1024 * 2 * 1024 * 2 * 3
    heads = replace(ring, parallel="ulysses", head_ranks=2)  # half of queries, outputs, keys and values leave
    assert network_bytes_per_pass(LLAMA3_8B, heads) == 32 * 1024 * 2 * (4096 + 1024) * 2 / 2 * 2
    again = replace(heads, checkpointing="full")
    assert network_bytes_per_pass(LLAMA3_8B, again) == 1.5 * network_bytes_per_pass(LLAMA3_8B, heads)
    # Of ring attention `selective` saves what was exchanged; the all-to-all of heads is made again.
    selective = replace(heads, checkpointing="selective")
    assert network_bytes_per_pass(LLAMA3_8B, selective) == network_bytes_per_pass(LLAMA3_8B, again)
    saved, full = (replace(ring, checkpointing=option) for option in ("selective", "full"))
    assert network_bytes_per_pass(LLAMA3_8B, saved) == network_bytes_per_pass(LLAMA3_8B, ring)
    assert network_bytes_per_pass(LLAMA3_8B, full) == 4 / 3 * network_bytes_per_pass(LLAMA3_8B, ring)
    sharded = Setup(2048, ranks=4, sharding="fsdp2")  # fp32 weights twice, three quarters, and gradients each time
    assert network_bytes_per_pass(LLAMA3_8B, sharded) == 3 * 4 * LLAMA3_8B.parameters * 3 / 4
    assert network_bytes_per_step(LLAMA3_8B, sharded) == 0
    deepspeed = replace(sharded, sharding="zero3")  # the same
    assert network_bytes_per_pass(LLAMA3_8B, deepspeed) == 3 * 4 * LLAMA3_8B.parameters * 3 / 4
    assert network_bytes_per_step(LLAMA3_8B, deepspeed) == 0
