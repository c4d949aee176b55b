"""Hybrid digital-analog frames: header and caption in coded bits, then the latent, in coded bits or as amplitudes.

A frame is what its header says (`blocks.framing.frame`): no other preamble goes before it. Header and caption, which
the serialiser codes, are mapped as they are; a quantised latent goes by the code and modulation that its format has in
a profile; an analog one two values a symbol, which is the best that any code can do for Gaussian values at as many
channel uses (T. J. Goblick, "Theoretical limitations on the transmission of data from analog sources", 1965).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from blocks.fec.coders import CERTAIN
from blocks.fec.stretch import SLACK, Coder, Received, Scheme, behind, cut
from blocks.framing import golay
from blocks.framing.frame import HEADER_BITS, FrameError, Header
from blocks.framing.latents import FORMATS
from blocks.framing.scrambler import scrambling
from blocks.phy.constellation import Modulation, constellation
from blocks.phy.qam import llr, map_symbols
from blocks.phy.theory import ratio_to_db
from flowgraph.block import ERASED, Block, BlockError, Packet, Port, Tag
from flowgraph.block import Params as BlockParams

SCALE_BITS = golay.coded_length(golay.MESSAGE)  # that tell an analog latent's root mean square
STEPS, MIDDLE = 128, 2048  # of that figure in an octave, and the one that stands for 1
LARGEST = 2.0**13  # value of an analog latent, which that figure can tell the size of


def scale_code(values: np.ndarray) -> int:
    """Return the root mean square of values as round(128 log2 rms) + 2048: 12 bits, in steps of 0.05 dB.

    Raises `ValueError` for values that are NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ValueError("values must be finite")
    rms = math.sqrt(float(np.mean(values.astype(np.float64) ** 2))) if values.size else 1.0
    return min(max(round(STEPS * math.log2(max(rms, 2**-16))) + MIDDLE, 0), (1 << golay.MESSAGE) - 1)


def scale(code: int) -> float:
    """Return the root mean square that a code stands for.

    >>> scale(scale_code(np.ones(4)))
    1.0
    """
    return float(2 ** ((code - MIDDLE) / STEPS))


def to_symbols(values: np.ndarray, rms: float) -> np.ndarray:
    """Return (z_2k + j z_2k+1) / (sqrt(2) rms), complex64, of mean power 1; an odd last value is real.

    >>> to_symbols(np.array([1, 1, 1, -1, 1], np.float32), 1.0).round(2)
    array([0.71+0.71j, 0.71-0.71j, 0.71+0.j  ], dtype=complex64)
    """
    pairs = np.zeros(values.size + values.size % 2, np.float32)
    pairs[: values.size] = values / np.float32(2**0.5 * rms)
    return pairs.view(np.complex64)


def estimate_values(y: np.ndarray, rms: float, snr: np.ndarray, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return posterior means of N(0, `power`) values in symbols y of `to_symbols`, and their variances.

    With s = y - n, E|s|^2 = 1, E|n|^2 = 1/`snr`, a value of power q comes with noise of variance v = rms^2 / snr:

        E[z | y] = sqrt(2) rms Re or Im y q / (q + v),    Var[z | y] = q v / (q + v),

    the linear minimum mean squared error, 1/(1 + snr) at q = rms = 1 (S. M. Kay, "Fundamentals of Statistical Signal
    Processing: Estimation Theory", 1993, 10.6). Values of snr 0 are 0, of variance q.
    """
    snr = np.repeat(snr, 2)[: power.size]
    trust = snr * power / (snr * power + rms**2)
    z = np.where(snr > 0, y.view(np.float32)[: power.size], 0) * (2**0.5 * rms * trust)
    return z, power * (1 - trust)


def spectrum(shape: tuple[int, ...]) -> np.ndarray:
    """Return the power that a photograph's latent has in its cosine transform: float64 [channels, height, width].

    Of k and l half periods across the picture, proportional to 1 / (1 + k^2 + l^2) + 1/256, with a mean of 1: fitted to
    100 training photographs through the embedded autoencoder. Power that falls with the square of frequency is that of
    photographs themselves (D. J. Field, 1987).
    """
    channels, height, width = shape
    down, across = np.ogrid[:height, :width]
    power = 1 / (1 + down**2 + across**2) + 1 / 256
    return np.broadcast_to(power / power.mean(), (channels, height, width))


def to_spectrum(values: np.ndarray) -> np.ndarray:
    """Return C / sqrt(q), the weighted cosine transform of a latent [channels, height, width], for C of power q^2.

    Of all weights that cost as much power, noise does least harm with these (K.-H. Lee and D. P. Petersen, "Optimal
    linear coding for vector channels", 1976; for pictures S. Jakubczak and D. Katabi, "A cross-layer design for
    scalable mobile video", 2011).
    """
    from scipy.fft import dctn

    return dctn(values, axes=(1, 2), norm="ortho") * spectrum(values.shape) ** -0.25


def from_spectrum(weighted: np.ndarray) -> np.ndarray:
    """Undo `to_spectrum`.

    >>> z = np.arange(12.0).reshape(1, 3, 4)
    >>> bool(np.allclose(from_spectrum(to_spectrum(z)), z))
    True
    """
    from scipy.fft import idctn

    return idctn(weighted * spectrum(weighted.shape) ** 0.25, axes=(1, 2), norm="ortho")


class _Params(BlockParams):
    """How a frame is sent, of which both ends must be told the same."""

    modulation: Modulation = Field("qpsk", description="of header and caption, which are coded at rate 1/6")
    profile: dict[str, Scheme] = Field(
        {}, description="code, rate and modulation of a latent by its format, such as quant4"
    )
    repeats: int = Field(1, ge=1, le=64, description="how often an analog latent is sent")
    transform: Literal["none", "dct"] = Field(
        "none", description="what an analog latent goes as: its values, or its cosine transform, weighted"
    )

    @field_validator("profile")
    @classmethod
    def _formats(cls, profile: dict[str, Scheme]) -> dict[str, Scheme]:
        digital = [form for form in FORMATS if form != "analog"]
        for form in profile:
            if form not in digital:
                raise ValueError(f"must have formats out of {', '.join(digital)}, not {form!r}")
        return profile

    def symbols(self, bits: int) -> int:
        """Symbols that so many bits of header and caption are sent as."""
        return -(-bits // constellation(self.modulation).bits_per_symbol)


class _Hybrid(Block):
    """What both ends share: coders, and how long a frame is."""

    decoder: bool

    def start(self) -> None:
        self.coders = self._coders(self.decoder)
        map_symbols(np.zeros(0, np.uint8), 0, self.params.modulation)  # compiles before the graph runs

    def stop(self) -> None:
        for coder in self.coders.values():
            coder.block.stop()

    def _coders(self, decoder: bool) -> dict[str, Coder]:
        profile = self.params.profile
        return {form: Coder(scheme, decoder, self.context, output="llr8") for form, scheme in profile.items()}

    def _lengths(self, header: Header) -> tuple[int, int]:
        """Return the symbols of header and caption, and those of the latent. Raises `FrameError`."""
        first = self.params.symbols(header.latent_start)
        if header.latent == "analog":
            return first, self.params.symbols(SCALE_BITS) + self.params.repeats * -(-header.values // 2)
        if not header.latent:
            return first, 0
        if header.latent not in self.coders:
            raise FrameError(
                f"latent of format {header.latent}, for which profile has no entry: add one, as in profile: "
                f"{{{header.latent}: {{code: ldpc, rate: 1/2, modulation: qpsk}}}}, or send latent: analog"
            )
        return first, self.coders[header.latent].symbols(header.latent_bits)


class HybridModulator(_Hybrid):
    """Send frames of a `bit_serializer`: header and caption, then the latent in coded bits, or as amplitudes.

    An analog latent (`latent: analog` at the serialiser) comes beside its frame's bits, from the encoder. Behind its
    root mean square r, a word of the header's code, go symbols (z_1 + j z_2) / (sqrt(2) r), of unit mean power, the
    whole `repeats` times over; with `transform: dct`, z are its weighted spectrum (`to_spectrum`). Other latents are
    bits, coded and mapped by `profile`.

    As amplitudes carry no bits, a hybrid frame has no Eb/N0: a channel takes `esn0`. The payload's `symbols_per_image`
    and `cbr` are those of the frames with a latent so far.
    """

    Params = _Params
    decoder = False
    inputs = (
        Port("bits", "bits", "frames of a bit_serializer", whole=True),
        Port("latent", "float32", "those that go analog", (None, None, None), whole=True, optional=True),
    )
    outputs = (Port("symbols", "complex64", "Es = 1"),)

    def start(self) -> None:
        super().start()
        self.images = self.uses = self.pixel_values = 0

    def work(self, bits: Packet | None, latent: Packet | None = None) -> Packet | None:
        if bits is None:
            return None
        try:
            header = Header.unpack(_signs(bits.data[: HEADER_BITS // 8] ^ scrambling(0, HEADER_BITS // 8)))
            self._lengths(header)
        except (FrameError, ValueError) as error:
            raise BlockError(f"frame {bits.frame} cannot be sent: {error}") from None
        begin, end = header.latent_start, bits.count
        modulation = self.params.modulation
        parts = [map_symbols(bits.data[: begin // 8], begin, modulation)]
        if header.latent == "analog":
            parts += self._analog(header, bits.frame, latent)
        elif header.latent_bits:
            assert header.latent
            coder = self.coders[header.latent]
            payload = np.unpackbits(bits.data, count=end)[begin:]
            coded = coder.work(cut(bits, bits.erased(), np.packbits(payload), begin, end), end - begin)
            parts.append(map_symbols(coded.data, coded.count, coder.scheme.modulation))
        symbols = np.concatenate(parts)
        self._report(bits, len(symbols))
        kept = [tag for tag in bits.tags if tag.key in ("code_rate", "pixel_values")]
        return Packet(symbols, bits.frame, tags=(*kept, Tag(0, "bits_per_symbol", None)), last=True)

    def _analog(self, header: Header, frame: int, latent: Packet | None) -> list[np.ndarray]:
        if latent is None or latent.data.shape[1:] != header.shape:
            raise BlockError(f"frame {frame} has an analog latent: wire the one that its serialiser got to latent, too")
        values = np.nan_to_num(latent.data[0], nan=0, posinf=0, neginf=0).clip(-LARGEST, LARGEST)
        if self.params.transform == "dct":
            values = to_spectrum(values)
        code = scale_code(values)
        told = golay.encode((code >> np.arange(golay.MESSAGE - 1, -1, -1) & 1).astype(np.uint8))
        symbols = to_symbols(values.ravel(), scale(code))
        return [
            map_symbols(np.packbits(told), told.size, self.params.modulation),
            np.tile(symbols, self.params.repeats),
        ]

    def _report(self, bits: Packet, uses: int) -> None:
        values = bits.tag("pixel_values")
        if not values:
            return
        self.images += 1
        self.uses += uses
        self.pixel_values += values
        self.report("payload", symbols_per_image=self.uses / self.images, cbr=self.uses / self.pixel_values)


class HybridDemodulator(_Hybrid):
    """Undo `hybrid_modulator`: read the header, then demap and decode what it tells of.

    The noise N0 is the mean squared distance of the header's symbols to what was evidently sent. With `gains` the
    symbols are taken as equalised by them (y / h), and where a channel estimator told its `estimate`, that is taken.
    Repeats of an analog latent tell more of N0 by how they differ, and coded bits, once every block came right.

    `bits` are int8 LLRs. `latent` has the analog latents as posterior means, the linear estimate of least mean squared
    error, with the tags `noise_variance` and `noise_source` of a `bit_deserializer`, which hands them on; a frame
    without one gives an empty packet. What did not come is 0, of variance 1. `esn0` is the estimate in dB of each
    frame, all that is known of its noise at its end, for a transmitter that adapts: NaN where the header, and with it
    the frame, is lost (`headers_wrong` in the report).
    """

    Params = _Params
    decoder = True
    inputs = (
        Port("symbols", "complex64", "Es = 1, equalised", whole=True),
        Port("gains", "complex64", "channel gains that were equalised", optional=True),
    )
    outputs = (
        Port("bits", "int8", "LLRs in quarters"),
        Port("latent", "float32", "analog latents", (None, None, None)),
        Port("esn0", "float32", "estimate, one a frame", unit="dB"),
    )
    equal_rates = ("symbols", "gains")

    def start(self) -> None:
        super().start()
        llr(np.zeros(1, np.complex64), 1.0, self.params.modulation, int8=True)  # compiles before the graph runs
        self.encoders = self._coders(decoder=False)
        self.headers_wrong = 0

    def work(self, symbols: Packet | None, gains: Packet | None = None) -> dict[str, Packet] | None:
        if symbols is None:
            return None
        frame, number = Received(symbols, gains), symbols.frame
        dropped = ERASED, "estimate", "bits_per_symbol"
        kept = tuple(behind(tag._replace(offset=0)) for tag in symbols.tags if tag.key not in dropped)
        latent = Packet(np.empty((0, 0, 0, 0), np.float32), number, last=True)
        bits, esn0 = Packet(np.empty(0, np.int8), number, tags=kept, last=True), math.nan
        try:
            header = self._read_header(frame)
        except (FrameError, ValueError) as error:
            self.headers_wrong += 1
            self.warn(f"frame {number} is lost: {error}")
            latent = latent.tagged(status="lost", reason=str(error))
        else:
            at, length = self._lengths(header)
            bits = self._bits(frame, header, kept)
            analog = header.latent == "analog"
            latent = self._latent(frame, header, at, at + length) if analog else latent.tagged(status="absent")
            esn0 = -ratio_to_db(frame.n0)
        told = Packet(np.array([esn0], np.float32), number, last=True)
        return {"bits": bits, "latent": latent, "esn0": told}

    def _read_header(self, frame: Received) -> Header:
        """Return the header; the frame learns its noise, and gets its full length. Raises `FrameError`."""
        modulation, size = self.params.modulation, self.params.symbols(HEADER_BITS)
        whole = HEADER_BITS // constellation(modulation).bits_per_symbol  # symbols of header bits alone
        if frame.count < size:
            raise FrameError("header cut short")
        signs = _signs(scrambling(0, HEADER_BITS // 8))
        header = Header.unpack(frame.soft(0, size, modulation)[:HEADER_BITS] * signs)
        length = sum(self._lengths(header))
        if length > 2 * frame.count + SLACK:
            raise FrameError(f"{frame.count} symbols came where the header tells of {length}")
        sent = np.packbits(header.pack()) ^ scrambling(0, HEADER_BITS // 8)
        frame.source = "header"
        frame.learn_noise(map_symbols(sent, HEADER_BITS, modulation)[:whole])
        frame.extend(length)
        return header

    def _bits(self, frame: Received, header: Header, kept: tuple[Tag, ...]) -> Packet:
        """Return the LLRs of a frame's bits."""
        p, begin = self.params, header.latent_start
        at = p.symbols(begin)
        llrs = llr(frame.y[:at], frame.n0, p.modulation, frame.part(0, at), int8=True)[:begin]
        gone = np.repeat(frame.gone[:at], constellation(p.modulation).bits_per_symbol)[:begin]
        tags: tuple[Tag, ...] = ()
        if header.latent_bits:
            assert header.latent
            piece = self.coders[header.latent].receive(frame, at, header.latent_bits)
            missing = piece.erased()
            gone = np.concatenate([gone, np.zeros(piece.count, np.bool_) if missing is None else missing])
            llrs = np.concatenate([llrs, piece.data])
            if (np.abs(piece.data) == CERTAIN).all():
                self._learn_noise(frame, at, piece, self.encoders[header.latent])
            tags = tuple(tag._replace(offset=begin + tag.offset) for tag in piece.tags if tag.key == "estimate")
        made = Packet(llrs, frame.symbols.frame, tags=(*kept, *tags), last=True)
        return made.with_erased(gone if gone.any() else None)

    def _learn_noise(self, frame: Received, at: int, piece: Packet, encoder: Coder) -> None:
        """Take N0 from a stretch of coded symbols, too, of which every bit is known."""
        bits = Packet(np.packbits(piece.data < 0), piece.frame, 0, piece.count, packed=True, last=True)
        coded = encoder.work(bits, bits.count)
        frame.learn_noise(map_symbols(coded.data, coded.count, encoder.scheme.modulation), at)

    def _latent(self, frame: Received, header: Header, begin: int, end: int) -> Packet:
        """Return the analog latent that symbols `begin` to `end` are."""
        p, number = self.params, frame.symbols.frame
        at = begin + p.symbols(SCALE_BITS)
        word = golay.decode(frame.soft(begin, at, p.modulation)[:SCALE_BITS])
        rms = scale(int(word @ (1 << np.arange(golay.MESSAGE - 1, -1, -1))))
        y = frame.y[at:end].astype(np.complex128)
        h = frame.part(at, end)
        power = np.ones(len(y)) if h is None else np.abs(h.astype(np.complex128)) ** 2
        usable = ~frame.gone[at:end] & np.isfinite(y) & np.isfinite(power)
        power = np.where(usable, power, 0).reshape(p.repeats, -1)
        together = power.sum(0)
        y = np.where(usable, y, 0).reshape(p.repeats, -1)
        combined = (power * y).sum(0) / np.where(together, together, 1)
        spread = float((power * np.abs(y - combined) ** 2).sum())
        frame.add_noise(spread, int(np.count_nonzero(power) - np.count_nonzero(together)))
        dct = p.transform == "dct"
        power = spectrum(header.shape) ** 0.5 if dct else np.ones(header.shape)
        z, variances = estimate_values(combined.astype(np.complex64), rms, together / frame.n0, power.ravel())
        z, variance = z.reshape(header.shape), float((power.ravel() * variances).mean())
        made = Packet((from_spectrum(z) if dct else z).astype(np.float32)[None], number, last=True)
        lost = np.count_nonzero(together == 0)
        facts = (
            {"status": "damaged", "reason": f"{lost} symbols of the latent did not come"} if lost else {"status": "ok"}
        )
        return made.tagged(**facts, noise_variance=variance, noise_source="posterior")

    def stop(self) -> None:
        super().stop()
        self.report("link", headers_wrong=self.headers_wrong)


def _signs(packed: np.ndarray) -> np.ndarray:
    """Return packed bits as +1 (for 0) and -1, float32."""
    return 1 - 2 * np.unpackbits(packed).astype(np.float32)
