"""Interleaver and scrambler: what one does the other undoes, for any length, cut and item type; losses stay known."""

import numpy as np
import pytest

from blocks.fec.interleaver import Deinterleaver, Interleaver
from blocks.fec.order import block_order, random_order
from blocks.framing.scrambler import Scrambler
from blocks.gold import gold_sequence
from flowgraph.block import Packet, Tag
from flowgraph.testing import check_packet_invariance, run_block, whole_frames

KINDS = [{"length": 64}, {"length": 1024, "order_seed": 5}, {"kind": "block", "rows": 7, "length": 64}]


def streams(kind):
    random = np.random.default_rng(1)
    for frame, count in enumerate((0, 1, 63, 64, 65, 1000, 4099)):
        if kind == "bits":
            yield Packet(
                np.packbits(random.integers(0, 2, count, np.uint8)), frame, count=count, packed=True, last=True
            )
        else:
            yield Packet(random.integers(-127, 128, count).astype(kind), frame, last=True)


@pytest.mark.parametrize("kind", ["bits", "int8", "float32"])
@pytest.mark.parametrize("params", KINDS, ids=["random", "seeded", "block"])
def test_what_was_interleaved_comes_back_in_order(params, kind):
    sent = list(streams(kind))
    mixed = check_packet_invariance(Interleaver, params, {"bits": sent})["bits"]
    back = whole_frames(check_packet_invariance(Deinterleaver, params, {"bits": mixed})["bits"])
    for a, b in zip(sent, back, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    long = whole_frames(mixed)[-1]
    assert (long.data != sent[-1].data).mean() > 0.3


@pytest.mark.parametrize("params", KINDS, ids=["random", "seeded", "block"])
def test_neighbours_are_parted(params):
    """A burst of 16 lost items comes back as losses of which few are neighbours, and is told as such."""
    burst = Packet(np.ones(1024, np.int8), 0, tags=(Tag(128, "erased", 16),), last=True)
    back = whole_frames(run_block(Deinterleaver(params), {"bits": [burst]})["bits"])[0]
    lost = [tag for tag in back.tags if tag.key == "erased"]
    assert sum(tag.value for tag in lost) == 16
    assert len(lost) >= 7


def test_rows_are_written_and_columns_read():
    items = Packet(np.arange(8, dtype=np.float32), 0, last=True)
    made = run_block(Interleaver({"kind": "block", "rows": 2, "length": 8}), {"bits": [items]})["bits"]
    assert made[0].data.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_a_random_order_has_every_item_once_and_hangs_on_its_seed_alone():
    for count in (0, 1, 2, 1000):
        for seed in (0, 1, 2**64 - 1):
            np.testing.assert_array_equal(np.sort(random_order(count, seed)), np.arange(count))
    assert not np.array_equal(random_order(1000, 1), random_order(1000, 2))
    assert random_order(8, 5).tolist() == [2, 4, 3, 1, 5, 0, 6, 7]  # so it must be at the other end, too


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: block_order(-1, 2), "count must be at least 0 and rows at least 1, not -1 and 2"),
        (lambda: block_order(9, 0), "count must be at least 0 and rows at least 1, not 9 and 0"),
        (lambda: random_order(-1), r"count must be at least 0 and seed 0 to 2\^64 - 1, not -1 and 0"),
        (lambda: random_order(9, -1), r"count must be at least 0 and seed 0 to 2\^64 - 1, not 9 and -1"),
    ],
)
def test_orders_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rows_belong_to_a_block_interleaver():
    with pytest.raises(ValueError, match="must have rows with kind: block, and only then"):
        Interleaver({"rows": 3})


@pytest.mark.parametrize("kind", ["bits", "int8", "float32"])
def test_scrambling_twice_is_nothing(kind):
    sent = list(streams(kind))
    once = check_packet_invariance(Scrambler, {}, {"bits": sent})["bits"]
    twice = whole_frames(run_block(Scrambler(), {"bits": once})["bits"])
    for a, b in zip(sent, twice, strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_the_sequence_is_that_of_the_standard_and_begins_anew():
    zeros = Packet(np.zeros((1 << 20) + 10, np.uint8), 0, packed=True, last=True)
    made = whole_frames(run_block(Scrambler(), {"bits": [zeros]})["bits"])[0].data
    np.testing.assert_array_equal(np.unpackbits(made[:100]), gold_sequence(0x5EED_F10, 800))
    np.testing.assert_array_equal(made[1 << 20 :], made[:10])
    assert abs(np.unpackbits(made).mean() - 0.5) < 2e-3
