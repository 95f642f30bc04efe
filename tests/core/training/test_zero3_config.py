"""What DeepSpeed is told follows from the job, and it is missed before anything runs."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from longrecipe_core.errors import RecipeError, TrainingError
from longrecipe_core.recipe import LaunchSection, TrainingSection
from longrecipe_core.recipe.checks import check_sharding
from longrecipe_core.training.zero3 import Zero3, zero3_config


def job(precision="bf16", **launch):
    return SimpleNamespace(
        training=TrainingSection(learning_rate=0.0123, clip=0.7, precision=precision),
        launch=LaunchSection(sharding="zero3", processes=2, **launch),
    )


@pytest.mark.parametrize(("offload", "device"), [(True, "cpu"), (False, "none")])
def test_the_configuration_follows_from_the_job(offload, device):
    config = zero3_config(job(cpu_offload=offload, micro_batch=3))
    assert config["zero_optimization"]["stage"] == 3
    assert config["zero_optimization"]["offload_param"] == {"device": device}
    assert config["zero_optimization"]["offload_optimizer"] == {"device": device}
    assert config["gradient_clipping"] == 0.7
    assert config["train_micro_batch_size_per_gpu"] == 3
    assert config["torch_autocast"]["enabled"] is True
    assert zero3_config(job(precision="fp32"))["torch_autocast"]["enabled"] is False


def test_the_learning_rate_stands_in_the_recipe_only():
    assert "0.0123" not in json.dumps(zero3_config(job()))


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_without_deepspeed_it_is_refused_by_recipe_and_job():
    wanted = r"zero3 needs deepspeed: pip install '\.\[deepspeed\]', or choose fsdp2"
    check_sharding(LaunchSection(sharding="fsdp2", processes=2))
    with pytest.raises(RecipeError, match=wanted):
        check_sharding(job().launch)
    with pytest.raises(TrainingError, match=wanted):
        Zero3(None, None, job(), "cpu")


def test_deepspeed_is_an_extra():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert "\ndeepspeed = [" in text
