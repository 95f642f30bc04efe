"""Next-token loss without logits: `[tokens, vocabulary]` never exists (traps, 6)."""

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import linear_cross_entropy

from longrecipe_core.modeling.head import check_plain_head
from longrecipe_core.training.data import IGNORED


class SummedLoss(torch.nn.Module):
    """A causal LM whose forward returns the sum of the loss over target tokens.

    The head is applied in here, so that DDP, which wraps this module, sees and synchronises its weights.
    """

    def __init__(self, model: Any, chunk: int) -> None:
        """Wrap `model`; `chunk` tokens have their logits in memory at one time.

        Raises:
            ModelError: The model changes its logits after the head, which the chunked loss would leave out.
        """
        super().__init__()
        check_plain_head(model, "training")
        self.model = model
        self.options = LinearCrossEntropyOptions(batch_chunk_size=chunk)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        labels: torch.Tensor,
        sample_starts: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Sum of -log p over labels other than -100; all inputs int64 `[batch, length]`, labels already shifted."""
        extra = {} if sample_starts is None else {"sample_starts": sample_starts}
        hidden = self.model.base_model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, **extra
        ).last_hidden_state
        head = self.model.get_output_embeddings()
        return summed_cross_entropy(hidden.flatten(0, 1), head.weight, head.bias, labels.flatten(), self.options)


def summed_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    options: LinearCrossEntropyOptions,
) -> torch.Tensor:
    """Sum of -log p over labels other than -100, fp32 or better; the weight's gradient is added up in fp32 too.

    Liger's kernel where it is installed and the tensors are on CUDA, which sizes its pieces by itself; else torch's.

    Args:
        hidden: `[tokens, hidden size]`.
        weight: `[vocabulary, hidden size]`.
        bias: `[vocabulary]` or None.
        labels: int64 `[tokens]`.
        options: How many tokens torch's kernel takes at a time.
    """
    if hidden.is_cuda and (liger := _liger()) is not None:
        loss: torch.Tensor = liger.liger_fused_linear_cross_entropy(
            hidden, weight, labels, bias, ignore_index=IGNORED, reduction="sum", accum_dtype=torch.float32
        )
        return loss
    if weight.dtype in (torch.bfloat16, torch.float16):
        # Of such weights torch's kernel would add up the loss in their own precision.
        weight, bias = weight.float(), None if bias is None else bias.float()
        hidden = hidden.float()
    return linear_cross_entropy(
        hidden, weight, labels, linear_bias=bias, reduction="sum", ignore_index=IGNORED, options=options
    )


@cache
def _liger() -> Any:
    found = importlib.util.find_spec("liger_kernel") is not None
    return importlib.import_module("liger_kernel.transformers.functional") if found else None
