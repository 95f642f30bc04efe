"""The `index` artifact: which tokens make each training sample, and at which positions they stand.

One row per sample: `document` (row in the train split of `tokens`) and its runs, `token_start`, `position_start`,
`length`, as `list<int32>` each. A run is where tokens and positions are both consecutive, so the same three lists
describe every strategy and no text is copied.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longrecipe_core.corpus import TokenShards
from longrecipe_core.corpus.mixture import Mixture, Sources, schedule
from longrecipe_core.fan_out import Engine, Here
from longrecipe_core.positions.counts import Counts
from longrecipe_core.positions.draws import IndexPlan, Job, draw_job
from longrecipe_core.positions.index_shards import SAMPLES_PER_BATCH, index_writer
from longrecipe_core.recipe import ContextSection, PositionsSection, SelectionSection
from longrecipe_core.selection import TokenClasses

Ints = npt.NDArray[np.int64]
Log = Callable[[str], None]

SAMPLES_PER_LINE = 512
MANY_TOPPED_UP = 0.5
NEARLY_ALL_ANCHORS = 0.95


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
    mixture: Mixture | None = None,
    engine: Engine | None = None,
    progress: Log = lambda line: None,
) -> dict[str, Any]:
    """Draw all samples and write them as Arrow shards under `output`; the bytes don't depend on `engine`.

    Documents shorter than the train length are skipped and counted. With more samples than documents, documents come
    again in a new random order, with new draws; see `mixture.schedule` for weights and up-sampling.

    Args:
        tokens: The train documents, the stage's input `tokenize`.
        classes: Of the tokenizer that made them.
        output: An empty directory.
        context: Train and target length.
        selection: How sentences are selected.
        positions: How positions are drawn.
        samples: How many; one per document that is long enough when not given.
        seed: Of all draws.
        mixture: Of the sources; plain rounds over all documents when not given.
        engine: What runs the shards; this process when not given.
        progress: Takes lines, some of them warnings.

    Returns:
        Metrics for the manifest. Documents = used + skipped + left over; `sources` has counts per source, `selection`
        is `Counts.report` with the documents skipped.

    Raises:
        IndexingError: No document is long enough, a source with a weight has none that is, or a document holds ids
            outside the vocabulary.
    """
    lengths, sources = tokens.lengths, Sources.read(tokens)
    documents = schedule(
        lengths,
        sources,
        mixture or Mixture(),
        train_length=context.train_length,
        samples=samples,
        seed=seed,
        log=progress,
    )
    used = np.unique(documents)
    skipped = int((lengths < context.train_length).sum())
    _warn_of_lengths(lengths, used, skipped, context, progress)
    if positions.strategy == "gather":
        _warn_of_reach(lengths[documents], context, progress)
    plan = IndexPlan(classes, context, selection, positions, seed)
    total = Counts()
    with index_writer(output) as writer:
        results = (engine or Here()).each(draw_job, _jobs(plan, documents), {"tokenize": tokens.directory})
        for rows, counts in results:
            for row in rows:
                writer.append(row, 1)
            total += counts
            if total.samples % SAMPLES_PER_LINE == 0 or total.samples == documents.size:
                progress(f"index: {total.samples} of {documents.size} samples")
    _warn_of_selection(total, selection, progress)
    return {
        "documents": int(lengths.size),
        "documents_used": int(used.size),
        "documents_skipped_shorter_than_train_length": skipped,
        "documents_left_over": int(lengths.size) - int(used.size) - skipped,
        "samples": total.samples,
        "tokens": total.tokens_kept,
        "runs": total.runs,
        "mean_run_length": total.tokens_kept / total.runs,
        "sources": _by_source(sources, documents, context.train_length),
        "selection": {**total.report(), "documents_skipped_too_short": skipped},
    }


def _jobs(plan: IndexPlan, documents: Ints) -> Iterator[Job]:
    for start in range(0, documents.size, SAMPLES_PER_BATCH):
        yield Job(plan, start, documents[start : start + SAMPLES_PER_BATCH])


def _by_source(sources: Sources, documents: Ints, train_length: int) -> dict[str, dict[str, int]]:
    size = len(sources.labels)
    of_all = np.bincount(sources.numbers, minlength=size).tolist()
    of_samples = np.bincount(sources.numbers[documents], minlength=size).tolist()
    return {
        label: {"documents": of_all[i], "samples": of_samples[i], "tokens": of_samples[i] * train_length}
        for i, label in enumerate(sources.labels)
    }


def _warn_of_lengths(lengths: Ints, used: Ints, skipped: int, context: ContextSection, log: Log) -> None:
    if skipped:
        log(
            f"index: warning: {skipped} of {lengths.size} documents ({skipped / lengths.size:.1%}) are skipped: "
            f"shorter than context.train_length {context.train_length}"
        )
    cut = int((lengths[used] > context.target_length).sum())
    if cut:
        log(
            f"index: {cut} of {used.size} documents are cut at context.target_length {context.target_length}: nothing "
            f"behind it is trained on"
        )


def _warn_of_reach(lengths: Ints, context: ContextSection, log: Log) -> None:
    """`gather` reads tokens at their true positions, so that a document's end is the last position it trains."""
    short = int((lengths < context.target_length).sum())
    if short:
        log(
            f"index: warning: {short} of {lengths.size} samples are of documents below context.target_length "
            f"{context.target_length} and train no position behind their end (mean length "
            f"{np.minimum(lengths, context.target_length).mean():.0f}); corpus.minimum_tokens leaves such documents out"
        )


def _warn_of_selection(total: Counts, selection: SelectionSection, log: Log) -> None:
    if total.topped_up > MANY_TOPPED_UP * total.samples:
        log(
            f"index: warning: in {total.topped_up} of {total.samples} samples the anchor sentences don't fill "
            f"context.train_length; other sentences top them up ({total.anchor_tokens / total.tokens_kept:.1%} of the "
            f"tokens are of anchor sentences)"
        )
    if total.sentences_with_anchor > NEARLY_ALL_ANCHORS * total.sentences_read:
        log(
            f"index: warning: {total.sentences_with_anchor / total.sentences_read:.1%} of the sentences have an "
            f"anchor: selection {selection.strategy} is hardly better than random"
        )
