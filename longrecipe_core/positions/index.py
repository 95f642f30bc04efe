"""The `index` artifact: which tokens make each training sample, and at which positions they stand.

One row per sample: `document` (row in the train split of `tokens`) and its runs, `token_start`, `position_start`,
`length`, as `list<int32>` each. A run is where tokens and positions are both consecutive, so the same three lists
describe every strategy and no text is copied.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from longrecipe_core.corpus import TokenShards
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import IndexingError
from longrecipe_core.positions import make_positions
from longrecipe_core.recipe import ContextSection, PositionsSection, SelectionSection
from longrecipe_core.selection import TokenClasses, select_tokens

SCHEMA = pa.schema(
    [
        pa.field("document", pa.int64()),
        pa.field("token_start", pa.list_(pa.int32())),
        pa.field("position_start", pa.list_(pa.int32())),
        pa.field("length", pa.list_(pa.int32())),
    ]
)
SAMPLES_PER_SHARD = 512

Runs = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]


@dataclass(frozen=True)
class IndexPlan:
    """Everything that decides the bytes of an index, small enough to be sent to a worker process."""

    tokens: TokenShards
    classes: TokenClasses
    context: ContextSection
    selection: SelectionSection
    positions: PositionsSection
    seed: int
    documents: npt.NDArray[np.int64]
    """Document row of every sample, `[samples]`."""


def build_index(
    tokens: TokenShards,
    classes: TokenClasses,
    output: Path,
    *,
    context: ContextSection,
    selection: SelectionSection,
    positions: PositionsSection,
    samples: int | None,
    seed: int,
    workers: int = 1,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Draw all samples and write them as Arrow shards under `output`; the bytes don't depend on `workers`.

    Documents shorter than the train length are skipped and counted. With more samples than documents, documents come
    again in a new random order, with new draws.

    Returns:
        Counts: documents, documents skipped as too short, samples, tokens, runs, mean run length.

    Raises:
        IndexingError: No document is long enough.
    """
    lengths = tokens.lengths
    eligible = np.flatnonzero(lengths >= context.train_length)
    if eligible.size == 0:
        longest = int(lengths.max()) if lengths.size else 0
        raise IndexingError(
            f"none of {lengths.size} documents has context.train_length {context.train_length} tokens "
            f"(the longest has {longest}): take longer documents or a shorter train length"
        )
    plan = IndexPlan(
        tokens,
        classes,
        context,
        selection,
        positions,
        seed,
        _schedule(eligible, samples or eligible.size, seed),
    )
    count = plan.documents.size
    shards = [(start, min(start + SAMPLES_PER_SHARD, count)) for start in range(0, count, SAMPLES_PER_SHARD)]
    runs = 0
    for shard, written in enumerate(_each_shard(plan, shards, output, workers)):
        runs += written
        progress(f"index: {shards[shard][1]} of {count} samples")
    total = count * context.train_length
    return {
        "documents": int(lengths.size),
        "documents_skipped_shorter_than_train_length": int(lengths.size - eligible.size),
        "samples": int(count),
        "tokens": int(total),
        "runs": runs,
        "mean_run_length": total / runs,
    }


def draw_sample(plan: IndexPlan, sample: int) -> Runs:
    """Runs of one sample. Its draws depend on seed, document and sample number only, on no shard and no worker."""
    row = int(plan.documents[sample])
    rng = generator(plan.seed, "index", plan.tokens.document_id(row), sample)
    input_ids = plan.tokens.input_ids(row)[: plan.context.target_length]
    starts, lengths = select_tokens(plan.selection.strategy, input_ids, plan.context.train_length, plan.classes, rng)
    options: dict[str, Any] = {}
    segments = lengths
    if plan.positions.strategy == "longrecipe":
        segments = group_sentences(lengths, plan.positions.sentences_per_segment, rng)
    elif plan.positions.strategy == "pose":
        options["chunks"] = plan.positions.chunks
    drawn = make_positions(plan.positions.strategy, segments, plan.context.target_length, rng, **options)
    before = np.cumsum(lengths) - lengths
    rows = np.arange(drawn.size, dtype=np.int64) + np.repeat(starts - before, lengths)
    return as_runs(rows, drawn)


def group_sentences(
    lengths: npt.NDArray[np.int64], sentences_per_segment: tuple[int, int], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Join neighbouring sentences into segments of a uniformly drawn number of them; int64 `[segments]`."""
    least, most = sentences_per_segment
    if most == 1:
        return lengths
    sizes = rng.integers(least, most, size=-(-lengths.size // least), endpoint=True)
    firsts = np.concatenate([[0], np.cumsum(sizes)])
    return np.add.reduceat(lengths, firsts[firsts < lengths.size])


def as_runs(rows: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> Runs:
    """Cut `[n]` token rows and position ids where either jumps; returns token starts, position starts, lengths."""
    jumps = np.flatnonzero((np.diff(rows) != 1) | (np.diff(positions) != 1)) + 1
    firsts = np.concatenate([[0], jumps])
    lengths = np.diff(np.append(firsts, rows.size))
    return rows[firsts].astype(np.int32), positions[firsts].astype(np.int32), lengths.astype(np.int32)


def _schedule(eligible: npt.NDArray[np.int64], samples: int, seed: int) -> npt.NDArray[np.int64]:
    rounds = -(-samples // eligible.size)
    drawn = [generator(seed, "schedule", number).permutation(eligible) for number in range(rounds)]
    return np.concatenate(drawn)[:samples].astype(np.int64)


def _each_shard(plan: IndexPlan, shards: list[tuple[int, int]], output: Path, workers: int) -> Iterator[int]:
    output.mkdir(parents=True, exist_ok=True)
    jobs = [(plan, start, end, output / f"index-{number:05d}.arrow") for number, (start, end) in enumerate(shards)]
    if workers == 1 or len(jobs) == 1:
        yield from map(_write_shard, jobs)
        return
    # spawn: a fork would copy the locks of threads that Arrow and the caller have started.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        yield from pool.map(_write_shard, jobs)


def _write_shard(job: tuple[IndexPlan, int, int, Path]) -> int:
    plan, start, end, path = job
    rows = [draw_sample(plan, sample) for sample in range(start, end)]
    lists = [pa.array([row[part] for row in rows], type=pa.list_(pa.int32())) for part in range(3)]
    batch = pa.record_batch([pa.array(plan.documents[start:end]), *lists], schema=SCHEMA)
    # Not compressed: readers map the file and touch only the samples that they want.
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(batch)
    return sum(row[2].size for row in rows)
