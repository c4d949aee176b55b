"""The kernels of the signal path beside those of CommPy, Sionna and GNU Radio: 16QAM and error correction, one thread.

Each of them that is installed does the same work in the same run; GNU Radio, which has no such calls in Python, does it
in flowgraphs of one stage (`gnuradio_stages.py`), and where it is not installed figures from another machine stand
beside. Rates are medians over CPU time, which a busy
machine disturbs least; compare ratios, for machines differ. `python -m benchmarks.kernels` prints the table, `--json
FILE` writes the figures too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before NumPy and torch are imported

import numpy as np
from rich.console import Console
from rich.table import Table

from blocks.fec import convolutional
from blocks.fec.ldpc import LdpcCode
from blocks.phy import noise, qam

SYMBOLS = 1 << 18  # of a call: 128 KiB of packed bits
COMMPY_SYMBOLS = 1 << 12  # a call of its demapper takes seconds otherwise
N0 = 0.1
CPU_SECONDS = 0.5  # of each measurement

# GNU Radio 3.10.5 on an AMD EPYC with AVX-512, one core, in flowgraphs of that block alone: its true Gaussian noise,
# its LLRs by a table of 2^16 places, its LDPC decoder for a code of 442 in 1100 bits, its K = 7 decoder
GNURADIO_STATED = {
    "map": 213.0,
    "AWGN": 25.0,
    "Rayleigh fading and AWGN": 7.7,
    "decide": 79.0,
    "LLRs, float32": 12.0,
    "map, AWGN, decide": 12.5,
    "LDPC decode, 2 dB, early stop": 1.06,
    "K = 7 Viterbi, soft": 49.0,
}
GNURADIO_PYTHON = Path("/usr/bin/python3")

Work = dict[str, tuple[Callable[[], object], int]]  # what is done -> how, and symbols (or payload bits) of a call

# Codes of rate 1/2, BPSK over white noise
LDPC, BLOCKS, LDPC_EBN0 = LdpcCode(3840, 7680, 1), 32, 2.0
VITERBI_BITS, VITERBI_EBN0 = 8192, 4.0


def llrs_of(words: np.ndarray, ebn0_db: float) -> np.ndarray:
    """Return LLRs ln p(0)/p(1) of bits sent as BPSK at rate 1/2, float32."""
    n0 = 2 * 10 ** (-ebn0_db / 10)
    received = 1 - 2.0 * words + np.random.default_rng(5).standard_normal(words.shape) * (n0 / 2) ** 0.5
    return (4 * received / n0).astype(np.float32)


def quarters(llrs: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(4 * llrs), -127, 127).astype(np.int8)


def ldpc_words() -> tuple[np.ndarray, np.ndarray]:
    """Return the payload of some blocks and their code words."""
    bits = np.random.default_rng(4).integers(0, 2, (BLOCKS, LDPC.k), np.uint8)
    return bits, LDPC.encode(bits)


def convolutional_word() -> tuple[np.ndarray, np.ndarray]:
    """Return packed payload and the bits of its code word."""
    packed = noise.random_bytes(VITERBI_BITS // 8, key=6)
    word = np.unpackbits(convolutional.encode(packed, VITERBI_BITS))
    return packed, word[: convolutional.coded_bits(VITERBI_BITS)]


def own() -> Work:
    packed = noise.random_bytes(SYMBOLS // 2, key=1)
    symbols = qam.map_symbols(packed, 4 * SYMBOLS)
    received = noise.awgn(symbols, N0, key=2)
    key = 3

    def rayleigh() -> np.ndarray:
        gains = noise.complex_normal(SYMBOLS, key, stream=noise.FADES)
        return noise.fade(symbols, gains, N0, key)

    work: dict[str, Callable[[], object]] = {
        "map": lambda: qam.map_symbols(packed, 4 * SYMBOLS),
        "AWGN": lambda: noise.awgn(symbols, N0, key),
        "Rayleigh fading and AWGN": rayleigh,
        "decide": lambda: qam.decide(received),
        "LLRs, float32": lambda: qam.llr(received, N0),
        "LLRs, int8": lambda: qam.llr(received, N0, int8=True),
        "map, AWGN, decide": lambda: qam.decide(noise.awgn(qam.map_symbols(packed, 4 * SYMBOLS), N0, key)),
        "flip bits, 4 a symbol": lambda: packed ^ noise.flips(4 * SYMBOLS, 0.01, key),
    }
    bits, words = ldpc_words()
    payload, word = convolutional_word()
    llrs, pair_llrs = quarters(llrs_of(words, LDPC_EBN0)), quarters(llrs_of(word, VITERBI_EBN0))
    codes: Work = {
        "LDPC encode, k = 3840": (lambda: LDPC.encode(bits), bits.size),
        "LDPC decode, 2 dB, early stop": (lambda: LDPC.decode(llrs), bits.size),
        "K = 7 encode": (lambda: convolutional.encode(payload, VITERBI_BITS), VITERBI_BITS),
        "K = 7 Viterbi, soft": (lambda: convolutional.decode(pair_llrs, VITERBI_BITS), VITERBI_BITS),
    }
    return {name: (run, SYMBOLS) for name, run in work.items()} | codes


def commpy() -> Work:
    from commpy.channelcoding import Trellis, conv_encode, viterbi_decode
    from commpy.channels import SISOFlatChannel
    from commpy.modulation import QAMModem

    modem, count = QAMModem(16), COMMPY_SYMBOLS
    bits = np.random.default_rng(1).integers(0, 2, 4 * count)
    symbols = modem.modulate(bits)
    many = np.tile(symbols, SYMBOLS // count)
    sigma = (modem.Es * N0) ** 0.5
    flat, fading = SISOFlatChannel(sigma, (1 + 0j, 0)), SISOFlatChannel(sigma, (0j, 1))
    received = flat.propagate(symbols)
    trellis = Trellis(np.array([6]), np.array([[0o155, 0o117]]))  # 133 and 171, which it reads from the right
    few, llrs = bits[:200], llrs_of(convolutional_word()[1], VITERBI_EBN0)[:400]
    return {
        "K = 7 encode": (lambda: conv_encode(few, trellis), len(few)),
        "K = 7 Viterbi, soft": (lambda: viterbi_decode(-llrs, trellis, 35, "unquantized"), len(few)),
        "map": (lambda: modem.modulate(bits), count),
        "AWGN": (lambda: flat.propagate(many), SYMBOLS),
        "Rayleigh fading and AWGN": (lambda: fading.propagate(many), SYMBOLS),
        "decide": (lambda: modem.demodulate(received, "hard"), count),
        "LLRs, float32": (lambda: modem.demodulate(received[:256], "soft", sigma**2), 256),
        "map, AWGN, decide": (
            lambda: modem.demodulate(flat.propagate(modem.modulate(bits)), "hard"),
            count,
        ),
    }


def sionna() -> Work:
    import torch
    from sionna.phy.channel import AWGN, FlatFadingChannel
    from sionna.phy.fec.conv import ConvEncoder, ViterbiDecoder
    from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
    from sionna.phy.mapping import Demapper, Mapper

    torch.set_num_threads(1)
    mapper, awgn, fading = Mapper("qam", 4), AWGN(), FlatFadingChannel(1, 1)
    hard, soft = (Demapper("maxlog", "qam", 4, hard_out=decided) for decided in (True, False))
    bits = torch.randint(0, 2, (4 * SYMBOLS,)).to(torch.float32)
    symbols = mapper(bits)
    received, column = awgn(symbols, N0), symbols.reshape(-1, 1)
    work: dict[str, Callable[[], object]] = {
        "map": lambda: mapper(bits),
        "AWGN": lambda: awgn(symbols, N0),
        "Rayleigh fading and AWGN": lambda: fading(column, N0),
        "decide": lambda: hard(received, N0),
        "LLRs, float32": lambda: soft(received, N0),
        "map, AWGN, decide": lambda: hard(awgn(mapper(bits), N0), N0),
    }
    ldpc = LDPC5GEncoder(LDPC.k, LDPC.n, bg="bg1")
    decoder = LDPC5GDecoder(ldpc, cn_update="offset-minsum", num_iter=20)
    code = ConvEncoder(rate=0.5, constraint_length=7, terminate=True)
    viterbi = ViterbiDecoder(encoder=code, method="soft_llr")
    bits, words = ldpc_words()
    payload = torch.from_numpy(bits.astype(np.float32))
    llrs = torch.from_numpy(-llrs_of(words, LDPC_EBN0))  # its LLRs are ln p(1)/p(0)
    pair_llrs = torch.from_numpy(-llrs_of(convolutional_word()[1], VITERBI_EBN0))
    row = torch.from_numpy(np.unpackbits(convolutional_word()[0]).astype(np.float32))[None]
    codes: Work = {
        "LDPC encode, k = 3840": (lambda: ldpc(payload), payload.numel()),
        "LDPC decode, 2 dB, early stop": (lambda: decoder(llrs), payload.numel()),
        "K = 7 encode": (lambda: code(row), VITERBI_BITS),
        "K = 7 Viterbi, soft": (lambda: viterbi(pair_llrs[None]), VITERBI_BITS),
    }
    return {name: (run, SYMBOLS) for name, run in work.items()} | codes


def gnuradio(script: str) -> dict[str, Any] | None:
    """Return what a script of ours measures of GNU Radio on this machine; None where it is not installed."""
    asked = [GNURADIO_PYTHON, "-c", "import gnuradio"]
    if not GNURADIO_PYTHON.exists() or subprocess.run(asked, capture_output=True).returncode:
        return None
    command = [GNURADIO_PYTHON, Path(__file__).with_name(script)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def rate(run: Callable[[], object], symbols: int) -> float:
    """Return million symbols (or bits) per CPU-second, the median over at least five calls."""
    run()
    spent: list[float] = []
    while len(spent) < 5 or (sum(spent) < CPU_SECONDS and len(spent) < 1000):
        began = time.process_time()
        run()
        spent.append(time.process_time() - began)
    return symbols / statistics.median(spent) / 1e6


def measure() -> dict[str, dict[str, float]]:
    """Return million symbols (of codes payload bits) per CPU-second by work and by who does it."""
    peers = {"commpy": commpy, "sionna": sionna}
    doers = {"semflow": own()} | {name: make() for name, make in peers.items() if find_spec(name)}
    figures = {
        what: {who: rate(*work[what]) for who, work in doers.items() if what in work} for what in doers["semflow"]
    }
    measured = gnuradio("gnuradio_stages.py") or {}
    for what, stated in GNURADIO_STATED.items():
        if what in measured:
            figures[what]["gnuradio"] = measured[what]
        else:
            figures[what]["gnuradio, stated"] = stated
    return figures


def show(figures: dict[str, dict[str, float]]) -> Table:
    """Return the figures as a table, the peers' with how many times faster ours is."""
    table = Table(title="Million 16QAM symbols, of codes million payload bits, per CPU-second")
    names = list(dict.fromkeys(who for rates in figures.values() for who in rates))
    for heading in ("work", *names):
        table.add_column(heading, justify="left" if heading == "work" else "right")
    for what, rates in figures.items():
        cells = [f"{rates['semflow']:.0f}"]
        for who in names[1:]:
            cells.append(f"{rates[who]:.3g} ({rates['semflow'] / rates[who]:.0f}x)" if who in rates else "")
        table.add_row(what, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    figures = measure()
    Console().print(show(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
