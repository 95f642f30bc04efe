"""Small decoders with random weights, a batch with skipped positions, and what a step of training leaves behind."""

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from longrecipe_core.attention import attach
from longrecipe_core.training.loss import SummedLoss

FAMILIES = ["llama", "qwen2", "mistral"]
OPTIONS = ["none", "full", "selective", "offload"]
VOCABULARY, HIDDEN, INTERMEDIATE, LAYERS = 61, 32, 48, 3


def tiny(family, **extra):
    """In training mode, with our attention; the same weights each time."""
    torch.manual_seed(0)
    options = {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        **({"sliding_window": None} if family == "mistral" else {}), **extra,
    }  # fmt: skip
    config = AutoConfig.for_model(family, **options)
    return attach(AutoModelForCausalLM.from_config(config, dtype=torch.float32).train())


def batch(rows=2, length=24, seed=1):
    """Tokens, positions that jump twice, and shifted labels with padding."""
    tokens = torch.randint(0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))
    positions = (torch.arange(length) + 100 * (torch.arange(length) // (length // 3))).expand(rows, -1)
    labels = torch.cat([tokens[:, 1:], torch.full((rows, 1), -100)], dim=1)
    labels[-1, -3:] = -100
    return tokens, positions, labels


def loss_and_gradients(model, *inputs, bf16=False):
    """Of one batch, by the model's own names; gradients that no one asked for are left out."""
    summed_loss = SummedLoss(model, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = summed_loss(*(inputs or batch()))
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.detach(), found


class Waiting(TorchDispatchMode):
    """Bytes of what the operators under it made and that still lives; knows nothing of checkpointing."""

    def __init__(self):
        super().__init__()
        self.made = {}
        self.widest = 0
        """Most elements of a new tensor whose rows are of the intermediate size."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(out):
            if not isinstance(leaf, torch.Tensor) or (storage := leaf.untyped_storage()).data_ptr() in given:
                continue
            self.made[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
            if leaf.shape[-1:] == (INTERMEDIATE,):
                self.widest = max(self.widest, leaf.numel())
        return out

    def bytes(self):
        return sum(size for reference, size in self.made.values() if not reference.expired())
