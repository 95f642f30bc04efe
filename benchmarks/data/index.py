"""The index against the plain way, its size on disk, and how fast samples are read back."""

import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.data import prose
from benchmarks.data.plain_index import write_plain_index
from benchmarks.figures import Figure, Report, interleaved, median_ratio
from longrecipe_core.corpus import TokenShards, load_tokenizer
from longrecipe_core.fan_out import Here
from longrecipe_core.positions.index import build_index
from longrecipe_core.positions.samples import IndexedSamples
from longrecipe_core.recipe import ContextSection, PositionsSection, SelectionSection
from longrecipe_core.selection import TokenClasses, token_classes

TRAIN, TARGET, ROUNDS, SEED = 24_000, 80_000, 3, 2027
READS = 1000


@dataclass(frozen=True)
class Work:
    """The same documents for both ways, `ROUNDS` times each, and a directory to write into."""

    tokens: Path
    documents: list[list[int]]
    classes: TokenClasses
    sentence_ends: set[int]
    digits: set[int]
    scratch: Path

    def ours(self) -> Path:
        """Build the index in one process; every call into a directory of its own, kept until the end."""
        output = Path(tempfile.mkdtemp(prefix="index-", dir=self.scratch))
        build_index(
            TokenShards(self.tokens, "train"),
            self.classes,
            output,
            context=ContextSection(target_length=TARGET, train_length=TRAIN),
            selection=SelectionSection(strategy="digits"),
            positions=PositionsSection(strategy="longrecipe"),
            samples=len(self.documents),
            seed=SEED,
            engine=Here(),
        )
        return output

    def plain(self) -> Path:
        """Build it token by token."""
        output = Path(tempfile.mkdtemp(prefix="plain-", dir=self.scratch))
        write_plain_index(
            self.documents,
            self.sentence_ends,
            self.digits,
            output,
            train_length=TRAIN,
            target_length=TARGET,
            seed=SEED,
        )
        return output


@contextmanager
def work() -> Iterator[Work]:
    """Documents of 80,000 tokens of prose. The plain way has lists and sets before its clock starts."""
    prose.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prose.CACHE) as scratch:
        tokens = Path(scratch) / "tokens"
        prose.write_long_documents(tokens, TARGET)
        shards = TokenShards(tokens, "train")
        documents = [shards.input_ids(row).tolist() for row in range(len(shards))] * ROUNDS
        classes = token_classes(load_tokenizer(prose.tokenizer()))
        ends, digits = (set(np.flatnonzero(flags).tolist()) for flags in (classes.ends_sentence, classes.anchor))
        yield Work(tokens, documents, classes, ends, digits, Path(scratch))


def measure(report: Report) -> None:
    """`index_speedup`, `index_bytes_ratio`, `sample_load_ms`, and the speeds behind them."""
    with work() as on:
        index, plain = on.ours(), on.plain()  # not timed: first calls import and open files
        samples, tokens = len(on.documents), len(on.documents) * TRAIN
        ours, theirs = interleaved(on.ours, on.plain)
        detail = {"samples": samples, "ours_seconds": ours, "plain_seconds": theirs}
        report.add(Figure("index_speedup", median_ratio(theirs, ours), "x", ">= 40", detail))
        sizes = {"ours_bytes": size(index), "plain_bytes": size(plain)}
        report.add(Figure("index_bytes_ratio", sizes["ours_bytes"] / sizes["plain_bytes"], "ratio", "<= 0.15", sizes))
        report.add(Figure("index_samples_per_second", samples / statistics.median(ours), "samples/s"))
        report.add(Figure("index_plain_tokens_per_second", tokens / statistics.median(theirs), "tokens/s"))
        report.add(sample_load(index, on.tokens))


def sample_load(index: Path, tokens: Path) -> Figure:
    """Milliseconds to gather the tokens and positions of a random sample, by the memory map, in cache."""
    rows = IndexedSamples(index, tokens)
    draw = random.Random(SEED)
    taken = []
    for _ in range(READS):
        number = draw.randrange(len(rows))
        started = time.perf_counter()
        ids, _ = rows[number]
        taken.append((time.perf_counter() - started) * 1e3)
        assert len(ids) == TRAIN
    detail = {"p90_ms": statistics.quantiles(taken, n=10)[-1], "reads": READS}
    return Figure("sample_load_ms", statistics.median(taken), "ms", "<= 0.5", detail)


def size(directory: Path) -> int:
    """Bytes of all files in a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
