"""What a block sees: alignment, whole frames, pairing by frame, ends; and what it may leave to other threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from flowgraph.block import LIVE, Block, BlockError, Context, Packet, Params, Port, Tag
from flowgraph.changes import Changes
from flowgraph.runner import Runner, _Aligned, join, split
from flowgraph.spec import ChangeSpec
from flowgraph.testing import assert_same_stream, check_packet_invariance, recut, run_block


def bits(count, frame=0, last=True, seed=0):
    values = np.random.default_rng([seed, frame]).integers(0, 2, count).astype(np.uint8)
    return Packet(np.packbits(values), frame, count=count, packed=True, last=last)


class Aligned(Block):
    """Passes bits on and notes how many came at a time."""

    inputs = (Port("bits", "bits", align=24),)
    outputs = (Port("bits", "bits"),)
    ratio = Fraction(1)

    def start(self):
        self.counts = []

    def work(self, bits):
        self.counts.append((bits.count, bits.last))
        return bits


class Pair(Block):
    """Notes which frames came together."""

    inputs = (Port("a", "uint8"), Port("b", "uint8"), Port("c", "uint8", optional=True))

    def start(self):
        self.seen = []

    def work(self, a, b, c=None):
        self.seen.append(tuple(None if p is None else (p.frame, bytes(p.data)) for p in (a, b)))


@given(st.integers(0, 200), st.lists(st.integers(1, 40), min_size=1))
def test_recut_and_join_are_inverse(count, sizes):
    packet = bits(count).tagged(first=1)
    pieces = recut([packet], sizes)
    assert sum(piece.count for piece in pieces) == count
    assert [piece.last for piece in pieces][:-1] == [False] * (len(pieces) - 1)
    assert_same_stream(pieces, [packet])


@given(st.lists(st.integers(0, 300), min_size=1, max_size=4), st.lists(st.integers(1, 90), min_size=1))
def test_packets_come_aligned_but_for_the_end_of_a_frame(counts, sizes):
    frames = [bits(count, frame) for frame, count in enumerate(counts)]
    block = Aligned()
    made = run_block(block, {"bits": recut(frames, sizes)})["bits"]
    assert_same_stream(made, frames)
    assert all(count % 24 == 0 for count, last in block.counts if not last)


def test_after_a_loss_packets_are_on_the_grid_again():
    packet = bits(240)
    first, rest = split(packet, 29)  # 5 bits beyond a multiple of 24
    _, rest = split(rest, 41)  # lost: 29 to 69
    second, third = split(rest, 60)
    block = Aligned()
    made = run_block(block, {"bits": [first, second, third]})["bits"]
    assert [(p.offset, p.end) for p in made] == [(0, 24), (72, 120), (120, 240)]
    got, want = np.unpackbits(join(made).data), np.unpackbits(packet.data)
    want[24:72] = 0
    np.testing.assert_array_equal(got, want)


def test_jig_finds_a_block_that_minds_packet_boundaries():
    class Careless(Block):
        """Numbers its packets."""

        inputs = (Port("x", "uint8"),)
        outputs = (Port("x", "uint8"),)
        number = 0

        def work(self, x):
            self.number += 1
            return x.derive(x.data + np.uint8(self.number))

    with pytest.raises(AssertionError):
        check_packet_invariance(Careless, {}, {"x": [Packet(np.zeros(9, np.uint8), last=True)]})


def chars(text, frame, last=True, offset=0):
    return Packet(np.frombuffer(text, np.uint8), frame, offset, last=last)


@pytest.mark.parametrize("alternate", [True, False])
def test_frames_pair_by_number_whatever_the_timing_and_the_cut(alternate):
    a = recut([chars(b"one", 1), chars(b"two", 2), chars(b"three", 5)], [2])
    b = [chars(b"1", 1), chars(b"2", 2), chars(b"3", 5)]
    block = Pair()
    run_block(block, {"a": a, "b": b}, alternate)
    assert block.seen == [((1, b"one"), (1, b"1")), ((2, b"two"), (2, b"2")), ((5, b"three"), (5, b"3"))]


def test_a_frame_that_one_input_lacks_is_released_as_lost_once_a_later_one_has_come():
    block = Pair()
    block.start()
    runner = Runner(block, lambda name, packet: None, {"a", "b"})
    runner.feed("a", chars(b"x", 1))
    assert block.seen == []
    runner.feed("b", chars(b"z", 3))
    assert block.seen == [((1, b"x"), None)]
    runner.feed("a", chars(b"y", 3))
    assert block.seen == [((1, b"x"), None), ((3, b"y"), (3, b"z"))]
    runner.feed("b", chars(b"w", 4))
    runner.end("a")
    assert block.seen[-1] == (None, (4, b"w"))


def test_what_is_missing_inside_a_frame_is_an_erasure_of_known_length():
    frame = join([chars(b"ab", 0, False), chars(b"ef", 0, True, offset=4)])
    assert bytes(frame.data) == b"ab\0\0ef"
    assert frame.tags == (Tag(2, "erased", 2),)
    packet = bits(64)
    head, rest = split(packet, 13)
    _, tail = split(rest, 20)
    frame = join([head, tail])
    got, want = np.unpackbits(frame.data, count=64), np.unpackbits(packet.data)
    np.testing.assert_array_equal(got, np.where((np.arange(64) >= 13) & (np.arange(64) < 33), 0, want))
    assert frame.tags == (Tag(13, "erased", 20),)
    assert frame.derive(np.zeros(16), Fraction(1, 4)).tags == (Tag(3, "erased", 6),)  # bits 13 to 32: symbols 3 to 8


def test_a_frame_without_its_end_is_delivered_and_says_so():
    class Whole(Block):
        """Passes whole frames on."""

        inputs = (Port("x", "uint8", whole=True),)
        outputs = (Port("x", "uint8"),)

        def work(self, x):
            return x

    made = run_block(Whole(), {"x": [chars(b"ab", 0, False), chars(b"cd", 1)]})["x"]
    assert [(bytes(p.data), p.tag("truncated", False)) for p in made] == [(b"ab", True), (b"cd", False)]


def test_waiting_frames_beyond_the_memory_are_an_error_that_names_the_remedy():
    block = Pair()
    block.start()
    runner = Runner(block, lambda name, packet: None, {"a", "b"}, memory=3 << 20)
    mebibytes = [Packet(np.zeros(1 << 20, np.uint8), frame, last=True) for frame in range(4)]
    for packet in mebibytes[:3]:
        runner.feed("a", packet)
    with pytest.raises(BlockError, match="wait for input b, more than the 3 MiB allowed: raise this block's `memory`"):
        runner.feed("a", mebibytes[3])


def test_a_block_that_hands_out_what_it_has_not_declared_is_told_so():
    class Wrong(Block):
        """Hands out the wrong things."""

        inputs = (Port("x", "uint8"),)
        outputs = (Port("y", "float32"),)

        def work(self, x):
            return {"z": x} if x.frame else x

    with pytest.raises(BlockError, match="output y must be float32, not uint8"):
        run_block(Wrong(), {"x": [chars(b"a", 0)]})
    with pytest.raises(BlockError, match="hands out 'z', which is none of its outputs: y"):
        run_block(Wrong(), {"x": [chars(b"a", 1)]})
    with pytest.raises(BlockError, match="input x must be uint8, not float64"):
        run_block(Wrong(), {"x": [Packet(np.zeros(1))]})


def test_what_a_block_hands_out_is_contiguous_and_native():
    class Stride(Block):
        """Hands out every other number, big-endian."""

        outputs = (Port("x", "float64"),)

        def produce(self):
            yield Packet(np.arange(10, dtype=">f8")[::2], last=True)

    data = run_block(Stride())["x"][0].data
    assert data.flags.c_contiguous
    assert data.tobytes() == np.array([0.0, 2, 4, 6, 8]).tobytes()


@given(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1), st.sets(st.integers(0, 30)))
def test_after_a_loss_items_are_still_handed_on_by_whole_multiples(align, sizes, lost):
    packets = [p for i, p in enumerate(recut([bits(200)], sizes)) if i not in lost]
    aligned = _Aligned(align)
    handed = [piece for packet in packets for piece in aligned.push(packet)]
    whole = np.unpackbits(bits(200).data)
    for piece in handed:
        assert piece.offset % align == 0 or not piece.count
        assert piece.count % align == 0 or piece.last
        items = np.unpackbits(piece.data, count=piece.count)
        np.testing.assert_array_equal(items, whole[piece.offset : piece.end])


def test_an_erasure_across_a_cut_is_told_on_both_sides():
    packet = bits(40).with_erased(np.isin(np.arange(40), range(5, 20)))
    head, tail = split(packet, 12)
    assert (head.tags, tail.tags) == ((Tag(5, "erased", 7),), (Tag(12, "erased", 8),))
    assert join([head, tail]).tags == packet.tags == (Tag(5, "erased", 15),)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Packet(np.zeros(10, np.uint8), count=11), r"output x says 11 items from 0 on, and has \(10,\)"),
        (Packet(np.zeros(2, np.uint8), offset=-1), r"output x says 2 items from -1 on, and has \(2,\)"),
    ],
)
def test_a_block_that_miscounts_is_told_so(made, message):
    class Miscounts(Block):
        """Counts wrongly."""

        outputs = (Port("x", "uint8"),)

        def produce(self):
            yield made

    with pytest.raises(BlockError, match=message):
        run_block(Miscounts())


def test_what_waits_for_partners_is_counted_down_to_nothing():
    runner = Runner(Pair(), lambda name, packet: None, {"a", "b"})
    runner.block.start()
    whole = chars(b"abcdefgh", 0)
    for frame in range(20):
        for name in "ab":
            pieces = recut([replace(whole, frame=frame)], [3])
            for piece in pieces[frame % 2 :]:  # of every other one the beginning is lost
                runner.feed(name, piece)
    assert [runner.held(name) for name in "ab"] == [0, 0]
    assert len(runner.block.seen) == 20


def test_what_comes_late_by_a_delay_counts_as_waiting_too():
    runner = Runner(Pair(), lambda name, packet: None, {"a", "b"}, memory=3 << 20, delays={"b": 1})
    mebibytes = [Packet(np.zeros(1 << 20, np.uint8), frame, last=True) for frame in range(4)]
    for packet in mebibytes[:3]:
        runner.feed("b", packet)
    with pytest.raises(BlockError, match="4 MiB of frames wait for input a, more than the 3 MiB allowed"):
        runner.feed("b", mebibytes[3])


def test_a_frame_of_which_more_is_missing_than_fits_in_memory_is_refused():
    runner = Runner(Pair(), lambda name, packet: None, {"a", "b"}, memory=1 << 20)
    with pytest.raises(BlockError, match="frame 0 has 1048576 MiB with what is missing in it, more than the 1 MiB"):
        runner.feed("a", chars(b"end", 0, offset=1 << 40))


@pytest.mark.parametrize("sizes", [[10], [1], [3, 4]])
def test_a_stream_that_ends_within_a_multiple_ends_the_frame_and_says_so(sizes):
    block = Aligned()
    made = run_block(block, {"bits": recut([replace(bits(29), last=False)], sizes)})["bits"]
    assert block.counts == [(24, False), (5, True)]
    assert made[-1].tags == (Tag(29, "truncated", True),)


@pytest.mark.parametrize(
    ("makes", "message"),
    [
        (lambda x: None, "has handed out no end of frame 0, in which 1,000 items came"),
        (lambda x: x.derive(x.data[:10]), "has made 10 of the 1,000 of frame 0"),
        (lambda x: x.derive(x.data[:998]), "has made 998 of the 1,000 of frame 0"),
    ],
)
def test_a_block_that_loses_what_its_ratio_promises_is_told_so(makes, message):
    class Loses(Block):
        """Loses items."""

        inputs, outputs, ratio = (Port("x", "uint8"),), (Port("x", "uint8"),), Fraction(1)

        def work(self, x):
            return makes(x)

    with pytest.raises(BlockError, match=message):
        run_block(Loses(), {"x": [Packet(np.zeros(1000, np.uint8), last=True)]})


@pytest.mark.parametrize("made", [np.zeros(3, np.uint8), {"bits": np.zeros(3)}, [np.zeros(3)], b"abc", 3])
def test_what_is_no_packet_is_named_with_the_remedy(made):
    class Hand(Aligned):
        def work(self, bits):
            return made

    with pytest.raises(BlockError, match=r"^must hand out packets, not (ndarray|bytes|int): `packet.derive\(array\)`"):
        run_block(Hand(), {"bits": [bits(24)]})


class Late(Block):
    """Adds `add` in another thread, the first packet last."""

    class Params(Params):
        add: int = Field(0, json_schema_extra=LIVE)

    inputs, outputs, ratio = (Port("x", "uint8"),), (Port("x", "uint8"),), Fraction(1)

    def start(self):
        self.may = threading.Event()

    def work(self, x):
        def make():
            if x.offset == 0:
                assert self.may.wait(10)
            else:
                self.may.set()
            return x.derive(x.data + np.uint8(self.params.add))

        return self.later(make)


def aside(block, ahead=2, **runner):
    """Return a runner whose block has threads to spare, and the list of what it hands out."""
    made = []
    block.context = Context(later=ThreadPoolExecutor(ahead + 1).submit, ahead=ahead)
    block.start()
    return Runner(block, lambda port, packet: made.append(packet), **runner), made


def test_what_other_threads_make_leaves_in_order():
    runner, made = aside(Late({"add": 5}))
    for piece in recut([Packet(np.arange(90, dtype=np.uint8), last=True)], [10]):
        runner.feed("x", piece)
    assert len(made) >= 7
    runner.end("x")
    assert [packet.offset for packet in made] == list(range(0, 90, 10))
    assert np.array_equal(join(made).data, np.arange(5, 95))


def test_what_other_threads_make_has_the_parameters_as_they_were():
    class Slow(Late):
        def work(self, x):
            return self.later(lambda: time.sleep(0.05) or x.derive(x.data + np.uint8(self.params.add)))

    block = Slow()
    runner, made = aside(block, changes=Changes(block, [ChangeSpec("slow", "add", 7, 0, 20)]))
    for piece in recut([Packet(np.zeros(40, np.uint8), last=True)], [10]):
        runner.feed("x", piece)
    runner.end("x")
    assert np.array_equal(join(made).data, np.repeat(np.uint8([0, 7]), 20))


def test_what_fails_in_another_thread_fails_the_block():
    class Fails(Late):
        def work(self, x):
            return self.later(lambda: x.data[1000])

    runner, made = aside(Fails())
    runner.feed("x", Packet(np.zeros(10, np.uint8), last=True))
    with pytest.raises(IndexError):
        runner.end("x")
    assert made == []
