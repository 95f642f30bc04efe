"""Scores against plain sums over whole logits in double precision."""

import json
import math
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from longrecipe_core.corpus import TokenShards, load_tokenizer, train_tokenizer
from longrecipe_core.errors import EvaluationError, ModelError, RecipeError
from longrecipe_core.modeling import load_model, save_model
from longrecipe_core.recipe import ScoreSection
from longrecipe_core.scoring.__main__ import main
from longrecipe_core.scoring.models import find_device
from longrecipe_core.scoring.sample import choose_rows, resolve_lengths
from longrecipe_core.scoring.score import score
from longrecipe_core.selection.impact import read_impact

LENGTH, SHORT = 40, 8


def double_logits(directory, contexts):
    """The last token's logits after each context by itself, `[contexts, head rows]`, in double precision."""
    model = AutoModelForCausalLM.from_pretrained(directory).double().eval()
    with torch.no_grad():
        return np.stack([model(torch.tensor([context])).logits[0, -1].numpy() for context in contexts])


def expected(job, contexts_of):
    """Plain sums; `contexts_of` gives for a document its targets' places, and contexts for H' and for H."""
    tokens = TokenShards(job.tokens, "train")
    entries = len(load_tokenizer(job.base))
    total, count, top = np.zeros(entries), np.zeros(entries, int), np.zeros(entries, int)
    for row in range(len(tokens)):
        if tokens.lengths[row] < job.length:
            continue
        ids = tokens.input_ids(row)[: job.length].tolist()
        places, long_contexts, short_contexts = contexts_of(ids)
        difference = double_logits(job.extended or job.base, long_contexts) - double_logits(job.base, short_contexts)
        for place, row_difference in zip(places, difference[:, :entries], strict=True):
            own = row_difference[ids[place]]
            others = np.delete(row_difference, ids[place])
            assert np.abs(others - own).min() > 1e-6, "a near tie: take another seed"
            total[ids[place]] += own
            count[ids[place]] += 1
            top[ids[place]] += sum(others > own) < job.score.top * entries
    return total, count, top


def whole_contexts(ids):
    places = range(1, len(ids))
    return places, [ids[:place] for place in places], [ids[:place] for place in places]


def short_contexts(ids):
    """From the first multiple of half the short length that leaves no more than the short length."""
    places = range(SHORT + 1, len(ids))
    starts = [next(s for s in range(0, len(ids), SHORT // 2) if place - s <= SHORT) for place in places]
    short = [ids[start:place] for start, place in zip(starts, places, strict=True)]
    assert {len(context) for context in short} == set(range(SHORT // 2 + 1, SHORT + 1))
    return places, [ids[:place] for place in places], short


def columns(job):
    table = read_impact(job.output)
    return {name: table.column(name).to_numpy() for name in table.column_names}


@pytest.mark.parametrize(("source", "contexts"), [("model", whole_contexts), ("long-short", short_contexts)])
def test_scores_equal_plain_sums_over_whole_logits(make_job, source, contexts, capfd):
    job = make_job(source=source, launch={"loss_chunk": 7})
    score(job)
    total, count, top = expected(job, contexts)
    found = columns(job)
    assert found["token_id"].tolist() == list(range(len(total)))
    assert np.abs(found["score"] - total).max() < 1e-4
    assert found["count"].tolist() == count.tolist()
    assert found["share"].tolist() == [t / c if c else 0.0 for t, c in zip(top, count, strict=True)]
    assert 0 < top.sum() < count.sum()
    per_document = LENGTH - 1 if source == "model" else LENGTH - 1 - SHORT
    assert count.sum() == 4 * per_document
    metrics = json.loads(job.metrics.read_text())
    assert (metrics["documents"], metrics["tokens"]) == (4, 4 * per_document)
    assert f"document 4 of 4, {4 * per_document} tokens" in capfd.readouterr().out


def test_chunks_do_not_matter_and_a_second_run_gives_the_same_bytes(make_job):
    jobs = [make_job(f"run-{n}", source="model", launch={"loss_chunk": c}) for n, c in enumerate((1, 16, 16))]
    for job in jobs:
        score(job)
    one, chunks, again = jobs
    for name in ("impact.arrow", "classes.parquet", "classes.png"):
        assert (chunks.output / name).read_bytes() == (again.output / name).read_bytes()
    for name in ("count", "share"):
        assert columns(one)[name].tolist() == columns(chunks)[name].tolist()
    assert np.abs(columns(one)["score"] - columns(chunks)["score"]).max() < 1e-4


def test_ties_are_in_the_top_together(make_job, pair):
    """A model against itself: every difference is 0, no entry has a greater one, so that all are in the top."""
    job = make_job(source="model", extended=pair[0])
    score(job)
    found = columns(job)
    assert found["score"].tolist() == [0.0] * len(found["score"])
    assert found["share"].tolist() == (found["count"] > 0).astype(float).tolist()


def test_bf16_is_near(make_job):
    exact, rounded = make_job("exact", source="model"), make_job("bf16", source="model", score={"precision": "bf16"})
    score(exact)
    score(rounded)
    assert columns(rounded)["count"].tolist() == columns(exact)["count"].tolist()
    difference = columns(rounded)["score"] - columns(exact)["score"]
    assert 0 < np.abs(difference).max() < 0.1 * np.abs(columns(exact)["score"]).max()


def test_class_table_adds_up(make_job):
    job = make_job()
    score(job)
    found, rows = columns(job), pq.read_table(job.output / "classes.parquet").to_pylist()
    assert sum(row["occurrences"] for row in rows) == found["count"].sum()
    assert sum(row["types"] for row in rows) == (found["count"] > 0).sum()
    assert sum(row["top_occurrences"] for row in rows) == round(float((found["share"] * found["count"]).sum()))
    assert math.isclose(sum(row["share_of_top"] for row in rows), 1)
    assert math.isclose(sum(row["share_of_all"] for row in rows), 1)
    for row in rows:
        members = found["token_class"] == row["token_class"]
        assert math.isclose(row["score"], found["score"][members].sum(), abs_tol=1e-9)
        assert math.isclose(row["mean_score"] * row["occurrences"], row["score"], abs_tol=1e-9)
    assert json.loads(job.metrics.read_text())["classes"] == {r["token_class"]: r["share_of_top"] for r in rows}
    assert (job.output / "classes.png").read_bytes().startswith(b"\x89PNG")


def test_documents_are_drawn_from_the_long_ones(documents, capsys):
    tokens = TokenShards(documents, "train")
    section = ScoreSection(documents=2)
    chosen = {tuple(choose_rows(tokens, section, 40, seed).tolist()) for seed in range(40)}
    assert {row for rows in chosen for row in rows} == {0, 1, 2, 3}
    assert all(len(rows) == 2 and rows[0] < rows[1] for rows in chosen)
    assert capsys.readouterr().out == ""
    assert choose_rows(tokens, ScoreSection(documents=9), 41, 1).tolist() == [1, 3]
    assert "2 of 5 training documents have 41 tokens, which is fewer than score.documents 9" in capsys.readouterr().out
    with pytest.raises(EvaluationError, match=r"none of 5 training documents has the 91 tokens .* longest has 90\)"):
        choose_rows(tokens, section, 91, 1)


def test_lengths():
    assert resolve_lengths(ScoreSection(), 8192) == (8192, 1024)
    assert resolve_lengths(ScoreSection(length=100), 8192) == (100, 12)
    assert resolve_lengths(ScoreSection(length=4), 8192) == (4, 2)
    assert resolve_lengths(ScoreSection(short_length=30), 32) == (32, 30)
    model = ScoreSection(source="model", model={"path": "x"})
    assert resolve_lengths(model, 64) == (64, None)
    with pytest.raises(RecipeError, match=r"short_length 64 .* score.length 32 .* allowed: 2..30"):
        resolve_lengths(ScoreSection(short_length=64), 32)
    with pytest.raises(RecipeError, match=r"score.length must be 4 or more"):
        resolve_lengths(ScoreSection(), 3)


def test_beyond_the_window_is_told(make_job, capfd):
    score(make_job(source="model", window=24))
    assert "length 40 is above the base model's window 24" in capfd.readouterr().out


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    with pytest.raises(RecipeError, match=r"no device 'cuda:0' on this machine; allowed: auto, cpu$"):
        find_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("auto") == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(RecipeError, match=r"no device 'cuda:2' .* allowed: auto, cpu, cuda, cuda:0, cuda:1$"):
        find_device("cuda:2")


def test_models_must_share_the_vocabulary(make_job, pair, tmp_path):
    other = shutil.copytree(pair[1], tmp_path / "other")
    train_tokenizer(["other words, other pieces: zyzzyva zyzzyva"] * 3, 300, other, model_max_length=64)
    with pytest.raises(ModelError, match=r"^score: .*they must share the vocabulary$"):
        score(make_job(source="model", extended=other))
    model = load_model(pair[1])
    model.resize_token_embeddings(200)
    shutil.rmtree(other)
    shutil.copytree(pair[1], other)
    save_model(model, other)
    with pytest.raises(ModelError, match=r"its head has 200 rows, the tokenizer \d+ entries"):
        score(make_job(source="model", extended=other))


def test_heads_may_be_padded_differently(make_job, pair, tmp_path):
    model = load_model(pair[1])
    model.resize_token_embeddings(len(load_tokenizer(pair[1])))
    shutil.copytree(pair[1], tmp_path / "unpadded")
    save_model(model, tmp_path / "unpadded")
    padded, plain = make_job("a", source="model"), make_job("b", source="model", extended=tmp_path / "unpadded")
    score(padded)
    score(plain)
    assert (padded.output / "impact.arrow").read_bytes() == (plain.output / "impact.arrow").read_bytes()


def test_a_model_that_changes_its_logits_is_refused(make_job, pair, tmp_path):
    changed = shutil.copytree(pair[0], tmp_path / "changed")
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 30.0}))
    with pytest.raises(ModelError, match=r"final_logit_softcapping 30\.0, which logits computed piece by"):
        score(make_job(base=changed))


def test_broken_weights_are_told(make_job, pair, tmp_path):
    broken = shutil.copytree(pair[0], tmp_path / "broken")
    model = load_model(broken)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    save_model(model, broken)
    with pytest.raises(ModelError, match="not finite"):
        score(make_job(base=broken))


def test_an_error_of_the_job_is_one_line(make_job, tmp_path, monkeypatch, capsys):
    (tmp_path / "job.json").write_text(make_job(launch={"score_devices": ["cuda:77", "auto"]}).model_dump_json())
    monkeypatch.setattr(sys, "argv", ["scoring", str(tmp_path / "job.json")])
    assert main() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("RecipeError: launch.score_devices: no device 'cuda:77' on this machine; allowed: auto")
