"""Runs a graph: starts its workers, introduces them to each other, watches over them, gathers the report, cleans up.

However a run ends (done, a block fails, a worker dies, Ctrl-C), every worker is told to stop, given a moment for
`stop()` of its blocks, and then killed; what was finished is in the report.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import zmq
from msgspec import structs
from zmq.utils.monitor import recv_monitor_message

from flowgraph import control, registry
from flowgraph.block import Block, BlockError
from flowgraph.dump import dump
from flowgraph.keys import Doorkeeper, load_keys
from flowgraph.launch import ending_signals, how_it_ended, launch, private_folder
from flowgraph.live import LiveServer
from flowgraph.place import fault_of_listening, listening_on
from flowgraph.report import Report, RunFailed, RunFolder, WorkerHealth
from flowgraph.spec import GraphSpec, NetworkSpec, WorkerSpec
from flowgraph.transport import open_socket, watch_over
from flowgraph.wire import WireError
from flowgraph.worker import Worker

TICK_MS = 20
QUEUE = 1000  # messages that wait on the way to a worker or from it, that are heard at a time; and strangers told of
LEAVE_WITHIN_S = 2.2
START_TOGETHER_S = 0.7  # after a block did not start, for others to say what they miss too
WRITE_EVERY_S, WRITE_SHARE = 2.0, 100  # seconds, and times as long as it takes
RUNNING, DONE = "running", "run done"  # what a run tells of itself; anything else that it tells is a warning


@dataclass
class _Member:
    """A worker, as the supervisor knows it."""

    spec: WorkerSpec
    process: subprocess.Popen | None = None
    thread: threading.Thread | None = None
    address: tuple[zmq.Socket, bytes] | None = None
    state: str = "starting"  # then: joined, bound, ready, done, left


class Supervisor:
    """One run of a graph. `observe(report)` is called about fifty times a second, for whoever shows progress.

    `live`, or a graph with probes, lets viewers in, and tells their address.
    """

    def __init__(
        self,
        spec: GraphSpec,
        folder: RunFolder,
        blocks: dict[str, Block] | None = None,
        observe: Callable[[Report], None] = lambda report: None,
        tell: Callable[[str], None] = lambda line: None,
        live: bool = False,
    ):
        self.live = live or bool(spec.probes or spec.network.live)
        self.live_server: LiveServer | None = None  # for viewers
        self.spec, self.folder, self.blocks, self.observe = spec, folder, blocks, observe
        self._tell = tell
        self.report = Report(spec)
        self.secret, self.token = secrets.token_hex(16), secrets.token_hex(8)
        self.members = {worker.name: _Member(worker) for worker in spec.workers}
        self.report.workers = {worker.name: WorkerHealth() for worker in spec.workers}
        self.endpoints: dict[str, str] = {}
        self.fault = ""
        self.starts_until: float | None = None  # when blocks that are starting have no more to say, once one could not
        self.interrupted = self.stopping = False
        self.warned: set[str] = set()
        self.refused: set[bytes] = set()  # strangers, by identity
        self.listings: dict[tuple[str, ...], list[Path]] = {}  # files that were found for workers on other hosts
        self.directory = ""  # of the run's sockets
        self.context: zmq.Context | None = None
        self.doorkeeper: Doorkeeper | None = None
        self.sockets: list[zmq.Socket] = []
        self.monitor: zmq.Socket | None = None  # of the socket for other hosts
        self.write_at = 0.0

    def run(self) -> Report:
        """Run to the end. Raises `RunFailed` with one clear sentence, after cleaning up."""
        with self._heeding_interrupts():
            self._run()
        if self.fault:
            raise RunFailed(self.fault, self.report, self.interrupted)
        return self.report

    @contextmanager
    def _heeding_interrupts(self) -> Iterator[None]:
        """Note Ctrl-C and its like instead of raising them where they fall: within `Popen.poll` a lock would stay held,
        for which `Popen.wait` then waits for ever.
        """

        def note(number: int, frame: object) -> None:
            self.interrupted, self.fault = True, self.fault or "interrupted"

        numbers = ending_signals() if threading.current_thread() is threading.main_thread() else []
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run(self) -> None:
        try:
            try:
                self.folder.write("flowgraph.yaml", lambda: dump(self.spec))
                self.directory = private_folder()
                self._open()
                self._start()
                self._attend()
            except BlockError as error:
                self.fault = self.fault or str(error)
            except OSError as error:
                self.fault = self.fault or _sentence(error)
            self._finish()
            status = "interrupted" if self.interrupted else "failed" if self.fault else "done"
            self.report.result |= {"status": status, **({"fault": self.fault} if self.fault else {})}
        finally:
            self._close()
        try:
            self._write_report()
        except OSError as error:
            self.fault = self.fault or _sentence(error)
        self.tell(f"run {status}" + (f": {self.fault}" if self.fault not in ("", status) else ""))

    def _write_report(self) -> None:
        self.report.result["files"] = sorted(self.folder.written | {"report.json"})
        self.folder.write("report.json", self.report.as_json)

    def tell(self, line: str) -> None:
        self.folder.log(line)
        self._tell(line)

    # Opening and starting

    def _open(self) -> None:
        network = self.spec.network
        for host in listening_on(self.spec):
            if fault := fault_of_listening(network, host):
                raise BlockError(f"where the graph listens {fault}")
        self.context = zmq.Context()
        here = self._socket(f"ipc://{self.directory}/control")
        here.bind(f"ipc://{self.directory}/control")
        if network.listen:
            pair = load_keys(network.keys) if network.keys else None
            there = self._socket(network.listen, pair)
            there.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self.monitor = watch_over(there, zmq.Event.DISCONNECTED)
            if pair:
                self.doorkeeper = Doorkeeper(self.context, pair)
            try:
                there.bind(network.listen)
            except zmq.ZMQError as error:
                raise BlockError(f"cannot listen on {network.listen}: {zmq.strerror(error.errno or 0)}") from None
        if self.live:
            self._let_viewers_in()

    def _socket(self, endpoint: str, curve: tuple[bytes, bytes] | None = None) -> zmq.Socket:
        assert self.context is not None
        socket = open_socket(self.context, zmq.ROUTER, endpoint, curve, server=True)
        socket.setsockopt(zmq.SNDHWM, QUEUE)
        socket.setsockopt(zmq.RCVHWM, QUEUE)
        self.sockets.append(socket)
        return socket

    def _let_viewers_in(self) -> None:
        network, types = self.spec.network, {}
        for block in self.spec.blocks:
            types[block.name] = type(self.blocks[block.name]) if self.blocks else registry.find(block.type)
        curve = load_keys(network.keys) if network.live and network.keys else None
        assert self.context is not None
        if curve and not self.doorkeeper:
            self.doorkeeper = Doorkeeper(self.context, curve)
        member_of = {block.name: self.members[block.worker] for block in self.spec.blocks}
        endpoint = network.live or f"ipc://{self.directory}/live"
        self.live_server = LiveServer(
            self.context, self.spec, types, endpoint, curve, lambda block, message: self._say(member_of[block], message)
        )
        self.report.result["live"] = self.live_server.address
        self.tell(f"viewers find it at {self.live_server.address}")

    def _start(self) -> None:
        here = f"ipc://{self.directory}/control"
        for name, member in self.members.items():
            if self.blocks is not None:
                worker = Worker(here, name, self.secret, self.blocks)
                member.thread = threading.Thread(target=worker.run, name=f"worker {name}", daemon=True)
                member.thread.start()
            elif member.spec.host is None:
                member.process = launch(
                    member.spec, here, self.secret, self.spec.network.keys or "", self.folder.log_file
                )
            else:
                network = self.spec.network
                command = f"semflow worker {name} --connect {network.listen}"
                if network.keys:
                    command += f" --keys {network.keys}"
                elif network.insecure:
                    command += " --insecure"
                self.report.starting[name] = f"waiting for worker {name} on {member.spec.host}"
                self.tell(f"waiting for worker {name}; on {member.spec.host} run: {command}")

    # The run

    def _attend(self) -> None:
        """Hear the workers until all are done or something has gone wrong."""
        while not self.interrupted and (not self.fault or self._more_may_fail_to_start()):
            self._hear(TICK_MS)
            self._look_for_the_dead()
            states = {member.state for member in self.members.values()}
            if states == {"bound"}:
                self._say_all(control.Connect(self.endpoints), "connected")
            elif states == {"ready"} and not self.fault:
                self._say_all(control.Go(), "running")
                self.report.result["status"] = "running"
                self.tell(RUNNING)
            elif states == {"done"}:
                return
            self.observe(self.report)
            if self.live_server:
                self.live_server.turn(self.report, states == {"running"})
            if time.monotonic() > self.write_at:
                began = time.monotonic()
                self._write_report()
                self.write_at = time.monotonic() + max(WRITE_EVERY_S, WRITE_SHARE * (time.monotonic() - began))

    def _more_may_fail_to_start(self) -> bool:
        """Tell whether blocks still start beside one that could not: a person wants to hear all that is missing."""
        if self.starts_until is None:
            self.starts_until = time.monotonic() + START_TOGETHER_S
        starting = any(member.state == "connected" for member in self.members.values())
        return starting and time.monotonic() < self.starts_until

    def _hear(self, milliseconds: int) -> None:
        """Take in all that the workers have said, waiting a moment for the first word."""
        poller = zmq.Poller()
        for socket in self.sockets:
            poller.register(socket, zmq.POLLIN)
        if self.live_server:
            poller.register(self.live_server.requests, zmq.POLLIN)
        for socket, _ in poller.poll(milliseconds):
            if self.live_server and socket is self.live_server.requests:
                self.live_server.hear()
                continue
            for _ in range(QUEUE):  # and no more at a time, however many there are
                if not socket.poll(0):
                    break
                name, data = socket.recv_multipart()[:2]
                try:
                    self._take(socket, name, control.from_worker(data))
                except WireError as error:
                    self._refuse(socket, name, f"what it says is none of Semflow's messages: {error}")

    def _refuse(self, socket: zmq.Socket, identity: bytes, reason: str) -> None:
        """Tell of a stranger, and tell it why it is not wanted: once, however often it comes."""
        if identity not in self.refused and len(self.refused) < QUEUE:
            self.refused.add(identity)
            self.tell(f"a stranger on the control socket was refused: {identity[:40]!r}: {reason}")
            self._send(socket, identity, control.Refused(reason))

    def _take(self, socket: zmq.Socket, identity: bytes, message: control.FromWorker) -> None:
        member = self.members.get(identity.decode(errors="replace"))
        if member is None or (member.address is None and not isinstance(message, control.Hello)):
            awaited = ", ".join(name for name, each in self.members.items() if each.spec.host) or "none"
            self._refuse(socket, identity, f"the workers awaited from other hosts are {awaited}")
            return
        name = member.spec.name
        health = self.report.workers[name]
        if isinstance(message, control.Hello):
            by_hand = member.spec.host is not None and socket is not self.sockets[0]
            if member.address or not (by_hand or secrets.compare_digest(message.secret, self.secret)):
                reason = "it is there already" if member.spec.host else "it runs where the graph was started"
                self._refuse(socket, identity, reason)
            elif (message.protocol, message.version) != (control.PROTOCOL, version("semflow")):
                self.fault = f"worker {name} runs Semflow {message.version}, not {version('semflow')}: install the same"
            else:
                member.address, member.state = (socket, identity), "joined"
                self.report.starting.pop(name, None)
                spec = structs.replace(self.spec, network=NetworkSpec()) if by_hand else self.spec
                setup = control.Setup(spec, name, self.token, "" if by_hand else self.directory, self.folder.keeps)
                self._say(member, control.Stop() if self.fault else setup)
        elif isinstance(message, control.Bound):
            self.endpoints.update(message.endpoints)
            member.state = "bound"
        elif isinstance(message, control.Starting):
            self.report.starting[name] = message.step
        elif isinstance(message, control.Ready):
            member.state, health.state = "ready", "alive"
            self.report.starting.pop(name, None)
        elif isinstance(message, control.Figures):
            self.report.add(message.section, message.frame, message.values)
        elif isinstance(message, control.File):
            try:
                self.folder.write(message.path, message.data)
            except (OSError, ValueError) as error:
                self.fault = self.fault or (_sentence(error) if isinstance(error, OSError) else str(error))
            if self.live_server:
                self.live_server.kept(message.path, message.data)
        elif isinstance(message, control.Warned):
            line = f"{message.block}: {message.message}"
            # Several blocks read the same files; and of what follows from a fault nobody need hear before it.
            if message.message in self.warned or (self.fault and not self.interrupted):
                self.folder.log(line)
            else:
                self.warned.add(message.message)
                self.tell(line)
        elif isinstance(message, control.Counts):
            self.report.count(message.blocks, message.wires, message.queued)
            self.report.progress |= message.progress
            self.report.latency.add(message.passages)
            health.cpu_s, health.memory = message.cpu_s, message.memory
            if message.done:
                member.state, health.state = "done", "ended"
        elif isinstance(message, control.Failed):
            health.state = "failed"
            who = f"block {message.block}" if message.block else f"worker {name}"
            fault = f"{who}: {message.message}"
            if not self.fault:
                self.fault = fault
            elif self._more_may_fail_to_start():
                self.fault += "\n" + fault
            if message.trace:
                self.folder.log(message.trace)
        elif isinstance(message, control.Sampled):
            if self.live_server:
                self.live_server.sampled(message)
        elif isinstance(message, control.Changed):
            self._log_change(message)
        elif isinstance(message, control.Wanted):
            self._serve(member, message)
        elif isinstance(message, control.Left):
            member.state = "left"
            if health.state != "failed":
                health.state = "ended"
            if not (self.stopping or self.fault):
                blocks = ", ".join(block.name for block in self.spec.blocks if block.worker == name)
                self.fault = f"worker {name} ({blocks}) was ended by hand"

    def _log_change(self, message: control.Changed) -> None:
        """Write down a change that holds, so that the graph in the run's folder repeats it at the same item."""
        change = message.change
        if self.live_server:
            self.live_server.changed(message)
        if message.fault:
            self.tell(f"{change.block}: {message.fault}")
            return
        self.tell(f"{change.name} = {change.value} from item {change.offset} of frame {change.frame} on")
        self.report.result.setdefault("changes", []).append(structs.asdict(change))
        if message.number >= 0:
            self.spec = structs.replace(self.spec, changes=[*self.spec.changes, change])
            self.folder.write("flowgraph.yaml", dump(self.spec))

    def _serve(self, member: _Member, wanted: control.Wanted) -> None:
        """Send a worker on another host a file that one of its blocks' parameters names, and no other."""
        named = {
            value
            for block in self.spec.blocks
            if block.worker == member.spec.name
            for value in block.params.values()
            if isinstance(value, str)
        }
        listed = (member.spec.name, wanted.pattern, *wanted.endings)
        if wanted.index == 0 or listed not in self.listings:
            known = wanted.pattern in named
            self.listings[listed] = control.matching_files(wanted.pattern, wanted.endings) if known else []
        files = self.listings[listed]
        if wanted.index < len(files):
            self._say(member, control.read_file(files[wanted.index]))
        else:
            self._say(member, control.Content(""))

    def _look_for_the_dead(self) -> None:
        for name, member in self.members.items():
            blocks = ", ".join(block.name for block in self.spec.blocks if block.worker == name)
            if member.process and member.process.poll() is not None and member.state != "left":
                self._hear(0)  # its last words
                if member.state != "left":
                    self.report.workers[name].state = "failed"
                if not self.fault and not self.sockets[0].poll(0):
                    self.fault = f"worker {name} ({blocks}) {how_it_ended(member.process.returncode)}"
                    self.starts_until = 0.0  # it will say no more
            if member.thread and not member.thread.is_alive() and not self.fault:
                self.report.workers[name].state = "failed"
                self.fault = f"worker {name} ended by itself; its last words are on stderr"
        broken = False
        while self.monitor and self.monitor.poll(0):
            broken = bool(recv_monitor_message(self.monitor))
        if broken:
            for member in self.members.values():
                if member.spec.host and member.state != "left":
                    self._say(member, control.Hail())

    def _say(self, member: _Member, message: control.FromSupervisor) -> None:
        if member.address and not self._send(*member.address, message):
            blocks = ", ".join(block.name for block in self.spec.blocks if block.worker == member.spec.name)
            self.fault = self.fault or f"worker {member.spec.name} ({blocks}) on {member.spec.host} is gone"
            member.address, member.state = None, "left"
            self.report.workers[member.spec.name].state = "failed"

    def _send(self, socket: zmq.Socket, identity: bytes, message: control.FromSupervisor) -> bool:
        """Send a message; return False if a worker on another host is no longer connected, or has long not listened."""
        try:
            socket.send_multipart([identity, control.encode(message)], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def _say_all(self, message: control.FromSupervisor, state: str) -> None:
        for member in self.members.values():
            member.state = state
            self._say(member, message)

    # The end

    def _finish(self) -> None:
        """Stop all workers, and see them leave."""
        until = time.monotonic() + LEAVE_WITHIN_S
        self.stopping = True
        for member in self.members.values():
            self._say(member, control.Stop())
        while time.monotonic() < until and any(map(_still_here, self.members.values())):
            self._hear(TICK_MS)

    def _close(self) -> None:
        for member in self.members.values():
            if member.process and member.process.poll() is None:
                member.process.kill()
                member.process.wait()
        if self.monitor:
            self.monitor.close()
        for socket in self.sockets:
            socket.close()
        if self.live_server:
            self.live_server.close(self.report)
        if self.doorkeeper:
            self.doorkeeper.close()
        if self.context:
            self.context.term()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)


def _sentence(error: OSError) -> str:
    return f"cannot write {error.filename}: {error.strerror}" if error.filename else str(error)


def _still_here(member: _Member) -> bool:
    if member.process:
        code = member.process.poll()
        return code is None or (code == 0 and member.state != "left")  # its last words are on their way
    if member.thread:
        return member.thread.is_alive()
    return member.address is not None and member.state != "left"
