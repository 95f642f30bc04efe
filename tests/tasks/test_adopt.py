"""An existing checkpoint as a stage's result."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from smallest_recipe import RECIPE

from longrecipe_core.artifacts import ArtifactRef, ArtifactStore, fingerprint, lineage
from longrecipe_core.corpus import train_tokenizer
from longrecipe_core.errors import AdoptionError, ArtifactDamagedError
from longrecipe_core.modeling import make_tiny_config, make_tiny_model
from longrecipe_core.recipe import BaseSection, Recipe, TrainingSection
from tasks.run import Run, settle

INPUTS = {
    name: ArtifactRef(uri=f"outside/{name}", kind="outside", fingerprint=fingerprint(name))
    for name in ("base", "tokenize", "index", "replay")
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A Llama with a window of 128 tokens."""
    root = tmp_path_factory.mktemp("adopted")
    train_tokenizer(iter(["one two three four"] * 20), 270, root / "tokenizer", model_max_length=128)
    section = BaseSection(
        vocabulary_size=300, hidden_size=16, intermediate_size=24, layers=1, query_heads=2, kv_heads=1, window=128,
        training=TrainingSection(learning_rate=1e-3),
    )  # fmt: skip
    config = make_tiny_config(section, 300, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    make_tiny_model(config, root / "tokenizer", root / "model", seed=1)
    return root / "model"


@pytest.fixture
def copy(checkpoint, tmp_path) -> Path:
    """To be changed."""
    shutil.copytree(checkpoint, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def root(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("LONGRECIPE_CACHE", str(tmp_path / "cache"))
    return str(tmp_path / "store")


def a_run(root: str, **choices) -> Run:
    return Run(recipe=Recipe.parse(yaml.safe_dump(RECIPE)), store=root, **choices)


def extend(root: str, uri: object = None):
    adopt = {} if uri is None else {"extend": str(uri)}
    inputs = {name: INPUTS[name] for name in ("base", "tokenize", "index")}
    return settle(a_run(root, adopt=adopt, start_from="anneal"), "extend", inputs, never)


def never(work):
    raise AssertionError("an adopted stage does not work")


def change_a_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, directory / "model.safetensors", metadata={"format": "pt"})


def test_a_directory_becomes_the_stages_artifact(root, checkpoint):
    first = extend(root, checkpoint)
    assert (first.status, first.why) == ("ran", f"adopted from {checkpoint}")
    store = ArtifactStore(root)
    manifest = store.manifest_of(first.ref)
    assert manifest.stage == "extend"
    assert manifest.adopted.uri == str(checkpoint)
    assert manifest.adopted.content_sha256 == manifest.content_digest()
    assert manifest.inputs == ()
    for path in checkpoint.iterdir():
        assert (Path(first.ref.uri) / path.name).read_bytes() == path.read_bytes()
    assert (Path(first.ref.uri) / "about" / "recipe.yaml").is_file()
    assert f"(adopted from {checkpoint})" in lineage(store, first.ref).lines()[0]
    # The same again, and a run that adopts nothing, take it as it is.
    assert extend(root, checkpoint).status == "hit"
    later = extend(root)
    assert later.status == "hit"
    assert later.why == f"in the store, whole; adopted from {checkpoint}"


def test_artifacts_of_any_store_and_urls_are_the_same_checkpoint(root, checkpoint, tmp_path):
    first = extend(root, checkpoint)
    other = extend(str(tmp_path / "other"), Path(first.ref.uri).parent)
    assert other.status == "ran"
    assert extend(str(tmp_path / "other"), first.ref.uri).status == "hit"
    url = f"memory://{tmp_path.name}/model"
    fsspec.filesystem("memory").put(str(checkpoint), f"/{tmp_path.name}/model", recursive=True)
    assert extend(root, url).status == "hit"
    there = extend(f"memory://{tmp_path.name}/store", url)
    assert there.status == "ran"
    assert (
        ArtifactStore(root).manifest_of(first.ref).content_digest()
        == ArtifactStore.containing(there.ref.uri).manifest_of(there.ref).content_digest()
    )


def test_another_content_replaces_it_and_what_was_made_from_it_is_made_again(root, checkpoint, copy):
    first = extend(root, checkpoint)
    inputs = {"extend": first.ref, "replay": INPUTS["replay"]}

    def make(work):
        (work.output / "data.txt").write_text("annealed")
        return {}

    assert settle(a_run(root), "anneal", inputs, make).status == "ran"
    change_a_weight(copy)
    second = extend(root, copy)
    assert second.status == "ran"
    assert second.ref.fingerprint == first.ref.fingerprint
    assert (Path(first.ref.uri) / "model.safetensors").is_file()  # nothing is deleted
    again = settle(a_run(root), "anneal", inputs | {"extend": second.ref}, make)
    assert again.status == "ran"
    assert "another content" in again.why


def remove_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def drop_a_tensor(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def shorten(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))


def remove_tokenizer(directory: Path) -> None:
    for path in directory.glob("tokenizer*"):
        path.unlink()


def remove_config(directory: Path) -> None:
    (directory / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_weights, "model.safetensors is missing"),
        (drop_a_tensor, "model.norm.weight is missing"),
        (shorten, "its max_position_embeddings 64 is below context.target_length 128"),
        (remove_tokenizer, "holds no tokenizer files"),
        (remove_config, "holds no config.json"),
        (shutil.rmtree, "holds no config.json"),
    ],
)
def test_what_can_not_be_the_result_is_one_line_and_commits_nothing(root, copy, spoil, message):
    spoil(copy)
    with pytest.raises(AdoptionError, match=message) as raised:
        extend(root, copy)
    assert str(raised.value).startswith(f"adopt.extend: {copy}: ")
    assert "\n" not in str(raised.value)
    assert "staging" not in str(raised.value)
    assert not list(Path(root).glob("checkpoint/*/manifest.json"))


def test_a_checkpoint_that_is_refused_replaces_nothing(root, checkpoint, copy):
    first = extend(root, checkpoint)
    remove_weights(copy)
    with pytest.raises(AdoptionError):
        extend(root, copy)
    assert extend(root).ref == first.ref


def test_a_damaged_artifact_is_not_adopted(root, checkpoint, tmp_path):
    first = extend(root, checkpoint)
    change_a_weight(Path(first.ref.uri))
    with pytest.raises(ArtifactDamagedError, match=r"model\.safetensors"):
        extend(str(tmp_path / "other"), first.ref.uri)


def test_only_checkpoints_are_adopted(root, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.arrow").write_text("tokens")
    ref = ArtifactStore(root).commit("tokens", fingerprint("t"), tmp_path / "made", recipe={}, seconds=1)
    with pytest.raises(AdoptionError, match="is an artifact of kind tokens"):
        extend(root, ref.uri)


def test_credentials_in_a_url_are_refused_and_not_told(root):
    with pytest.raises(AdoptionError, match="credentials") as raised:
        extend(root, "s3://key:hunter2@bucket/model")
    assert "hunter2" not in str(raised.value)


def test_the_start_model_needs_no_long_window(root, copy):
    shorten(copy)
    base = RECIPE | {"base": {"window": 64, "training": {"learning_rate": 1e-3}}}
    recipe = Recipe.parse(yaml.safe_dump({key: value for key, value in base.items() if key != "model"}))
    run = Run(recipe=recipe, store=root, adopt={"base": str(copy)})
    corpus = ArtifactRef(uri="outside/corpus", kind="outside", fingerprint=fingerprint("corpus"))
    with torch.no_grad():
        assert settle(run, "base", {"corpus": corpus}, never).status == "ran"
