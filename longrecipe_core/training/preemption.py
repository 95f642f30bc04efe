"""SIGTERM, as a scheduler sends it before it takes the machine away."""

import signal
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist

from longrecipe_core.errors import PreemptedError


class Preemption:
    """Whether any rank was told to end, agreed on by all of them.

    Made by every rank, in its main thread. From then on SIGTERM does not end the process but is noted.
    """

    def __init__(self, timeout: timedelta) -> None:
        """`timeout` is how long ranks wait for each other."""
        self._told = False
        # On the host, so that asking does not wait for the device's work.
        self._group = dist.new_group(backend="gloo", timeout=timeout) if dist.is_initialized() else None
        signal.signal(signal.SIGTERM, self._note)

    def check(self) -> None:
        """Ask all ranks, each of which calls this at the same point.

        A signal may reach one rank only, or ranks at different moments: one that stopped alone would leave the others
        in a collective for ever.

        Raises:
            PreemptedError: On every rank, once any was told to end.
        """
        told = torch.tensor(int(self._told))
        if self._group is not None:
            dist.all_reduce(told, dist.ReduceOp.MAX, group=self._group)
        if told:
            raise PreemptedError("told to end by SIGTERM")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = True
