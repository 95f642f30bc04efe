"""A base model that copies less than the recipe asks is refused, at each distance, and is not lost."""

import shutil

import pytest

import tasks.training
import tasks.training_run
from longrecipe_core.artifacts import ArtifactStore
from longrecipe_core.errors import BaseModelError
from longrecipe_core.evaluation import base_copying
from longrecipe_core.evaluation.minimum_copying import check_base_copying
from longrecipe_core.recipe import MinimumCopyingSection, Recipe
from tasks.run import Run, sources_reference

RECIPE = """
name: x
base:
  vocabulary_size: 300
  hidden_size: 16
  intermediate_size: 24
  layers: 1
  query_heads: 2
  kv_heads: 1
  window: 64
  training: {learning_rate: 1e-3, steps: 2, global_batch: 2, precision: fp32}
  copies: {span: [4, 10]}
  minimum_copying: {accuracy: 0.5, distances: [8, 24], samples: 4}
context: {target_length: 128, train_length: 40}
corpus: {sources: [{path: DOCUMENTS}], validation_share: 0.5}
extend: {learning_rate: 1e-3}
replay: {sources: [{path: DOCUMENTS}]}
anneal: {learning_rate: 1e-4}
"""


@pytest.mark.parametrize("low", [8, 64, 200])
def test_each_distance_counts_and_not_the_mean(low):
    section = MinimumCopyingSection(accuracy=0.9, distances=(8, 64, 200))
    check_base_copying({"8": 0.9, "64": 1.0, "200": 0.95}, section, "store/base")
    found = {"8": 1.0, "64": 1.0, "200": 1.0} | {str(low): 0.89}  # 0.963 in the mean
    with pytest.raises(BaseModelError) as caught:
        check_base_copying(found, section, "store/base")
    (line,) = str(caught.value).splitlines()
    for part in (f"0.890 at distance {low}", "0.9", "store/base", "base.training.steps", "base.copies.share"):
        assert part in line


def base(run):
    """The stage itself, without its task."""
    return tasks.training.base.fn(run, sources_reference(run.recipe.corpus.sources, run.open_store()))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(12):
        (documents / f"{number}.txt").write_text(f"Document {number} says: " + "the cat sat on the mat. " * 12)
    text = RECIPE.replace("DOCUMENTS", str(documents))
    return lambda *changes: Run(recipe=Recipe.parse(text, changes), store=str(tmp_path / "store"))


@pytest.fixture
def trained(monkeypatch):
    """The job itself is not started: the model that training begins from is its result. Says what it was told."""
    from longrecipe_core.modeling import finish_checkpoint

    told = []

    def train(work, *, start, data, training, rope):
        told.append(data)
        shutil.copytree(start, work.output, dirs_exist_ok=True)
        return {"parameters": finish_checkpoint(work.output, start).parameters}

    monkeypatch.setattr(tasks.training, "train", train)
    return told


def test_a_base_that_copies_too_little_is_refused_and_kept(run, trained, monkeypatch):
    with pytest.raises(BaseModelError) as caught:
        base(run())
    (data,) = trained
    assert (data.copies.span, data.samples, data.random_ids[0]) == ((4, 10), 4, 3)
    asked = run()
    store = ArtifactStore(asked.store)
    # Nothing is trained again, and nothing measured: what is asked is compared with what was measured.
    monkeypatch.setattr(base_copying, "measure_base_copying", None)
    with pytest.raises(BaseModelError) as again:
        base(asked)
    assert str(again.value) == str(caught.value)
    outcome = base(run("base.minimum_copying.accuracy=0"))
    assert outcome.status == "hit"
    assert outcome.ref.uri in str(caught.value)
    measured = store.manifest_of(outcome.ref).metrics["copying"]
    assert set(measured) == {"8", "24"}
    assert all(0 <= value < 0.5 for value in measured.values())
    assert len(trained) == 1


def test_one_distance_of_two_is_not_enough(run, trained, monkeypatch):
    monkeypatch.setattr(base_copying, "measure_base_copying", lambda *a, **k: {"8": 1.0, "24": 0.4})
    with pytest.raises(BaseModelError, match=r"1\.000 at distance 8, 0\.400 at distance 24"):
        base(run())


def test_without_a_minimum_nothing_is_measured(run, trained, monkeypatch):
    monkeypatch.setattr(base_copying, "measure_base_copying", None)
    outcome = base(run("base.minimum_copying=null", "base.copies=null"))
    assert outcome.status == "ran"
    assert (trained[0].copies, trained[0].random_ids) == (None, None)
