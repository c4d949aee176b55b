"""`burst_modulator` and `burst_demodulator`: frames of bits as bursts of samples that cross a radio, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from blocks.fec import convolutional
from blocks.phy.constellation import Standard, constellation
from blocks.phy.qam import NoiseEstimator, decide, llr
from blocks.sdr import burst, pulse
from blocks.sdr.assembler import Assembler, Means, told
from blocks.sdr.burst import CHECK_BITS, KNOWN, Code, Header
from blocks.sdr.receiver import Burst, Receiver
from flowgraph.block import Block, BlockError, Packet, Port
from flowgraph.block import Params as BlockParams
from flowgraph.units import BitCount, Hertz

SURE = 20  # quarters: the LLR that a decoded bit is taken for


class _WaveformParams(BlockParams):
    """The pulses, of which both ends must be told the same."""

    samples_per_symbol: Literal[2, 4, 8] = Field(2, description="samples a symbol")
    rolloff: float = Field(0.25, ge=0.05, le=1, description="of the root-raised-cosine pulses")


# Transmitter


class BurstModulator(Block):
    """Send frames of bits as bursts of samples, each a packet with preamble, header, CRC and pilots.

    Frames are cut into packets; what a receiver must know of a packet stands in its header (`docs/waveform.md`).
    Samples are one stream without end, frame 0: bursts with silence behind each. Symbols have unit energy, so that
    white noise of power N0 a sample is N0 a symbol behind the receiver's filter. The stream begins with the tag
    `link_rate`, payload bits over all bits that the symbols of a full packet could carry, by which a channel with
    `ebn0` counts; shorter packets cost more. The tag `burst` at a burst's first sample tells its frame, its sequence
    number and its count of samples. Raises `BlockError` for a frame of 2^28 bits or more.
    """

    class Params(_WaveformParams):
        modulation: Standard = Field("16qam", description="of the payload; headers are QPSK")
        code: Code = Field("none", description="rate of the K = 7 convolutional code of the payload")
        packet: Annotated[BitCount, Field(ge=8, le=65528, multiple_of=8)] = Field(
            16384, description="payload bits of a packet; a frame's last one may have fewer"
        )
        gap: int = Field(64, ge=24, le=1 << 20, description="symbols of silence behind every burst")
        tail: int = Field(256, ge=0, le=1 << 20, description="symbols of silence at the end, for what comes late")

    inputs = (Port("bits", "bits", "frames to send", whole=True),)
    outputs = (Port("samples", "complex64", "bursts and silence"),)

    def start(self) -> None:
        self.sequence = self.sent = 0
        pulse.shape(np.zeros(1, np.complex64), 2, self.params.rolloff)  # compiles before the graph runs

    def work(self, bits: Packet) -> Iterator[Packet]:
        p = self.params
        if bits.count > burst.LONGEST_FRAME:
            raise BlockError(f"a frame must have at most {burst.LONGEST_FRAME} bits, not {bits.count}")
        for offset in range(0, max(bits.count, 1), p.packet):
            count = min(p.packet, bits.count - offset)
            header = Header(p.modulation, p.code, bits.frame & 0xFFFF, self.sequence, bits.count, offset, count)
            self.sequence = (self.sequence + 1) & 0xFFFF
            payload = bits.data[offset // 8 : -(-(offset + count) // 8)]
            samples = self._samples(header, payload)
            code_rate = bits.tag("code_rate") if offset == 0 else None
            yield samples if code_rate is None else samples.tagged(code_rate=code_rate)

    def _samples(self, header: Header, payload: np.ndarray) -> Packet:
        p = self.params
        parts = [burst.PREAMBLE, burst.header_symbols(header), burst.body_symbols(payload, header)]
        samples = pulse.shape(np.concatenate(parts), p.samples_per_symbol, p.rolloff)
        told = {"frame": header.frame, "sequence": header.sequence, "count": len(samples)}
        silence = np.zeros(p.gap * p.samples_per_symbol, np.complex64)
        return self._packet(np.concatenate([samples, silence])).tagged(burst=told)

    def _packet(self, samples: np.ndarray, last: bool = False) -> Packet:
        p, made = self.params, Packet(samples, 0, self.sent, last=last)
        if self.sent == 0:
            bits_per_symbol = constellation(p.modulation).bits_per_symbol
            symbols = Header(p.modulation, p.code, 0, 0, p.packet, 0, p.packet).symbols
            rate = p.packet / (symbols * bits_per_symbol)
            made = made.tagged(bits_per_symbol=bits_per_symbol, modulation=p.modulation, link_rate=rate)
        self.sent = made.end
        return made

    def flush(self) -> Packet:
        """End the stream with silence."""
        silence = np.zeros(self.params.tail * self.params.samples_per_symbol, np.complex64)
        return self._packet(silence, last=True)


# Receiver


class BurstDemodulator(Block):
    """Find the bursts of `burst_modulator` in samples without end, and deliver the frames that they carry.

    Finds and corrects gain, carrier, delay, clock, phase and multipath, of each burst by itself (`docs/waveform.md`);
    order and code are those that its header tells. Packets whose CRC fails are delivered as they came, for a caption or
    latent survives some wrong bits, or erased, as `damaged` says.

    What is missing of a frame is 0 and tagged `erased`, to the frame's full length, once a later packet has come or the
    stream ends. Of a frame of which nothing came an empty one is delivered; frames before the first that was heard are
    not known of. Numbers rise on if the transmitter begins anew.

    Packets begin with the tag `estimate`: n0 and esn0_db of the symbols behind the equaliser, ber (0 where the CRC
    fits), evm (both by the next points), gain_db, carrier_offset (Hz), clock_offset (ppm), sample (where the burst
    begins), sequence, source. Frames end with their means. The report has `packets_found`, `packets_lost`,
    `packets_crc_failed`, `headers_failed` (what looked like a preamble), and means over all packets.
    """

    class Params(_WaveformParams):
        output: Literal["hard", "llr", "llr8"] = Field("hard", description="decisions, float32 LLRs or int8 LLRs")
        damaged: Literal["deliver", "erase"] = Field("deliver", description="what becomes of packets whose CRC fails")
        sample_rate: Annotated[Hertz, Field(gt=0)] | None = Field(
            None, description="to tell Hz by: by default what the tag `sample_rate` tells, or 1 MHz of symbols"
        )

    inputs = (Port("samples", "complex64", "from the radio"),)
    outputs = (
        Port(
            "bits",
            ("bits", "float32", "int8"),
            "decisions or LLRs",
            chosen=lambda p: {"hard": "bits", "llr": "float32", "llr8": "int8"}[p.output],
        ),
        Port("symbols", "complex64", "data symbols of all bursts, equalised"),
    )

    def start(self) -> None:
        p = self.params
        self.receiver = Receiver(p.samples_per_symbol, p.rolloff)
        self.frames = Assembler({"hard": "bits", "llr": "float32", "llr8": "int8"}[p.output])
        self.totals = Means()  # over all packets
        self.symbol_rate = p.sample_rate / p.samples_per_symbol if p.sample_rate else 1e6
        self.heard = (0, 0)  # frame and end of the samples that came
        self.origin = 0  # sample that the receiver counts from
        self.channels: list[tuple[int, Any]] = []  # simulated channels, and from which sample on
        self.found = self.failed = self.symbols = 0
        self.strange = False

    def work(self, samples: Packet) -> Iterator[dict[str, Packet]]:
        if (samples.frame, samples.offset) != self.heard:  # another recording, or samples are missing
            yield from self._delivered(self.receiver.end())
            self.origin = samples.offset
        self.heard = samples.frame, samples.end
        rate = samples.tag("sample_rate")
        if self.params.sample_rate is None and isinstance(rate, float | int) and rate > 0:
            self.symbol_rate = rate / self.params.samples_per_symbol
        self.channels += [(tag.offset, tag.value) for tag in samples.tags if tag.key == "true_channel"]
        yield from self._delivered(self.receiver.push(self._finite(samples.data)))

    def _finite(self, x: np.ndarray) -> np.ndarray:
        from blocks.phy import _symbols

        if not _symbols.count_not_finite(x.view(np.float32)):
            return x
        if not self.strange:
            self.strange = True
            self.warn("samples that are NaN or infinite came in; they are taken for silence")
        return np.where(np.isfinite(x), x, np.complex64(0))

    def _delivered(self, bursts: Iterator[Burst]) -> Iterator[dict[str, Packet]]:
        for came in bursts:
            for packet in self.frames.turn_to(came.header):
                yield {"bits": packet}
            if came.symbols is None:  # the stream ended within the burst
                self.frames.lost += 1
            else:
                yield from self._taken(came, came.symbols)

    def _taken(self, came: Burst, symbols: np.ndarray) -> Iterator[dict[str, Packet]]:
        header = came.header
        n0, ber, squared_error = _noise(symbols, header, came.n0)
        data, fits = _payload(symbols, header, n0, self.params.output)
        figures = {
            "n0": n0,
            "squared_error": squared_error,
            "power": came.gain**2,
            "carrier_offset": came.carrier_offset * self.symbol_rate,
            "clock_offset": came.clock_offset * 1e6,
            **_error_rates(header, ber, fits),
        }
        self.found += 1
        self.failed += not fits
        self.totals.add(figures, max(header.count, 1))
        yield {"symbols": Packet(symbols, 0, self.symbols)}
        self.symbols += len(symbols)
        if fits or self.params.damaged == "deliver":
            place = self.origin + came.place
            tags = {"estimate": told(figures) | {"sample": place, "sequence": header.sequence}}
            if (channel := self._channel(place)) is not None:
                tags["true_channel"] = channel | {"coded": True} if header.code != "none" else channel
            for packet in self.frames.add(data, figures, tags):
                yield {"bits": packet}

    def _channel(self, place: float) -> dict[str, Any] | None:
        """Return what a simulated channel told of itself for a sample, None where none did."""
        while len(self.channels) > 1 and self.channels[1][0] <= place + 1:
            del self.channels[0]
        return self.channels[0][1] if self.channels else None

    def flush(self) -> Iterator[dict[str, Packet]]:
        """Hand out what is left of the samples, and end the frame."""
        yield from self._delivered(self.receiver.end())
        for packet in self.frames.end():
            yield {"bits": packet}
        yield {"symbols": Packet(np.empty(0, np.complex64), 0, self.symbols, last=True)}

    def stop(self) -> None:
        counts = {"packets_found": self.found, "packets_lost": self.frames.lost, "packets_crc_failed": self.failed}
        self.report("link", **counts, headers_failed=self.receiver.headers_failed)
        if self.found:
            means = self.totals.told()
            self.report(
                "link",
                snr_measured_db=means["esn0_db"],
                evm_rms=means["evm"],
                gain_db=means["gain_db"],
                carrier_offset_hz=means["carrier_offset"],
                clock_offset_ppm=means["clock_offset"],
            )


def _noise(symbols: np.ndarray, header: Header, n0: float) -> tuple[float, float, float]:
    """Return N0 by a body, or by what comes before it (`n0`) if that is longer, its error rate, and the squared error.

    That is the mean squared distance to the next point.
    """
    estimator = NoiseEstimator(constellation(header.modulation))
    estimator.add(symbols, 0)
    n0 = estimator.n0 if estimator.parts > 2 * KNOWN else n0
    ber = float(np.interp(math.log10(n0), estimator.log_n0, estimator.ber))
    return n0, ber, estimator.mean_error


def _payload(symbols: np.ndarray, header: Header, n0: float, output: str) -> tuple[np.ndarray, bool]:
    """Return the bits of a body, packed, or their LLRs, and whether the CRC fits."""
    count, whole = header.count, header.count + CHECK_BITS
    soft = None
    if header.code == "none" and output == "hard":
        body = decide(symbols, header.modulation)
        body ^= burst.scrambling()[: len(body)]
    else:
        int8 = header.code != "none" or output == "llr8"
        llrs = burst.descrambled(llr(symbols, n0, header.modulation, int8=int8))[: burst.coded_bits(count, header.code)]
        if header.code == "none":
            body, soft = np.packbits(llrs < 0), llrs[:count]
        else:
            body = convolutional.decode(llrs, whole, header.code)
    bits = np.unpackbits(body, count=whole)
    packed = np.packbits(bits[:count])
    fits = burst.payload_check(packed, count) == int.from_bytes(np.packbits(bits[count:]).tobytes(), "big")
    if output == "hard":
        return packed, fits
    if soft is None:  # of what was decoded, decisions are left
        soft = SURE - 2 * SURE * bits[:count].view(np.int8)
        soft = soft if output == "llr8" else soft / np.float32(4)
    return soft, fits


def _error_rates(header: Header, ber: float, fits: bool) -> dict[str, float]:
    """Return the bit error rate of what is delivered, as expected, and behind a decoder that of the channel (`ber`)."""
    if header.code == "none":
        return {"ber": 0.0 if fits else ber}
    esn0 = NormalDist().inv_cdf(min(max(1 - ber, 0.5), 1 - 1e-12)) ** 2 / 2
    return {"ber": 0.0 if fits else convolutional.error_rate(esn0, header.code), "channel_ber": ber}
