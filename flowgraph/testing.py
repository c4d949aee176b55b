"""The test jig: runs one block without a graph, and shows that packet boundaries do not matter to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from flowgraph.block import Block, Context, Packet
from flowgraph.runner import Runner, join, split

Streams = dict[str, list[Packet]]


def run_block(block: Block, inputs: Streams | None = None, alternate: bool = True) -> Streams:
    """Return what `block` hands out, by output, for the packets of every input.

    With several inputs the packets are fed in turns, or one input after the other (`alternate=False`).

    >>> from flowgraph.block import Port
    >>> class Double(Block):
    ...     inputs, outputs = (Port("x", "float32"),), (Port("y", "float32"),)
    ...     def work(self, x): return x.derive(2 * x.data)
    >>> run_block(Double(), {"x": [Packet(np.ones(2, np.float32), last=True)]})["y"][0].data
    array([2., 2.], dtype=float32)
    """
    made: Streams = {port.name: [] for port in block.outputs}
    runner = Runner(block, lambda name, packet: made[name].append(packet), set(inputs or {}))
    try:
        block.start()
        if not block.inputs:
            for _ in runner.produce():
                pass
            return made
        queues = {name: list(packets) for name, packets in (inputs or {}).items()}
        while any(queues.values()):
            for name, queue in queues.items():
                for packet in queue[: 1 if alternate else None]:
                    runner.feed(name, packet)
                del queue[: 1 if alternate else None]
        for name in queues:
            runner.end(name)
    finally:
        block.stop()
    return made


def recut(packets: Iterable[Packet], sizes: Iterable[int]) -> list[Packet]:
    """Return the same stream cut into packets of `sizes` items, in turn, for ever; frames keep their ends."""
    sizes = list(sizes)
    out, turn = [], 0
    for packet in packets:
        while packet.count > sizes[turn % len(sizes)]:
            piece, packet = split(packet, sizes[turn % len(sizes)])
            out.append(piece)
            turn += 1
        out.append(packet)
        turn += 1
    return out


def whole_frames(packets: Iterable[Packet]) -> list[Packet]:
    """Return a stream as one packet a frame."""
    frames: dict[int, list[Packet]] = {}
    for packet in packets:
        frames.setdefault(packet.frame, []).append(packet)
    return [join(pieces) for pieces in frames.values()]


def assert_same_stream(got: Iterable[Packet], want: Iterable[Packet]) -> None:
    """Assert that two streams carry the same frames, items (to the last bit), tags and ends, however they are cut."""
    got, want = whole_frames(got), whole_frames(want)
    assert [p.frame for p in got] == [p.frame for p in want]
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.count, a.last) == (b.dtype, b.count, b.last), f"frame {a.frame}"
        assert sorted(a.tags, key=str) == sorted(b.tags, key=str), f"frame {a.frame}: tags {a.tags} are not {b.tags}"
        np.testing.assert_array_equal(a.data, b.data, err_msg=f"frame {a.frame}")


def check_packet_invariance(
    make: type[Block],
    params: dict[str, Any],
    inputs: Streams,
    seed: int = 1,
    ragged: Iterable[int] = (3, 1, 17, 64, 5),
) -> Streams:
    """Assert that a block makes the same of its input whole, one item at a time and ragged; return what it makes."""

    def run(cut: Iterable[int] | None, alternate: bool = True) -> Streams:
        block = make(params, "block", Context(seed=seed))
        return run_block(block, {n: recut(p, cut) if cut else p for n, p in inputs.items()}, alternate)

    whole = run(None)
    for made in (run([1]), run(ragged), run(ragged, alternate=False)):
        for name, packets in whole.items():
            assert_same_stream(made[name], packets)
    return whole
