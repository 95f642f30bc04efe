"""Exact resume: everything that the next step depends on, written so that it is there whole or not at all.

A checkpoint is a directory `step-N`, N the optimizer steps taken: `model.safetensors`, `optimizer.safetensors`,
one `rank-R.safetensors` with the random state of each rank, `metrics.jsonl` so far, `progress.json`. It is written
as `step-N.partial` and renamed when every byte of every rank is on disk. The step is the data cursor (see `data.py`).
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from longrecipe_core.errors import TrainingError
from longrecipe_core.training.metrics import read_metrics


def complete_steps(directory: Path) -> list[int]:
    """Steps of the complete checkpoints under `directory`, rising."""
    names = [path.name for path in directory.glob("step-*") if path.is_dir()]
    return sorted(int(name[5:]) for name in names if name[5:].isdigit())


def made_from(checkpoint: Path) -> dict[str, str]:
    """The content of each input that the training of a checkpoint started from (see `TrainingJob.inputs`)."""
    inputs: dict[str, str] = json.loads((checkpoint / "progress.json").read_text())["inputs"]
    return inputs


class Checkpoints:
    """The training checkpoints of one job in one local directory."""

    def __init__(
        self,
        directory: Path,
        *,
        kept: int,
        accelerator: Any,
        identity: dict[str, Any],
        metrics: Path,
        inputs: dict[str, str],
    ) -> None:
        """Keep `kept` of them under `directory`.

        `identity` is stored and must be equal on resume: what would make resumed weights differ. `metrics` is the log
        that goes along, so that a run resumed elsewhere tells its whole story. `inputs` is stored for `made_from`.
        """
        self._metrics, self._inputs = metrics, inputs
        self._directory, self._kept, self._accelerator, self._identity = (
            directory,
            kept,
            accelerator,
            identity,
        )

    def save(self, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write `step-N`; older ones are removed only after it is complete. Called by every rank."""
        partial = self._directory / f"step-{step}.partial"
        if self._accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self._accelerator.wait_for_everyone()  # the directory must be there before any rank writes into it
        save_file(
            _random_state(self._accelerator.device),
            partial / f"rank-{self._accelerator.process_index}.safetensors",
        )
        if self._accelerator.is_main_process:
            save_file(
                {name: p.detach().contiguous() for name, p in model.named_parameters()},
                partial / "model.safetensors",
            )
            save_file(_optimizer_tensors(model, optimizer), partial / "optimizer.safetensors")
            shutil.copyfile(self._metrics, partial / "metrics.jsonl")
            progress = {"step": step, "threads": torch.get_num_threads(), "inputs": self._inputs}
            (partial / "progress.json").write_text(json.dumps(progress | {"identity": self._identity}))
        self._accelerator.wait_for_everyone()  # all ranks' files are written before the name says so
        if self._accelerator.is_main_process:
            for path in partial.iterdir():
                _flush(path)
            _flush(partial)
            partial.rename(self._directory / f"step-{step}")
            _flush(self._directory)
            for older in complete_steps(self._directory)[: -self._kept]:
                shutil.rmtree(self._directory / f"step-{older}")
        self._accelerator.wait_for_everyone()  # nobody may look for the newest checkpoint before it stands

    def resume(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest checkpoint, if any, and return how many steps have been taken.

        Raises:
            TrainingError: The checkpoint was made by a run that would give other weights.
        """
        steps = complete_steps(self._directory)
        if not steps:
            return 0
        directory = self._directory / f"step-{steps[-1]}"
        progress = json.loads((directory / "progress.json").read_text())
        for key, mine in self._identity.items():
            found = progress["identity"].get(key)
            if found != mine:
                raise TrainingError(
                    f"{directory}: was made with {key} {found}, this run has {mine}: resume with the same, or "
                    f"remove it here and under state/ in the store"
                )
        # The order of sums follows the number of threads, so the run goes on with the one that it began with.
        torch.set_num_threads(progress["threads"])
        if self._accelerator.is_main_process and len(read_metrics(self._metrics)) < progress["step"]:
            self._metrics.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / "metrics.jsonl", self._metrics)
        weights = load_file(directory / "model.safetensors")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights.pop(name))
        _load_optimizer(directory / "optimizer.safetensors", model, optimizer)
        _restore_random_state(
            load_file(directory / f"rank-{self._accelerator.process_index}.safetensors"),
            self._accelerator.device,
        )
        return int(progress["step"])


def _optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value.detach().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _load_optimizer(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    parameters = dict(model.named_parameters())
    for name, value in load_file(path).items():
        parameter, key = parameters[name.rpartition("/")[0]], name.rpartition("/")[2]
        # AdamW keeps its step count on the CPU, and its moments where the parameter is.
        optimizer.state[parameter][key] = value if value.ndim == 0 else value.to(parameter.device)


def _random_state(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _flush(path: Path) -> None:
    """A rename may reach the disk before the bytes do; so the bytes go first."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
