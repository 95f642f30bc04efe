"""Start, watch and end jobs: `accelerate` for training, a process of its own for evaluation and scoring."""

from longrecipe_core.launching.launch import launch_evaluation, launch_scoring, launch_training

__all__ = ["launch_evaluation", "launch_scoring", "launch_training"]
