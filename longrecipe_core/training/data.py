"""Samples as tensors, in an order that is a pure function of seed and step: resuming needs no cursor but the step."""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from longrecipe_core.attention import WHOLE, SequenceLayout, pad_sequence
from longrecipe_core.corpus import PackedShards, TokenShards
from longrecipe_core.corpus.randomness import generator
from longrecipe_core.errors import TrainingError
from longrecipe_core.positions.samples import IndexedSamples
from longrecipe_core.training.copies import put_copies
from longrecipe_core.training.job import DataSpec

IGNORED = -100
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """One row: ids, position ids and labels, int64 `[length]` each; labels are already shifted to the next token."""

    input_ids: Ints
    position_ids: Ints
    labels: Ints
    sample_starts: Ints | None = None


@dataclass(frozen=True)
class Batch:
    """A micro-batch: int64 `[batch, length]` tensors, and which samples of the data set it holds.

    Where ranks share a sequence, `length` is that of this rank's part, in the mode's order.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    sample_starts: list[torch.Tensor] | None
    numbers: tuple[int, ...]
    tokens: int
    """Of the samples, without padding to the ranks; 0 on all ranks but the first of those that share them."""


class Samples(Protocol):
    """Any data set of samples."""

    in_order: bool
    """Sample n is the n-th that is trained on; else each epoch has an order of its own."""

    def __len__(self) -> int: ...

    def sample(self, number: int) -> Sample:
        """Row `number`."""
        ...


class Indexed:
    """Long documents at the positions that the index drew."""

    in_order = False

    def __init__(self, spec: DataSpec) -> None:
        if spec.index is None:
            raise TrainingError("data of kind indexed needs an index")
        self._rows = IndexedSamples(spec.index, spec.tokens)

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, number: int) -> Sample:
        """The label of a token is the next *kept* token, also across a skip, as in the paper's training."""
        tokens, positions = self._rows[number]
        return Sample(tokens, positions, np.append(tokens[1:], IGNORED))


class Packed:
    """Annealing rows: prompt and response, EOS between, identity positions (paper, section 4.3)."""

    in_order = False

    def __init__(self, spec: DataSpec) -> None:
        self._rows = PackedShards(spec.tokens)
        self._spec = spec

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, number: int) -> Sample:
        """Pad at the end; labels are masked on padding and, where asked, on prompts and across samples."""
        row = self._rows.row(number)
        tokens = np.asarray(row.input_ids, dtype=np.int64)
        starts = np.asarray(row.sample_starts, dtype=np.int64)
        labels = np.append(tokens[1:], IGNORED)
        if not self._spec.loss_on_prompt:
            for start, prompt in zip(starts, row.prompt_tokens, strict=True):
                # Label i is token i + 1, so the prompt's tokens are the labels from one place earlier.
                labels[max(0, start - 1) : max(0, start + prompt - 1)] = IGNORED
        if not self._spec.attention_across_samples:
            labels[starts[1:] - 1] = IGNORED
        padding = self._spec.length - tokens.size
        return Sample(
            np.pad(tokens, (0, padding)),
            np.arange(self._spec.length, dtype=np.int64),
            np.pad(labels, (0, padding), constant_values=IGNORED),
            None if self._spec.attention_across_samples else starts,
        )


class Windows:
    """Windows of the base model's length, drawn uniformly over all tokens; for training a base model.

    Where the spec says so, copies are put into them. What these are like changes from the first sample to the last, so
    they are then trained on in that order; each is a draw of its own.
    """

    def __init__(self, spec: DataSpec, seed: int) -> None:
        self.in_order = spec.copies is not None
        if spec.copies is not None and spec.random_ids is None:
            raise TrainingError("windows with copies need random_ids")
        self._tokens = TokenShards(spec.tokens, "train")
        self._room = np.cumsum(np.maximum(0, self._tokens.lengths - spec.length + 1))
        if self._room.size == 0 or self._room[-1] == 0:
            raise TrainingError(f"{spec.tokens}: no document has the {spec.length} tokens of a window")
        self._spec, self._seed = spec, seed
        if len(self) == 0:
            raise TrainingError(
                f"{spec.tokens}: its documents have room for {int(self._room[-1])} windows of {spec.length} tokens, "
                f"less than one length of them; give the training a number of steps"
            )

    def __len__(self) -> int:
        return self._spec.samples or int(self._room[-1] // self._spec.length)

    def sample(self, number: int) -> Sample:
        """A window at a drawn place."""
        place = int(generator(self._seed, "window", number).integers(self._room[-1]))
        row = int(np.searchsorted(self._room, place, side="right"))
        start = place - (int(self._room[row - 1]) if row else 0)
        tokens = self._tokens.input_ids(row)[start : start + self._spec.length].astype(np.int64)
        foreseen = np.ones(tokens.size, dtype=bool)
        if self._spec.copies is not None and self._spec.random_ids is not None:
            rng = generator(self._seed, "copies", number)
            copied = put_copies(tokens, self._spec.copies, number / len(self), self._spec.random_ids, rng)
            # Nothing can be learned from guessing random tokens, but their gradients are noise.
            tokens, foreseen = copied.tokens, ~copied.unforeseen
        labels = np.where(foreseen[1:], tokens[1:], IGNORED)
        return Sample(tokens, np.arange(tokens.size, dtype=np.int64), np.append(labels, IGNORED))


def open_samples(spec: DataSpec, seed: int) -> Samples:
    """The data set that a job names."""
    if spec.kind == "windows":
        return Windows(spec, seed)
    return Indexed(spec) if spec.kind == "indexed" else Packed(spec)


class Batches:
    """Which samples each rank computes in each step.

    `rank` and `world_size` are those of data parallelism. Ranks that share a sequence read the same samples, and each
    keeps its part: number `place` of those in `layout`.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        global_batch: int,
        micro_batch: int,
        rank: int,
        world_size: int,
        seed: int,
        stage: str,
        layout: SequenceLayout = WHOLE,
        place: int = 0,
    ) -> None:
        self._samples, self._seed, self._stage = samples, seed, stage
        self._layout, self._place = layout, place
        self._global, self._micro, self._rank, self._world = global_batch, micro_batch, rank, world_size
        self._epoch = -1
        self._order: Ints = np.empty(0, dtype=np.int64)

    def step(self, step: int) -> list[Batch]:
        """This rank's micro-batches of optimizer step `step`, `global_batch / (micro_batch * world_size)` of them."""
        stride = self._micro * self._world
        first = step * self._global + self._rank * self._micro
        return [
            self._collate([self._number(first + start + j) for j in range(self._micro)])
            for start in range(0, self._global, stride)
        ]

    def _number(self, drawn: int) -> int:
        epoch, place = divmod(drawn, len(self._samples))
        if epoch != self._epoch:
            self._order = np.arange(len(self._samples))
            if not self._samples.in_order:
                self._order = generator(self._seed, self._stage, "order", epoch).permutation(len(self._samples))
            self._epoch = epoch
        return int(self._order[place])

    def _collate(self, numbers: list[int]) -> Batch:
        rows = [self._samples.sample(number) for number in numbers]
        starts = [torch.from_numpy(row.sample_starts) for row in rows if row.sample_starts is not None]
        return Batch(
            input_ids=self._part([row.input_ids for row in rows], 0),
            position_ids=self._part([row.position_ids for row in rows], 0),
            labels=self._part([row.labels for row in rows], IGNORED),
            sample_starts=starts or None,
            numbers=tuple(numbers),
            tokens=sum(row.input_ids.size for row in rows) if self._place == 0 else 0,
        )

    def _part(self, rows: list[Ints], padding: int) -> torch.Tensor:
        """Padded at the end, where causal attention never looks from; labels were shifted before."""
        whole = pad_sequence(torch.from_numpy(np.stack(rows)), self._layout.multiple, padding)
        return whole[:, self._layout.tokens(whole.shape[1], self._place)]


@dataclass(frozen=True)
class StepBatches:
    """A step, counted from 0, this rank's micro-batches of it, and the seconds that the caller waited for them."""

    step: int
    batches: list[Batch]
    waited: float


def read_ahead(batches: Batches, first: int, steps: int) -> Generator[StepBatches, None, None]:
    """The batches of steps `first..steps - 1` in order; a thread reads the next step's while one is computed.

    They are those of `batches.step`, one call after the other. What reading a step raises is raised here, at that
    step and as it is. The thread ends with the iterator, so close that (`contextlib.closing`).
    """
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        reads = (reader.submit(batches.step, step) for step in range(first, steps))
        step, upcoming = first, next(reads, None)
        while upcoming is not None:
            started = time.perf_counter()
            current = upcoming.result()
            waited = time.perf_counter() - started
            upcoming = next(reads, None)
            yield StepBatches(step, current, waited)
            step += 1
