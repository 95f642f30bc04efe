"""Measure every model on the same documents and prompts."""

import os
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from longrecipe_core.corpus import TokenShards
from longrecipe_core.evaluation.benchmark_tasks import BenchmarkTasks, check_tasks
from longrecipe_core.evaluation.check import check_measures
from longrecipe_core.evaluation.job import EvaluationJob
from longrecipe_core.evaluation.measurements import Key, Measurements, Row
from longrecipe_core.evaluation.nll import choose_documents
from longrecipe_core.evaluation.paired import write_documents
from longrecipe_core.evaluation.plot import plot_needles, plot_nll
from longrecipe_core.evaluation.retrieval import longest, tasks
from longrecipe_core.evaluation.ruler import Haystack
from longrecipe_core.evaluation.subject import Subject
from longrecipe_core.evaluation.summary import ruler_summary
from longrecipe_core.evaluation.table import SCHEMA, weighted_mean

KeyTokens = tuple[str, npt.NDArray[np.bool_]]
"""Who found them, and `long_ppl.key_tokens`."""
LONG_PPL = ("long_ppl", None, None)


def evaluate(job: EvaluationJob) -> None:
    """Write `evaluation.parquet`, `documents.parquet`, `nll.png` and, for needles, `needles.png` into the job's output.

    The rows are those of `table.SCHEMA`; docs/evaluation.md tells what each measure is.

    Raises:
        EvaluationError: A measurement can't be taken: documents or lengths are too short, a file can't be read.
    """
    torch.set_num_threads(job.threads or os.cpu_count() or 1)
    shards = TokenShards(job.tokens, "validation")
    documents, lengths = choose_documents(shards, job.evaluation, job.target_length, job.seed)
    # Also here: where only the evaluation is new, no stage before it has run and looked.
    first = Subject(job.models[0], job, documents, lengths)
    check_measures(
        job.evaluation, lambda: first.tokenizer, shards, lengths, target_length=job.target_length, seed=job.seed
    )
    found = Measurements(job.measurements)
    benchmarks = _benchmarks(job, found)
    rows: list[Row] = []
    keys: KeyTokens | None = None
    wanted = job.evaluation.long_ppl is not None and any((entry.name, *LONG_PPL) not in found for entry in job.models)
    if wanted and job.evaluator is not None:
        # Before the others, so that no two models are loaded at a time.
        keys = job.evaluator.name, Subject(job.evaluator, job, documents, lengths).key_tokens
    for number, entry in enumerate(job.models, start=1):
        own = _rows(Subject(entry, job, documents, lengths), keys, job, found, benchmarks)
        rows += [{"model": entry.name, "seed": job.seed} | row for row in own]
        mean = weighted_mean([row for row in own if row["measure"] == "nll"])
        print(
            f"model {number} of {len(job.models)}, {entry.name}: NLL {mean:.4f} over {len(documents)} documents",
            flush=True,
        )
    job.output.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), job.output / "evaluation.parquet")
    write_documents(rows, job.output)
    plot_nll(rows, job.window, job.output / "nll.png")
    if any(row["measure"] == "needle" and row["depth"] is not None for row in rows):
        plot_needles(rows, job.output / "needles.png")


def _benchmarks(job: EvaluationJob, found: Measurements) -> BenchmarkTasks | None:
    """What all models are asked; looked at before anything is measured, where something of it is left to measure."""
    section = job.evaluation.benchmarks
    if section is None:
        return None
    if any((entry.name, "benchmark", task, None) not in found for entry in job.models for task in section.tasks):
        check_tasks(section)
    return BenchmarkTasks(section, job.models[0].directory, job.seed)


def _rows(
    subject: Subject,
    keys: KeyTokens | None,
    job: EvaluationJob,
    found: Measurements,
    benchmarks: BenchmarkTasks | None,
) -> list[Row]:
    """All of one model."""
    rows: list[Row] = []
    for (measure, task, length), take in _measures(subject, keys, job, found, benchmarks):
        key: Key = (subject.name, measure, task, length)
        if key not in found:
            print(f"{subject.name}: measures", *(part for part in key[1:] if part is not None), flush=True)
        rows += found.take(key, take)
    if job.evaluation.ruler is not None:
        rows += ruler_summary(rows, job.evaluation.ruler.threshold)
    return rows


def _measures(
    subject: Subject,
    keys: KeyTokens | None,
    job: EvaluationJob,
    found: Measurements,
    benchmarks: BenchmarkTasks | None,
) -> Iterator[tuple[tuple[str, str | None, int | None], Callable[[], list[Row]]]]:
    """Measure, task and length of every measurement, and what takes it."""
    section = job.evaluation
    yield ("nll", None, None), subject.nll_rows
    if section.long_ppl is not None:
        yield LONG_PPL, lambda: subject.long_ppl_rows(*(keys or (subject.name, subject.key_tokens)))
    for length in section.context_nll.lengths if section.context_nll is not None else ():
        yield ("context_nll", None, length), partial(subject.context_rows, length)
    for distance in section.passkey.distances if section.passkey is not None else ():
        yield ("passkey", None, distance), partial(subject.passkey_rows, distance)
    for distance in section.copying.distances if section.copying is not None else ():
        yield ("copying", None, distance), partial(subject.copying_rows, distance)

    @cache
    def haystack() -> Haystack:
        shards = TokenShards(job.tokens, "validation")
        return Haystack.of_documents(shards, subject.tokenizer, longest(section), job.seed)

    for measure, task, length, cells in tasks(section, haystack):
        noted = found.answers((subject.name, measure, task, length))
        yield (measure, task, length), partial(subject.ask_rows, measure, task, length, cells, noted)
    if benchmarks is not None:
        for task in benchmarks.section.tasks:
            yield ("benchmark", task, None), partial(subject.benchmark_rows, task, benchmarks, found)
