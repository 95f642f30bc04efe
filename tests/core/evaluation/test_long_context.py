"""Answers, scores, key tokens and contexts against plain loops over a tiny model; measurements that survive a kill."""

import json
import math
import signal
import subprocess
import sys
from itertools import takewhile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longrecipe_core.corpus import TokenWriter, load_tokenizer, train_tokenizer
from longrecipe_core.corpus.tokenizer import Encoder
from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.context_nll import context_nll
from longrecipe_core.evaluation.evaluate import evaluate
from longrecipe_core.evaluation.greedy import batches, greedy_answers
from longrecipe_core.evaluation.job import EvaluatedModel, EvaluationJob
from longrecipe_core.evaluation.long_ppl import key_tokens, perplexity_row
from longrecipe_core.evaluation.measurements import Measurements
from longrecipe_core.evaluation.retrieval import ask, needle_cells, ruler_cells
from longrecipe_core.evaluation.ruler import (
    Haystack,
    Prompt,
    effective_length,
    score,
    string_match_all,
    string_match_part,
)
from longrecipe_core.evaluation.ruler.needles import ONE, SEVERAL
from longrecipe_core.evaluation.ruler.variables import TEXT
from longrecipe_core.evaluation.ruler.words import FREQUENT
from longrecipe_core.evaluation.summary import ruler_summary
from longrecipe_core.evaluation.table import read_rows, text_table
from longrecipe_core.recipe import (
    ContextNllSection,
    CopyingSection,
    EvaluationSection,
    LongPplSection,
    NeedleSection,
    PasskeySection,
    RopeSection,
    RulerSection,
)

DOCUMENT = "The cat sat on the mat. A dog ran to the far hill. " * 80
HAYSTACK = Haystack(tuple(DOCUMENT.split()))
SENTENCES = "One of the special magic numbers for quick-fox is: 1234567. The grass is green. VAR ABC = 12345. "


def tiny(vocabulary, seed=0, window=1024):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=window, bos_token_id=0, eos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    templates = [SENTENCES, ONE, SEVERAL, TEXT, FREQUENT, " ".join(HAYSTACK.words)]
    train_tokenizer(templates * 3, 700, directory, model_max_length=1024)
    return load_tokenizer(directory)


@pytest.mark.parametrize(
    ("answer", "wanted", "every", "one"),
    [
        ("They are 12 and 34.", ("12", "34"), 100, 100),
        ("only 12", ("12", "34", "56", "78"), 25, 100),
        ("PARIS\x07", ("paris", "London"), 50, 100),
        ("", ("a",), 0, 0),
        ("no\tne", ("no\nne",), 100, 100),  # control characters are line breaks
    ],
)
def test_string_matches(answer, wanted, every, one):
    assert string_match_all(answer, wanted) == pytest.approx(every)
    assert string_match_part(answer, wanted) == pytest.approx(one)
    assert score("qa_2", answer, wanted) == pytest.approx(one)
    assert score("niah_multikey_1", answer, wanted) == pytest.approx(every)


def test_the_effective_length_is_the_largest_above_the_threshold():
    assert effective_length({4096: 95.0, 8192: 85.7, 16384: 85.6}, 85.6) == 8192
    assert effective_length({4096: 50.0}, 85.6) == 0


def test_the_summary_is_over_tasks():
    rows = [
        {"measure": "ruler", "task": task, "length": length, "value": value, "standard_error": error, "count": 10}
        for task, length, value, error in [
            ("vt", 1, 100, 3),
            ("cwe", 1, 80, 4),
            ("vt", 2, 90, 0),
            ("cwe", 2, 50, 0),
            ("vt", 3, 10, 0),
            ("cwe", 3, 20, 0),
        ]
    ]
    first, second, _, effective = ruler_summary([*rows, {"measure": "nll", "value": 1.0}], 85.6)
    assert (first["length"], first["value"], first["standard_error"], first["count"]) == (1, 90, 2.5, 20)
    assert (second["length"], second["value"]) == (2, 70)
    assert (effective["measure"], effective["value"]) == ("effective_length", 1)


def all_cells(trials=3):
    section = NeedleSection(lengths=(512,), depths=(0, 1), trials=trials)
    return {
        **{task: needle_cells(task, section, HAYSTACK) for task in ("single", "multikey", "multivalue", "multiquery")},
        "vt": ruler_cells("vt", RulerSection(lengths=(512,), samples=trials), HAYSTACK),
    }


@pytest.mark.parametrize("task", ["single", "multikey", "multivalue", "multiquery", "vt"])
def test_a_model_that_copies_scores_100_and_one_that_is_silent_0(tokenizer, task):
    cells = all_cells()[task]
    for share, value in ((1.0, 100), (0.4, 40 if task == "vt" else 50), (0.0, 0)):

        def answer(prompts, share=share):
            return [" ".join(prompt.answers[: round(share * len(prompt.answers))]) for prompt in prompts]

        rows = ask("needle", task, cells, Encoder(tokenizer), 1000, 1, answer)
        if share in (0, 1) or len(cells) == 1:  # a single number can't be given by half
            assert [row["value"] for row in rows] == [pytest.approx(value)] * len(cells)
        assert {(row["count"], row["length"], row["task"]) for row in rows} == {(3, 1000, task)}
        assert [row["depth"] for row in rows] == ([0, 1] if task in ("single", "multikey") else [None])
        assert rows[0]["haystack"] == (None if task == "vt" else "documents")


def random_prompts(vocabulary, lengths, new_tokens):
    rng = np.random.default_rng(0)
    return [Prompt(rng.integers(3, vocabulary, length).astype(np.int32), ("x",), new_tokens) for length in lengths]


def test_batched_answers_are_those_of_a_plain_greedy_loop(tokenizer):
    """Without cache, without padding: the most likely token is added, 12 times or until the end of the text."""
    model = tiny(len(tokenizer))
    model.generation_config.repetition_penalty = 5.0  # greedy decoding has none, whatever the model's config says
    model.generation_config.min_new_tokens = 12
    prompts = random_prompts(len(tokenizer), [40, 7, 39, 38, 40, 3, 25, 25], 12)
    expected = []
    for prompt in prompts:
        ids = prompt.input_ids.tolist()
        with torch.no_grad():
            for _ in range(12):
                ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
                if ids[-1] == 1:
                    break
        expected.append(tokenizer.decode(ids[len(prompt.input_ids) :], skip_special_tokens=True))
    assert len(set(expected)) == len(expected)
    assert greedy_answers(model, tokenizer, prompts, bf16=False) == expected
    assert [greedy_answers(model, tokenizer, [prompt], bf16=False)[0] for prompt in prompts] == expected


def test_answers_end_with_the_text(tokenizer):
    model = tiny(len(tokenizer))
    (prompt,) = random_prompts(len(tokenizer), [20], 8)
    with torch.no_grad():
        first = int(model(input_ids=torch.from_numpy(prompt.input_ids.astype(np.int64))[None]).logits[0, -1].argmax())
    model.generation_config.eos_token_id = first
    assert greedy_answers(model, tokenizer, [prompt], bf16=False) == [tokenizer.decode([first])]


def test_long_prompts_are_alone_and_short_ones_together():
    prompts = [
        *random_prompts(9, [9000, 100, 8300, 101, 102], 10),
        *random_prompts(9, [100, 4000], 20),
    ]
    found = list(batches(prompts))
    assert sorted(row for batch in found for row in batch) == list(range(7))
    assert [0] in found
    assert [2] in found
    assert sorted([4, 3, 1]) in [sorted(batch) for batch in found]
    assert [6, 5] in found


DOCUMENT_LENGTHS = np.array([60, 41, 60, 12])
VOCABULARY = 30


@pytest.fixture(scope="module")
def documents():
    rng = np.random.default_rng(1)
    made = rng.integers(0, VOCABULARY, (4, 60))
    made[np.arange(60)[None, :] >= DOCUMENT_LENGTHS[:, None]] = 0
    return made


def plain_logp(model, context, token):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(context)])).logits[0, -1].double()
    return float(logits.log_softmax(-1)[token])


def test_key_tokens_by_the_definition(documents):
    model = tiny(VOCABULARY)
    section = LongPplSection(short_length=10, step=4, difference=0.4, likelihood=-5.0)
    found = key_tokens(model, documents, DOCUMENT_LENGTHS, section, bf16=False, chunk=16)
    expected = np.zeros_like(found)
    for row, length in enumerate(DOCUMENT_LENGTHS):
        for position in range(10 + 4, length):
            start = (position - 10) // 4 * 4  # four tokens share a start
            assert 10 <= position - start < 14
            ids = documents[row]
            long = plain_logp(model, ids[:position], ids[position])
            short = plain_logp(model, ids[start:position], ids[position])
            expected[row, position - 1] = long - short > 0.4 and long > -5.0
    assert 3 < expected.sum() < 100
    np.testing.assert_array_equal(found, expected)


def test_both_conditions_of_key_tokens_count(documents):
    model = tiny(VOCABULARY)

    def count(**options):
        section = LongPplSection(short_length=10, step=4, **options)
        return key_tokens(model, documents, DOCUMENT_LENGTHS, section, bf16=False, chunk=16).sum()

    assert count(difference=-1e9, likelihood=-1e9) == sum(max(0, length - 14) for length in DOCUMENT_LENGTHS)
    assert count(difference=1e9, likelihood=-1e9) == count(difference=-1e9, likelihood=1e9) == 0


def test_perplexity_is_exp_of_the_mean_over_what_is_chosen():
    nll = np.array([[1.0, 2.0, np.nan], [3.0, 5.0, 7.0]])
    row = perplexity_row(nll, np.array([[True, False, True], [True, True, False]]))
    assert row["count"] == 3
    assert row["value"] == pytest.approx(math.exp(3))
    assert row["standard_error"] == pytest.approx(math.exp(3) * np.std([1, 4], ddof=1) / 2**0.5)
    nothing = perplexity_row(nll, np.zeros((2, 3), dtype=bool))
    assert nothing["count"] == 0
    assert math.isnan(nothing["value"])


def test_context_nll_scores_the_same_tokens_with_each_context(documents):
    model = tiny(VOCABULARY)
    section = ContextNllSection(lengths=(16, 40), stride=8)
    for length in section.lengths:
        values = []
        for row in (0, 1, 2):  # the last document is too short
            for end in range(40, DOCUMENT_LENGTHS[row] + 1, 8):
                ids = documents[row]
                values.append([
                    -plain_logp(model, ids[end - length : at], ids[at]) for at in range(end - 8, end)
                ])  # fmt: skip
        row = context_nll(model, documents, DOCUMENT_LENGTHS, length, section, bf16=False, chunk=16)
        assert row["count"] == 8 * (3 + 1 + 3)
        assert row["value"] == pytest.approx(np.mean(values), abs=1e-5)
        means = [np.mean(values[:3]), np.mean(values[3:4]), np.mean(values[4:])]
        assert row["standard_error"] == pytest.approx(np.std(means, ddof=1) / 3**0.5, abs=1e-5)
    with pytest.raises(EvaluationError, match="none of the documents has 61 tokens"):
        context_nll(
            model, documents, DOCUMENT_LENGTHS, 16, ContextNllSection(lengths=(61,), stride=8), bf16=False, chunk=9
        )


def test_measurements_are_found_again_and_a_torn_line_is_not(tmp_path):
    path = tmp_path / "staging" / "measurements.jsonl"
    first = Measurements(path)
    rows = [{"value": 1.5, "standard_error": float("nan")}]
    assert first.take(("m", "nll", None, None), lambda: rows) == rows
    first.take(("m", "ruler", "vt", 512), lambda: [{"value": 2}])
    with pytest.raises(ZeroDivisionError):
        first.take(("m", "ruler", "cwe", 512), lambda: 1 / 0)
    with path.open("a") as file:
        file.write('{"key": ["m", "ruler", "fwe", 512], "rows": [{"val')  # killed here
    second = Measurements(path)
    assert ("m", "ruler", "fwe", 512) not in second
    assert ("m", "ruler", "cwe", 512) not in second
    assert math.isnan(second.take(("m", "nll", None, None), lambda: 1 / 0)[0]["standard_error"])
    second.take(("m", "ruler", "fwe", 512), lambda: [{"value": 3}])
    third = Measurements(path)
    assert third.take(("m", "ruler", "fwe", 512), lambda: 1 / 0) == [{"value": 3}]
    assert third.take(("m", "ruler", "vt", 512), lambda: 1 / 0) == [{"value": 2}]
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 3


@pytest.fixture
def job(tmp_path, tokenizer):
    for name, seed in (("base", 0), ("merged", 1)):
        model = tiny(len(tokenizer), seed, window=512)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    with TokenWriter(tmp_path / "tokens", "validation") as writer:
        for number in range(3):
            ids = tokenizer.encode(" ".join(HAYSTACK.words[number:]), add_special_tokens=False)
            writer.append(f"{number:064x}", "0-text", np.array(ids[:900], dtype=np.int32))
    models = (
        EvaluatedModel(name="base, RoPE", directory=tmp_path / "base", rope=RopeSection(type="theta", theta=5e4)),
        EvaluatedModel(name="merged", directory=tmp_path / "merged"),
    )
    return EvaluationJob(
        models=models,
        evaluator=EvaluatedModel(name="base", directory=tmp_path / "base"),
        tokens=tmp_path / "tokens",
        evaluation=EvaluationSection(
            minimum_length=800,
            buckets=2,
            precision="fp32",
            passkey=PasskeySection(distances=(50,), trials=2),
            needle=NeedleSection(lengths=(600,), depths=(0.0, 1.0), tasks=("single", "multivalue"), trials=2),
            ruler=RulerSection(lengths=(600, 800), tasks=("fwe",), samples=2),
            long_ppl=LongPplSection(short_length=64, step=64, difference=0.1, likelihood=-9.0),
            context_nll=ContextNllSection(lengths=(100, 800), stride=50),
        ),
        window=512,
        target_length=900,
        seed=1,
        threads=1,
        measurements=tmp_path / "measurements.jsonl",
        output=tmp_path / "output",
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"needle": NeedleSection(lengths=(600, 60), depths=(0.5,), trials=2)}, "length 60 is too short for needle"),
        ({"passkey": PasskeySection(distances=(5000,), trials=2)}, "5000"),
        ({"copying": CopyingSection(distances=(5000,))}, "5000"),
        ({"context_nll": ContextNllSection(lengths=(100, 5000), stride=50)}, "5000"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is(job, changes, told):
    with pytest.raises(EvaluationError, match=told):
        evaluate(job.model_copy(update={"evaluation": job.evaluation.model_copy(update=changes)}))
    assert not job.measurements.exists()


def test_killed_in_the_middle_of_the_second_model_it_goes_on_there(job, tmp_path):
    """A real process and kill -9; the same command again has the rows of a job that was not interrupted."""
    job_file = tmp_path / "job.json"
    job_file.write_text(job.model_dump_json())
    command = [sys.executable, "-m", "longrecipe_core.evaluation", str(job_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        before = list(takewhile(lambda line: not line.startswith("merged: measures ruler"), process.stdout))
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not job.output.exists()
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line for line in before if line.startswith("base, RoPE: measures nll")]
    measured = [line for line in again if ": measures " in line]
    assert measured == ["merged: measures ruler fwe 600", "merged: measures ruler fwe 800"]

    resumed = read_rows(job.output)
    evaluate(job.model_copy(update={"measurements": tmp_path / "other.jsonl"}))
    assert resumed == read_rows(job.output)


def test_every_measure_is_a_row_and_what_was_measured_is_not_measured_again(job, monkeypatch, capsys):
    class Killed(Exception):
        pass

    done = []

    def stop(original):
        def measured(self, *arguments):
            if len(done) == 6:
                raise Killed
            done.append((self.name, arguments[:3]))
            return original(self, *arguments)

        return measured

    from longrecipe_core.evaluation.subject import Subject

    original = Subject.ask_rows
    monkeypatch.setattr(Subject, "ask_rows", stop(original))
    with pytest.raises(Killed):
        evaluate(job)
    assert not (job.output / "evaluation.parquet").exists()
    resumed = []
    monkeypatch.setattr(Subject, "ask_rows", lambda self, *a: resumed.append((self.name, a[:3])) or original(self, *a))
    capsys.readouterr()
    evaluate(job)
    assert len(done) + len(resumed) == 2 * 4
    assert not set(done) & set(resumed)
    told = capsys.readouterr().out
    assert "RoPE: measures" not in told
    assert "merged: measures ruler fwe 800" in told
    assert "model 2 of 2, merged: NLL" in told

    rows = read_rows(job.output)
    assert pq.read_table(job.output / "evaluation.parquet").schema.names[:8] == [
        "model", "measure", "start", "end", "value", "standard_error", "count", "seed",
    ]  # fmt: skip
    for model in ("base, RoPE", "merged"):
        own = [row for row in rows if row["model"] == model]
        assert [(row["measure"], row["task"], row["length"], row["depth"]) for row in own] == [
            ("nll", None, None, None),
            ("nll", None, None, None),
            ("ppl", None, 900, None),
            ("long_ppl", "key tokens of base", 900, None),
            ("context_nll", None, 100, None),
            ("context_nll", None, 800, None),
            ("passkey", None, None, None),
            ("needle", "single", 600, 0.0),
            ("needle", "single", 600, 1.0),
            ("needle", "multivalue", 600, None),
            ("ruler", "fwe", 600, None),
            ("ruler", "fwe", 800, None),
            ("ruler_mean", None, 600, None),
            ("ruler_mean", None, 800, None),
            ("effective_length", None, None, None),
        ]
        assert all(row["count"] > 0 and row["seed"] == 1 for row in own)
        nll = sum(row["value"] * row["count"] for row in own[:2]) / sum(row["count"] for row in own[:2])
        assert own[2]["value"] == pytest.approx(math.exp(nll))
        assert own[2]["count"] == 3 * 899
    # The same tokens are key for all models.
    assert len({row["count"] for row in rows if row["measure"] == "long_ppl"}) == 1
    table = text_table(rows)
    assert "needle single, score at length@depth" in table
    assert "RULER, effective length" in table
    assert (job.output / "needles.png").read_bytes()[:4] == b"\x89PNG"

    fresh = job.model_copy(update={"measurements": job.measurements.with_name("other.jsonl")})
    monkeypatch.setattr(Subject, "ask_rows", original)
    evaluate(fresh)
    for resumed_row, row in zip(rows, read_rows(job.output), strict=True):
        assert resumed_row == pytest.approx(row, nan_ok=True)
