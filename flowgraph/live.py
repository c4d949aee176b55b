"""Watching a run and turning its parameters from outside: `LiveServer` is the run's side, `Remote` the viewer's.

Two sockets: requests are answered on a ROUTER at the run's address, and what there is to see goes out on an XPUB beside
it, in parts that begin with a topic (docs/live.md). A viewer that does not read is left out; nobody waits for it.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import zmq
from msgspec import structs

from flowgraph import control
from flowgraph.block import Block, BlockError, Packet
from flowgraph.changes import find_parameter, live_parameters, with_change
from flowgraph.config.mistake import unknown
from flowgraph.config.validate import unit_of
from flowgraph.keys import load_keys
from flowgraph.report import Report
from flowgraph.spec import GraphSpec, NetworkSpec
from flowgraph.wire import WireError, decode, decoder

SAMPLE_EVERY_S, REPORT_EVERY_S = 0.1, 0.25
SOON_S = 0.5  # within which a change holds, or its viewer is told that it is to come
WATCHED_S = 3.0  # after a viewer's last word; it repeats its `Watch` more often than that
LATEST = 24  # frames and changes in what viewers are told
PICTURES_BYTES = 8 << 20  # of the newest pictures, for viewers that come late
MAX_REQUEST_BYTES = 1 << 16
BEHIND = 64  # messages that a viewer may be behind before it misses some
Scalar = bool | int | float | str | None


class Message(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """Base of requests and answers, MessagePack with the type's name."""


class Describe(Message):
    """What runs here?"""


class Watch(Message):
    """Somebody looks on; these outputs, `block.port`, are to be tapped."""

    outputs: list[str] = []


class Set(Message):
    """Change a live parameter."""

    name: str
    value: Scalar | list[Scalar | list[Scalar]] | dict[str, Scalar]


class Parameter(msgspec.Struct):
    """A live parameter: its value now, and what may be said of it."""

    block: str
    name: str
    value: Any
    unit: str
    description: str
    type: str  # of the block
    schema: dict[str, Any]

    @property
    def full_name(self) -> str:
        return f"{self.block}.{self.name}"


class Run(Message):
    """The run: its graph, live parameters, and where its feed is published. `taps` may be watched."""

    version: str
    spec: GraphSpec
    feed: str
    parameters: list[Parameter]
    taps: dict[str, list[str]]  # item types by output


class InForce(Message):
    """The answer to `Set`: the value that holds from this item on, or why the block keeps the one it has.

    Where the block is at a packet for long, or waits to hand it on, `coming` says that it is to hold from the next on.
    """

    name: str
    value: Any
    frame: int
    offset: int
    fault: str = ""
    coming: bool = False

    def __str__(self) -> str:
        since = "the next packet" if self.coming else f"item {self.offset:,} of frame {self.frame}"
        return f"from {since} on"


class Seen(Message):
    """The answer to `Watch`; where an output does not exist, a sentence."""

    fault: str = ""


_request = decoder(Describe | Watch | Set)
_answer = decoder(Run | InForce | Seen)


class LiveServer:
    """The run's side. `hear()` answers requests, `turn()` publishes; both return at once.

    `say(block, message)` sends a message to the worker of a block.
    """

    def __init__(
        self,
        context: zmq.Context,
        spec: GraphSpec,
        types: Mapping[str, type[Block]],
        endpoint: str,
        curve: tuple[bytes, bytes] | None,
        say: Callable[[str, control.FromSupervisor], None],
    ):
        self.spec, self.types, self.say = spec, types, say
        self.params = {block.name: dict(block.params) for block in spec.blocks}
        self.requests, self.feed = context.socket(zmq.ROUTER), context.socket(zmq.XPUB)
        self.feed.setsockopt(zmq.XPUB_VERBOSE, 1)
        for socket in (self.requests, self.feed):
            socket.setsockopt(zmq.LINGER, 300)
            socket.setsockopt(zmq.SNDHWM, BEHIND)
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_REQUEST_BYTES)
            socket.setsockopt(zmq.IPV6, int("[" in endpoint))
            if curve:
                socket.curve_publickey, socket.curve_secretkey = curve
                socket.curve_server = True
        tcp = endpoint.startswith("tcp:")
        try:
            self.address = self._bind(self.requests, endpoint)
            self.feed_address = self._bind(self.feed, endpoint.rpartition(":")[0] + ":*" if tcp else endpoint + "-feed")
        except zmq.ZMQError as error:
            raise BlockError(f"cannot listen on {endpoint}: {zmq.strerror(error.errno or 0)}") from None
        self.watched: dict[str, float] = dict.fromkeys(spec.probes, float("inf"))  # until when, by output
        self.tapped: dict[str, set[str]] = {}  # what was asked for last, by worker
        self.watched_until = 0.0
        self.asked: dict[int, tuple[bytes, InForce, float]] = {}  # who awaits which change, and until when
        self.numbers = itertools.count()
        self.pictures: deque[tuple[str, bytes]] = deque()
        self.sample_at = self.report_at = 0.0

    @staticmethod
    def _bind(socket: zmq.Socket, endpoint: str) -> str:
        socket.bind(endpoint)
        return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def hear(self) -> None:
        """Answer what viewers have asked."""
        for _ in range(BEHIND):  # and no more at a time, however many there are
            if not self.requests.poll(0):
                break
            identity, *parts = self.requests.recv_multipart()
            try:
                message = _request(parts[0])
            except WireError as error:
                self._reply(identity, Seen(f"must be a request, not what came: {error}"))
                continue
            if isinstance(message, Describe):
                self._reply(identity, self._run())
            elif isinstance(message, Watch):
                self._reply(identity, self._watch(message.outputs))
            elif isinstance(message, Set):
                self._set(identity, message)

    def _reply(self, identity: bytes, message: Run | InForce | Seen) -> None:
        self.requests.send_multipart([identity, control.encode(message)])

    def _run(self) -> Run:
        taps = {
            f"{block}.{port.name}": [port.chosen(cls.Params.model_validate(self.params[block]))]
            if port.chosen
            else list(port.dtypes)
            for block, cls in self.types.items()
            for port in cls.outputs
        }
        parameters = [
            self._parameter(block, name) for block, cls in self.types.items() for name in live_parameters(cls)
        ]
        blocks = [structs.replace(block, params=self._params(block.name)) for block in self.spec.blocks]
        spec = structs.replace(self.spec, blocks=blocks, network=NetworkSpec())
        return Run(version("semflow"), spec, self.feed_address, parameters, taps)

    def _parameter(self, block: str, name: str) -> Parameter:
        cls = self.types[block]
        info = cls.Params.model_fields[name]
        schema = cls.Params.model_json_schema()["properties"][name]
        about = unit_of(info), info.description or "", cls.type_name()
        return Parameter(block, name, self._params(block)[name], *about, schema)

    def _params(self, block: str) -> dict[str, Any]:
        """Return the values in force of all parameters of a block, those left out of the config too."""
        return self.types[block].Params.model_validate(self.params[block]).model_dump(mode="json")

    def _watch(self, outputs: list[str]) -> Seen:
        known = {f"{block}.{port.name}" for block, cls in self.types.items() for port in cls.outputs}
        until = time.monotonic() + WATCHED_S
        self.watched_until = until
        for output in outputs:
            if output not in known:
                return Seen(f"the wire {unknown('an output of a block', output, sorted(known))}")
            self.watched[output] = max(self.watched.get(output, 0.0), until)
        return Seen()

    def _set(self, identity: bytes, message: Set) -> None:
        try:
            block, name = find_parameter(self.types, message.name)
        except BlockError as error:
            self._reply(identity, InForce(message.name, None, 0, 0, str(error)))
            return
        try:
            made = with_change(self.types[block], self.params[block], name, message.value)
        except BlockError as error:
            self._reply(identity, InForce(f"{block}.{name}", self.params[block].get(name), 0, 0, str(error)))
            return
        number, change = next(self.numbers), control.ChangeSpec(block, name, made.model_dump(mode="json")[name])
        coming = InForce(change.name, change.value, 0, 0, coming=True)
        self.asked[number] = identity, coming, time.monotonic() + SOON_S
        self.say(block, control.Change(number, change))

    def changed(self, message: control.Changed) -> None:
        """Take in what a block has made of a change."""
        change = message.change
        if not message.fault:
            made = with_change(self.types[change.block], self.params[change.block], change.parameter, change.value)
            self.params[change.block] = made.model_dump(mode="json")
        if asked := self.asked.pop(message.number, None):
            answer = InForce(change.name, change.value, change.frame, change.offset, message.fault)
            self._reply(asked[0], answer)

    def sampled(self, message: control.Sampled) -> None:
        """Publish a piece of a stream."""
        self.feed.send_multipart([f"probe {message.output}".encode(), message.header, message.data])

    def kept(self, path: str, data: bytes) -> None:
        """Publish a picture that a block has kept."""
        if path.endswith(".png") and len(data) <= PICTURES_BYTES:
            self.pictures.append((path, data))
            while sum(len(each) for _, each in self.pictures) > PICTURES_BYTES:
                self.pictures.popleft()
            self.feed.send_multipart([b"file", path.encode(), data])

    def turn(self, report: Report, running: bool) -> None:
        """Ask for samples and publish the figures, when it is time."""
        now = time.monotonic()
        for _ in range(BEHIND):  # viewers that have come, or gone
            if not self.feed.poll(0):
                break
            if self.feed.recv()[:1] == b"\1":
                for path, data in self.pictures:
                    self.feed.send_multipart([b"file", path.encode(), data])
        for number in [number for number, (*_, until) in self.asked.items() if until < now]:
            identity, coming, _ = self.asked.pop(number)
            self._reply(identity, coming)
        if running and now >= self.sample_at:
            self.sample_at = now + SAMPLE_EVERY_S
            self._sample(now)
        if now >= self.report_at and now < self.watched_until:
            self.report_at = now + REPORT_EVERY_S
            self.publish(report)

    def _sample(self, now: float) -> None:
        self.watched = {output: until for output, until in self.watched.items() if until > now}
        worker_of = {block.name: block.worker for block in self.spec.blocks}
        wanted: dict[str, set[str]] = {worker: set() for worker in self.tapped}
        for output in self.watched:
            wanted.setdefault(worker_of[output.rpartition(".")[0]], set()).add(output)
        for worker, outputs in wanted.items():
            if outputs or self.tapped.get(worker):
                first = next(block for block, where in worker_of.items() if where == worker)
                self.say(first, control.Sample(sorted(outputs)))
        self.tapped = wanted

    def publish(self, report: Report) -> None:
        """Publish the figures so far."""
        now = {"queued": report.queued, "progress": report.progress, "workers": report.workers}
        figures = report.as_dict(last=LATEST) | now
        if "changes" in figures:
            figures["changes"] = figures["changes"][-LATEST:]
        self.feed.send_multipart([b"report", control.encode(figures)])

    def close(self, report: Report) -> None:
        """Say the last word."""
        self.publish(report)
        for identity, *_ in self.asked.values():
            self._reply(identity, InForce("", None, 0, 0, "the run has ended"))
        self.requests.close()
        self.feed.close()


class Remote:
    """A run as its viewers have it: what it is, what is to be seen of it, and its live parameters to be set.

    `address` is what the run has printed; beyond this machine `keys` is the folder with the run's keys. To be used in
    one thread. Raises `BlockError` where nobody answers.
    """

    def __init__(self, address: str, keys: str | None = None, timeout: float = 5.0):
        self.address, self.timeout = address, timeout
        self.context = zmq.Context()
        self.curve = load_keys(keys) if keys else None
        try:
            if address.startswith("ipc://") and not Path(address.removeprefix("ipc://")).exists():
                raise BlockError(f"no run is at {address}: has it ended?")
            self.requests = self._socket(zmq.DEALER, address)
            self.run: Run = self._ask(Describe())
            self.feed = self._socket(zmq.SUB, self.run.feed)
        except BaseException:
            self.context.destroy(0)
            raise

    def _socket(self, kind: int, endpoint: str) -> zmq.Socket:
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        if self.curve:
            socket.curve_publickey, socket.curve_secretkey = self.curve
            socket.curve_serverkey = self.curve[0]
        if kind == zmq.SUB:
            socket.setsockopt(zmq.RCVHWM, BEHIND)
            socket.subscribe(b"")
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            raise BlockError(f"must be the address that a run has printed, not {endpoint!r}: {error}") from None
        return socket

    def _ask(self, message: Message) -> Any:
        self.requests.send(msgspec.msgpack.encode(message))
        if not self.requests.poll(int(1000 * self.timeout)):
            wait = f"no answer from {self.address} in {self.timeout:g} s"
            raise BlockError(f"{wait}: is the run there, and are the keys the same?")
        try:
            answer = _answer(self.requests.recv())
        except WireError as error:
            raise BlockError(f"{self.address} must be the address of a run, but answers otherwise: {error}") from None
        if fault := getattr(answer, "fault", ""):
            raise BlockError(fault)
        return answer

    def set(self, name: str, value: Any) -> InForce:
        """Change a live parameter, and return what is now in force, or is coming.

        Raises `BlockError` where it is refused.
        """
        return self._ask(Set(name, value))

    def watch(self, *outputs: str) -> None:
        """Have the figures and these outputs published for the next three seconds.

        Raises `BlockError` for an output that there is not.
        """
        self._ask(Watch(list(outputs)))

    def news(self, seconds: float = 0.0) -> Iterator[tuple[str, Any]]:
        """Yield what has been published, having waited for the first so long.

        `("report", dict)`, `(output, Packet)`, and `(path, bytes)` for pictures.
        """
        while self.feed.poll(int(1000 * seconds)):
            seconds = 0.0
            topic, *parts = self.feed.recv_multipart()
            if topic == b"report":
                yield "report", msgspec.msgpack.decode(parts[0])
            elif topic == b"file":
                yield parts[0].decode(), parts[1]
            else:
                packet = decode(parts, "")[1]
                if isinstance(packet, Packet):
                    yield topic.decode().removeprefix("probe "), packet

    def close(self) -> None:
        self.context.destroy(0)


def relay(remote: Remote, output: str, endpoint: str, tell: Callable[[str], None] = lambda line: None) -> None:
    """Publish the pieces of an output at `endpoint` as GNU Radio's ZMQ SUB Source takes them, until the run has ended.

    A message is a piece's items, little-endian, and nothing else. Raises `BlockError` where there is no such output,
    the endpoint cannot be had, or nobody answers any more.
    """
    socket = remote.context.socket(zmq.PUB)
    socket.setsockopt(zmq.LINGER, 0)
    remote.watch(output)
    try:
        urlsplit(endpoint).port  # noqa: B018  # ZeroMQ takes one beyond 65535 for another
        socket.bind(endpoint)
    except ValueError as error:
        raise BlockError(f"cannot publish at {endpoint}: {error}") from None
    except zmq.ZMQError as error:
        raise BlockError(f"cannot publish at {endpoint}: {zmq.strerror(error.errno or 0)}") from None
    tell(f"{output} is published at {socket.getsockopt_string(zmq.LAST_ENDPOINT)} until the run has ended, or Ctrl-C")
    said = time.monotonic()
    while True:
        for what, value in remote.news(0.5):
            if what == output:
                socket.send(value.data.tobytes())
            elif what == "report" and value["status"] not in ("starting", "running"):
                return
        if time.monotonic() > said + WATCHED_S / 3:
            said = time.monotonic()
            remote.watch(output)
