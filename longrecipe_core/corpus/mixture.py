"""Which document each training sample comes from: weights of sources, and more long documents inside each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from longrecipe_core.corpus.randomness import generator
from longrecipe_core.corpus.shards import TokenShards
from longrecipe_core.errors import ArtifactDamagedError, IndexingError
from longrecipe_core.recipe import CorpusSection, UpsamplingSection

Ints = npt.NDArray[np.int64]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Mixture:
    """What a recipe says about it; nothing by default."""

    weights: tuple[float, ...] | None = None
    """One per source of the recipe."""
    upsampling: UpsamplingSection | None = None

    @classmethod
    def of(cls, corpus: CorpusSection) -> Self:
        """The mixture of a recipe's corpus."""
        weights = tuple(source.weight for source in corpus.sources if source.weight is not None)
        return cls(weights or None, corpus.upsampling)


@dataclass(frozen=True)
class Sources:
    """The source of every document: `labels[numbers[row]]`, as `0-text`; labels in the order of the recipe."""

    labels: tuple[str, ...]
    numbers: Ints

    @classmethod
    def read(cls, tokens: TokenShards) -> Self:
        """Of all documents of a split, read as a column; a look-up per row would take minutes for millions."""
        documents = len(tokens)  # opens the files, and so checks them
        paths = sorted(tokens.directory.glob("train-*.arrow"))
        chunks: list[pa.Array] = []
        for path in paths:
            chunks += pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("source").chunks
        column = pa.chunked_array(chunks, type=pa.string())
        if len(column) != documents:
            raise ArtifactDamagedError(f"{tokens.directory}: {len(column)} sources for {documents} train documents")
        labels = sorted(column.unique().to_pylist(), key=source_number)
        numbers = pc.index_in(column, pa.array(labels, type=pa.string())).to_numpy().astype(np.int64)
        return cls(tuple(labels), numbers)


def source_number(label: str) -> int:
    """Which of the recipe's sources a label names: 2 for `2-jsonl`."""
    number, _, _ = label.partition("-")
    if not number.isdecimal():
        raise IndexingError(f"source {label!r} of a document is not one of a recipe: its number comes first")
    return int(number)


def schedule(
    lengths: Ints,
    sources: Sources,
    mixture: Mixture,
    *,
    train_length: int,
    samples: int | None,
    seed: int,
    log: Log = lambda line: None,
) -> Ints:
    """The document row of every sample, int64 `[samples]`. Documents shorter than `train_length` are never taken.

    Without weights and up-sampling, every document comes once in a random order, then all again in another. With
    weights each source has its share of the samples; with up-sampling only, its share of the tokens of all train
    documents, also of those too short: Fu et al. 2024 (arXiv 2402.10171, section 3) keep the mix of sources. Inside a
    source, `upsampling.share` of the samples are of documents longer than `longer_than`. Counts are exact, by largest
    remainder; each group's documents come in rounds, and all samples are then shuffled.

    Args:
        lengths: Tokens of each document, int64 `[documents]`.
        sources: Of the same documents.
        mixture: What the recipe says.
        train_length: Tokens that a document must have.
        samples: How many; as many as there are documents to take when not given.
        seed: Of all draws.
        log: Takes one line per source, where there is anything to say.

    Raises:
        IndexingError: No document is long enough; or none of a source that has a weight.
    """
    rows = np.flatnonzero(lengths >= train_length)
    if rows.size == 0:
        raise IndexingError(
            f"none of {lengths.size} documents has context.train_length {train_length} tokens "
            f"(the longest has {int(lengths.max(initial=0))}): take longer documents or a shorter train length"
        )
    samples = samples or rows.size
    if mixture.weights is None and mixture.upsampling is None:
        return _rounds(rows, samples, seed)
    parts = []
    shares = _shares(lengths, sources, mixture, train_length, log)
    for label, count in zip(shares, apportion(samples, list(shares.values())), strict=True):
        own = rows[sources.numbers[rows] == sources.labels.index(label)]
        for group, members, drawn in _groups(label, own, lengths[own], count, mixture.upsampling, log):
            parts.append(_rounds(members, drawn, seed, label, group))
    return generator(seed, "schedule", "order").permutation(np.concatenate(parts))


def apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole numbers in proportion to `shares` that sum to `total`: by largest remainder, the first among equals."""
    quotas = [total * share / sum(shares) for share in shares]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: (counts[i] - quotas[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _shares(lengths: Ints, sources: Sources, mixture: Mixture, train_length: int, log: Log) -> dict[str, Fraction]:
    """The share of each source that has one, in any unit."""
    longest = {label: int(lengths[sources.numbers == i].max()) for i, label in enumerate(sources.labels)}
    able = [label for label in sources.labels if longest[label] >= train_length]
    if mixture.weights is None:
        for label in sources.labels:
            if label not in able:
                log(
                    f"mixture: warning: source {label} gives no sample, and the others have its share: its longest "
                    f"document has {longest[label]} tokens, context.train_length is {train_length}"
                )
        tokens = np.bincount(sources.numbers, weights=lengths, minlength=len(sources.labels))
        return {label: Fraction(int(tokens[sources.labels.index(label)])) for label in able}
    by_number = {source_number(label): label for label in sources.labels}
    if max(by_number) >= len(mixture.weights):
        raise IndexingError(
            f"source {by_number[max(by_number)]} of the tokens has no weight: corpus.sources has {len(mixture.weights)}"
        )
    for number, weight in enumerate(mixture.weights):
        label = by_number.get(number, "")
        if label not in able:
            found = f"its longest has {longest[label]}" if label else "it has no train document"
            raise IndexingError(
                f"corpus.sources.{number} has weight {weight:g} and no document of context.train_length {train_length} "
                f"tokens ({found}): give it longer documents, leave it out or take a shorter train length"
            )
    return {by_number[number]: Fraction(str(weight)) for number, weight in enumerate(mixture.weights)}


def _groups(
    label: str, rows: Ints, lengths: Ints, count: int, upsampling: UpsamplingSection | None, log: Log
) -> list[tuple[str, Ints, int]]:
    """Name, documents and number of samples of each group of one source."""
    if upsampling is None:
        log(f"mixture: source {label}: {count} samples of {rows.size} documents")
        return [("all", rows, count)]
    is_long = lengths > upsampling.longer_than
    long, short = rows[is_long], rows[~is_long]
    share = Fraction(str(upsampling.share))  # the recipe's decimal, not its binary neighbour
    of_long, of_short = apportion(count, [share, 1 - share])
    if long.size == 0 or short.size == 0:
        of_long, of_short = (0, count) if long.size == 0 else (count, 0)
        log(
            f"mixture: warning: source {label} can't be up-sampled: {'none' if long.size == 0 else 'all'} of its "
            f"{rows.size} documents are longer than {upsampling.longer_than} tokens"
        )
    log(
        f"mixture: source {label}: {of_long} samples of {long.size} documents longer than {upsampling.longer_than} "
        f"tokens, {of_short} of {short.size} others"
    )
    return [("long", long, of_long), ("short", short, of_short)]


def _rounds(rows: Ints, count: int, seed: int, *words: Any) -> Ints:
    """Every document once in a random order, then all again in another, until there are `count`."""
    rounds = -(-count // rows.size) if count else 0
    drawn = [generator(seed, "schedule", *words, number).permutation(rows) for number in range(rounds)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *drawn])[:count].astype(np.int64)
