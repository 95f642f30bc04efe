"""Impactful token analysis (paper, section 4.1): the logits of two models, or of two contexts, compared.

Run as `python -m longrecipe_core.scoring job.json`.
"""
