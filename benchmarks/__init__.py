"""Measured comparisons, each one command; see docs/benchmarks.md."""
