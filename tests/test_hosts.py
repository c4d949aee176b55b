"""Workers on other hosts: started by hand, joined over tcp, told everything; the loopback range plays two machines."""

import json
import re
import shutil
import signal
import time

import pytest
import zmq
from test_control import DEEP, NO_TEXT

from flowgraph import control
from flowgraph.block import BlockError
from flowgraph.keys import load_keys, make_keys

GRAPH = """\
flowgraph: two hosts
network: {{listen: "tcp://127.0.0.2:{port}"{network}}}
workers:
  near: {{blocks: [tally]}}
  far: {{blocks: [source, relay], host: 127.0.0.3}}
blocks:
  source: {source}
  relay: {{use: lab_relay{relay}}}
  tally: {{use: lab_tally}}
wires:
  - source.x -> relay.x -> tally.x
  - source.x -> tally.beside
"""


@pytest.fixture
def port():
    with zmq.Context() as context, context.socket(zmq.REP) as probe:
        return probe.bind_to_random_port("tcp://127.0.0.2")


def two_hosts(cli, port, arguments=(), **parts):
    """Run the graph here and its worker `far` from another folder; return both endings."""
    parts = {"network": "", "source": "{use: lab_numbers, frames: 20, size: 5000}", "relay": "", **parts}
    (cli.folder / "graph.yaml").write_text(GRAPH.format(port=port, **parts))
    other = cli.folder / "other_host"
    other.mkdir(exist_ok=True)
    supervisor = cli.start("graph.yaml", "--out", "out")
    worker = cli.start("worker", "far", "--connect", f"tcp://127.0.0.2:{port}", *arguments, cwd=other)
    endings = [(p.communicate(timeout=60), p.returncode) for p in (supervisor, worker)]
    report = json.loads((cli.folder / "out" / "report.json").read_text())
    return endings[0], endings[1], report


def test_a_worker_started_by_hand_joins_and_needs_no_config(cli, port):
    (here, here_code), (there, there_code), report = two_hosts(cli, port)
    assert (here_code, there_code) == (0, 0), (here, there)
    assert f"semflow worker far --connect tcp://127.0.0.2:{port}" in here[1]
    assert [row["equal"] for row in report["frames"]] == [True] * 20
    assert cli.wait_until(lambda: not cli.processes(), 3.0)


def test_a_workers_failure_far_away_is_told_here(cli, port):
    (here, here_code), (_, there_code), _ = two_hosts(cli, port, relay=", raise_at: 3")
    assert (here_code, there_code) == (1, 0)
    assert "block relay: ZeroDivisionError: the sky fell" in here[1]


def test_images_need_not_exist_on_the_other_host(cli, port):
    (cli.folder / "pictures").mkdir()
    for number in range(3):
        (cli.folder / "pictures" / f"{number}.bin").write_bytes(bytes(1000 * number))
    (_, code), _, report = two_hosts(cli, port, source="{use: lab_files, images: pictures}")
    assert code == 0
    assert [row["size"] for row in report["frames"]] == [0, 1000, 2000]


def test_with_keys_only_their_holders_get_in(cli, port):
    assert cli.run("keys", "net").returncode == 0
    shutil.copytree(cli.folder / "net", cli.folder / "copied")
    (here, code), (there, there_code), report = two_hosts(
        cli, port, ("--keys", cli.folder / "copied"), network=", keys: net"
    )
    assert (code, there_code) == (0, 0), (here, there)
    assert [row["equal"] for row in report["frames"]] == [True] * 20


def test_a_worker_without_the_right_keys_stays_outside(cli, port):
    cli.run("keys", "net")
    cli.run("keys", "other")
    (cli.folder / "graph.yaml").write_text(
        GRAPH.format(port=port, network=", keys: net", source="{use: lab_numbers}", relay="")
    )
    supervisor = cli.start("graph.yaml", "--out", "out")
    stranger = cli.start("worker", "far", "--connect", f"tcp://127.0.0.2:{port}", "--keys", "other")
    friend = cli.start("worker", "far", "--connect", f"tcp://127.0.0.2:{port}", "--keys", "net")
    assert friend.wait(60) == 0
    assert supervisor.wait(60) == 0
    stranger.kill()
    for process in (supervisor, stranger, friend):
        process.communicate()


def start_waiting(cli, port, **parts):
    """Start the graph here alone, and return it once it waits for its other worker."""
    parts = {"network": "", "source": "{use: lab_numbers, frames: 1000, pause: 0.02}", "relay": "", **parts}
    (cli.folder / "graph.yaml").write_text(GRAPH.format(port=port, **parts))
    process = cli.start("graph.yaml", "--out", "out", "--quiet")
    log = cli.folder / "out" / "log.txt"
    assert cli.wait_until(lambda: log.exists() and "waiting for worker far" in log.read_text())
    return process, log


def test_ctrl_c_while_waiting_for_the_other_host_leaves_nothing(cli, port):
    process, _ = start_waiting(cli, port)
    assert cli.wait_until(lambda: len(cli.processes()) == 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert cli.wait_until(lambda: not cli.processes() and not cli.sockets(), 3.0)


def test_a_worker_far_away_that_is_killed_ends_the_run_within_three_seconds(cli, port):
    process, log = start_waiting(cli, port)
    worker = cli.start("worker", "far", "--connect", f"tcp://127.0.0.2:{port}")
    assert cli.wait_until(lambda: "running" in log.read_text())
    worker.kill()
    began = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert (process.returncode, err.strip()) == (1, "worker far (source, relay) on 127.0.0.3 is gone")
    worker.communicate()


def test_a_worker_of_a_wrong_name_is_told_which_are_awaited(cli, port):
    process, _ = start_waiting(cli, port)
    ended = cli.run("worker", "fra", "--connect", f"tcp://127.0.0.2:{port}", timeout=20)
    assert ended.returncode == 2
    assert "worker fra is refused: the workers awaited from other hosts are far" in ended.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)


def test_a_worker_that_nobody_answers_says_what_to_look_at(cli, port):
    process = cli.start("worker", "far", "--connect", f"tcp://127.0.0.2:{port}")
    assert "joining" in process.stderr.readline()
    assert "no answer yet: is the run there, are the keys the same" in process.stderr.readline()
    process.kill()
    process.communicate()


def test_listening_beyond_this_machine_needs_keys_or_the_word_insecure(cli):
    (cli.folder / "graph.yaml").write_text(
        GRAPH.format(port=7000, network="", source="{use: lab_numbers}", relay="").replace("127.0.0.2", "10.0.0.2")
    )
    ended = cli.run("graph.yaml", "--out", "out", "--quiet")
    assert ended.returncode != 0
    assert re.search(r"10\.0\.0\.2.*keys.*insecure", ended.stderr)


def test_keys_are_private_and_not_overwritten(tmp_path):
    path = make_keys(str(tmp_path / "net"))
    assert path.stat().st_mode & 0o077 == 0
    public, secret = load_keys(str(tmp_path / "net"))
    assert zmq.curve_public(secret) == public
    with pytest.raises(BlockError, match="is there already"):
        make_keys(str(tmp_path / "net"))
    with pytest.raises(BlockError, match=r"no keys in .*: make them with"):
        load_keys(str(tmp_path / "nowhere"))
    path.write_bytes(b"rubbish")
    with pytest.raises(BlockError, match="must hold a public and a secret CURVE key"):
        load_keys(str(tmp_path / "net"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:99999", "tcp://[::1:5000", "ipc:///tmp/x", "127.0.0.1:5000"])
def test_an_address_that_is_none_is_one_sentence(cli, address):
    ended = cli.run("worker", "far", "--connect", address, timeout=20)
    assert (ended.returncode, ended.stderr.strip()) == (2, f"--connect must be tcp://HOST:PORT, not {address!r}")


def test_strangers_at_the_door_are_told_of_once_and_hold_nothing_up(cli, port):
    process, log = start_waiting(cli, port, source="{use: lab_numbers, frames: 5}")
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.IDENTITY, b"stranger")
        stranger.connect(f"tcp://127.0.0.2:{port}")
        for message in (NO_TEXT, DEEP, *[control.encode(control.Left())] * 100):
            stranger.send(message)
        assert stranger.poll(5000)
        assert isinstance(control.from_supervisor(stranger.recv()), control.Refused)
        worker = cli.start("worker", "far", "--connect", f"tcp://127.0.0.2:{port}")
        _, err = process.communicate(timeout=30)
        assert (process.returncode, worker.wait(10)) == (0, 0), err
        assert not stranger.poll(0)
    worker.communicate()
    assert log.read_text().count("a stranger on the control socket was refused: b'stranger'") == 1


def test_a_stranger_who_does_not_listen_cannot_keep_the_run_from_ending(cli, port):
    process, _ = start_waiting(cli, port)
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 1), (zmq.RCVBUF, 4096)):
            stranger.setsockopt(option, value)
        stranger.connect(f"tcp://127.0.0.2:{port}")
        message, until = control.encode(control.Left()), time.monotonic() + 3
        while time.monotonic() < until and stranger.poll(200, zmq.POLLOUT):
            stranger.send(message)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.communicate(timeout=20)
        assert time.monotonic() - began < 3
    assert process.returncode == 130
