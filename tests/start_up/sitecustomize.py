"""Read by every Python that a test starts: most of what such a process does is to import torch, transformers and
Prefect, and 8 % of that would be looking for garbage among objects that all stay."""

import gc

gc.set_threshold(100_000, 50, 100)
