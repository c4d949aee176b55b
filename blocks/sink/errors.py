"""`error_meter`: how many bits or symbols came wrong, beside what theory expects."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import numpy as np

from blocks.phy import theory
from blocks.phy.constellation import CONSTELLATIONS, Constellation
from flowgraph.block import BITS, Block, BlockError, Packet, Port

REPORT_EVERY_S = 1.0
SHOWN = 200_000  # symbols of the picture, the first of the run
SYMBOL_CLUSTER_BITS = 64  # bits counted together where every symbol fades by itself

_BY_BITS = {c.bits_per_symbol: c for c in CONSTELLATIONS.values()}


class ErrorMeter(Block):
    """Compare what was received with what was sent, both bits (packed or LLRs) or both symbols.

    Bits: errors, their rate with a 99 % interval, and the closed form for the simulated channel. The interval is binomial
    (Clopper-Pearson) where errors are independent; under fading it comes from the spread across fades, and where the
    channel is not known, from that across frames. A negative LLR is a 1.

    Symbols: symbol error rate, error vector magnitude sqrt(sum|r-s|^2 / sum|s|^2), signal-to-noise ratio after the best
    common complex gain is taken out, and `constellation.png`.

    Frames are compared by number. What did not arrive counts in `frames_lost` and `bits_missing` (`symbols_missing`), and is in no
    rate.
    """

    inputs = (
        Port("sent", (BITS, "complex64"), "the reference", whole=True),
        Port("received", (BITS, "float32", "int8", "complex64"), "what came of it", whole=True),
    )
    equal_rates = ("sent", "received")

    def start(self) -> None:
        self.count: _BitErrors | _SymbolErrors | None = None
        self.reported = time.monotonic()

    def work(self, sent: Packet | None, received: Packet | None) -> None:
        present = sent or received
        assert present is not None
        symbols = present.dtype == "complex64"
        if sent and received and symbols != (received.dtype == "complex64"):
            raise BlockError(f"cannot compare {received.dtype} received with {sent.dtype} sent: wire bits to bits or symbols to symbols")
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
        if isinstance(self.count, _SymbolErrors) and self.count.shown:
            self.keep("constellation.png", self.count.picture())


class _Compared:
    """What counting bits and counting symbols share: the channel that tags tell of, losses, and theory."""

    unit = ""

    def __init__(self) -> None:
        self.channel: dict[str, Any] | None = None
        self.channels: list[tuple[int, dict[str, Any] | None]] = []  # items under each channel of the frame at hand
        self.items = self.errors = self.missing = self.lost = 0
        self.expected: float | None = 0.0  # errors by the closed form, None once it is not known

    def _begin(self, sent: Packet | None, received: Packet | None) -> np.ndarray | None:
        """Note losses and channels; return which items can be compared, as a mask, or None where no frame can."""
        if sent is None or received is None:
            self.lost += 1
            self.missing += sent.count if sent else 0
            return None
        common = min(sent.count, received.count)
        mask = np.ones(common, bool)
        for tag in (*sent.tags, *received.tags):
            if tag.key == "erased":
                mask[tag.offset : tag.offset + tag.value] = False
        self.missing += sent.count - int(mask.sum())
        return mask

    def _expect(self, received: Packet, compared: int, rate: Any) -> None:
        """Add the errors that theory expects of a frame, where the channel may change on the way."""
        changes = sorted((t.offset, t.value) for t in received.tags if t.key == "true_channel")
