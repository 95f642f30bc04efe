"""What the index's metrics and log lines say, against counts of its rows."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from longrecipe_core.corpus import TokenShards, TokenWriter
from longrecipe_core.corpus.mixture import Mixture
from longrecipe_core.errors import IndexingError
from longrecipe_core.positions.index import build_index
from longrecipe_core.recipe import ContextSection, PositionsSection, SelectionSection
from longrecipe_core.selection import TokenClasses

WORD, END, ANCHOR = range(3)
CLASSES = TokenClasses(np.arange(3) == END, np.arange(3) == ANCHOR)


def prose(tokens, share):
    """Sentences of four tokens, so many of them with an anchor."""
    ids = []
    for number in range(-(-tokens // 4)):
        ids += [ANCHOR if number % 10 < 10 * share else WORD, WORD, WORD, END]
    return np.array(ids[:tokens], dtype=np.int32)


def build(directory, lengths, share=0.5, labels=None, selection="digits", **options):
    with TokenWriter(directory / "tokens", "train") as writer:
        for number, tokens in enumerate(lengths):
            writer.append(f"{number:064x}", labels[number] if labels else "0-text", prose(tokens, share))
    lines = []
    metrics = build_index(
        TokenShards(directory / "tokens", "train"),
        CLASSES,
        directory / "index",
        context=ContextSection(target_length=400, train_length=120),
        selection=SelectionSection(strategy=selection),
        **{"positions": PositionsSection(), "samples": None, "seed": 1, "progress": lines.append, **options},
    )
    table = pa.ipc.open_file(str(directory / "index" / "index-00000.arrow")).read_all().to_pylist()
    return metrics, lines, table


def test_every_document_is_accounted_for(tmp_path):
    lengths = [500, 119, 400, 120, 3, 800, 130]
    metrics, lines, table = build(tmp_path, lengths, samples=3)
    used = {row["document"] for row in table}
    assert (metrics["documents"], metrics["documents_used"], metrics["documents_left_over"]) == (7, 3, 2)
    assert metrics["selection"]["documents_skipped_too_short"] == 2
    assert metrics["documents_skipped_shorter_than_train_length"] == 2
    cut = sum(lengths[row] > 400 for row in used)
    assert (f"index: {cut} of 3 documents are cut at context.target_length 400" in "".join(lines)) == (cut > 0)
    assert "index: warning: 2 of 7 documents (28.6%) are skipped: shorter than context.train_length 120" in lines


def test_what_was_kept_and_from_where(tmp_path):
    lengths = [500, 400, 120, 800]
    metrics, _, table = build(tmp_path, lengths, samples=40)
    report, kept, read = metrics["selection"], Counter(), Counter()
    anchor_tokens = topped_up = sentences = 0
    for row in table:
        n = lengths[row["document"]]
        with_anchor = {number for number in range(n // 4) if number % 10 < 5}
        for start, length in zip(row["token_start"], row["length"], strict=True):
            kept.update(20 * i // n for i in range(start, start + length))
            anchor_tokens += sum(i // 4 in with_anchor for i in range(start, start + length))
        read.update(20 * i // n for i in range(min(n, 400)))
        topped_up += sum(i // 4 in with_anchor for i in range(min(n, 400))) < 120
        sentences += min(n, 400) // 4
    assert report["tokens_kept"] == kept.total() == 40 * 120
    assert report["tokens_read"] == read.total()
    assert report["share_kept"] == pytest.approx(kept.total() / read.total())
    assert report["sentences_read"] == sentences
    assert 40 * 30 <= report["sentences_kept"] <= 40 * 31
    assert report["anchor_share"] == pytest.approx(anchor_tokens / kept.total())
    assert 0 < report["topped_up"] == topped_up < 40
    assert report["histogram"] == [pytest.approx(kept[i] / kept.total(), abs=1e-6) for i in range(20)]
    assert report["histogram_available"] == [pytest.approx(read[i] / read.total(), abs=1e-6) for i in range(20)]
    assert report["histogram_available"][19] < report["histogram_available"][0] / 2  # the target length cuts


def test_warnings(tmp_path):
    cases = {
        "all": (1.0, "digits", ["100.0% of the sentences have an anchor"]),
        "half": (0.5, "digits", []),
        "few": (0.1, "impactful", ["in 4 of 4 samples the anchor sentences don't fill", "33.3% of the tokens"]),
        "none": (1.0, "none", []),
    }
    for name, (share, selection, expected) in cases.items():
        _, lines, _ = build(tmp_path / name, [400] * 4, share, selection=selection)
        warnings = [line for line in lines if "warning" in line]
        assert len(warnings) == bool(expected), name
        assert all(part in warnings[0] for part in expected), warnings


def test_gather_tells_how_far_its_documents_reach(tmp_path):
    options = {"selection": "none", "positions": PositionsSection(strategy="gather")}
    _, lines, table = build(tmp_path, [150, 400, 200], **options)
    warning = "index: warning: 2 of 3 samples are of documents below context.target_length 400"
    (line,) = [line for line in lines if "train no position behind their end" in line]
    assert line.startswith(warning)
    assert "mean length 250" in line
    ends = {row["document"]: row["position_start"][-1] + row["length"][-1] for row in table}
    assert (ends[0] <= 150, ends[2] <= 200) == (True, True)


def test_each_sources_samples(tmp_path):
    labels = ["0-text", "2-jsonl", "0-text", "2-jsonl", "0-text", "1-text"]
    metrics, lines, table = build(
        tmp_path, [200, 200, 300, 119, 50, 120], labels=labels, samples=10, mixture=Mixture((1.0, 1.0, 2.0))
    )
    seen = Counter(labels[row["document"]] for row in table)
    assert seen == {"0-text": 3, "1-text": 2, "2-jsonl": 5}
    assert metrics["sources"] == {
        "0-text": {"documents": 3, "samples": 3, "tokens": 360},
        "1-text": {"documents": 1, "samples": 2, "tokens": 240},
        "2-jsonl": {"documents": 2, "samples": 5, "tokens": 600},
    }
    assert "mixture: source 2-jsonl: 5 samples of 1 documents" in lines


def test_nothing_is_written_where_a_source_can_give_nothing(tmp_path):
    with pytest.raises(IndexingError, match=r"corpus\.sources\.1 has weight"):
        build(tmp_path, [200, 119], labels=["0-text", "1-text"], mixture=Mixture((1.0, 1.0)))
    assert not (tmp_path / "index").exists()
