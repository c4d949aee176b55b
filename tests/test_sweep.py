"""Sweeps: cells that follow from their values alone, one table whichever way they ran, nothing run twice."""

import json
import os
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT
from pyarrow import csv, parquet

from flowgraph import Sweep
from flowgraph.block import BlockError
from flowgraph.cache import Cache
from flowgraph.config.mistake import ConfigError
from flowgraph.pool import Pool
from flowgraph.sweep.table import CSV, FILE, PARQUET, Entry, Table

GRAPH = f"""\
flowgraph: small
vars: {{ebn0: 9 dB, bits: 4000, link: {ROOT}/configs/links/awgn.yaml}}
blocks:
  source: {{use: bit_source, bits: $bits, frame: 1000}}
  link: {{graph: $link, ebn0: $ebn0}}
  errors: {{use: error_meter}}
wires:
  - source.bits -> link.bits -> errors.received
  - source.bits -> errors.sent
"""
SWEEP = """\
sweep: a small one
flowgraph: small.yaml
vars:
  ebn0: {from: 4 dB, to: 7 dB, step: 1.5 dB}
  bits: [2000, 4000]
seeds: [1, 2]
"""


@pytest.fixture
def sweep(tmp_path):
    """A function that writes a sweep beside its flowgraph and loads it."""
    (tmp_path / "small.yaml").write_text(GRAPH)

    def load(text=SWEEP, **options):
        (tmp_path / "s.yaml").write_text(text)
        return Sweep.load(tmp_path / "s.yaml", **options)

    return load


@pytest.fixture
def files(cli):
    (cli.folder / "small.yaml").write_text(GRAPH)
    (cli.folder / "s.yaml").write_text(SWEEP)
    return cli.folder


def finished(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_the_table_has_a_row_for_each_frame_of_each_cell(sweep, tmp_path):
    table = sweep().run(tmp_path / "out", workers=2)
    rows = table.to_pylist()
    assert table.schema.field("vars.ebn0").metadata == {b"unit": b"dB"}
    named = [(row["vars.ebn0"], row["vars.bits"], row["seed"], row["frame"]) for row in rows]
    expected = [(e, b, s, f) for e in (4, 5.5, 7) for b in (2000, 4000) for s in (1, 2) for f in range(b // 1000)]
    assert named == expected
    for row in rows:
        assert (row["flowgraph"], row["fault"], row["link.ebn0_db"]) == ("small", None, row["vars.ebn0"])
        assert row["link.bits"] == row["vars.bits"]
        assert row["link.ber_interval.0"] < row["link.ber"] < row["link.ber_interval.1"]
        assert row["version"].startswith("0.")
    by_cell = Counter()
    for row in rows:
        by_cell[row["cell"]] += row["ber"] * 1000
    assert {row["cell"]: row["link.bit_errors"] for row in rows} == {c: round(n) for c, n in by_cell.items()}
    assert len({row["config"] for row in rows}) == 6  # seeds share one
    assert csv.read_csv(tmp_path / "out" / CSV).column_names == table.column_names


def test_a_cell_follows_from_its_values_and_not_from_its_place(sweep):
    def cells(text):
        return {(tuple(sorted(cell.values.items())), cell.seed): cell.graph for cell in sweep(text).cells}

    first = cells(SWEEP)
    assert len({graph.seed for graph in first.values()}) == len(first) == 12
    turned = SWEEP.replace("[2000, 4000]", "[8000, 4000, 2000]").replace("[1, 2]", "{from: 0, to: 2}")
    lines = turned.splitlines(keepends=True)
    again = cells("".join([*lines[:3], lines[4], lines[3], lines[5]]))
    assert {name: again[name] for name in first} == first
    assert len(again) == 27
    assert {c.key for c in sweep(SWEEP).cells} < {c.key for c in sweep(turned).cells}


def test_paired_variables_meet_the_same_random_numbers(sweep):
    def seeds(text):
        return Counter(cell.graph.seed for cell in sweep(text).cells)

    assert set(seeds(SWEEP + "paired: [bits]\n").values()) == {2}
    assert len(seeds(SWEEP + "paired: [bits, ebn0]\n")) == 2
    constant = SWEEP.replace("bits: [2000, 4000]", "bits: 2000")  # nor do those draw that the sweep merely sets
    assert seeds(constant) == seeds(constant.replace("2000", "4000"))


def test_settings_and_seed_come_from_outside_too(sweep):
    cells = sweep(ebn0=["3 dB"], link=str(ROOT / "configs/links/rayleigh.yaml"), seed=7).cells
    assert [(cell.values["ebn0"], cell.values["bits"], cell.seed) for cell in cells] == [
        ("3 dB", 2000, 7),
        ("3 dB", 4000, 7),
    ]
    assert "link.equalize" in {block.name for block in cells[0].graph.blocks}
    listed = sweep(ebn0="[3 dB, 4 dB]", bits="{from: 1000, to: 3000, step: 1000}").cells
    assert {(cell.values["ebn0"], cell.values["bits"]) for cell in listed} == {
        (ebn0, bits) for ebn0 in ("3 dB", "4 dB") for bits in (1000, 2000, 3000)
    }


def test_several_flowgraphs_and_links_beside_the_sweep(sweep, tmp_path):
    (tmp_path / "other.yaml").write_text("extends: small.yaml\nflowgraph: other\n")
    (tmp_path / "mine.yaml").write_text(f"extends: {ROOT}/configs/links/bit_flip.yaml\nsubgraph: mine\n")
    text = "sweep: x\nflowgraph: [small.yaml, other.yaml]\nvars: {link: mine.yaml, bits: 1000}\n"
    table = sweep(text).run(tmp_path / "out", workers=1)
    assert table["flowgraph"].to_pylist() == ["small", "other"]
    assert table["vars.link"].to_pylist() == ["mine.yaml"] * 2
    assert {block.name for cell in sweep(text).cells for block in cell.graph.blocks} == {
        "source",
        "link.flip",
        "errors",
    }


def test_every_mistake_is_told_with_its_place_before_anything_starts(sweep, tmp_path):
    text = """\
sweep: x
flowgraph: [small.yaml, nowhere.yaml, s.yaml]
vars:
  ebn0: [4 dB, 5 Hz, 4.0 dB]
  bitz: 3
  bits: {from: 10, to: 1 dB, stepp: 1}
  seed: [0, 1]
seeds: [1, -1]
paired: [link]
resources: {cpus: 0}
"""
    with pytest.raises(ConfigError) as caught:
        sweep(text)
    told = [str(each).replace(f"{tmp_path}/", "") for each in caught.value.mistakes]
    for line in [
        "s.yaml:2:25: flowgraph[1]: nowhere.yaml must be a file that can be read: No such file or directory",
        "s.yaml:2:39: flowgraph[2]: must be a flowgraph, not s.yaml, which is a sweep",
        "s.yaml:4:22: vars.ebn0[2]: must be given once, not again: '4.0 dB'",
        "s.yaml:5:3: vars.bitz: must be a variable of small.yaml, not 'bitz' (did you mean 'bits'?)",
        "s.yaml:6:30: vars.bits.stepp: must be a key of a range, not 'stepp' (did you mean 'step'?)",
        "s.yaml:7:3: vars.seed: must be a variable of small.yaml (ebn0, bits, link), not 'seed'; seeds are a key "
        "beside vars, seeds: [0, 1]",
        "s.yaml:8:12: seeds[1]: must be at least 0, not -1",
        "s.yaml:9:10: paired[0]: must be a variable that the sweep lists values of (ebn0, bits, seed), not 'link'",
        "s.yaml:10:19: resources.cpus: must be at least 1, not 0",
    ]:
        assert line in told
    assert (
        sum("blocks.air.ebn0: must be in dB, not 'Hz' (from vars.ebn0[1] = 5 Hz, s.yaml:4:16)" in t for t in told) == 1
    )


def test_a_killed_sweep_goes_on_where_it_stopped_and_no_cell_runs_twice(cli, files):
    slow = SWEEP.replace("[1, 2]", "{from: 0, to: 5}")
    (files / "s.yaml").write_text(slow)
    out = files / "out"
    killed = cli.start("sweep", "s.yaml", "--out", "out", "--workers", 1)
    assert cli.wait_until(lambda: (out / FILE).exists() and len((out / FILE).read_bytes().splitlines()) > 3, 60)
    killed.kill()
    killed.communicate()
    assert cli.wait_until(lambda: not cli.processes() and not cli.sockets())
    with (out / FILE).open("a") as file:
        file.write('{"cell":"half a li')
    before = (out / FILE).read_bytes().splitlines(keepends=True)[:-1]
    ended = cli.run("sweep", "s.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    assert f"{len(before)} of 36 cells are there already" in ended.stderr
    assert ended.stdout.split() == [f"out/{CSV}", f"out/{PARQUET}"]
    assert (out / FILE).read_bytes().startswith(b"".join(before))
    assert set(Counter(entry["cell"] for entry in finished(out)).values()) == {1}
    assert cli.run("sweep", "s.yaml", "--out", "whole", "--workers", 1).returncode == 0
    assert (out / PARQUET).read_bytes() == (files / "whole" / PARQUET).read_bytes()
    assert not cli.sockets()


FAULTY = """\
flowgraph: faulty
vars: {raise_at: -1, die_at: -1}
blocks:
  source: {use: lab_numbers, frames: 3}
  relay: {use: lab_relay, raise_at: $raise_at, die_at: $die_at}
  tally: {use: lab_tally}
wires: [source.x -> relay.x -> tally.x]
"""


@pytest.mark.parametrize(
    ("variable", "fault"),
    [
        ("raise_at", "block relay: ZeroDivisionError: the sky fell (lab_blocks.py:"),
        ("die_at", "the process that ran it was killed"),
    ],
)
def test_a_cell_that_fails_is_told_and_the_rest_goes_on(cli, files, variable, fault):
    (files / "faulty.yaml").write_text(FAULTY)
    (files / "s.yaml").write_text(f"sweep: x\nflowgraph: faulty.yaml\nvars: {{{variable}: [9, 1, 8]}}\n")
    ended = cli.run("sweep", "s.yaml", "--out", "out", "--workers", 1)
    assert ended.returncode == 1
    assert f"faulty, {variable} = 1: {fault}" in ended.stderr
    assert "1 of 3 cells failed; the same command tries them again" in ended.stderr
    assert "Traceback" not in ended.stderr
    rows = parquet.read_table(files / "out" / PARQUET).to_pylist()
    assert [(row[f"vars.{variable}"], row["frame"], row["size"]) for row in rows] == [
        *((9, frame, 1000) for frame in range(3)),
        (1, None, None),
        *((8, frame, 1000) for frame in range(3)),
    ]
    assert rows[3]["fault"].startswith(fault)
    ended = cli.run("sweep", "s.yaml", "--out", "out")
    assert "2 of 3 cells are there already" in ended.stderr
    assert len(finished(files / "out")) == 4
    assert len(parquet.read_table(files / "out" / PARQUET)) == 7


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_ends_a_sweep_with_the_table_of_what_was_finished(cli, files, times):
    (files / "s.yaml").write_text(SWEEP.replace("[1, 2]", "{from: 0, to: 99}"))
    started = cli.start("sweep", "s.yaml", "--out", "out", "--workers", 1)
    assert cli.wait_until(lambda: (files / "out" / FILE).exists() and (files / "out" / FILE).stat().st_size > 0, 60)
    for _ in range(times):
        os.kill(started.pid, signal.SIGINT)
        time.sleep(0.02)
    _, err = started.communicate(timeout=20)
    assert started.returncode == 130
    assert "Traceback" not in err
    assert cli.wait_until(lambda: not cli.processes() and not cli.sockets())
    cells = {row["cell"] for row in parquet.read_table(files / "out" / PARQUET).to_pylist()}
    assert cells == {entry["cell"] for entry in finished(files / "out")}


def test_on_a_ray_cluster_the_table_is_the_same(cli, files):
    pytest.importorskip("ray", reason="pip install 'semflow[ray]'")
    for name, arguments in (("here", ["--workers", 1]), ("there", ["--ray", "local", "--workers", 1])):
        ended = cli.run("sweep", "s.yaml", "--out", name, *arguments)
        assert ended.returncode == 0, ended.stderr
    assert (files / "here" / PARQUET).read_bytes() == (files / "there" / PARQUET).read_bytes()


def test_where_no_cluster_answers_that_is_one_sentence(cli, files):
    pytest.importorskip("ray", reason="pip install 'semflow[ray]'")
    ended = cli.run("sweep", "s.yaml", "--ray", "nowhere:x")
    assert ended.returncode == 2
    assert ended.stderr.startswith("--ray: no cluster at nowhere:x: ")
    assert ended.stderr.count("\n") == 1


def test_a_sweep_is_checked_and_not_run_as_a_flowgraph(cli, files):
    ended = cli.run("check", "s.yaml")
    assert (ended.returncode, ended.stdout) == (0, "s.yaml: a small one: 12 cells: ok\n")
    ended = cli.run("s.yaml")
    assert (ended.returncode, ended.stderr) == (
        2,
        "s.yaml is a sweep, not a flowgraph: use `run_flowgraph.py sweep s.yaml`\n",
    )
    ended = cli.run("sweep", "s.yaml", "--workers", 0)
    assert (ended.returncode, ended.stderr) == (2, "--workers must be at least 1, not 0\n")
    (files / "file").write_text("")
    ended = cli.run("sweep", "s.yaml", "--out", "file/out")
    assert (ended.returncode, ended.stderr) == (2, "--out: cannot write to file/out: Not a directory\n")


def test_columns_hold_what_cells_of_different_kinds_have_found(sweep, tmp_path):
    made = sweep(
        "sweep: x\nflowgraph: small.yaml\nvars: {bits: [1000, 2000, 3000], ebn0: [5 dB, 6, 7 dB]}\n"
        f"seeds: {2**64 - 1}\n"
    )
    table = Table(tmp_path, made)
    keys = [cell.key for cell in made.cells]
    table.add(
        Entry(keys[2], "v", {"link.a": 1, "link.b": "x", "link.c": 1 << 63}, {"frame": [0, 1], "d": [None, True]})
    )
    table.add(Entry(keys[0], "v", {"link.a": 2.5, "link.b": 3}, {"frame": [4], "e": [0.5]}))
    table.add(Entry("of another grid", "v", {"link.z": 1}))
    table.write()
    table.close()
    rows = table.read().to_pylist()
    keep = ("vars.ebn0", "seed", "frame", "d", "e", "link.a", "link.b", "link.c")
    assert [tuple(row[name] for name in keep) for row in rows] == [
        (5.0, 2**64 - 1, 4, None, 0.5, 2.5, "3", None),
        (7.0, 2**64 - 1, 0, None, None, 1.0, "x", float(1 << 63)),
        (7.0, 2**64 - 1, 1, True, None, 1.0, "x", float(1 << 63)),
    ]
    assert "link.z" not in rows[0]


def test_only_numbers_and_quantities_are_columns_of_numbers(sweep, tmp_path):
    (tmp_path / "small.yaml").write_text(
        GRAPH.replace("vars: {", "vars: {size: 1x1, share: 1, rate: 1/2, name: 3 dogs, ")
    )
    text = "sweep: x\nflowgraph: small.yaml\nvars: {size: 192x192, share: 5 %, rate: 3/4, name: 3 dogs, bits: 1000}\n"
    (row,) = sweep(text).run(tmp_path / "out", workers=1).to_pylist()
    named = [row[f"vars.{name}"] for name in ("size", "share", "rate", "name", "bits")]
    assert named == ["192x192", 5.0, "3/4", "3 dogs", 1000]


def test_a_folder_has_one_sweep_at_a_time(sweep, tmp_path):
    made = sweep()
    table = Table(tmp_path, made)
    with pytest.raises(BlockError, match="is in use by another run"):
        Table(tmp_path, made)
    table.close()


def test_what_is_computed_in_a_shared_folder_is_computed_once(tmp_path):
    made, together = [], threading.Barrier(4)
    found = []

    def compute():
        made.append(1)
        return np.arange(3)

    def ask():
        together.wait()
        found.append(Cache(tmp_path / "cache").array(("sum", np.ones(2), 3), compute))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert all(np.array_equal(each, np.arange(3)) for each in found)
    for facts in (("sum", np.ones(2), 4), ("sum", np.ones(2, np.float32), 3), ("sum", np.ones((2, 1)), 3)):
        Cache(tmp_path / "cache").array(facts, compute)
    assert len(made) == 4


def test_a_process_keeps_the_last_object_of_each_owner():
    cache, made = Cache(), []
    for owner, wanted in [("a", 1), ("a", 1), ("b", 1), ("a", 2), ("a", 1)]:
        cache.object(owner, wanted, lambda: made.append(1))
    assert len(made) == 4


def test_a_process_that_starts_leaves_the_signals_that_were_blocked_blocked():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with Pool(1) as pool:
            pool.submit(abs, -1)
            assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
