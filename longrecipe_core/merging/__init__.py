"""Weighted averages of checkpoints, streamed."""

from longrecipe_core.merging.merge import merge_checkpoints

__all__ = ["merge_checkpoints"]
