"""YAML becomes a checked graph; every mistake is found in one pass, with its file, line, column, path and remedy."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_blocks import toys  # noqa: F401

from flowgraph.config.document import node_of
from flowgraph.config.load import ConfigError, load, loads
from flowgraph.config.mistake import nearest
from flowgraph.spec import BlockSpec, NetworkSpec, WireSpec, WorkerSpec

TEN = Path(__file__).parent / "configs" / "ten"
MARK = "▸"  # stands before what is wrong

LINK = """\
subgraph: a link
vars: {ebn0: 10 dB, soft: no}
inputs: {bits: mapper.bits}
outputs: {bits: demapper.bits}
blocks:
  mapper: {use: mapper}
  channel: {use: channel, ebn0: $ebn0}
  demapper: {use: demapper, soft: $soft}
wires: [mapper.symbols -> channel.symbols -> demapper.symbols]
"""
JOB = """\
flowgraph: job
seed: 7
vars: {ebn0: 3 dB}
blocks:
  source: {use: bits}
  link: {graph: link.yaml, ebn0: $ebn0}
  errors: {use: meter}
wires:
  - source.bits -> link.bits -> errors.received
  - source.bits -> errors.sent
"""


def marked(text):
    """Return a text without its marks, and the line and column of what each one stood before."""
    places = []
    while MARK in text:
        before, _, after = text.partition(MARK)
        places.append((before.count("\n") + 1, len(before) - before.rfind("\n")))
        text = before + after
    return text, places


def write(folder, **texts):
    """Write `name.yaml` files, and return the places that were marked in them."""
    places = []
    for name, text in texts.items():
        text, marks = marked(text)
        (folder / f"{name}.yaml").write_text(text)
        places += [(str(folder / f"{name}.yaml"), *mark) for mark in marks]
    return places


def mistakes(call, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **options)
    return caught.value.mistakes


def job(blocks="  a: {use: bits}", wires="", more=""):
    """Return a job of some lines of blocks, wires and more."""
    text = f"flowgraph: job\n{more}\nblocks:\n{blocks}\n"
    return text + (f"wires:\n{wires}\n" if wires else "")


# What a good file becomes


def test_a_job_with_a_subgraph_is_laid_flat(tmp_path):
    write(tmp_path, job=JOB, link=LINK)
    spec = load(tmp_path / "job.yaml")
    assert (spec.name, spec.seed, spec.network) == ("job", 7, NetworkSpec())
    assert spec.blocks == [
        BlockSpec("source", "bits", {}, "main"),
        BlockSpec("link.mapper", "mapper", {}, "main"),
        BlockSpec("link.channel", "channel", {"ebn0": "3 dB"}, "main"),
        BlockSpec("link.demapper", "demapper", {"soft": False}, "main"),
        BlockSpec("errors", "meter", {}, "main"),
    ]
    assert spec.wires == [
        WireSpec("link.mapper.symbols", "link.channel.symbols"),
        WireSpec("link.channel.symbols", "link.demapper.symbols"),
        WireSpec("source.bits", "link.mapper.bits"),
        WireSpec("link.demapper.bits", "errors.received"),
        WireSpec("source.bits", "errors.sent"),
    ]
    assert spec.workers == [WorkerSpec("main")]


def test_settings_and_the_seed_come_from_outside(tmp_path):
    write(tmp_path, job=JOB, link=LINK)
    spec = load(tmp_path / "job.yaml", set={"ebn0": "12.5"}, seed=99)
    assert spec.seed == 99
    assert spec.blocks[2].params == {"ebn0": 12.5}
    assert load(tmp_path / "job.yaml", set={"ebn0": 12}).blocks[2].params == {"ebn0": 12}


@pytest.mark.parametrize(
    ("text", "value"),
    [("[1, 3 dB]", [1, "3 dB"]), ("{a: 1}", {"a": 1}), ("[ab]*[0-9]", None), ("[*a]", None), ("[!!str x]", None)],
)
def test_a_setting_is_read_as_yaml_or_stays_text(text, value):
    assert node_of(text, "--set", "name").plain == (text if value is None else value)


def test_variables_keep_their_type_and_go_into_texts():
    text = """\
flowgraph: ${name} at $$5
vars: {name: "a ${kind} job", kind: small, n: 12, on: yes, taps: [1, $n], label: 'n=${n}', price: $5}
blocks:
  a: {use: bits, count: $n, live: $on, label: $label}
  b: {use: anything, data: {taps: $taps, again: "${taps}", price: $price, "yes": on, none: ~}, text: $n}
"""
    spec = loads(text)
    assert spec.name == "a small job at $5"
    assert spec.blocks[0].params == {"count": 12, "live": True, "label": "n=12"}
    data = {"taps": [1, 12], "again": [1, 12], "price": "$5", "yes": True, "none": None}
    assert spec.blocks[1].params == {"data": data, "text": "12"}


def test_words_that_yaml_takes_for_values_stay_words_where_text_is_wanted():
    text = job("  on: {use: bits, label: yes}\n  y: {use: bits, label: 0x10}\n  n: {use: bits, label: 1.50}")
    spec = loads(text + "workers: {no: {blocks: [on, y, n]}}\n")
    assert [block.name for block in spec.blocks] == ["on", "y", "n"]
    assert [block.params["label"] for block in spec.blocks] == ["yes", "0x10", "1.50"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("10 dB", "10 dB"),
        ("012", "012"),
        ("1:30", "1:30"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("1e3", "1e3"),
        ("1.5e+3", 1500.0),
        ("-17", -17),
        ("0x1F", 31),
        ("Off", False),
        ("~", None),
        ("'12'", "12"),
        ("99999999999999999999999", "99999999999999999999999"),
    ],
)
def test_scalars_read_as_people_mean_them(written, value):
    found = loads(job(f"  a: {{use: anything, data: {written}}}")).blocks[0].params["data"]
    assert (found, type(found)) == (value, type(value))


def test_files_are_laid_over_one_another(tmp_path):
    write(
        tmp_path,
        base="flowgraph: base\nseed: 1\nvars: {n: 1, m: 2}\nblocks:\n  a: {use: bits, count: $n}\n  b: {use: bits}\n"
        "  c: {use: bits, count: $m}\nworkers: {one: {blocks: [a, b, c]}}\n",
        job="extends: [base.yaml, base.yaml]\nseed: 2\nvars: {n: 10}\nblocks: {b: null, d: {use: bits}}\n"
        "workers: {one: {blocks: [a, c, d], threads: 2}}\n",
        over="vars: {m: 20}\nblocks:\n  a: {use: bits, label: new}\nworkers:\n",
    )
    spec = load(tmp_path / "job.yaml", [tmp_path / "over.yaml"])
    assert (spec.name, spec.seed) == ("base", 2)
    assert [(block.name, block.params) for block in spec.blocks] == [
        ("a", {"label": "new"}),
        ("c", {"count": 20}),
        ("d", {}),
    ]
    assert spec.workers == [WorkerSpec("main")]
    assert load(tmp_path / "job.yaml").workers == [WorkerSpec("one", threads=2)]


def test_a_variable_that_an_overlay_adds_must_be_used(tmp_path):
    """`ebnO` for `ebn0` would else run at the old value without a word."""
    (overlay,) = write(tmp_path, job=JOB, link=LINK, overlay=f"vars: {{{MARK}ebnO: 5 dB}}\n")
    file, line, col = overlay
    assert list(map(str, mistakes(load, tmp_path / "job.yaml", [tmp_path / "overlay.yaml"]))) == [
        f"{file}:{line}:{col}: vars.ebnO: must be a variable that something uses, not 'ebnO' (did you mean 'ebn0'?)"
    ]
    write(tmp_path, overlay="vars: {gain: 5 dB}\nblocks: {link: {graph: link.yaml, ebn0: $gain}}\n")
    load(tmp_path / "job.yaml", [tmp_path / "overlay.yaml"])


def test_another_number_is_no_slip_of_the_pen():
    assert nearest("32qam", ["16qam", "64qam", "256qam"]) == ""
    assert nearest("16qma", ["16qam", "64qam"]) == " (did you mean '16qam'?)"


def test_wires_of_an_overlay_replace_all(tmp_path):
    write(
        tmp_path,
        job=JOB,
        link=LINK,
        over="wires: [source.bits -> link.bits, source.bits -> sink.bits]\nblocks:\n"
        "  errors: null\n  sink: {use: hard_sink}\n",
    )
    assert len(load(tmp_path / "job.yaml", [str(tmp_path / "over.yaml")]).wires) == 4


def test_subgraphs_nest_and_one_input_may_feed_several(tmp_path):
    write(
        tmp_path,
        job=JOB.replace("link.yaml", "outer.yaml"),
        outer="subgraph: outer\nvars: {ebn0: 1 dB}\n"
        "inputs: {bits: [inner.bits, sink.bits]}\noutputs: {bits: inner.bits}\n"
        "blocks: {inner: {graph: link.yaml, ebn0: $ebn0, soft: yes}, sink: {use: hard_sink}}\n",
        link=LINK,
    )
    spec = load(tmp_path / "job.yaml")
    assert [block.name for block in spec.blocks if block.name.startswith("link.")] == [
        "link.inner.mapper",
        "link.inner.channel",
        "link.inner.demapper",
        "link.sink",
    ]
    assert WireSpec("source.bits", "link.inner.mapper.bits") in spec.wires
    assert WireSpec("source.bits", "link.sink.bits") in spec.wires
    assert WireSpec("link.inner.demapper.bits", "errors.received") in spec.wires
    assert spec.blocks[2].params == {"ebn0": "3 dB"}
    assert spec.blocks[3].params == {"soft": True}


def test_a_subgraph_can_be_looked_at_alone(tmp_path):
    places = write(
        tmp_path, link=LINK, bad=LINK.replace("$ebn0", "▸10 Hz").replace("inputs: {bits: ", "inputs: {bits: ▸x")
    )
    spec = load(tmp_path / "link.yaml", set={"soft": "yes"}, subgraph=True)
    assert (spec.name, len(spec.wires)) == ("a link", 2)
    assert [block.name for block in spec.blocks] == ["mapper", "channel", "demapper"]
    assert spec.blocks[2].params == {"soft": True}
    (mistake,) = mistakes(load, tmp_path / "link.yaml")
    assert mistake.message == "must be a flowgraph, not a sub-graph"
    found = mistakes(load, tmp_path / "bad.yaml", subgraph=True)
    assert [mistake[:3] for mistake in found] == places


def test_workers_take_blocks_subgraphs_and_parts_of_subgraphs(tmp_path):
    workers = "workers:\n  tx: {blocks: [source, link.mapper]}\n  rx: {blocks: [link.channel, link.demapper, errors]}\n"
    write(tmp_path, job=JOB + workers, link=LINK)
    spec = load(tmp_path / "job.yaml")
    assert [block.worker for block in spec.blocks] == ["tx", "tx", "rx", "rx", "rx"]
    write(tmp_path, job=JOB + "workers: {tx: {blocks: [source, link]}, rx: {blocks: [errors]}}\n")
    assert [block.worker for block in load(tmp_path / "job.yaml").blocks] == ["tx", "tx", "tx", "tx", "rx"]


def test_wires_take_options():
    text = job("  a: {use: bits, count: 3}\n  b: {use: hard_sink, memory: 2 MiB}")
    option = "  - {wire: a.bits -> b.bits, queue: 3, policy: drop-oldest, endpoint: 'tcp://127.0.0.1:5555'}"
    spec = loads(text + "wires:\n" + option)
    assert spec.wires == [WireSpec("a.bits", "b.bits", 3, "drop-oldest", "tcp://127.0.0.1:5555")]
    assert [block.memory for block in spec.blocks] == [1 << 30, 2 << 20]


def test_hosts_and_keys(tmp_path):
    network = "network: {listen: 'tcp://10.0.0.1:5555', keys: secret/net}\n"
    more = network + "workers: {far: {blocks: [a], host: 10.0.0.2, threads: 4}}"
    write(tmp_path, job=job(more=more))
    spec = load(tmp_path / "job.yaml")
    assert spec.network == NetworkSpec("tcp://10.0.0.1:5555", str(tmp_path / "secret" / "net"))
    assert spec.workers == [WorkerSpec("far", "10.0.0.2", 4)]


def test_files_that_a_parameter_names_start_at_the_file_that_wrote_it(tmp_path, monkeypatch):
    for name in ("base", "link", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_bytes(b"")
    write(tmp_path / "base", base="vars: {images: base.png}\n")
    write(tmp_path / "link", link="subgraph: s\nvars: {images: '*.png'}\nblocks: {b: {use: bits, images: $images}}\n")
    blocks = (
        "  a: {use: bits, images: $images}\n  s: {graph: link/link.yaml}\n  t: {graph: link/link.yaml, images: link}"
    )
    write(tmp_path, job=job(blocks, more="extends: base/base.yaml"))
    monkeypatch.chdir(tmp_path / "here")
    paths = [block.params["images"] for block in load("../job.yaml").blocks]
    assert paths == [str(tmp_path / "base/base.png"), str(tmp_path / "link/*.png"), str(tmp_path / "link")]
    assert load("../job.yaml", set={"images": "here.png"}).blocks[0].params["images"] == str(tmp_path / "here/here.png")
    assert load("../job.yaml", set={"images": "sample"}).blocks[0].params["images"] == "sample"


def test_what_may_be_a_folder_or_a_name_is_a_folder_where_there_is_one(tmp_path, monkeypatch):
    (tmp_path / "here" / "models" / "mine").mkdir(parents=True)
    blocks = "  a: {use: bits, model: models/mine}\n  b: {use: bits, model: models/other}\n  c: {use: bits}"
    write(tmp_path / "here", job=job(blocks))
    monkeypatch.chdir(tmp_path)
    named = [block.params.get("model") for block in load("here/job.yaml").blocks]
    assert named == [str(tmp_path / "here/models/mine"), "models/other", None]
    write(tmp_path / "here", job=job("  a: {use: bits, model: ./models/other}"))
    missing = tmp_path / "here/models/other"
    with pytest.raises(ConfigError, match=rf"must be a folder that exists, or a name, not '{missing}'"):
        load("here/job.yaml")


# What is wrong with a bad one: text with marks, and a message for each mark

CASES = {
    "syntax": ("flowgraph: job\nblocks: ▸]\n", [": must be YAML: did not find expected node content"]),
    "braces in braces": (
        "vars: {a: 1, b: x$▸{a}}",
        [": must be YAML: did not find expected ',' or '}' (inside { }, a text with ${...} needs quotes)"],
    ),
    "tab": ("flowgraph: job\n▸\tseed: 3", [": must be YAML: a tab, where YAML takes spaces alone"]),
    "tab below": ("flowgraph: job\nvars:\n▸\ta: 3", [": must be YAML: a tab, where YAML takes spaces alone"]),
    "control character": ("flowgraph: ▸\x07", [": must be YAML: control characters are not allowed"]),
    "empty": ("▸# nothing\n", [": must be a mapping, not an empty file"]),
    "list": ("▸- flowgraph", [": must be a mapping (flowgraph:, blocks:, wires:), not a list"]),
    "scalar": ("▸flowgraph", [": must be a mapping (flowgraph:, blocks:, wires:), not 'flowgraph'"]),
    "two documents": ("a: 1\n▸---\nb: 2\n", [": must be one YAML document, not several"]),
    "a tag": (
        "flowgraph: ▸!!python/object/apply:os.system [echo]\n",
        ["flowgraph: must be plain data, not tagged !!python/object/apply:os.system"],
    ),
    "a list as a key": ("▸[a]: b\n", [": must have words as keys"]),
    "an alias before its anchor": ("flowgraph: ▸*x\n", ["flowgraph: must be an alias of an anchor before it, not *x"]),
    "an alias of itself": ("flowgraph: &x [▸*x]\n", ["flowgraph[0]: must not contain itself, as *x does"]),
    "duplicate key": (
        job("  a: {use: bits, count: 3, ▸count: 4}\n  ▸a: {use: bits}"),
        [
            "blocks.a.count: must be given once, not again (first on line 4)",
            "blocks.a: must be given once, not again (first on line 4)",
        ],
    ),
    "misspelt top-level key": (
        job(more="▸sede: 3\n▸inputs: {}"),
        [
            "sede: must be a key of a flowgraph, not 'sede' (did you mean 'seed'?)",
            "inputs: must be a key of a flowgraph (flowgraph, seed, vars, extends, workers, fuse, network, blocks, "
            "wires, probes, changes, made_with), not 'inputs'",
        ],
    ),
    "no name": ("▸blocks: {a: {use: bits}}", [": must have 'flowgraph', a key of a flowgraph: what the job is called"]),
    "no blocks": ("▸flowgraph: job", [": must have blocks"]),
    "empty blocks": ("flowgraph: job\nblocks: ▸{}", ["blocks: must have blocks"]),
    "blocks that are a list": ("flowgraph: job\nblocks: ▸[a]", ["blocks: must be a mapping, not a list"]),
    "seed": (job(more="seed: ▸-1"), ["seed: must be at least 0, not -1"]),
    "seed of a wrong type": (job(more="seed: ▸1.5"), ["seed: must be an integer, not 1.5"]),
    "block name": (
        job("  ▸a b: {use: bits}\n  ▸a.b: {use: bits}"),
        [
            "blocks.a b: must be a name of letters, digits, _ and -, not 'a b'",
            "blocks.a.b: must be a name of letters, digits, _ and -, not 'a.b'",
        ],
    ),
    "block name of two lines": (
        'flowgraph: job\nblocks:\n  ▸"a\\nb": {use: bits}\n',
        ["blocks.a b: must be a name of letters, digits, _ and -, not 'a\\nb'"],
    ),
    "no block at all": (
        job("  a: ▸bits\n  ▸b: {}\n  ▸c: {us: bits}\n  ▸d: {use: bits, graph: a.yaml}"),
        [
            "blocks.a: must be a mapping with `use:` or `graph:`, not 'bits'",
            "blocks.b: must have `use: TYPE` or `graph: FILE`",
            "blocks.c: must have `use: TYPE` or `graph: FILE` (did you mean 'use'?)",
            "blocks.d: must have `use: TYPE` or `graph: FILE`, not both",
        ],
    ),
    "unknown block type": (
        job("  a: {use: ▸chanel}\n  b: {use: ▸[bits]}"),
        [
            "blocks.a.use: must be a block type, not 'chanel' (did you mean 'channel'?)",
            "blocks.b.use: must be a block type, not a list",
        ],
    ),
    "misspelt parameter": (
        job("  a: {use: bits, ▸cuont: 3}"),
        ["blocks.a.cuont: must be a parameter of bits, not 'cuont' (did you mean 'count'?)"],
    ),
    "parameter of another block": (
        job("  a: {use: bits, ▸ebn0: 3}"),
        ["blocks.a.ebn0: must be a parameter of bits (use, memory, count, images, model, label, live), not 'ebn0'"],
    ),
    "missing parameter": (
        job(
            "  a: {use: bits}\n  m: {use: mapper}\n  ▸c: {use: channel}",
            "  - a.bits -> m.bits\n  - m.symbols -> c.symbols",
        ),
        ["blocks.c: must have 'ebn0', a parameter of channel: energy of a bit over the noise density"],
    ),
    "wrong type": (
        job(
            "  a: {use: bits, count: ▸many, label: ▸[x], live: ▸3.5}\n"
            "  b: {use: bits, count: ▸yes}\n  c: {use: bits, count: ▸1.5, memory: ▸lots}"
        ),
        [
            "blocks.a.count: must be an integer, not 'many'",
            "blocks.a.label: must be text, not a list",
            "blocks.a.live: must be true or false, not 3.5",
            "blocks.b.count: must be an integer, not 'yes'",
            "blocks.c.count: must be an integer, not 1.5",
            "blocks.c.memory: must be a number with unit B, not 'lots'",
        ],
    ),
    "wrong word": (
        job("  ▸c: {use: channel, ebn0: 1, kind: ▸raileigh}"),
        [
            "blocks.c: must have its input 'symbols' connected",
            "blocks.c.kind: must be 'awgn' or 'rayleigh', not 'raileigh' (did you mean 'rayleigh'?)",
        ],
    ),
    "wrong unit": (
        job("  ▸c: {use: channel, ebn0: ▸10 Hz, rate: ▸3 s, taps: [1, ▸x]}"),
        [
            "blocks.c: must have its input 'symbols' connected",
            "blocks.c.ebn0: must be in dB, not 'Hz'",
            "blocks.c.rate: must be in Hz, not 's'",
            "blocks.c.taps[1]: must be a number, not 'x'",
        ],
    ),
    "bound exceeded": (
        job(
            "  a: {use: bits, count: ▸2000000, memory: ▸0 B}\n"
            "  ▸c: {use: channel, ebn0: ▸500 dB, rate: ▸0 Hz, taps: ▸[]}"
        ),
        [
            "blocks.a.count: must be at most 1000000, not 2000000",
            "blocks.a.memory: must be more than 0 B, not '0 B'",
            "blocks.c: must have its input 'symbols' connected",
            "blocks.c.ebn0: must be at most 300 dB, not '500 dB'",
            "blocks.c.rate: must be more than 0 Hz, not '0 Hz'",
            "blocks.c.taps: must be a list of at least 1, not of 0",
        ],
    ),
    "unknown variable": (
        job("  a: {use: bits, count: ▸$cuont, label: ▸'a ${nothing} b'}", more="vars: {count: 3}"),
        [
            "blocks.a.count: must be a variable, not 'cuont' (did you mean 'count'?)",
            "blocks.a.label: must be a variable (count), not 'nothing'",
        ],
    ),
    "variables in a circle": (
        job(more="vars: {a: $b, b: 'x${c}', c: ▸$a}"),
        ["vars.c: must not be made of itself: a -> b -> c -> a"],
    ),
    "a list inside a text": (
        job(more="vars: {a: [1], b: ▸'x${a}', c: ▸x/$a}"),
        ["vars.b: must put one value into a text, not a list (${a})", "vars.c: must have ${a} inside a text, not $a"],
    ),
    "a variable's value": (
        job("  a: {use: bits, count: ▸$n}", more="vars: {m: -3, n: $m}"),
        ["blocks.a.count: must be at least 0, not -3 (from vars.m = -3, <string>:2:11)"],
    ),
    "wires that are none": (
        job(
            "  a: {use: bits}\n  b: {use: hard_sink}",
            "  - ▸a.bits\n  - ▸3\n  - ▸a -> b\n  - ▸a.bits -> -> b.bits\n  - ▸{queue: 3}",
        ),
        [
            "wires[0]: must be 'block.output -> block.input', not 'a.bits'",
            "wires[1]: must be 'block.output -> block.input', or a mapping with `wire:`, not 3",
            "wires[2]: must be 'block.output -> block.input', not 'a -> b'",
            "wires[3]: must be 'block.output -> block.input', not 'a.bits -> -> b.bits'",
            "wires[4]: must have 'wire', an option of a wire: `block.output -> block.input`, or a longer row",
        ],
    ),
    "wires that are a mapping": (job(more="wires: ▸{a: b}"), ["wires: must be a list of wires, not a mapping"]),
    "unknown block in a wire": (
        job("  sauce: {use: bits}\n  sink: {use: hard_sink}", "  - ▸source.bits   -> sink.bits"),
        ["wires[0]: must be a block, not 'source' (did you mean 'sauce'?)"],
    ),
    "unknown port in a wire": (
        job("  a: {use: bits}\n  b: {use: hard_sink}", "  - ▸a.bitz -> ▸b.out\n  - {wire: a.bits   ->   ▸b.bats}"),
        [
            "wires[0]: must be an output of a, not 'bitz' (did you mean 'bits'?)",
            "wires[0]: must be an input of b (bits), not 'out'",
            "wires[1].wire: must be an input of b, not 'bats' (did you mean 'bits'?)",
        ],
    ),
    "output used as input": (
        job("  a: {use: bits}\n  c: {use: bits}", "  - a.bits -> ▸c.bits"),
        ["wires[0]: must be an input of c (there is none), not its output 'bits'"],
    ),
    "input used as output": (
        job(
            "  a: {use: bits}\n  b: {use: hard_sink}\n  m: {use: meter}",
            "  - a.bits -> ▸b.bits -> m.sent\n  - ▸m.sent -> m.received",
        ),
        [
            "wires[0]: must be an output of b (there is none), not its input 'bits'",
            "wires[1]: must be an output of m (there is none), not its input 'sent'",
        ],
    ),
    "unconnected input": (
        job("  a: {use: bits}\n  ▸m: {use: meter}\n  ▸s: {use: scope}", "  - a.bits -> m.sent"),
        ["blocks.m: must have its input 'received' connected", "blocks.s: must have an input connected (x, y)"],
    ),
    "two writers": (
        job("  a: {use: bits}\n  c: {use: bits}\n  b: {use: hard_sink}", "  - a.bits -> b.bits\n  - c.bits -> ▸b.bits"),
        ["wires[1]: must be the only wire to b.bits, not the second, at <string>:8:15"],
    ),
    "loop": (
        job(
            "  c: {use: channel, ebn0: 1}\n  d: {use: channel, ebn0: 1}\n  e: {use: channel, ebn0: 1}",
            "  - c.symbols -> d.symbols\n  - d.symbols -> ▸c.symbols\n  - e.symbols -> ▸e.symbols",
        ),
        [
            "wires[1]: must not close a loop without a delay: c -> d -> c",
            "wires[2]: must not close a loop without a delay: e -> e",
        ],
    ),
    "item type": (
        job(
            "  a: {use: bits}\n  c: {use: channel, ebn0: 1}\n  d: {use: demapper, soft: yes}\n  b: {use: hard_sink}",
            "  - a.bits -> ▸c.symbols -> d.symbols\n  - d.bits -> ▸b.bits",
        ),
        [
            "wires[0]: must carry complex64 to c.symbols, not bits from a.bits",
            "wires[1]: must carry bits to b.bits, not float32 from d.bits",
        ],
    ),
    "unit and shape": (
        job(
            "  v: {use: volts}\n  i: {use: amperes}\n  g: {use: grey}",
            "  - v.out -> ▸i.current\n  - v.picture -> ▸g.picture",
        ),
        [
            "wires[0]: must carry A to i.current, not V from v.out",
            "wires[1]: must carry items of shape any x any to g.picture, not any x any x 3 from v.picture",
        ],
    ),
    "rate": (
        job(
            "  a: {use: bits}\n  m: {use: mapper, order: 4}\n  d: {use: demapper, order: 2}\n  e: {use: meter}",
            "  - a.bits -> m.bits\n  - m.symbols -> d.symbols\n  - a.bits -> e.sent\n  - d.bits -> ▸e.received",
        ),
        ["wires[3]: must carry as many items a frame to e.received as to e.sent, not 1/2 times as many"],
    ),
    "wire options": (
        job(
            "  a: {use: bits}\n  b: {use: hard_sink}",
            "  - {wire: a.bits -> b.bits, queue: ▸-1, policy: ▸dorp-oldest, endpoint: ▸udp://x, ▸que: 3}",
        ),
        [
            "wires[0].queue: must be at least 1, not -1",
            "wires[0].policy: must be 'block', 'drop-oldest' or 'drop-newest', not 'dorp-oldest' "
            "(did you mean 'drop-oldest'?)",
            "wires[0].endpoint: must be tcp://ADDRESS:PORT or ipc://PATH, not 'udp://x'",
            "wires[0].que: must be an option of a wire, not 'que' (did you mean 'queue'?)",
        ],
    ),
    "endpoints": (
        job(
            "  a: {use: bits}\n  b: {use: hard_sink}\n  c: {use: hard_sink}\n  d: {use: hard_sink}",
            "  - {wire: a.bits -> b.bits, endpoint: 'ipc:///tmp/x'}\n  - {wire: ▸a.bits -> c.bits, endpoint: 'ipc:///tmp/x'}\n"
            "  - {wire: ▸a.bits -> d.bits, endpoint: 'tcp://192.168.0.1:5555'}",
        ),
        [
            "wires[1].wire: must have an endpoint of its own, not ipc:///tmp/x again",
            "wires[2].wire: must be an address of this machine, not 192.168.0.1, unless `network:` has `keys: FOLDER` "
            "(`run_flowgraph.py keys FOLDER` makes it) or `insecure: true`",
        ],
    ),
    "workers": (
        job(
            "  a: {use: bits}\n  b: {use: bits}\n  ▸c: {use: bits}",
            more="workers: {t: {blocks: [a, b]}, u: {blocks: [▸a]}}",
        ),
        [
            "workers.u.blocks[0]: must run in one worker, not in both t and u",
            "blocks.c: must be listed in a worker (t, u)",
        ],
    ),
    "worker options": (
        job(
            more="workers: {t: {blocks: [▸aa]}, ▸u u: {blocks: ▸[]}, v: ▸a, w: {blocks: [a], ▸treads: 3}, "
            "x: {blocks: ▸a, threads: ▸0}}"
        ),
        [
            "workers.t.blocks[0]: must be a block, not 'aa' (did you mean 'a'?)",
            "workers.u u: must be a name of letters, digits, _ and -, not 'u u'",
            "workers.u u.blocks: must be a list of at least 1, not of 0",
            "workers.v: must be a mapping with `blocks:`, not 'a'",
            "workers.w.treads: must be an option of a worker, not 'treads' (did you mean 'threads'?)",
            "workers.x.blocks: must be a list, not 'a'",
            "workers.x.threads: must be at least 1, not 0",
        ],
    ),
    "no workers": (
        job("  ▸a: {use: bits}", more="workers: {}"),
        ["blocks.a: must be listed in a worker (there is none)"],
    ),
    "a host that cannot be reached": (
        job(more="workers: {t: {blocks: [a], host: ▸127.0.0.2}}"),
        ["workers.t.host: must come with `network: {listen: tcp://ADDRESS:PORT}`"],
    ),
    "network": (
        job(more="network: {listen: ▸5555, insecure: ▸3, ▸listn: x}"),
        [
            "network.listen: must be tcp://ADDRESS:PORT, not '5555'",
            "network.insecure: must be true or false, not 3",
            "network.listn: must be an option of the network, not 'listn' (did you mean 'listen'?)",
        ],
    ),
    "listening to the world": (
        job(more="network: {listen: ▸tcp://10.0.0.2:5555}"),
        [
            "network.listen: must be an address of this machine, not 10.0.0.2, unless `network:` has `keys: FOLDER` "
            "(`run_flowgraph.py keys FOLDER` makes it) or `insecure: true`"
        ],
    ),
    "extends": (job(more="extends: [▸3]"), ["extends[0]: must be a file to extend, not 3"]),
    "a dollar in the wrong place": (
        job(more="vars: {dir: x, path: ▸$dir/y}"),
        ["vars.path: must have ${dir} inside a text, not $dir"],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_mistake_is_told_with_its_place(case):
    text, places = marked(case[0])
    expected = [f"<string>:{line}:{col}: {message}" for (line, col), message in zip(places, case[1], strict=True)]
    found = [str(mistake) for mistake in mistakes(loads, text)]
    assert found == [line.replace(": : ", ": ") for line in expected]


def test_ten_mistakes_in_three_files_are_found_in_one_pass():
    found = mistakes(load, TEN / "base.yaml", [TEN / "overlay.yaml"])
    base, overlay, link = (str(TEN / name) for name in ("base.yaml", "overlay.yaml", "links/link.yaml"))
    assert list(map(str, found)) == [
        f"{base}:3:1: sede: must be a key of a flowgraph, not 'sede' (did you mean 'seed'?)",
        f"{base}:8:30: blocks.source.count: must be a variable, not 'cuont' (did you mean 'count'?)",
        f"{base}:11:3: blocks.sink: must have its input 'bits' connected",
        f"{base}:15:41: workers.tx.threads: must be an integer, not 'none'",
        f"{overlay}:2:36: blocks.spare.imagse: must be a parameter of bits, not 'imagse' (did you mean 'images'?)",
        f"{overlay}:5:22: wires[0]: must be an input of link, not 'bitz' (did you mean 'bits'?)",
        f"{overlay}:6:49: wires[1].queue: must be at least 1, not -2",
        f"{link}:6:33: blocks.map.order: must be a multiple of 2, not 3",
        f"{link}:7:33: blocks.channel.ebn0: must be in dB, not 'Hz' (from blocks.link.ebn0 = 10 Hz, {base}:9:42)",
        f"{link}:8:34: blocks.demap.soft: must be true or false, not 'maybe'",
    ]


FILES = {
    "a missing base": (
        {"job": job(more="extends: [▸nowhere.yaml, ▸.]")},
        [
            "extends[0]: {0}/nowhere.yaml must be a file that can be read: No such file or directory",
            "extends[1]: {0} must be a file, not a folder",
        ],
    ),
    "a missing base hides no misspelt name": (
        {
            "job": job(
                "  a: {use: bits, count: ▸$cuont, label: $other}",
                "  - a.bits -> elsewhere.x",
                "extends: ▸no.yaml\nvars: {count: 3}",
            )
        },
        [
            "extends: {0}/no.yaml must be a file that can be read: No such file or directory",
            "blocks.a.count: must be a variable, not 'cuont' (did you mean 'count'?)",
        ],
    ),
    "a base that extends itself": (
        {"job": job(more="extends: a.yaml"), "a": "extends: b.yaml", "b": "extends: ▸a.yaml"},
        ["extends: must not extend itself: a.yaml -> b.yaml -> a.yaml"],
    ),
    "a file that extends itself": (
        {"job": job(more="extends: ▸./job.yaml")},
        ["extends: must not extend itself: job.yaml -> job.yaml"],
    ),
    "a broken base": (
        {"job": job(more="extends: a.yaml"), "a": "vars: ▸]"},
        ["must be YAML: did not find expected node content"],
    ),
    "a missing sub-graph, twice": (
        {
            "job": job(
                "  a: {graph: ▸no.yaml, x: 1}\n  b: {graph: ▸no.yaml}\n  c: {use: bits}\n  d: {use: hard_sink}",
                "  - c.bits -> a.bits -> d.bits",
            )
        },
        [
            "blocks.a.graph: {0}/no.yaml must be a file that can be read: No such file or directory",
            "blocks.b.graph: {0}/no.yaml must be a file that can be read: No such file or directory",
        ],
    ),
    "a sub-graph that is none": (
        {"job": job("  a: {graph: ▸other.yaml}\n  b: {graph: ▸[x]}"), "other": job()},
        [
            "blocks.a.graph: must be a sub-graph file, not {0}/other.yaml, which has no `subgraph:`",
            "blocks.b.graph: must be a sub-graph file, not a list",
        ],
    ),
    "a sub-graph as a job": (
        {"job": "▸subgraph: x\nblocks: {a: {use: bits}}"},
        ["subgraph: must be a flowgraph, not a sub-graph"],
    ),
    "a sub-graph in itself": (
        {
            "job": job("  a: {graph: a.yaml}"),
            "a": "subgraph: a\nblocks: {b: {graph: b.yaml}}",
            "b": "subgraph: b\nblocks: {a: {graph: ▸a.yaml}}",
        },
        ["blocks.a.graph: must not contain itself: a.yaml -> b.yaml -> a.yaml"],
    ),
    "what a parent says of a sub-graph": (
        {
            "job": JOB.replace("ebn0: $ebn0", "▸ebno: 3")
            .replace("link.bits -> errors", "▸link.bitz -> errors")
            .replace("wires:", "  sink: {use: hard_sink}\nwires:\n  - ▸link.bots -> sink.bits"),
            "link": LINK,
        },
        [
            "blocks.link.ebno: must be a variable of {0}/link.yaml, not 'ebno' (did you mean 'ebn0'?)",
            "wires[0]: must be an output of link, not 'bots' (did you mean 'bits'?)",
            "wires[1]: must be an input of link, not 'bitz' (did you mean 'bits'?)",
        ],
    ),
    "a sub-graph's input that nothing feeds": (
        {
            "job": JOB.replace("  link:", "  ▸link:").replace(
                "source.bits -> link.bits -> errors", "link.bits -> errors"
            ),
            "link": LINK,
        },
        ["blocks.link: must have its input 'bits' connected"],
    ),
    "keys and ports of a sub-graph": (
        {
            "job": JOB,
            "link": LINK.replace("inputs: {bits: mapper.bits}", "▸workers: {}\ninputs: {bits: ▸mapper.bitz}").replace(
                "demapper.bits}", "▸[demapper.bits]}"
            ),
        },
        [
            "workers: must be a key of a sub-graph, not 'workers' (did you mean 'wires'?)",
            "inputs.bits: must be an input of mapper, not 'bitz' (did you mean 'bits'?)",
            "outputs.bits: must be the output of a block, 'block.port', not a list",
        ],
    ),
    "a signature": (
        {
            "job": JOB.replace("link.bits -> e", "▸link.bits -> e"),
            "link": LINK.replace("inputs: {bits", "signature: phy.yaml\n▸inputs: {▸bots").replace(
                "outputs: {", "outputs: {▸symbols: channel.symbols, "
            ),
            "phy": "inputs: {bits: bits}\noutputs: {bits: [bits, float32, int8]}\n",
        },
        [
            "wires[0]: must be an input of link, not 'bits' (did you mean 'bots'?)",
            "inputs: must have the input 'bits' that {0}/phy.yaml asks for",
            "inputs.bots: must be an input of {0}/phy.yaml, not 'bots' (did you mean 'bits'?)",
            "outputs.symbols: must be an output of {0}/phy.yaml (bits), not 'symbols'",
        ],
    ),
    "types of a signature": (
        {
            "job": JOB.replace("ebn0: $ebn0", "soft: yes"),
            "link": LINK.replace("inputs: {", "signature: phy.yaml\ninputs: {").replace("{bits: ", "{bits: ▸"),
            "phy": "inputs: {bits: [bits, uint8]}\noutputs: {bits: bits}\n",
        },
        [
            "inputs.bits: must take bits or uint8, as {0}/phy.yaml says, not bits",
            "outputs.bits: must give bits, as {0}/phy.yaml says, not float32",
        ],
    ),
    "a signature that is none": (
        {"job": JOB, "link": LINK + "signature: phy.yaml", "phy": "▸input: {bits: bits}\noutputs: {bits: ▸{a: b}}"},
        [
            "input: must be a key of a signature, not 'input' (did you mean 'inputs'?)",
            "outputs.bits: must be text or a list, not a mapping",
        ],
    ),
    "files that a parameter names": (
        {"job": job("  a: {use: bits, images: ▸none/*.png}\n  b: {use: bits, images: ▸$i}", more="vars: {i: empty}")},
        [
            "blocks.a.images: must be a glob that some file matches, not '{0}/none/*.png'",
            "blocks.b.images: must be a folder with files, not '{0}/empty' (from vars.i = empty, {0}/job.yaml:2:11)",
        ],
    ),
}


@pytest.mark.parametrize("case", FILES.values(), ids=FILES.keys())
def test_mistakes_between_files_are_told_where_they_were_written(case, tmp_path):
    (tmp_path / "empty").mkdir()
    places = write(tmp_path, **case[0])
    expected = [
        f"{file}:{line}:{col}: {message.replace('{0}', str(tmp_path))}"
        for (file, line, col), message in zip(places, case[1], strict=True)
    ]
    assert list(map(str, mistakes(load, tmp_path / "job.yaml"))) == expected


def test_what_comes_from_outside_is_checked_too(tmp_path):
    write(tmp_path, job=JOB, link=LINK)
    found = mistakes(load, tmp_path / "job.yaml", ["no.yaml"], {"ebno": 3, "ebn0": "3 Hz"}, -1)
    assert list(map(str, found)) == [
        "--set: ebno: must be a variable, not 'ebno' (did you mean 'ebn0'?)",
        "--seed: must be at least 0, not -1",
        "no.yaml: must be a file that can be read: No such file or directory",
        f"{tmp_path}/link.yaml:7:33: blocks.channel.ebn0: must be in dB, not 'Hz' (from ebn0 = 3 Hz)",
    ]


def test_a_mistake_in_a_subgraph_used_twice_is_told_once(tmp_path):
    more = "  again: {graph: link.yaml}\nwires:\n  - source.bits -> again.bits\n"
    write(tmp_path, job=JOB.replace("wires:\n", more), link=LINK.replace("{use: mapper}", "{use: mapper, order: 3}"))
    assert [mistake.path for mistake in mistakes(load, tmp_path / "job.yaml")] == ["blocks.mapper.order"]


def test_a_module_that_cannot_be_imported_is_named_only_where_a_block_is_missing(monkeypatch):
    from toy_blocks import TOYS

    from flowgraph import registry

    monkeypatch.setattr(registry, "_scan", lambda: registry._Found(TOYS, {"mine.blocks": "ImportError: no sdr"}))
    loads(job())
    (mistake,) = mistakes(loads, job("  a: {use: my_filter}"))
    assert mistake.message.endswith("not 'my_filter'; mine.blocks could not be imported: ImportError: no sdr")


# Files that mean harm, or are not what they seem


def bomb(width=9, depth=9):
    """Return YAML whose aliases stand for `width ** depth` values."""
    lines = ["flowgraph: bomb", f"vars: &a0 {{x: [{', '.join(['lol'] * width)}]}}"]
    lines += [f"x{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    return "\n".join(lines) + "\n"


def test_a_bomb_of_aliases_is_refused(tmp_path):
    (mistake,) = mistakes(loads, bomb())
    assert (mistake.line, mistake.path) == (6, "x4")
    assert mistake.message == "must have at most 50000 values, aliases counted as often as they are used"
    (tmp_path / "big.yaml").write_text(bomb() + "# " + "x" * 10_000_000)
    (mistake,) = mistakes(load, tmp_path / "big.yaml")
    assert mistake.message == f"must be at most 1000000 bytes, not {(tmp_path / 'big.yaml').stat().st_size}"
    assert mistakes(loads, " " * 1_000_001)[0].message == "must be at most 1000000 characters, not 1000001"


def test_too_many_values_are_refused():
    (mistake,) = mistakes(loads, "x: [" + "1," * 60_000 + "]")
    assert mistake.message == "must have at most 50000 values, aliases counted as often as they are used"


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "{a: " * 5000, "- " * 5000], ids=["lists", "mappings", "dashes"])
def test_nesting_is_limited(text):
    (mistake,) = mistakes(loads, text)
    assert mistake.message == "must be nested at most 20 deep"


def test_files_may_not_extend_each_other_without_end(tmp_path):
    for number in range(30):
        (tmp_path / f"e{number}.yaml").write_text(f"extends: e{number + 1}.yaml")
    write(tmp_path, job=job(more="extends: e0.yaml"))
    (mistake,) = mistakes(load, tmp_path / "job.yaml")
    assert (mistake.file, mistake.message) == (
        str(tmp_path / "e19.yaml"),
        "must be at most 20 files away from the first",
    )
    (tmp_path / "again").symlink_to(tmp_path)
    write(tmp_path, job=job(more="extends: again/job.yaml"))
    (mistake,) = mistakes(load, tmp_path / "job.yaml")
    assert mistake.message == "must not extend itself: job.yaml -> job.yaml"


def test_variables_cannot_be_blown_up():
    chain = ", ".join(f"v{i}: '${{v{i - 1}}}${{v{i - 1}}}'" for i in range(1, 19))
    assert "must be at most 100000 characters" in str(
        mistakes(loads, job(more=f"vars: {{v0: {'x' * 1000}, {chain}}}"))[0]
    )
    chain = ", ".join(f"v{i}: [$v{i - 1}, $v{i - 1}]" for i in range(1, 19))
    assert "must have at most 50000 values" in str(mistakes(loads, job(more=f"vars: {{v0: x, {chain}}}"))[0])
    chain = ", ".join(f"v{i}: $v{i + 1}" for i in range(5000))
    assert "must be at most 20 variables away from a value" in str(
        mistakes(loads, job(more=f"vars: {{{chain}, v5000: 1}}"))[0]
    )
    many = "\n".join(f"  a{i}: {{use: anything, data: $x}}" for i in range(100))
    text = job(many, more=f"vars: {{x: [{'1, ' * 5000}]}}")
    assert [mistake.message for mistake in mistakes(loads, text)] == [
        "must make a graph of at most 50000 values in all"
    ]


def test_subgraphs_cannot_be_blown_up(tmp_path):
    for level in range(15):
        blocks = "".join(f"  b{i}: {{graph: s{level + 1}.yaml}}\n" for i in range(10))
        (tmp_path / f"s{level}.yaml").write_text(f"subgraph: s\nblocks:\n{blocks}")
    (tmp_path / "s15.yaml").write_text("subgraph: s\nblocks: {a: {use: bits}}")
    write(tmp_path, job=job("  a: {graph: s0.yaml}"))
    (mistake,) = mistakes(load, tmp_path / "job.yaml")
    assert mistake.message == "must make a graph of at most 50000 values in all"
    for level in range(25):
        (tmp_path / f"s{level}.yaml").write_text(f"subgraph: s\nblocks: {{b: {{graph: s{level + 1}.yaml}}}}")
    (mistake,) = mistakes(load, tmp_path / "job.yaml")
    assert mistake.message == "must be at most 20 sub-graphs deep"


def test_very_many_mistakes_end_the_search():
    assert 500 <= len(mistakes(loads, job(wires="\n".join(["  - x"] * 3000)))) <= 510


def test_files_that_are_no_text_are_told_apart(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"flowgraph: job\nseed: \xff\xfe\n")
    assert str(mistakes(load, path)[0]) == f"{path}:2:7: must be UTF-8 text, not the byte 0xff"
    path.write_bytes(b"\xef\xbb\xbf" + job().encode())
    assert load(path).name == "job"
    assert str(mistakes(load, tmp_path)[0]) == f"{tmp_path}: must be a file, not a folder"
    os.mkfifo(tmp_path / "pipe")
    assert str(mistakes(load, tmp_path / "pipe")[0]) == f"{tmp_path}/pipe: must be a regular file"
    assert "embedded null byte" in str(mistakes(load, "a\0b")[0])


@settings(max_examples=300)
@given(st.text(max_size=60), st.integers(0, len(JOB)), st.integers(0, 40))
def test_whatever_a_text_holds_only_a_config_error_comes_of_it(noise, at, gone):
    text = JOB.replace("{graph: link.yaml, ebn0: $ebn0}", "{use: anything, data: $ebn0}")
    for each in (noise, text[:at] + noise + text[at + gone :]):
        found = []
        try:
            loads(each)
        except ConfigError as error:
            found = error.mistakes
        assert all(re.match(r"<string>:\d+:\d+: .*must", str(mistake)) for mistake in found)


def test_check_imports_nothing_heavy():
    """The command line answers in half a second: no model, plot or science library may come with the engine."""
    heavy = "{'torch', 'diffusers', 'transformers', 'numba', 'scipy', 'matplotlib', 'skimage', 'rich'}"
    engine = "flowgraph.config.load, flowgraph.graph, flowgraph.config.schema"
    code = f"import sys, {engine}; print(sorted({heavy} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
