"""Copying, with models that are look-ups: one that finds the span again, one that says what it likes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from longrecipe_core.corpus import TokenWriter, load_tokenizer, train_tokenizer
from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.copying import Text, check_copying, copied_shares, copying_row
from longrecipe_core.evaluation.evaluate import evaluate
from longrecipe_core.evaluation.job import EvaluatedModel, EvaluationJob
from longrecipe_core.evaluation.table import read_rows, text_table
from longrecipe_core.modeling import make_tiny_config, make_tiny_model
from longrecipe_core.recipe import BaseSection, CopyingSection, EvaluationSection, TrainingSection

VOCABULARY = 50
SECTION = CopyingSection(distances=(30,), span=12, samples=200)


class Says(torch.nn.Module):
    """A model that answers row by row: `answer` makes of a prompt, a list, what it says after each of its tokens."""

    def __init__(self, answer, vocabulary=VOCABULARY):
        super().__init__()
        self.answer, self.vocabulary = answer, vocabulary
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def base_model(self, input_ids, use_cache):
        said = torch.tensor([self.answer(row) for row in input_ids.tolist()])
        return SimpleNamespace(last_hidden_state=torch.nn.functional.one_hot(said, self.vocabulary).float())

    def get_output_embeddings(self):
        return torch.nn.Identity()


def looks_back(row):
    """After a pair of tokens, what followed the same pair when it last stood there; 0 where it never did."""
    said = []
    for place in range(len(row)):
        pair = row[place - 1 : place + 1]
        earlier = [i for i in range(1, place) if pair and row[i - 1 : i + 1] == pair]
        said.append(row[earlier[-1] + 1] if earlier else 0)
    return said


@pytest.fixture
def text():
    """Two documents, of 25 and 60 tokens, of ids 40 to 49; spans are of 0 to 39."""
    rng = np.random.default_rng(1)
    documents = rng.integers(40, VOCABULARY, size=(2, 60))
    documents[0, 25:] = 0
    return Text(documents, np.array([25, 60]), np.array([7]), np.arange(40))


def shares(answer, text, distance=30, section=SECTION, seed=1):
    return copied_shares(Says(answer), text, section, distance, seed=seed, bf16=False)


def test_prompts(text):
    prompts = text.prompts(SECTION, 30, seed=1)
    assert prompts.shape == (200, 1 + 12 + 30 + 12)
    assert (prompts[:, 0] == 7).all()
    assert (prompts[:, 1:13] == prompts[:, -12:]).all()
    assert prompts[:, 1:13].max() < 40
    document = text.documents[1].tolist()
    starts = set()
    for row in prompts[:, 13:-12].tolist():
        starts |= {start for start in range(31) if document[start : start + 30] == row}
    assert starts == set(range(31))  # pieces of the long document, from everywhere in it
    counts = np.bincount(prompts[:, 1:13].ravel(), minlength=40)
    assert counts.min() > 0.5 * counts.mean()
    assert (text.prompts(SECTION, 30, seed=1) == prompts).all()
    assert (text.prompts(SECTION, 30, seed=2) != prompts).any()


def test_a_model_that_looks_back_copies_all_and_one_that_guesses_one_in_the_vocabulary(text):
    found = shares(looks_back, text)
    assert found.shape == (200,)
    # What it can't know is which of two equal pairs of the span comes next: 12 random tokens of 40 have few.
    assert found.mean() > 0.98
    rng = np.random.default_rng(2)
    guessed = shares(lambda row: rng.integers(40, size=len(row)).tolist(), text)
    assert guessed.mean() == pytest.approx(1 / 40, abs=0.015)  # 1600 tokens: 4 standard errors


@pytest.mark.parametrize(("last", "share"), [(1, 1 / 8), (4, 1 / 2), (8, 1), (12, 1)])
def test_the_cue_does_not_count(text, last, share):
    """A model that knows the last tokens of the copy only: 8 of 12 are asked for."""

    def knows(row):
        return [0] * (len(row) - last - 1) + row[-last:] + [0]

    section = SECTION.model_copy(update={"samples": 3})
    shifted = Text(text.documents, text.lengths, text.prefix, np.arange(1, 40))  # a 0 is never right
    assert shares(knows, shifted, section=section).tolist() == [share] * 3


def test_the_row_has_the_error_of_a_mean_over_samples():
    row = copying_row(np.array([1.0, 0.5, 0.0, 0.5]), 30)
    assert row == {
        "start": 30,
        "end": 30,
        "value": 0.5,
        "standard_error": pytest.approx((0.5 / 3 / 4) ** 0.5),
        "count": 4,
    }


def test_too_long(text):
    check_copying(SECTION, 1, 55, 60)
    with pytest.raises(
        EvaluationError, match=r"evaluation\.copying: distance 30 .*55 tokens, above the target length 54"
    ):
        check_copying(SECTION, 1, 54, 60)
    with pytest.raises(EvaluationError, match=r"distance 30: no validation document .*the longest has 29"):
        check_copying(SECTION, 1, 55, 29)
    with pytest.raises(EvaluationError, match=r"distance 61: no validation document .*the longest has 60"):
        text.prompts(SECTION, 61, seed=1)


def test_copying_is_a_row_of_the_evaluation(tmp_path):
    train_tokenizer(["one two three four"] * 20, 270, tmp_path / "tokenizer", model_max_length=128)
    section = BaseSection(
        vocabulary_size=300, hidden_size=16, intermediate_size=24, layers=1, query_heads=2, kv_heads=1, window=128,
        training=TrainingSection(learning_rate=1e-3),
    )  # fmt: skip
    size = len(load_tokenizer(tmp_path / "tokenizer"))
    config = make_tiny_config(section, size, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    make_tiny_model(config, tmp_path / "tokenizer", tmp_path / "model", seed=1)
    with TokenWriter(tmp_path / "tokens", "validation") as writer:
        writer.append("0" * 64, "0-text", np.arange(200, dtype=np.int32))
    evaluate(
        EvaluationJob(
            models=(EvaluatedModel(name="tiny", directory=tmp_path / "model"),), tokens=tmp_path / "tokens",
            evaluation=EvaluationSection(buckets=1, precision="fp32", copying=CopyingSection(distances=(20, 90))),
            window=128, target_length=128, seed=4, threads=1, measurements=tmp_path / "m", output=tmp_path / "out",
        )
    )  # fmt: skip
    rows = [row for row in read_rows(tmp_path / "out") if row["measure"] == "copying"]
    assert [(row["start"], row["end"], row["count"], row["seed"]) for row in rows] == [(20, 20, 64, 4), (90, 90, 64, 4)]
    assert all(row["value"] < 0.05 for row in rows)
    table = text_table(rows).splitlines()
    assert table[0] == "share of a copied span that is foretold, at distance"
    assert table[1].split() == ["20", "90"]
