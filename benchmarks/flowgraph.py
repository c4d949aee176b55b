"""The whole path as a flowgraph: bits -> 16QAM -> true Gaussian noise -> hard decisions -> error count.

Speed is symbols per CPU-second of all processes of the run, start-up taken out: the run is done short and long, and the
difference counts. All of it, peers too, is on one core, where threads do not slow each other down by what they share;
but for the last figure: what two cores gain over one, in seconds, with a thread for each block, and with the noise of
several packets drawn at once besides; and, what bounds it, two flowgraphs that know nothing of each other.

GNU Radio does the same in the same run where /usr/bin/python3 has it (`gnuradio_chain.py`, in one flowgraph and in
three over gr-zeromq); else the ratios are to figures stated below, from another machine. The loop that the flowgraph is
held against counts the same work: source, map, noise, decisions, error count, of the same frames in the same packets;
not the figures of every frame that a flowgraph writes into its report. `python -m benchmarks.flowgraph` prints the
table alone.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.kernels import gnuradio
from flowgraph.launch import KEEP_MEMORY

ROOT = Path(__file__).parent.parent
FRAME_BYTES, PACKET_BYTES = 1 << 20, 512 << 10
SHORT, LONG, LONGER = 12, 140, 500  # frames; a run's start is uncertain by 0.2 s, which two cores feel most
WIRE_BYTES = 128 << 10  # of a packet by which a wire is measured
RUNS = 3
ROUNDS = 5  # of one core and two
# Msym per CPU-second of the same chain: GNU Radio 3.10.5 on an AMD EPYC with AVX-512, one core, measured on its own.
GNURADIO_STATED = {"inproc": 12.5, "fused": 12.5, "ipc": 13.0}

GRAPH = """\
flowgraph: benchmark
seed: 1
vars: {{bits: 1000}}
{workers}
blocks:
  source: {{use: bit_source, bits: $bits, frame: {frame}, packet: {packet}}}
  map:    {{use: qam_mapper}}
  air:    {{use: awgn_channel, ebn0: 10 dB}}
  demap:  {{use: qam_demapper}}
  errors: {{use: error_meter}}
wires:
  - source.bits -> map.bits
  - map.symbols -> air.symbols -> demap.symbols
  - demap.bits -> errors.received
  - source.bits -> errors.sent
"""
WORKERS = {
    "inproc": "",
    "fused": "fuse: [source, map, air, demap, errors]",
    "ipc": "workers:\n  tx: {blocks: [source, map]}\n  air: {blocks: [air]}\n  rx: {blocks: [demap, errors]}",
}


@contextmanager
def on(cpus: Iterable[int]) -> Iterator[None]:
    """Keep this process and those that it starts to some of the machine's cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _run(graph: Path, frames: int, out: Path, threads: int) -> tuple[float, float, float]:
    """Return CPU seconds, wall seconds and the bit error rate of one run, `threads` for a block's kernels."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [
            sys.executable,
            str(ROOT / "run_flowgraph.py"),
            str(graph),
            "--quiet",
            f"--set=bits={frames * FRAME_BYTES * 8}",
            f"--out={out}",
        ],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    link = json.loads((out / "report.json").read_text())["link"]
    return cpu, time.perf_counter() - began, link["ber"]


def measure(placement: str, threads: int = 1, runs: int = RUNS, frames: int = LONG) -> dict[str, float]:
    """Return Msym per CPU-second and per second, medians over runs, for a placement of the blocks."""
    symbols = (frames - SHORT) * FRAME_BYTES * 2 / 1e6
    per_cpu, per_second = [], []
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "graph.yaml")
        graph.write_text(GRAPH.format(workers=WORKERS[placement], frame=8 * FRAME_BYTES, packet=8 * PACKET_BYTES))
        _run(graph, SHORT, Path(folder, "out"), threads)  # compiles the kernels
        for _ in range(runs):
            short = _run(graph, SHORT, Path(folder, "out"), threads)
            long = _run(graph, frames, Path(folder, "out"), threads)
            per_cpu.append(symbols / (long[0] - short[0]))
            per_second.append(symbols / (long[1] - short[1]))
    return {
        "msym_per_cpu_s": statistics.median(per_cpu),
        "msym_per_s": statistics.median(per_second),
        "ber": long[2],
    }


LOOP = """
import statistics, time
from blocks.phy.channel import AwgnChannel
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.sink.errors import ErrorMeter
from blocks.source.bits import BitSource
from flowgraph.runner import Runner

source = BitSource({{"bits": {bits} * ({runs} + 1), "frame": {frame}, "packet": {packet}}})
chain, meter = [QamMapper(), AwgnChannel({{"ebn0": 10}}), QamDemapper()], ErrorMeter()
for block in (source, *chain, meter):
    block.start()
count = Runner(meter, lambda port, packet: None)
rates = []
began = time.process_time()
for number, packet in enumerate(source.produce(), 1):
    received = packet
    for block in chain:
        received = block.work(received)
    count.feed("sent", packet)
    count.feed("received", received)
    if number % {packets} == 0:
        rates.append({bits} / 4 / 1e6 / (time.process_time() - began))
        began = time.process_time()
print(statistics.median(rates[1:]))
"""


def kernels_in_a_loop() -> float:
    """Return Msym per CPU-second of the same blocks, called on the same packets in a loop."""
    bits = 32 * FRAME_BYTES * 8
    sizes = {"frame": 8 * FRAME_BYTES, "packet": 8 * PACKET_BYTES, "packets": bits // (8 * PACKET_BYTES)}
    program = LOOP.format(bits=bits, runs=RUNS, **sizes)
    environment = {**KEEP_MEMORY, **os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment, cwd=ROOT
    )
    return float(done.stdout)


def wire_cost() -> float:
    """Return microseconds of CPU that a packet of 128 KiB costs on an `inproc` wire, block overhead included."""
    import numpy as np

    from flowgraph import Block, Flowgraph, Packet, Port

    packets, relays = 20_000, 3

    class Zeros(Block):
        outputs = (Port("x", "uint8"),)

        def produce(self):
            data = np.zeros(WIRE_BYTES, np.uint8)
            for frame in range(packets):
                yield Packet(data, frame, last=True)

    class Relay(Block):
        inputs, outputs = (Port("x", "uint8"),), (Port("x", "uint8"),)

        def work(self, x):
            return x

    class Drain(Block):
        inputs = (Port("x", "uint8"),)

        def work(self, x):
            pass

    costs = []
    for _ in range(RUNS):
        graph = Flowgraph("wires")
        graph.connect(Zeros(), *(Relay() for _ in range(relays)), Drain())
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            graph.run(folder)
            costs.append((time.process_time() - began) / packets / (relays + 1) * 1e6)
    return statistics.median(costs)


def two_cores() -> dict[str, float]:
    """Return how many times as fast as on one core the flowgraph runs on two; nothing where there is but one.

    Medians over rounds in which every way has its turn, as a machine that others share changes from minute to minute.
    Two flowgraphs that know nothing of each other, one a core, tell what the second core is worth.
    """
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        return {}

    def speed(cpus: Iterable[int], threads: int = 1) -> float:
        with on(cpus):
            return measure("inproc", threads, 1, LONGER)["msym_per_s"]

    rounds = []
    for _ in range(ROUNDS):
        one = speed(cpus[:1])
        with ThreadPoolExecutor(2) as pool:
            apart = sum(pool.map(speed, [[cpu] for cpu in cpus]))
        rounds.append(
            {
                "a thread a block": speed(cpus) / one,
                "and the noise of several packets at once": speed(cpus, 2) / one,
                "two flowgraphs apart": apart / one,
            }
        )
    return {way: statistics.median(each[way] for each in rounds) for way in rounds[0]}


def main() -> dict[str, Any]:
    with on(sorted(os.sched_getaffinity(0))[:1]):
        results: dict[str, Any] = {placement: measure(placement) for placement in WORKERS}
        results["gnuradio"] = measured = gnuradio("gnuradio_chain.py")
        results["kernels_in_a_loop_msym_per_cpu_s"] = loop = kernels_in_a_loop()
        results["wire_us_per_packet"] = wire_cost()
    results["two_cores"] = two_cores()
    for placement in ("inproc", "fused"):
        results[placement]["share_of_loop"] = results[placement]["msym_per_cpu_s"] / loop
    for placement, stated in GNURADIO_STATED.items():
        row = results[placement]
        row["gnuradio_msym_per_cpu_s"] = peer = (
            measured["ipc" if placement == "ipc" else "inproc"] if measured else stated
        )
        row["times_gnuradio"] = row["msym_per_cpu_s"] / peer
        print(
            f"flowgraph, {placement:6} {row['msym_per_cpu_s']:7.0f} Msym/CPU-s  {row['msym_per_s']:7.0f} Msym/s"
            f"  {row['times_gnuradio']:5.1f} x GNU Radio ({peer:.1f}, {'measured here' if measured else 'stated'})"
            f"   BER {row['ber']:.3e}"
        )
    shares = ", ".join(f"{results[each]['share_of_loop']:.0%} {each}" for each in ("inproc", "fused"))
    print(f"same kernels in a loop {loop:5.0f} Msym/CPU-s; of which the flowgraph reaches {shares}")
    print(f"a wire costs {results['wire_us_per_packet']:.1f} us of CPU a packet of {WIRE_BYTES >> 10} KiB (inproc)")
    for way, gain in results["two_cores"].items():
        print(f"two cores, {way}: {gain:.2f} x one core, in seconds")
    return results


if __name__ == "__main__":
    main()
