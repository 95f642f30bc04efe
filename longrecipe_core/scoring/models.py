"""The two models that are compared: on which devices, with which vocabulary."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from longrecipe_core.errors import ModelError, RecipeError
from longrecipe_core.modeling import load_model
from longrecipe_core.modeling.head import check_plain_head


@dataclass(frozen=True)
class ScoredModel:
    """A causal LM, used as transformers loads it, with its stock attention."""

    model: Any
    vocabulary: int  # entries of the tokenizer: rows of the head beyond it were never trained and don't count
    bf16: bool

    @property
    def device(self) -> torch.device:
        """Where it is."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @torch.no_grad()
    def hidden(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Last hidden states under plain causal attention: int64 `[batch, length]` to fp32 `[batch, length, hidden]`.

        Raises:
            ModelError: One of them is not finite.
        """
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            hidden = self.model.base_model(input_ids=input_ids.to(self.device), use_cache=False).last_hidden_state
        if not torch.isfinite(hidden).all():
            raise ModelError(f"{self.model.config.name_or_path}: hidden states are not finite: its weights are broken")
        return hidden.to(self.model.get_output_embeddings().weight.dtype)  # type: ignore[no-any-return]

    @torch.no_grad()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Unnormalised logits of the vocabulary, in the weights' precision: `[tokens, hidden]` to `[tokens, V]`."""
        head = self.model.get_output_embeddings()
        bias = None if head.bias is None else head.bias[: self.vocabulary]
        return torch.nn.functional.linear(hidden, head.weight[: self.vocabulary], bias)


def load_scored(directory: Path, tokenizer: Any, *, device: torch.device, bf16: bool, trust: bool) -> ScoredModel:
    """The model of a directory on a device, counted over the entries of `tokenizer`.

    Raises:
        ModelError: The head has fewer rows than the tokenizer has entries, or the model changes its logits after it.
    """
    model: Any = load_model(directory, trust_remote_code=trust, device=device).eval()
    check_plain_head(model, str(directory))
    rows = model.get_output_embeddings().weight.shape[0]
    if rows < len(tokenizer):
        raise ModelError(f"{directory}: its head has {rows} rows, the tokenizer {len(tokenizer)} entries")
    return ScoredModel(model, len(tokenizer), bf16)


def check_same_vocabulary(base: Any, extended: Any, directory: Path) -> None:
    """Raise ModelError where two tokenizers differ in an entry: logits of other entries can't be subtracted."""
    ours, theirs = base.get_vocab(), extended.get_vocab()
    if len(base) != len(extended):
        raise ModelError(
            f"score: the base model's tokenizer has {len(base)} entries, the one of the extended model {directory} "
            f"{len(extended)}; they must share the vocabulary"
        )
    if ours != theirs:
        number, token = min((id_, token) for token, id_ in ours.items() if theirs.get(token) != id_)
        other = theirs.get(token, "no entry")
        raise ModelError(
            f"score: entry {token!r} of the base model's tokenizer is {number}, in that of the extended model "
            f"{directory} it is {other}; they must share the vocabulary"
        )


def find_device(name: str) -> torch.device:
    """The torch device of `launch.score_devices`; `auto` is cuda where there is one, else cpu.

    Raises:
        RecipeError: There is no such device on this machine.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if cards else "cpu")
    allowed = ["auto", "cpu", *(["cuda"] if cards else []), *(f"cuda:{card}" for card in range(cards))]
    if name not in allowed:
        raise RecipeError(f"launch.score_devices: no device {name!r} on this machine; allowed: {', '.join(allowed)}")
    return torch.device(name)
