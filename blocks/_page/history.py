"""What the page remembers of a run, for all its viewers: figures over time, signals, pictures, values in force."""

from __future__ import annotations

import bisect
import re
import threading
import time
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from blocks._page.choice import Choice, choose
from blocks.phy import theory
from blocks.phy.constellation import Constellation, constellation
from blocks.phy.qam import NoiseEstimator
from blocks.view import measure
from flowgraph.block import Packet
from flowgraph.changes import alternatives
from flowgraph.live import Run

BINS = 72  # of a constellation's density, on each side
FADING = {"0.1 s": 0.0, "1 s": 0.9, "10 s": 0.99, "all": 1.0}  # of a density, from piece to piece: ten a second
REACHES = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)  # half widths of a constellation's axes
FREQUENCIES, TIMES = 128, 100  # of a waterfall
EVERY_S, LONGEST_ROW_S = 0.1, 1.0  # that a row of it stands for, and at most
POOL = 8  # pieces that tell EVM and noise
LLR_REACH, LLR_BINS = 32.0, 64
SAMPLES = 2400  # of error rates over time: ten minutes
WINDOW_S = 1.0  # over which an error rate is measured, if no other is wanted
COUNTS = ("bits", "bit_errors", "symbols", "bit_frames", "bit_frames_wrong")  # of which rates are made
AT_WORK_S = 5.0  # over which it is told how busy blocks are, and how much wires carry
STALE_S = 2.0  # without a word from the run
PICTURES = 60  # frames whose pictures are kept
KINDS = ("sent", "plain", "received")  # of pictures
PICTURE = re.compile(rf"images/(\d+)_({'|'.join(KINDS)})\.png")


ESTIMATES = threading.Event()  # whether what EVM and SNR are estimated with is loaded


class Row(NamedTuple):
    """A row of a waterfall: when it came, for how long it stands, and power densities."""

    time: float
    duration: float
    decibel: np.ndarray


class Channel(NamedTuple):
    """A simulated channel, uncoded."""

    modulation: Any
    bits_per_symbol: int
    bits_per_use: float  # with the rate of the link's codes and pilots
    fades: bool
    k_factor: float

    def ebn0_db(self, esn0_db: float) -> float:
        """Return the channel's own Eb/N0: of the bits that the link carries, headers and the codes of frames too."""
        return esn0_db - theory.ratio_to_db(self.bits_per_use)

    def bit_error_rates(self, ebn0_db: np.ndarray) -> np.ndarray:
        """Return the closed form, for each Eb/N0."""
        esn0_db = ebn0_db + theory.ratio_to_db(self.bits_per_symbol)
        return np.array([theory.bit_error_rate(float(x), self.modulation, self.fades, self.k_factor) for x in esn0_db])


class Stream:
    """What is remembered of an output. `soft` says that it carries LLRs, `began` when the run was met."""

    def __init__(self, soft: bool, began: float) -> None:
        self.soft, self.began = soft, began
        self.pieces = 0
        self.piece: Packet | None = None
        self.modulation: Constellation | None = None
        self.channel: dict[str, Any] | None = None
        self.reach = REACHES[1]
        self.densities = {name: np.zeros((BINS, BINS)) for name in FADING}
        self.power: np.ndarray | None = None  # of the spectrum, averaged
        self.rows: deque[Row] = deque(maxlen=TIMES)
        self.pool: deque[np.ndarray] = deque(maxlen=POOL)
        self.llrs = np.zeros(LLR_BINS)

    def add(self, piece: Packet) -> None:
        """Take in a piece."""
        self.pieces += 1
        self.piece = piece
        modulation = piece.tag("modulation")
        if modulation is not None:
            known = constellation(modulation)
            if known != self.modulation:
                self.modulation = known
                self._forget()
                self.pool.clear()
        channel = piece.tag("true_channel", self.channel)
        if channel != self.channel:
            self.pool.clear()  # of another noise
        self.channel = channel
        if np.iscomplexobj(piece.data):
            self._add_signal(piece.data.ravel())
        elif self.soft:
            values = piece.data / 4 if piece.dtype == "int8" else piece.data
            clipped = np.clip(values, -LLR_REACH, np.nextafter(LLR_REACH, 0))
            counted, _ = np.histogram(clipped, LLR_BINS, (-LLR_REACH, LLR_REACH))
            self.llrs = FADING["1 s"] * self.llrs + counted

    def _forget(self) -> None:
        self.densities = {name: np.zeros((BINS, BINS)) for name in FADING}

    def _add_signal(self, signal: np.ndarray) -> None:
        signal = signal[np.isfinite(signal)]
        if not len(signal):
            return
        wanted = next((each for each in REACHES if each >= 0.75 * measure.reach_of(signal)), REACHES[-1])
        if wanted > self.reach or wanted < self.reach / 2:
            self.reach = wanted
            self._forget()
        counted = measure.density(signal, self.reach, BINS)
        self.densities = {name: fading * self.densities[name] + counted for name, fading in FADING.items()}
        power = measure.spectrogram(signal, FREQUENCIES)[1].mean(axis=0)
        self.power = power if self.power is None else 0.8 * self.power + 0.2 * power
        now = time.monotonic() - self.began
        before = self.rows[-1] if self.rows else Row(now - EVERY_S, EVERY_S, power)
        begin = max(before.time + before.duration, now - LONGEST_ROW_S)
        self.rows.append(Row(begin, max(now - begin, 0.01), measure.decibel(power)))
        self.pool.append(signal)

    def quality(self) -> tuple[float, float] | None:
        """Return EVM (rms, of the points decided for) and SNR in dB, as the symbols themselves tell them."""
        if self.modulation is None or not self.pool:
            return None
        estimator = NoiseEstimator(self.modulation)
        estimator.add(np.concatenate(self.pool).astype(np.complex64), 0)
        n0 = estimator.n0
        return theory.decision_error(n0, self.modulation) ** 0.5, -theory.ratio_to_db(n0)


class History:
    """Everything that is known of a run; `lock` is held by whoever reads or writes it."""

    def __init__(self, address: str):
        self.address = address
        self.lock = threading.Lock()
        self.run: Run | None = None
        self.choice = Choice()
        nothing: dict[str, Any] = {"link": {}, "frames": [], "blocks": {}, "wires": {}, "workers": {}}
        self.report: dict[str, Any] = {"status": "starting", **nothing}
        self.reports = 0
        self.began = self.heard = time.monotonic()
        self.gone = False  # nobody answers
        self.samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES)
        self.sampled = 0  # all there ever were
        self.recent: deque[dict[str, Any]] = deque()  # reports of the last `AT_WORK_S`
        self.busy: dict[str, float] = {}  # share of that time that blocks were at work
        self.rates: dict[str, float] = {}  # items a second, by block
        self.bytes: dict[str, float] = {}  # bytes a second, by wire
        self.cpu: dict[str, float] = {}  # cores in use, by worker
        self.streams: dict[str, Stream] = {}
        self.pictures: dict[str, bytes] = {}
        self.in_force: dict[str, Any] = {}
        self.instead_of: dict[str, list[str]] = {}  # parameters that are null where one is set
        self.turned = 0  # values that have changed
        self.selected: dict[object, set[str]] = {}  # outputs that viewers look at, by viewer

    def meet(self, run: Run) -> None:
        """Take in what the run is."""
        self.run, self.gone, self.heard = run, False, time.monotonic()
        self.choice = choose(run.spec, run.taps)
        for each in run.parameters:
            self.instead_of[each.full_name] = [f"{each.block}.{other}" for other in alternatives(each.schema)]
        self.hold(*((each.full_name, each.value) for each in run.parameters))

    def wanted(self) -> list[str]:
        """Return the outputs that are to be watched."""
        return sorted(self.choice.outputs.union(*self.selected.values()))

    @property
    def ended(self) -> bool:
        """Whether the run has said its last word."""
        return self.report["status"] in ("done", "failed", "interrupted")

    def state(self) -> tuple[str, str]:
        """Return how the run is, in a word and in a sentence."""
        status = self.report["status"]
        if self.ended:
            spent = f"the run has ended after {self.report['elapsed_s']:.1f} s"
            fault = self.report.get("fault", "")
            return status, f"{spent}: {fault}" if fault and fault != status else spent
        silent = time.monotonic() - self.heard
        if self.gone:
            return "gone", f"no word for {silent:.0f} s: the run was killed, or is out of reach"
        if silent > STALE_S:
            return "silent", f"no word for {silent:.0f} s"
        return status, "" if status == "running" else "blocks start, models load"

    def add(self, what: str, value: Any) -> None:
        """Take in a piece of news, as `Remote.news` has it."""
        self.gone, self.heard = False, time.monotonic()
        if what == "report":
            self._add_report(value)
        elif isinstance(value, Packet):
            if what not in self.streams:
                self.streams[what] = self._stream(what)
            self.streams[what].add(value)
        elif PICTURE.fullmatch(what):
            self.pictures[what] = value
            frames = dict.fromkeys(PICTURE.fullmatch(each)[1] for each in self.pictures)  # type: ignore[index]
            for frame in list(frames)[:-PICTURES]:
                for kind in KINDS:
                    self.pictures.pop(f"images/{frame}_{kind}.png", None)

    def _stream(self, output: str) -> Stream:
        stream = Stream(output == self.choice.llrs, self.began)
        if output == self.choice.decided and self.run is not None:  # until a tag tells
            told = (block.params.get("modulation") for block in self.run.spec.blocks)
            stream.modulation = next((constellation(each) for each in told if each), None)
        return stream

    def hold(self, *values: tuple[str, Any]) -> None:
        """Take note of values that have come into force, one after the other."""
        now = self.in_force.copy()
        for name, value in values:
            if value is not None:
                now |= dict.fromkeys(self.instead_of.get(name, ()))
            now[name] = value
        if now != self.in_force:
            self.in_force = now
            self.turned += 1

    def figures(self) -> dict[str, str]:
        """Return the main figures of the run, as they are shown, by name."""
        report, link = self.report, self.report["link"]
        figures = {"time": f"{report.get('elapsed_s', 0.0):.1f} s"}
        frames = [row for row in report["frames"] if row.get("name")]
        if frames:
            figures["frames"] = str(max((row["frame"] for row in frames if row.get("status")), default=-1) + 1)
        if points := self.ber_points():
            figures["Eb/N0"] = f"{points[-1]['ebn0_db']:.2f} dB"
        sample = self.samples[-1] if self.samples else {}
        if sample.get("ber") is not None:
            bound = f"0 of {sample['window_bits']:,}"
            figures["BER, last second"] = f"{sample['ber']:.2e}" if sample["ber"] else bound
        if link.get("ber") is not None:
            figures["BER, all"] = f"{link['ber']:.2e}" if link["ber"] else f"0 of {link['bits']:,}"
        return figures

    def ber_points(self) -> list[dict[str, Any]]:
        """Return the error rates by Eb/N0: where there is a closed form to be held against, that of its channel."""
        points, channel = self.report["link"].get("ber_points") or [], self.channel()
        if channel is None:
            return points
        return [point | {"ebn0_db": round(channel.ebn0_db(point["esn0_db"]), 2)} for point in points]

    def frames_received(self) -> dict[int, dict[str, str]]:
        """Return the paths of pictures by kind, of the frames that were received, by number."""
        numbers = sorted(int(found[1]) for path in self.pictures if (found := PICTURE.fullmatch(path)))
        frames = {
            number: {kind: path for kind in KINDS if (path := f"images/{number:04d}_{kind}.png") in self.pictures}
            for number in numbers
        }
        return {number: kinds for number, kinds in frames.items() if "received" in kinds}

    def channel(self) -> Channel | None:
        """Return the simulated channel that is in use, where there is a closed form of it."""
        for stream in self.streams.values():
            told = stream.channel
            if told and told.get("modulation") and told.get("kind") in ("awgn", "rayleigh", "rician"):
                modulation = told["modulation"]
                points = modulation if isinstance(modulation, str) else tuple(map(tuple, modulation))
                k_factor = theory.db_to_ratio(told["k_factor"]) if told.get("k_factor") is not None else 0.0
                return Channel(points, told["bits_per_symbol"], told["bits_per_use"], told["kind"] != "awgn", k_factor)
        return None

    def _add_report(self, report: dict[str, Any]) -> None:
        if not self.reports:
            self.began = time.monotonic() - report["elapsed_s"]
        self.report = report
        self.reports += 1
        self.recent.append(report)
        while len(self.recent) > 2 and self.recent[1]["elapsed_s"] <= report["elapsed_s"] - AT_WORK_S:
            self.recent.popleft()
        before = self.recent[0]
        self.hold(*((f"{each['block']}.{each['parameter']}", each["value"]) for each in report.get("changes", [])))
        spent = report["elapsed_s"] - before["elapsed_s"]
        if spent > 0:
            for name, count in report["blocks"].items():
                old = before["blocks"].get(name, count)
                self.busy[name] = min((count["busy_s"] - old["busy_s"]) / spent, 1.0)
                self.rates[name] = (count["items"] - old["items"]) / spent
            for name, count in report["wires"].items():
                old = before["wires"].get(name, count)
                self.bytes[name] = (count["bytes"] - old["bytes"]) / spent
            for name, health in report["workers"].items():
                old = before["workers"].get(name, health)
                self.cpu[name] = (health["cpu_s"] - old["cpu_s"]) / spent
        link = report["link"]
        points = link.get("ber_points") or []
        counts = {key: link.get(key) or 0 for key in COUNTS}
        counts["symbol_errors"] = (link.get("ser") or 0.0) * counts["symbols"]
        sample = {"t": report["elapsed_s"], **counts, "theory": points[-1]["ber_theory"] if points else None}
        sample |= self.rates_at(sample, WINDOW_S)
        last = self.samples[-1] if self.samples else None
        if last is None or sample["bits"] != last["bits"] or sample["t"] - last["t"] > WINDOW_S:
            self.samples.append(sample)
            self.sampled += 1

    def rates_at(self, sample: dict[str, Any], window_s: float) -> dict[str, Any]:
        """Return the error rates of the window before a sample, and the bits that were counted in it."""
        at = bisect.bisect_right(self.samples, sample["t"] - window_s, key=lambda each: each["t"])
        before = (self.samples[n] for n in range(at - 1, -1, -1))
        old = next((each for each in before if each["bits"] < sample["bits"]), None)
        news = {key: sample[key] - (old[key] if old else 0) for key in (*COUNTS, "symbol_errors")}
        return {
            "window_bits": news["bits"],
            "ber": _ratio(news["bit_errors"], news["bits"]),
            "ser": _ratio(news["symbol_errors"], news["symbols"]),
            "bler": _ratio(news["bit_frames_wrong"], news["bit_frames"]),
        }


def load_estimates() -> None:
    """Load what EVM and SNR are estimated with, half a second's work, so that no viewer waits for it."""
    if ESTIMATES.is_set():
        return
    stream = Stream(False, 0.0)
    stream.add(Packet(np.ones(FREQUENCIES, np.complex64)).tagged(modulation="16qam"))
    stream.quality()
    ESTIMATES.set()


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
