import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling import load_model, save_model


def model_of(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def test_weights_come_back_bit_for_bit(small_config, tmp_path):
    model = model_of(small_config("qwen2"))
    save_model(model, tmp_path)
    loaded = load_model(tmp_path).state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in model.state_dict().items())


def test_training_without_a_cache_is_not_what_is_published(small_config, tmp_path):
    save_model(model_of(small_config()), tmp_path / "base")
    save_model(load_model(tmp_path / "base"), tmp_path / "trained")
    assert json.loads((tmp_path / "trained" / "config.json").read_text())["use_cache"] is True


def test_saving_in_another_type_says_so_to_both_generations(small_config, tmp_path):
    model = model_of(small_config())
    save_model(model, tmp_path, dtype="bfloat16")
    stored = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}
    for name, weight in stored.items():
        assert torch.equal(weight, model.state_dict()[name].bfloat16())
    raw = json.loads((tmp_path / "config.json").read_text())
    assert (raw["dtype"], raw["torch_dtype"]) == ("bfloat16", "bfloat16")
    assert model.dtype == torch.float32


def test_a_gathered_state_dict_with_a_copied_head_stays_tied(small_config, tmp_path):
    model = model_of(small_config(tie_word_embeddings=True))
    gathered = {name: weight.clone() + 1 for name, weight in model.state_dict().items()}
    assert "lm_head.weight" in gathered
    save_model(model, tmp_path, state_dict=dict(gathered))
    stored = load_file(tmp_path / "model.safetensors")
    assert stored.keys() == gathered.keys() - {"lm_head.weight"}
    assert torch.equal(stored["model.embed_tokens.weight"], gathered["model.embed_tokens.weight"])
    gathered["lm_head.weight"] += 1
    with pytest.raises(ModelError, match=r"lm_head.weight and model.embed_tokens.weight are tied"):
        save_model(model, tmp_path, state_dict=gathered)


def test_an_incomplete_or_foreign_state_dict_is_refused(small_config, tmp_path):
    model = model_of(small_config())
    lacking = dict(model.state_dict())
    del lacking["model.norm.weight"]
    with pytest.raises(ModelError, match=r"lack model.norm.weight"):
        save_model(model, tmp_path, state_dict=lacking)
    with pytest.raises(ModelError, match=r"hold module.extra"):
        save_model(model, tmp_path, state_dict={**model.state_dict(), "module.extra": torch.zeros(1)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_loading_accounts_for_every_weight(small_config, tmp_path, change):
    save_model(model_of(small_config()), tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    if change == "missing":
        del weights[name]
    elif change == "unexpected":
        name = "model.layers.7.mlp.up_proj.weight"
        weights[name] = torch.zeros(2)
    else:
        weights[name] = weights[name][:-1].clone()
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"up_proj|mismatch"):
        load_model(tmp_path)


def test_a_truncated_file_and_a_pickle_are_one_line(small_config, tmp_path):
    model = model_of(small_config())
    save_model(model, tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "cut")
    assert "\n" not in str(caught.value)
    save_model(model, tmp_path / "pickle")
    (tmp_path / "pickle" / "model.safetensors").rename(tmp_path / "pickle" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="convert the model to safetensors"):
        load_model(tmp_path / "pickle")
    with pytest.raises(ModelError, match="dtype int8"):
        load_model(tmp_path / "cut", dtype="int8")
