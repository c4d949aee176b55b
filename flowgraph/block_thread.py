"""Blocks at work: a thread for each, between the wires that come in and those that go out; one for a fused chain."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import zmq
from msgspec import structs

from flowgraph import control
from flowgraph.block import Block, Packet
from flowgraph.changes import Changes
from flowgraph.latency import Passage, timed
from flowgraph.probe import Tap
from flowgraph.runner import Runner
from flowgraph.spec import WireSpec
from flowgraph.transport import Incoming, Outgoing, Stopped
from flowgraph.wire import End

# Blocks of a process start one after the other: large libraries do not bear being imported by several threads at once.
_starting = threading.Lock()
PATIENCE_BYTES = 16 << 20  # of frames that wait for partners from other sources, before their own source must wait


class Call:
    """A wire between two fused blocks: both ends in one, and what goes in comes out at once."""

    waiting: tuple[Packet, ...] = ()  # as of an outgoing wire's queue
    dropped = 0

    def __init__(self, spec: WireSpec, target: Stage):
        self.spec, self.target, self.port = spec, target, spec.target_port
        self.packets = self.bytes = 0

    def send(self, packet: Packet) -> None:
        self.packets += 1
        self.bytes += packet.data.nbytes
        self.target.take(self.port, packet)

    def end(self) -> None:
        self.target.take(self.port, End(0, 0))


class Stage:
    """One block, its wires and what it has done; `at_work` holds the block that a fault belongs to."""

    def __init__(
        self,
        block: Block,
        memory: int,
        connected: set[str],
        at_work: list[str],
        delays: dict[str, int],
        changes: Changes,
    ):
        self.block, self.at_work = block, at_work
        self.outputs: dict[str, list[Outgoing | Call]] = {}
        self.taps: dict[str, Tap] = {}  # by output
        self.runner = Runner(block, self._emit, connected, memory, delays, changes)
        self.count = control.BlockCount()
        self._began = self._held = 0.0  # the call under way, and what it hands on now; 0 where there is none
        self._sending = 0.0  # seconds of that call
        self.passages: deque[Passage] = deque()  # of frames' ends, until the supervisor has been told of them
        self._came: dict[int, float] = {}  # when a frame's end came in, or a source began with the frame
        self._gone = -1  # frame whose end has left last

    def wires(self) -> Iterator[Outgoing | Call]:
        """Yield the block's wires out, of all its outputs."""
        for wires in self.outputs.values():
            yield from wires

    def take(self, name: str, message: Packet | End) -> None:
        """Give the input `name` what has come, and hand on what the block makes of it."""
        caller, self.at_work[0] = self.at_work[0], self.block.name
        self._begin()
        if isinstance(message, End):
            ended = self.runner.end(name)
        else:
            self.count.packets += 1
            self.count.items += message.count
            ending = message.last and timed(message.frame)
            if ending:
                self._came[message.frame] = self._began
            ended = self.runner.feed(name, message)
            if ending and self._gone != message.frame and not self.runner.promised:
                self.passages.append((self.block.name, "", message.frame, self._began, time.perf_counter()))
        self._spent()
        if ended:
            self.end()
        self.at_work[0] = caller

    def keep_promise(self) -> None:
        """Hand on the oldest of what other threads still make for the block, if any."""
        if promised := self.runner.promised:
            self.at_work[0] = self.block.name
            self._begin()
            self.runner.keep_promises(len(promised) - 1)
            self._spent()

    def produce(self) -> Iterator[None]:
        """Run a source, step by step."""
        self.at_work[0] = self.block.name
        steps = self.runner.produce()
        while True:
            self._begin()
            step = next(steps, self)
            self._spent()
            if step is self:
                break
            yield
        self.end()

    def counted(self) -> control.BlockCount:
        """Return what the block has done so far, the call that it is in included; asked for by another thread."""
        busy_s, began, held = self.count.busy_s, self._began, self._held
        if began:  # the model of a diffusion may be at one picture for minutes
            busy_s += (held or time.perf_counter()) - began - self._sending
        return structs.replace(self.count, busy_s=busy_s)

    def _begin(self) -> None:
        self._sending, self._began = 0.0, time.perf_counter()

    def _spent(self) -> None:
        began, self._began = self._began, 0.0
        self.count.busy_s += time.perf_counter() - began - self._sending
        self.count.sending_s += self._sending

    def end(self) -> None:
        """Tell the blocks behind that the stream has ended."""
        for wire in self.wires():
            wire.end()

    def _emit(self, port: str, packet: Packet) -> None:
        if self.taps and (tap := self.taps.get(port)):
            tap.see(packet)
        self._held = began = time.perf_counter()
        for wire in self.outputs.get(port, ()):
            wire.send(packet)
        self._sending += time.perf_counter() - began
        self._held = 0.0
        if not self.block.inputs:
            self.count.packets += 1
            self.count.items += packet.count
            if not packet.offset and timed(packet.frame):
                self._came.setdefault(packet.frame, self._began)
        if packet.last and timed(packet.frame):
            came, self._gone = self._came.get(packet.frame, self._began), packet.frame
            self.passages.append((self.block.name, port, packet.frame, came, began))


class BlockThread(threading.Thread):
    """Runs one block: starts it, waits for `go`, feeds it until its streams end or `stop`, and stops it in any case.

    Of a fused chain it runs all blocks, in the order of `stages`: the first has the wires that come in, `inputs`, and
    the others work as soon as they are handed something. `origins` are the sources that each input depends on;
    `fail(name, error)` is told what a block cannot do.
    """

    def __init__(
        self,
        stages: list[Stage],
        inputs: dict[str, Incoming],
        origins: dict[str, frozenset[str]],
        go: threading.Event,
        stop: threading.Event,
        fail: Callable[[str, BaseException], None],
    ):
        super().__init__(name=stages[0].block.name, daemon=True)
        self.stages, self.inputs, self.origins = stages, inputs, origins
        self.go, self.stop, self.fail = go, stop, fail
        self.started, self.finished = threading.Event(), threading.Event()
        self.begun: list[Stage] = []  # whose `start()` was called
        self.told = False  # what was wrong, if anything

    def run(self) -> None:
        first = self.stages[0]
        well = self._do(first, self._work)
        for stage in self.begun:
            well &= self._do(stage, stage.block.stop)
        well &= self._do(first, self._close)
        if well:
            self.finished.set()

    def _do(self, stage: Stage, step: Callable[[], None]) -> bool:
        """Take a step and tell whatever it raises, `SystemExit` too: nobody else hears of it in a thread."""
        stage.at_work[0] = stage.block.name
        try:
            step()
        except Stopped:
            return False
        except BaseException as error:
            self.fail(stage.at_work[0], error)
            self.told = True
            return False
        return True

    def _work(self) -> None:
        first = self.stages[0]
        with _starting:
            for stage in self.stages:
                stage.at_work[0] = stage.block.name
                self.begun.append(stage)
                logging.getLogger("semflow").info("starting %s", stage.block.name)
                stage.block.start()
        self.started.set()
        self._wait_for_go()
        if first.block.inputs:
            self._consume(first)
        else:
            for _ in first.produce():
                if self.stop.is_set():
                    raise Stopped

    def _close(self) -> None:
        for incoming in self.inputs.values():
            incoming.close()
        for outgoing in self.outgoing():
            outgoing.close()

    @property
    def settled(self) -> bool:
        """Whether the blocks have started, or will not."""
        return self.started.is_set() or self._dead

    @property
    def silent(self) -> bool:
        """Whether the thread has died without a word."""
        return self._dead and not (self.finished.is_set() or self.told or self.stop.is_set())

    @property
    def _dead(self) -> bool:
        return self.ident is not None and not self.is_alive()

    def outgoing(self) -> Iterator[Outgoing]:
        """Yield the wires that leave the thread."""
        for stage in self.stages:
            yield from (wire for wire in stage.wires() if isinstance(wire, Outgoing))

    def _wait_for_go(self) -> None:
        while not self.go.wait(0.05):
            if self.stop.is_set():
                raise Stopped

    def _consume(self, first: Stage) -> None:
        poller, by_socket, runner = zmq.Poller(), {}, first.runner
        for wire in self.inputs.values():
            assert wire.socket is not None
            poller.register(wire.socket, zmq.POLLIN)
            by_socket[wire.socket] = wire
        ahead: list[Incoming] = []
        while runner.open:
            wanted = [wire for wire in self.inputs.values() if not wire.ended]
            if runner.pairing:
                before, ahead = ahead, [wire for wire in wanted if self._runs_ahead(runner, wire)]
                for wire in wanted if ahead != before else ():
                    poller.modify(wire.socket, 0 if wire in ahead else zmq.POLLIN)
                wanted = [wire for wire in wanted if wire not in ahead]
            ready = [wire for wire in wanted if wire.at_hand()]
            if not (ready or runner.promised):
                for wire in wanted:
                    wire.expect()
                ready = [wire for wire in wanted if wire.at_hand()]
            idle = not (ready or runner.promised)
            if idle or any(wire.handover is None for wire in wanted):
                for socket, _ in poller.poll(50 if idle else 0):
                    by_socket[socket].woken()
                    if by_socket[socket] not in ready:
                        ready.append(by_socket[socket])
            for outgoing in self.outgoing():
                if outgoing.waiting:
                    outgoing.pump()
            if not ready:
                first.keep_promise()
                for stage in self.stages:
                    stage.runner.change()
            if self.stop.is_set():
                raise Stopped
            for wire in ready:
                for message in wire.messages():
                    first.take(wire.port, message)
                    if self.stop.is_set():
                        raise Stopped
                    if runner.pairing and self._runs_ahead(runner, wire):
                        break  # what has come meanwhile waits with its sender
                if wire.ended:
                    poller.unregister(wire.socket)

    def _runs_ahead(self, runner: Runner, wire: Incoming) -> bool:
        """Tell whether an input should wait for the others: it is far ahead, and they do not depend on its sources.

        Where they share a source, waiting could keep the late input from ever coming. What comes by the way back of a
        loop depends on frames that have been worked on, and on none that is still to come.
        """
        if runner.held(wire.port) < min(PATIENCE_BYTES, runner.memory // 2):
            return False
        behind = runner.behind(wire.port)
        if not behind:
            return not wire.spec.delay and bool(runner.lacks_late())
        return all(self.origins[wire.port].isdisjoint(self.origins[name]) for name in behind)
