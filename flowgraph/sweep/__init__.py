"""Sweeps: a flowgraph at every point of a grid over its variables, the figures in one table."""

from flowgraph.sweep.plan import Cell, Sweep

__all__ = ["Cell", "Sweep"]
