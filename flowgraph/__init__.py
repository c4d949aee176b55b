"""Semflow's engine: blocks, wires, graphs."""

from flowgraph.api import Flowgraph
from flowgraph.block import LIVE, Block, BlockError, Packet, Params, Port, Tag
from flowgraph.config.mistake import ConfigError
from flowgraph.report import Report, RunFailed
from flowgraph.sweep import Sweep

__all__ = [
    "LIVE",
    "Block",
    "BlockError",
    "ConfigError",
    "Flowgraph",
    "Packet",
    "Params",
    "Port",
    "Report",
    "RunFailed",
    "Sweep",
    "Tag",
]
