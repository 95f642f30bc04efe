"""Attention that survives skipped positions: position ids feed RoPE and nothing else (traps, 1 and 2)."""

from longrecipe_core.attention.probe import probe
from longrecipe_core.attention.registry import attach

__all__ = ["attach", "probe"]
