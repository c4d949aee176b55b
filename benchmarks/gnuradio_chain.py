"""GNU Radio's own blocks: bytes -> 4 bits -> Gray 16QAM -> true Gaussian noise at Eb/N0 10 dB -> decisions -> bytes.

Needs nothing but GNU Radio 3.10 and the Python that it is installed for: `/usr/bin/python3 gnuradio_chain.py`. Prints
million symbols per CPU-second of all its threads (median of three runs), the bit error rate, and GNU Radio's version.
"""

import json
import math
import statistics
import time

import numpy as np
from gnuradio import analog, blocks, digital, gr

BYTES = 10_000_000  # of a run: 20 million symbols
RUNS = 3
STEP = 1 / math.sqrt(10)
LEVELS = (STEP, 3 * STEP, -STEP, -3 * STEP)  # by Gray label: sign, then amplitude
POINTS = [complex(LEVELS[label >> 2], LEVELS[label & 3]) for label in range(16)]
SIGMA = math.sqrt(0.1 / 4)  # of a complex sample, where Es = 1


def chain(data, sink):
    """Return the flowgraph from `BYTES` bytes, `data` over and over, to a sink of bytes."""
    no_scaling = digital.constellation.NO_NORMALIZATION
    points = digital.constellation_rect(POINTS, list(range(16)), 4, 4, 4, 2 * STEP, 2 * STEP, no_scaling)
    add = blocks.add_cc()
    top = gr.top_block()
    top.connect(
        blocks.vector_source_b(data.tolist(), True),
        blocks.head(gr.sizeof_char, BYTES),
        blocks.packed_to_unpacked_bb(4, gr.GR_MSB_FIRST),
        digital.chunks_to_symbols_bc(POINTS, 1),
        add,
        digital.constellation_decoder_cb(points.base()),
        blocks.unpacked_to_packed_bb(4, gr.GR_MSB_FIRST),
        sink,
    )
    top.connect(analog.noise_source_c(analog.GR_GAUSSIAN, SIGMA, 1), (add, 1))
    return top


def main():
    data = np.random.default_rng(1).integers(0, 256, 1 << 20, dtype=np.uint8)
    received = blocks.vector_sink_b()
    chain(data, received).run()  # the first run is not timed
    decided = np.array(received.data(), np.uint8)
    errors = np.unpackbits(decided ^ np.resize(data, len(decided))).sum()
    rates = []
    for _ in range(RUNS):
        top = chain(data, blocks.null_sink(gr.sizeof_char))
        began = time.process_time()
        top.run()
        rates.append(2 * BYTES / 1e6 / (time.process_time() - began))
    ber = float(errors) / (8 * len(decided))
    print(json.dumps({"msym_per_cpu_s": statistics.median(rates), "ber": ber, "version": gr.version()}))


if __name__ == "__main__":
    main()
