"""The `impact` artifact: which token types a longer context helps (paper, section 4.1, Eq. 3)."""

import json
import os
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from longrecipe_core.corpus import TokenShards, load_tokenizer
from longrecipe_core.errors import ModelError
from longrecipe_core.scoring.classes import class_masses, class_table, plot_classes, write_classes
from longrecipe_core.scoring.differences import TypeSums, add_differences, short_hidden
from longrecipe_core.scoring.job import ScoringJob
from longrecipe_core.scoring.models import ScoredModel, check_same_vocabulary, find_device, load_scored
from longrecipe_core.scoring.sample import choose_rows
from longrecipe_core.scoring.vocabulary import Vocabulary, read_vocabulary
from longrecipe_core.selection.impact import SCHEMA, share_of, write_impact


def score(job: ScoringJob) -> None:
    """Write `impact.arrow`, `classes.parquet` and `classes.png` into the job's output directory, and its metrics.

    Raises:
        EvaluationError: No document is long enough.
        ModelError: A model can't be read, the two don't share a vocabulary, or their numbers are not finite.
        RecipeError: A device is not there.
    """
    torch.set_num_threads(job.launch.threads or os.cpu_count() or 1)
    tokens = TokenShards(job.tokens, "train")
    rows = choose_rows(tokens, job.score, job.length, job.seed)
    if job.length > job.window:
        print(
            f"score: length {job.length} is above the base model's window {job.window}; beyond it the base model "
            f"predicts badly whatever the token, and the scores are of that",
            flush=True,
        )
    tokenizer = load_tokenizer(job.base, job.base_trust)
    base, extended = _load(job, tokenizer)
    sums = TypeSums(base.vocabulary)
    # Fewer than `top * vocabulary` entries are fewer than that number rounded up.
    top = share_of(job.score.top, base.vocabulary)
    for number, row in enumerate(rows):
        document = torch.from_numpy(tokens.input_ids(int(row))[: job.length].astype(np.int64))
        _add_document(sums, job, base, extended, document, top)
        if (number + 1) % max(1, len(rows) // 10) == 0:  # a line per tenth
            print(f"score: document {number + 1} of {len(rows)}, {int(sums.count.sum())} tokens", flush=True)
    job.output.mkdir(parents=True, exist_ok=True)
    vocabulary = read_vocabulary(tokenizer)
    write_impact(job.output, _impact_table(vocabulary, sums))
    classes = class_table(vocabulary.classes, sums.count, sums.score, sums.top)
    write_classes(job.output, classes)
    plot_classes(classes, job.output)
    figures = {
        "documents": len(rows),
        "tokens": int(sums.count.sum()),
        "length": job.length,
        "short_length": job.short_length,
        "vocabulary": base.vocabulary,
        "types_seen": int((sums.count > 0).sum()),
        "classes": class_masses(classes),
    }
    job.metrics.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def _load(job: ScoringJob, tokenizer: Any) -> tuple[ScoredModel, ScoredModel]:
    """H and H'; one and the same for source long-short."""
    devices = [find_device(name) for name in job.launch.score_devices]
    bf16 = job.score.precision == "bf16"
    if job.extended is None:
        base = load_scored(job.base, tokenizer, device=devices[0], bf16=bf16, trust=job.base_trust)
        return base, base
    check_same_vocabulary(tokenizer, load_tokenizer(job.extended, job.extended_trust), job.extended)
    base = load_scored(job.base, tokenizer, device=devices[0], bf16=bf16, trust=job.base_trust)
    extended = load_scored(job.extended, tokenizer, device=devices[1], bf16=bf16, trust=job.extended_trust)
    window = getattr(extended.model.config, "max_position_embeddings", None)
    if window is not None and window < job.length:
        print(f"score: length {job.length} is above the extended model's window {window} too", flush=True)
    return base, extended


def _add_document(
    sums: TypeSums, job: ScoringJob, base: ScoredModel, extended: ScoredModel, document: torch.Tensor, top: int
) -> None:
    """Every token of a document, int64 `[length]`, that two different predictions are made of; never its first."""
    if int(document.max()) >= base.vocabulary or int(document.min()) < 0:
        raise ModelError(
            f"token {int(document.max())} of a training document is not one of the {base.vocabulary} entries of the "
            f"tokenizer in {job.base}"
        )
    whole = extended.hidden(document[None, :-1])[0]
    if job.short_length is None:
        other, first = base.hidden(document[None, :-1])[0], 0
    else:
        other, first = short_hidden(base, document, job.short_length), job.short_length
    add_differences(
        sums, extended, whole[first:], base, other, document[first + 1 :], top=top, chunk=job.launch.loss_chunk
    )


def _impact_table(vocabulary: Vocabulary, sums: TypeSums) -> pa.Table:
    columns = {
        "token_id": np.arange(sums.vocabulary, dtype=np.int32),
        "token": vocabulary.texts,
        "token_class": vocabulary.classes,
        "score": sums.score,
        "count": sums.count,
        "share": sums.share,
    }
    return pa.table({name: pa.array(values, type=SCHEMA.field(name).type) for name, values in columns.items()}, SCHEMA)
