"""GNU Radio's own blocks, stage by stage, on the same work as `kernels.py`: 16QAM, fading, Viterbi, LDPC.

Needs nothing but GNU Radio 3.10 and the Python that it is installed for: `/usr/bin/python3 gnuradio_stages.py`. Every
stage is a flowgraph of its own from memory into nowhere; bits come and go packed, as ours do. LLRs come from its table
of 2^16 places, which is several times faster than its exact ones; fading is its sum of 8 sinusoids. Its LDPC decoder,
sum-product for any parity-check matrix, gets one of as many bits as ours, with fewer ones a bit. Prints million symbols
(of codes payload bits) per CPU-second of all threads, medians of three runs.
"""

import json
import math
import statistics
import tempfile
import time

import numpy as np
from gnuradio import analog, blocks, channels, digital, fec, gr
from gnuradio_chain import POINTS, SIGMA, rectangular

RUNS = 3
SECONDS = 1.0  # of a run, about, or more
ITEMS = 100_000  # of a run, at least
PATIENCE_S = 60.0
VITERBI_BITS = 8192
POLYNOMIALS = [109, 79]  # 133 and 171 octal, which it reads from the right
LDPC_CIRCULANT = 1283  # a prime, of which 6 are 7,698 bits
LDPC_ITERATIONS = 20
LDPC_SIGMA = 0.42  # what it is told of the noise; at 2 dB it leaves the fewest bits wrong, 4 in 10,000


def packed_bits():
    return np.random.default_rng(1).integers(0, 256, 1 << 18, dtype=np.uint8)


def symbols():
    labels = packed_bits() & 15
    return np.array(POINTS, np.complex64)[labels].tolist()


def received():
    noise = np.random.default_rng(2).standard_normal((1 << 18, 2)) @ [1, 1j] * SIGMA / math.sqrt(2)
    return (np.array(symbols()) + noise).tolist()


def zeros_over_noise(count, ebn0_db, rate):
    """Return floats, negative for 0, of zero bits sent as BPSK: the word of zeros is one of every code."""
    sigma = (10 ** (-ebn0_db / 10) / (2 * rate)) ** 0.5
    return (np.random.default_rng(5).standard_normal(count) * sigma - 1).tolist()


def mapper():
    unpack = blocks.packed_to_unpacked_bb(4, gr.GR_MSB_FIRST)
    return [(blocks.vector_source_b(packed_bits().tolist(), True), unpack, digital.chunks_to_symbols_bc(POINTS, 1))]


def with_noise(*blocks_before):
    add = blocks.add_cc()
    return [(*blocks_before, add), (analog.noise_source_c(analog.GR_GAUSSIAN, SIGMA, 1), (add, 1))]


def awgn():
    return with_noise(blocks.vector_source_c(symbols(), True))


def rayleigh():
    return with_noise(blocks.vector_source_c(symbols(), True), channels.fading_model(8, 0.001, False, 4.0, 1))


def decide():
    decoder = digital.constellation_decoder_cb(rectangular().base())
    pack = blocks.unpacked_to_packed_bb(4, gr.GR_MSB_FIRST)
    return [(blocks.vector_source_c(received(), True), decoder, pack)]


def llrs():
    points = rectangular()
    points.gen_soft_dec_lut(8)
    return [(blocks.vector_source_c(received(), True), digital.constellation_soft_decoder_cf(points.base()))]


def viterbi():
    decoder = fec.cc_decoder.make(VITERBI_BITS, 7, 2, POLYNOMIALS, 0, -1, fec.CC_TERMINATED, False)
    words = zeros_over_noise(2 * (VITERBI_BITS + 6) * 16, 4.0, 0.5)
    return [(blocks.vector_source_f(words, True), fec.extended_decoder(decoder, None, puncpat="11"))]


def array_code(p):
    """Return a regular LDPC code of rate 1/2 in alist format: 3 by 6 circulants, that of row i and column j by i j.

    J. L. Fan, "Array codes as low-density parity-check codes", 2000.
    """
    columns = [[i * p + (r + i * j) % p + 1 for i in range(3)] for j in range(6) for r in range(p)]
    rows = [[j * p + (r - i * j) % p + 1 for j in range(6)] for i in range(3) for r in range(p)]
    lines = [(6 * p, 3 * p), (3, 6), [3] * 6 * p, [6] * 3 * p, *columns, *rows]
    return "".join(f"{' '.join(map(str, line))}\n" for line in lines)


def ldpc():
    with tempfile.NamedTemporaryFile("w", suffix=".alist") as file:
        file.write(array_code(LDPC_CIRCULANT))
        file.flush()
        decoder = fec.ldpc_decoder.make(file.name, LDPC_SIGMA, LDPC_ITERATIONS)
    words = zeros_over_noise(6 * LDPC_CIRCULANT * 16, 2.0, 0.5)
    return [(blocks.vector_source_f(words, True), fec.extended_decoder(decoder, None))]


# Work as `kernels.py` names it: the flowgraph, the size of its items, and symbols or payload bits of an item
STAGES = {
    "map": (mapper, gr.sizeof_gr_complex, 1),
    "AWGN": (awgn, gr.sizeof_gr_complex, 1),
    "Rayleigh fading and AWGN": (rayleigh, gr.sizeof_gr_complex, 1),
    "decide": (decide, gr.sizeof_char, 2),
    "LLRs, float32": (llrs, gr.sizeof_float, 0.25),
    "K = 7 Viterbi, soft": (viterbi, gr.sizeof_char, 1),
    "LDPC decode, 2 dB, early stop": (ldpc, gr.sizeof_char, 1),
}


def rate(make, item_bytes, worth):
    """Return million symbols or payload bits per CPU-second of one run, measured while it flows."""
    top, sink = gr.top_block(), blocks.null_sink(item_bytes)
    first, *others = make()
    for path in ((*first, sink), *others):
        top.connect(*path)
    top.start()
    time.sleep(0.3 * SECONDS)
    before, spent = sink.nitems_read(0), time.process_time()
    items = 0
    while items < ITEMS:
        if time.process_time() - spent > PATIENCE_S:
            raise RuntimeError(f"{items} items in {PATIENCE_S} CPU-seconds")
        time.sleep(SECONDS)
        items = sink.nitems_read(0) - before
    spent = time.process_time() - spent
    top.stop()
    top.wait()
    return items * worth / spent / 1e6


def main():
    print(json.dumps({what: statistics.median(rate(*stage) for _ in range(RUNS)) for what, stage in STAGES.items()}))


if __name__ == "__main__":
    main()
