"""GNU Radio's own blocks: bytes -> 4 bits -> Gray 16QAM -> true Gaussian noise at Eb/N0 10 dB -> decisions -> bytes.

Needs nothing but GNU Radio 3.10 and the Python that it is installed for: `/usr/bin/python3 gnuradio_chain.py`. Prints
million symbols per CPU-second of all its threads, medians of three runs: of one flowgraph, and of three that gr-zeromq
joins over `ipc` (in one process, but every socket has a context of its own: all bytes cross the kernel); then the bit
error rate, and GNU Radio's version.
"""

import json
import math
import statistics
import tempfile
import time

import numpy as np
from gnuradio import analog, blocks, digital, gr, zeromq

BYTES = 10_000_000  # of a run: 20 million symbols
RUNS = 3
SECONDS = 1.5  # of a run over ipc: streams of gr-zeromq have no end
STEP = 1 / math.sqrt(10)
LEVELS = (STEP, 3 * STEP, -STEP, -3 * STEP)  # by Gray label: sign, then amplitude
POINTS = [complex(LEVELS[label >> 2], LEVELS[label & 3]) for label in range(16)]
SIGMA = math.sqrt(0.1 / 4)  # of a complex sample, where Es = 1


def rectangular():
    """Return Gray 16QAM, decided by thresholds."""
    no_scaling = digital.constellation.NO_NORMALIZATION
    return digital.constellation_rect(POINTS, list(range(16)), 4, 4, 4, 2 * STEP, 2 * STEP, no_scaling)


def transmitter(data):
    """Return the blocks that map `data`, over and over."""
    source, unpack = blocks.vector_source_b(data.tolist(), True), blocks.packed_to_unpacked_bb(4, gr.GR_MSB_FIRST)
    return source, unpack, digital.chunks_to_symbols_bc(POINTS, 1)


def receiver():
    """Return the blocks that decide."""
    decoder = digital.constellation_decoder_cb(rectangular().base())
    return decoder, blocks.unpacked_to_packed_bb(4, gr.GR_MSB_FIRST)


def noise(top, add):
    top.connect(analog.noise_source_c(analog.GR_GAUSSIAN, SIGMA, 1), (add, 1))


def chain(data, sink):
    """Return the flowgraph from `BYTES` bytes to a sink of bytes."""
    source, *mapper = transmitter(data)
    add, top = blocks.add_cc(), gr.top_block()
    top.connect(source, blocks.head(gr.sizeof_char, BYTES), *mapper, add, *receiver(), sink)
    noise(top, add)
    return top


def over_ipc(data):
    """Return million symbols per CPU-second of three flowgraphs, joined by gr-zeromq over ipc."""
    sink, add = blocks.null_sink(gr.sizeof_char), blocks.add_cc()
    send, air, receive = gr.top_block(), gr.top_block(), gr.top_block()
    with tempfile.TemporaryDirectory() as folder:
        sent, noisy = f"ipc://{folder}/sent", f"ipc://{folder}/noisy"
        item = gr.sizeof_gr_complex
        send.connect(*transmitter(data), zeromq.push_sink(item, 1, sent))
        air.connect(zeromq.pull_source(item, 1, sent), add, zeromq.push_sink(item, 1, noisy))
        noise(air, add)
        receive.connect(zeromq.pull_source(item, 1, noisy), *receiver(), sink)
        for top in (receive, air, send):
            top.start()
        time.sleep(SECONDS / 2)
        items, spent = sink.nitems_read(0), time.process_time()
        time.sleep(SECONDS)
        items, spent = sink.nitems_read(0) - items, time.process_time() - spent
        for top in (send, air, receive):
            top.stop()
        for top in (send, air, receive):
            top.wait()
    return 2 * items / spent / 1e6


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
    ipc = statistics.median(over_ipc(data) for _ in range(RUNS))
    figures = {"inproc": statistics.median(rates), "ipc": ipc, "ber": ber, "version": gr.version()}
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
