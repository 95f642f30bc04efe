"""Figures of the training engine: `make bench-train`."""
