"""Shapes: parameter counts against transformers' own models, and where a config is found."""

import json

import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoModelForCausalLM

from longrecipe_core.cost.shapes import KNOWN, ModelShape, shape_of_model
from longrecipe_core.errors import ModelError
from longrecipe_core.recipe import ModelSection

# As published on the models' pages.
PUBLISHED = {
    "Llama-3": 8_030_261_248,
    "Qwen2-7B": 7_615_616_512,
    "Mistral-7B": 7_248_023_552,
    "SmolLM2-135M": 134_515_008,
}
TINY = {
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 97,
}
CONFIGS = [
    {"model_type": "llama"},
    {"model_type": "llama", "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    {"model_type": "llama", "head_dim": 24},
    {"model_type": "mistral", "head_dim": 16},
    {"model_type": "qwen2"},
    {"model_type": "qwen2", "tie_word_embeddings": True},
    {"model_type": "qwen3", "head_dim": 16},
]


def model_of(config) -> torch.nn.Module:
    """The model that transformers makes of it, without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def kind(name: str) -> str:
    return "qwen2" if "Qwen2" in name else "mistral" if "Mistral" in name else "llama"


@pytest.mark.parametrize("name", KNOWN)
def test_well_known_shapes_have_the_parameters_that_transformers_counts(name):
    shape = KNOWN[name]
    config = AutoConfig.for_model(
        kind(name),
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.query_heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    )
    assert shape.parameters == model_of(config).num_parameters()
    assert [shape.parameters] == [count for family, count in PUBLISHED.items() if family in name]


@pytest.mark.parametrize("extra", CONFIGS, ids=lambda extra: "-".join(str(value) for value in extra.values()))
def test_the_saved_config_of_a_model_tells_its_parameters(extra, tmp_path):
    config = AutoConfig.for_model(**TINY, **extra)
    config.save_pretrained(tmp_path)
    shape = shape_of_model(ModelSection(path=str(tmp_path)))
    model = model_of(config)
    assert shape.parameters == model.num_parameters()
    assert shape.layers * shape.layer_parameters == sum(p.numel() for p in model.model.layers.parameters())
    assert shape.tied == bool(extra.get("tie_word_embeddings", False))


def test_a_hub_id_is_resolved_from_the_cache_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = ModelSection(path="someone/tiny")
    with pytest.raises(ModelError, match=r"hf download someone/tiny config\.json") as missing:
        shape_of_model(model)
    assert "\n" not in str(missing.value)
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(TINY | {"model_type": "llama"}))
    # The layout is the hub client's own: it finds the same file.
    assert try_to_load_from_cache("someone/tiny", "config.json", cache_dir=tmp_path) == str(snapshot / "config.json")
    assert shape_of_model(model).vocabulary == TINY["vocab_size"]
    assert shape_of_model(ModelSection(path="someone/tiny", revision=commit)).layers == TINY["num_hidden_layers"]
    with pytest.raises(ModelError):
        shape_of_model(ModelSection(path="someone/tiny", revision="other"))


def test_the_cache_comes_before_the_table_of_known_models(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert shape_of_model(ModelSection(path="Qwen/Qwen2-7B")).layers == 28
    snapshot = tmp_path / "models--Qwen--Qwen2-7B" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(TINY | {"model_type": "qwen2"}))
    assert shape_of_model(ModelSection(path="Qwen/Qwen2-7B")).layers == 3


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({key: value for key, value in TINY.items() if key != "vocab_size"}, "vocab_size"),
        (TINY | {"num_local_experts": 8}, "mixture of experts"),
        (TINY | {"hidden_size": "wide"}, "wide"),
    ],
)
def test_a_config_that_tells_no_shape_is_one_line(config, told):
    with pytest.raises(ModelError, match=told) as error:
        ModelShape.from_config(config, "here/config.json")
    assert str(error.value).startswith("here/config.json: ")
    assert "\n" not in str(error.value)


def test_the_text_part_of_a_composite_model_counts():
    assert ModelShape.from_config({"text_config": TINY, "vision_config": {}}, "x").hidden == 48
