"""The blocks against GNU Radio itself: its processes, on this machine, running the flowgraphs of docs/gnuradio."""

import subprocess
import tempfile
import threading
import time

import numpy as np
import pytest
from conftest import ROOT
from test_gnuradio_sockets import OTHER, Sending

from blocks.sdr.gnuradio import GnuradioMessageSink, GnuradioMessageSource, GnuradioSink, GnuradioSource
from flowgraph import Flowgraph
from flowgraph.block import Context, Packet, Tag
from flowgraph.testing import assert_same_stream, recut

PYTHON = "/usr/bin/python3"
EXAMPLES = ROOT / "docs" / "gnuradio"
RNG = np.random.default_rng(5)


def missing():
    try:
        return subprocess.run([PYTHON, "-c", "import gnuradio"], capture_output=True).returncode != 0
    except OSError:
        return True


pytestmark = pytest.mark.skipif(missing(), reason="needs GNU Radio: apt-get install --no-install-recommends gnuradio")


def through(sink, source, packets):
    """Return what comes back; sent once the way back is open, as GNU Radio's PUB Sink drops what nobody wants."""
    source.start()
    assert source.receiver.request_lost.poll(20_000)
    time.sleep(0.2)
    sending = Sending(sink, packets)
    source.context.checkpoint = sending.check
    try:
        made = list(source.produce())
    finally:
        source.stop()
    sending.join()
    return made


class Example:
    """An example at work: `to` is where it receives from, `back` where it sends to."""

    def __init__(self, folder, program, *options):
        self.to, self.back = (f"ipc://{folder}/{name}" for name in ("to", "back"))
        ends = ("--receive", self.to, "--send", self.back)
        self.command = [PYTHON, str(EXAMPLES / program), *ends, *map(str, options)]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def example():
    started = []
    with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as folder:

        def start(*arguments):
            started.append(Example(folder, *arguments))
            return started[-1]

        yield start
        for each in started:
            each.kill()


@pytest.mark.parametrize(
    ("item", "vlen", "pattern"),
    [
        ("complex64", 1, "push"),
        ("float32", 1, "pub"),
        ("int32", 1, "rep"),
        ("int16", 3, "push"),
        ("uint8", 1, "rep"),
        ("complex64", 5, "pub"),
    ],
)
def test_items_pass_through_gnuradio(example, item, vlen, pattern):
    count = 200_000 // vlen
    numbers = RNG.integers(0, 100, (count, vlen) if vlen > 1 else count).astype(item)
    key = {"key": "radio"} if pattern == "pub" else {}
    options = [word for name, value in key.items() for word in (f"--{name}", value)]
    peer = example("streams.py", "--item", item, "--vlen", vlen, "--pattern", pattern, *options)
    made = through(
        GnuradioSink({"endpoint": peer.to, "socket": pattern, **key}),
        GnuradioSource(
            {"endpoint": peer.back, "socket": OTHER[pattern], "item": item, "vlen": vlen, "items": count, **key}
        ),
        recut([Packet(numbers, last=True)], [10_001]),
    )
    np.testing.assert_array_equal(np.concatenate([packet.data for packet in made]), numbers)


@pytest.mark.parametrize("pattern", OTHER)
def test_frames_and_tags_pass_through_gnuradio(example, pattern):
    peer = example("streams.py", "--item", "uint8", "--pattern", pattern, "--tags")

    def frame(number, count):
        tags = (Tag(0, "channel", {"n0": 0.1, "list": [1, None]}), Tag(8 * count - 800, "late", "x"))
        return Packet(RNG.integers(0, 256, count, np.uint8), number, packed=True, tags=tags, last=True)

    frames = [frame(0, 100_000), frame(1, 100), frame(3, 7001)]
    told = []
    ends = {"tags": True, "length_tag": "packet_len", "end_tag": "end"}
    made = through(
        GnuradioSink({"endpoint": peer.to, "socket": pattern, "tail": 1, **ends}),
        GnuradioSource(
            {"endpoint": peer.back, "socket": OTHER[pattern], "item": "bits", **ends}, context=Context(warn=told.append)
        ),
        recut(frames, [80_000]),
    )
    assert_same_stream(made, frames)
    assert told == []


@pytest.mark.parametrize("pattern", OTHER)
@pytest.mark.parametrize("item", ["uint8", "complex64"])
def test_pdus_pass_through_gnuradio(example, pattern, item):
    peer = example("messages.py", "--pattern", pattern)
    frames = [
        Packet(RNG.integers(0, 99, 50 * n).astype(item), n, tags=(Tag(0, "name", "dog"),), last=True) for n in (1, 2, 5)
    ]
    made = through(
        GnuradioMessageSink({"endpoint": peer.to, "socket": pattern}),
        GnuradioMessageSource({"endpoint": peer.back, "socket": OTHER[pattern], "item": item, "frames": 3}),
        frames,
    )
    assert_same_stream(made, [Packet(p.data, p.frame, tags=(*p.tags, Tag(0, "seen", True)), last=True) for p in frames])


@pytest.mark.parametrize("name", ["streams", "messages"])
def test_the_examples_of_both_sides_belong_together(example, tmp_path, name):
    peer = example(f"{name}.py")
    link = Flowgraph.load(EXAMPLES / f"{name}.yaml", to=peer.to, back=peer.back).run(tmp_path / "out").sections["link"]
    assert (link["bits"], link["bit_errors"], link["bit_frames_lost"]) == (400_000, 0, 0)


@pytest.mark.parametrize("pattern", OTHER)
def test_a_flowgraph_that_is_killed_and_started_anew_goes_on(example, pattern):
    """What was under way in it is lost; what comes is in order, ends with the last item, and repeats nothing.

    No more is sent until the way back is open again: GNU Radio's PUB Sink would drop it, and it could be all there is.
    """
    peer = example("streams.py", "--item", "int32", "--pattern", pattern, "--tags")
    numbers = np.arange(300_000, dtype=np.int32)

    open_again = threading.Event()
    open_again.set()

    class Slow(GnuradioSink):
        def work(self, items):
            time.sleep(0.01)
            open_again.wait(20)
            super().work(items)

    end = {"tags": True, "end_tag": "end"}
    sink = Slow({"endpoint": peer.to, "socket": pattern, "tail": 1, **end})
    source = GnuradioSource(
        {"endpoint": peer.back, "socket": OTHER[pattern], "item": "int32", "silence": "15 s", **end}
    )
    sending = Sending(sink, recut([Packet(numbers, last=True)], [3000]))
    came = []
    source.start()
    for packet in source.produce():
        came.append(packet.data)
        if len(came) == 20:
            open_again.clear()
            peer.kill()
            handshakes = source.receiver.request_lost
            while handshakes.poll(0):
                handshakes.recv_multipart()
            peer.start()
            assert handshakes.poll(20_000)
            time.sleep(0.2)
            open_again.set()
    source.stop()
    sending.join()
    came = np.concatenate(came)
    assert (np.diff(came) > 0).all()
    assert came[-1] == numbers[-1]
    assert len(came) > len(numbers) // 2
