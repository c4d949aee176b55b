"""The ZeroMQ sockets that a GNU Radio flowgraph is met with: who binds, who waits for whom, and how long.

    GNU Radio's block                       the socket here
    ZMQ PULL Source, ZMQ PUSH Sink          push, pull
    ZMQ SUB Source, ZMQ PUB Sink            pub (an XPUB: it sees its subscribers), sub
    ZMQ REQ Source, ZMQ REP Sink            rep (a ROUTER), req (a DEALER): neither hangs when the other end is gone

A peer may come late, leave and return. Nothing is sent while it is away; what was under way to it is lost.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

import zmq
from pydantic import Field, field_validator, model_validator
from zmq.utils.monitor import recv_monitor_message

from flowgraph.block import BlockError
from flowgraph.block import Params as BlockParams
from flowgraph.place import is_loopback
from flowgraph.units import Seconds

POLL_MS = 50
MESSAGES = 64  # that wait in a socket, each way
MAX_MESSAGE_BYTES = 1 << 28
MOST = 1 << 30  # items that a sender may take at once, where the peer names no number
ENDPOINT = re.compile(r"^(tcp://[^/]+:\d+|ipc://.+)$")
_REQUEST = struct.Struct("<I")


class PeerParams(BlockParams):
    """Where GNU Radio is met."""

    speaks: ClassVar[str] = ""  # what names of GNU Radio's blocks have before Source or Sink

    endpoint: str = Field(
        description="address, the same as in GNU Radio's block: tcp://127.0.0.1:5555 or ipc:///run/user/1000/radio",
        json_schema_extra={"pattern": ENDPOINT.pattern},
    )
    key: str = Field("", description="for pub and sub: what every message begins with")
    wait: Annotated[Seconds, Field(gt=0)] = Field(
        30.0, description="longest wait for the peer: to come, and (of a sender) to take something"
    )
    insecure: bool = Field(False, description="allow an address beyond this machine: GNU Radio knows no keys")

    @field_validator("endpoint")
    @classmethod
    def _well_formed(cls, text: str) -> str:
        if not ENDPOINT.fullmatch(text):
            raise ValueError(f"must be an address such as tcp://127.0.0.1:5555 or ipc:///tmp/radio, not {text!r}")
        return text

    @model_validator(mode="after")
    def _safe(self) -> PeerParams:
        if self.key and getattr(self, "socket", "pub") not in ("pub", "sub"):
            raise ValueError("must have socket: pub or sub with a key")
        host = urlsplit(self.endpoint).hostname or "" if self.endpoint.startswith("tcp:") else "localhost"
        if not self.insecure and not is_loopback(host):
            raise ValueError(f"must have an endpoint on this machine, not {host}, or say insecure: true")
        return self


class _Peer:
    """One socket in a ZeroMQ context of its own, as `checkpoint` is called while it waits."""

    kinds: dict[str, int]
    _their: dict[str, str]  # kinds of GNU Radio's blocks, by our sockets'

    def __init__(self, params: Any, checkpoint: Callable[[], None]):
        self.params, self.checkpoint = params, checkpoint
        self.context = zmq.Context()
        self.socket = self.context.socket(self.kinds[params.socket])
        self.socket.setsockopt(zmq.SNDHWM, MESSAGES)
        self.socket.setsockopt(zmq.RCVHWM, MESSAGES)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self.socket.setsockopt(zmq.IPV6, int("[" in params.endpoint))

    def open(self) -> None:
        """Bind or connect. Raises `BlockError` where that cannot be."""
        verb = "listen on" if self.params.bind else "connect to"
        try:
            (self.socket.bind if self.params.bind else self.socket.connect)(self.params.endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise BlockError(f"cannot {verb} {self.params.endpoint}: {zmq.strerror(error.errno or 0)}") from None

    def nobody(self, what: str, end: str) -> BlockError:
        """Return the fault of a peer that never came, GNU Radio's Source or Sink."""
        verb = "connect" if self.params.bind else "bind"
        block = f"ZMQ {self._their[self.params.socket]} {self.params.speaks}{end}"
        return BlockError(
            f"{what} {self.params.endpoint} within {self.params.wait:g} s: is the GNU Radio flowgraph running, "
            f"and does its {block} {verb} there?"
        )

    def close(self, linger_s: float = 0.0) -> None:
        """Close the socket, once what is under way has gone or so long has passed."""
        self.socket.close(linger=int(linger_s * 1000))
        self.context.term()


class PeerLeft(Exception):
    """The peer has gone, for good."""


class _Connections:
    """The connections of a socket to its peers, as its monitor tells of them.

    A stranger's connection, which never completes ZeroMQ's handshake, is none. The monitor does not say which one has
    completed it: where a stranger's began as well, both are held for peers until they end.
    """

    def __init__(self, socket: zmq.Socket):
        kinds = zmq.Event.ACCEPTED | zmq.Event.CONNECTED | zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED
        self.socket, self.monitor = socket, socket.get_monitor_socket(int(kinds))
        self.begun: set[int] = set()  # file descriptors
        self.peers: set[int] = set()
        self.came = False

    def all_left(self) -> bool:
        """Tell whether there has been a peer, and none is connected any more."""
        while self.monitor.poll(0):
            told = recv_monitor_message(self.monitor)
            if told["event"] == zmq.Event.HANDSHAKE_SUCCEEDED:
                self.came = True
                self.peers |= self.begun
                self.begun.clear()
            elif told["event"] == zmq.Event.DISCONNECTED:
                self.begun.discard(told["value"])
                self.peers.discard(told["value"])
            else:
                self.begun.add(told["value"])
        return self.came and not self.peers

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close()


class Sender(_Peer):
    """The end that sends: `room()` waits until something may be sent, `put()` sends it.

    With `final`, a peer that has come and leaves is not waited for: `room()` raises `PeerLeft`.
    """

    kinds = {"push": zmq.PUSH, "pub": zmq.XPUB, "rep": zmq.ROUTER}
    _their = {"push": "PULL", "pub": "SUB", "rep": "REQ"}

    def __init__(self, params: Any, checkpoint: Callable[[], None], final: bool = False):
        super().__init__(params, checkpoint)
        self.connections = _Connections(self.socket) if final else None
        self.socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a peer that is not there
        if params.socket == "pub":
            self.socket.setsockopt(zmq.XPUB_NODROP, 1)
        elif params.socket == "rep":
            self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.subscriptions: set[bytes] = set()
        self.asking: tuple[bytes, int] | None = None  # who has asked for items, and for how many

    def room(self) -> int:
        """Wait for the peer; return how many items it takes. Raises `BlockError` if it does not come, `PeerLeft`."""
        until = time.monotonic() + self.params.wait
        while not (most := self._most()):
            self.checkpoint()
            if self.connections and self.connections.all_left():
                raise PeerLeft
            if time.monotonic() > until:
                raise self.nobody("nobody took what is sent to", "Source")
        return most

    def put(self, message: bytes | memoryview) -> bool:
        """Send a message; return False if the peer has just gone, and it must be sent anew."""
        kind = self.params.socket
        front = [self.params.key.encode()] if self.params.key else []
        try:
            if kind == "rep":
                assert self.asking is not None
                front = [self.asking[0], b""]
                self.asking = None
            self.socket.send_multipart([*front, message], zmq.DONTWAIT)
        except (zmq.Again, zmq.ZMQError) as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            return False
        return True

    def _most(self) -> int:
        """Return how many items may be sent now, after a moment of waiting; 0 where none."""
        kind = self.params.socket
        if kind == "rep":
            if self.asking is None and self.socket.poll(POLL_MS):
                identity, *_, request = self.socket.recv_multipart()
                if len(request) == _REQUEST.size and request != b"\0\0\0\0":
                    self.asking = identity, min(*_REQUEST.unpack(request), MOST)
            return self.asking[1] if self.asking else 0
        if kind == "pub":
            while self.socket.poll(0):
                word = self.socket.recv()  # 1 or 0 and what a subscriber wants from now on, or no more
                (self.subscriptions.add if word[:1] == b"\1" else self.subscriptions.discard)(word[1:])
            if not any(self.params.key.encode().startswith(each) for each in self.subscriptions):
                self.socket.poll(POLL_MS)
                return 0
        return MOST if self.socket.poll(POLL_MS, zmq.POLLOUT) else 0

    def close(self, linger_s: float = 0.0) -> None:
        if self.connections:
            self.connections.close()
            self.connections = None
        super().close(linger_s)


class Receiver(_Peer):
    """The end that receives."""

    kinds = {"pull": zmq.PULL, "sub": zmq.SUB, "req": zmq.DEALER}
    _their = {"pull": "PUSH", "sub": "PUB", "req": "REP"}

    def __init__(self, params: Any, checkpoint: Callable[[], None], ask_for: int):
        super().__init__(params, checkpoint)
        if params.socket == "sub":
            self.socket.subscribe(params.key.encode())
        self.request = _REQUEST.pack(ask_for)
        self.request_lost = self.socket.get_monitor_socket(int(zmq.Event.HANDSHAKE_SUCCEEDED))
        self.asked = False

    def receive(self) -> memoryview | None:
        """Return the next message without its key; None if none came in a moment."""
        self.checkpoint()
        while self.request_lost.poll(0):  # of every kind of socket: what is left there would in the end hold ZeroMQ up
            self.request_lost.recv_multipart()
            self.asked = False
        if self.params.socket == "req":
            self._ask()
        if not self.socket.poll(POLL_MS):
            return None
        parts = self.socket.recv_multipart(copy=False)
        self.asked = False
        return memoryview(parts[-1].buffer)

    def _ask(self) -> None:
        """Send a request where none is under way: a peer that came back knows nothing of the last one."""
        if not self.asked and self.socket.poll(0, zmq.POLLOUT):
            self.socket.send_multipart([b"", self.request])
            self.asked = True

    def nobody_came(self) -> BlockError:
        return self.nobody("nothing came from", "Sink")

    def close(self, linger_s: float = 0.0) -> None:
        self.socket.disable_monitor()
        self.request_lost.close()
        super().close(linger_s)
