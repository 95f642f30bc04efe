"""Copies and near-copies, against exact Jaccard similarities of 5-gram sets in plain Python."""

import json
import random
import sysconfig
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longrecipe_core.corpus import Filters, TokenShards, document_id, tokenize
from longrecipe_core.corpus.deduplication import Deduplicator, bands, signature
from longrecipe_core.recipe.sections import CorpusSection, SourceSection

TEXTS = 24
MARGIN = 0.1  # four standard deviations of the estimate at 0.8, where it is 0.025


def grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def jaccard(one: str, other: str) -> float:
    a, b = grams(one), grams(other)
    return len(a & b) / len(a | b)


def edited(text: str, share: float, seed: int) -> str:
    words, draw = text.split(), random.Random(seed)
    return " ".join(f"{word}-edited-{draw.random()}" if draw.random() < share else word for word in words)


@pytest.fixture(scope="module")
def library() -> list[str]:
    """Real texts of 1,000 words and more, none like another."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in paths]
    long = [text for text in texts if len(text.split()) > 1000][:TEXTS]
    assert len(long) == TEXTS
    return long


def reasons(texts: list[str], similarity: float) -> list[str | None]:
    copies = Deduplicator("near", similarity)
    return [copies.reason(document_id(text), signature(text)) for text in texts]


@pytest.fixture(scope="module")
def changed(library: list[str]) -> list[str]:
    return [edited(text, 0.025 * (seed % 8), seed) for seed, text in enumerate(library)]


@pytest.fixture(scope="module")
def nearest(library: list[str], changed: list[str]) -> list[float]:
    """Of each original and each changed text, the exact similarity to the nearest original in front of it."""
    originals = [grams(text) for text in library]
    result = []
    for number, text in enumerate(library + changed):
        mine = grams(text)
        shared = [len(mine & other) for other in originals[:number]]
        sizes = [len(mine) + len(other) for other in originals[:number]]
        result.append(max((both / (size - both) for both, size in zip(shared, sizes, strict=True)), default=0.0))
    return result


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.9])
def test_near_copies_of_real_texts_are_found_and_others_never(
    library: list[str], changed: list[str], nearest: list[float], similarity: float
) -> None:
    found = reasons(library + changed, similarity)
    assert found[:TEXTS] == [None] * TEXTS
    sure = [number for number, best in enumerate(nearest) if abs(best - similarity) > MARGIN]
    assert len(sure) > 1.2 * TEXTS
    assert [found[number] == "near_duplicate" for number in sure] == [nearest[number] > similarity for number in sure]


def test_two_percent_of_the_words_changed(library: list[str]) -> None:
    changed = [edited(text, 0.02, seed) for seed, text in enumerate(library)]
    similarities = [jaccard(one, other) for one, other in zip(library, changed, strict=True)]
    assert min(similarities) > 0.75
    assert max(similarities) < 0.9
    assert reasons(library + changed, 0.7) == [None] * TEXTS + ["near_duplicate"] * TEXTS


def test_copies_short_texts_and_what_is_remembered() -> None:
    exact = Deduplicator("exact", 0.8)
    assert [exact.reason(document_id(text), None) for text in ("a", "b", "a", "a ", "b")] == [
        None,
        None,
        "duplicate",
        None,
        "duplicate",
    ]
    short = ["one two three four", "one two three  four", "one two three four"]
    assert reasons(short, 0.1) == [None, None, "duplicate"]
    assert reasons(["one two three four five", "one two\nthree four five"], 0.9) == [None, "near_duplicate"]
    nothing = Deduplicator("none", 0.8)
    assert [nothing.reason(document_id("a"), None) for _ in range(2)] == [None, None]
    # The one that was skipped is not remembered: a chain of small changes does not swallow everything.
    texts = [" ".join(f"w{number}" for number in range(start, start + 100)) for start in range(0, 80, 8)]
    found = reasons(texts, 0.6)
    kept = [text for text, reason in zip(texts, found, strict=True) if reason is None]
    assert 2 < len(kept) < len(texts)
    assert all(jaccard(one, other) < 0.6 + MARGIN for one, other in pairwise(kept))


@given(st.floats(0.01, 0.99))
def test_pairs_at_the_threshold_become_candidates(similarity: float) -> None:
    count = bands(similarity)
    assert 256 % count == 0
    assert (1 - similarity ** (256 / count)) ** count <= 0.01 or count == 256


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["a", "b", "c", "ä", "longer"]), min_size=5, max_size=40))
def test_the_signature_is_that_of_the_set_of_grams(words: list[str]) -> None:
    plain, doubled = signature(" ".join(words)), signature("\n ".join(words))
    assert plain.jaccard(doubled) == 1.0
    other = [*words, *words]  # more grams, among them all of the first
    share = jaccard(" ".join(words), " ".join(other))
    assert abs(plain.jaccard(signature(" ".join(other))) - share) < 0.2


# In the stage -------------------------------------------------------------------------------------------


def run(tmp_path: Path, tokenizer: Path, texts: list[str], **section: Any) -> tuple[list[str], dict[str, Any]]:
    """Document ids in order of the splits, and the metrics."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    corpus = CorpusSection.model_validate({"sources": [{"path": str(path), "format": "jsonl"}], **section})
    out = tmp_path / "out"
    metrics = tokenize(corpus.sources, tokenizer, out, validation_share=0.4, filters=Filters.of(corpus))
    documents = metrics["documents"]
    assert documents["read"] == documents["kept"] + sum(documents["skipped"].values())
    assert metrics["sources"]["0-jsonl"]["skipped"] == documents["skipped"]
    shards = [TokenShards(out, split) for split in ("train", "validation")]
    ids = [reader.document_id(row) for reader in shards for row in range(len(reader))]
    assert len(ids) == documents["kept"]
    return ids, metrics


def test_lengths(tmp_path: Path, tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["x", "", *(f"{'The quick brown fox. ' * count}" for count in range(1, 12))]
    lengths = [len(AutoTokenizer.from_pretrained(tokenizer)(text).input_ids) for text in texts]
    least, most = sorted(lengths)[5], sorted(lengths)[9]
    ids, metrics = run(tmp_path, tokenizer, texts, minimum_tokens=least, maximum_tokens=most)
    assert set(ids) == {document_id(text) for text, n in zip(texts, lengths, strict=True) if least <= n <= most}
    assert metrics["documents"]["skipped"] == {
        "empty": 1,
        "too_short": sum(0 < n < least for n in lengths),
        "too_long": sum(n > most for n in lengths),
    }


def test_a_document_of_one_token_is_too_short_to_train_on(tmp_path: Path, tokenizer: Path) -> None:
    assert run(tmp_path, tokenizer, ["x", "xq"])[1]["documents"] == {
        "read": 2,
        "kept": 1,
        "skipped": {"too_short": 1},
        "duplicates": 0,
    }


@pytest.mark.parametrize("kind", ["none", "exact", "near"])
def test_only_the_first_of_the_same_is_kept(tmp_path: Path, tokenizer: Path, library: list[str], kind: str) -> None:
    texts = library[:6]
    near = [edited(text, 0.01, seed) for seed, text in enumerate(texts)]
    ids, metrics = run(tmp_path, tokenizer, [*texts, *near, *texts], deduplicate=kind, similarity=0.7)
    kept = {"none": texts + near + texts, "exact": texts + near, "near": texts}[kind]
    assert sorted(ids) == sorted(document_id(text) for text in kept)
    assert (
        metrics["documents"]["skipped"]
        == {
            "none": {},
            "exact": {"duplicate": 6},
            "near": {"duplicate": 6, "near_duplicate": 6},
        }[kind]
    )
    assert metrics["documents"]["duplicates"] == (6 if kind == "none" else 0)


def test_sources_share_what_was_seen(tmp_path: Path, tokenizer: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("the same text in two sources")
    sources = [SourceSection(path=str(tmp_path / f"{name}.txt")) for name in ("a", "b")]
    metrics = tokenize(sources, tokenizer, tmp_path / "out", validation_share=0, filters=Filters(deduplicate="exact"))
    assert metrics["sources"]["0-text"]["skipped"] == {}
    assert metrics["sources"]["1-text"]["skipped"] == {"duplicate": 1}
