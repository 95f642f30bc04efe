"""Measure every model on the same documents."""

import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer

from longrecipe_core.corpus import TokenShards
from longrecipe_core.evaluation.job import EvaluatedModel, EvaluationJob
from longrecipe_core.evaluation.nll import bucket_rows, choose_documents, token_nll
from longrecipe_core.evaluation.passkey import passkey_accuracy
from longrecipe_core.evaluation.plot import plot_nll
from longrecipe_core.modeling import load_config, load_model, rope_config
from longrecipe_core.modeling.head import check_plain_head

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("measure", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("value", pa.float64()),
        ("standard_error", pa.float64()),
        ("count", pa.int64()),
        ("seed", pa.int64()),
    ]
)


def evaluate(job: EvaluationJob) -> None:
    """Write `evaluation.parquet` and `nll.png` into the job's output directory.

    Rows of measure `nll` have positions `start..end - 1` and nats per token; rows of measure `passkey` have the
    distance in `start` and `end`, and the share of keys found.
    """
    torch.set_num_threads(job.threads or os.cpu_count() or 1)
    documents = choose_documents(TokenShards(job.tokens, "validation"), job.evaluation, job.target_length, job.seed)
    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(job.models, start=1):
        model = _load(entry, job)
        nll = token_nll(model, *documents, bf16=job.evaluation.precision == "bf16", chunk=job.loss_chunk)
        found = [{"measure": "nll"} | row for row in bucket_rows(nll, job.evaluation.buckets, job.target_length)]
        rows += [{"model": entry.name, "seed": job.seed} | row for row in [*found, *_passkey(model, entry, job)]]
        del model  # before the next one is loaded
        mean = np.nanmean(nll)
        print(
            f"model {number} of {len(job.models)}, {entry.name}: NLL {mean:.4f} over {len(nll)} documents", flush=True
        )
    job.output.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), job.output / "evaluation.parquet")
    plot_nll(rows, job.window, job.output / "nll.png")


def _load(entry: EvaluatedModel, job: EvaluationJob) -> Any:
    config = load_config(entry.directory, job.trust_remote_code)
    if entry.rope is not None:
        config = rope_config(config, entry.rope, window=job.window, target_length=job.target_length)
    model = load_model(entry.directory, config=config, trust_remote_code=job.trust_remote_code)
    check_plain_head(model, str(entry.directory))
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _passkey(model: Any, entry: EvaluatedModel, job: EvaluationJob) -> list[dict[str, Any]]:
    section = job.evaluation.passkey
    if section is None:
        return []
    tokenizer = AutoTokenizer.from_pretrained(entry.directory, trust_remote_code=job.trust_remote_code)
    rows = []
    for distance in section.distances:
        accuracy = passkey_accuracy(
            model,
            tokenizer,
            distance,
            section.trials,
            target_length=job.target_length,
            seed=job.seed,
            bf16=job.evaluation.precision == "bf16",
        )
        error = (accuracy * (1 - accuracy) / section.trials) ** 0.5
        rows.append(
            {
                "measure": "passkey",
                "start": distance,
                "end": distance,
                "value": accuracy,
                "standard_error": error,
                "count": section.trials,
            }
        )
    return rows
