"""The draws of training samples: which tokens of a document, and at which positions. One job is some samples."""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longrecipe_core.corpus import TokenShards
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import IndexingError
from longrecipe_core.fan_out import Inputs
from longrecipe_core.positions import make_positions
from longrecipe_core.positions.counts import Counts
from longrecipe_core.positions.options import strategy_options
from longrecipe_core.recipe import ContextSection, PositionsSection, SelectionSection
from longrecipe_core.selection import Selected, TokenClasses, select_tokens, sentence_starts

Ints = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
Row = tuple[int, Int32Array, Int32Array, Int32Array]
"""A row of the index: document, token starts, position starts, lengths."""

BY_SENTENCES = ("longrecipe", "longrecipe-fixed", "gather")


@dataclass(frozen=True)
class IndexPlan:
    """What decides the draws beside the documents. The two facts per vocabulary entry are a quarter of a megabyte at
    128,000 entries: sent with each job they cost less than a worker that imports transformers to find them."""

    classes: TokenClasses
    context: ContextSection
    selection: SelectionSection
    positions: PositionsSection
    seed: int


@dataclass(frozen=True)
class Job:
    """Samples `first, first + 1, …` of the documents in these rows."""

    plan: IndexPlan
    first: int
    documents: Ints


def draw_job(inputs: Inputs, job: Job) -> tuple[list[Row], Counts]:
    """The rows of a job and their counts, from the `tokenize` input of the machine that it runs on."""
    directory = inputs["tokenize"]
    about = directory.stat()
    tokens = _open(str(directory), about.st_ino, about.st_mtime_ns)
    rows, total = [], Counts()
    for place, row in enumerate(job.documents.tolist()):
        drawn, counts = draw_sample(job.plan, tokens, row, job.first + place)
        rows.append(drawn)
        total += counts
    return rows, total


@functools.lru_cache(maxsize=1)
def _open(directory: str, inode: int, changed: int) -> TokenShards:
    """Opened once per worker and not once per job; another directory of the same name is another one."""
    return TokenShards(directory, "train")


def draw_sample(plan: IndexPlan, tokens: TokenShards, row: int, sample: int) -> tuple[Row, Counts]:
    """One sample of the document in `row`. Its draws depend on seed, document and sample number only.

    Raises:
        IndexingError: The document is shorter than the train length, or holds ids outside the vocabulary.
    """
    rng = generator(plan.seed, "index", tokens.document_id(row), sample)
    whole = tokens.input_ids(row)
    input_ids = whole[: plan.context.target_length]
    _check(input_ids, plan, tokens, row)
    gather = plan.positions.strategy == "gather"
    if gather:
        selected, rows, positions = _gather(plan, input_ids, rng)
    else:
        selected = select_tokens(plan.selection.strategy, input_ids, plan.context.train_length, plan.classes, rng)
        positions = _positions(plan, selected.lengths, plan.context.target_length, rng)
        before = np.cumsum(selected.lengths) - selected.lengths
        rows = np.arange(positions.size, dtype=np.int64) + np.repeat(selected.starts - before, selected.lengths)
    token_start, position_start, length = as_runs(rows, positions)
    if rows.size != plan.context.train_length:
        raise IndexingError(f"sample {sample} has {rows.size} tokens, not {plan.context.train_length}")
    counts = Counts.of_sample(selected, rows, len(input_ids), len(whole), runs=length.size)
    return (row, token_start, position_start, length), counts


def _check(input_ids: Int32Array, plan: IndexPlan, tokens: TokenShards, row: int) -> None:
    name = f"{tokens.directory}: train row {row}, document {tokens.document_id(row)}"
    if len(input_ids) < plan.context.train_length:
        raise IndexingError(f"{name}: {len(input_ids)} tokens can't fill a train length of {plan.context.train_length}")
    vocabulary = plan.classes.ends_sentence.size
    # Read as unsigned, a negative id is a large one.
    if int(input_ids.view(np.uint32).max()) >= vocabulary:
        wrong = input_ids[(input_ids < 0) | (input_ids >= vocabulary)]
        raise IndexingError(
            f"{name}: holds token id {wrong[0]}, outside the tokenizer's 0..{vocabulary - 1}; another tokenizer made it"
        )


def _gather(plan: IndexPlan, input_ids: Int32Array, rng: np.random.Generator) -> tuple[Selected, Ints, Ints]:
    """The text itself is skipped: the tokens at the drawn positions, each at its true one.

    Sentences of the first `n` tokens only say how long the pieces are, as in the reference. Position 0 is always drawn,
    so a leading BOS stays.
    """
    n = plan.context.train_length
    starts = sentence_starts(input_ids, plan.classes.ends_sentence)
    cuts = starts[starts < n]
    lengths = np.diff(np.append(cuts, n))
    positions = _positions(plan, lengths, len(input_ids), rng)
    touched = np.unique(np.searchsorted(starts, positions, side="right"))
    selected = Selected(cuts, lengths, starts.size, touched.size, 0, 0, topped_up=False)
    return selected, positions, positions


def _positions(plan: IndexPlan, lengths: Ints, target_length: int, rng: np.random.Generator) -> Ints:
    section = plan.positions
    if section.strategy in BY_SENTENCES:
        lengths = group_sentences(lengths, section.sentences_per_segment, rng)
    return make_positions(section.strategy, lengths, target_length, rng, **strategy_options(section, section.strategy))


def group_sentences(lengths: Ints, sentences_per_segment: tuple[int, int], rng: np.random.Generator) -> Ints:
    """Join neighbouring sentences into segments of a uniformly drawn number of them; int64 `[segments]`."""
    least, most = sentences_per_segment
    if most == 1:
        return lengths
    sizes = rng.integers(least, most, size=-(-lengths.size // least), endpoint=True)
    firsts = np.concatenate([[0], np.cumsum(sizes)])
    return np.add.reduceat(lengths, firsts[firsts < lengths.size])


def as_runs(rows: Ints, positions: Ints) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Cut `[n]` token rows and position ids where either jumps; returns token starts, position starts, lengths."""
    jumps = np.flatnonzero((np.diff(rows) != 1) | (np.diff(positions) != 1)) + 1
    firsts = np.concatenate([[0], jumps])
    lengths = np.diff(np.append(firsts, rows.size))
    return rows[firsts].astype(np.int32), positions[firsts].astype(np.int32), lengths.astype(np.int32)
