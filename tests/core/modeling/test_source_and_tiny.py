import shutil

import fsspec
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling import (
    check_complete,
    fetch_model,
    load_model,
    make_tiny_config,
    make_tiny_model,
    model_identity,
)
from longrecipe_core.recipe import BaseSection, TrainingSection

SECTION = BaseSection(
    vocabulary_size=300, hidden_size=32, intermediate_size=48, layers=1, query_heads=2, kv_heads=1, window=64,
    training=TrainingSection(learning_rate=1e-3),
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer_directory):
    config = make_tiny_config(SECTION, 257, bos_token_id=None, eos_token_id=256, pad_token_id=256)
    directory = tmp_path_factory.mktemp("tiny") / "model"
    make_tiny_model(config, tokenizer_directory, directory, seed=5)
    return directory, config


def test_tiny_model_is_complete_seeded_and_tied(tiny, tokenizer_directory, tmp_path):
    directory, config = tiny
    check_complete(directory)
    state = torch.random.get_rng_state()
    make_tiny_model(config, tokenizer_directory, tmp_path / "same", seed=5)
    make_tiny_model(config, tokenizer_directory, tmp_path / "other", seed=6)
    assert torch.equal(torch.random.get_rng_state(), state)
    content = (directory / "model.safetensors").read_bytes()
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == content
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != content
    model = load_model(directory)
    assert model.config.rope_parameters["rope_theta"] == 10_000
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(AutoTokenizer.from_pretrained(directory)) == 257


def test_the_demo_shape_has_the_size_that_was_measured():
    section = BaseSection(training=TrainingSection(learning_rate=1e-3))
    config = make_tiny_config(section, 512, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(0.86e6, rel=0.01)


def test_fetching_and_identity_of_directory_and_url(tiny, tmp_path):
    directory, _ = tiny
    assert fetch_model(str(directory)) == directory
    identity = model_identity(str(directory))
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    (copy / "README.md").write_text("hello")
    (copy / "pytorch_model.bin").write_bytes(b"pickle")
    assert model_identity(str(copy)) == identity
    url = "memory://models/tiny"
    fs = fsspec.filesystem("memory")
    fs.put(str(copy) + "/", "/models/tiny/", recursive=True)
    assert model_identity(url) == identity
    for fetched in (fetch_model(url), fetch_model(url, into=tmp_path / "into")):
        assert model_identity(str(fetched)) == identity
        assert not (fetched / "pytorch_model.bin").exists()
        check_complete(fetched)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert model_identity(str(copy)) != identity
    (copy / "modeling_own.py").write_text("code")
    assert model_identity(str(copy)) != identity


def test_code_is_fetched_only_where_it_may_run(tiny, tmp_path):
    fs = fsspec.filesystem("memory")
    fs.put(str(tiny[0]) + "/", "/models/code/", recursive=True)
    fs.pipe_file("/models/code/modeling_own.py", b"code")
    assert not (fetch_model("memory://models/code") / "modeling_own.py").exists()
    assert (fetch_model("memory://models/code", trust_remote_code=True) / "modeling_own.py").exists()


@pytest.mark.parametrize(
    ("path", "revision", "word"),
    [
        ("/nowhere/at/all", None, "no such directory"),
        ("./nowhere", None, "no such directory"),
        ("memory://nothing/here", None, "no model there|can't be listed|holds no file"),
        ("nobody/no-such-model", "v1", "nobody/no-such-model at v1"),
        ("not a hub id", None, "not to be had"),
        ("memory://models/x", "v1", "revision v1"),
    ],
)
def test_a_missing_model_is_one_line(path, revision, word):
    for ask in (fetch_model, model_identity):
        with pytest.raises(ModelError, match=word) as caught:
            ask(path, revision)
        assert "\n" not in str(caught.value)


def test_a_directory_without_config_and_a_file_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        fetch_model(str(tmp_path))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        fetch_model(str(tmp_path / "file"))
