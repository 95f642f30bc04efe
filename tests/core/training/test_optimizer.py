"""The optimizer is AdamW as published, with decay on everything, whichever kernel computes it."""

from types import SimpleNamespace

import numpy as np
import torch

from longrecipe_core.recipe import TrainingSection
from longrecipe_core.training.build import make_optimizer


def test_three_steps_are_those_of_the_paper():
    """Loshchilov & Hutter 2019, algorithm 2, in numpy; the rate changes between steps, as a schedule does."""
    training = TrainingSection(learning_rate=0.1, betas=(0.8, 0.95), epsilon=1e-6, weight_decay=0.3)
    rng = np.random.default_rng(5)
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.from_numpy(rng.normal(size=(7, 5))).float())
    model.norm = torch.nn.Parameter(torch.ones(5))
    model.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    optimizer = make_optimizer(model, SimpleNamespace(training=training))
    expected = {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}
    first = {name: np.zeros_like(value) for name, value in expected.items()}
    second = {name: np.zeros_like(value) for name, value in expected.items()}
    for step, rate in enumerate((0.1, 0.05, 0.02), 1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name in ("weight", "norm"):
            gradient = rng.normal(size=expected[name].shape)
            getattr(model, name).grad = torch.from_numpy(gradient).float()
            first[name] = 0.8 * first[name] + 0.2 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            corrected = first[name] / (1 - 0.8**step), second[name] / (1 - 0.95**step)
            expected[name] = expected[name] * (1 - rate * 0.3) - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-6)
        optimizer.step()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], atol=2e-6)
