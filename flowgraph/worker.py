"""A worker: a process (or a thread) that runs its share of a graph, one thread a block, and obeys the supervisor.

Its life: say hello; get the graph; make the blocks and bind their wires; connect; start the blocks; go; say when all
streams have ended; stop the blocks and leave when told, when a block fails, or when the supervisor is gone.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zmq
from msgspec import structs

from flowgraph import control, registry
from flowgraph.block import Block, BlockError, Context, Packet
from flowgraph.block_thread import BlockThread, Call, Stage
from flowgraph.changes import Changes
from flowgraph.dump import dump
from flowgraph.keys import Doorkeeper, load_keys
from flowgraph.latency import Passage
from flowgraph.launch import compute_threads
from flowgraph.place import endpoint
from flowgraph.probe import Tap
from flowgraph.spec import BlockSpec, ChangeSpec
from flowgraph.transport import LINGER_MS, MAX_MESSAGE_BYTES, Hub, Incoming, Outgoing, Stopped, watch_over
from flowgraph.wire import WireError, encode

LOG = logging.getLogger("semflow")
COUNTS_EVERY_S = 0.25
TICK_MS = 20
HINT_AFTER_S = 3.0
LEAVE_WITHIN_S = 1.7
AHEAD = 4  # packets at most that other threads make for a block: the rest of a chain keeps up with no more


def explain(error: BaseException) -> str:
    """Return one sentence for a failure: a `BlockError` speaks for itself, anything else says where it happened."""
    if isinstance(error, BlockError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


class _Steps(logging.Handler):
    """Hands on what the threads of some blocks log of what they are at."""

    def __init__(self, threads: list[BlockThread], post: Callable[[control.Message], None]):
        super().__init__(logging.INFO)
        self.threads, self.post = threads, post

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread in {thread.ident for thread in self.threads}:
            self.post(control.Starting(record.getMessage()))


class Worker:
    """One worker. `run()` returns when the supervisor has let it go, or is gone.

    `blocks` are ready-made block objects by name, for graphs composed in Python and run in this very process. `parent`
    is the process that started this one for the run.
    """

    def __init__(
        self,
        connect: str,
        name: str,
        secret: str = "",
        blocks: dict[str, Block] | None = None,
        curve: tuple[bytes, bytes] | None = None,
        parent: int | None = None,
    ):
        self.name, self.secret, self.blocks, self.parent = name, secret, blocks, parent
        self.folder = str(Path(connect.removeprefix("ipc://")).parent) if connect.startswith("ipc:") else ""
        self.hub = Hub(zmq.Context(), "", threading.Event(), curve)
        self.doorkeeper: Doorkeeper | None = None
        self.control = self.hub.socket(zmq.DEALER, False, connect)
        self.control.setsockopt(zmq.IDENTITY, name.encode())
        self.control.setsockopt(zmq.LINGER, 1000)
        self.monitor = watch_over(self.control, zmq.Event.DISCONNECTED)
        self.control.connect(connect)
        self.outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.contents: queue.SimpleQueue[control.Content | None] = queue.SimpleQueue()
        self.asking = threading.Lock()
        self.go = threading.Event()
        self.threads: list[BlockThread] = []
        self.steps = _Steps(self.threads, self._post)
        self.stages: dict[str, Stage] = {}  # by block
        self.connected = False
        self.warned: dict[str, int] = {}
        self.refusals: dict[str, bool] = {}  # sentence: whether the supervisor has been told
        self.setup: control.Setup | None = None

    # What the block threads call

    def _post(self, message: control.Message) -> None:
        """Leave a message for the supervisor; it is encoded here, so that a block hears of what cannot be sent."""
        data = control.encode(message)
        if len(data) > MAX_MESSAGE_BYTES:
            size, limit = len(data) >> 20, MAX_MESSAGE_BYTES >> 20
            raise BlockError(f"hands the run {size} MiB at once, more than the {limit} MiB that a message holds")
        self.outbox.put(data)

    def fail(self, block: str, error: BaseException) -> None:
        """Tell the supervisor that a block cannot go on; a `BlockError` is for people, and tells all by itself."""
        trace = "" if isinstance(error, BlockError) else "".join(traceback.format_exception(error))
        self._post(control.Failed(block, explain(error), trace))

    def _context(self, spec: BlockSpec, setup: control.Setup, distant: bool) -> Context:
        def warn(message: str) -> None:
            self.warned[spec.name] = self.warned.get(spec.name, 0) + 1
            self._post(control.Warned(spec.name, message))

        def files(pattern: str, endings: Collection[str]) -> Iterator[tuple[str, bytes | OSError]]:
            contents = self._distant_files if distant else _local_files
            for content in contents(pattern, endings):
                yield content.name, OSError(content.error) if content.error else content.data

        def checkpoint() -> None:
            if self.hub.stop.is_set():
                raise Stopped

        return Context(
            setup.spec.seed,
            lambda section, frame, values: self._post(control.Figures(section, frame, values)),
            (lambda path, data: self._post(control.File(path, data))) if setup.keeps else None,
            warn,
            files,
            checkpoint,
            graph=lambda: dump(setup.spec),
            **self._aside(spec),
        )

    def _aside(self, spec: BlockSpec) -> dict[str, Any]:
        """Return what a block's context says of other threads: a fused chain keeps to its own."""
        ahead = min(AHEAD, compute_threads() or 1)
        if spec.chain or ahead < 2:
            return {}
        return {"later": ThreadPoolExecutor(ahead, spec.name).submit, "ahead": ahead}

    def _distant_files(self, pattern: str, endings: Collection[str]) -> Iterator[control.Content]:
        index = 0
        while True:
            with self.asking:
                self._post(control.Wanted(pattern, index, list(endings)))
                content = self.contents.get()
            if content is None:
                raise Stopped
            if not content.name:
                return
            yield content
            index += 1

    # The life of the worker, in its own thread

    def run(self) -> bool:
        """Run until let go; return False if the supervisor went away. Raises `BlockError` where it is refused."""
        self._say(control.Hello(control.PROTOCOL, version("semflow"), self.secret))
        LOG.setLevel(logging.INFO)
        LOG.addHandler(self.steps)
        try:
            return self._obey()
        finally:
            LOG.removeHandler(self.steps)
            self._leave()

    def _say(self, message: control.Message) -> None:
        self.control.send(control.encode(message))

    def _obey(self) -> bool:
        ready = done = False
        counted, began = 0.0, time.monotonic()
        while True:
            heard = self.control.poll(TICK_MS)
            if not heard and not self.setup and time.monotonic() - began > HINT_AFTER_S:
                began = float("inf")
                self._hint()
            self._flush_outbox()
            if heard:
                message = self._heard()
                if isinstance(message, control.Stop):
                    return True
                if isinstance(message, control.Refused):
                    raise BlockError(f"worker {self.name} is refused: {message.reason}")
                if isinstance(message, control.Content):
                    self.contents.put(message)
                else:
                    try:
                        self._act(message)
                    except Exception as error:
                        self.fail(getattr(error, "block", ""), error)
            if self._abandoned():
                return False
            for thread in self.threads:
                if thread.silent:
                    thread.told = True
                    self.fail(thread.name, BlockError("ended without a word, while it was to say what is wrong"))
            if self.connected and not ready and all(thread.settled for thread in self.threads):
                ready = True
                self._flush_outbox()
                self._say(control.Ready())
            ended = ready and all(thread.finished.is_set() for thread in self.threads)
            if self.setup and (time.monotonic() - counted > COUNTS_EVERY_S or (ended and not done)):
                counted, done = time.monotonic(), ended
                self._flush_outbox()
                self._say(self._counts(done))

    def _heard(self) -> control.FromSupervisor:
        try:
            return control.from_supervisor(self.control.recv())
        except WireError as error:
            raise BlockError(f"worker {self.name}: what it has joined is no run: {error}") from None

    def _hint(self) -> None:
        """Say what to look at where nobody answers: ZeroMQ keeps trying, and tells no reasons."""
        print(
            f"worker {self.name}: no answer yet: is the run there, are the keys the same, "
            f"and is no other worker {self.name} with it already?",
            file=sys.stderr,
        )

    def _abandoned(self) -> bool:
        """Tell whether the supervisor is gone; before the connection stands, only its child can tell."""
        return bool(self.monitor.poll(0)) or (self.parent is not None and os.getppid() != self.parent)

    def _flush_outbox(self) -> None:
        while True:
            try:
                self.control.send(self.outbox.get_nowait())
            except queue.Empty:
                return

    def _act(self, message: control.FromSupervisor) -> None:
        if isinstance(message, control.Setup):
            self.setup, self.hub.token = message, message.token
            self._say(control.Bound(self._build(message)))
        elif isinstance(message, control.Connect):
            for thread in self.threads:
                for wire in thread.outgoing():
                    wire.connect(message.endpoints[wire.spec.name])
            for thread in self.threads:
                thread.start()
            self.connected = True
        elif isinstance(message, control.Go):
            self.go.set()
        elif isinstance(message, control.Sample):
            self._sample(message.outputs)
        elif isinstance(message, control.Change):
            self._change(message)

    def _sample(self, outputs: list[str]) -> None:
        """Have a piece taken of what comes out next; taps that nobody asks for any more are removed."""
        wanted: dict[str, list[str]] = {}
        for output in outputs:
            block, _, port = output.rpartition(".")
            wanted.setdefault(block, []).append(port)
        for name, stage in self.stages.items():
            ports = wanted.get(name, [])
            taps = {port: stage.taps.get(port) or self._tap(f"{name}.{port}") for port in ports}
            for tap in taps.values():
                tap.wanted = True
            stage.taps = taps

    def _tap(self, output: str) -> Tap:
        seq = itertools.count()

        def take(piece: Packet) -> None:
            header, data = encode(piece, next(seq), "")
            self._post(control.Sampled(output, header, data.tobytes() if data is not None else b""))

        return Tap(take)

    def _change(self, message: control.Change) -> None:
        stage = self.stages[message.change.block]
        thread = next(thread for thread in self.threads if stage in thread.stages)
        if thread.is_alive() or not self.connected:
            stage.runner.changes.ask(message.number, message.change)
        else:
            self._tell_change(message.number, message.change, f"{message.change.block} has finished")

    def _tell_change(self, number: int, change: ChangeSpec, fault: str) -> None:
        self._post(control.Changed(number, change, fault))

    def _build(self, setup: control.Setup) -> dict[str, str]:
        """Make the blocks and bind what they listen to; return where, by wire."""
        spec = setup.spec
        me = next(worker for worker in spec.workers if worker.name == self.name)
        chains: dict[str, list[Stage]] = {}
        stages = self.stages
        bound: dict[str, str] = {}
        for block_spec in spec.in_order():
            if block_spec.worker != self.name:
                continue
            block = self._block(block_spec, self._context(block_spec, setup, me.host is not None))
            arriving = [wire for wire in spec.wires if wire.target_block == block.name]
            connected = {wire.target_port for wire in arriving}
            delays = {wire.target_port: wire.delay for wire in arriving if wire.delay}
            chain = chains.setdefault(block_spec.chain or block.name, [])
            at_work = chain[0].at_work if chain else [block.name]
            changes = Changes(block, [each for each in spec.changes if each.block == block.name], self._tell_change)
            stages[block.name] = stage = Stage(block, block_spec.memory, connected, at_work, delays, changes)
            chain.append(stage)
        for stage in stages.values():
            for wire in spec.wires:
                if wire.source_block == stage.block.name:
                    end = Call(wire, stages[wire.target_block]) if wire.fused else Outgoing(self.hub, wire)
                    stage.outputs.setdefault(wire.source_port, []).append(end)
        for chain in chains.values():
            arriving = [w for w in spec.wires if w.target_block == chain[0].block.name]
            inputs = {wire.target_port: Incoming(self.hub, wire) for wire in arriving}
            for incoming in inputs.values():
                place = endpoint(spec, incoming.spec, setup.directory, setup.token)
                bound[incoming.spec.name] = self._bind(incoming, place)
            origins = {wire.target_port: spec.sources_above(wire.source_block) for wire in arriving}
            self.threads.append(BlockThread(chain, inputs, origins, self.go, self.hub.stop, self.fail))
        return bound

    def _block(self, spec: BlockSpec, context: Context) -> Block:
        if self.blocks is None:
            return _made(spec, context)
        block = self.blocks[spec.name]
        block.name, block.context = spec.name, replace(context, cache=block.context.cache)
        return block

    def _bind(self, incoming: Incoming, place: str) -> str:
        if place.startswith("tcp:") and not self.doorkeeper:
            self.doorkeeper = Doorkeeper(self.hub.context, self.hub.curve, self.hub.token)
        try:
            return incoming.bind(place)
        except zmq.ZMQError as error:
            reason = zmq.strerror(error.errno or 0)
            fault = BlockError(f"wire {incoming.spec.name} cannot listen on {place}: {reason}")
            fault.block = incoming.spec.target_block
            raise fault from None

    def _counts(self, done: bool) -> control.Counts:
        blocks: dict[str, control.BlockCount] = {}
        wires: dict[str, control.WireCount] = {}
        queued: dict[str, int] = {}
        progress: dict[str, tuple[int, int]] = {}
        passages: list[Passage] = []
        for thread in self.threads:
            for wire in thread.inputs.values():
                wire.watch()
                for reason in tuple(wire.refused):
                    self._tell_refusal(thread.name, f"wire {wire.spec.name} refused {reason}", done)
                wires[wire.spec.name] = control.WireCount(
                    wire.packets, wire.bytes, lost=wire.lost, refused=sum(wire.refused.values())
                )
            refused = sum(wires[wire.spec.name].refused for wire in thread.inputs.values())
            for stage in thread.stages:
                name = stage.block.name
                errors, refused = self.warned.get(name, 0) + refused, 0  # messages come to the first alone
                blocks[name] = structs.replace(stage.counted(), errors=errors)
                if stage.block.context.progress:
                    progress[name] = stage.block.context.progress
                passages += [stage.passages.popleft() for _ in range(len(stage.passages))]
        for out in (out for thread in self.threads for stage in thread.stages for out in stage.wires()):
            known = wires.setdefault(out.spec.name, control.WireCount(out.packets, out.bytes))
            known.dropped = out.dropped
            if isinstance(out, Outgoing):
                queued[out.spec.name] = out.under_way
        return control.Counts(blocks, wires, done, queued, progress, time.process_time(), _memory(), passages)

    def _tell_refusal(self, block: str, sentence: str, at_once: bool) -> None:
        """Tell of a refusal once, and not when first seen: where a sender has died, its own end says more."""
        if self.hub.stop.is_set():
            return
        if not self.refusals.get(sentence, False) and (at_once or sentence in self.refusals):
            self.refusals[sentence] = True
            self._say(control.Warned(block, sentence))
        self.refusals.setdefault(sentence, False)

    def _leave(self) -> None:
        """Stop all blocks and say so; a block that does not let go is left behind when the process ends."""
        self.hub.stop.set()
        for _ in self.threads:
            self.contents.put(None)
        until = time.monotonic() + LEAVE_WITHIN_S
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
        gone = self._abandoned()
        if gone and self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        if not gone:
            self._flush_outbox()
            if self.setup:
                self._say(self._counts(False))
            self._say(control.Left())
        self.control.disable_monitor()
        self.monitor.close()
        self.control.close()
        if self.doorkeeper:
            self.doorkeeper.close()
        if not any(thread.is_alive() for thread in self.threads):
            self.hub.context.destroy(LINGER_MS)  # with the sockets of blocks that never ran


def _memory() -> int:
    """Return the bytes that this process holds in memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _local_files(pattern: str, endings: Collection[str]) -> Iterator[control.Content]:
    return map(control.read_file, control.matching_files(pattern, endings))


def _made(spec: BlockSpec, context: Context) -> Block:
    try:
        return registry.find(spec.type)(spec.params, spec.name, context)
    except (Exception, SystemExit) as error:
        fault = BlockError(explain(error))
        fault.block = spec.name
        raise fault from error


def main() -> None:
    """Run the worker that the supervisor has started; it is told by its environment where to report."""
    connect, name, secret, keys, parent = (
        os.environ[f"SEMFLOW_{key}"] for key in ("CONNECT", "WORKER", "SECRET", "KEYS", "PARENT")
    )
    Worker(connect, name, secret, None, load_keys(keys) if keys else None, int(parent)).run()
    sys.stdout.flush()
    os._exit(0)  # a block that does not let go must not keep the process


if __name__ == "__main__":
    main()
