"""What the engine's own parts of a config take; the parameters of blocks are the blocks' own affair."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from flowgraph.spec import BlockSpec, Policy
from flowgraph.units import Bytes

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
NAME_RULE = "must be a name of letters, digits, _ and -"
_TCP = re.compile(r"tcp://(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5}|\*)")
WILDCARDS = ("0.0.0.0", "::", "[::]")  # others are told the address: it must be one that they can reach


def _host(text: str) -> str:
    if text in WILDCARDS:
        raise ValueError(f"must be an address that other hosts can reach, not {text!r}")
    return text


def _endpoint(text: str) -> str:
    match = _TCP.fullmatch(text)
    try:
        fits = bool(match and urlsplit(text).hostname and (match[1] == "*" or 0 < int(match[1]) < 1 << 16))
    except ValueError:  # brackets around what is no IPv6 address
        fits = False
    if not fits and not re.fullmatch(r"ipc://\S+", text):
        raise ValueError(f"must be tcp://ADDRESS:PORT or ipc://PATH, not {text!r}")
    _host(urlsplit(text).hostname or "")
    return text


def _listen(text: str) -> str:
    if not text.startswith("tcp:") or text.endswith("*"):
        raise ValueError(f"must be tcp://ADDRESS:PORT, not {text!r}")
    return _endpoint(text)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobOptions(_Options):
    flowgraph: str = Field(min_length=1, description="what the job is called")
    seed: int = Field(0, ge=0, lt=1 << 64, description="seed of all random numbers")


class BlockOptions(_Options):
    memory: Bytes = Field(BlockSpec("", "", {}, "").memory, gt=0, description="frames that may wait for their partners")


class WireOptions(_Options):
    wire: str = Field(description="`block.output -> block.input`, or a longer row")
    queue: int = Field(8, ge=1, le=1 << 20, description="packets under way")
    policy: Policy = Field("block", description="what happens when the queue is full")
    delay: int = Field(
        0,
        ge=0,
        le=1024,
        description="frames by which the receiving block gets what comes later; a loop needs a wire with a delay",
    )
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None,
        description="where the receiver listens: tcp://ADDRESS:PORT or ipc://PATH; follows from the workers",
    )


class WorkerOptions(_Options):
    blocks: list[str] = Field(min_length=1, description="blocks, sub-graphs, or single blocks of these: link.channel")
    host: Annotated[str, AfterValidator(_host)] | None = Field(
        None, min_length=1, description="address of the machine where it is started by hand"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="compute threads")


class ChangeOptions(_Options):
    set: str = Field(description="the live parameter: link.air.ebn0, or as much of its end as is clear")
    to: Any = Field(description="its value from then on")
    frame: int = Field(0, ge=0, lt=1 << 62, description="frame of the first item that it holds for")
    offset: int = Field(0, ge=0, lt=1 << 62, description="that item, from the start of the frame")


class NetworkOptions(_Options):
    listen: Annotated[str, AfterValidator(_listen)] | None = Field(
        None, description="where workers on other hosts find the supervisor: tcp://ADDRESS:PORT"
    )
    keys: str | None = Field(None, description="folder made by `run_flowgraph.py keys`")
    insecure: bool = Field(False, description="listen beyond this machine without keys")
    live: Annotated[str, AfterValidator(_listen)] | None = Field(
        None, description="where viewers on other hosts find the run: tcp://ADDRESS:PORT"
    )


class Signature(_Options):
    """The inputs and outputs of a kind of sub-graph, and the item types that they carry."""

    inputs: dict[str, str | list[str]] = {}
    outputs: dict[str, str | list[str]] = {}
