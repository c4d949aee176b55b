"""Semflow's engine: blocks, wires, graphs."""

from flowgraph.api import Flowgraph
from flowgraph.block import Block, BlockError, Packet, Params, Port, Tag
from flowgraph.report import Report
from flowgraph.sweep import Sweep

__all__ = ["Block", "BlockError", "Flowgraph", "Packet", "Params", "Port", "Report", "Sweep", "Tag"]
