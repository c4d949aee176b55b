"""Graphs composed in Python, in one process: a notebook's way in."""

import signal
import tempfile
import threading
import time
from functools import partial

import numpy as np
import pytest
from pydantic import Field

from blocks.phy.channel import AwgnChannel
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.sink.errors import ErrorMeter
from blocks.source.bits import BitSource
from flowgraph import Block, BlockError, Flowgraph, Packet, Params, Port
from flowgraph.block import ParamsError
from flowgraph.config.mistake import ConfigError
from flowgraph.report import RunFailed


class Ramp(Block):
    """Send one frame of numbers."""

    class Params(Params):
        count: int = Field(5, description="numbers")

    outputs = (Port("x", "float32"),)

    def produce(self):
        yield Packet(np.arange(self.params.count, dtype=np.float32), last=True)


class Drip(Ramp):
    """Send a number now and then."""

    def produce(self):
        for frame in range(1000):
            yield Packet(np.zeros(1, np.float32), frame, last=True)
            time.sleep(0.02)


class Keep(Block):
    """Keep what comes."""

    inputs = (Port("x", "float32"),)

    def start(self):
        self.kept = []

    def work(self, x):
        self.kept.append(x.data.copy())


class Fail(Keep):
    """Fail at once."""

    def work(self, x):
        raise BlockError("x must be something else")


def test_a_link_of_block_objects_meets_theory(tmp_path):
    source, errors = BitSource({"bits": 2_000_000}), ErrorMeter()
    graph = Flowgraph("loop", seed=4)
    graph.connect(source, QamMapper(), AwgnChannel({"ebn0": "8 dB"}), QamDemapper(), (errors, "received"))
    graph.connect(source, (errors, "sent"))
    link = graph.run(tmp_path).sections["link"]
    low, high = link["ber_interval"]
    assert low < link["ber_theory"] < high
    assert link["bits"] == 2_000_000


def test_blocks_made_in_a_notebook_need_no_package_and_keep_what_they_saw(tmp_path):
    sink = Keep()
    graph = Flowgraph("ramp")
    graph.connect(Ramp({"count": 3}), sink)
    before = threading.active_count()
    graph.run(tmp_path)
    assert [list(data) for data in sink.kept] == [[0, 1, 2]]
    assert threading.active_count() == before


def test_what_is_wrong_with_a_block_made_in_python_is_told_as_in_a_config():
    with pytest.raises(ParamsError) as refusal:
        AwgnChannel({"ebn0": "3 Hz", "ebno": 3})
    assert str(refusal.value).splitlines() == [
        "awgn_channel.ebno: must be a parameter of awgn_channel, not 'ebno' (did you mean 'ebn0'?)",
        "awgn_channel.ebn0: must be in dB, not 'Hz'",
    ]


def test_a_graph_says_what_it_is():
    graph = Flowgraph("demo", 7)
    graph.connect(Ramp(), Keep())
    assert repr(graph) == "<Flowgraph 'demo': 2 blocks, 1 wires, 1 workers, seed 7>"


def test_two_blocks_of_a_kind_get_names_of_their_own():
    graph = Flowgraph()
    graph.connect(Ramp(), Keep())
    graph.connect(Ramp(), Keep())
    assert [block.name for block in graph.spec.blocks] == ["ramp", "keep", "ramp_2", "keep_2"]


def test_a_failing_block_raises_with_its_name_and_the_report(tmp_path):
    graph = Flowgraph("fails")
    graph.connect(Ramp(), Fail())
    with pytest.raises(RunFailed, match=r"^block fail: x must be something else$") as caught:
        graph.run(tmp_path)
    assert caught.value.report.result["status"] == "failed"
    assert (tmp_path / "report.json").exists()


def test_what_does_not_fit_is_told_before_anything_runs(tmp_path):
    source, errors = BitSource({"bits": 1000}), ErrorMeter()
    with pytest.raises(BlockError, match="the input must be one of sent, received, not left out"):
        Flowgraph().connect(source, errors)
    graph = Flowgraph()
    graph.connect(source, Keep())
    with pytest.raises(ConfigError, match="bits"):
        graph.run(tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_blocks_before_one_that_fails_are_stopped_and_leave_no_thread(tmp_path):
    stopped = threading.Event()

    class Stopping(Drip):
        """Tell that it is stopped."""

        def stop(self):
            stopped.set()

    graph = Flowgraph("fails")
    graph.connect(Stopping(), Fail())
    before = threading.active_count()
    with pytest.raises(RunFailed, match=r"^block fail: x must be something else$"):
        graph.run(tmp_path)
    assert stopped.wait(2)
    assert threading.active_count() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_run_and_is_not_raised_where_it_falls(tmp_path, number, request):
    """Raised within Popen.poll() it would leave a lock behind, for which Popen.wait() waits for ever."""
    before, passed = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL, []
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, before)))  # nohup has SIGHUP ignored

    def observe(report):
        if report.result["status"] == "running" and not passed:
            signal.raise_signal(number)
            passed.append(True)

    graph, keep = Flowgraph("interrupted"), Keep()
    graph.connect(Drip(), keep)
    began = time.monotonic()
    with pytest.raises(RunFailed, match=r"^interrupted$") as ended:
        graph.run(tmp_path, observe)
    assert time.monotonic() - began < 3
    assert passed
    assert ended.value.interrupted
    assert ended.value.report.result["status"] == "interrupted"
    assert signal.getsignal(number) is before


class Unspeakable(Exception):
    """An error of which nothing can be said."""

    def __str__(self):
        raise ValueError("not even this")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("where", ["start", "work", "stop"])
@pytest.mark.parametrize(
    ("raised", "told"),
    [(SystemExit("enough"), "SystemExit: enough"), (Unspeakable(), "ended without a word")],
    ids=["exits", "cannot be told"],
)
def test_whatever_a_block_raises_ends_the_run(tmp_path, where, raised, told):
    class Exits(Keep):
        """Raise where it is told to."""

    def raises(self, x=None):
        raise raised

    def observe(report):
        assert time.monotonic() < until, "the run does not end"

    setattr(Exits, where, raises)
    graph, until = Flowgraph("exits"), time.monotonic() + 10
    graph.connect(Ramp(), Exits())
    with pytest.raises(RunFailed, match=f"^block exits: {told}"):
        graph.run(tmp_path, observe)


def test_a_folder_for_sockets_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied", "/full/semflow-x")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    graph = Flowgraph("nowhere")
    graph.connect(Ramp(), Keep())
    with pytest.raises(RunFailed, match=r"^cannot write /full/semflow-x: Permission denied$"):
        graph.run(tmp_path)
