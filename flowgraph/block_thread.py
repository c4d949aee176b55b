"""One block at work: a thread between the wires that come in and those that go out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import zmq

from flowgraph import control
from flowgraph.block import Block, Packet
from flowgraph.runner import Runner
from flowgraph.spec import WireSpec
from flowgraph.transport import Incoming, Outgoing, Stopped
from flowgraph.wire import End

# Blocks of a process start one after the other: large libraries do not bear being imported by several threads at once.
_starting = threading.Lock()
PATIENCE_BYTES = 16 << 20  # of frames that wait for partners from other sources, before their own source must wait


class BlockThread(threading.Thread):
    """Runs one block: starts it, waits for `go`, feeds it until its streams end or `stop`, and always stops it.

    `origins` are the sources that each input depends on; `fail(name, error)` is told what the block cannot do.
    """

    def __init__(
        self,
        block: Block,
        memory: int,
        inputs: dict[str, Incoming],
        outputs: dict[str, list[Outgoing]],
        origins: dict[str, frozenset[str]],
        go: threading.Event,
        stop: threading.Event,
        fail: Callable[[str, BaseException], None],
    ):
        super().__init__(name=block.name, daemon=True)
        self.block, self.inputs, self.outputs, self.origins = block, inputs, outputs, origins
        self.go, self.stop, self.fail = go, stop, fail
        self.runner = Runner(block, self._emit, set(inputs), memory)
        self.started, self.finished = threading.Event(), threading.Event()
        self.count = control.BlockCount()
        self._sending = 0.0

    def run(self) -> None:
        ended = False
        try:
            with _starting:
                self.block.start()
            self.started.set()
            self._wait_for_go()
            if self.block.inputs:
                self._consume()
            else:
                self._produce()
            for wire in self.outgoing():
                wire.end()
            ended = True
        except Stopped:
            pass
        except Exception as error:
            self.fail(self.block.name, error)
        finally:
            try:
                self.block.stop()
            except Exception as error:
                self.fail(self.block.name, error)
                ended = False
            for incoming in self.inputs.values():
                incoming.close()
            for outgoing in self.outgoing():
                outgoing.close()
            if ended:
                self.finished.set()

    @property
    def settled(self) -> bool:
        """Whether the block has started, or will not."""
        return self.started.is_set() or (self.ident is not None and not self.is_alive())

    def outgoing(self) -> Iterator[Outgoing]:
        """Yield the block's wires out, of all its outputs."""
        for wires in self.outputs.values():
            yield from wires

    def _wait_for_go(self) -> None:
        while not self.go.wait(0.05):
            if self.stop.is_set():
                raise Stopped

    def _emit(self, port: str, packet: Packet) -> None:
        began = time.perf_counter()
        for wire in self.outputs.get(port, ()):
            wire.send(packet)
        self._sending += time.perf_counter() - began
        if not self.block.inputs:
            self.count.packets += 1
            self.count.items += packet.count

    def _produce(self) -> None:
        steps = self.runner.produce()
        while True:
            began, self._sending = time.perf_counter(), 0.0
            step = next(steps, self)
            self.count.busy_s += time.perf_counter() - began - self._sending
            if self.stop.is_set():
                raise Stopped
            if step is self:
                return

    def _consume(self) -> None:
        poller, names = zmq.Poller(), {}
        for name, wire in self.inputs.items():
            assert wire.socket is not None
            poller.register(wire.socket, zmq.POLLIN)
            names[wire.socket] = name
        while self.runner.open:
            if self.runner.pairing:
                for wire in self.inputs.values():
                    if not wire.ended:
                        poller.modify(wire.socket, 0 if self._runs_ahead(wire.spec) else zmq.POLLIN)
            ready = poller.poll(50)
            for outgoing in self.outgoing():
                if outgoing.waiting:
                    outgoing.pump()
            if not ready:
                for incoming in self.inputs.values():
                    incoming.watch()
            if self.stop.is_set():
                raise Stopped
            for socket, _ in ready:
                name = names[socket]
                for message in self.inputs[name].messages():
                    self._take(name, message)
                    if self.stop.is_set():
                        raise Stopped
                if self.inputs[name].ended:
                    poller.unregister(socket)

    def _runs_ahead(self, spec: WireSpec) -> bool:
        """Tell whether an input should wait for the others: it is far ahead, and they do not depend on its sources.

        Where they share a source, waiting could keep the late input from ever coming.
        """
        if self.runner.held(spec.target_port) < PATIENCE_BYTES:
            return False
        late = self.runner.late(spec.target_port)
        return bool(late) and all(self.origins[spec.target_port].isdisjoint(self.origins[name]) for name in late)

    def _take(self, name: str, message: Packet | End) -> None:
        began, self._sending = time.perf_counter(), 0.0
        if isinstance(message, End):
            self.runner.end(name)
        else:
            self.count.packets += 1
            self.count.items += message.count
            self.runner.feed(name, message)
        self.count.busy_s += time.perf_counter() - began - self._sending
