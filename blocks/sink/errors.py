"""`error_meter`: how many bits or symbols came wrong, beside what theory expects."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from blocks.phy import theory
from blocks.phy.constellation import Constellation, constellation
from blocks.view import figures
from blocks.view.constellation import FirstSymbols
from blocks.view.style import keep_figure
from flowgraph.block import BITS, Block, BlockError, Packet, Port

REPORT_EVERY_S = 0.25
SHOWN = 200_000  # symbols of the picture, the first of the run
POINTS = 200  # values of Es/N0 that are told apart
TURNED_DB = 0.5  # of Eb/N0: headers alone make tenths, by the frame's length
NO_SIGNAL = 7.0  # SNR times symbols that noise alone stays below, but for one time in a thousand: it is exponential
SYMBOL_CLUSTER_BITS = 64  # bits counted together where every symbol fades by itself


class ErrorMeter(Block):
    """Compare what was received with what was sent, both bits (packed or LLRs) or both symbols.

    Bits: errors, their rate with a 99 % interval, and the closed form for the simulated channel. The interval is
    binomial (Clopper-Pearson) where errors are independent; under fading it comes from the spread across fades, and
    behind a decoder across its blocks. Where fades overlap (Doppler), hit several blocks or were spread by an
    interleaver, and where the channel is not known, it comes from that across frames. A negative LLR is a 1. Es/N0 and
    Eb/N0, all energy of a frame over its information bits, are means over the bits compared.

    Where the channel is turned while the graph runs, `ber_points` has bits, errors, their rate and its interval for
    each Es/N0, by the mean Eb/N0, to 0.01 dB, the one in force last; frames within which it changes are in none, and
    those whose Eb/N0 differ by more than 0.5 dB, as their codes do, in points of their own. `error_rates.pdf` and
    `.png` draw them over the closed form, where they reach over more than 0.5 dB.

    A frame of which any bit is wrong or missing counts in `bit_frames_wrong`, out of `bit_frames`; where symbols err
    independently, with probability P, `bit_frames_wrong_theory` adds up the closed form 1 - (1 - P)^n for frames of n
    symbols, a last one that is not full among them. For whoever pools several runs, `ber_clusters` has the sums that
    the interval was made of (see `theory.clustered_interval`), or null.

    Of frames that carry images, the payload's `symbols_per_image` and `cbr` are counted anew, with all that the link
    adds: parity, pilots.

    Symbols: symbol error rate, error vector magnitude sqrt(sum|r-s|^2 / sum|s|^2), signal-to-noise ratio after the best
    common complex gain is taken out (null without noise, or where noise alone could pass for the signal), and
    `constellation.pdf` and `.png`.

    Frames are compared by number. What did not arrive counts in `bit_frames_lost` and `bits_missing` (for symbols
    `symbol_frames_lost` and `symbols_missing`), and is in no rate.
    """

    inputs = (
        Port("sent", (BITS, "complex64"), "the reference", whole=True),
        Port("received", (BITS, "float32", "int8", "complex64"), "what came of it", whole=True),
    )
    equal_rates = ("sent", "received")

    def start(self) -> None:
        self.count: _BitErrors | _SymbolErrors | None = None
        self.reported = time.monotonic()
        _differing(np.zeros(0, np.uint8), np.zeros(0, np.uint8))  # compiles before the graph runs

    def work(self, sent: Packet | None, received: Packet | None) -> None:
        present = sent or received
        assert present is not None
        symbols = present.dtype == "complex64"
        if sent and received and symbols != (received.dtype == "complex64"):
            raise BlockError(
                f"cannot compare {received.dtype} received with {sent.dtype} sent: "
                "wire bits to bits or symbols to symbols"
            )
        if self.count is None:
            self.count = _SymbolErrors() if symbols else _BitErrors()
        rate = self.count.add(sent, received)
        if not symbols:
            self.report("frames", present.frame, ber=rate)
        if time.monotonic() - self.reported > REPORT_EVERY_S:
            self.reported = time.monotonic()
            self.report("link", **self.count.figures())

    def stop(self) -> None:
        if self.count is None:
            return
        self.report("link", **self.count.figures(), **self.count.closing_figures())
        if isinstance(self.count, _BitErrors) and self.count.uses:
            self.report("payload", **self.count.channel_uses())
        if isinstance(self.count, _SymbolErrors) and self.count.first.parts:
            keep_figure(self, "constellation", self.count.first.figure)
        if isinstance(self.count, _BitErrors) and self.count.turned:
            points = {"measured": self.count.rates_by_ebn0()}
            keep_figure(self, "error_rates", lambda: figures.error_rates(points))


class _Errors(ABC):
    """What counting bits and counting symbols share: losses, the simulated channel and what theory expects of it."""

    unit: str

    def __init__(self) -> None:
        self.items = self.errors = self.missing = self.lost = 0
        self.channel: dict[str, Any] | None = None
        self.expected: float | None = 0.0  # errors by the closed form; None once it cannot be told
        self.snr = {"ebn0_db": _MeanRatio(), "esn0_db": _MeanRatio()}  # bits tell them: two meters share a section

    def add(self, sent: Packet | None, received: Packet | None) -> float | None:
        """Take in a frame and return its error rate; None where nothing can be compared."""
        if sent is None or received is None:
            self.lost += 1
            self.missing += sent.count if sent else 0
            return None
        common = min(sent.count, received.count)
        mask = _arrived(sent, received, common)
        items = common if mask is None else int(mask.sum())
        errors = self._compare(sent, received, common, mask)
        self.items += items
        self.errors += errors
        self.missing += sent.count - items
        self._expect(received, common, items)
        return errors / items if items else None

    @abstractmethod
    def _compare(self, sent: Packet, received: Packet, common: int, mask: np.ndarray | None) -> int:
        """Return how many of the first `common` items differ, of those that arrived."""

    @abstractmethod
    def theory(self, channel: dict[str, Any]) -> float | None:
        """Return the error rate that is expected over a channel."""

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """Return what can be told at any time."""

    def closing_figures(self) -> dict[str, Any]:
        """Return what is told at the end alone."""
        return {}

    def _expect(self, received: Packet, common: int, items: int) -> None:
        """Add the errors expected of a frame, in which the channel may change."""
        changes = [(t.offset, t.value) for t in received.tags if t.key == "true_channel" and t.offset < max(common, 1)]
        if not changes or changes[0][0] > 0:
            changes.insert(0, (0, self.channel))
        ends = [offset for offset, _ in changes[1:]] + [common]
        for (start, channel), end in zip(changes, ends, strict=True):
            self.channel = channel
            rate = self.theory(channel) if channel else None
            share = (end - start) / common * items if common else 0.0
            if self.expected is not None and common:
                self.expected = None if rate is None else self.expected + rate * share
            if channel and share:
                for key, mean in self.snr.items():
                    mean.add(channel.get(key), share)

    def _rate(self) -> float | None:
        return self.errors / self.items if self.items else None

    def _losses(self) -> dict[str, Any]:
        return {f"{self.unit}_frames_lost": self.lost, f"{self.unit}s_missing": self.missing}

    def _theory(self) -> float | None:
        return self.expected / self.items if self.items and self.expected is not None else None


class _MeanRatio:
    """Mean over items of a ratio in dB; one that never changes stays as it is."""

    def __init__(self) -> None:
        self.total = self.items = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, decibel: float | None, items: float) -> None:
        """Take in the ratio of so many items, None where it is not known."""
        if decibel is not None:
            self.low, self.high = min(self.low, decibel), max(self.high, decibel)
            self.total += theory.db_to_ratio(decibel) * items
            self.items += items

    @property
    def decibel(self) -> float | None:
        """The mean; None where nothing is known."""
        if not self.items:
            return None
        return self.low if self.low == self.high else theory.ratio_to_db(self.total / self.items)


def _arrived(sent: Packet, received: Packet, common: int) -> np.ndarray | None:
    """Return which of the first `common` items arrived on both ways; None where all did."""
    gone = [each[:common] for each in (sent.erased(), received.erased()) if each is not None]
    return ~np.logical_or.reduce(gone) if gone else None


NO_CLUSTERS = np.zeros(6, object)  # clusters, and sums of e, n, e^2, e n, n^2, as whole numbers


@dataclass
class _Point:
    """What was counted at one Es/N0, and the error rate expected there."""

    esn0: float
    first: float  # Eb/N0 of a frame; that of the others is about the same
    theory: float | None
    bits: int = 0
    errors: int = 0
    clusters: np.ndarray = field(default_factory=NO_CLUSTERS.copy)
    ebn0: _MeanRatio = field(default_factory=_MeanRatio)

    def add(self, errors: int, bits: int, clusters: np.ndarray, ebn0: float) -> None:
        """Count a frame."""
        self.bits, self.errors, self.clusters = self.bits + bits, self.errors + errors, self.clusters + clusters
        self.ebn0.add(ebn0, bits)


class _BitErrors(_Errors):
    """Counts bit errors, and for the interval also by clusters that are independent."""

    unit = "bit"

    def __init__(self) -> None:
        super().__init__()
        self.frames = self.frames_wrong = 0
        self.frames_expected: float | None = 0.0  # wrong ones, by the closed form
        self.points: list[_Point] = []  # the newest last
        self.uses = self.pixel_values = self.images = 0  # channel uses and values of frames that carry images
        self.clustered = True
        self.clusters = NO_CLUSTERS

    def add(self, sent: Packet | None, received: Packet | None) -> float | None:
        before = self.errors, self.missing, self.lost
        items, clusters = self.items, self.clusters
        rate = super().add(sent, received)
        if received is not None and self.items > items:
            self._collect(received, self.errors - before[0], self.items - items, self.clusters - clusters)
        if sent is not None:
            self.frames += 1
            self.frames_wrong += (self.errors, self.missing, self.lost) != before
            if self.frames_expected is not None:
                whole = received is not None and self.missing == before[1]
                expected = self._frame_error_rate(received) if received is not None and whole else 1.0
                self.frames_expected = None if expected is None else self.frames_expected + expected
            values, per_use = sent.tag("pixel_values"), (self.channel or {}).get("bits_per_use")
            if values and per_use:
                self.images += 1
                self.pixel_values += values
                self.uses += math.ceil(sent.count / per_use - 1e-9)
        return rate

    def _collect(self, received: Packet, errors: int, bits: int, clusters: np.ndarray) -> None:
        """Count a frame by its Es/N0, if that and Eb/N0 are known and do not change within it."""
        channels = (tag.value for tag in received.tags if tag.key == "true_channel")
        told = {(each.get("esn0_db"), each.get("ebn0_db")) for each in channels}
        ((esn0, ebn0),) = told if len(told) == 1 else {(None, None)}
        if esn0 is None or ebn0 is None:
            return
        esn0 = round(esn0, 2)
        alike = (n for n, each in enumerate(self.points) if each.esn0 == esn0 and abs(each.first - ebn0) <= TURNED_DB)
        if (known := next(alike, None)) is not None:
            self.points.append(self.points.pop(known))
        elif len(self.points) < POINTS:
            self.points.append(_Point(esn0, ebn0, self.theory(self.channel) if self.channel else None))
        else:
            return
        self.points[-1].add(errors, bits, clusters, ebn0)

    @property
    def turned(self) -> bool:
        """Whether the channel was turned while the graph ran."""
        reached = [point.ebn0.decibel or 0.0 for point in self.points]
        return bool(reached) and max(reached) - min(reached) > TURNED_DB

    def rates_by_ebn0(self) -> list[dict[str, Any]]:
        """Return a row for each Es/N0, the one in force last."""
        rows = []
        for point in self.points:
            low, high = self._interval(point.errors, point.bits, point.clusters) or (None, None)
            counted = {"bits": point.bits, "bit_errors": point.errors, "ber": point.errors / point.bits}
            interval = {"ber_low": low, "ber_high": high, "ber_theory": point.theory}
            at = {"ebn0_db": round(point.ebn0.decibel or 0.0, 2), "esn0_db": round(point.esn0, 2)}
            rows.append({**at, **counted, **interval})
        return rows

    def _interval(self, errors: int, bits: int, clusters: np.ndarray) -> tuple[float, float] | None:
        return theory.clustered_interval(*clusters) if self.clustered else theory.binomial_interval(errors, bits)

    def channel_uses(self) -> dict[str, Any]:
        """Return the symbols on the channel, for each image and for each value of its pixels."""
        return {"symbols_per_image": self.uses / self.images, "cbr": self.uses / self.pixel_values}

    def _compare(self, sent: Packet, received: Packet, common: int, mask: np.ndarray | None) -> int:
        channel = received.tag("true_channel", self.channel) or {"fading": None}
        cluster = _cluster_bytes(channel)
        self.clustered = cluster != 0
        decided = _decided(received)
        whole = 0 if cluster or mask is not None else common // 64 * 8  # bytes in which errors need no place
        errors = _differing(sent.data[:whole], decided[:whole])
        size = -(-common // 8)
        different = sent.data[whole:size] ^ decided[whole:size]
        if common % 8:
            different[-1] &= 0xFF << (-common % 8) & 0xFF
        if mask is not None:
            different &= np.packbits(mask)
        if cluster:
            self._add_clusters(different, common, mask, cluster)
        errors += int(np.bitwise_count(different).sum())
        bits = common if mask is None else int(mask.sum())
        if cluster is None and bits:
            self.clusters = self.clusters + np.array([1, errors, bits, errors**2, errors * bits, bits**2], object)
        return errors

    def _add_clusters(self, different: np.ndarray, common: int, mask: np.ndarray | None, cluster: int) -> None:
        arrived = np.packbits(np.ones(common, bool) if mask is None else mask)
        starts = np.arange(0, len(different), cluster)
        if not len(starts):
            return
        e, n = (np.add.reduceat(np.bitwise_count(part), starts, dtype=np.int64) for part in (different, arrived))
        sums = [np.count_nonzero(n), e.sum(), n.sum(), (e * e).sum(), (e * n).sum(), (n * n).sum()]
        self.clusters = self.clusters + np.array([int(value) for value in sums], object)

    def theory(self, channel: dict[str, Any]) -> float | None:
        if channel.get("coded"):
            return None
        if channel["kind"] == "bit_flip":
            return channel["ber"]
        modulation = channel.get("modulation")
        return theory.bit_error_rate(channel["esn0_db"], modulation, *_fading(channel)) if modulation else None

    def _frame_error_rate(self, received: Packet) -> float | None:
        """Return the closed form for a frame that went over one channel, on which symbols err independently."""
        channel = self.channel or {"fading": None}
        changes = any(tag.key == "true_channel" and tag.offset for tag in received.tags)
        if changes or channel.get("coded") or channel["fading"] not in ("none", "symbol"):
            return None
        if channel["kind"] == "bit_flip":
            bits, rate = 1, channel["ber"]
        elif modulation := channel.get("modulation"):
            bits = constellation(modulation).bits_per_symbol
            rate = theory.symbol_error_rate(channel["esn0_db"], modulation, *_fading(channel))
        else:
            return None
        return -math.expm1(-(-received.count // bits) * math.log1p(-rate))

    def figures(self) -> dict[str, Any]:
        rates = {"ber": self._rate(), "ber_theory": self._theory()}
        snr = {key: mean.decibel for key, mean in self.snr.items()}
        wrong = {"bit_frames_wrong": self.frames_wrong, "bit_frames_wrong_theory": self.frames_expected}
        frames = {"bit_frames": self.frames, **wrong}
        points = {"ber_points": self.rates_by_ebn0()}
        return {"bits": self.items, "bit_errors": self.errors, **rates, **frames, **self._losses(), **snr, **points}

    def closing_figures(self) -> dict[str, Any]:
        if not self.items:
            return {"ber_interval": None, "ber_clusters": None}
        interval = self._interval(self.errors, self.items, self.clusters)
        if not self.clustered:
            return {"ber_interval": interval, "ber_clusters": None}
        names = ("clusters", "errors", "trials", "errors2", "errors_trials", "trials2")
        sums = {name: float(value) for name, value in zip(names, self.clusters, strict=True)}  # may exceed 64 bits
        return {"ber_interval": interval, "ber_clusters": sums}


def _decided(received: Packet) -> np.ndarray:
    return received.data if received.packed else np.packbits(received.data < 0)


def _fading(channel: dict[str, Any]) -> tuple[bool, float]:
    """Whether a channel fades, and the ratio of its direct path to the scattered ones."""
    k_factor = channel.get("k_factor")
    return channel["kind"] in ("rayleigh", "rician"), 0.0 if k_factor is None else theory.db_to_ratio(k_factor)


def _cluster_bytes(channel: dict[str, Any]) -> int | None:
    """Bytes whose errors have nothing to do with those of others: 0 for bit by bit, None for a frame at the least."""
    fading = channel["fading"]
    if channel.get("coded"):  # errors come by the code block, if no interleaver spread them after
        return channel["code_bits"] // 8 if "code_bits" in channel and fading in ("none", "symbol") else None
    if channel.get("interleaved") and fading != "none":
        return None
    if fading == "block":
        return math.lcm(channel["block_symbols"] * (channel["bits_per_symbol"] or 1), 8) // 8
    return {"none": 0, "symbol": SYMBOL_CLUSTER_BITS // 8}.get(fading)


def _differing(sent: np.ndarray, received: np.ndarray) -> int:
    """Return in how many bits two rows of bytes differ, whose length is a multiple of 8."""
    from blocks.phy import _symbols

    return _symbols.differing_bits(sent.view(np.uint64), received.view(np.uint64))


class _SymbolErrors(_Errors):
    """Counts symbol errors, sums up error vectors and keeps symbols for the picture."""

    unit = "symbol"

    def __init__(self) -> None:
        super().__init__()
        self.constellations: dict[Constellation, int] = {}  # all that came, and symbols of this frame that each has
        self.last: Constellation | None = None
        self.sums = np.zeros(5)  # symbols measured, and the sums of |s|^2, |e|^2, Re e s*, Im e s* for r = s + e
        self.first = FirstSymbols(SHOWN)

    def _compare(self, sent: Packet, received: Packet, common: int, mask: np.ndarray | None) -> int:
        from blocks.phy import _symbols

        self.constellations = dict.fromkeys(self.constellations, 0)
        starts = {0: self.last} | {t.offset: constellation(t.value) for t in sent.tags if t.key == "modulation"}
        errors = 0
        for begin, end in pairwise([*sorted(place for place in starts if place < max(common, 1)), common]):
            self.last = starts[begin]
            if self.last:
                self.constellations[self.last] = self.constellations.get(self.last, 0) + end - begin
            reference = self.last or constellation("16qam")
            s, r = sent.data[begin:end], received.data[begin:end]
            if mask is not None:
                s, r = s[mask[begin:end]], r[mask[begin:end]]
            both = s.view(np.float32), r.view(np.float32)
            if reference.axis:
                found = _symbols.compare(*both, np.float32(reference.half_step), len(reference.axis))
            else:
                found = _symbols.compare_table(*both, reference.points.astype(np.complex64))
            measured, wrong, *sums = found
            self.sums += [measured, *sums]
            errors += int(wrong)
            self.first.add(r)
            if self.last:
                self.first.told(self.last)
        return errors

    def theory(self, channel: dict[str, Any]) -> float | None:
        symbols = sum(self.constellations.values())
        if not symbols or channel["esn0_db"] is None:
            return None
        wrong = (
            count * theory.symbol_error_rate(channel["esn0_db"], each, *_fading(channel))
            for each, count in self.constellations.items()
            if count
        )
        return sum(wrong) / symbols

    def figures(self) -> dict[str, Any]:
        known = self.last is not None  # without it there are no decisions, only error vectors
        count, s2, e2, re, im = self.sums
        evm = math.sqrt(e2 / s2) if s2 else None
        rest = e2 - (re * re + im * im) / s2 if s2 else 0.0
        snr = ((s2 + re) ** 2 + im * im) / s2 / rest if rest > 0 else 0.0
        return {
            "symbols": self.items,
            "ser": self._rate() if known else None,
            "ser_theory": self._theory() if known else None,
            "evm_rms": evm,
            "snr_measured_db": theory.ratio_to_db(snr) if snr * count > NO_SIGNAL else None,
            **self._losses(),
        }
