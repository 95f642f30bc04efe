"""The training job: one resolved JSON in, metrics and a checkpoint out.

Run as `python -m longrecipe_core.training job.json`, under `accelerate launch`.
"""
