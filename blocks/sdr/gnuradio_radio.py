"""`gnuradio_radio` and `gnuradio_transmitter`: radios through GNU Radio's drivers: gr-uhd, gr-soapy, gr-iio."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from blocks.sdr.host import Host
from blocks.sdr.peer import PeerParams
from flowgraph.block import LIVE, Block, BlockError, Packet, Port
from flowgraph.block import Params as BlockParams
from flowgraph.units import Decibel, Hertz, Seconds


class Limits(NamedTuple):
    """What a kind of radio can do at most; a device is asked for its own limits when it is opened."""

    frequency: tuple[float, float]  # Hz
    sample_rate: tuple[float, float]  # Hz
    receive_gain: tuple[float, float]  # dB
    transmit_gain: tuple[float, float]  # dB


REPORT_EVERY_S = 0.5
LIMITS = {  # docs/radio.md tells where from
    "usrp": Limits((0.0, 8e9), (100e3, 250e6), (0.0, 90.0), (0.0, 90.0)),
    "soapy": Limits((0.0, 8e9), (10e3, 250e6), (-20.0, 120.0), (-20.0, 120.0)),
    "pluto": Limits((325e6, 3.8e9), (521e3, 61.44e6), (0.0, 71.0), (-89.75, 0.0)),
}


LATE = {  # what is told of the first one
    "overruns": "overruns, samples that were not taken in time and are missing: lower sample_rate, or give this "
    "machine less else to do",
    "underruns": "underruns, samples that came too late to be sent: without harm between bursts, where nothing is "
    "to be sent; else lower sample_rate, or give this machine less else to do",
}


class _RadioParams(BlockParams):
    """Which radio, and what both its ends need."""

    driver: Literal["usrp", "soapy", "pluto"] = Field(description="gr-uhd, gr-soapy or gr-iio")
    address: str = Field("", description="which: type=b200, driver=lime, ip:192.168.2.1, ...; the only one if empty")
    frequency: Hertz = Field(description="of the carrier", json_schema_extra=LIVE)
    sample_rate: Hertz = Field(1e6, description="samples a second, both ways")
    clock_source: str = Field("internal", description="reference of the oscillators: internal, external, gpsdo, ...")
    time_source: str = Field("internal", description="of the time: internal, external, gpsdo, ...")
    python: str = Field("/usr/bin/python3", description="the Python that GNU Radio is installed for")
    wait: Annotated[Seconds, Field(gt=0)] = Field(30.0, description="longest time that the radio may stand still")

    @model_validator(mode="after")
    def _possible(self) -> _RadioParams:
        for name, (low, high) in LIMITS[self.driver]._asdict().items():
            value = getattr(self, name, None)
            if value is not None and not low <= value <= high:
                unit = "dB" if name.endswith("gain") else "Hz"
                raise ValueError(
                    f"must have a {name} within {low:g} to {high:g} {unit} on {self.driver}, not {value:g}"
                )
        if self.driver == "pluto" and {self.clock_source, self.time_source} != {"internal"}:
            raise ValueError("must have internal as clock_source and time_source on a pluto, which has no others")
        return self


class _TransmitterParams(_RadioParams):
    """What sending needs."""

    transmit_gain: Decibel | None = Field(
        None,
        description="of the transmitter, by default the device's least; a Pluto's is from -89.75 dB to 0 dB",
        json_schema_extra=LIVE,
    )
    transmit_antenna: str = Field("", description="its name on the device: TX/RX, BAND1, ...")
    full_scale: float = Field(2.0, gt=0, description="amplitude of the samples that is the transmitter's greatest")
    transmit: bool = Field(False, description="allow to transmit: see that you may, and into what, before you do")


class _Radio(Block):
    """A process of GNU Radio that holds a device, and what it tells of that."""

    def start(self) -> None:
        self.count = 0  # samples that passed
        self.host = Host(self.params.python, self.params.wait, self.checkpoint)
        self.opened = False
        self.told: set[str] = set()  # kinds of losses that were warned of
        self.told_at = 0.0

    def open(self, receives: bool, transmit_from: str | None) -> None:
        """Open the device; `transmit_from` as `Host.open` takes it. Raises `BlockError` where that cannot be."""
        p = self.params
        if transmit_from is not None and not p.transmit:
            raise BlockError("must have transmit: true to send anything; docs/radio.md tells what to see to first")
        self.host.start()
        order = p.model_dump(exclude={"transmit", "transmit_from", "duration", "items", "python", "wait"})
        try:
            self.host.open(order, transmit_from, receives)
        except BlockError as error:
            which = f"the {p.driver} {p.address!r}" if p.address else f"a {p.driver}"
            raise BlockError(f"cannot open {which}: {error}; `devices` lists what is attached") from None
        self.opened = True

    def changed(self, name: str) -> None:
        """Have the device take another frequency or gain; samples that are under way are still of the one before."""
        self.host.turn({name: getattr(self.params, name)})

    def tell(self) -> None:
        """Report what has passed and what came too late; warn of the first of each kind as it happens."""
        late = {"overruns": self.host.late["O"], "underruns": self.host.late["U"]}
        for kind in late:
            if late[kind] and kind not in self.told:
                self.told.add(kind)
                self.warn(f"the radio has {LATE[kind]}")
        self.told_at = time.monotonic()
        self.report("link", **late)
        self.report("gnuradio", None, **{self.name: {"version": self.host.version, "samples": self.count, **late}})

    def passed(self, count: int) -> None:
        """Count samples, and tell of them now and then."""
        self.count += count
        if time.monotonic() > self.told_at + REPORT_EVERY_S:
            self.tell()

    def stop(self) -> None:
        self.host.stop()
        if self.opened:
            self.tell()


class GnuradioRadio(_Radio):
    """Receive samples by a radio, and transmit those of a `gnuradio_sink`, through GNU Radio's drivers.

    A process of GNU Radio, which this block starts and ends, holds the device: it puts out what it receives, and with
    `transmit: true` sends what the `gnuradio_sink` at the endpoint `transmit_from` hands it. The stream is one frame,
    tagged `sample_rate` at its start and `center_frequency` there and where it is turned, and ends by `duration` or
    `items`.

    Samples that the computer took too late (overruns) or gave too late (underruns) are counted as the drivers tell of
    them, warned of as they first happen, and in the report's `link`. Raises `BlockError` where there is no GNU Radio,
    no such device, or one that cannot do what is asked for.
    """

    class Params(_TransmitterParams):
        receive_gain: Decibel = Field(20.0, description="of the receiver", json_schema_extra=LIVE)
        receive_antenna: str = Field("", description="its name on the device: RX2, LNAW, ...")
        transmit_from: str | None = Field(None, description="endpoint of the gnuradio_sink whose samples are sent")
        duration: Annotated[Seconds, Field(gt=0)] | None = Field(None, description="the stream ends after so long")
        items: int | None = Field(None, ge=1, description="the stream ends after so many samples")

        @model_validator(mode="after")
        def _local(self) -> GnuradioRadio.Params:
            if self.transmit_from is not None:
                PeerParams.model_validate({"endpoint": self.transmit_from})
            return self

    outputs = (Port("samples", "complex64", "received"),)

    def start(self) -> None:
        super().start()
        self.tuned: float | None = None  # what the stream's tags tell
        self.open(True, self.params.transmit_from)

    def produce(self) -> Iterator[Packet]:
        p = self.params  # but for what is live
        self.host.begin()
        began: float | None = None
        for came in self.host.receive():
            now = time.monotonic()
            began = now if began is None and len(came) else began
            over = began is not None and p.duration is not None and now > began + p.duration
            left = len(came) if p.items is None else min(len(came), p.items - self.count)
            over = over or self.count + left == p.items
            if left or over:
                made = Packet(came[:left], 0, self.count, last=over)
                if not self.count:
                    made = made.tagged(sample_rate=p.sample_rate)
                if self.tuned != self.params.frequency:
                    self.tuned = self.params.frequency
                    made = made.tagged(center_frequency=self.tuned)
                self.passed(left)
                yield made
            if over:
                return

    @classmethod
    def devices(cls) -> list[str]:
        host = Host(cls.Params.model_fields["python"].default, 30.0, lambda: None)
        try:
            host.start()
            return host.devices()
        finally:
            host.stop()


class GnuradioTransmitter(_Radio):
    """Transmit samples by a radio that receives nothing, through GNU Radio's drivers.

    A process of GNU Radio, which this block starts and ends, holds the device. The run goes on until the radio has sent
    the last sample. Nothing is sent without `transmit: true`.

    Samples that were given too late (underruns) are counted as the drivers tell of them, warned of as they first
    happen, and in the report's `link`. Raises `BlockError` as `gnuradio_radio` does.
    """

    Params = _TransmitterParams
    inputs = (Port("samples", "complex64", "to be sent"),)

    def start(self) -> None:
        super().start()
        self.open(False, "")

    def work(self, samples: Packet) -> None:
        if not self.count:
            self.host.begin()
        self.host.give(samples.data)
        self.passed(samples.count)

    def flush(self) -> None:
        """Wait until what was given has been sent."""
        if self.count:
            self.host.drain(self.count)
