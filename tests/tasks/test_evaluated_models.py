"""Other models enter an evaluation by content, and with the base model's vocabulary only."""

import json
import shutil

import pytest
import yaml
from smallest_recipe import RECIPE

from longrecipe_core.artifacts import ArtifactStore, fingerprint
from longrecipe_core.corpus import load_tokenizer, train_tokenizer
from longrecipe_core.errors import EvaluationError
from longrecipe_core.evaluation.same_vocabulary import check_vocabulary
from longrecipe_core.recipe import Recipe
from tasks.outside import look_outside
from tasks.stages import STAGES, stage_keys, used_inputs


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "store", cache=tmp_path / "cache")


def checkpoint(directory, weights: bytes):
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(weights)
    return str(directory)


@pytest.fixture
def keys(tmp_path, store):
    """Fingerprints of all stages of a recipe with these other models."""
    for name in ("documents", "replay"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text(name)
    base = checkpoint(tmp_path / "base", b"base")

    def keys(*models, **evaluation):
        tree = RECIPE | {
            "model": {"path": base},
            "corpus": {"sources": [{"path": str(tmp_path / "documents")}]},
            "replay": {"sources": [{"path": str(tmp_path / "replay")}]},
            "evaluation": evaluation | ({"models": list(models)} if models else {}),
        }
        recipe = Recipe.parse(yaml.safe_dump(tree))
        return stage_keys(recipe, look_outside(recipe, store))

    return keys


def changed(before, after):
    return [stage for stage in before if before[stage] != after[stage]]


def test_another_model_is_known_by_its_content_wherever_it_lies(tmp_path, keys):
    one, copy, other = (checkpoint(tmp_path / name, name[:3].encode()) for name in ("one", "one-again", "two"))
    first = keys({"name": "x", "path": one})
    assert changed(keys(), first) == ["evaluate", "report"]
    assert keys({"name": "x", "path": copy}) == first
    assert keys({"name": "x", "path": f"file://{one}"}) == first
    assert changed(first, keys({"name": "x", "path": other})) == ["evaluate", "report"]
    assert changed(first, keys({"name": "y", "path": one})) == ["evaluate", "report"]
    (tmp_path / "one" / "model.safetensors").write_bytes(b"retrained")
    assert changed(first, keys({"name": "x", "path": one})) == ["evaluate", "report"]


def test_a_rope_change_and_the_chosen_stages_decide_the_evaluation_only(keys):
    yarn = {"name": "base with YaRN", "rope": {"type": "yarn"}}
    assert changed(keys(), keys(yarn)) == ["evaluate", "report"]
    assert changed(keys(yarn), keys(yarn | {"rope": {"type": "yarn", "factor": 2}})) == ["evaluate", "report"]
    assert changed(keys(), keys(stages=["base", "merge"])) == ["evaluate", "report"]


def test_an_artifact_of_the_store_is_one(tmp_path, store, keys):
    made = checkpoint(tmp_path / "made", b"made")
    ref = store.commit("checkpoint", fingerprint("made"), tmp_path / "made", recipe={}, seconds=0)
    models = ({"name": "a", "path": ref.uri}, {"name": "b", "path": made}, {"name": "c", "rope": {"type": "yarn"}})
    keys(*models)  # both can be read
    tree = RECIPE | {"evaluation": {"models": list(models)}}
    assert used_inputs(Recipe.parse(yaml.safe_dump(tree)), STAGES["evaluate"])[-2:] == (
        "evaluation.models.a",
        "evaluation.models.b",
    )
    # By the key of what made it, as every artifact, and not by its bytes.
    assert keys({"name": "x", "path": ref.uri}) != keys({"name": "x", "path": made})


def test_a_vocabulary_must_give_the_same_ids(tmp_path):
    texts = ["The cat sat on the mat. A dog ran to the far hill."] * 3
    for name, words in (("base", texts), ("foreign", [text[::-1] for text in texts])):
        train_tokenizer(words, 280, tmp_path / name, model_max_length=64)
    for name in ("copy", "chat"):
        shutil.copytree(tmp_path / "base", tmp_path / name)
    tokenizer = load_tokenizer(tmp_path / "base")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.save_pretrained(tmp_path / "chat")
    # The same vocabulary in a file that was written otherwise.
    path = tmp_path / "copy" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3))

    for name in ("base", "copy", "chat"):
        check_vocabulary(tmp_path / "base", tmp_path / name, name)
    with pytest.raises(EvaluationError, match=r"^evaluation.models.x: /x: has another vocabulary than the base model"):
        check_vocabulary(tmp_path / "base", tmp_path / "foreign", "evaluation.models.x: /x")
    with pytest.raises(EvaluationError, match=r"'<\|im_start\|>' is \d+ there and none here"):
        check_vocabulary(tmp_path / "chat", tmp_path / "base", "x")
