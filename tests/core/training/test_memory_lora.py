"""LoRA: what is trained, what is saved, and what the saved model computes."""

import json

import pytest
import torch
from memory_models import FAMILIES, HIDDEN, LAYERS, batch, tiny
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from longrecipe_core.errors import TrainingError
from longrecipe_core.modeling import save_model
from longrecipe_core.recipe import LaunchSection, LoraSection, TrainingSection
from longrecipe_core.training.build import build_model, make_optimizer
from longrecipe_core.training.job import DataSpec, TrainingJob
from longrecipe_core.training.lora import merge_lora
from longrecipe_core.training.loss import SummedLoss

ATTENTION = [f"model.layers.{n}.self_attn.{part}_proj.weight" for n in range(LAYERS) for part in "qkvo"]
MLP = [f"model.layers.{n}.mlp.{part}_proj.weight" for n in range(LAYERS) for part in ("gate", "up", "down")]
NORMS = ["model.norm.weight"] + [
    f"model.layers.{n}.{place}_layernorm.weight" for n in range(LAYERS) for place in ("input", "post_attention")
]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def make_job(tmp_path, family="llama", lora=None, stage="extend", seed=3, **launch):
    """A job on a base model that lies in `tmp_path/base`."""
    if not (tmp_path / "base").exists():
        save_model(tiny(family), tmp_path / "base")
    return TrainingJob(
        stage=stage,
        model=tmp_path / "base",
        data=DataSpec(kind="packed", tokens=tmp_path, length=24),
        training=TrainingSection(learning_rate=1e-2, steps=3, precision="fp32", lora=lora),
        launch=LaunchSection(**launch),
        seed=seed,
        checkpoints=tmp_path,
        output=tmp_path / "output",
        logs=tmp_path,
    )


def trained(job, steps=3):
    model = build_model(job)
    optimizer = make_optimizer(model, job)
    summed_loss = SummedLoss(model, 16)
    for step in range(steps):
        summed_loss(*batch(seed=step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def saved(model, directory):
    weights = merge_lora(model, model.state_dict())
    save_model(model, directory, state_dict=weights)
    return load_file(directory / "model.safetensors")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("lora", "adapted", "whole"),
    [
        ({"rank": 2}, ATTENTION, [*NORMS, EMBEDDING]),
        ({"rank": 2, "train_embeddings_and_norms": False}, ATTENTION, []),
        ({"rank": 3, "targets": "all-linear"}, ATTENTION + MLP, [*NORMS, EMBEDDING]),
    ],
    ids=["attention", "adapters only", "all-linear"],
)
def test_what_moves(tmp_path, family, lora, adapted, whole):
    job = make_job(tmp_path, family, LoraSection(**lora))
    after = saved(trained(job), tmp_path / "output")
    before = load_file(tmp_path / "base" / "model.safetensors")
    assert after.keys() == before.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {*adapted, *whole}
    for name in adapted:
        values = torch.linalg.svdvals((after[name] - before[name]).double())
        assert values[lora["rank"]] < 1e-6 < 1e-4 < values[lora["rank"] - 1], name


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_merged_model_computes_what_the_adapters_did(tmp_path, family, tied):
    save_model(tiny(family, tie_word_embeddings=tied), tmp_path / "base")
    model = trained(make_job(tmp_path, family, LoraSection(rank=4, alpha=6, targets="all-linear")))
    tokens, positions, _ = batch()
    expected = model(input_ids=tokens, position_ids=positions).logits
    base = tiny(family, tie_word_embeddings=tied)(input_ids=tokens, position_ids=positions).logits
    weights = saved(model, tmp_path / "output")
    assert not any("lora" in name or "base_layer" in name for name in weights)
    # Plain transformers, whose config must not speak of adapters either.
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "output", output_loading_info=True)
    assert not any(info.values())
    assert "peft" not in json.loads((tmp_path / "output" / "config.json").read_text())
    assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied
    # With an all-ones mask transformers doesn't take the jumps of positions for new samples.
    actual = loaded(input_ids=tokens, position_ids=positions, attention_mask=torch.ones_like(tokens)).logits
    assert (actual - expected).abs().max() < 1e-5 < 1e-2 < (expected - base).abs().max()


def test_before_the_first_step_the_model_is_the_base(tmp_path):
    model = build_model(make_job(tmp_path, lora=LoraSection(targets="all-linear")))
    tokens, positions, _ = batch()
    expected = tiny("llama")(input_ids=tokens, position_ids=positions).logits
    assert torch.equal(model(input_ids=tokens, position_ids=positions).logits, expected)


def test_the_optimizer_holds_what_is_trained(tmp_path):
    job = make_job(tmp_path, lora=LoraSection(rank=2))
    model = build_model(job)
    (group,) = make_optimizer(model, job).param_groups
    update = HIDDEN * 2 + 2 * HIDDEN, HIDDEN * 2 + 2 * HIDDEN // 2  # A and B of q or o, of k or v
    norms = (2 * LAYERS + 1) * HIDDEN
    assert sum(p.numel() for p in group["params"]) == LAYERS * 2 * sum(update) + norms + 61 * HIDDEN
    plain = make_job(tmp_path)
    assert len(make_optimizer(build_model(plain), plain).param_groups[0]["params"]) == 9 * LAYERS + 3


def test_the_first_update_is_drawn_from_seed_and_stage(tmp_path):
    def drawn(global_seed, **changes):
        states = []
        for job in [make_job(tmp_path, lora=lora, **changes) for lora in (None, LoraSection())]:
            torch.manual_seed(global_seed)
            model = build_model(job)
            states.append(torch.get_rng_state())
        assert torch.equal(*states)
        return dict(model.named_parameters())["model.layers.1.self_attn.q_proj.lora_A.default.weight"]

    first = drawn(1)
    # Whatever the rank's own random state is: FSDP shards what each rank has drawn.
    assert torch.equal(first, drawn(2))
    assert not torch.equal(first, drawn(1, seed=4))
    assert not torch.equal(first, drawn(1, stage="anneal"))


@pytest.mark.parametrize("option", ["full", "selective", "offload"])
def test_with_checkpointing_and_tiles_it_trains_the_same(tmp_path, option):
    lora = LoraSection(rank=2, targets="all-linear")
    plain = saved(trained(make_job(tmp_path, lora=lora)), tmp_path / "plain")
    model = trained(make_job(tmp_path, lora=lora, activation_checkpointing=option, mlp_tile=7))
    for name, weight in saved(model, tmp_path / "output").items():
        assert (weight - plain[name]).abs().max() < 1e-5, name


def test_without_lora_weights_and_model_stay(tmp_path):
    model = build_model(make_job(tmp_path))
    weights = model.state_dict()
    assert all(merge_lora(model, weights)[name] is weights[name] for name in weights)


@pytest.mark.parametrize("targets", ["attention", "all-linear"])
def test_a_rank_above_that_of_the_weights_is_refused(tmp_path, targets):
    side = HIDDEN // 2  # keys and values have half as many heads as queries
    build_model(make_job(tmp_path, lora=LoraSection(rank=side, targets=targets)))
    with pytest.raises(TrainingError) as error:
        build_model(make_job(tmp_path, lora=LoraSection(rank=side + 1, targets=targets)))
    assert str(error.value) == (
        f"extend.lora.rank {side + 1} is above the smaller side of model.layers.0.self_attn.k_proj.weight; "
        f"allowed: 1..{side}"
    )


def test_a_model_without_such_layers_is_refused(tmp_path, monkeypatch):
    job = make_job(tmp_path, lora=LoraSection())
    monkeypatch.setattr("longrecipe_core.training.lora._targets", lambda model, kind: [])
    with pytest.raises(TrainingError, match=r"extend\.lora\.targets attention: LlamaForCausalLM"):
        build_model(job)
