import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MixtralConfig

from longrecipe_core.errors import ModelError
from longrecipe_core.modeling import check_complete, finish_checkpoint, save_model

NAME = "model.layers.0.self_attn.k_proj.weight"


@pytest.fixture
def checkpoint(small_config, tmp_path):
    directory = tmp_path / "model"
    torch.manual_seed(0)
    config = small_config(max_position_embeddings=512, tie_word_embeddings=True)
    save_model(AutoModelForCausalLM.from_config(config), directory)
    return directory


def shard(directory):
    """The same weights in two files with an index."""
    weights = load_file(directory / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({n: weights[n] for n in part}, directory / file, metadata={"format": "pt"})
    places = {name: file for file, part in parts.items() for name in part}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (directory / "model.safetensors").unlink()
    return places


def rewrite(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_a_complete_checkpoint_is_counted(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    summary = check_complete(checkpoint)
    numbers = sum(weight.numel() for weight in weights.values())
    assert (summary.tensors, summary.parameters, summary.bytes) == (len(weights), numbers, 4 * numbers)
    shard(checkpoint)
    assert check_complete(checkpoint).files == 2


def test_a_model_fused_on_loading_is_complete(tmp_path):
    config = MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2, sliding_window=None,
    )  # fmt: skip
    save_model(AutoModelForCausalLM.from_config(config), tmp_path)
    assert any("experts.1.w2" in name for name in load_file(tmp_path / "model.safetensors"))
    check_complete(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(NAME), f"{NAME} is missing"),
        (lambda w: w.update({"other": torch.zeros(1)}), "other does not belong"),
        (
            lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}),
            "lm_head.weight does not",
        ),
        (lambda w: w.update({NAME: w[NAME][:, :-1].clone()}), rf"{NAME} has shape \[32, 63\]"),
    ],
)
def test_a_wrong_set_of_tensors_is_named(checkpoint, tokenizer_directory, change, message):
    rewrite(checkpoint / "model.safetensors", change)
    before = sorted(checkpoint.iterdir())
    for check in (check_complete, lambda d: finish_checkpoint(d, tokenizer_directory)):
        with pytest.raises(ModelError, match=message):
            check(checkpoint)
    assert sorted(checkpoint.iterdir()) == before


def test_a_tensor_in_two_shards_is_named(checkpoint):
    places = shard(checkpoint)
    value = load_file(checkpoint / places[NAME])[NAME]
    other = next(file for file in places.values() if file != places[NAME])
    rewrite(checkpoint / other, lambda w: w.update({NAME: value}))
    with pytest.raises(ModelError, match=f"{NAME} is in both"):
        check_complete(checkpoint)


def test_a_tensor_again_in_a_stray_file_is_named(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    save_file({NAME: weights[NAME]}, checkpoint / "model-00009-of-00009.safetensors")
    with pytest.raises(ModelError, match=f"{NAME} is in both"):
        check_complete(checkpoint)


def test_an_index_that_lies_is_named(checkpoint):
    places = shard(checkpoint)
    index = checkpoint / "model.safetensors.index.json"
    other = next(file for file in places.values() if file != places[NAME])
    index.write_text(json.dumps({"weight_map": {**places, NAME: other}}))
    with pytest.raises(ModelError, match=f"has tensor {NAME} in {other}"):
        check_complete(checkpoint)
    index.write_text(json.dumps({"weight_map": {**places, NAME: "../elsewhere.safetensors"}}))
    with pytest.raises(ModelError, match="no plain file name"):
        check_complete(checkpoint)


def test_an_empty_or_missing_shard_is_named(checkpoint, tokenizer_directory):
    places = shard(checkpoint)
    (checkpoint / places[NAME]).write_bytes(b"")
    for check in (check_complete, lambda d: finish_checkpoint(d, tokenizer_directory)):
        with pytest.raises(ModelError, match=f"{places[NAME]}, which is missing or empty"):
            check(checkpoint)


@pytest.mark.parametrize("sharded", [False, True])
def test_finishing_copies_what_belongs_and_removes_strays(checkpoint, tokenizer_directory, elsewhere, sharded):
    strays = ["pytorch_model.bin", "optimizer.pt", "model-00003-of-00003.safetensors", "model.gguf"]
    if sharded:
        shard(checkpoint)
        strays.append("model.safetensors")
    for name in strays:
        (checkpoint / name).write_bytes(b"x" if name != strays[2] else b"")
    (checkpoint / "README.md").write_text("mine")
    with pytest.raises(ModelError, match=r"stray weight files|not a whole safetensors"):
        check_complete(checkpoint)
    finish_checkpoint(checkpoint, tokenizer_directory)
    check_complete(checkpoint)
    names = {path.name for path in checkpoint.iterdir()}
    assert not names & set(strays)
    assert {
        "README.md",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    } <= names
    assert not any(name.startswith(".") for name in names)
    assert json.loads((checkpoint / "tokenizer_config.json").read_text())["model_max_length"] == 512
    assert json.loads((checkpoint / "generation_config.json").read_text()) == {"max_new_tokens": 17}
    assert (checkpoint / "tokenizer.json").read_bytes() == (tokenizer_directory / "tokenizer.json").read_bytes()
    again = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    finish_checkpoint(checkpoint, tokenizer_directory)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == again
    found = elsewhere(f"""
import json
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(checkpoint)!r})
model = AutoModelForCausalLM.from_pretrained({str(checkpoint)!r})
ids = tokenizer("a long text")["input_ids"]
same = model.lm_head.weight is model.model.embed_tokens.weight
text, length = tokenizer.decode(ids), tokenizer.model_max_length
print(json.dumps([text, length, model.config.max_position_embeddings, same]))
""")
    assert found == ["a long text", 512, 512, True]


def test_a_stale_index_gives_way_to_the_single_file(checkpoint, tokenizer_directory):
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {NAME: "model-00001-of-00002.safetensors"}}))
    finish_checkpoint(checkpoint, tokenizer_directory)
    assert not index.exists()
    assert check_complete(checkpoint).files == 1


@pytest.mark.parametrize(("length", "wanted"), [(64, 512), (4096, 4096), (int(1e30), int(1e30)), (None, None)])
def test_only_a_real_and_lower_length_is_raised(checkpoint, tokenizer_directory, tmp_path, length, wanted):
    base = tmp_path / "base"
    base.mkdir()
    for path in tokenizer_directory.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    content = json.loads((base / "tokenizer_config.json").read_text()) | {"model_max_length": length}
    (base / "tokenizer_config.json").write_text(json.dumps(content))
    finish_checkpoint(checkpoint, base)
    assert json.loads((checkpoint / "tokenizer_config.json").read_text())["model_max_length"] == wanted


def test_a_base_without_tokenizer_changes_nothing(checkpoint, tmp_path):
    (tmp_path / "base").mkdir()
    (checkpoint / "pytorch_model.bin").write_bytes(b"x")
    before = sorted(checkpoint.iterdir())
    with pytest.raises(ModelError, match="no tokenizer files"):
        finish_checkpoint(checkpoint, tmp_path / "base")
    assert sorted(checkpoint.iterdir()) == before
