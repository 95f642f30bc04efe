"""The random state of a rank: torch's on the host and that of its device."""

import torch


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """A copy of it, uint8 tensors in host memory by the generator's name."""
    state = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set what `random_state` gave; a generator that is not in it keeps its own."""
    if "torch" in state:
        torch.set_rng_state(state["torch"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
