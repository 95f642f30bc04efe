"""lm-eval's numbers against plain log likelihoods and greedy loops; what is noted; refusals. All tasks are local."""

import importlib.util
import json
from pathlib import Path

import datasets
import lm_eval.evaluator
import numpy as np
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from longrecipe_core.corpus import TokenWriter, load_tokenizer, train_tokenizer
from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.benchmark_tasks import BenchmarkTasks, check_tasks, tasks_digest
from longrecipe_core.evaluation.benchmarks import benchmark_rows, harness
from longrecipe_core.evaluation.evaluate import evaluate
from longrecipe_core.evaluation.job import EvaluatedModel, EvaluationJob
from longrecipe_core.evaluation.table import read_rows, text_table
from longrecipe_core.recipe import BenchmarksSection, EvaluationSection

SHIPPED = Path(__file__).resolve().parents[3] / "recipes" / "benchmarks"
QUESTIONS = [json.loads(line) for line in (SHIPPED / "capitals" / "capitals.jsonl").read_text().splitlines()]
WINDOW = 64


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Of data sets that a task reads from a file."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A directory with a tiny model of random weights, and its tokenizer."""
    directory = tmp_path_factory.mktemp("tiny")
    words = [f"The capital of {row['country']} is {', '.join(row['choices'])}." for row in QUESTIONS]
    train_tokenizer(words * 3, 400, directory, model_max_length=WINDOW)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=400, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=WINDOW, bos_token_id=0, eos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def tiny(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return load_tokenizer(checkpoint)


def log_likelihood(model, tokenizer, question, answer):
    """Of the answer's tokens, one forward pass and a sum."""
    ids = tokenizer(question + answer).input_ids
    start = len(tokenizer(question).input_ids)
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logp[at - 1, ids[at]]) for at in range(start, len(ids)))


def greedy(model, tokenizer, question, tokens):
    ids = tokenizer(question).input_ids
    start = len(ids)
    with torch.no_grad():
        for _ in range(tokens):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


def rows_of(checkpoint, model, section, name, **options):
    lm = harness(model, load_tokenizer(checkpoint), bf16=False, batch_size=section.batch_size)
    return benchmark_rows(lambda: lm, BenchmarkTasks(section, checkpoint, 5), name, **options)


def values(rows):
    return {(row["task"], row["metric"]): (row["value"], row["standard_error"], row["count"]) for row in rows}


def mean(hits):
    return pytest.approx((np.mean(hits), np.std(hits, ddof=1) / len(hits) ** 0.5, len(hits)))


def written(directory, name, rows, **keys):
    """A task of one's own; `rows` have `q` and `a`."""
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(directory / f"{name}.jsonl") for split in ("train", "test")}
    task = {
        "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test",
        "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6}, "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    (directory / f"{name}.yaml").write_text(yaml.safe_dump(task | keys))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_choices_are_those_with_the_highest_log_likelihood(checkpoint, tiny, tokenizer, batch_size):
    section = BenchmarksSection(tasks=("capitals",), include_path=str(SHIPPED), batch_size=batch_size)
    plain, by_letter = [], []
    for row in QUESTIONS:
        question = f"The capital of {row['country']} is"
        found = [log_likelihood(tiny, tokenizer, question, f" {choice}") for choice in row["choices"]]
        plain.append(np.argmax(found) == row["answer"])
        by_letter.append(np.argmax(np.divide(found, [len(one) for one in row["choices"]])) == row["answer"])
    assert len(set(plain)) == 2
    rows = rows_of(checkpoint, tiny, section, "capitals")
    assert values(rows) == {("capitals", "acc"): mean(plain), ("capitals", "acc_norm"): mean(by_letter)}


def test_written_answers_are_greedy_and_end_where_the_task_says(checkpoint, tiny, tokenizer, tmp_path):
    """Every other question's answer is what a plain loop finds; limit and the recipe's length of answers hold."""
    questions = [f"The capital of {row['country']} is" for row in QUESTIONS]
    ends = [greedy(tiny, tokenizer, question, 3).split("a")[0] for question in questions]
    assert len(set(ends)) > 4
    rows = [
        {"q": q, "a": end if at % 2 else f"{end}?"} for at, (q, end) in enumerate(zip(questions, ends, strict=True))
    ]
    written(tmp_path, "own", rows, generation_kwargs={"until": ["a"], "max_gen_toks": 6})
    section = BenchmarksSection(tasks=("own",), include_path=str(tmp_path), limit=7, max_gen_toks=3)
    assert values(rows_of(checkpoint, tiny, section, "own")) == {("own", "exact_match"): mean([0, 1, 0, 1, 0, 1, 0])}


def test_numbers_are_those_of_simple_evaluate(checkpoint, tiny, tmp_path, monkeypatch):
    """With few-shot examples, a filter and a seed; the function itself, less its description of the machine."""
    rows = [{"q": f"The capital of {row['country']} is", "a": f" {row['choices'][row['answer']]}"} for row in QUESTIONS]
    choices = {"output_type": "multiple_choice", "doc_to_choice": [" Bern", " Hanoi", "."], "doc_to_target": 1}
    choices["metric_list"] = [{"metric": "acc"}]
    written(tmp_path, "own", rows, fewshot_split="train", target_delimiter="", **choices)
    section = BenchmarksSection(tasks=("own",), include_path=str(tmp_path), fewshot=2, limit=5)
    lm = harness(tiny, load_tokenizer(checkpoint), bf16=False, batch_size=1)
    tasks = BenchmarkTasks(section, checkpoint, 5)
    found = values(benchmark_rows(lambda: lm, tasks, "own"))
    asked = [instance.args[0] for instance in tasks.load("own")["tasks"]["own"].instances]
    assert all(text.count("The capital of") == 3 for text in asked)
    monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda storage: None)
    fresh = BenchmarkTasks(section, checkpoint, 5)
    their = lm_eval.evaluator.simple_evaluate(
        lm, tasks=["own"], task_manager=fresh.manager, num_fewshot=2, limit=5, bootstrap_iters=1000,
        random_seed=5, numpy_random_seed=5, torch_random_seed=5, fewshot_random_seed=5,
    )  # fmt: skip
    assert [sample["arguments"][0][0] for sample in their["samples"]["own"]] == asked[::3]
    own = their["results"]["own"]
    assert found == {("own", "acc"): (own["acc,none"], own["acc_stderr,none"], 5)}


@pytest.fixture
def group(tmp_path):
    """Two tasks of 2 and 6 questions, and their mean by questions."""
    for name, count in (("few", 2), ("more", 6)):
        rows = [{"q": f"The capital of {row['country']} is", "a": "x"} for row in QUESTIONS[:count]]
        written(tmp_path, name, rows, metric_list=[{"metric": "exact_match"}])
    aggregate = [{"metric": "exact_match", "weight_by_size": True}]
    (tmp_path / "both.yaml").write_text(
        yaml.safe_dump({"group": "both", "task": ["few", "more"], "aggregate_metric_list": aggregate})
    )
    return BenchmarksSection(tasks=("both",), include_path=str(tmp_path))


def test_a_group_is_noted_task_by_task(checkpoint, tiny, group):
    noted = {"few": [{"exact_match,none": 0.5, "exact_match_stderr,none": 0.5, "sample_len": 2.0}]}

    def note(part, measure):
        if part not in noted:
            noted[part] = json.loads(json.dumps(measure()))
        return noted[part]

    found = values(rows_of(checkpoint, tiny, group, "both", note=note))
    assert list(found) == [("both", "exact_match"), ("few", "exact_match"), ("more", "exact_match")]
    assert (found["few", "exact_match"], found["more", "exact_match"]) == ((0.5, 0.5, 2), (0, 0, 6))
    assert found["both", "exact_match"][0] == pytest.approx((2 * 0.5 + 6 * 0) / 8)
    assert found["both", "exact_match"][2] == 8

    def nothing_to_measure():
        raise AssertionError("a model was asked for")

    again = benchmark_rows(nothing_to_measure, BenchmarkTasks(group, checkpoint, 5), "both", note)
    assert values(again) == found


def test_an_evaluation_takes_them_of_every_model_and_finds_them_again(checkpoint, tmp_path, monkeypatch):
    with TokenWriter(tmp_path / "tokens", "validation") as writer:
        writer.append("one", "", np.random.default_rng(0).integers(3, 400, 70).astype(np.int32))
    section = EvaluationSection(
        buckets=1, precision="fp32", minimum_length=60,
        benchmarks=BenchmarksSection(tasks=("capitals", "capitals_written"), include_path=str(SHIPPED), limit=4),
    )  # fmt: skip
    job = EvaluationJob(
        models=tuple(EvaluatedModel(name=name, directory=checkpoint) for name in ("one", "two")),
        tokens=tmp_path / "tokens", evaluation=section, window=WINDOW, target_length=WINDOW, seed=1, threads=1,
        measurements=tmp_path / "measurements.jsonl", output=tmp_path / "output",
    )  # fmt: skip
    evaluate(job)
    rows = [row for row in read_rows(tmp_path / "output") if row["measure"] == "benchmark"]
    metrics = [("capitals", "acc"), ("capitals", "acc_norm"), ("capitals_written", "exact_match")]
    assert [(row["model"], row["task"], row["metric"]) for row in rows] == [
        (model, *metric) for model in ("one", "two") for metric in metrics
    ]
    assert {(row["count"], row["seed"]) for row in rows} == {(4, 1)}
    assert {row["metric"] for row in read_rows(tmp_path / "output") if row["measure"] == "nll"} == {None}
    table = text_table(read_rows(tmp_path / "output")).splitlines()
    at = table.index("benchmark capitals")
    assert table[at + 1].split() == ["acc", "acc_norm"]
    assert table[at + 2].split() == ["one", f"{rows[0]['value']:.3f}", f"{rows[1]['value']:.3f}"]

    noted = (tmp_path / "measurements.jsonl").read_text()
    monkeypatch.setattr("longrecipe_core.evaluation.subject.load_model", None)
    monkeypatch.setattr(BenchmarkTasks, "load", None)
    evaluate(job.model_copy(update={"output": tmp_path / "again"}))
    assert (tmp_path / "measurements.jsonl").read_text() == noted
    assert str(read_rows(tmp_path / "again")) == str(read_rows(tmp_path / "output"))


def test_lm_eval_alone_reads_a_checkpoint_as_transformers_does(checkpoint):
    """As `lm_eval --model hf --model_args pretrained=DIRECTORY` does; nothing of this project takes part."""
    lm = HFLM(pretrained=str(checkpoint), dtype="float32", device="cpu")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    asked = [
        (f"The capital of {row['country']} is", f" {choice}") for row in QUESTIONS[:3] for choice in row["choices"]
    ]
    requests = [
        lm_eval.api.instance.Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in asked
    ]
    found = [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    assert found == pytest.approx([log_likelihood(model, tokenizer, *pair) for pair in asked], abs=1e-4)
    assert lm.max_length == WINDOW


def refusal(section, name=None, model=None):
    def ask():
        check_tasks(section)
        benchmark_rows(lambda: model, BenchmarkTasks(section, Path(), 1), name)

    with pytest.raises(EvaluationError) as caught:
        ask()
    (line,) = str(caught.value).splitlines()
    return line


def test_names_that_lm_eval_has_not_are_told_with_those_that_are_close():
    line = refusal(BenchmarksSection(tasks=("capitals", "mmmlu_anatomy"), include_path=str(SHIPPED)))
    assert line.startswith("evaluation.benchmarks.tasks: lm-eval has no task 'mmmlu_anatomy'; close are ")
    assert "mmlu_anatomy" in line.split("close are ")[1]
    check_tasks(BenchmarksSection(tasks=("mmlu", "gsm8k", "longbench", "ruler")))


def test_code_of_a_model_is_never_run_unasked(tmp_path, checkpoint):
    assert "humaneval runs code that the model writes" in refusal(BenchmarksSection(tasks=("humaneval",)))
    check_tasks(BenchmarksSection(tasks=("humaneval",), confirm_unsafe=True))
    written(tmp_path, "own", [{"q": "def f", "a": "x"}], unsafe_code=True)
    (tmp_path / "around.yaml").write_text(yaml.safe_dump({"group": "around", "task": ["own"]}))
    own = BenchmarksSection(tasks=("around",), include_path=str(tmp_path))
    assert "evaluation.benchmarks.confirm_unsafe: true allows it" in refusal(own)
    with pytest.raises(EvaluationError, match="confirm_unsafe"):
        BenchmarkTasks(own, checkpoint, 1).load("around")
    check_tasks(own.model_copy(update={"confirm_unsafe": True}))


def test_what_can_not_be_had_is_one_line(tmp_path, checkpoint, tiny, monkeypatch):
    written(tmp_path, "away", [], dataset_path="nobody/nothing", dataset_kwargs={})
    written(tmp_path, "long", [{"q": "Who?", "a": "I."}], generation_kwargs={"max_gen_toks": WINDOW})
    section = BenchmarksSection(tasks=("away",), include_path=str(tmp_path))
    assert "evaluation.benchmarks.tasks: away can't be loaded: " in refusal(section, "away")
    section = BenchmarksSection(tasks=("long",), include_path=str(tmp_path))
    lm = harness(tiny, load_tokenizer(checkpoint), bf16=False, batch_size=1)
    assert f"long generates up to {WINDOW} tokens, and the model's window of {WINDOW}" in refusal(section, "long", lm)
    gone = BenchmarksSection(tasks=("long",), include_path=str(tmp_path / "gone"))
    assert "gone: no file there" in refusal(gone)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal(section).endswith("pip install 'longrecipe[eval]'")


def test_own_tasks_are_known_by_their_files(tmp_path):
    written(tmp_path / "here", "own", [{"q": "Who?", "a": "I."}])
    first = tasks_digest(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "there" / "__pycache__").mkdir()
    (tmp_path / "there" / "__pycache__" / "own.pyc").write_bytes(b"compiled on the way")
    assert tasks_digest(tmp_path / "there") == first
    (tmp_path / "there" / "own.jsonl").write_text('{"q": "Who?", "a": "You."}\n')
    assert tasks_digest(tmp_path / "there") != first
