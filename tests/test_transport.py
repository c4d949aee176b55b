"""The ends of a wire: order, credits, drop policies, ends, strangers; on every kind of endpoint."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from flowgraph.block import BlockError, Packet
from flowgraph.keys import Doorkeeper
from flowgraph.spec import WireSpec
from flowgraph.transport import Hub, Incoming, Outgoing, Stopped
from flowgraph.wire import End, encode


@pytest.fixture
def hub():
    hub = Hub(zmq.Context(), "token", threading.Event())
    doorkeeper = Doorkeeper(hub.context, token="token")
    yield hub
    doorkeeper.close()
    hub.context.destroy()  # with what watches over the ends


@pytest.fixture(params=["inproc://wire", "ipc", "tcp://127.0.0.1:*"])
def wire(request, tmp_path, hub):
    """Returns a function that makes both ends of a wire; closes them afterwards."""
    made = []

    def make(**options):
        spec = WireSpec("a.x", "b.x", **options)
        incoming, outgoing = Incoming(hub, spec), Outgoing(hub, spec)
        endpoint = f"ipc://{tmp_path}/wire" if request.param == "ipc" else request.param
        outgoing.connect(incoming.bind(endpoint))
        made.extend((incoming, outgoing))
        return hub, incoming, outgoing

    yield make
    for end in made:
        end.close()


def packet(number):
    return Packet(np.full(3, number, np.uint8), number, last=True)


def receive(incoming, count):
    """Return the next `count` messages."""
    got = []
    while len(got) < count:
        assert incoming.socket.poll(2000), f"only {len(got)} of {count} messages came"
        got.extend(incoming.messages())
    return got


def test_everything_arrives_in_order_and_the_end_is_acknowledged(wire):
    _, incoming, outgoing = wire(queue=4)

    def send():
        for number in range(200):
            outgoing.send(packet(number))
        outgoing.end()

    sender = threading.Thread(target=send)
    sender.start()
    got = receive(incoming, 201)
    sender.join(2)
    assert not sender.is_alive()
    assert [p.frame for p in got[:-1]] == list(range(200))
    assert all((p.data == p.frame % 256).all() for p in got[:-1])
    assert got[-1] == End(200, 600)
    assert (incoming.packets, incoming.lost, outgoing.dropped) == (200, 0, 0)


def test_no_more_than_the_queue_is_under_way(wire):
    hub, incoming, outgoing = wire(queue=3)
    sent = []

    def send():
        try:
            for number in range(10):
                outgoing.send(packet(number))
                sent.append(number)
        except Stopped:
            pass

    sender = threading.Thread(target=send)
    sender.start()
    assert incoming.socket.poll(2000)
    sender.join(0.3)
    assert sent == [0, 1, 2]
    hub.stop.set()
    sender.join(2)
    assert not sender.is_alive()


@pytest.mark.parametrize(
    ("policy", "kept"), [("drop-newest", [0, 1, 2, 3]), ("drop-oldest", [0, 1, 2, 3, 16, 17, 18, 19])]
)
def test_a_full_queue_drops_what_its_policy_says_and_counts_it(wire, policy, kept):
    _, incoming, outgoing = wire(queue=4, policy=policy)
    for number in range(20):
        outgoing.send(packet(number))
    sender = threading.Thread(target=outgoing.end)
    sender.start()
    got = receive(incoming, len(kept) + 1)
    sender.join(2)
    assert [p.frame for p in got[:-1]] == kept
    assert outgoing.dropped == 20 - len(kept)
    assert incoming.lost == 0


@pytest.fixture
def tcp(hub):
    spec = WireSpec("a.x", "b.x")
    incoming, outgoing = Incoming(hub, spec), Outgoing(hub, spec)
    endpoint = incoming.bind("tcp://127.0.0.1:*")
    outgoing.connect(endpoint)
    yield hub, incoming, outgoing, endpoint
    incoming.close()
    outgoing.close()


def test_what_another_end_of_the_run_sends_here_is_refused_by_name_and_the_stream_goes_on(tcp):
    hub, incoming, outgoing, endpoint = tcp
    other = hub.socket(zmq.DEALER, False, endpoint)
    other.connect(endpoint)
    header, data = encode(packet(0), 0, "token")
    for parts in ([b"hello"], [header, data], [b""] * 5):
        other.send_multipart(parts)
        assert incoming.socket.poll(2000)
        assert list(incoming.messages()) == []
    other.close()
    outgoing.send(packet(1))
    assert [p.frame for p in receive(incoming, 1)] == [1]
    assert incoming.refused == {"a message from a stranger": 3}


def test_broken_messages_of_the_sender_are_refused_by_name_and_the_stream_goes_on(tcp):
    _, incoming, outgoing, _ = tcp
    header, _ = encode(packet(0), 0, "token")
    outgoing.socket.send_multipart([header[:20], b"abc"])
    outgoing.socket.send_multipart([b"SFW9" + header[4:], b"abc"])
    outgoing.socket.send_multipart([header, b"ab"])
    outgoing.sent += 3
    outgoing.send(packet(1))
    assert [p.frame for p in receive(incoming, 1)] == [1]
    assert sorted(incoming.refused.values()) == [1, 1, 1]
    assert "header claims 3 bytes, 2 came" in incoming.refused


def test_refused_messages_give_their_credits_back(tcp):
    _, incoming, outgoing, _ = tcp
    for _ in range(outgoing.spec.queue):
        outgoing.socket.send_multipart([b"nonsense", b""])
        outgoing.sent += 1
    sender = threading.Thread(target=outgoing.send, args=(packet(1),))
    sender.start()
    assert [p.frame for p in receive(incoming, 1)] == [1]
    sender.join(2)
    assert not sender.is_alive()


class Cable:
    """Carries TCP to a port, and can be cut."""

    def __init__(self, port):
        self.port, self.ends, self.server = port, [], socket.create_server(("127.0.0.1", 0))
        self.plugged = True
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self):
        return f"tcp://127.0.0.1:{self.server.getsockname()[1]}"

    def _accept(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            if not self.plugged:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.port))
            self.ends += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(one, other):
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
        except OSError:
            pass

    def cut(self, stays=False):
        self.plugged = not stays
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends.clear()


@pytest.fixture
def cable(hub):
    spec = WireSpec("a.x", "b.x", queue=4)
    incoming, outgoing = Incoming(hub, spec), Outgoing(hub, spec)
    between = Cable(int(incoming.bind("tcp://127.0.0.1:*").rpartition(":")[2]))
    outgoing.connect(between.endpoint)
    yield incoming, outgoing, between
    between.server.close()
    hub.stop.set()
    incoming.close()
    outgoing.close()


def test_a_connection_that_breaks_off_and_comes_back_loses_what_was_under_way_and_no_more(cable):
    incoming, outgoing, between = cable
    for number in range(3):
        outgoing.send(packet(number))
    receive(incoming, 3)
    between.cut()

    def send():
        for number in range(3, 40):
            outgoing.send(packet(number))
        outgoing.end()

    sender = threading.Thread(target=send)
    sender.start()
    got, until = [], time.monotonic() + 10
    while not incoming.ended and time.monotonic() < until:
        if incoming.socket.poll(100):
            got.extend(incoming.messages())
    sender.join(5)
    assert not sender.is_alive()
    frames = [p.frame for p in got[:-1]]
    assert frames == sorted(set(frames))
    assert incoming.packets + incoming.lost == 40
    assert incoming.lost <= 4


def test_a_connection_that_stays_away_is_a_fault_that_names_the_wire(cable):
    incoming, outgoing, between = cable
    outgoing.send(packet(0))
    receive(incoming, 1)
    between.cut(stays=True)
    with pytest.raises(BlockError, match=r"^wire a.x -> b.x: the connection to its other end broke off"):
        outgoing.end()


def test_lost_messages_are_counted_by_their_numbers(tcp):
    _, incoming, outgoing, _ = tcp
    outgoing.send(packet(0))
    outgoing.sent += 5
    outgoing.send(packet(6))
    receive(incoming, 2)
    assert incoming.lost == 5


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n" * 20, "spoke no ZeroMQ"),
        (b"\xff" + bytes(8) + b"\x7f" + b"junk" * 50, "breaks the ZeroMQ protocol"),
        (
            b"\xff" + bytes(8) + b"\x7f\x03\x00PLAIN" + bytes(47) + b"\x06" + b"\x7f" * 8,
            "sent more than a message may hold",
        ),
    ],
    ids=["http", "junk", "enormous"],
)
def test_what_zeromq_itself_refuses_is_counted_with_its_reason(tcp, said, reason):
    _, incoming, _, endpoint = tcp
    host, port = endpoint.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), 2) as stranger:
        stranger.sendall(said)
    for _ in range(100):
        incoming.watch()
        if incoming.refused:
            break
        incoming.monitor.poll(50)
    ((told, times),) = incoming.refused.items()
    assert reason in told
    assert times == 1


def test_a_thousand_strangers_before_a_busy_block_hold_nothing_up(tcp):
    _, incoming, outgoing, endpoint = tcp
    host, port = endpoint.removeprefix("tcp://").split(":")
    for _ in range(1000):
        with socket.create_connection((host, int(port)), 2) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    outgoing.send(packet(1))
    assert [p.frame for p in receive(incoming, 1)] == [1]
    until = time.monotonic() + 10
    while sum(incoming.refused.values()) < 1000 and time.monotonic() < until:
        incoming.monitor.poll(50)
        incoming.watch()
    assert sum(incoming.refused.values()) == 1000


def test_what_one_end_of_the_run_can_leave_before_a_busy_block_is_bounded(tcp):
    hub, incoming, outgoing, endpoint = tcp
    other = hub.socket(zmq.DEALER, False, endpoint)
    other.sndhwm = 1
    other.connect(endpoint)
    sent = 0
    while sent < 100 and other.poll(500, zmq.POLLOUT):
        other.send(bytes(1 << 20))
        sent += 1
    assert sent < 50  # the wire's queue, and what the kernel holds
    other.close(0)
    outgoing.send(packet(1))
    assert [p.frame for p in receive(incoming, 1)] == [1]


@pytest.mark.parametrize("password", [None, b"another run's"])
def test_a_stranger_leaves_nothing_before_a_busy_block_however_often_he_comes_back(tcp, password):
    hub, incoming, outgoing, endpoint = tcp
    for _ in range(20):
        with hub.context.socket(zmq.DEALER) as stranger:
            stranger.linger, stranger.sndhwm, stranger.reconnect_ivl = 0, 1, -1
            if password:
                stranger.plain_username, stranger.plain_password = b"semflow", password
            door = stranger.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            stranger.connect(endpoint)
            with contextlib.suppress(zmq.Again):  # turned away before he could
                stranger.send(bytes(1 << 20), zmq.DONTWAIT)
            assert door.poll(2000)
            assert recv_monitor_message(door)["event"] == zmq.EVENT_DISCONNECTED
            stranger.disable_monitor()
    assert not incoming.socket.poll(0)
    outgoing.send(packet(1))
    assert [p.frame for p in receive(incoming, 1)] == [1]
    while sum(incoming.refused.values()) < 20:
        assert incoming.monitor.poll(2000)
        incoming.watch()
    assert set(incoming.refused) == {
        "a connection of a stranger" if password else "a connection that breaks the ZeroMQ protocol"
    }
