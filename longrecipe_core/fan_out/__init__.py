"""Shards of one stage on many workers: the results in order, and a killed worker costs its shard only."""

from longrecipe_core.fan_out.engine import Engine, Inputs
from longrecipe_core.fan_out.processes import ATTEMPTS, AsNeeded, Here, Processes, default_workers, local_engine
from longrecipe_core.fan_out.window import in_order
from longrecipe_core.fan_out.worker import portable

__all__ = [
    "ATTEMPTS",
    "AsNeeded",
    "Engine",
    "Here",
    "Inputs",
    "Processes",
    "default_workers",
    "in_order",
    "local_engine",
    "portable",
]
