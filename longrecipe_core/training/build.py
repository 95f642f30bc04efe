"""The model that a job trains, and its optimizer."""

from typing import Any

import torch

from longrecipe_core.attention import attach
from longrecipe_core.errors import TrainingError
from longrecipe_core.modeling import load_config, load_model, rope_config
from longrecipe_core.training.job import TrainingJob


def build_model(job: TrainingJob) -> Any:
    """The starting weights in fp32 under the new RoPE, with our attention and checkpointing as asked."""
    config = load_config(job.model, job.trust_remote_code)
    if job.rope is not None:
        if job.target_length is None:
            raise TrainingError(f"{job.stage}: a RoPE change needs a target_length")
        config = rope_config(config, job.rope, window=job.window, target_length=job.target_length)
    model = load_model(job.model, config=config, trust_remote_code=job.trust_remote_code)
    attach(model).train()
    if job.launch.activation_checkpointing == "full":
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model


def make_optimizer(model: torch.nn.Module, job: TrainingJob) -> torch.optim.AdamW:
    """AdamW over every parameter, decay on all of them, as the reference has it."""
    training = job.training
    return torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        betas=training.betas,
        eps=training.epsilon,
        weight_decay=training.weight_decay,
    )
