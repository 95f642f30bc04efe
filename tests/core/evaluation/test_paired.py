"""Differences on the same documents against numpy over the tokens themselves."""

import numpy as np
import pytest

from longrecipe_core.evaluation.nll import bucket_rows
from longrecipe_core.evaluation.paired import by_document, paired_differences, write_documents

LENGTHS = (9, 9, 5)


def losses(seed):
    """Three documents of 9, 9 and 5 tokens, hard in their own ways; the first token of each has no loss."""
    rng = np.random.default_rng(seed)
    nll = np.array([[5.0], [1.0], [3.0]]) + rng.normal(size=(3, 8))
    for row, length in enumerate(LENGTHS):
        nll[row, length - 1 :] = np.nan
    return nll


def written(tmp_path, **models):
    rows = [
        {"model": name.replace("_", ", "), "measure": "nll", "documents": by_document(nll, row["start"], row["end"])}
        | row
        for name, nll in models.items()
        for row in bucket_rows(nll, 3, 9)
    ]
    write_documents([*rows, {"model": "other", "measure": "passkey", "start": 3, "end": 3, "value": 1.0}], tmp_path)


def test_differences_are_paired_by_document(tmp_path):
    base, tuned = losses(0), losses(1) - 0.5
    written(tmp_path, base=base, base_RoPE=losses(2), tuned=tuned)
    rows = [row for row in paired_differences(tmp_path, "base") if row["model"] == "tuned"]
    assert [(row["start"], row["end"], row["count"]) for row in rows] == [(0, 3, 3), (3, 6, 3), (6, 9, 2)]
    # Positions 0..2, where all documents have two losses: the plain paired difference.
    per_document = (tuned - base)[:, :2].mean(axis=1)
    assert rows[0]["value"] == pytest.approx(per_document.mean())
    assert rows[0]["standard_error"] == pytest.approx(per_document.std(ddof=1) / 3**0.5)
    # Positions 3..5: the third document has two losses, the others three.
    part = (tuned - base)[:, 2:5]
    mean = np.nanmean(part)
    residuals = [np.nansum(document - mean) for document in part]
    assert rows[1]["value"] == pytest.approx(mean)
    assert rows[1]["standard_error"] == pytest.approx((3 * np.var(residuals, ddof=1)) ** 0.5 / 8)
    # Far smaller than of each model by itself, whose documents differ by nats.
    assert rows[0]["standard_error"] < 0.5 * bucket_rows(base, 3, 9)[0]["standard_error"]


def test_the_difference_is_that_of_the_tables_means(tmp_path):
    models = {"base": losses(0), "tuned": losses(1)}
    written(tmp_path, **models)
    (before, after) = (bucket_rows(nll, 3, 9) for nll in models.values())
    for row, one, other in zip(paired_differences(tmp_path, "tuned"), before, after, strict=True):
        assert (row["model"], row["start"]) == ("base", one["start"])
        assert row["value"] == pytest.approx(one["value"] - other["value"])


def test_a_single_document_has_no_error(tmp_path):
    written(tmp_path, base=losses(0)[:1], tuned=losses(1)[:1])
    assert [(row["count"], np.isnan(row["standard_error"])) for row in paired_differences(tmp_path, "base")] == [
        (1, True)
    ] * 3


def test_nothing_is_told_of_an_old_artifact_or_without_the_reference(tmp_path):
    assert paired_differences(tmp_path, "base") == []
    written(tmp_path, base=losses(0), tuned=losses(1))
    assert paired_differences(tmp_path, "base, RoPE change only") == []
