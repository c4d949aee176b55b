"""Waterfalls: rates that meet theory, points measured once however often a run stops, mistakes with places."""

import csv
import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from blocks._waterfall.command import Show, remaining
from blocks._waterfall.plan import Point, Until, Waterfall, load
from blocks._waterfall.results import figure, table
from blocks._waterfall.rounds import FILE, Record, Round, Tally
from blocks.phy import theory
from flowgraph.block import BlockError
from flowgraph.config.mistake import ConfigError
from flowgraph.report import RunFolder

LINKS = ROOT / "configs/links"
SMALL = f"""\
waterfall: a small one
seed: 3
block: 64 bit
ebn0: {{from: 4 dB, to: 8 dB, step: 2 dB}}
until: {{errors: 300, block_errors: 50, bits: 200 kbit}}
curves:
  awgn: {{graph: {LINKS}/awgn.yaml}}
  rayleigh: {{graph: {LINKS}/rayleigh.yaml, ebn0: [10 dB, 20]}}
"""


@pytest.fixture
def small(cli):
    path = cli.folder / "small.yaml"
    path.write_text(SMALL)
    return path


def rows(folder, without=()):
    found = list(csv.DictReader((folder / "ber.csv").open()))
    return [{key: value for key, value in row.items() if key not in without} for row in found]


def written(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def some_rounds(folder, count):
    return (folder / FILE).exists() and (folder / FILE).read_bytes().count(b"\n") >= count


def points(text, folder):
    (folder / "w.yaml").write_text(text)
    return load(str(folder / "w.yaml")).points


def test_rates_meet_theory_and_what_is_there_is_not_measured_again(cli, small):
    ended = cli.run("ber", small, "--out", "out")
    assert ended.returncode == 0, ended.stderr
    out = cli.folder / "out"
    measured = rows(out)
    assert [(row["curve"], float(row["ebn0_db"])) for row in measured] == [
        *(("awgn", 4), ("awgn", 6), ("awgn", 8)),
        *(("rayleigh", 10), ("rayleigh", 20)),
    ]
    for row in measured:
        row = {key: float(value) for key, value in row.items() if key != "curve"}
        assert row["ber_low"] < row["ber_theory"] < row["ber_high"]
        assert row["ber"] == pytest.approx(row["bit_errors"] / row["bits"], rel=1e-5)
        assert row["bits"] == 64 * row["blocks"]
        assert row["bit_errors"] >= 300
        assert row["block_errors"] >= 50
        rayleigh = row["ebn0_db"] >= 10
        assert row["esn0_db"] == pytest.approx(row["ebn0_db"] + theory.ratio_to_db(4), rel=1e-5)
        wrong = 1 - (1 - theory.symbol_error_rate(row["esn0_db"], rayleigh=rayleigh)) ** 16
        assert row["bler_theory"] == pytest.approx(wrong, rel=1e-4)
        assert row["bler_low"] < wrong < row["bler_high"]
    assert (out / "ber.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "ber.pdf").read_bytes().startswith(b"%PDF")
    assert "awgn, 8 dB: BER 0.0" in ended.stderr
    assert "5 of 5 points" in ended.stderr
    assert ended.stdout.split() == ["out/ber.csv", "out/ber.pdf", "out/ber.png"]
    assert not cli.sockets()
    before = [(out / name).read_bytes() for name in (FILE, "ber.csv", "ber.pdf", "ber.png")]
    small.write_text(SMALL.replace("bits: 200 kbit", "bits: 900 kbit"))  # what is done stays so
    again = cli.run("ber", small, "--out", "out")
    assert "5 of 5 points are there already" in again.stderr
    assert [(out / name).read_bytes() for name in (FILE, "ber.csv", "ber.pdf", "ber.png")] == before


LONG = SMALL.replace("errors: 300, block_errors: 50, bits: 200 kbit", "errors: 90000, bits: 60 kbit")
LONG = LONG.replace("step: 2", "step: 4").replace("[10 dB, 20]", "15 dB")  # three points of four rounds


def test_a_run_that_is_killed_goes_on_where_it_stopped_and_finds_the_same(cli, small):
    small.write_text(LONG)
    out = cli.folder / "out"
    killed = cli.start("ber", small, "--out", "out", "--workers", 2)
    assert cli.wait_until(lambda: some_rounds(out, 3), 60)
    killed.kill()
    killed.communicate()
    assert not (out / "ber.csv").exists()
    assert cli.wait_until(lambda: not cli.processes() and not cli.sockets())
    with (out / FILE).open("a") as file:
        file.write('{"point":"half a li')
    stopped = cli.start("ber", small, "--out", "out", "--workers", 2)
    before = len(written(out)) if cli.wait_until(lambda: some_rounds(out, 6), 60) else 0
    os.kill(stopped.pid, signal.SIGINT)
    _, err = stopped.communicate(timeout=20)
    assert stopped.returncode == 130
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err
    assert not cli.processes()
    assert not cli.sockets()
    partial = rows(out)
    assert sum(int(row["blocks"]) for row in partial) == sum(each["blocks"] for each in written(out))
    assert 6 <= before <= len(written(out)) < 12
    for arguments in (["--out", "out"], ["--out", "whole", "--workers", 1]):
        assert cli.run("ber", small, *arguments).returncode == 0
    assert rows(out, ["seconds"]) == rows(cli.folder / "whole", ["seconds"])
    done = [(each["point"], each["number"]) for each in written(out)]
    assert len(set(done)) == len(done) == len(written(cli.folder / "whole")) == 12


def test_a_block_that_fails_ends_the_run_with_its_curve_and_what_was_finished(cli, small):
    (cli.folder / "mine.py").write_text("def clip(bits):\n    raise ValueError('no bits today')\n")
    (cli.folder / "broken.yaml").write_text(
        "subgraph: broken\nvars: {ebn0: 1 dB}\ninputs: {bits: [air.bits]}\noutputs: {bits: mine.items}\nblocks:\n"
        "  air: {use: bit_flip_channel, ebn0: $ebn0}\n"
        "  mine: {use: numpy_function, file: mine.py, function: clip, input: bits, output: bits}\n"
        "wires: [air.bits -> mine.items]\n"
    )
    small.write_text(SMALL.replace("[10 dB, 20]", "10 dB") + "  third: {graph: broken.yaml, ebn0: 3 dB}\n")
    small.write_text(small.read_text().replace("from: 4 dB", "from: 8 dB"))
    ended = cli.run("ber", small, "--out", "out", "--workers", 1)
    assert ended.returncode == 1
    assert "third, 3 dB: block link.mine: " in ended.stderr
    assert "no bits today" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(rows(cli.folder / "out")) == 2


def test_a_process_that_is_killed_ends_the_run(cli, small):
    small.write_text(SMALL.replace("200 kbit", "2 Gbit").replace("errors: 300", "errors: 100000000"))
    started = cli.start("ber", small, "--out", "out", "--workers", 1, "--quiet")
    assert cli.wait_until(lambda: some_rounds(cli.folder / "out", 1), 60)
    (worker,) = (number for number, command in cli.processes().items() if "spawn_main" in command)
    os.kill(worker, signal.SIGKILL)
    _, err = started.communicate(timeout=20)
    assert (started.returncode, err) == (1, "a process was killed that measured awgn, 4 dB\n")
    assert len(rows(cli.folder / "out")) == 1


def test_a_waterfall_is_checked_and_not_run(cli, small):
    ended = cli.run("check", small)
    assert (ended.returncode, ended.stdout) == (0, f"{small}: a small one: 2 curves, 5 points: ok\n")
    ended = cli.run(small)
    assert ended.returncode == 2
    assert ended.stderr == f"{small} is a waterfall, not a flowgraph: use `run_flowgraph.py ber {small}`\n"
    ended = cli.run("ber", small, "--workers", 0)
    assert (ended.returncode, ended.stderr) == (2, "--workers must be at least 1, not 0\n")
    (cli.folder / "file").write_text("")
    ended = cli.run("ber", small, "--out", "file/out")
    assert (ended.returncode, ended.stderr) == (2, "--out: cannot write to file/out: Not a directory\n")


def test_every_mistake_is_told_with_its_place(tmp_path):
    text = f"""\
waterfall: ""
sed: 4
block: 100 Hz
ebn0: {{from: 5 dB, to: 1 dB, stepp: 2}}
until: {{errors: many, bit: 3}}
vars: {{a: 3}}
curves:
  one: {{graph: {LINKS}/awgn.yaml, ebnO: 3}}
  two: {{graph: nowhere.yaml}}
  three: {{graph: {LINKS}/awgn.yaml, output: hrd, ebn0: [1 dB, 2 Hz, 1.0, 400 dB]}}
  four: {{ebn0: $b}}
  five: 7
  six: {{use: awgn_channel, ebn0: 3}}
  seven: {{use: bit_flip_channel, ebn0: {{from: 5 dB, to: 1 dB}}}}
"""
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    told = [str(mistake).replace(str(tmp_path), "").replace(str(LINKS), "") for mistake in caught.value.mistakes]
    width = len(str(LINKS))
    assert told == [
        "/w.yaml:1:12: waterfall: must be text of at least 1, not of 0",
        "/w.yaml:2:1: sed: must be a key of a waterfall, not 'sed' (did you mean 'seed'?)",
        "/w.yaml:3:8: block: must be in bit, not 'Hz'",
        "/w.yaml:4:30: ebn0.stepp: must be a key of a range, not 'stepp' (did you mean 'step'?)",
        "/w.yaml:5:17: until.errors: must be an integer, not 'many'",
        "/w.yaml:5:23: until.bit: must be a key of `until`, not 'bit' (did you mean 'bits'?)",
        f"/w.yaml:8:{28 + width}: curves.one.ebnO: must be a variable of /awgn.yaml, not 'ebnO' (did you mean 'ebn0'?)",
        "/w.yaml:9:16: curves.two.graph: /nowhere.yaml must be a file that can be read: No such file or directory",
        f"/w.yaml:10:{56 + width}: curves.three.ebn0[1]: must be in dB, not 'Hz'",
        f"/w.yaml:10:{62 + width}: curves.three.ebn0[2]: must be given once, not again: 1 dB",
        "/w.yaml:11:3: curves.four: must have `use: TYPE` or `graph: FILE`",
        "/w.yaml:11:16: curves.four.ebn0: must be a variable (a), not 'b'",
        "/w.yaml:12:9: curves.five: must be a link, as {graph: links/awgn.yaml}, not 7",
        "/w.yaml:13:8: curves.six: must be an input of link (symbols), not 'bits'",
        "/w.yaml:14:40: curves.seven.ebn0: must have 1 to 1000 values from `from` up to `to`, not 0",
        "/awgn.yaml:12:36: blocks.air.ebn0: must be at most 300 dB, not 400.0 "
        f"(from curves.three.ebn0[3] = 400.0, /w.yaml:10:{67 + width})",
        "/awgn.yaml:13:57: blocks.demap.output: must be 'hard', 'llr' or 'llr8', not 'hrd' (did you mean 'hard'?) "
        f"(from curves.three.output = hrd, /w.yaml:10:{38 + width})",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("waterfall: x\n", "w.yaml:1:1: must have `curves`: a link for each, as {graph: links/awgn.yaml}"),
        (f"waterfall: x\ncurves: {{a: {{graph: {LINKS}/awgn.yaml}}}}\n", "w.yaml:2:10: curves.a: must have `ebn0`, as"),
        (
            f"curves: {{a: {{graph: {LINKS}/awgn.yaml, ebn0: 3}}}}\n",
            "must have 'waterfall', a key of a waterfall: what",
        ),
        ("flowgraph: x\nblocks: {}\n", "must have 'waterfall', a key of a waterfall: what it is called"),
        (
            f"waterfall: x\ncurves: {{a: {{graph: {LINKS}/awgn.yaml, ebn0: []}}}}\n",
            ": curves.a.ebn0: must have a value",
        ),
    ],
)
def test_what_is_missing_is_told(tmp_path, text, complaint):
    with pytest.raises(ConfigError) as caught:
        points(text, tmp_path)
    assert complaint in str(caught.value)


def test_a_file_that_there_is_not_is_the_one_thing_told(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "none.yaml"))
    assert str(caught.value) == f"{tmp_path}/none.yaml: must be a file that can be read: No such file or directory"


def test_variables_overlays_and_settings_work_as_in_flowgraphs(tmp_path):
    text = SMALL.replace("seed: 3", "seed: 3\nvars: {low: 4 dB, soft: hard}").replace("from: 4 dB", "from: $low")
    (tmp_path / "w.yaml").write_text(text.replace("awgn.yaml}", "awgn.yaml, output: $soft}"))
    (tmp_path / "more.yaml").write_text("block: 128 bit\n")
    made = load(str(tmp_path / "w.yaml"), [str(tmp_path / "more.yaml")], {"low": "7 dB", "soft": "llr8"}, seed=9)
    assert [point.ebn0_db for point in made.points] == [7, 10, 20]
    assert (made.block, made.points[0].graph.seed) == (128, 9)
    demap = next(block for block in made.points[0].graph.blocks if block.name == "link.demap")
    assert demap.params["output"] == "llr8"


def test_a_range_reaches_its_end_in_spite_of_rounding(tmp_path):
    found = points(SMALL.replace("to: 8 dB, step: 2 dB", "to: 5 dB, step: 0.1 dB"), tmp_path)
    assert [point.ebn0_db for point in found[:-2]] == [4, 4.1, 4.2, 4.3, 4.4, 4.5, 4.6, 4.7, 4.8, 4.9, 5]


def test_only_what_leads_to_the_errors_is_run(tmp_path):
    names = [block.name for block in points(SMALL, tmp_path)[-1].graph.blocks]
    assert names == ["source", "link.map", "link.air", "link.equalize", "link.demap", "errors"]


def test_a_point_begins_anew_when_what_it_measures_has_changed(tmp_path):
    link = (LINKS / "awgn.yaml").read_text().replace("signature: ", f"signature: {LINKS}/")
    (tmp_path / "mine.yaml").write_text(link)
    text = SMALL.replace(f"{LINKS}/awgn.yaml", "mine.yaml")
    first = {(point.curve, point.ebn0_db): point.key for point in points(text, tmp_path)}
    assert len(set(first.values())) == 5

    def kept(changed):
        return {place for place, key in first.items() if key in {point.key for point in points(changed, tmp_path)}}

    everything = set(first)
    assert kept(text.replace("a small one", "renamed").replace("errors: 300", "errors: 5000")) == everything
    assert kept(text.replace("to: 8 dB", "to: 9.5 dB").replace("[10 dB, 20]", "[20.0 dB, 12 dB, 1.0e+1]")) == everything
    assert kept(text.replace("seed: 3", "seed: 4")) == set()
    assert kept(text.replace("block: 64 bit", "block: 128 bit")) == set()
    assert kept(text.replace("rayleigh.yaml, ", "rayleigh.yaml, output: llr, ")) == {
        p for p in everything if p[0] == "awgn"
    }
    (tmp_path / "mine.yaml").write_text(link.replace("16qam", "64qam"))
    assert kept(text) == {place for place in everything if place[0] == "rayleigh"}


def test_random_numbers_follow_from_the_point_and_the_round(tmp_path):
    found = points(SMALL, tmp_path)
    again = points(SMALL.replace("from: 4 dB", "from: 2 dB"), tmp_path)
    seeds = [point.round(number).seed for point in found for number in range(3)]
    assert len(set(seeds)) == 15
    assert found[0].round(2) == again[1].round(2)
    assert [found[0].blocks(number) for number in range(7)] == [64, 128, 256, 512, 1024, 1024, 1024]


def test_a_folder_has_one_run_at_a_time_and_only_rounds(tmp_path):
    record = Record(tmp_path)
    with pytest.raises(BlockError, match="is in use by another run"):
        Record(tmp_path)
    record.close()
    (tmp_path / FILE).write_text('{"point": 3}\n')
    with pytest.raises(BlockError, match=rf"{FILE}:1: .*move the file away"):
        Record(tmp_path)


POINT = Point("c", 3.0, 1000, None, "key")  # type: ignore[arg-type]


def found(blocks, block_errors, bit_errors, number=0, clusters=None):
    return Round("key", number, blocks, block_errors, blocks * 1000, bit_errors, clusters, 1e-3, 7.0, 0.5)


def test_without_errors_there_is_an_upper_bound_alone():
    quiet = Tally(POINT, [found(100, 0, 0), found(200, 0, 0, 1)])
    row = quiet.row()
    assert (row["ber"], row["ber_low"], row["bler"], row["bler_low"]) == (0, 0, 0, 0)
    assert row["ber_high"] == pytest.approx(1 - 0.005 ** (1 / 300_000))
    assert row["bler_high"] == pytest.approx(1 - 0.005 ** (1 / 300))
    behind_a_decoder = {"clusters": 100, "errors": 0, "trials": 1e5, "errors2": 0, "errors_trials": 0, "trials2": 1e8}
    assert Tally(POINT, [found(100, 0, 0, 0, behind_a_decoder)]).row()["ber_high"] > 0.05
    pictures = [
        figure(Waterfall("w", 1000, Until(), [POINT]), each)["ber.png"] for each in ([row], [{**row, "ber": None}])
    ]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1]  # an arrow, or nothing
    assert table([row]).splitlines()[1].startswith("c,3,7,300000,0,0,0,")


def test_clusters_of_several_rounds_are_pooled():
    sums = [
        {"clusters": 4, "errors": 100, "trials": 4000, "errors2": 1e4, "errors_trials": 1e5, "trials2": 4e6},
        {"clusters": 8, "errors": 50, "trials": 8000, "errors2": 9e2, "errors_trials": 5e4, "trials2": 8e6},
    ]
    row = Tally(POINT, [found(4, 1, 100, 0, sums[0]), found(8, 3, 50, 1, sums[1])]).row()
    assert (row["ber_low"], row["ber_high"]) == theory.clustered_interval(12, 150, 12000, 10900, 150_000, 12e6)
    assert (row["bler_low"], row["bler_high"]) == theory.binomial_interval(4, 12)


def test_a_point_is_done_with_enough_errors_of_both_kinds_or_enough_bits():
    until = Until(errors=100, block_errors=10, bits=10**6)
    assert not Tally(POINT).done(until)
    assert not Tally(POINT, [found(100, 9, 5000)]).done(until)
    assert not Tally(POINT, [found(100, 50, 99)]).done(until)
    assert Tally(POINT, [found(100, 10, 100)]).done(until)
    assert Tally(POINT, [found(1000, 0, 0)]).done(until)
    assert not Tally(POINT, [found(100, 0, 0)]).done(Until(errors=0, block_errors=1))


def test_intervals_hold_although_errors_end_the_count():
    """300 points that stop after 100 errors, at a round's end: the 99.9 % range of the misses is 0 to 10."""
    draw, missed, until = np.random.default_rng(2), 0, Until(errors=100)
    for _ in range(300):
        tally = Tally(POINT)
        while not tally.done(until):
            blocks = POINT.blocks(len(tally.rounds))
            errors = int(draw.binomial(blocks * 1000, 2e-4))
            tally.rounds.append(found(blocks, min(errors, blocks), errors, len(tally.rounds)))
        row = tally.row()
        missed += not row["ber_low"] <= 2e-4 <= row["ber_high"]
    assert missed <= 10


def test_a_warning_is_told_once_for_each_curve_and_block(tmp_path, capsys):
    folder, other = RunFolder(tmp_path), replace(POINT, curve="d")
    show = Show([], Until(), folder, 1, False)
    for point, line in ((POINT, "link.a: frame 1"), (POINT, "link.a: frame 2"), (other, "link.a: x"), (POINT, "b: y")):
        show.warn(point, line)
    folder.close()
    assert capsys.readouterr().err.splitlines() == ["c, 3 dB: link.a: frame 1", "d, 3 dB: link.a: x", "c, 3 dB: b: y"]


def test_time_left_is_of_what_is_not_done():
    until = Until(errors=100, block_errors=0, bits=10**6)
    assert remaining([Tally(POINT)], until, 1) is None
    half, done = Tally(POINT, [found(100, 50, 50)]), Tally(POINT, [found(100, 50, 200)])
    assert remaining([half], until, 1) == pytest.approx(0.5)  # as many errors again
    assert remaining([done], until, 1) == 0
    assert remaining([half, Tally(POINT)], until, 2) == pytest.approx((0.5 + 5) / 2)


def test_the_table_is_csv_with_empty_cells_for_what_is_not_known():
    row = Tally(POINT, [Round("key", 0, 100, 1, 0, 0, None, None, None, 0.5)]).row()
    (read,) = csv.DictReader(io.StringIO(table([row])))
    assert (read["curve"], read["ber"], read["ber_theory"], read["bler"]) == ("c", "", "", "0.01")
    assert read["bler_theory"] == ""


def test_the_waterfall_that_comes_with_the_project_has_the_four_links():
    made = load(str(ROOT / "configs/ber.yaml"))
    assert len(made.curves) == 4
    graphs = {point.curve: {block.type for block in point.graph.blocks} for point in made.points}
    kinds = ("awgn_channel", "rayleigh_channel", "viterbi_decoder", "ldpc_decoder")
    assert all(any(kind in types for types in graphs.values()) for kind in kinds)
    assert Path(made.title)
