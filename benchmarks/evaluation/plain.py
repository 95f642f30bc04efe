"""The loss of every token as one writes it: the model's own logits, whole, and torch's cross entropy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy


@torch.no_grad()
def plain_nll(
    model: Any, documents: npt.NDArray[np.int64], *, bf16: bool, head_in_fp32: bool = False
) -> npt.NDArray[np.float64]:
    """-log p of every token but the first, `[documents, length - 1]`, of documents that are all of one length.

    With bf16 the head computes in it as all of the model does under autocast, and its logits are rounded to it before
    the loss is taken in fp32; with `head_in_fp32` the head stands outside.
    """
    tokens = torch.from_numpy(documents)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        if head_in_fp32:
            hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        else:
            logits = model(input_ids=tokens, use_cache=False).logits
    if head_in_fp32:
        logits = model.get_output_embeddings()(hidden.float())
    logits = logits[:, :-1].flatten(0, 1).float()
    nll = cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
    return nll.view(len(tokens), -1).double().numpy()
