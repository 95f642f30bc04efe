"""Tokenizing on several processes: the same bytes and the same counts."""

import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from longrecipe_core.corpus import Filters, encoding, tokenize, tokenize_replay
from longrecipe_core.errors import CorpusError
from longrecipe_core.fan_out import Engine, Here, Inputs, Processes
from longrecipe_core.recipe.sections import ReplaySection, SourceSection

NEAR = Filters(minimum_tokens=4, deduplicate="near", similarity=0.7)


def source(path: Path) -> SourceSection:
    # Neighbours of a hundred words that share all but one of them, exact copies, and lines that are bad.
    words = [f"word{number}" for number in range(300)]
    texts: list[Any] = []
    for number in range(40):
        start = 50 * (number // 8)
        texts += [" ".join([*words[start : start + 100], f"end{number}"]), words[number], None, 7]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return SourceSection(path=str(path), format="jsonl", bad_rows="skip")


class Ahead:
    """Takes three jobs ahead, does the last one first, and sends everything through pickle, as processes may."""

    def each(self, function: Callable[[Inputs, Any], Any], jobs: Iterable[Any], inputs: Inputs) -> Iterator[Any]:
        remaining = iter(jobs)
        while group := [pickle.dumps(job) for job in islice(remaining, 3)]:
            done = [pickle.dumps(function(inputs, pickle.loads(job))) for job in reversed(group)]
            yield from (pickle.loads(result) for result in reversed(done))


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_bytes_and_counts_do_not_depend_on_the_workers(
    tmp_path: Path, bos_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_CHARACTERS_PER_BATCH", 2000)
    given = source(tmp_path / "a.jsonl")
    results = []
    # A process takes seconds to import its tokenizer, so real ones make the documents only.
    engines: list[tuple[Engine, Engine]] = [(Here(), Here()), (Ahead(), Ahead()), (Processes(4), Here())]
    for number, (engine, replay_engine) in enumerate(engines):
        out, replay = tmp_path / f"out-{number}", tmp_path / f"replay-{number}"
        metrics = tokenize([given], bos_tokenizer, out, validation_share=0.3, filters=NEAR, engine=engine)
        section = ReplaySection(sources=(given,))
        packed = tokenize_replay(section, bos_tokenizer, replay, train_length=64, seed=3, engine=replay_engine)
        results.append((metrics, packed, files(out), files(replay)))
    assert results[0] == results[1] == results[2]
    documents = results[0][0]["documents"]
    assert documents["read"] == 160
    assert documents["skipped"]["near_duplicate"] > 10
    assert documents["skipped"]["empty"] == documents["skipped"]["wrong_type"] == 40
    assert documents["kept"] > 10


def test_an_error_in_a_source_ends_it_and_its_workers(tmp_path: Path, tokenizer: Path) -> None:
    given = source(tmp_path / "a.jsonl").model_copy(update={"bad_rows": "error"})
    with pytest.raises(CorpusError, match="line 4, column 'text': text expected, not int"):
        tokenize([given], tokenizer, tmp_path / "out", validation_share=0, engine=Processes(2))


def test_a_tokenizer_that_was_written_anew_is_read_anew(tmp_path: Path, tokenizer: Path, bos_tokenizer: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    place = tmp_path / "tokenizer"
    counts = []
    for number, origin in enumerate((tokenizer, bos_tokenizer)):
        place.mkdir(exist_ok=True)
        for path in origin.iterdir():
            (place / path.name).write_bytes(path.read_bytes())
        given = SourceSection(path=str(tmp_path / "a.txt"))
        metrics = tokenize([given], place, tmp_path / str(number), validation_share=0)
        counts.append(metrics["splits"]["train"]["tokens"])
    assert counts[1] == counts[0] + 1
