"""`gnuradio_radio`: a radio through GNU Radio's drivers: gr-uhd, gr-soapy, gr-iio."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from blocks.sdr.host import Host
from blocks.sdr.peer import PeerParams
from flowgraph.block import Block, BlockError, Packet, Port
from flowgraph.block import Params as BlockParams
from flowgraph.units import Decibel, Hertz, Seconds


class Limits(NamedTuple):
    """What a kind of radio can do at most; a device is asked for its own limits when it is opened."""

    frequency: tuple[float, float]  # Hz
    sample_rate: tuple[float, float]  # Hz
    receive_gain: tuple[float, float]  # dB
    transmit_gain: tuple[float, float]  # dB


LIMITS = {
    "usrp": Limits((0.0, 8.4e9), (100e3, 250e6), (0.0, 90.0), (0.0, 90.0)),
    "soapy": Limits((0.0, 8e9), (10e3, 250e6), (-20.0, 120.0), (-20.0, 120.0)),
    "pluto": Limits((325e6, 3.8e9), (521e3, 61.44e6), (0.0, 71.0), (-89.75, 0.0)),  # AD9363 as it is delivered
}


class GnuradioRadio(Block):
    """Receive samples by a radio, and transmit those of a `gnuradio_sink`, through GNU Radio's drivers.

    A process of GNU Radio, which this block starts and ends, holds the device: it puts out what it receives, and with
    `transmit: true` sends what the `gnuradio_sink` at the endpoint `transmit_from` hands it. The stream is one frame,
    tagged `sample_rate` and `center_frequency` at its start, and ends by `duration` or `items`.

    Samples that the computer took too late (overruns) or gave too late (underruns) are counted as the drivers tell of
    them, warned of once, and in the report. Raises `BlockError` where there is no GNU Radio, no such device, or one
    that cannot do what is asked for.
    """

    class Params(BlockParams):
        driver: Literal["usrp", "soapy", "pluto"] = Field(description="gr-uhd, gr-soapy or gr-iio")
        address: str = Field(
            "", description="which: type=b200, driver=lime, ip:192.168.2.1, ...; the only one if empty"
        )
        frequency: Hertz = Field(description="of the carrier")
        sample_rate: Hertz = Field(1e6, description="samples a second, both ways")
        receive_gain: Decibel = Field(20.0, description="of the receiver")
        transmit_gain: Decibel | None = Field(
            None, description="of the transmitter, the least there is by default; a Pluto's is from -89.75 dB to 0 dB"
        )
        receive_antenna: str = Field("", description="its name on the device: RX2, LNAW, ...")
        transmit_antenna: str = Field("", description="its name on the device: TX/RX, BAND1, ...")
        clock_source: str = Field(
            "internal", description="reference of the oscillators: internal, external, gpsdo, ..."
        )
        time_source: str = Field("internal", description="of the time: internal, external, gpsdo, ...")
        full_scale: float = Field(2.0, gt=0, description="amplitude of the samples that is the transmitter's greatest")
        transmit: bool = Field(False, description="allow to transmit: see that you may, and into what, before you do")
        transmit_from: str | None = Field(None, description="endpoint of the gnuradio_sink whose samples are sent")
        duration: Annotated[Seconds, Field(gt=0)] | None = Field(None, description="the stream ends after so long")
        items: int | None = Field(None, ge=1, description="the stream ends after so many samples")
        python: str = Field("/usr/bin/python3", description="the Python that GNU Radio is installed for")
        wait: Annotated[Seconds, Field(gt=0)] = Field(30.0, description="longest time that the radio may give nothing")

        @model_validator(mode="after")
        def _possible(self) -> GnuradioRadio.Params:
            for name, (low, high) in LIMITS[self.driver]._asdict().items():
                value = getattr(self, name)
                if value is not None and not low <= value <= high:
                    unit = "dB" if name.endswith("gain") else "Hz"
                    raise ValueError(
                        f"must have a {name} within {low:g} to {high:g} {unit} on {self.driver}, not {value:g}"
                    )
            if self.driver == "pluto" and {self.clock_source, self.time_source} != {"internal"}:
                raise ValueError("must have internal as clock_source and time_source on a pluto, which has no others")
            if self.transmit_from is not None:
                PeerParams.model_validate({"endpoint": self.transmit_from})
            return self

    outputs = (Port("samples", "complex64", "received"),)

    def start(self) -> None:
        p = self.params
        self.received = 0
        self.host = Host(p.python, p.wait, self.checkpoint)
        if p.transmit_from is not None and not p.transmit:
            raise BlockError("must have transmit: true to send anything; docs/radio.md tells what to see to first")
        self.host.start()
        least = LIMITS[p.driver].transmit_gain[0]
        order = p.model_dump(exclude={"transmit", "transmit_from", "duration", "items", "python", "wait"})
        order["transmit_gain"] = least if p.transmit_gain is None else p.transmit_gain
        try:
            self.host.open(order, receive=p.transmit_from)
        except BlockError as error:
            which = f"the {p.driver} {p.address!r}" if p.address else f"a {p.driver}"
            raise BlockError(f"cannot open {which}: {error}; `devices` lists what is attached") from None

    def produce(self) -> Iterator[Packet]:
        p = self.params
        self.host.begin()
        began: float | None = None
        for came in self.host.receive():
            now = time.monotonic()
            began = now if began is None and len(came) else began
            over = began is not None and p.duration is not None and now > began + p.duration
            left = len(came) if p.items is None else min(len(came), p.items - self.received)
            over = over or self.received + left == p.items
            if left or over:
                made = Packet(came[:left], 0, self.received, last=over)
                if not self.received:
                    made = made.tagged(sample_rate=p.sample_rate, center_frequency=p.frequency)
                self.received += left
                yield made
            if over:
                return

    def stop(self) -> None:
        self.host.stop()
        late = {"overruns": self.host.late["O"], "underruns": self.host.late["U"]}
        if any(late.values()):
            self.warn(f"the radio lost samples: {late['overruns']} overruns, {late['underruns']} underruns")
        facts = {"version": self.host.version, "samples": self.received, **late}
        self.context.report("gnuradio", None, {self.name: facts})

    @classmethod
    def devices(cls) -> list[str]:
        host = Host(cls.Params.model_fields["python"].default, 30.0, lambda: None)
        try:
            host.start()
            return host.devices()
        finally:
            host.stop()
