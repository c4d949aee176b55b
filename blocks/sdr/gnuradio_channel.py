"""`gnuradio_channel`: GNU Radio's own channel models, run by GNU Radio, in the place of a simulated radio of ours."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from blocks.phy import theory
from blocks.phy.channel import MEASURED, _NoisyChannel, _SnrParams
from blocks.sdr.host import Host
from flowgraph.block import Packet, Port
from flowgraph.runner import split
from flowgraph.units import Decibel, Hertz, PartsPerMillion, Seconds


class GnuradioChannel(_NoisyChannel):
    """Send samples through GNU Radio's `channels.fading_model` and `channels.channel_model`, in a process of its own.

    The process runs under GNU Radio's own Python and lives as long as this block. As many samples come back as go in:
    what comes late, by GNU Radio's filters or a slow clock, falls off the end, and silence is sent behind the last
    sample until all have come back. Tags keep their places.

    With the same seed GNU Radio makes the same noise. Noise that is turned while the graph runs holds from where GNU
    Radio has come, so that such a run is not repeated to the last bit. Raises `BlockError` where there is no GNU Radio
    3.10 or newer, and where it dies or hangs.
    """

    class Params(_SnrParams):
        sample_rate: Annotated[Hertz, Field(gt=0)] = Field(1e6, description="samples a second")
        carrier_offset: Hertz = Field(0.0, description="of the carrier from the receiver's")
        clock_offset: Annotated[PartsPerMillion, Field(ge=-10_000, le=10_000)] = Field(
            0.0, description="by how much the receiver's sampling clock is faster"
        )
        taps: Annotated[list[float], Field(min_length=1)] = Field([1.0], description="gains of paths, a sample apart")
        fading: Literal["none", "rayleigh", "rician"] = Field(
            "none", description="flat fading in time, before the rest"
        )
        doppler: Annotated[Hertz, Field(gt=0)] = Field(10.0, description="largest Doppler shift, with fading")
        k_factor: Annotated[Decibel, Field(ge=-100, le=100)] = Field(
            6.0, description="power of the direct path over that of the scattered ones, with fading: rician"
        )
        python: str = Field("/usr/bin/python3", description="the Python that GNU Radio is installed for")
        wait: Annotated[Seconds, Field(gt=0)] = Field(30.0, description="longest time that GNU Radio may give nothing")

        @model_validator(mode="after")
        def _in_band(self) -> GnuradioChannel.Params:
            half = self.sample_rate / 2
            if abs(self.carrier_offset) > half:
                raise ValueError(f"must have a carrier_offset of at most half the sample rate, {half:g} Hz")
            return self

    inputs = (Port("samples", "complex64", "Es = 1", align=lambda p: 1 if p.snr is None else MEASURED),)
    outputs = (Port("samples", "complex64", "faded, shifted, with noise"),)
    ratio = Fraction(1)

    def start(self) -> None:
        super().start()
        self.due: deque[Packet] = deque()  # what was sent and has not come back
        self.n0: float | None = None
        self.host = Host(self.params.python, self.params.wait, self.checkpoint)
        self.host.start()
        self.context.report("gnuradio", None, {self.name: {"version": self.host.version}})

    def work(self, samples: Packet) -> Iterator[Packet]:
        n0, tags = self._look(samples, kind="gnuradio", fading=self.params.fading, block_symbols=None)
        if self.n0 is None:
            self.host.open(self._stages(n0))
            self.host.begin()
        elif n0 != self.n0:
            self.host.tell({"noise": n0**0.5})
        self.n0 = n0
        self.due.append(samples.tagged(**tags))
        for came in self.host.send(samples.data):
            yield from self._cut(came)

    def flush(self) -> Iterator[Packet]:
        yield from self._cut(np.empty(0, np.complex64))
        for came in self.host.flush() if self.due else ():
            yield from self._cut(came)
            if not self.due:
                return

    def stop(self) -> None:
        self.host.stop()

    def _stages(self, n0: float) -> dict[str, Any]:
        """Return what the process is to put between its ends."""
        p = self.params
        stages: dict[str, Any] = {
            "noise": n0**0.5,
            "carrier_offset": p.carrier_offset / p.sample_rate,
            "step": 1 / (1 + p.clock_offset * 1e-6),
            "taps": p.taps,
            "seed": 1 + self.key % (2**31 - 2),
        }
        if p.fading != "none":
            k = theory.db_to_ratio(p.k_factor)
            stages["fading"] = {"doppler": p.doppler / p.sample_rate, "direct": p.fading == "rician", "k": k}
        return stages

    def _cut(self, came: np.ndarray) -> Iterator[Packet]:
        """Yield samples that came back in the packets that they went out in, or parts of those."""
        at = 0
        while self.due and (at < len(came) or not self.due[0].count):
            packet = self.due.popleft()
            if packet.count > len(came) - at:
                packet, rest = split(packet, len(came) - at)
                self.due.appendleft(rest)
            yield packet.derive(came[at : at + packet.count])
            at += packet.count
