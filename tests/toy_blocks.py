"""Small blocks with ports of every kind, for the tests of configs; nothing else is registered while they are in use."""

from fractions import Fraction
from typing import Any, Literal

import pytest
from pydantic import Field

from flowgraph import registry
from flowgraph.block import LIVE, Block, Params, Port
from flowgraph.units import Decibel, Hertz

BITS_OR_LLR = ("bits", "float32", "int8")


class Bits(Block):
    """Make bits out of files."""

    class Params(Params):
        count: int = Field(8, ge=0, le=1_000_000, description="bits a frame")
        images: str = Field("sample", json_schema_extra={"path": True}, description="file, folder or glob")
        model: str = Field("small", json_schema_extra={"path": "maybe"}, description="name or folder of a model")
        label: str = Field("", description="any word")
        live: bool = Field(True, description="whether to start")

    outputs = (Port("bits", "bits"),)


class Mapper(Block):
    """Map bits to symbols."""

    class Params(Params):
        order: int = Field(4, gt=0, multiple_of=2, description="bits a symbol")

    inputs = (Port("bits", "bits"),)
    outputs = (Port("symbols", "complex64"),)
    ratio = staticmethod(lambda params: Fraction(1, params.order))


class Channel(Block):
    """Add noise."""

    class Params(Params):
        ebn0: Decibel = Field(ge=-300, le=300, description="energy of a bit over the noise density")
        rate: Hertz = Field(1e6, gt=0, description="symbols a second", json_schema_extra=LIVE)
        kind: Literal["awgn", "rayleigh"] = Field("awgn", description="what the channel does")
        taps: list[float] = Field([1.0], min_length=1, description="impulse response")
        seed: int | None = Field(None, description="own seed")

    inputs = (Port("symbols", "complex64"),)
    outputs = (Port("symbols", "complex64"),)
    ratio = Fraction(1)


class Demapper(Block):
    """Turn symbols back into bits, or into log-likelihood ratios."""

    class Params(Params):
        order: int = Field(4, gt=0, description="bits a symbol")
        soft: bool = Field(False, description="hand out LLRs")

    inputs = (Port("symbols", "complex64"),)
    outputs = (Port("bits", BITS_OR_LLR, chosen=lambda params: "float32" if params.soft else "bits", doc="the bits"),)
    ratio = staticmethod(lambda params: Fraction(params.order))


class Meter(Block):
    """Compare bits."""

    inputs = (Port("sent", "bits"), Port("received", BITS_OR_LLR))
    equal_rates = ("sent", "received")


class HardSink(Block):
    """Take hard bits only."""

    inputs = (Port("bits", "bits", whole=True),)


class Volts(Block):
    """Make a voltage."""

    outputs = (Port("out", "float32", unit="V"), Port("picture", "uint8", shape=(None, None, 3)))


class Amperes(Block):
    """Show a current."""

    inputs = (Port("current", "float32", unit="A"),)


class Grey(Block):
    """Show a grey picture."""

    inputs = (Port("picture", "uint8", shape=(None, None)),)


class Scope(Block):
    """Show what there is."""

    inputs = (Port("x", "complex64", optional=True), Port("y", "complex64", optional=True))


class Anything(Block):
    """Hold any data."""

    class Params(Params):
        data: Any = None
        text: str = ""

    outputs = (Port("x", "uint8"),)


TOYS = {
    block.type_name(): [block]
    for block in (Bits, Mapper, Channel, Demapper, Meter, HardSink, Volts, Amperes, Grey, Scope, Anything)
}


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setattr(registry, "_scan", lambda: registry._Found(TOYS, {}))
