import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from longrecipe_core.corpus import (
    Filters,
    PackedShards,
    TokenShards,
    encoding,
    generator,
    load_tokenizer,
    tokenize,
    tokenize_replay,
)
from longrecipe_core.corpus import tokenization as tokenization_module
from longrecipe_core.corpus.sources import Document
from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.errors import CorpusError
from longrecipe_core.recipe.sections import ReplaySection, SourceSection

TEXTS = [f"Document {number}. It says: {'x y ' * (number % 7)}\nGrüße!" for number in range(40)]


def json_source(path: Path, rows: list[dict[str, Any]], **options: str) -> SourceSection:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SourceSection.model_validate({"path": str(path), "format": "jsonl", **options})


def text_source(path: Path, texts: list[str | None]) -> SourceSection:
    return json_source(path, [{"text": text} for text in texts])


def stored(directory: Path, split: str) -> dict[str, list[int]]:
    shards = TokenShards(directory, split)
    return {shards.document_id(row): shards.input_ids(row).tolist() for row in range(len(shards))}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_every_document_is_stored_whole_in_its_split(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_CHARACTERS_PER_BATCH", 300)  # several batches
    source = text_source(tmp_path / "a.jsonl", TEXTS)
    tokenize([source], tokenizer, tmp_path / "out", validation_share=0.3, tokens_per_shard=200)
    plain = AutoTokenizer.from_pretrained(tokenizer)
    for split in ("train", "validation"):
        chosen = [text for text in TEXTS if (int(sha(text)[:16], 16) / 2**64 < 0.3) == (split == "validation")]
        assert chosen
        # Also the order: a dict keeps it.
        expected = {sha(text): plain(text).input_ids for text in chosen}
        assert list(stored(tmp_path / "out", split).items()) == list(expected.items())
    assert len(list((tmp_path / "out").glob("train-*"))) > 2


def test_counts_add_up(tmp_path: Path, tokenizer: Path) -> None:
    first = text_source(tmp_path / "a.jsonl", ["one", "", None, "two", "one"])
    second = json_source(
        tmp_path / "b.jsonl",
        [{"q": "Q", "a": "A"}, {"q": "", "a": "A"}, {"q": "Q", "a": None}, {"q": "Q", "a": "A"}],
        prompt_column="q",
        response_column="a",
    )
    (tmp_path / "code.py").write_text("print 'two'")
    third = SourceSection(path=str(tmp_path / "code.py"), format="python-docstrings")
    lines: list[str] = []
    metrics = tokenize([first, second, third], tokenizer, tmp_path / "out", validation_share=0.5, progress=lines.append)
    assert metrics["documents"] == {
        "read": 9,
        "kept": 5,
        "skipped": {"empty": 3, "empty_prompt": 1},
        "duplicates": 2,
    }
    assert metrics["files_skipped"] == {"unparsable": 1}
    shards = {split: TokenShards(tmp_path / "out", split) for split in ("train", "validation")}
    for split, reader in shards.items():
        assert metrics["splits"][split] == {"documents": len(reader), "tokens": int(reader.lengths.sum())}
    by_source: dict[str, list[int]] = {}
    for reader in shards.values():
        for row in range(len(reader)):
            by_source.setdefault(reader.source(row), []).append(len(reader.input_ids(row)))
    assert metrics["sources"] == {
        "0-jsonl": {
            "documents": 3,
            "tokens": sum(by_source["0-jsonl"]),
            "read": 5,
            "skipped": {"empty": 2},
            "files_skipped": {},
        },
        "1-jsonl": {
            "documents": 2,
            "tokens": sum(by_source["1-jsonl"]),
            "read": 4,
            "skipped": {"empty": 1, "empty_prompt": 1},
            "files_skipped": {},
        },
        "2-python-docstrings": {
            "documents": 0,
            "tokens": 0,
            "read": 0,
            "skipped": {},
            "files_skipped": {"unparsable": 1},
        },
    }
    total = sum(len(reader.input_ids(row)) for reader in shards.values() for row in range(len(reader)))
    assert lines[-2] == "tokenize: skipped documents empty 3, empty_prompt 1; files unparsable 1"
    assert lines[-1] == f"tokenize: 5 documents, {total:,} tokens"


def test_a_corpus_without_documents_is_an_error(tmp_path: Path, tokenizer: Path) -> None:
    for directory in ("nothing", "damaged", "short"):
        (tmp_path / directory).mkdir()
    (tmp_path / "nothing" / "a.jsonl").write_bytes(b"")
    (tmp_path / "damaged" / "a.jsonl.gz").write_bytes(b"")
    text_source(tmp_path / "short" / "a.jsonl", ["x", None, "xy", ""])
    for directory, message in (
        ("nothing", "tokenize: none of 0 documents is left; skipped documents none; files none; give"),
        ("damaged", "tokenize: none of 0 documents is left; skipped documents none; files damaged 1; give"),
        ("short", "tokenize: none of 4 documents is left; skipped documents empty 2, too_short 2; files none; give"),
    ):
        source = SourceSection(path=str(tmp_path / directory), format="jsonl", bad_rows="skip")
        with pytest.raises(CorpusError, match=message):
            tokenize(
                [source],
                tokenizer,
                tmp_path / f"out-{directory}",
                validation_share=0.5,
                filters=Filters(minimum_tokens=9),
            )
    # All of them in one of the splits is fine.
    metrics = tokenize([text_source(tmp_path / "a.jsonl", ["one"])], tokenizer, tmp_path / "out", validation_share=1)
    assert metrics["splits"]["train"] == {"documents": 0, "tokens": 0}


def test_begin_token_in_front_nothing_behind_and_no_truncation(tmp_path: Path, bos_tokenizer: Path) -> None:
    plain = AutoTokenizer.from_pretrained(bos_tokenizer)
    text = "A text that is longer than the truncation of the tokenizer. " * 3
    metrics = tokenize([text_source(tmp_path / "a.jsonl", [text])], bos_tokenizer, tmp_path / "out", validation_share=0)
    expected = [plain.bos_token_id, *plain.encode(text, add_special_tokens=False)]
    assert stored(tmp_path / "out", "train") == {sha(text): expected}
    assert len(expected) > 8
    assert metrics["splits"]["validation"] == {"documents": 0, "tokens": 0}
    assert len(TokenShards(tmp_path / "out", "validation")) == 0


def test_foreign_ids_give_what_their_text_gives(tmp_path: Path, tokenizer: Path, foreign_tokenizer: Path) -> None:
    other = AutoTokenizer.from_pretrained(foreign_tokenizer)
    rows = [{"ids": [other.bos_token_id, *other(text).input_ids, other.eos_token_id]} for text in TEXTS]
    foreign = json_source(tmp_path / "ids.jsonl", rows, ids_column="ids", tokenizer=str(foreign_tokenizer))
    tokenize([foreign], tokenizer, tmp_path / "ids", validation_share=0.3)
    tokenize([text_source(tmp_path / "text.jsonl", TEXTS)], tokenizer, tmp_path / "text", validation_share=0.3)
    for split in ("train", "validation"):
        assert stored(tmp_path / "ids", split) == stored(tmp_path / "text", split) != {}
    ours = AutoTokenizer.from_pretrained(tokenizer)
    assert other(TEXTS[0]).input_ids != ours(TEXTS[0]).input_ids  # it was worth re-encoding


def test_two_runs_and_two_places_give_the_same_bytes(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(encoding, "_CHARACTERS_PER_BATCH", 500)
    for name, place in (("one", tmp_path / "a.jsonl"), ("two", tmp_path / "elsewhere" / "b.jsonl")):
        source = text_source(place, TEXTS)
        tokenize([source], tokenizer, tmp_path / name, validation_share=0.3, tokens_per_shard=200)
        section = ReplaySection(sources=(source,))
        tokenize_replay(section, tokenizer, tmp_path / f"replay-{name}", train_length=32, seed=1)
        monkeypatch.setattr(encoding, "_CHARACTERS_PER_BATCH", 90)  # other batches, the same bytes
    for kind in ("", "replay-"):
        files = sorted((tmp_path / f"{kind}one").iterdir())
        assert [path.name for path in files] == [p.name for p in sorted((tmp_path / f"{kind}two").iterdir())]
        assert all(path.read_bytes() == (tmp_path / f"{kind}two" / path.name).read_bytes() for path in files)


def test_a_slow_tokenizer_is_asked_text_by_text(tokenizer: Path) -> None:
    class Slow:
        is_fast = False
        eos_token_id = 7

        def __len__(self) -> int:
            return 256

        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [1] * add_special_tokens + list(text.encode()) + [2] * add_special_tokens

    encoder = Encoder(Slow())
    assert encoder.prefix.tolist() == [1]
    assert [row.tolist() for row in encoder.encode(["ab", ""])] == [[97, 98], []]
    assert encoder.encode(["ab"])[0].dtype == np.int32


@pytest.mark.parametrize("bad", [300, 2**31, -1])
def test_an_id_outside_the_vocabulary_is_refused(bad: int) -> None:
    class Broken:
        is_fast = False
        eos_token_id = None

        def __len__(self) -> int:
            return 256

        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [bad] if text == "bad" else [1]

    with pytest.raises(CorpusError, match=r"the tokenizer gave"):
        Encoder(Broken()).encode(["bad"])


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_CHARACTERS_PER_BATCH", 20_000)
    monkeypatch.setattr("longrecipe_core.corpus.shards.TokenWriter.__init__.__defaults__", (20_000, 5_000))

    def many(source: SourceSection, **_: Any) -> Iterator[Document]:
        for number in range(source.limit or 0):
            yield Document(f"{number} " + "word " * 400, None, "made up")

    monkeypatch.setattr(encoding, "iterate_documents", many)
    default = pa.default_memory_pool()
    peaks = []
    for count in (20, 20, 800):  # the first warms up
        pool = pa.proxy_memory_pool(default)
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            source = SourceSection(path="x", limit=count)
            out = tmp_path / f"{count}-{len(peaks)}"
            metrics = tokenize([source], tokenizer, out, validation_share=0.1, tokens_per_shard=20_000)
            section = ReplaySection(sources=(source,))
            tokenize_replay(section, tokenizer, out, train_length=999, seed=0, tokens_per_shard=20_000)
            peaks.append(tracemalloc.get_traced_memory()[1] + pool.max_memory())
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(default)
    assert metrics["splits"]["train"]["tokens"] > 500_000
    assert peaks[2] - peaks[1] < 3_000_000


# Replay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adds_begin", [False, True])
def test_replay_against_a_plain_oracle(tmp_path: Path, tokenizer: Path, bos_tokenizer: Path, adds_begin: bool) -> None:
    chosen = bos_tokenizer if adds_begin else tokenizer
    rows = [{"q": f"Question {n}" * (1 + n % 3), "a": f"Answer {n}. " * (1 + n % 5)} for n in range(30)]
    path = tmp_path / "a.jsonl"
    instructions = json_source(
        path, [*rows, {"q": "", "a": "x"}, {"q": "x", "a": ""}], prompt_column="q", response_column="a"
    )
    plain_text = text_source(tmp_path / "b.jsonl", TEXTS[:5])
    section = ReplaySection(sources=(instructions, plain_text), separator=" => ")
    out = tmp_path / "out"
    metrics = tokenize_replay(section, chosen, out, train_length=48, seed=5, tokens_per_shard=300)

    loaded = AutoTokenizer.from_pretrained(chosen)
    begin = [loaded.bos_token_id] if adds_begin else []

    def ids(text: str) -> list[int]:
        return list(loaded.encode(text, add_special_tokens=False, truncation=False, padding=False))

    made = []
    for row in rows:
        prompt = begin + ids(row["q"] + " => ")
        made.append((prompt + ids(row["a"]) + [loaded.eos_token_id], len(prompt)))
    made += [(begin + ids(text) + [loaded.eos_token_id], 0) for text in TEXTS[:5]]
    order = generator(5, "replay").permutation(len(made)).tolist()
    assert order != sorted(order)
    stream = [(token, n, k < made[n][1]) for n in order for k, token in enumerate(made[n][0])]
    expected = [stream[start : start + 48] for start in range(0, len(stream), 48)]

    shards = PackedShards(out)
    assert len(shards) == len(expected) == metrics["rows"]
    for number, tokens in enumerate(expected):
        row = shards.row(number)
        assert row.input_ids.tolist() == [token[0] for token in tokens]
        starts = [k for k in range(len(tokens)) if k == 0 or tokens[k][1] != tokens[k - 1][1]]
        assert row.sample_starts.tolist() == starts
        for start, end, prompt in zip(starts, [*starts[1:], len(tokens)], row.prompt_tokens, strict=True):
            assert [token[2] for token in tokens[start:end]] == [k < prompt for k in range(end - start)]
    assert metrics["samples"] == {"read": 37, "kept": 35, "skipped": {"empty": 1, "empty_prompt": 1}}
    assert metrics["tokens"] == len(stream)
    assert metrics["prompt_tokens"] == sum(prompt for _, prompt in made)
    assert all(path.name.startswith("packed-") for path in out.iterdir())  # no temporary files are left


def test_another_seed_is_another_order(tmp_path: Path, tokenizer: Path) -> None:
    section = ReplaySection(sources=(text_source(tmp_path / "a.jsonl", TEXTS),))
    streams = []
    for seed in (1, 2):
        out = tmp_path / str(seed)
        tokenize_replay(section, tokenizer, out, train_length=64, seed=seed)
        shards = PackedShards(out)
        streams.append(np.concatenate([shards.row(row).input_ids for row in range(len(shards))]))
    assert not np.array_equal(*streams)
    assert np.array_equal(np.sort(streams[0]), np.sort(streams[1]))


def test_replay_needs_an_end_token_and_samples(tmp_path: Path, tokenizer: Path) -> None:
    section = ReplaySection(sources=(text_source(tmp_path / "a.jsonl", ["", None]),))
    with pytest.raises(CorpusError, match="none of 2 samples has text"):
        tokenize_replay(section, tokenizer, tmp_path / "out", train_length=8, seed=0)
    endless = load_tokenizer(tokenizer)
    endless.eos_token = None
    endless.save_pretrained(tmp_path / "endless")
    with pytest.raises(CorpusError, match=r"has no eos_token, .* set eos_token in its tokenizer_config\.json"):
        tokenize_replay(section, tmp_path / "endless", tmp_path / "out", train_length=8, seed=0)


def test_the_modules_do_not_import_torch() -> None:
    import subprocess
    import sys

    names = "{'torch', 'transformers', 'datasets'}"
    code = f"import sys, longrecipe_core.corpus; assert not {names} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert tokenization_module.load_tokenizer is load_tokenizer
