"""One training step of one option, in a process of its own: `python -m benchmarks.memory.step JSON` prints its peak."""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from longrecipe_core.attention import attach
from longrecipe_core.recipe import LoraSection
from longrecipe_core.training.activation_checkpointing import checkpoint_activations
from longrecipe_core.training.lora import add_lora
from longrecipe_core.training.loss import SummedLoss
from longrecipe_core.training.tiled_mlp import tile_mlps

MEGABYTE = 2**20


@dataclass(frozen=True)
class Case:
    tokens: int
    checkpointing: str = "none"
    mlp_tile: int | None = None
    loss_chunk: int | None = 512
    """None: plain logits of all tokens at once."""
    whole: bool = False
    """Count weights, gradients and AdamW's state too; else what a forward and backward take beside them."""
    lora: bool = False

    def json(self) -> str:
        return json.dumps(asdict(self))


def run(case: Case) -> dict[str, float]:
    """Peak MB over what there was before, and seconds of forward and backward."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.zeros(1, device=device)
    start = _now(device)
    model = _model(case).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # The optimizer adds nothing to a forward and backward; where it counts, its state is there from the first step on.
    optimizer = torch.optim.AdamW(trained, fused=True) if case.whole else None
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    if optimizer:
        optimizer.step()
    else:
        start = _now(device)
    tokens = torch.randint(0, 32_000, (1, case.tokens), device=device)
    summed_loss = _plain_loss(model) if case.loss_chunk is None else SummedLoss(model, case.loss_chunk)
    _forget_peak(device)
    began = time.perf_counter()
    with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
        loss = summed_loss(tokens, torch.arange(case.tokens, device=device)[None], tokens)
    loss.backward()
    if optimizer:
        optimizer.step()
    seconds = time.perf_counter() - began
    return {"megabytes": (_peak(device) - start) / MEGABYTE, "seconds": seconds}


def _model(case: Case) -> Any:
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=case.tokens,
    )
    model = attach(LlamaForCausalLM(config).train())
    tile_mlps(model, case.mlp_tile)
    if case.lora:
        add_lora(model, LoraSection(), seed=0, stage="extend")
    checkpoint_activations(model, case.checkpointing)
    return model


def _plain_loss(model: Any) -> Any:
    def loss(tokens: torch.Tensor, positions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
        return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")

    return loss


def _now(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(run(Case(**json.loads(sys.argv[1])))))
