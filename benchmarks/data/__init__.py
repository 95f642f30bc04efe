"""Figures of the data path: `make bench-data`."""
