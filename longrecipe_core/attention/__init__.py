"""Attention that survives skipped positions, also where ranks share a sequence: position ids feed RoPE and nothing else
(traps, 1 and 2)."""

from longrecipe_core.attention.ops import ATTENTION_OPS
from longrecipe_core.attention.probe import probe
from longrecipe_core.attention.registry import attach
from longrecipe_core.attention.sequence import (
    PARALLEL_MODES,
    WHOLE,
    SequenceGroup,
    SequenceLayout,
    gather_sequence,
    pad_sequence,
    sequence_group,
    shard_sequence,
)

__all__ = [
    "ATTENTION_OPS",
    "PARALLEL_MODES",
    "WHOLE",
    "SequenceGroup",
    "SequenceLayout",
    "attach",
    "gather_sequence",
    "pad_sequence",
    "probe",
    "sequence_group",
    "shard_sequence",
]
