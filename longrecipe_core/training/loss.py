"""Next-token loss without logits: `[tokens, vocabulary]` never exists (traps, 6)."""

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
        return linear_cross_entropy(
            hidden.flatten(0, 1),
            head.weight,
            labels.flatten(),
            linear_bias=head.bias,
            reduction="sum",
            ignore_index=IGNORED,
            options=self.options,
        )
