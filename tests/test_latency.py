"""Latency of frames, by what blocks tell of them."""

import pytest

from flowgraph.latency import Latency, timed
from flowgraph.spec import BlockSpec, GraphSpec, WireSpec, WorkerSpec


def latency(wires, distant=()):
    """Return the `Latency` of blocks with wires as `a.x -> b.y`."""
    ends = [wire.split(" -> ") for wire in wires]
    names = dict.fromkeys(end.split(".")[0] for pair in ends for end in pair)
    blocks = [BlockSpec(name, "any", {}, "there" if name in distant else "here") for name in names]
    wires = [WireSpec(source, target) for source, target in ends]
    return Latency(GraphSpec("graph", 0, blocks, wires, [WorkerSpec("here"), WorkerSpec("there", "10.0.0.2")]))


def test_the_slowest_way_is_taken_and_adds_up():
    told = latency(["caption.text -> pack.text", "image.pixels -> pack.pixels", "pack.bits -> save.bits",
                    "image.pixels -> meter.sent"])  # fmt: skip
    for frame, late in ((0, 0.0), (1, 5.0)):
        told.add([
            ("caption", "text", frame, 10.0, 11.0 + late),  # began with the frame; handed it on
            ("image", "pixels", frame, 9.0, 12.0),
            ("pack", "bits", frame, 13.0 + late, 13.5 + late),
            ("meter", "", frame, 12.5, 12.5),
            ("save", "", frame, 14.0 + late, 16.0 + late),
        ])  # fmt: skip
    told.add([("caption", "text", 2, 20.0, 21.0)])  # never comes to a sink
    ways = told.of_frames()
    assert ways[0] == {"save": (0.5, 2.0), "pack": (1.0, 0.5), "image": (0.0, 3.0)}
    assert ways[1] == {"save": (0.5, 2.0), "pack": (2.0, 0.5), "caption": (0.0, 6.0)}
    assert told.summary(ways.values()) == {
        "frames": 2, "median_s": 9.0, "mean_s": 9.0, "max_s": 11.0,
        "blocks": {
            "caption": {"waiting_s": 0.0, "working_s": 3.0}, "image": {"waiting_s": 0.0, "working_s": 1.5},
            "pack": {"waiting_s": 1.5, "working_s": 0.5}, "save": {"waiting_s": 0.5, "working_s": 2.0},
        },
    }  # fmt: skip


@pytest.mark.parametrize("wires", [
    ["bits.bits -> modulate.bits", "modulate.samples -> air.x", "air.x -> demodulate.x", "demodulate.x -> save.x"],
    ["bits.bits -> modulate.bits", "radio.samples -> demodulate.x", "demodulate.x -> save.x"],
])  # fmt: skip
def test_what_finds_frames_in_samples_without_end_has_waited_for_them(wires):
    told = latency(wires)
    for frame in (0, 1):
        told.add([
            ("bits", "bits", frame, 0.0, 1.0), ("modulate", "", frame, 2.0, 4.0),
            ("demodulate", "x", frame, 7.0, 7.5), ("save", "", frame, 8.0, 9.0),
        ])  # fmt: skip
    told.add([("radio" if "radio" in wires[1] else "air", "samples", 0, 0.5, 20.0)])  # the one frame that samples are
    way = {"save": (0.5, 1.0), "demodulate": (3.0, 0.5), "modulate": (1.0, 2.0), "bits": (0.0, 1.0)}
    assert told.of_frames() == {0: way, 1: way}


def test_what_another_worker_tells_later_counts_too():
    """A way that was found is found again with a word, or with a further sink, that comes after it."""
    told = latency(["source.x -> relay.x", "relay.x -> sink.x", "source.x -> meter.x"])
    told.add([("source", "x", 0, 1.0, 2.0), ("sink", "", 0, 5.0, 6.0)])
    assert told.of_frames() == {0: {"sink": (3.0, 1.0), "source": (0.0, 1.0)}}  # the relay's word is under way
    told.add([("relay", "x", 0, 3.0, 4.0)])
    way = {"sink": (1.0, 1.0), "relay": (1.0, 1.0), "source": (0.0, 1.0)}
    assert told.of_frames() == {0: way}
    told.add([("meter", "", 0, 2.5, 9.0)])
    assert told.of_frames() == {0: {"meter": (0.5, 6.5), "source": (0.0, 1.0)}}
    told.add([("meter", "", 0, 2.5, 5.0)])
    assert told.of_frames() == {0: way}


@pytest.mark.parametrize(("distant", "frames"), [("relay", 1), ("source", 0), ("sink", 0)])
def test_no_time_of_another_hosts_clock_is_taken(distant, frames):
    told = latency(["source.x -> relay.x", "relay.x -> sink.x"], {distant})
    told.add([("source", "x", 0, 1.0, 2.0), ("relay", "x", 0, 9e9, 9e9), ("sink", "", 0, 5.0, 6.0)])
    ways = told.of_frames()
    assert len(ways) == told.summary(ways.values())["frames"] == frames
    assert ways == ({0: {"sink": (3.0, 1.0), "source": (0.0, 1.0)}} if frames else {})


def test_of_a_stream_without_end_ever_fewer_frames_are_timed():
    assert [sum(map(timed, range(1 << n, 2 << n))) for n in (9, 10, 11, 15)] == [512, 512, 512, 512]
    assert not any(timed((1 << 30) + n) for n in range(1, 1 << 20))
