"""Loss by position, passkey, tables and plots.

Run as `python -m longrecipe_core.evaluation job.json`.
"""
