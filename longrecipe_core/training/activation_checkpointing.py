"""Activation checkpointing: what waits for a decoder layer's backward, and where; the rest is computed again.

Per layer and option, what waits is:

- `full`: the layer's input. The whole forward runs again.
- `selective`: the input, the attention's output and its log-sum-exp. All but the attention runs again, which is most of
  the arithmetic of a long sequence (Li et al. 2024, LightSeq, arXiv 2310.03294, section 3.4). The communication of
  `ring` and `dist-flash` is inside of it; the all-to-all of heads (`ulysses`, `usp`) is outside and runs again.
- `offload`: the input, in host memory. The whole forward runs again.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from longrecipe_core.attention import ATTENTION_OPS
from longrecipe_core.errors import TrainingError


def checkpoint_activations(model: Any, option: str) -> None:
    """Set a transformers model's decoder layers to an option of `launch.activation_checkpointing`.

    Works through the layers' own switch: names of weights stay, and hooks of DDP and FSDP stay outside of what is
    computed again.

    Args:
        model: A transformers causal LM in training mode.
        option: `none`, `full`, `selective` or `offload`.

    Raises:
        TrainingError: The model's layers have no such switch.
    """
    if option == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if option == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, list(ATTENTION_OPS))
    try:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    except ValueError as error:
        raise TrainingError(f"launch.activation_checkpointing {option}: {error}; allowed with it: none") from error
    if option == "offload":
        # transformers' own offload copies on the stream that computes, so that each layer waits for its copies.
        model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=HostMemory().checkpoint)


@dataclass(eq=False)
class _Away:
    """A tensor that waits in host memory."""

    host: torch.Tensor
    device: torch.device
    before: "weakref.ref[_Away] | None"
    back: torch.Tensor | None = None
    arrived: torch.cuda.Event | None = None
    taken: bool = False


class HostMemory:
    """Checkpointing whose inputs wait in host memory.

    On CUDA they go and come over a stream of their own, to and from pinned memory, while others compute: a layer's
    input leaves during the layer's forward, and comes back during the backward of the layer after it. On a CPU it is a
    copy.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        # The graph owns what is away; a weak chain tells which one is needed next without keeping a dead graph's alive.
        self._latest: weakref.ref[_Away] | None = None

    def checkpoint(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """`function(*inputs)`; its tensor inputs are away until backward computes it again."""
        # Inside, checkpoint's own hooks replace these: they see the inputs and nothing else.
        with saved_tensors_hooks(self._leave, self._return):
            return checkpoint(function, *inputs, use_reentrant=False)

    def _leave(self, tensor: torch.Tensor) -> _Away:
        source = tensor.detach()
        if source.is_cuda:
            stream = self._stream(source.device)
            host = torch.empty_like(source, device="cpu", pin_memory=True)
            stream.wait_stream(torch.cuda.current_stream(source.device))
            with torch.cuda.stream(stream):
                host.copy_(source, non_blocking=True)
            # Its memory may be used anew only after the copy, of which the computing stream knows nothing.
            source.record_stream(stream)
        else:
            host = source.clone()
        away = _Away(host, source.device, self._latest)
        self._latest = weakref.ref(away)
        return away

    def _return(self, away: _Away) -> torch.Tensor:
        if away.device.type != "cuda":
            return away.host
        self._fetch(away)
        assert away.back is not None
        assert away.arrived is not None
        now = torch.cuda.current_stream(away.device)
        now.wait_event(away.arrived)
        back, away.back, away.taken = away.back, None, True
        back.record_stream(now)
        before = away.before() if away.before is not None else None
        if before is not None and not before.taken:
            self._fetch(before)
        return back

    def _fetch(self, away: _Away) -> None:
        if away.back is None:
            # In order after the copy to the host, which went over the same stream.
            with torch.cuda.stream(self._stream(away.device)):
                away.back = away.host.to(away.device, non_blocking=True)
                away.arrived = self._stream(away.device).record_event()

    def _stream(self, device: torch.device) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams[device]
