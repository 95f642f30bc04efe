import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling import (
    check_saved_rope,
    load_config,
    load_model,
    ntk_theta,
    rope_config,
    save_model,
)
from longrecipe_core.recipe.sections import RopeSection

WINDOW, TARGET, HEAD = 64, 512, 16
CHANGES = {
    "none": {},
    "theta": {"theta": 123_456.5},
    "ntk": {},
    "linear": {},
    "yarn": {},
    "llama3": {},
}


@dataclass
class Expected:
    inverse: np.ndarray
    scale: float = 1.0


def expected_frequencies(kind: str, factor: float) -> Expected:
    """The formulas, from the papers, in fp64: nothing of transformers or ours in them."""
    exponent = np.arange(0, HEAD, 2) / HEAD
    if kind == "theta":
        return Expected(123_456.5**-exponent)
    if kind == "ntk":
        return Expected((1e4 * (factor**2 - factor + 1) ** (HEAD / (HEAD - 2))) ** -exponent)
    plain = 1e4**-exponent
    if kind == "linear":
        return Expected(plain / factor)
    turns = WINDOW * plain / (2 * np.pi)  # rotations within the old window
    if kind == "llama3":
        blend = np.clip((turns - 1) / (4 - 1), 0, 1)
        return Expected((1 - blend) * plain / factor + blend * plain)
    if kind == "yarn":
        # YaRN's ramp is over dimensions, between those that turn 32 times and once.
        low, high = (HEAD * math.log(WINDOW / (r * 2 * math.pi)) / (2 * math.log(1e4)) for r in (32, 1))
        low, high = max(math.floor(low), 0), min(math.ceil(high), HEAD - 1)
        ramp = np.clip((np.arange(HEAD // 2) - low) / (high - low), 0, 1)
        return Expected(plain / factor * ramp + plain * (1 - ramp), 0.1 * math.log(factor) + 1)
    return Expected(plain)


@pytest.mark.parametrize(("theta", "factor", "wanted"), [(5e5, 10, 48.9e6), (5e5, 16, 131.5e6), (1e6, 4, 13.5e6)])
def test_ntk_reproduces_the_papers_values(theta, factor, wanted):
    assert ntk_theta(theta, factor, 128) == pytest.approx(wanted, abs=5e4)  # three digits are printed


def test_ntk_at_factor_one_changes_nothing():
    assert ntk_theta(5e5, 1, 128) == 5e5


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("kind", CHANGES)
def test_built_model_turns_by_the_formula(small_config, family, kind):
    rope = RopeSection(type=kind, **CHANGES[kind])
    config = rope_config(small_config(family), rope, window=None, target_length=TARGET)
    rotary = AutoModelForCausalLM.from_config(config).model.rotary_emb
    expected = expected_frequencies(kind, TARGET / WINDOW)
    np.testing.assert_allclose(rotary.inv_freq.double().numpy(), expected.inverse, rtol=2e-6)
    assert rotary.attention_scaling == pytest.approx(expected.scale)


def test_the_given_config_is_left_alone_and_the_window_never_lowered(small_config):
    config = small_config(max_position_embeddings=4096)
    before = config.to_dict()
    changed = rope_config(config, RopeSection(type="none"), window=WINDOW, target_length=TARGET)
    assert changed.max_position_embeddings == 4096
    rope_config(config, RopeSection(type="yarn"), window=WINDOW, target_length=TARGET)
    assert config.to_dict() == before


def test_factor_and_window_of_the_recipe_win(small_config):
    config = small_config(max_position_embeddings=4096)
    changed = rope_config(config, RopeSection(type="yarn", factor=3), window=128, target_length=TARGET)
    assert changed.rope_parameters["factor"] == 3
    assert changed.rope_parameters["original_max_position_embeddings"] == 128
    changed = rope_config(config, RopeSection(type="linear"), window=128, target_length=TARGET)
    assert changed.rope_parameters["factor"] == 4


LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def test_a_scaled_base_keeps_its_scaling(small_config):
    config = small_config(rope_parameters=LLAMA31)
    kept = rope_config(config, RopeSection(type="none"), window=None, target_length=TARGET)
    assert dict(kept.rope_parameters) == LLAMA31
    moved = rope_config(config, RopeSection(type="theta", theta=8e6), window=None, target_length=TARGET)
    assert dict(moved.rope_parameters) == {**LLAMA31, "rope_theta": 8e6}
    for kind in ("ntk", "linear", "yarn", "llama3"):
        with pytest.raises(ModelError, match=f"type {kind}.*rope_type llama3"):
            rope_config(config, RopeSection(type=kind), window=None, target_length=TARGET)


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "dynamic"),
        (
            {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            "partial_rotary_factor 0.5",
        ),
        ({"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}, "mrope_section"),
    ],
)
def test_forms_that_cannot_be_baked_in_are_refused(parameters, word):
    config = LlamaConfig(rope_parameters=parameters, max_position_embeddings=WINDOW)
    with pytest.raises(ModelError, match=word):
        rope_config(config, RopeSection(type="none"), window=None, target_length=TARGET)


def test_other_architectures_are_refused(small_config):
    for config, word in ((GPT2Config(), "gpt2"), (Gemma3TextConfig(), "layer type")):
        with pytest.raises(ModelError, match=word):
            rope_config(config, RopeSection(), window=None, target_length=TARGET)


def test_a_sliding_window_below_the_target_is_refused(small_config):
    config = small_config("mistral", sliding_window=4096)
    with pytest.raises(ModelError, match=r"sliding_window 4096.*8192"):
        rope_config(config, RopeSection(), window=None, target_length=8192)
    assert rope_config(config, RopeSection(), window=None, target_length=4096).sliding_window == 4096


def test_a_target_below_the_window_has_no_factor(small_config):
    with pytest.raises(ModelError, match="32 / window 64"):
        rope_config(small_config(), RopeSection(type="linear"), window=None, target_length=32)


def old_reader(directory):
    """As transformers 4 and serving engines read RoPE: top-level keys, with 10000 where there is none."""
    raw = json.loads((directory / "config.json").read_text())
    scaling = raw.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    rest = {k: v for k, v in scaling.items() if k not in ("rope_type", "type")}
    return {"rope_type": kind, "rope_theta": raw.get("rope_theta", 10_000.0), **rest}, raw["max_position_embeddings"]


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_saved_config_is_read_alike_by_old_and_new(small_config, elsewhere, tmp_path, family):
    wanted = {}
    for kind, change in CHANGES.items():
        config = rope_config(small_config(family), RopeSection(type=kind, **change), window=None, target_length=TARGET)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        save_model(model, tmp_path / kind)
        ids = torch.arange(8)[None] + 5
        places = torch.tensor([[0, 1, 2, 200, 201, 400, 510, 511]])
        mask = torch.ones_like(ids)
        with torch.no_grad():
            logits = model.eval()(input_ids=ids, position_ids=places, attention_mask=mask).logits
        wanted[kind] = (dict(config.rope_parameters), logits[0, -1, :4].tolist())
        assert old_reader(tmp_path / kind) == (wanted[kind][0], TARGET)
    found = elsewhere(f"""
import json, torch
from pathlib import Path
from transformers import AutoConfig, AutoModelForCausalLM
torch.set_num_threads(1)
found = {{}}
ids, places = torch.arange(8)[None] + 5, torch.tensor([[0, 1, 2, 200, 201, 400, 510, 511]])
for path in Path({str(tmp_path)!r}).iterdir():
    config = AutoConfig.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        logits = model(input_ids=ids, position_ids=places, attention_mask=torch.ones_like(ids)).logits
    found[path.name] = [dict(config.rope_parameters), config.max_position_embeddings,
        getattr(config, "sliding_window", None), config.use_cache, logits[0, -1, :4].tolist()]
print(json.dumps(found))
""")
    for kind, (parameters, logits) in wanted.items():
        read, length, sliding, use_cache, read_logits = found[kind]
        assert {key: read[key] for key in parameters} == parameters
        assert (length, sliding, use_cache) == (TARGET, None, True)
        assert read_logits == pytest.approx(logits, abs=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("rope_theta", 10_000.0, "transformers 4 reads rope_theta"),
        ("rope_theta", None, "transformers 4 reads rope_theta"),
        ("rope_scaling", None, "transformers 4 reads rope_type"),
        ("max_position_embeddings", WINDOW, "max_position_embeddings = 64"),
    ],
)
def test_a_config_that_reads_back_otherwise_is_an_error(small_config, tmp_path, key, value, word):
    config = rope_config(
        small_config(rope_parameters={"rope_type": "default", "rope_theta": 2e4}),
        RopeSection(type="yarn"),
        window=None,
        target_length=TARGET,
    )
    save_model(AutoModelForCausalLM.from_config(config), tmp_path)
    check_saved_rope(tmp_path, config)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, key: value}))
    with pytest.raises(ModelError, match=word):
        check_saved_rope(tmp_path, config)


def test_a_base_model_loads_with_the_new_rope(small_config, tmp_path):
    save_model(AutoModelForCausalLM.from_config(small_config()), tmp_path)
    config = rope_config(load_config(tmp_path), RopeSection(type="ntk"), window=None, target_length=TARGET)
    model = load_model(tmp_path, config=config)
    expected = expected_frequencies("ntk", TARGET / WINDOW).inverse
    np.testing.assert_allclose(model.model.rotary_emb.inv_freq.double().numpy(), expected, rtol=2e-6)
    assert model.config.max_position_embeddings == TARGET
    assert model.config.use_cache is False
