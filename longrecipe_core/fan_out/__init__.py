"""Shards of one stage on many workers: the results in order, and a killed worker costs its shard only."""

from longrecipe_core.fan_out.engine import Engine, Inputs
from longrecipe_core.fan_out.processes import Here, Processes, local_engine

__all__ = ["Engine", "Here", "Inputs", "Processes", "local_engine"]
