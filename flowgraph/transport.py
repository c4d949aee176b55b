"""The two ends of a wire: ZeroMQ sockets with credits, sequence numbers, queue policies and counters.

The sender may have `queue` packets under way. (ZeroMQ's own high-water mark counts pipes and sockets, and cannot drop
the oldest.)

Between processes a packet is a message of `flowgraph.wire`. The receiver binds a ROUTER, the sender connects a DEALER
whose identity is known, so that a stranger on the endpoint gets neither packets nor credits; on `tcp` nobody gets as
far as that without the run's token or its keys. The receiver says how far it has come whenever half of the queue is
taken.

Inside one process its memory is handed over: the packet waits in a queue that both ends see, and a pair of ZeroMQ
sockets wakes the end that sleeps.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import zmq
from zmq.utils.monitor import recv_monitor_message

from flowgraph.block import BlockError, Packet
from flowgraph.spec import WireSpec
from flowgraph.wire import End, WireError, decode, encode

# Below this, copying into the message is cheaper than the clean-up thread that a shared buffer needs.
ZERO_COPY_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 1 << 28
IPC_BUFFER_BYTES = 1 << 20
LINGER_MS = 500  # for the last word to a peer; one that is gone is not waited for longer
HEARTBEAT_MS, SILENCE_MS = 500, 2000  # on tcp: how often a peer is asked for a sign of life, and waited for
BROKEN_S = 2.0  # after a connection broke off, for it to come back
PLAIN_NAME = b"semflow"
_WAKE, _ENDED = b"", b"E"
_watched = itertools.count()
_REFUSALS = {
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "a connection that does not speak ZeroMQ",
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "a connection that breaks the ZeroMQ protocol",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "a connection of a stranger",
}


_WATCHED = sum(_REFUSALS, int(zmq.Event.DISCONNECTED))


class Stopped(Exception):
    """The run is being stopped: let go of everything."""


@dataclass
class Handover:
    """What the two ends of a wire inside one process share."""

    queue: deque[Packet | End] = field(default_factory=deque)
    sender_waits: bool = False
    receiver_waits: bool = True
    ended: bool = False


@dataclass
class Hub:
    """What all wires of a worker share: ZeroMQ's context, the run's token, the word to stop, hand-overs by endpoint."""

    context: zmq.Context
    token: str
    stop: threading.Event
    curve: tuple[bytes, bytes] | None = None  # public and secret key of the run

    def __post_init__(self) -> None:
        self.handovers: dict[str, Handover] = {}

    def socket(self, kind: int, server: bool, endpoint: str) -> zmq.Socket:
        return open_socket(self.context, kind, endpoint, self.curve, server, self.token)


def open_socket(
    context: zmq.Context,
    kind: int,
    endpoint: str,
    curve: tuple[bytes, bytes] | None = None,
    server: bool = False,
    token: str = "",
) -> zmq.Socket:
    """Return a socket for an endpoint; its queues have no bound yet.

    On `tcp` both ends must hold the run's keys, or else its token, so that strangers are turned away at the door
    (`flowgraph.keys.Doorkeeper`), before ZeroMQ takes in what they send.
    """
    socket = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.IPV6, int("[" in endpoint))
    if endpoint.startswith("ipc:"):  # Linux's own 208 KiB make a large packet cross in many turns
        socket.setsockopt(zmq.SNDBUF, IPC_BUFFER_BYTES)
    socket.copy_threshold = ZERO_COPY_BYTES
    if endpoint.startswith("tcp:"):  # a host that is cut off closes no connection
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
        if curve:
            socket.curve_publickey, socket.curve_secretkey = curve
            if server:
                socket.curve_server = True
            else:
                socket.curve_serverkey = curve[0]
        elif token and server:
            socket.plain_server = True
        elif token:
            socket.plain_username, socket.plain_password = PLAIN_NAME, token.encode()
    return socket


def watch_over(socket: zmq.Socket, events: int) -> zmq.Socket:
    """Return a socket that gets a socket's events, however many: where such a queue is full, ZeroMQ stands still."""
    endpoint = f"inproc://events-{next(_watched)}"
    socket.monitor(endpoint, events)
    monitor = socket.context.socket(zmq.PAIR)
    monitor.setsockopt(zmq.RCVHWM, 0)
    monitor.setsockopt(zmq.LINGER, 0)
    monitor.connect(endpoint)
    return monitor


def _wake(socket: zmq.Socket) -> None:
    """Wake the other end inside this process; one that is gone needs no waking."""
    with contextlib.suppress(zmq.Again):
        socket.send(_WAKE, zmq.DONTWAIT)


def _identity(hub: Hub, spec: WireSpec) -> bytes:
    return f"{hub.token}/{spec.name}".encode()[:255]


class Outgoing:
    """The sending end of a wire."""

    def __init__(self, hub: Hub, spec: WireSpec):
        self.hub, self.spec = hub, spec
        self.socket: zmq.Socket | None = None
        self.monitor: zmq.Socket | None = None
        self.broken_at: float | None = None
        self.handover: Handover | None = None
        self.waiting: deque[Packet] = deque()  # only where the policy is to drop
        self.sent = self.taken = 0  # messages sent, and how many of them the receiver has taken
        self.ending = self.ended = False  # the end has been sent; the receiver has it
        self.packets = self.items = self.bytes = self.dropped = 0

    def connect(self, endpoint: str) -> None:
        self.handover = self.hub.handovers.get(endpoint)
        self.socket = self.hub.socket(zmq.DEALER if self.handover is None else zmq.PAIR, False, endpoint)
        self.socket.setsockopt(zmq.IDENTITY, _identity(self.hub, self.spec))
        if self.handover is None:
            self.monitor = watch_over(self.socket, zmq.Event.DISCONNECTED | zmq.Event.HANDSHAKE_SUCCEEDED)
        self.socket.connect(endpoint)

    def send(self, packet: Packet) -> None:
        """Send a packet; where no credit is left, wait or drop as the wire's policy says. Raises `Stopped`."""
        if self.spec.policy == "block":
            while not self._credit():
                self._wait()
            self._transmit(packet)
            return
        self.pump()
        if self._credit() and not self.waiting:
            self._transmit(packet)
        elif self.spec.policy == "drop-newest":
            self.dropped += 1
        else:
            self.waiting.append(packet)
            if len(self.waiting) > self.spec.queue:
                self.waiting.popleft()
                self.dropped += 1

    def pump(self) -> None:
        """Send what waits, as far as the credits go."""
        while self.waiting and self._credit():
            self._transmit(self.waiting.popleft())

    def end(self) -> None:
        """Send what waits, then the end of the stream, and wait until the receiver has it. Raises `Stopped`."""
        while self.waiting:
            self.pump()
            if self.waiting:
                self._wait()
        self.ending = True
        self._put(End(self.packets, self.items))
        while not self.ended:
            self._wait()

    @property
    def under_way(self) -> int:
        """Packets that wait here or in the queue, as far as this end knows."""
        ahead = len(self.handover.queue) if self.handover is not None else self.sent - self.taken
        return ahead + len(self.waiting)

    def close(self) -> None:
        if self.socket is None:
            return
        if self.monitor is not None:
            self.socket.disable_monitor()
            self.monitor.close()
            self.monitor = None
        self.socket.close()

    def _credit(self) -> int:
        if self.handover is not None:
            return self.spec.queue - len(self.handover.queue)
        if self.sent - self.taken >= self.spec.queue:
            self._listen(0)
        return self.spec.queue - (self.sent - self.taken)

    def _transmit(self, packet: Packet) -> None:
        self.packets += 1
        self.items += packet.count
        self.bytes += packet.data.nbytes
        self._put(packet)

    def _put(self, message: Packet | End) -> None:
        assert self.socket is not None
        if self.handover is not None:
            self.handover.queue.append(message)
            if self.handover.receiver_waits:
                self.handover.receiver_waits = False
                _wake(self.socket)
            return
        header, data = encode(message, self.sent, self.hub.token)
        if data is None:
            self.socket.send(header)
        elif data.nbytes > MAX_MESSAGE_BYTES:
            raise BlockError(
                f"hands out a packet of {data.nbytes >> 20} MiB on {self.spec.source_port}, more than the "
                f"{MAX_MESSAGE_BYTES >> 20} MiB that a wire carries: make smaller packets"
            )
        else:
            self.socket.send(header, zmq.SNDMORE)
            self.socket.send(data.data, copy=False)
        self.sent += 1

    def _wait(self) -> None:
        """Wait a moment for a word from the receiver."""
        if self.hub.stop.is_set():
            raise Stopped
        if self.handover is None:
            self._listen(50)
            return
        assert self.socket is not None
        self.handover.sender_waits = True
        if not self._may_go_on() and self.socket.poll(50):
            self.socket.recv()
        self.handover.sender_waits = False
        self.ended = self.handover.ended

    def _may_go_on(self) -> bool:
        assert self.handover is not None
        return self.handover.ended if self.ending else len(self.handover.queue) < self.spec.queue

    def _listen(self, milliseconds: int) -> None:
        """Read how many messages the receiver has taken."""
        assert self.socket is not None
        while self.socket.poll(milliseconds):
            note = self.socket.recv()
            if len(note) in (8, 9) and int.from_bytes(note[:8], "little") <= self.sent:
                self.taken = max(self.taken, int.from_bytes(note[:8], "little"))
                self.ended = self.ended or note[8:] == _ENDED
            milliseconds = 0
        self._watch()

    def _watch(self) -> None:
        """Look whether the connection broke off: what was under way is lost, and its credits come back.

        The receiver sees the loss by the sequence numbers. Raises `BlockError` where the connection stays away.
        """
        while self.monitor is not None and self.monitor.poll(0):
            if recv_monitor_message(self.monitor)["event"] == zmq.Event.DISCONNECTED:
                self.broken_at = self.broken_at or time.monotonic()
            elif self.broken_at:
                self.broken_at, self.taken = None, self.sent
                if self.ending:
                    self._put(End(self.packets, self.items))
        if self.broken_at and not self.ended and time.monotonic() > self.broken_at + BROKEN_S:
            raise BlockError(f"wire {self.spec.name}: the connection to its other end broke off and did not come back")


class Incoming:
    """The receiving end of a wire."""

    def __init__(self, hub: Hub, spec: WireSpec):
        self.hub, self.spec, self.port = hub, spec, spec.target_port
        self.peer = _identity(hub, spec)
        self.socket: zmq.Socket | None = None
        self.monitor: zmq.Socket | None = None
        self.handover: Handover | None = None
        self.next = self.told = 0  # number of the next message, and the last one that the sender knows as taken
        self.ended = False
        self.packets = self.items = self.bytes = self.lost = 0
        self.refused: dict[str, int] = {}
        self.shaken = 0

    def bind(self, endpoint: str) -> str:
        """Bind, and return where: `tcp` ports of `*` are chosen here."""
        if endpoint.startswith("inproc:"):
            self.handover = self.hub.handovers[endpoint] = Handover()
            self.socket = self.hub.socket(zmq.PAIR, True, endpoint)
        else:
            self.socket = self.hub.socket(zmq.ROUTER, True, endpoint)
            self.socket.setsockopt(zmq.RCVHWM, self.spec.queue + 2)  # more than our sender ever has under way
            self.monitor = watch_over(self.socket, _WATCHED)
        self.socket.bind(endpoint)
        return self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def at_hand(self) -> bool:
        """Tell whether a packet waits in this process."""
        return self.handover is not None and bool(self.handover.queue)

    def expect(self) -> None:
        """Have the socket become readable with the next packet; one that came just before is `at_hand` already."""
        if self.handover is not None:
            self.handover.receiver_waits = True

    def woken(self) -> None:
        """Take the word that made the socket readable, where it is no packet."""
        if self.handover is not None and self.socket is not None:
            self.socket.recv()

    def messages(self) -> Iterator[Packet | End]:
        """Yield what has come; what is not ours is counted in `refused`."""
        assert self.socket is not None
        if self.handover is None:
            while not self.ended and self.socket.poll(0):
                message = self._receive()
                if message is not None:
                    yield self._taken(message)
            return
        queue, half = self.handover.queue, self.spec.queue // 2
        while queue:
            message = self._taken(queue.popleft())
            if self.handover.sender_waits and (self.ended or len(queue) <= half):
                self.handover.sender_waits = False
                _wake(self.socket)
            yield message

    def _receive(self) -> Packet | End | None:
        assert self.socket is not None
        sender, *parts = self.socket.recv_multipart(copy=False)
        if sender.bytes != self.peer:
            self._refuse("a message from a stranger")
            return None
        try:
            seq, message = decode([part.buffer for part in parts], self.hub.token)
        except WireError as error:
            self._refuse(str(error))
            self.next += 1
            self._give_credit()
            return None
        if seq < self.next:
            self._refuse("a message that came twice")
            return None
        self.lost += seq - self.next
        self.next = seq + 1
        self._give_credit(isinstance(message, End))
        return message

    def _give_credit(self, ended: bool = False) -> None:
        """Tell the sender how many of its messages have come, once that is worth a message."""
        assert self.socket is not None
        if ended or self.next - self.told >= max(1, self.spec.queue // 2):
            self.told = self.next
            self.socket.send_multipart([self.peer, self.next.to_bytes(8, "little") + (_ENDED if ended else b"")])

    def _taken(self, message: Packet | End) -> Packet | End:
        if isinstance(message, End):
            self.ended = True
            if self.handover is not None:
                self.handover.ended = True
        else:
            self.packets += 1
            self.items += message.count
            self.bytes += message.data.nbytes
        return message

    def watch(self) -> None:
        """Count what ZeroMQ itself refused; in one thread, which need not be the one that receives."""
        while self.monitor is not None and self.monitor.poll(0):
            event = zmq.Event(recv_monitor_message(self.monitor)["event"])
            if event in _REFUSALS:
                self.shaken += 1  # the connection closes next: that is no news
                self._refuse(_REFUSALS[event])
            elif event == zmq.Event.DISCONNECTED and self.shaken:
                self.shaken -= 1
            elif event == zmq.Event.DISCONNECTED and not self.ended:
                self._refuse("a connection that broke off, spoke no ZeroMQ, or sent more than a message may hold")

    def close(self) -> None:
        """Close the socket; the monitor, which another thread may read, goes with the context."""
        if self.socket is not None:
            self.socket.close()

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1
