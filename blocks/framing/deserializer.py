"""`bit_deserializer`: received bits in, captions and latents out, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from pydantic import Field

from blocks.framing import calibration, entropy, golay, latents
from blocks.framing.frame import HEADER_BITS, FrameError, Header
from blocks.framing.scrambler import scrambling
from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams

LARGEST_LLR = 1e4  # larger ones, and infinities, are taken for this
SUREST = 1e-6  # no bit is trusted further than to this error rate
_NONE = np.empty((0, 0, 0, 0), np.float32)  # no latent
SLACK = 4096  # bits that a header may always claim beyond twice those that came


class _Received:
    """Bits of a frame as they came, read by stretches that begin on whole bytes; the others are erased."""

    def __init__(self, packet: Packet):
        self.came = self.count = packet.count
        self.llr: np.ndarray | None = None
        if packet.packed:
            self.hard = packet.data
        else:
            scale = 0.25 if packet.data.dtype == np.int8 else 1.0
            llr = np.nan_to_num(packet.data.astype(np.float32) * np.float32(scale), nan=0.0)
            self.llr = np.clip(llr, -LARGEST_LLR, LARGEST_LLR)
            self.hard = np.packbits(self.llr < 0)
        self.erased: np.ndarray | None = None
        self.estimates: list[tuple[int, dict[str, Any]]] = []  # of error rates, and where each begins
        for tag in packet.tags:
            if tag.key == "erased" and isinstance(tag.value, int) and tag.value > 0:
                self._erase(tag.offset, tag.offset + tag.value)
            elif tag.key == "estimate" and isinstance(tag.value, dict) and _is_rate(tag.value.get("ber")):
                self.estimates.append((tag.offset, tag.value))
        self.arrived = self.count - int(self.lost(0, self.count).sum())

    def _erase(self, begin: int, end: int) -> None:
        if self.erased is None:
            self.erased = np.zeros(self.count, bool)
        self.erased[begin:end] = True

    def extend(self, count: int) -> None:
        """Take what the first `count` bits of a frame have beyond those that came for erased.

        Raises `FrameError` where too few came: a header is believed only as far as bits have come for it.
        """
        if count > 2 * self.came + SLACK:
            raise FrameError(f"{self.came} bits came where the header tells of {count}")
        more = count - self.count
        if more <= 0:
            return
        self.count = count
        self.hard = np.pad(self.hard, (0, -(-count // 8) - len(self.hard)))
        if self.llr is not None:
            self.llr = np.pad(self.llr, (0, more))
        if self.erased is not None:
            self.erased = np.pad(self.erased, (0, more))
        self._erase(count - more, count)

    def estimate(self, place: int) -> dict[str, Any] | None:
        """Return what the link tells of a bit: the last estimate up to it, or else the first one after it."""
        before = [value for offset, value in self.estimates if offset <= place]
        return before[-1] if before else self.estimates[0][1] if self.estimates else None

    def stretches(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Cut a stretch where an estimate begins."""
        inner = {offset for offset, _ in self.estimates if begin < offset < end}
        yield from pairwise([begin, *sorted(inner), end])

    def lost(self, begin: int, end: int) -> np.ndarray:
        """Return which bits of a stretch did not come: bool."""
        return np.zeros(end - begin, bool) if self.erased is None else self.erased[begin:end]

    def decisions(self, begin: int, end: int, scrambled: bool) -> np.ndarray:
        """Return hard decisions on a stretch, packed; erased bits are anything."""
        stop = -(-end // 8)
        data = self.hard[begin // 8 : stop]
        return data ^ scrambling(begin // 8, stop) if scrambled else data

    def soft(self, begin: int, end: int, scrambled: bool) -> np.ndarray:
        """Return a stretch as log-likelihood ratios, or +1 and -1 for hard decisions; 0 is erased."""
        if self.llr is None:
            soft = _signs(self.decisions(begin, end, scrambled), end - begin)
        elif scrambled:
            soft = self.llr[begin:end] * _signs(scrambling(begin // 8, -(-end // 8)), end - begin)
        else:
            soft = self.llr[begin:end].copy()
        soft[self.lost(begin, end)] = 0
        return soft


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _signs(data: np.ndarray, count: int) -> np.ndarray:
    """Return packed bits as +1 (for 0) and -1: float32."""
    return 1 - 2 * np.unpackbits(data, count=count).astype(np.float32)


@dataclass(slots=True)
class _Count:
    """Code bits that were compared with what was evidently sent, and those among them that differed."""

    bits: int = 0
    errors: int = 0

    def add(self, soft: np.ndarray, sent: np.ndarray) -> None:
        self.bits += int(np.count_nonzero(soft))
        self.errors += int(np.count_nonzero(soft * (1 - 2 * sent.astype(np.float32)) < 0))


@dataclass(slots=True)
class _Part:
    """A caption or a latent as it is delivered: status ok, damaged, lost or absent."""

    data: np.ndarray
    status: str
    reason: str = ""
    noise_variance: float | None = None
    noise_source: str | None = None
    variances: np.ndarray | None = None

    def packet(self, frame: int) -> Packet:
        tags = {
            "status": self.status,
            "reason": self.reason or None,
            "noise_variance": self.noise_variance,
            "noise_source": self.noise_source,
        }
        return Packet(self.data, frame, last=True).tagged(**{k: v for k, v in tags.items() if v is not None})


def _no_text(status: str, reason: str = "") -> _Part:
    return _Part(np.empty(0, np.uint8), status, reason)


def _no_latent(status: str, reason: str = "") -> _Part:
    return _Part(_NONE, status, reason)


def _expanded(data: bytes) -> _Part:
    """Return a caption that was entropy-coded."""
    try:
        return _Part(np.frombuffer(entropy.expand(data), np.uint8), "ok")
    except ValueError as error:
        return _no_text("lost", f"caption cannot be expanded: {error}")


def _analog(packet: Packet | None) -> _Part:
    """Return a latent that came beside the bits, as a modem tells of it."""
    if packet is None:
        return _no_latent("lost", "analog latent did not come")
    told = {key: packet.tag(key) for key in ("noise_variance", "noise_source")}
    return _Part(packet.data, packet.tag("status", "ok"), packet.tag("reason", ""), **told)


class BitDeserializer(Block):
    """Turn received frames back into captions and latents, and say how noisy each latent is.

    Takes hard decisions, or log-likelihood ratios log p(0)/p(1) as float32 or as int8 (4 LLR), of which one that is
    NaN counts as 0, an erasure. Every frame gives one packet of `text` and one of `latent`, tagged `status`: ok;
    damaged (a caption whose CRC fails, a latent of which a stretch never came); lost (an empty packet); absent (an
    empty packet: none was sent), with a `reason` where something is wrong.

    Latents are tagged `noise_variance`, the mean squared error to be expected, and `noise_source`:

    posterior  quantised latents, whose values are posterior means E[z | y] (shrunk to variance 1 - D): the mean
               D of Var[z | y]
    table      floats, taken as they came: the error of N(0, 1) values at an error rate, from a table
               (`blocks.framing.calibration`), times the power that the latent evidently had

    The error rate, which a quantiser needs too if decisions are hard, is the first of: the demapper's
    `estimate`; the mean of 1 / (1 + exp |LLR|); errors found in the coded header and caption; where nothing was
    coded, the share of floats that look damaged. Found errors count as (errors + 1/2) / (bits + 50), the mean
    under a beta prior of 1 %. Errors are taken to spread as over 16QAM in the first two cases (the first two
    bits of a symbol err half as often as the last two), evenly in the others and behind a decoder. What was erased
    is 0 and counts with variance 1. `variance` has Var[z | y] of every element of a quantised latent, and an empty
    packet with any other. An analog latent is handed on as it comes beside the bits. What the channel truly
    did is never looked at.
    """

    class Params(BlockParams):
        header: Literal["coded", "side"] = Field(
            "coded", description="found within the frame, or in the tag `side_header` (a genie)"
        )
        repair: int = Field(
            0,
            ge=0,
            le=10,
            description="of a damaged header or caption, words of its code, the least sure ones, of which the next "
            "likeliest is tried until the CRC holds",
        )
        floats: Literal["bounded", "paper"] = Field(
            "bounded",
            description="absurd floats: NaN, infinite and |z| > 10 become 0, the rest is clipped at 4; or, "
            "as in the paper, NaN, infinite, |z| > 10 and |z| < 0.01 become draws of N(0, 1)",
        )

    inputs = (
        Port("bits", ("bits", "float32", "int8"), "received frames", whole=True),
        Port(
            "latent",
            "float32",
            "analog latents, as a hybrid_demodulator hands them out",
            (None, None, None),
            whole=True,
            optional=True,
        ),
    )
    outputs = (
        Port("text", "uint8", "caption, one frame a caption", unit="ASCII"),
        Port("latent", "float32", "scaled latent: channels, height, width", (None, None, None)),
        Port("variance", "float32", "Var[z | y] of every element of a quantised latent", (None, None, None)),
    )

    def work(self, bits: Packet | None, latent: Packet | None = None) -> dict[str, Packet] | None:
        if bits is None:
            return None
        received, count = _Received(bits), _Count()
        try:
            header = self._header(bits, received, count)
            text = self._text(header, received, count)
        except FrameError as error:
            text, values = _no_text("lost", str(error)), _no_latent("lost", str(error))
        else:
            analog = header.latent == "analog"
            if analog and latent is None:
                self.warn(
                    "an analog latent did not come: `latent` takes it from a hybrid_demodulator (links/hybrid.yaml)"
                )
            values = _analog(latent) if analog else self._latent(header, received, count, bits.frame)
        self._report(bits.frame, text, values)
        return {
            "text": text.packet(bits.frame),
            "latent": values.packet(bits.frame),
            "variance": Packet(_NONE if values.variances is None else values.variances, bits.frame, last=True),
        }

    def _header(self, packet: Packet, received: _Received, count: _Count) -> Header:
        side = self.params.header == "side"
        header = Header.from_tag(packet.tag("side_header")) if side else None
        if not received.arrived and (header is None or header.bits):
            raise FrameError("nothing of the frame came")
        if header is None:
            if received.count < HEADER_BITS:
                raise FrameError(f"header cut short: {received.count} bits came")
            soft = received.soft(0, HEADER_BITS, scrambled=True)
            header = Header.unpack(soft, self.params.repair)
            count.add(soft, header.pack())
        return header

    def _text(self, header: Header, received: _Received, count: _Count) -> _Part:
        if not header.text:
            return _no_text("absent")
        begin, end = header.caption_start, header.latent_start
        received.extend(end)
        lost = received.lost(begin, end)
        if lost.size and lost.all():
            return _no_text("lost", "caption did not come")
        soft = received.soft(begin, end, header.scrambled)
        caption, message = header.read_caption(soft, self.params.repair)
        if message is not None:
            if header.coded:
                count.add(soft, golay.encode(message))
            return _expanded(caption) if header.compressed else _Part(np.frombuffer(caption, np.uint8), "ok")
        if header.compressed:
            return _no_text("lost", "caption damaged" if header.checked else "caption has no checksum to trust it by")
        letters = np.frombuffer(caption, np.uint8)
        printable = (letters >= 32) & (letters < 127)
        if header.checked:
            reason = "caption damaged"
        elif lost.any():
            reason = "caption came in part"
        else:
            reason = "" if printable.all() else "caption with unprintable characters"
        return _Part(np.where(printable, letters, ord("?")), "damaged" if reason else "ok", reason)

    def _latent(self, header: Header, received: _Received, count: _Count, frame: int) -> _Part:
        form, begin, end = header.latent, header.latent_start, header.bits
        if form is None:
            return _no_latent("absent")
        try:
            received.extend(end)
        except FrameError as error:
            return _no_latent("lost", str(error))
        length = "" if received.came == end else f"{received.came} bits came where the header tells of {end}"
        lost = received.lost(begin, end)
        if lost.size and lost.all():
            return _no_latent("lost", length or "latent did not come")
        reason = length or (f"{np.count_nonzero(lost)} bits of the latent did not come" if lost.any() else "")
        if latents.is_float(form):
            values, variance = self._floats(header, received, count, frame)
            variances, source = None, "table"
        else:
            llr = received.soft(begin, end, header.scrambled)
            if received.llr is None:
                for a, b in received.stretches(begin, end):
                    p = np.maximum(calibration.rates(*self._error_rate(received, count, a), 4), SUREST)
                    llr[a - begin : b - begin] *= np.log((1 - p) / p)[np.arange(a, b) % 4]
            values, variances = latents.read_quantised(llr, form, header.by_plane)
            variance, source = float(variances.mean(dtype=np.float64)) if variances.size else 0.0, "posterior"
            variances = variances.reshape(1, *header.shape)
        status = "damaged" if reason else "ok"
        return _Part(values.reshape(1, *header.shape), status, reason, variance, source, variances)

    def _floats(self, header: Header, received: _Received, count: _Count, frame: int) -> tuple[np.ndarray, float]:
        """Return a latent's values and its mean squared error."""
        form, policy = header.latent, self.params.floats
        assert form is not None
        begin, end = header.latent_start, header.bits
        raw = latents.read_floats(received.decisions(begin, end, header.scrambled), form)
        # Drawn for every value, used or not: what becomes of a value does not depend on its neighbours.
        noise = np.random.Generator(np.random.Philox(key=[self.key, frame]))
        draws = noise.standard_normal(raw.size if policy == "paper" else 0)
        values = latents.mend(raw, policy, draws)
        gone = received.lost(begin, end).reshape(raw.size, -1).any(1)
        values[gone] = 0
        came = ~gone
        if not came.any():
            return values, 1.0
        ber, spread = self._error_rate(received, count, begin, form, raw[came])
        variance = calibration.mean_squared_error(form, policy, spread, ber)
        expected = calibration.power(form, policy, spread, ber)
        sent_power = float(np.mean(values[came].astype(np.float64) ** 2)) / expected  # of N(0, 1) it would be 1
        return values, float(sent_power * (variance * came.mean() + gone.mean()))

    def _error_rate(
        self, received: _Received, count: _Count, place: int, form: str = "", floats: np.ndarray | None = None
    ) -> tuple[float, str]:
        """Return the bit error rate about a place as far as the receiver can tell, and how the errors are spread."""
        if estimate := received.estimate(place):
            return min(float(estimate["ber"]), 0.5), "equal" if "channel_ber" in estimate else "16qam"
        if received.llr is not None:
            wrong = np.exp(-np.abs(received.llr[: received.came]))
            wrong /= 1 + wrong
            came = ~received.lost(0, received.came)
            return float(wrong[came].mean(dtype=np.float64)), "16qam"
        if count.bits or floats is None or not floats.size:
            return min((count.errors + 0.5) / (count.bits + 50), 0.5), "equal"
        return calibration.error_rate(form, "equal", float(latents.implausible(floats).mean())), "equal"

    def _report(self, frame: int, text: _Part, latent: _Part) -> None:
        figures = {
            "caption_received": text.data.tobytes().decode("ascii") if text.status in ("ok", "damaged") else None,
            "caption_status": text.status,
            "latent_status": latent.status,
            "latent_noise_variance": latent.noise_variance,
            "latent_noise_source": latent.noise_source,
        }
        sent = [part for part in (text, latent) if part.status != "absent"]
        if any(part.status != "ok" for part in sent):
            figures["status"] = "lost" if all(part.status == "lost" for part in sent) else "degraded"
            figures["reason"] = "; ".join(dict.fromkeys(part.reason for part in sent if part.reason))
        self.report("frames", frame, **figures)
