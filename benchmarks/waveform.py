"""The waveform over a simulated channel with everything on at once, each figure beside what is asked of it.

Every burst meets a carrier offset of up to 2 % of the symbol rate, a clock off by up to 50 ppm, a delay, a phase, three
paths (0, -6 and -10 dB at 0, 1/2 and 3/2 symbols, their phases at random) and white noise. Es is the energy of a symbol
as it comes, over all paths. `python -m benchmarks.waveform` prints the table; `--samples 1e8` searches noise for a
tenth of the time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.update(OMP_NUM_THREADS="1")  # before NumPy is imported: a rate is one core's

import numpy as np
from scipy.optimize import brentq

from blocks.phy import noise, theory
from blocks.phy.impairments import Impairments
from blocks.phy.qam import decide
from blocks.sdr import pulse
from blocks.sdr.burst import KNOWN, PILOTS, PREAMBLE, Header, body_symbols, header_symbols
from blocks.sdr.receiver import Burst, Receiver
from blocks.sdr.waveform import BurstDemodulator, BurstModulator
from flowgraph.block import Packet
from flowgraph.testing import run_block

ROLLOFF = 0.25
PATHS = ((0, 0.0), (1, -6.0), (3, -10.0))  # samples, two a symbol, and dB
SILENCE = 200  # samples around a burst


@dataclass(frozen=True)
class Air:
    """A channel, in periods a symbol, and samples, of which there are two a symbol."""

    carrier_offset: float = 0.0
    clock_offset: float = 0.0
    delay: float = 0.0
    phase: float = 0.0
    paths: tuple[complex, ...] = (1.0,)

    @staticmethod
    def drawn(rng: np.random.Generator) -> Air:
        """Everything on at once, at random."""
        taps = np.zeros(4, complex)
        for place, decibel in PATHS:
            taps[place] = 10 ** (decibel / 20) * np.exp(2j * np.pi * rng.random())
        taps /= np.linalg.norm(np.convolve(taps, pulse.root_raised_cosine(2, ROLLOFF)))
        return Air(
            rng.uniform(-0.02, 0.02),
            rng.uniform(-50e-6, 50e-6),
            rng.uniform(0, 50),
            rng.uniform(-180, 180),
            tuple(taps),
        )

    def carry(self, samples: np.ndarray) -> np.ndarray:
        """Return what comes of samples, but for the noise."""
        block = Impairments(
            {
                "sample_rate": 2.0,
                "carrier_offset": self.carrier_offset,
                "clock_offset": self.clock_offset * 1e6,
                "delay": self.delay,
                "phase": self.phase,
            }
        )
        heard = np.convolve(samples, np.array(self.paths, np.complex64))[: len(samples)]
        return run_block(block, {"samples": [Packet(heard.astype(np.complex64), last=True)]})["samples"][0].data

    def ideal_snr(self, esn0_db: float, taps: int = 61) -> float:
        """Return Es/N0, dB, behind the best linear equaliser of half-symbol spacing for a known channel.

        For y = G a + w with the noise of the matched filter: u / (1 - u), u = g* (G G* + R)^-1 g.
        """
        p = pulse.root_raised_cosine(2, ROLLOFF)
        matched = np.convolve(p, p[::-1])
        response, middle = np.convolve(matched, self.paths), len(matched) // 2
        rows = np.arange(taps) - taps // 2 + middle
        shifts = 2 * np.arange(-2 * taps, 2 * taps)
        at = rows[:, None] - shifts
        inside = (at >= 0) & (at < len(response))
        g = np.where(inside, response[np.clip(at, 0, len(response) - 1)], 0)
        lags = np.abs(np.arange(taps)[:, None] - np.arange(taps))
        r = theory.db_to_ratio(-esn0_db) * np.where(lags <= middle, matched[np.minimum(middle + lags, 2 * middle)], 0)
        wanted = g[:, 2 * taps]
        u = (wanted.conj() @ np.linalg.solve(g @ g.conj().T + r + 1e-12 * np.eye(taps), wanted)).real
        return theory.ratio_to_db(u / (1 - u))


def samples_of(header: Header, payload: np.ndarray) -> np.ndarray:
    """Return a burst as samples, with silence around it."""
    symbols = np.concatenate([PREAMBLE, header_symbols(header), body_symbols(payload, header)])
    return np.pad(pulse.shape(symbols, 2, ROLLOFF), SILENCE)


@dataclass(frozen=True)
class Trial:
    """One burst: what it met, what was found of it, and the bits of its payload that were wrong."""

    air: Air
    found: Burst | None
    wrong: int = 0


def trials(
    count: int, esn0_db: float, bits: int, modulation: Any = "16qam", seed: int = 1, flat: bool = False
) -> Iterator[Trial]:
    """Send bursts through channels of their own, or `flat` ones with carrier offset, delay and phase alone."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        air = Air.drawn(rng)
        if flat:
            air = Air(air.carrier_offset, 0.0, air.delay, air.phase)
        header = Header(modulation, "none", 0, number & 0xFFFF, bits, 0, bits)
        payload = rng.integers(0, 256, bits // 8, dtype=np.uint8)
        heard = noise.awgn(air.carry(samples_of(header, payload)), theory.db_to_ratio(-esn0_db), seed, number)
        receiver = Receiver(2, ROLLOFF)
        bursts = [b for b in (*receiver.push(heard), *receiver.end()) if b.header == header and b.symbols is not None]
        if not bursts:
            yield Trial(air, None)
            continue
        sent = decide(PILOTS.data(body_symbols(payload, header), header.data_symbols), modulation)
        different = (decide(bursts[0].symbols, modulation) ^ sent)[: bits // 8]
        yield Trial(air, bursts[0], int(np.bitwise_count(different).sum()))


# Figures


def detection(count: int, esn0_db: float = 10) -> tuple[int, int]:
    """Return how many short bursts were not found, and how many were sent."""
    return sum(trial.found is None for trial in trials(count, esn0_db, 64)), count


def loss(count: int, esn0_db: float, bits: int = 16384, modulation: Any = "16qam") -> tuple[float, float, float]:
    """Return the bit error rate, that of the best equaliser for known channels, and by how many dB that is better."""
    ideal, wrong, total = [], 0, 0
    for trial in trials(count, esn0_db, bits, modulation):
        if trial.found is not None:
            ideal.append(trial.air.ideal_snr(esn0_db))
            wrong, total = wrong + trial.wrong, total + bits

    def rate(lost_db: float) -> float:
        return float(np.mean([theory.bit_error_rate(snr - lost_db, modulation) for snr in ideal]))

    return wrong / total, rate(0), brentq(lambda lost_db: rate(lost_db) - wrong / total, -3, 20)


def bounds(esn0_db: float) -> dict[str, float]:
    """Return Cramer-Rao bounds on the variances of joint estimates by the `KNOWN` symbols of preamble and header.

    Of carrier offset (periods a symbol), delay (symbols) and gain: the inverse of the Fisher information 2 Re <ds/di,
    ds/dj> / N0 of the samples s that are sent, phase unknown. Of Es/N0, relative: 2 / (N Es/N0) + 1 / N (D. R. Pauluzzi
    and N. C. Beaulieu, "A comparison of SNR estimation techniques for the AWGN channel", 2000).
    """
    header = Header("16qam", "none", 0, 0, 64, 0, 64)
    s = pulse.shape(np.concatenate([PREAMBLE, header_symbols(header)]), 2, ROLLOFF).astype(complex)
    n = (np.arange(len(s)) - len(s) / 2) / 2
    by_delay = np.fft.ifft(-2j * np.pi * np.fft.fftfreq(len(s), 0.5) * np.fft.fft(s))
    derivatives = np.stack([2j * np.pi * n * s, by_delay, s, 1j * s])
    fisher = 2 * theory.db_to_ratio(esn0_db) * (derivatives.conj() @ derivatives.T).real
    carrier, delay, gain, _ = np.diag(np.linalg.inv(fisher))
    snr = 2 / (KNOWN * theory.db_to_ratio(esn0_db)) + 1 / KNOWN
    return {"carrier offset": carrier, "delay": delay, "gain": gain, "Es/N0": snr}


def estimates(count: int, esn0_db: float) -> dict[str, float]:
    """Return the mean squared errors of estimates over flat channels."""
    errors = []
    for trial in trials(count, esn0_db, 64, flat=True):
        if (found := trial.found) is not None:
            late = (found.place - SILENCE - 2 * pulse.SPAN - trial.air.delay) / 2
            snr = theory.db_to_ratio(-esn0_db) / found.n0
            errors.append((found.carrier_offset - trial.air.carrier_offset, late, found.gain - 1, snr - 1))
    return dict(zip(bounds(esn0_db), (np.array(errors) ** 2).mean(0), strict=True))


def back_to_back(runs: int, esn0_db: float = 25, noise_alone: bool = False) -> tuple[int, int]:
    """Return how many uncoded packets of 1 to 4,000 bytes, one behind the other, came without fault, and were sent.

    Every run has 52 of them, and a channel of its own, or white noise alone.
    """
    rng, sent, good = np.random.default_rng(3), 0, 0
    for run in range(runs):
        sizes = np.unique(np.geomspace(1, 4000, 60).astype(int))
        frames = [
            Packet(rng.integers(0, 256, size, dtype=np.uint8), number, packed=True, last=True)
            for number, size in enumerate(rng.permutation(sizes))
        ]
        modulator = BurstModulator({"packet": 65528, "gap": 24})
        samples = np.concatenate([p.data for p in run_block(modulator, {"bits": frames})["samples"]])
        heard = samples if noise_alone else Air.drawn(rng).carry(samples)
        heard = noise.awgn(heard, theory.db_to_ratio(-esn0_db), 9, run)
        came = run_block(BurstDemodulator(), {"samples": [Packet(heard, last=True)]})["bits"]
        sent += len(frames)
        right = {p.frame: p.data.tobytes() for p in came}
        good += sum(right.get(frame.frame) == frame.data.tobytes() for frame in frames)
    return good, sent


def in_noise(samples: int) -> tuple[int, int]:
    """Return how many packets, and preambles, a receiver takes noise for."""
    receiver, block, packets = Receiver(2, ROLLOFF), 1 << 20, 0
    for at in range(0, samples, block):
        packets += len(list(receiver.push(noise.complex_normal(min(block, samples - at), 12, offset=at))))
    return packets + len(list(receiver.end())), receiver.headers_failed


def rate() -> float:
    """Return how many million samples a CPU-second the whole receiver takes, two a symbol: full packets of 16QAM."""
    bits = Packet(noise.random_bytes(1 << 18, 3), packed=True, last=True)
    sent = run_block(BurstModulator(), {"bits": [bits]})["samples"]
    heard = noise.awgn(np.concatenate([p.data for p in sent]), theory.db_to_ratio(-20), 5)
    seconds = []
    for _ in range(5):
        block = BurstDemodulator()
        block.start()
        began = time.process_time()
        for at in range(0, len(heard), 1 << 15):
            list(block.work(Packet(heard[at : at + (1 << 15)], 0, at)))
        seconds.append(time.process_time() - began)
    return len(heard) / float(np.median(seconds)) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waveform", description=__doc__)
    parser.add_argument("--samples", type=float, default=1e9, help="of noise that is searched")
    parser.add_argument("--bursts", type=int, default=10_000, help="sent to see how many are found")
    arguments = parser.parse_args()
    print(f"whole receiver: {rate():.1f} million samples a CPU-second (asked: 5)")
    for esn0_db in (10, 13, 16):
        measured, ideal, lost = loss(200, esn0_db)
        print(f"16QAM at Es/N0 {esn0_db} dB: BER {measured:.2e}, ideal {ideal:.2e}, loss {lost:.2f} dB (asked: 1.0)")
    for modulation, esn0_db in (("bpsk", 6), ("qpsk", 9), ("8psk", 14), ("64qam", 22), ("256qam", 28)):
        measured, ideal, lost = loss(100, esn0_db, modulation=modulation)
        print(f"{modulation} at Es/N0 {esn0_db} dB: BER {measured:.2e}, ideal {ideal:.2e}, loss {lost:.2f} dB")
    for esn0_db in (10, 20):
        limit = bounds(esn0_db)
        for name, error in estimates(2000, esn0_db).items():
            print(
                f"{name} at {esn0_db} dB: rms error {error**0.5:.2e}, "
                f"{theory.ratio_to_db(error / limit[name]):+.2f} dB from the bound (asked: 2)"
            )
    for what, noise_alone in (("everything on", False), ("white noise alone", True)):
        good, sent = back_to_back(40, noise_alone=noise_alone)
        print(f"packets of 1 to 4,000 bytes at 25 dB, {what}: {good} of {sent} without a wrong bit (asked: all)")
    missed, sent = detection(arguments.bursts)
    low = 1 - theory.binomial_interval(missed, sent)[1]
    print(f"found at 10 dB: {sent - missed} of {sent}, above {100 * low:.3f} % with 99 % (asked: 99.9 %)")
    packets, preambles = in_noise(int(arguments.samples))
    print(f"{packets} packets and {preambles} preambles in {arguments.samples:.0e} samples of noise (asked: 0 packets)")


if __name__ == "__main__":
    main()
