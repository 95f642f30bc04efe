"""A kill in the middle of a cell loses one batch of answers at most: counted in calls of the model."""

import json

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longrecipe_core.corpus import TokenWriter, load_tokenizer, train_tokenizer
from longrecipe_core.evaluation import greedy
from longrecipe_core.evaluation.evaluate import evaluate
from longrecipe_core.evaluation.job import EvaluatedModel, EvaluationJob
from longrecipe_core.evaluation.measurements import Measurements
from longrecipe_core.evaluation.ruler.needles import NEEDLE, NOISE, ONE
from longrecipe_core.evaluation.table import read_rows
from longrecipe_core.recipe import EvaluationSection, NeedleSection

TRIALS, TOGETHER = 5, 2
KEY = ("model", "needle", "single", 400)


class Killed(Exception):
    pass


@pytest.fixture
def job(tmp_path):
    """One model, one measurement of two cells with five prompts each; two prompts at a time."""
    train_tokenizer([ONE, NEEDLE, NOISE], 400, tmp_path / "model", model_max_length=512)
    tokenizer = load_tokenizer(tmp_path / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    with TokenWriter(tmp_path / "tokens", "validation") as writer:
        writer.append("0" * 64, "0-text", np.arange(2, 402, dtype=np.int32) % len(tokenizer))
    needle = NeedleSection(lengths=(400,), depths=(0.0, 1.0), haystack="noise", trials=TRIALS)
    return EvaluationJob(
        models=(EvaluatedModel(name="model", directory=tmp_path / "model"),),
        tokens=tmp_path / "tokens",
        evaluation=EvaluationSection(buckets=1, precision="fp32", needle=needle),
        window=512,
        target_length=400,
        seed=1,
        threads=1,
        measurements=tmp_path / "measurements.jsonl",
        output=tmp_path / "output",
    )


@pytest.fixture
def calls(monkeypatch):
    """Prompts in each call of the model; `Killed` in place of the call that `calls.killed_at` numbers."""

    class Calls(list):
        killed_at = None

    calls = Calls()

    def counted(model, input_ids, **_):
        """What is answered depends on the prompt alone: the tokens of its key."""
        if calls.killed_at == len(calls):
            raise Killed
        calls.append(len(input_ids))
        return torch.cat([input_ids, input_ids[:, -40:]], dim=1)

    monkeypatch.setattr(LlamaForCausalLM, "generate", counted)
    monkeypatch.setattr(greedy, "TOKENS_PER_FORWARD", TOGETHER * 400)
    return calls


def test_a_kill_in_the_middle_of_a_cell_loses_one_batch(job, calls):
    whole = job.model_copy(update={"measurements": job.measurements.with_name("whole.jsonl")})
    evaluate(whole)
    assert list(calls) == [TOGETHER] * 5  # ten prompts
    expected = read_rows(job.output)

    calls.clear()
    calls.killed_at = 2
    with pytest.raises(Killed):
        evaluate(job)
    with job.measurements.open("a") as file:
        file.write('{"key": ["model", "needle", "single", 400], "answers": {"3": "ne')  # the third, cut short
    calls.clear()
    calls.killed_at = None
    evaluate(job)
    assert list(calls) == [TOGETHER] * 3
    assert repr(read_rows(job.output)) == repr(expected)  # NaN, the error over one document, equals nothing

    # The file is the one of the job that nobody killed.
    assert job.measurements.read_text() == whole.measurements.read_text()
    calls.clear()
    evaluate(job)
    assert not calls


def test_answers_are_of_their_prompt_and_measurement(job, calls):
    evaluate(job)
    entries = [json.loads(line) for line in job.measurements.read_text().splitlines()]
    noted = {place: text for entry in entries for place, text in entry.get("answers", {}).items()}
    assert sorted(map(int, noted)) == list(range(2 * TRIALS))
    assert len(set(noted.values())) == TRIALS  # each in two cells, which differ by the needle's place only
    answers = Measurements(job.measurements).answers(KEY)
    assert [answers[int(place)] for place in noted] == list(noted.values())
    assert 0 not in Measurements(job.measurements).answers(("other", *KEY[1:]))
