"""The command line: what every command prints, and its exit code."""

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest
from conftest import ROOT

GRAPH = """\
flowgraph: small
seed: 2
vars: {snr: 9 dB, bits: 400000}
blocks:
  source: {use: bit_source, bits: $bits}
  map: {use: qam_mapper}
  air: {use: awgn_channel, ebn0: $snr}
  demap: {use: qam_demapper}
  errors: {use: error_meter}
  symbols: {use: error_meter}
wires:
  - source.bits -> map.bits
  - map.symbols -> air.symbols -> demap.symbols
  - demap.bits -> errors.received
  - source.bits -> errors.sent
  - map.symbols -> symbols.sent
  - air.symbols -> symbols.received
"""


FAILING = "numpy_function, module: numpy, function: nothing"


@pytest.fixture
def graph(cli):
    path = cli.folder / "graph.yaml"
    path.write_text(GRAPH)
    return path


def test_a_run_fills_its_folder_and_prints_the_link(cli, graph):
    ended = cli.run(graph, "--set", "snr=8 dB", "--seed", 11)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (cli.folder / "runs").glob("small-*")
    report = json.loads((folder / "report.json").read_text())
    assert (report["flowgraph"], report["seed"], report["status"]) == ("small", 11, "done")
    link = report["link"]
    assert (link["bits"], link["symbols"], link["ebn0_db"]) == (400_000, 100_000, 8)
    assert {"ber", "ber_theory", "ser", "evm_rms", "esn0_db", "snr_measured_db", "bit_errors"} <= link.keys()
    assert abs(link["snr_measured_db"] - link["esn0_db"]) < 0.1
    assert {"packets", "items", "busy_s", "sending_s", "items_per_s", "errors"} == report["blocks"]["map"].keys()
    assert {"packets", "bytes", "dropped", "lost"} <= report["wires"]["source.bits -> map.bits"].keys()
    assert {path.name for path in folder.iterdir()} >= {"report.json", "flowgraph.yaml", "constellation.png", "log.txt"}
    latency = report["latency"]
    assert latency["frames"] == 1
    assert {"source", "map", "air"} <= latency["blocks"].keys()
    spent = sum(sum(block.values()) for block in latency["blocks"].values())
    assert spent == pytest.approx(latency["mean_s"], abs=1e-5)
    assert 0 < latency["median_s"] == latency["max_s"] < report["elapsed_s"]
    for word in ("Eb/N0, dB", "bit error rate, theory", "latency of 1 frame", "constellation.png", "report.json"):
        assert word in ended.stdout


def test_a_first_run_says_that_kernels_are_being_compiled(cli):
    """On a terminal, while they are; the next run finds them in Numba's cache."""
    (cli.folder / "coded.yaml").write_text(
        "flowgraph: coded\n"
        "blocks: {source: {use: bit_source, bits: 8000}, code: {use: convolutional_encoder}}\n"
        "wires: [source.bits -> code.bits]\n"
    )
    cli.environment["NUMBA_CACHE_DIR"] = str(cli.folder / "kernels")
    for first in (True, False):
        ours, theirs = pty.openpty()
        command = [sys.executable, ROOT / "run_flowgraph.py", "coded.yaml"]
        process = subprocess.Popen(command, env=cli.environment, cwd=cli.folder, stdout=theirs, stderr=theirs)
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while piece := os.read(ours, 4096):
                seen += piece
        os.close(ours)
        assert process.wait() == 0, seen
        assert "running" in seen.decode()
        told = "compiling the kernels of blocks.fec._convolutional, once on this machine" in seen.decode()
        assert told == first
        assert "numba." not in seen.decode()


def test_a_run_can_be_repeated_from_what_it_wrote(cli, graph):
    assert cli.run(graph, "--out", "first", "--quiet", "--set", "snr=7 dB").returncode == 0
    assert cli.run("first/flowgraph.yaml", "--out", "again", "--quiet").returncode == 0
    first, again = (json.loads((cli.folder / name / "report.json").read_text()) for name in ("first", "again"))
    assert first["link"] == again["link"]


def test_check_says_ok_or_every_mistake_with_exit_code_2(cli, graph):
    ended = cli.run("check", graph)
    assert (ended.returncode, ended.stdout) == (0, f"{graph}: small: 6 blocks, 7 wires, 1 worker: ok\n")
    graph.write_text(GRAPH.replace("ebn0: $snr", "ebn0: 3 Hz").replace("map.bits", "map.bit", 1))
    for command in (["check", graph], [graph]):
        ended = cli.run(*command)
        assert ended.returncode == 2
        assert f"{graph}:7:34: blocks.air.ebn0: must be in dB, not 'Hz'" in ended.stderr
        assert "did you mean 'bits'?" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--set", "snr"], "--set must be NAME=VALUE, not 'snr'"),
        (["--set", "snrr=3 dB"], "did you mean 'snr'?"),
        (["--set", "snr=3 Hz"], "must be in dB, not 'Hz'"),
        (["--overlay", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_2(cli, graph, arguments, complaint):
    ended = cli.run(graph, *arguments)
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_out_folder_that_cannot_be_written_is_one_sentence(cli, graph):
    (cli.folder / "file").write_text("")
    for out, told in [
        ("file/out", "--out: cannot write to file/out: Not a directory\n"),
        ("file", "--out must be a folder, not the file file\n"),
    ]:
        ended = cli.run(graph, "--out", out)
        assert (ended.returncode, ended.stderr) == (2, told)


def test_a_command_that_is_misspelt_or_left_out_gets_help(cli):
    ended = cli.run("chek", "graph.yaml")
    assert ended.returncode == 2
    assert "must be a command or a config, not 'chek' (did you mean 'check'?)" in ended.stderr
    ended = cli.run()
    assert ended.returncode == 2
    assert "run a flowgraph" in ended.stderr
    assert cli.run("--version").stdout.startswith("semflow 0.")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("check", "graph.yaml", "--sett", "a=1"), "run_flowgraph.py check: error: unrecognized arguments: --sett a=1"),
        (("graph.yaml", "--port", 5006), "--port is for the live page: say --live too"),
        (("sweep", "graph.yaml"), "graph.yaml is a flowgraph, not a sweep: use `run_flowgraph.py run graph.yaml`"),
        (("ber", "graph.yaml"), "graph.yaml is a flowgraph, not a waterfall: use `run_flowgraph.py run graph.yaml`"),
    ],
)
def test_a_command_that_does_not_fit_is_told_before_there_is_a_folder(cli, graph, arguments, sentence):
    ended = cli.run(*arguments)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (2, sentence)
    assert not (cli.folder / "runs").exists()


def test_missing_keys_are_told_before_there_is_a_folder(cli, graph):
    graph.write_text(GRAPH + "network: {keys: mine}\n")
    ended = cli.run(graph)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert f"make them with `run_flowgraph.py keys {cli.folder / 'mine'}`" in ended.stderr
    assert not (cli.folder / "runs").exists()


def test_blocks_lists_and_describes(cli):
    listed = cli.run("blocks").stdout
    for name in [
        "captioner_source",
        "latent_encoder_source",
        "bit_serializer",
        "bit_deserializer",
        "qam_mapper",
        "qam_demapper",
    ]:
        assert name in listed
    for name in [
        "awgn_channel",
        "rayleigh_channel",
        "bit_flip_channel",
        "diffusion_sink",
        "image_writer",
        "quality_meter",
    ]:
        assert name in listed
    described = cli.run("blocks", "awgn_channel").stdout
    for word in ("ebn0", "dB", "symbols", "complex64"):
        assert word in described
    ended = cli.run("blocks", "awgn_chanel")
    assert ended.returncode == 2
    assert "did you mean 'awgn_channel'?" in ended.stderr


def test_graph_draws(cli, graph):
    assert "source" in cli.run("graph", graph).stdout
    assert cli.run("graph", graph, "--png", "graph.png").returncode == 0
    assert (cli.folder / "graph.png").read_bytes().startswith(b"\x89PNG")


def test_schema_is_json_and_knows_the_blocks(cli):
    schema = cli.run("schema").stdout
    assert json.loads(schema)["$schema"].startswith("http://json-schema.org/")
    assert "awgn_channel" in schema


ELSEWHERE = {ROOT / "configs/links/signature.yaml", *ROOT.glob("configs/overlays/two_radios/*")}  # see test_radio.py
CONFIGS = sorted({*ROOT.glob("configs/**/*.yaml")} - ELSEWHERE)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_passes_check(cli, config):
    job = ROOT / "configs" / ("radio_check.yaml" if config.stem == "tone" else "main.yaml")
    below = [job, "--overlay"] if config.parent.name == "overlays" else []
    ended = cli.run("check", *below, config)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("link", ["rayleigh", "rayleigh_pilots", "bit_flip", "ldpc", "convolutional", "tdl"])
def test_a_link_swaps_in_by_one_line(cli, link):
    line = f"blocks: {{link: {{graph: {ROOT}/configs/links/{link}.yaml, ebn0: 12 dB}}}}\n"
    (cli.folder / "overlay.yaml").write_text(line)
    ended = cli.run("check", ROOT / "configs/main.yaml", "--overlay", "overlay.yaml")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("end", ["stdout", "stderr"])
@pytest.mark.parametrize(("noise", "code"), [("awgn_channel, ebn0: $snr", 0), (FAILING, 1)], ids=["done", "failed"])
def test_a_run_whose_output_nobody_reads_any_more_ends_as_it_would(cli, graph, end, noise, code):
    graph.write_text(
        GRAPH.replace("awgn_channel, ebn0: $snr", noise).replace("air.symbols", "air.items") if code else GRAPH
    )
    process = cli.start(graph, "--out", "out")
    getattr(process, end).close()
    (process.stderr if end == "stdout" else process.stdout).read()
    assert process.wait(60) == code
    assert json.loads((cli.folder / "out/report.json").read_text())["status"] == ("failed" if code else "done")


def test_a_run_needs_no_output_at_all(cli, graph):
    command = f"exec {sys.executable} {ROOT}/run_flowgraph.py {graph} --out out >&- 2>&-"
    assert subprocess.run(command, shell=True, cwd=cli.folder, env=cli.environment, check=False).returncode == 0
    assert json.loads((cli.folder / "out/report.json").read_text())["status"] == "done"


def test_of_a_list_as_much_is_printed_as_is_read(cli):
    process = cli.start("blocks")
    process.stdout.close()
    assert (process.stderr.read(), process.wait(30)) == ("", 0)
