"""Taps on wires, live parameters and what viewers are told, while the graph runs; its log repeats it bit for bit."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq
from pydantic import Field

from blocks.phy.channel import AwgnChannel
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.sink.errors import ErrorMeter
from blocks.source.bits import BitSource
from flowgraph import LIVE, Block, BlockError, Flowgraph, Packet, Params, Port, Tag, live, registry
from flowgraph.cache import Cache
from flowgraph.changes import Changes, with_change
from flowgraph.cli import main
from flowgraph.config.load import loads
from flowgraph.config.mistake import ConfigError
from flowgraph.control import WireCount
from flowgraph.live import Remote
from flowgraph.probe import PIECE_BYTES, Tap
from flowgraph.report import Report, RunFailed
from flowgraph.runner import Runner
from flowgraph.spec import ChangeSpec, GraphSpec
from flowgraph.testing import assert_same_stream, recut


class Scale(Block):
    """Multiply numbers by a factor, taken over before it is used."""

    class Params(Params):
        factor: float = Field(1.0, ge=0, le=100, description="factor", json_schema_extra=LIVE)
        fixed: int = Field(1, description="for good")

    inputs = (Port("x", "float32", align=4),)
    outputs = (Port("x", "float32"),)
    ratio = 1

    def start(self):
        self.taken_over = self.params.factor

    def changed(self, name):
        if self.params.factor == 13:
            raise BlockError("factor must be a lucky number, not 13")
        self.taken_over = self.params.factor

    def work(self, x):
        return x.derive(x.data * np.float32(self.taken_over))


def scaled(log, sizes, asked=()):
    """Return what `Scale` makes of 40 ones in frame 0 and 40 in frame 1, and what it told of changes."""
    block, made, told = Scale(), [], []
    changes = Changes(block, log, lambda *told_of: told.append(told_of))
    runner = Runner(block, lambda port, packet: made.append(packet), changes=changes)
    block.start()
    for number, packet in enumerate(recut([Packet(np.ones(40, np.float32), f, last=True) for f in (0, 1)], sizes)):
        for at, change in asked:
            if at == number:
                changes.ask(7, change)
        runner.feed("x", packet)
    runner.end("x")
    return made, told


@pytest.mark.parametrize("sizes", [[40], [1], [3, 1, 17], [8]])
def test_a_logged_change_holds_from_its_item_on_however_packets_are_cut(sizes):
    log = [ChangeSpec("scale", "factor", 5.0, 1, 6), ChangeSpec("scale", "factor", 2.0, 0, 8)]
    made, told = scaled(log, sizes)
    values = np.concatenate([packet.data for packet in made])
    # item 6 is within a multiple of 4: the change holds from the next packet on that the block may be given
    want = np.repeat([1, 2, 5], [8, 32 + 8, 32])
    np.testing.assert_array_equal(values, want)
    assert [each.offset for _, each, fault in told if not fault] == [8, 6]


def test_a_change_asked_for_is_told_with_its_item_and_its_log_repeats_it_bit_for_bit():
    made, told = scaled(
        [], [12], asked=[(2, ChangeSpec("scale", "factor", "3")), (5, ChangeSpec("scale", "factor", 7))]
    )
    assert [(number, each.value, each.frame, each.offset, fault) for number, each, fault in told] == [
        (7, 3.0, 0, 24, ""),
        (7, 7.0, 1, 12, ""),
    ]
    again, _ = scaled([each for _, each, _ in told], [5, 11])
    assert_same_stream(again, made)


def test_what_a_block_refuses_leaves_the_value_as_it_was():
    made, told = scaled(
        [], [40], asked=[(1, ChangeSpec("scale", "factor", 13)), (1, ChangeSpec("scale", "factor", -1))]
    )
    assert (np.concatenate([packet.data for packet in made]) == 1).all()
    assert [fault for *_, fault in told] == [
        "factor must be a lucky number, not 13",
        "factor must be at least 0, not -1",
    ]
    assert all(each.value == 1.0 for _, each, _ in told)


@pytest.mark.parametrize(
    ("name", "parameter", "said", "read"),
    [
        ("diffusion_sink", "steps", "3", 3),
        ("diffusion_sink", "steps", "matched", "matched"),
        ("diffusion_sink", "guidance", 2, 2.0),
        ("awgn_channel", "ebn0", "7 dB", 7.0),
        ("rician_channel", "k_factor", "3 dB", 3.0),
        ("impairments", "phase", "30 deg", 30.0),
    ],
)
def test_a_value_is_read_as_in_a_config_and_the_others_stay(name, parameter, said, read):
    block = registry.find(name)
    given = block({"ebn0": 5} if "channel" in name else {}).params.model_dump(mode="json")
    made = with_change(block, given, parameter, said).model_dump(mode="json")
    assert made == {**given, parameter: pytest.approx(read) if read != said else read}


def test_a_tap_takes_the_head_of_one_packet_when_asked_with_the_tags_that_hold_there():
    taken = []
    tap = Tap(taken.append)
    first = Packet(np.arange(5000, dtype=np.complex64), tags=(Tag(0, "modulation", "16qam"),))
    tap.see(first)
    assert taken == []
    tap.wanted = True
    later = Packet(np.arange(5000, dtype=np.complex64), offset=5000, tags=(Tag(9000, "late", 1),))
    tap.see(later)
    tap.see(later)
    (piece,) = taken
    assert (piece.offset, piece.count, piece.data.nbytes) == (5000, PIECE_BYTES // 8, PIECE_BYTES)
    np.testing.assert_array_equal(piece.data, later.data[: piece.count])
    assert piece.tags == (Tag(5000, "modulation", "16qam"),)


LINK = """
flowgraph: watched
seed: 3
blocks:
  source: {use: bit_source, bits: 100 Gbit, frame: 400000 bit, packet: 102400 bit}
  link:   {graph: LINKS/awgn.yaml, ebn0: 10 dB}
  errors: {use: error_meter}
wires:
  - source.bits -> link.bits -> errors.received
  - source.bits -> errors.sent
"""


@pytest.fixture
def link():
    from conftest import ROOT

    return LINK.replace("LINKS", str(ROOT / "configs/links"))


class Running:
    """A graph that runs in a thread, a viewer, and its report in the end."""

    def __init__(self, graph, folder):
        self.report = None
        self.stop = False
        self.thread = threading.Thread(target=self._run, args=(graph, folder))
        self.thread.start()
        until = time.monotonic() + 30
        while not (self.report and self.report.result.get("live") and self.report.result["status"] == "running"):
            assert time.monotonic() < until
            time.sleep(0.02)
        self.remote = Remote(self.report.result["live"])

    def _run(self, graph, folder):
        def observe(report):
            self.report = report
            if self.stop:
                raise BlockError("seen enough")

        try:
            graph.run(folder, observe=observe, live=True)
        except RunFailed as error:
            self.error = error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remote.close()
        self.stop = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def wait_for(self, topic, outputs=(), seconds=10.0, condition=lambda value: True):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.remote.watch(*outputs)
            for what, value in self.remote.news(0.2):
                if what == topic and condition(value):
                    return value
        pytest.fail(f"no {topic} came")


def test_a_running_graph_is_watched_and_turned_and_its_folder_repeats_it(link, tmp_path):
    with Running(Flowgraph.from_spec(loads(link), Cache()), tmp_path) as run:
        piece = run.wait_for("link.air.symbols", ["link.air.symbols"], condition=lambda p: p.tag("modulation"))
        assert piece.dtype == "complex64"
        assert piece.tag("modulation") == "16qam"
        assert piece.tag("true_channel")["esn0_db"] == pytest.approx(16.02, abs=0.01)
        noise = np.abs(piece.data) ** 2
        assert noise.mean() == pytest.approx(1.0, abs=0.2)
        held = run.remote.set("ebn0", "2 dB")
        assert (held.name, held.value) == ("link.air.ebn0", 2.0)
        rate = run.wait_for(
            "report", condition=lambda r: (r["link"].get("ber_points") or [{}])[-1].get("ebn0_db") == 2.0
        )
        two = rate["link"]["ber_points"][-1]
        assert two["bit_errors"] / two["bits"] == pytest.approx(0.0977, rel=0.1)  # theory for 16QAM at 2 dB
        for name, value, reason in (
            ("ebn0", "900 dB", "ebn0 must be at most 300 dB, not '900 dB'"),
            ("ebn0", "3 Hz", "ebn0 must be in dB, not 'Hz'"),
            ("ebn0", "null", "ebn0 must have exactly one of ebn0, esn0 and snr"),
            ("source.bits", 3, "must be a live parameter, not source.bits, which stays as it was when the run started"),
            ("ebno", 3, "must be a live parameter, not 'ebno' (did you mean 'ebn0'?)"),
        ):
            with pytest.raises(BlockError) as refusal:
                run.remote.set(name, value)
            assert str(refusal.value).startswith(reason)
        with pytest.raises(BlockError, match=r"not 'link\.air\.x' \(did you mean 'link\.air\.symbols'\?\)"):
            run.remote.watch("link.air.x")
        then = run.remote.set("esn0", "9 dB")  # in place of Eb/N0
        now = Remote(run.remote.address)
        assert {each.name: each.value for each in now.run.parameters} == {"ebn0": None, "esn0": 9.0, "snr": None}
        now.close()
    assert run.report.result["changes"] == [
        {"block": "link.air", "parameter": "ebn0", "value": 2.0, "frame": held.frame, "offset": held.offset},
        {"block": "link.air", "parameter": "esn0", "value": 9.0, "frame": then.frame, "offset": then.offset},
    ]
    again = loads((tmp_path / "flowgraph.yaml").read_text()).changes
    assert again == [ChangeSpec(**change) for change in run.report.result["changes"]]


def test_the_log_of_a_real_run_replays_bit_for_bit(tmp_path):
    class Keep(ErrorMeter):
        """Keep a checksum of every frame."""

        def work(self, sent, received):
            if received is not None:
                self.sums[received.frame] = hash(received.data.tobytes())

        def start(self):
            super().start()
            self.sums = {}

    def graph(changes, packet):
        source, keep = BitSource({"bits": 60_000_000, "frame": 400_000, "packet": packet}), Keep()
        made = Flowgraph("again", 3)
        made.connect(source, QamMapper(), AwgnChannel({"ebn0": 10.0}), QamDemapper(), (keep, "received"))
        made.connect(source, (keep, "sent"))
        made._spec.changes.extend(changes)
        return made, keep

    first, keep = graph([], 12_800)
    with Running(first, tmp_path / "first") as run:
        for value in (4.0, 0.0, 8.0):
            run.remote.set("ebn0", value)
    changes = [ChangeSpec(**each) for each in run.report.result["changes"]]
    assert [each.value for each in changes] == [4.0, 0.0, 8.0]
    seen = dict(keep.sums)
    again, keep_again = graph(changes, 102_400)
    again.run(tmp_path / "again")
    unchanged, keep_unchanged = graph([], 102_400)
    unchanged.run(tmp_path / "unchanged")
    common = sorted(seen)[:-1]  # the last frame may have been cut by the end of the run
    assert any(frame > changes[0].frame for frame in common)
    assert [keep_again.sums[frame] for frame in common] == [seen[frame] for frame in common]
    assert any(keep_unchanged.sums[frame] != seen[frame] for frame in common)


def test_a_viewer_that_does_not_read_stops_nothing(link, tmp_path):
    with Running(Flowgraph.from_spec(loads(link), Cache()), tmp_path) as run:
        run.remote.watch("link.air.symbols", "link.map.symbols", "source.bits")
        before = run.report.sections["link"]["bits"] or 0
        asleep = Remote(run.report.result["live"])  # it subscribes to everything and never looks
        until = time.monotonic() + 2
        while time.monotonic() < until:
            asleep.watch("link.air.symbols", "link.map.symbols", "source.bits")
            time.sleep(0.2)
        answer = run.remote.set("ebn0", 5)
        assert answer.value == 5.0
        asleep.close()
        assert (run.report.sections["link"]["bits"] or 0) > before


VIEWER = """
import sys
from flowgraph.live import Remote
remote = Remote(sys.argv[1])
while True:
    remote.watch("paced.x")
    for what, value in remote.news(0.5):
        print(what, flush=True)
"""


@pytest.fixture
def stopped_viewer():
    """Starts a viewer in a process of its own, and once it has seen something stops it as Ctrl-Z would."""
    started = []

    def start(address):
        viewer = subprocess.Popen([sys.executable, "-c", VIEWER, address], stdout=subprocess.PIPE, text=True)
        started.append(viewer)
        assert viewer.stdout.readline()
        viewer.send_signal(signal.SIGSTOP)

    yield start
    for viewer in started:
        viewer.kill()
        viewer.communicate()


class Paced(Block):
    """Send a picture's worth of bytes, a hundred times a second."""

    outputs = (Port("x", "uint8", shape=(None,)),)

    def produce(self):
        for frame in range(100_000):
            yield Packet(np.zeros((1, 1 << 20), np.uint8), frame, last=True)
            time.sleep(0.01)


class Sink(Block):
    """Take what comes."""

    inputs = (Port("x", "uint8", shape=(None,)),)

    def work(self, x):
        pass


def test_a_viewer_that_is_stopped_neither_slows_the_data_path_nor_fills_the_memory(
    stopped_viewer, tmp_path, monkeypatch
):
    monkeypatch.setattr(live, "BEHIND", 8)  # of a megabyte each
    monkeypatch.setattr(live, "SAMPLE_EVERY_S", 0.02)
    graph = Flowgraph("paced")
    graph.connect(Paced(name="paced"), Sink(name="sink"))
    with Running(graph, tmp_path) as run:

        def frames_in(seconds):
            """Return the frames that came through meanwhile, and the pieces that a viewer who reads saw."""
            before, seen, until = run.report.blocks["sink"].packets, 0, time.monotonic() + seconds
            while time.monotonic() < until:
                run.remote.watch("paced.x")
                seen += sum(what == "paced.x" for what, _ in run.remote.news(0.1))
            return run.report.blocks["sink"].packets - before, seen

        frames_in(0.5)
        freely, _ = frames_in(1.5)
        stopped_viewer(run.report.result["live"])
        before = resident_bytes()
        beside_it, seen = frames_in(3.0)
        assert seen > 40  # megabytes that were not kept for the one that is stopped
        assert resident_bytes() - before < 30 << 20
        assert beside_it > freely  # in twice the time: one that waited for it would have stood still


def resident_bytes():
    """Return the memory of this process, in which the supervisor runs."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_probe_is_published_as_gnu_radio_takes_it_until_the_run_ends(tmp_path, capfd):
    graph = Flowgraph("paced")
    graph.connect(Paced(name="paced"), Sink(name="sink"))
    there = f"ipc://{tmp_path}/there"
    with zmq.Context() as context, context.socket(zmq.SUB) as listener, Running(graph, tmp_path / "out") as run:
        address = run.remote.address
        told, command = [], ["probe", "paced.x", "--on", address, "--to", there]
        relaying = threading.Thread(target=lambda: told.append(main(command)))
        relaying.start()
        listener.subscribe(b"")
        listener.connect(there)
        assert listener.poll(10_000)
        assert listener.recv() == bytes(1 << 20)  # its items, and nothing else
        assert f"paced.x is published at {there} until the run has ended" in capfd.readouterr().err
        assert main(["probe", "paced.y", "--on", address, "--to", there]) == 2
        assert main(["probe", "paced.x", "--on", address, "--to", "tcp://127.0.0.1:99999"]) == 2
        assert "cannot publish at tcp://127.0.0.1:99999: Port out of range 0-65535" in capfd.readouterr().err
        run.stop = True
        relaying.join(10)
        assert told == [0]


def test_mistakes_in_probes_and_changes_are_told_with_their_places(link):
    with pytest.raises(ConfigError) as told:
        loads(
            link + "probes: [link.bits, link.air.nothing]\n"
            "changes: [{set: link.air.ebn0, to: 1 GHz}, {set: link.map.modulation, to: qpsk}]\n"
        )
    assert [(mistake.line, mistake.message.split(",")[0]) for mistake in told.value.mistakes] == [
        (11, "must be an output of link.air (symbols)"),
        (12, "ebn0 must be in dB"),
        (12, "must be a live parameter"),
    ]


def test_a_run_of_the_command_line_is_turned_by_another(cli, link, capsys):
    def turn(value):
        code, (out, err) = main(["set", "ebn0", value, "--on", address]), capsys.readouterr()
        return code, out + err

    config = cli.folder / "link.yaml"
    config.write_text(link)
    log = cli.folder / "out/log.txt"
    run = cli.start("run", config, "--probe", "link.bits", "--out", "out")
    assert cli.wait_until(lambda: log.exists() and " running" in log.read_text())
    address = re.search(r"viewers find it at (\S+)", log.read_text())[1]
    code, answer = turn("4 dB")
    assert (code, bool(re.fullmatch(r"link\.air\.ebn0 = 4\.0 from item [\d,]+ of frame \d+ on\n", answer))) == (0, True)
    assert turn("-4 km") == (2, "ebn0 must be in dB, not 'km'\n")
    run.send_signal(signal.SIGINT)
    assert run.wait(20) == 130
    assert turn("4 dB") == (2, f"no run is at {address}: has it ended?\n")
    run.stdout.close(), run.stderr.close()


DYING = """
flowgraph: dying
workers: {tx: {blocks: [numbers]}, rx: {blocks: [tally]}}
blocks:
  numbers: {use: lab_numbers, frames: 100000, pause: 0.01}
  tally:   {use: lab_tally}
wires: [numbers.x -> tally.x]
"""


def test_no_packets_are_told_to_wait_in_front_of_a_block_that_has_taken_them():
    report = Report(GraphSpec("g", 0, [], [], []))
    for sent, under_way, taken in ((4, 4, 4), (8, 8, 8), (8, 8, 8)):  # the sender has yet to look
        report.count({}, {"a.x -> b.x": WireCount(sent)}, {"a.x -> b.x": under_way})
        report.count({}, {"a.x -> b.x": WireCount(taken)}, {})
    report.count({}, {"a.x -> b.x": WireCount(11)}, {"a.x -> b.x": 7})
    assert report.queued == {"a.x -> b.x": 3}
    report.count({}, {"a.x -> b.x": WireCount(900)}, {"a.x -> b.x": 7})
    assert report.queued == {"a.x -> b.x": 7}


def test_a_worker_that_dies_is_told_of_with_the_run_s_last_word(cli):
    (cli.folder / "dying.yaml").write_text(DYING + "probes: [numbers.x]\n")
    run = cli.start("run", "dying.yaml", "--out", "out")
    log = cli.folder / "out/log.txt"
    assert cli.wait_until(lambda: log.exists() and " running" in log.read_text())
    remote = Remote(re.search(r"viewers find it at (\S+)", log.read_text())[1])

    def next_report(condition):
        remote.watch()
        while True:
            for what, report in remote.news(10):
                if what == "report" and condition(report):
                    return report

    alive = next_report(lambda report: report["workers"]["rx"]["cpu_s"])["workers"]
    assert {each["state"] for each in alive.values()} == {"alive"}
    assert alive["rx"]["memory"] > 10 << 20  # a Python with NumPy
    worker = next(each for each in cli.processes() if b"SEMFLOW_WORKER=rx" in environment_of(each))
    os.kill(worker, signal.SIGKILL)
    ended = next_report(lambda report: report["status"] == "failed")["workers"]
    assert {name: each["state"] for name, each in ended.items()} == {"tx": "ended", "rx": "failed"}
    remote.close()
    run.communicate(timeout=20)


def environment_of(process):
    """Return the environment that a process was started with."""
    return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")


class Model(Block):
    """Be at one packet for long, and tell of its steps."""

    class Params(Params):
        guidance: float = Field(1.0, description="of it", json_schema_extra=LIVE)

    inputs = (Port("x", "uint8", shape=(None,)),)
    done = threading.Event()

    def work(self, x):
        self.progress(3, 10)
        self.done.wait(20)


def test_of_a_block_that_is_at_a_packet_for_long_steps_and_time_are_seen_and_changes_are_told_as_coming(tmp_path):
    graph = Flowgraph("slow")
    graph.connect(Paced(name="paced"), Model(name="model"))
    with Running(graph, tmp_path) as run:
        assert run.wait_for("report", condition=lambda r: r["progress"])["progress"] == {"model": [3, 10]}
        answer = run.remote.set("guidance", 2)
        assert (answer.value, answer.coming, str(answer)) == (2.0, True, "from the next packet on")
        busy = run.wait_for("report", condition=lambda r: r["blocks"]["model"]["busy_s"] > 0.5)
        assert busy["blocks"]["model"]["packets"] == 1
        Model.done.set()
        (change,) = run.wait_for("report", condition=lambda r: r.get("changes"))["changes"]
        assert (change["value"], change["frame"]) == (2.0, 1)


def test_what_is_no_request_is_answered_and_the_run_goes_on(link, tmp_path):
    with Running(Flowgraph.from_spec(loads(link), Cache()), tmp_path) as run:
        ask = b"\x83\xa4type\xa3Set\xa4name\xa4ebn0\xa5value"
        for request in (b"", b"\xff", ask + b"\xa2\xff\xfe", ask + b"\x91" * 900 + b"\x01"):
            run.remote.requests.send(request)
            assert run.remote.requests.poll(5000)
            answer = msgspec.msgpack.decode(run.remote.requests.recv())
            assert answer["fault"].startswith("must be a request, not what came: ")
        strangers = [run.remote.context.socket(kind) for kind in (zmq.DEALER, zmq.DEALER, zmq.XSUB)]
        for stranger, address in zip(
            strangers, (run.remote.address, run.remote.address, run.remote.run.feed), strict=True
        ):
            stranger.connect(address)
        fate = strangers[0].get_monitor_socket(zmq.EVENT_DISCONNECTED)
        strangers[0].send(b"x" * (1 << 20))  # too large: it is cut off
        assert fate.poll(5000)
        strangers[0].disable_monitor()
        for number in range(2000):
            strangers[1].send_multipart([b"\xff" * (number % 50)] * 3)
            strangers[2].send(b"\1%d" % number if number % 2 else b"x" * number)
        assert run.remote.set("ebn0", 5).value == 5.0
