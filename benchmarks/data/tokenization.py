"""The tokenize stage against the bare tokenizer, and against the `map` of Hugging Face datasets."""

import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt

from benchmarks.data import prose
from benchmarks.figures import Figure, Report, interleaved, median_ratio
from longrecipe_core.corpus import TokenShards, load_tokenizer, tokenize
from longrecipe_core.fan_out import local_engine
from longrecipe_core.recipe.sections import SourceSection

TEXT_MB = 25
CORES = 2


@dataclass(frozen=True)
class Work:
    """One JSON lines file, its texts, the tokenizer, and a directory to write into."""

    source: SourceSection
    texts: list[str]
    scratch: Path

    def ours(self, workers: int | None = None) -> Path:
        """The whole stage: read, tokenize, digest, write shards; by default a process per core, as in a run."""
        output = self.scratch / f"ours-{workers}"
        shutil.rmtree(output, ignore_errors=True)
        tokenize([self.source], prose.tokenizer(), output, validation_share=0.0, engine=local_engine(workers))
        return output

    def bare(self) -> list[npt.NDArray[np.int32]]:
        """Texts in memory to arrays in memory, nothing else; a tokenizer of its own each time, as ours has."""
        backend: Any = load_tokenizer(prose.tokenizer()).backend_tokenizer
        encodings = backend.encode_batch_fast(self.texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def mapped(self) -> Any:
        """The same file to an Arrow data set of ids, by two processes; a fresh cache each time."""
        cache = self.scratch / "datasets"
        shutil.rmtree(cache, ignore_errors=True)
        tokenizer = load_tokenizer(prose.tokenizer())

        def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            ids = tokenizer(rows["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
            return {"input_ids": ids["input_ids"]}

        loaded = datasets.load_dataset("json", data_files=self.source.path, split="train", cache_dir=str(cache))
        return loaded.map(encode, batched=True, batch_size=16, num_proc=CORES, remove_columns=["text"])


@contextmanager
def work() -> Iterator[Work]:
    """About 25 MB of prose, some 190 documents of 130 kB."""
    prose.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prose.CACHE) as scratch:
        source = prose.write_jsonl(Path(scratch) / "prose.jsonl", TEXT_MB * 1e6)
        with open(source.path, encoding="utf-8") as file:
            texts = [json.loads(line)["text"] for line in file]
        yield Work(source, texts, Path(scratch))


def measure(report: Report) -> None:
    """`tokenize_efficiency`, `tokenize_vs_datasets_map` and the speed behind them.

    Ours is the stage as it is by default; one process, whose tokenizer has a thread per core, is told beside it.
    """
    datasets.disable_progress_bars()
    with work() as on:
        check_same(on)  # also the first, untimed call of each
        ours, alone, bare, mapped = interleaved(on.ours, lambda: on.ours(1), on.bare, on.mapped)
        tokens = int(TokenShards(on.ours()).lengths.sum())
    detail = {"documents": len(on.texts), "tokens": tokens, "ours_seconds": ours, "bare_seconds": bare}
    detail |= {"alone_seconds": alone, "map_seconds": mapped}
    report.add(Figure("tokenize_efficiency", median_ratio(bare, ours), "ratio", ">= 0.9", detail))
    report.add(Figure("tokenize_vs_datasets_map", median_ratio(mapped, ours), "x", ">= 1.0", detail))
    report.add(Figure("tokenize_one_process_efficiency", median_ratio(bare, alone), "ratio"))
    report.add(Figure("tokenize_one_process_vs_datasets_map", median_ratio(mapped, alone), "x"))
    report.add(Figure("tokenize_tokens_per_second", tokens / statistics.median(ours), "tokens/s"))


def check_same(on: Work) -> None:
    """All three must give the same ids, document by document; else the comparison would mean nothing."""
    shards, bare, mapped = TokenShards(on.ours()), on.bare(), on.mapped()
    if not len(shards) == len(bare) == len(mapped) == len(on.texts):
        raise SystemExit(f"{len(on.texts)} documents became {len(shards)}, {len(bare)} and {len(mapped)}")
    for row, (ids, other) in enumerate(zip(bare, mapped.with_format("numpy"), strict=True)):
        if not (np.array_equal(shards.input_ids(row), ids) and np.array_equal(other["input_ids"], ids)):
            raise SystemExit(f"document {row}: the three ways give different ids")
