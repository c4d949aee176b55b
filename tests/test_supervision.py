"""However a run ends, it ends within three seconds, says why, keeps what was finished and leaves nothing behind."""

import json
import os
import re
import signal
import socket
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import zmq

from flowgraph.block import BlockError
from flowgraph.report import RunFolder

SLOW = "{use: lab_numbers, frames: 1000, pause: 0.02}"


def write_graph(cli, source=SLOW, relay="{use: lab_relay}", workers=True, wire="{wire: relay.x -> tally.x}", more=""):
    path = cli.folder / "graph.yaml"
    path.write_text(
        "flowgraph: lab\nseed: 3\n"
        + (
            "workers:\n  one: {blocks: [source]}\n  two: {blocks: [relay]}\n  three: {blocks: [tally]}\n"
            if workers
            else ""
        )
        + f"blocks:\n  source: {source}\n  relay: {relay}\n  tally: {{use: lab_tally}}\n"
        + f"wires:\n  - source.x -> relay.x\n  - {wire}\n"
        + more
    )
    return path


def report(cli):
    return json.loads((cli.folder / "out" / "report.json").read_text())


def finished(cli):
    return [row for row in report(cli)["frames"] if row["status"] == "ok"]


def running(cli):
    """Tell whether frames have come through."""
    log = cli.folder / "out" / "log.txt"
    return log.exists() and "running" in log.read_text()


def assert_nothing_is_left(cli):
    assert cli.wait_until(lambda: not cli.processes(), 3.0), cli.processes()
    assert cli.sockets() == []


def expected(frames, size, name="source", seed=3):
    import hashlib

    key = int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")
    return [zlib.crc32(np.random.default_rng([key, frame]).integers(0, 256, size, np.uint8)) for frame in range(frames)]


@pytest.mark.parametrize("size", [0, 1, 4097, 300_001])
@pytest.mark.parametrize(
    ("workers", "wire"),
    [
        (False, "{wire: relay.x -> tally.x}"),
        (True, "{wire: relay.x -> tally.x, queue: 1}"),
        (True, "{wire: relay.x -> tally.x, endpoint: 'tcp://127.0.0.1:*'}"),
    ],
    ids=["one worker", "ipc", "tcp"],
)
def test_bytes_in_are_bytes_out_wherever_the_blocks_run(cli, workers, wire, size):
    graph = write_graph(cli, f"{{use: lab_numbers, frames: 7, size: {size}, packet: 5000}}", workers=workers, wire=wire)
    ended = cli.run(graph, "--out", "out")
    assert ended.returncode == 0, ended.stderr
    assert [(row["size"], row["crc"]) for row in finished(cli)] == [(size, crc) for crc in expected(7, size)]
    wires = report(cli)["wires"]
    assert {(wire["packets"], wire["dropped"], wire["lost"]) for wire in wires.values()} == {
        (7 * max(1, -(-size // 5000)), 0, 0)
    }
    assert (cli.folder / "out" / "tally.txt").read_text() == "stopped in order\n"
    assert_nothing_is_left(cli)


@pytest.mark.parametrize(
    ("relay", "complaint"),
    [
        (
            "{use: lab_relay, raise_at: 5}",
            r"block relay: ZeroDivisionError: the sky fell \(lab_blocks.py:\d+\)",
        ),
        ("{use: lab_relay, die_at: 5}", r"worker two \(relay\) was killed by SIGKILL"),
    ],
    ids=["raises", "is killed"],
)
def test_a_block_that_fails_ends_the_run_with_its_name_and_keeps_what_was_finished(cli, relay, complaint):
    ended = cli.run(write_graph(cli, relay=relay), "--out", "out", "--quiet")
    assert ended.returncode == 1
    assert re.fullmatch(complaint, ended.stderr.strip()), ended.stderr
    assert report(cli)["status"] == "failed"
    assert len(finished(cli)) >= 4
    assert "flowgraph: lab" in (cli.folder / "out" / "flowgraph.yaml").read_text()
    assert_nothing_is_left(cli)


@pytest.mark.parametrize("threads", ["many", "0", "-2", "1.5"])
def test_a_number_of_threads_that_is_none_is_one_sentence(cli, threads):
    cli.environment["OMP_NUM_THREADS"] = threads
    ended = cli.run(write_graph(cli), "--quiet")
    assert ended.returncode == 1
    assert ended.stderr.strip() == f"the environment's OMP_NUM_THREADS must be a number of threads, not '{threads}'"


def test_threads_may_be_listed_by_level(cli):
    cli.environment["OMP_NUM_THREADS"] = "2,4"
    ended = cli.run(write_graph(cli, source="{use: lab_numbers, frames: 2}"), "--quiet")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_missing_model_is_one_sentence_before_anything_flows(cli):
    ended = cli.run(write_graph(cli, relay="{use: lab_relay, model: /nowhere}"), "--out", "out", "--quiet")
    assert ended.returncode == 1
    assert ended.stderr.strip() == "block relay: no model in /nowhere: fetch it and put it there"
    assert_nothing_is_left(cli)


def test_all_blocks_that_cannot_start_are_named_at_once(cli):
    graph = write_graph(cli, source="{use: lab_relay, model: /here}", relay="{use: lab_relay, model: /there}")
    text = graph.read_text().replace("source.x -> relay.x", "tick.x -> source.x -> relay.x")
    text = text.replace("blocks: [source]", "blocks: [source, tick]")
    graph.write_text(text.replace("  tally: ", f"  tick: {SLOW}\n  tally: "))
    ended = cli.run(graph, "--out", "out", "--quiet")
    assert ended.returncode == 1
    assert sorted(ended.stderr.splitlines()) == [
        "block relay: no model in /there: fetch it and put it there",
        "block source: no model in /here: fetch it and put it there",
    ]
    assert_nothing_is_left(cli)


def test_what_follows_from_a_block_that_cannot_start_is_told_by_the_log_alone(cli):
    graph = write_graph(cli, source="{use: lab_relay, loading: 1.5}", relay="{use: lab_relay, model: /there}")
    text = graph.read_text().replace("source.x -> relay.x", "tick.x -> source.x -> relay.x")
    text = text.replace("blocks: [source]", "blocks: [source, tick]")
    graph.write_text(text.replace("  tally: ", f"  tick: {SLOW}\n  tally: "))
    ended = cli.run(graph, "--out", "out")
    assert ended.stderr.startswith("run failed: block relay: no model in /there: fetch it and put it there")
    assert "tally: wire relay.x -> tally.x refused a connection" in (cli.folder / "out" / "log.txt").read_text()


def test_what_a_block_warns_of_as_it_stops_is_told_after_ctrl_c_too(cli):
    process = cli.start(write_graph(cli, relay="{use: lab_relay, last_words: the tape is torn}"), "--out", "out")
    assert cli.wait_until(lambda: running(cli))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert "relay: the tape is torn" in err.splitlines()


def test_a_port_in_use_is_named_with_its_wire(cli):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wire = f"{{wire: relay.x -> tally.x, endpoint: 'tcp://127.0.0.1:{port}'}}"
        ended = cli.run(write_graph(cli, wire=wire), "--out", "out", "--quiet")
    assert ended.returncode == 1
    assert ended.stderr.strip() == (
        f"block tally: wire relay.x -> tally.x cannot listen on tcp://127.0.0.1:{port}: Address already in use"
    )
    assert_nothing_is_left(cli)


def worker(cli, name):
    """The number of a worker's process."""
    return next(
        number
        for number in cli.processes()
        if f"SEMFLOW_WORKER={name}".encode() in Path(f"/proc/{number}/environ").read_bytes()
    )


@pytest.mark.parametrize(
    ("loading", "name", "blocks"), [(0, "three", "tally"), (30, "two", "relay"), (30, "three", "tally")]
)
def test_a_worker_killed_from_outside_ends_the_run_within_three_seconds(cli, loading, name, blocks):
    """While the stream flows, and while a block still starts: of the worker that is killed, and of another."""
    process = cli.start(write_graph(cli, relay=f"{{use: lab_relay, loading: {loading}}}"), "--out", "out", "--quiet")
    assert cli.wait_until(lambda: (cli.folder / "out" / "loading.txt").exists() if loading else running(cli))
    os.kill(worker(cli, name), signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert (process.returncode, err.strip()) == (1, f"worker {name} ({blocks}) was killed by SIGKILL")
    assert_nothing_is_left(cli)


def test_a_worker_that_is_interrupted_ends_the_run_and_is_named(cli):
    process = cli.start(write_graph(cli), "--out", "out", "--quiet")
    assert cli.wait_until(lambda: running(cli))
    os.kill(worker(cli, "three"), signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.strip()) == (1, "worker three (tally) was ended by hand")
    assert_nothing_is_left(cli)


@pytest.mark.parametrize("hang", [-1, 5], ids=["flowing", "with a block that hangs"])
def test_ctrl_c_ends_the_run_within_three_seconds_with_130(cli, hang):
    process = cli.start(write_graph(cli, relay=f"{{use: lab_relay, hang_at: {hang}}}"), "--out", "out", "--quiet")
    assert cli.wait_until(lambda: running(cli))
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert (process.returncode, err.strip()) == (130, "interrupted")
    assert report(cli)["status"] == "interrupted"
    assert (cli.folder / "out" / "tally.txt").exists()
    assert_nothing_is_left(cli)


def test_workers_do_not_outlive_a_supervisor_that_is_killed(cli):
    process = cli.start(write_graph(cli), "--out", "out", "--quiet")
    assert cli.wait_until(lambda: running(cli))
    process.kill()
    process.communicate()
    assert cli.wait_until(lambda: not cli.processes() and not cli.sockets(), 3.0), (
        cli.processes(),
        cli.sockets(),
    )


def test_workers_do_not_outlive_a_supervisor_that_is_killed_while_they_start(cli):
    process = cli.start(write_graph(cli), "--out", "out", "--quiet")
    assert cli.wait_until(lambda: len(cli.processes()) > 1)
    process.kill()
    process.communicate()
    assert cli.wait_until(lambda: not cli.processes() and not cli.sockets(), 3.0), (cli.processes(), cli.sockets())


def test_a_long_path_to_temporary_files_is_no_obstacle(cli):
    deep = cli.folder / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    cli.environment["TMPDIR"] = str(deep)
    ended = cli.run(write_graph(cli, "{use: lab_numbers, frames: 3}"), "--out", "out", "--quiet")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("delay", [0, 1])
def test_a_source_that_is_ahead_waits_for_a_slower_one(cli, delay):
    (cli.folder / "graph.yaml").write_text(
        "flowgraph: unlike speeds\nblocks:\n"
        "  slow: {use: lab_numbers, frames: 40, size: 10, pause: 0.01}\n"
        "  fast: {use: lab_numbers, frames: 40, size: 4000000}\n"
        "  tally: {use: lab_tally, memory: 60 MB}\n"
        f"wires:\n  - slow.x -> tally.x\n  - {{wire: fast.x -> tally.beside, delay: {delay}}}\n"
    )
    ended = cli.run("graph.yaml", "--out", "out", "--quiet")
    assert ended.returncode == 0, ended.stderr
    assert len(finished(cli)) == 40


def test_a_stranger_on_a_wire_is_counted_and_named_and_the_run_goes_on(cli):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    wire = f"{{wire: relay.x -> tally.x, endpoint: 'tcp://127.0.0.1:{port}'}}"
    process = cli.start(write_graph(cli, "{use: lab_numbers, frames: 60, pause: 0.02}", wire=wire), "--out", "out")
    context = zmq.Context()
    with context.socket(zmq.DEALER) as stranger:
        stranger.linger = 1000
        assert cli.wait_until(lambda: running(cli))
        stranger.connect(f"tcp://127.0.0.1:{port}")
        for message in ([b"random bytes"], [b"SFW1", b"x" * 20]):
            stranger.send_multipart(message)
        _, err = process.communicate(timeout=60)
    context.term()
    assert process.returncode == 0, err
    assert "tally: wire relay.x -> tally.x refused a connection that " in err  # does not speak ZeroMQ, or breaks it
    assert len(finished(cli)) == 60
    assert report(cli)["wires"]["relay.x -> tally.x"]["refused"] >= 1
    assert report(cli)["blocks"]["tally"]["errors"] >= 1


def test_a_direct_wire_beside_a_long_way_round_does_not_freeze(cli):
    graph = write_graph(
        cli,
        "{use: lab_numbers, frames: 40, size: 20000, packet: 100}",
        wire="{wire: relay.x -> tally.x, queue: 2}",
        more="  - {wire: source.x -> tally.beside, queue: 1}\n",
    )
    ended = cli.run(graph, "--out", "out", "--quiet", timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert [row["equal"] for row in finished(cli)] == [True] * 40


def test_a_report_that_cannot_be_written_is_one_sentence(cli):
    (cli.folder / "out" / "report.json.part").mkdir(parents=True)
    ended = cli.run(write_graph(cli, source="{use: lab_numbers, frames: 3}"), "--out", "out", "--quiet")
    assert ended.returncode == 1
    assert re.fullmatch(r"cannot write out/report.json: Is a directory", ended.stderr.strip()), ended.stderr
    assert_nothing_is_left(cli)


@pytest.mark.parametrize("name", ["flowgraph.yaml", "report.json"])
def test_a_full_disk_is_one_sentence_and_leaves_no_parts(cli, name):
    (cli.folder / "out").mkdir()
    (cli.folder / "out" / f"{name}.part").symlink_to("/dev/full")
    ended = cli.run(write_graph(cli, source="{use: lab_numbers, frames: 3}"), "--out", "out", "--quiet")
    assert (ended.returncode, ended.stderr) == (1, f"cannot write out/{name}: No space left on device\n")
    assert not list((cli.folder / "out").glob("*.part"))
    assert_nothing_is_left(cli)


def test_a_folder_that_is_used_again_holds_the_last_run_alone(tmp_path):
    for written in (["images/0000_sent.png", "page.png"], ["images/0001_sent.png"]):
        folder = RunFolder(tmp_path)
        for name in written:
            folder.write(name, b"x")
        folder.write("report.json", json.dumps({"files": [*written, "report.json", "../outside"]}))
        folder.close()
        (tmp_path / "notes.txt").write_text("mine")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"images/0001_sent.png", "report.json", "log.txt", "notes.txt"}


def test_runs_that_begin_at_once_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    together, folders = threading.Barrier(8), []

    def begin():
        together.wait()
        folders.append(RunFolder.for_run("same"))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({folder.path for folder in folders}) == 8
    for folder in folders:
        folder.close()


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path):
    first = RunFolder(tmp_path)
    first.write("page.png", b"x")
    first.write("report.json", json.dumps({"files": ["page.png"]}))
    with pytest.raises(BlockError, match=f"^{tmp_path} is in use by another run: wait for it, or give another --out$"):
        RunFolder(tmp_path)
    assert (tmp_path / "page.png").exists()
    first.close()
    RunFolder(tmp_path).close()
