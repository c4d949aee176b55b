"""The blocks that speak GNU Radio's wire, against each other and against plain ZeroMQ sockets."""

import socket
import tempfile
import threading
import time

import numpy as np
import pytest
import zmq

from blocks.sdr.gnuradio import GnuradioMessageSink, GnuradioMessageSource, GnuradioSink, GnuradioSource
from blocks.sdr.peer import PeerLeft, Sender
from blocks.sdr.pmt import Pair, encode
from blocks.sdr.stream_header import StreamTag, encode_header
from flowgraph.block import Context, Packet, ParamsError, Tag
from flowgraph.testing import assert_same_stream, recut, run_block

RNG = np.random.default_rng(4)
OTHER = {"push": "pull", "pub": "sub", "rep": "req"}


@pytest.fixture
def endpoint():
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield f"ipc://{folder}/wire"


class Sending:
    """A sink at work in a thread of its own."""

    def __init__(self, block, packets):
        self.fault = None
        self.thread = threading.Thread(target=self._run, args=(block, packets), daemon=True)
        self.thread.start()

    def _run(self, block, packets):
        try:
            run_block(block, {"items": packets})
        except Exception as error:
            self.fault = error

    def check(self):
        """Raise what the sink has raised."""
        if self.fault:
            raise self.fault

    def join(self):
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.check()


def transfer(sink, source, packets):
    sending = Sending(sink, packets)
    source.context.checkpoint = sending.check
    made = run_block(source)["items"]
    sending.join()
    return made


def complex_frames(*sizes):
    return [
        Packet(RNG.standard_normal(2 * size, np.float32).view(np.complex64), frame, last=True)
        for frame, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("pattern", OTHER)
@pytest.mark.parametrize("tags", [False, True])
def test_frames_of_a_constant_length_arrive_however_packets_are_cut(endpoint, pattern, tags):
    frames = complex_frames(100_000, 100_000, 5000)
    made = transfer(
        GnuradioSink({"endpoint": endpoint, "socket": pattern, "tags": tags}),
        GnuradioSource(
            {"endpoint": endpoint, "socket": OTHER[pattern], "tags": tags, "frame": 100_000, "items": 205_000}
        ),
        recut(frames, [70_001, 3, 9000]),
    )
    assert_same_stream(made, frames)


@pytest.mark.parametrize("pattern", OTHER)
def test_tagged_streams_keep_frames_tags_and_bits(endpoint, pattern):
    def bits(count, frame):
        data = RNG.integers(0, 256, -(-count // 8), np.uint8)
        data[-1] &= 0xFF << (-count % 8) & 0xFF
        tags = (Tag(0, "modulation", "16qam"), Tag(0, "channel", {"n0": 0.1, "taps": [1, 2.5, None]}))
        return Packet(data, frame, count=count, packed=True, tags=tags, last=True)

    frames = [bits(count, frame) for frame, count in ((0, 800_000), (1, 13), (4, 8), (5, 20_001))]
    made = transfer(
        GnuradioSink(
            {
                "endpoint": endpoint,
                "socket": pattern,
                "tags": True,
                "length_tag": "packet_len",
                "tail": 3,
                "end_tag": "end",
            }
        ),
        GnuradioSource(
            {
                "endpoint": endpoint,
                "socket": OTHER[pattern],
                "item": "bits",
                "tags": True,
                "length_tag": "packet_len",
                "end_tag": "end",
            }
        ),
        recut(frames, [100_000, 8, 16]),
    )
    assert_same_stream(made, frames)


@pytest.mark.parametrize("pattern", OTHER)
@pytest.mark.parametrize("item", ["bits", "uint8", "int16", "float32", "complex64"])
def test_pdus_keep_frames_and_tags(endpoint, pattern, item):
    def frame(number, count):
        data = RNG.integers(0, 100, count).astype("uint8" if item == "bits" else item)
        bits = {"count": 8 * count - 3, "packed": True} if item == "bits" and count else {}
        if bits:
            data[-1] &= 0xF8
        return Packet(data, number, **bits, tags=(Tag(0, "name", "a.png"), Tag(0, "snr", 1.5)), last=True)

    frames = [frame(0, 1000), frame(2, 1), frame(3, 7)]
    made = transfer(
        GnuradioMessageSink({"endpoint": endpoint, "socket": pattern}),
        GnuradioMessageSource({"endpoint": endpoint, "socket": OTHER[pattern], "item": item, "frames": 3}),
        frames,
    )
    assert_same_stream(made, frames)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (b"\x42", "a message is left out: it is no PMT: there is no type 0x42"),
        (encode("word"), "a message is left out: it is no PDU, a pair of a dict and of a uniform vector"),
        (
            encode(Pair(None, np.zeros(2, np.float32))),
            "a PDU is left out: its items must be uint8, not float32",
        ),
    ],
)
def test_what_is_no_pdu_is_told_and_left_out(endpoint, message, sentence):
    good = encode(Pair({"self": 1, 5: "x"}, np.array([1, 2], np.uint8)))
    told, made = receive(GnuradioMessageSource, {"endpoint": endpoint, "frames": 2}, [message, good, message, good])
    assert told == [sentence, f"2 times: {sentence}"]
    assert [(p.frame, p.data.tolist()) for p in made] == [(0, [1, 2]), (1, [1, 2])]
    assert made[0].tags == (Tag(0, "self", 1), Tag(0, "5", "x"))


def receive(block_type, params, messages):
    """Return what a source tells and hands out of messages that a plain socket sends."""
    told = []

    def send():
        with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
            socket.bind(params["endpoint"])
            for message in messages:
                socket.send(message)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    made = run_block(block_type(params, context=Context(warn=told.append)))["items"]
    thread.join(5)
    return told, made


def test_ragged_and_empty_messages_are_told_and_whole_items_kept(endpoint):
    items = np.arange(6, dtype=np.float32)
    told, made = receive(
        GnuradioSource,
        {"endpoint": endpoint, "item": "float32", "items": 6},
        [items[:2].tobytes() + b"abc", b"", b"z", items[2:].tobytes()],
    )
    assert told == [
        "a message is not of whole items of 4 bytes, and 3 bytes are left out",
        "a message is not of whole items of 4 bytes, and 1 bytes are left out",
    ]
    assert np.concatenate([p.data for p in made]).tolist() == items.tolist()


def test_messages_without_the_header_for_tags_are_left_out(endpoint):
    good = [encode_header(n, [StreamTag(n + 1, "t", n)]) + bytes([n, n + 1]) for n in (0, 2)]
    told, made = receive(
        GnuradioSource,
        {"endpoint": endpoint, "item": "uint8", "tags": True, "items": 4},
        [good[0], b"", b"too short", b"x" * 100, good[1]],
    )
    sentence = (
        "a message is left out: it does not begin with GNU Radio's header for tags: does the sender have `pass_tags`?"
    )
    assert told == [sentence, f"3 times: {sentence}"]
    assert [(p.offset, p.data.tolist(), p.tags) for p in made if p.count] == [
        (0, [0, 1], (Tag(1, "t", 0),)),
        (2, [2, 3], (Tag(3, "t", 2),)),
    ]


def test_a_header_for_tags_that_is_not_expected_is_told(endpoint):
    told, _ = receive(
        GnuradioSource, {"endpoint": endpoint, "item": "uint8", "items": 20}, [encode_header(0) + bytes(1)]
    )
    assert told == ["what comes begins like GNU Radio's header for tags: if its block has `pass_tags`, set tags"]


def test_items_lost_on_the_way_are_erased_and_a_peer_that_begins_anew_goes_on(endpoint):
    """From 100 on, as a late subscriber sees it; 4 items lost; then the peer's own count begins at 0 again."""

    def message(offset, *items):
        return encode_header(offset, [StreamTag(offset, "at", offset)]) + bytes(items)

    told, made = receive(
        GnuradioSource,
        {"endpoint": endpoint, "item": "uint8", "tags": True, "frame": 5, "items": 10},
        [message(100, 1, 2), message(106, 7, 8), message(0, 9, 10)],
    )
    assert told == ["items were lost on the way from GNU Radio, or dropped there"]
    assert [(p.frame, p.offset, p.data.tolist(), p.last) for p in made] == [
        (0, 0, [1, 2], False),
        (1, 1, [7, 8], False),
        (1, 3, [9, 10], True),
    ]
    assert [p.tags for p in made] == [(Tag(0, "at", 100),), (Tag(1, "at", 106),), (Tag(3, "at", 0),)]


def test_a_tagged_stream_begins_at_its_first_tag_and_a_new_tag_ends_a_broken_frame(endpoint):
    def tag(at, key, value):
        return StreamTag(at, key, value)

    tags = [tag(2, "len", 3), tag(5, "len", 4), tag(7, "len", 2), tag(8, "other", 1), tag(9, "len", -1)]
    _, made = receive(
        GnuradioSource,
        {"endpoint": endpoint, "item": "uint8", "tags": True, "length_tag": "len", "silence": 0.1},
        [encode_header(0, tags) + bytes(range(12))],
    )
    assert [(p.frame, p.offset, p.data.tolist(), p.last) for p in made] == [
        (0, 0, [2, 3, 4], True),
        (1, 0, [5, 6], False),
        (2, 0, [7, 8], True),
    ]
    assert made[2].tags == (Tag(1, "other", 1),)


def test_silence_or_time_ends_a_stream_within_a_frame(endpoint):
    for end in ({"silence": 0.2}, {"duration": 0.2}):
        _, made = receive(GnuradioSource, {"endpoint": endpoint, "item": "uint8", "frame": 4, **end}, [bytes(6)])
        assert [(p.frame, p.offset, p.count, p.last) for p in made] == [
            (0, 0, 4, True),
            (1, 0, 2, False),
            (1, 2, 0, True),
        ]


@pytest.mark.parametrize("pattern", OTHER)
def test_a_peer_that_never_comes_is_named(endpoint, pattern):
    place = {"endpoint": endpoint, "wait": "100 ms"}
    their = {"push": "PULL", "pub": "SUB", "rep": "REQ"}[pattern]
    with pytest.raises(Exception, match=f"nobody took what is sent to .* within 0.1 s: .* its ZMQ {their} Source conn"):
        run_block(GnuradioSink({**place, "socket": pattern}), {"items": complex_frames(10)})
    with pytest.raises(Exception, match=f"nothing came from .* its ZMQ {pattern.upper()} Sink bind there"):
        run_block(GnuradioSource({**place, "socket": OTHER[pattern]}))
    with pytest.raises(Exception, match=f"nothing came from .* its ZMQ {pattern.upper()} Message Sink bind there"):
        run_block(GnuradioMessageSource({**place, "socket": OTHER[pattern]}))


def test_a_stream_waits_for_a_receiver_that_comes_late(endpoint):
    frames = complex_frames(1000)
    sending = Sending(GnuradioSink({"endpoint": endpoint, "socket": "pub", "key": "radio"}), frames)
    time.sleep(0.3)
    made = run_block(GnuradioSource({"endpoint": endpoint, "socket": "sub", "key": "rad", "items": 1000}))["items"]
    sending.join()
    np.testing.assert_array_equal(np.concatenate([p.data for p in made]), frames[0].data)


def test_a_peer_that_does_not_return_ends_the_stream_and_the_rest_is_told_of(endpoint):
    told = []
    sink = GnuradioSink({"endpoint": endpoint, "returns": False}, context=Context(warn=told.append))
    with zmq.Context() as context, context.socket(zmq.PULL) as peer:
        peer.setsockopt(zmq.RCVHWM, 1)
        peer.connect(endpoint)
        sending = Sending(sink, recut([Packet(np.zeros(1 << 24, np.uint8), last=True)], [1 << 18]))
        assert peer.poll(10_000)
        assert sending.thread.is_alive()  # it waits for one that is slow
    sending.join()
    assert told == [f"{endpoint} was left before all was sent; the rest is left out"]


def test_only_a_peer_can_leave_and_only_when_it_was_the_last(endpoint):
    class StillWaiting(Exception):
        pass

    def waits():
        def checkpoint():
            if next(turns, None) is None:
                raise StillWaiting

        turns, sender.checkpoint = iter(range(4)), checkpoint
        with pytest.raises(StillWaiting):
            sender.room()

    sender = Sender(GnuradioSink.Params(endpoint=endpoint), lambda: None, final=True)
    sender.open()
    for greeting in (b"", b"GET / HTTP/1.0\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(endpoint.removeprefix("ipc://"))
            stranger.sendall(greeting)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(100):  # until it is refused
                pass
    with zmq.Context() as context, context.socket(zmq.SUB) as stranger:  # no counterpart of a PUSH
        refused = stranger.get_monitor_socket(zmq.Event.DISCONNECTED)
        stranger.connect(endpoint)
        assert refused.poll(10_000)
    waits()
    with zmq.Context() as context, context.socket(zmq.PULL) as staying:
        staying.setsockopt(zmq.RCVHWM, 1)
        with context.socket(zmq.PULL) as leaving:
            for peer in (leaving, staying):
                come = peer.get_monitor_socket(zmq.Event.HANDSHAKE_SUCCEEDED)
                peer.connect(endpoint)
                assert come.poll(10_000)
        while sender.socket.poll(300, zmq.POLLOUT):
            sender.put(bytes(1 << 18))
        waits()
    sender.checkpoint = lambda: None
    with pytest.raises(PeerLeft):
        sender.room()
    sender.close()


def test_malformed_requests_are_ignored_and_no_more_is_sent_than_was_asked_for(endpoint):
    sending = Sending(GnuradioSink({"endpoint": endpoint, "socket": "rep"}), [Packet(np.arange(10, dtype=np.uint8))])
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        for request in (b"", b"\0\0\0\0", b"123", b"x" * 50, *[(3).to_bytes(4, "little")] * 4):
            socket.send_multipart([b"", request])
        parts = [socket.recv_multipart()[1] for _ in range(4)]
    sending.join()
    assert max(map(len, parts)) == 3
    assert b"".join(parts) == bytes(range(10))


def test_lost_stretches_are_sent_as_zeros_and_the_tail_behind_all(endpoint):
    packets = [Packet(np.ones(8, np.uint8), offset=5), Packet(np.ones(2, np.uint8), offset=21, last=True)]
    made = transfer(
        GnuradioSink({"endpoint": endpoint, "tail": 3}),
        GnuradioSource({"endpoint": endpoint, "item": "uint8", "items": 26}),
        packets,
    )
    assert np.concatenate([p.data for p in made]).tolist() == [0] * 5 + [1] * 8 + [0] * 8 + [1] * 2 + [0] * 3


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"endpoint": "tcp://127.0.0.1"}, "endpoint"),
        ({"endpoint": "tcp://0.0.0.0:5555"}, "endpoint on this machine, not 0.0.0.0, or say insecure: true"),
        ({"endpoint": "ipc:///x", "key": "k"}, "socket: pub or sub with a key"),
        ({"endpoint": "ipc:///x", "length_tag": "packet_len"}, "must have tags: true with length_tag"),
        ({"endpoint": "ipc:///x", "tags": True, "end_tag": "end"}, "must have a tail of at least one item"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(params, sentence):
    with pytest.raises(ParamsError, match=sentence):
        GnuradioSink(params)


def test_a_stranger_beyond_this_machine_is_allowed_on_purpose():
    GnuradioSink({"endpoint": "tcp://0.0.0.0:5555", "insecure": True})


def test_an_endpoint_in_use_is_told(endpoint):
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(Exception, match=f"cannot listen on tcp://127.0.0.1:{port}: Address already in use"):
            run_block(GnuradioSink({"endpoint": f"tcp://127.0.0.1:{port}"}), {"items": []})
