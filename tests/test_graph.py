"""The flat graph: checked when it was composed in Python, drawn, and written so that it loads to the same again."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_blocks import Bits, Channel, Demapper, Mapper, Meter, toys  # noqa: F401

from flowgraph.block import Block, Port
from flowgraph.config.load import ConfigError, loads
from flowgraph.drawing import mermaid
from flowgraph.dump import dump
from flowgraph.graph import check
from flowgraph.spec import BlockSpec, GraphSpec, NetworkSpec, WireSpec, WorkerSpec

BLOCKS = {
    "source": Bits(),
    "mapper": Mapper({"order": 2}),
    "channel": Channel({"ebn0": "3 dB"}),
    "demapper": Demapper({"order": 2, "soft": True}),
    "meter": Meter(),
}
WIRES = (
    "source.bits -> mapper.bits",
    "mapper.symbols -> channel.symbols",
    "channel.symbols -> demapper.symbols",
    "demapper.bits -> meter.received",
    "source.bits -> meter.sent",
)


def composed(blocks=None, wires=WIRES):
    blocks = BLOCKS if blocks is None else blocks
    specs = [BlockSpec(n, b.type_name(), b.params.model_dump(mode="json"), "main") for n, b in blocks.items()]
    return GraphSpec("composed", 1, specs, [WireSpec(*wire.split(" -> ")) for wire in wires], [WorkerSpec("main")])


def messages(*arguments):
    with pytest.raises(ConfigError) as caught:
        check(*arguments)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_a_graph_composed_in_python_is_checked():
    check(composed(), BLOCKS)
    check(composed())


def test_blocks_that_no_package_offers_are_checked_too():
    class Own(Block):
        outputs = (Port("bits", "bits"),)

    blocks = {**BLOCKS, "source": Own()}
    check(composed(blocks), blocks)
    assert messages(composed(blocks))[0].startswith("source: must be a block type")


def test_mistakes_of_a_composed_graph_name_the_wire():
    wires = [*WIRES[:3], "demapper.bats -> meter.received", "elsewhere.bits -> meter.sent"]
    assert messages(composed(wires=wires), BLOCKS) == [
        "demapper.bats -> meter.received: must be an output of demapper, not 'bats' (did you mean 'bits'?)",
        "elsewhere.bits -> meter.sent: must be a block (source, mapper, channel, demapper, meter), not 'elsewhere'",
    ]
    assert messages(composed(wires=WIRES[:4]), BLOCKS) == ["meter: must have its input 'sent' connected"]
    assert messages(composed({**BLOCKS, "mapper": Mapper({"order": 4})})) == [
        "demapper.bits -> meter.received: must carry as many items a frame to meter.received as to meter.sent, "
        "not 1/2 times as many"
    ]


def test_every_loop_is_found_once():
    blocks = {name: Channel({"ebn0": 1}) for name in "abc"}
    wires = ["a.symbols -> b.symbols", "b.symbols -> c.symbols", "c.symbols -> a.symbols"]
    assert messages(composed(blocks, wires)) == [
        "c.symbols -> a.symbols: must not close a loop without a delay: a -> b -> c -> a"
    ]


def test_a_diamond_is_no_loop():
    check(composed())
    long = {"source": Bits(), **{f"m{i}": Meter() for i in range(300)}}
    wires = [f"source.bits -> m{i}.{port}" for i in range(300) for port in ("sent", "received")]
    check(composed(long, wires))


def test_a_long_chain_needs_no_recursion():
    blocks = {"source": Bits(), "mapper": Mapper(), **{f"c{i}": Channel({"ebn0": 1}) for i in range(3000)}}
    names = ["mapper", *list(blocks)[2:]]
    wires = [f"{a}.symbols -> {b}.symbols" for a, b in pairwise(names)]
    check(composed(blocks, ["source.bits -> mapper.bits", *wires]))


def test_rates_are_compared_only_where_they_follow_from_the_same_output():
    class Puncture(Block):
        """Hand out a number of bits that varies."""

        inputs = (Port("bits", "bits"),)
        outputs = (Port("bits", "bits"),)

    blocks = {"source": Bits(), "puncture": Puncture(), "meter": Meter()}
    wires = ["source.bits -> puncture.bits", "puncture.bits -> meter.received", "source.bits -> meter.sent"]
    check(composed(blocks, wires), blocks)


def test_mermaid_draws_workers_blocks_and_wires():
    spec = GraphSpec(
        "a",
        1,
        [BlockSpec('a"<b', "bits", {}, "tx"), BlockSpec("link.c", "hard_sink", {}, "rx")],
        [WireSpec('a"<b.bits', "link.c.bits", policy="drop-newest")],
        [WorkerSpec("tx"), WorkerSpec("rx", "10.0.0.2")],
    )
    assert mermaid(spec).splitlines() == [
        "flowchart LR",
        '    subgraph w0["tx"]',
        '        b0["a&quot;&lt;b<br/><i>bits</i>"]',
        "    end",
        '    subgraph w1["rx on 10.0.0.2"]',
        '        b1["link.c<br/><i>hard_sink</i>"]',
        "    end",
        '    b0 -->|"bits, drop-newest"| b1',
    ]


def test_dump_says_what_it_was_made_with_and_nothing_that_goes_without_saying():
    text = dump(composed())
    assert re.search(r"^made_with: \{python: [\d.]+, semflow: [\w.]+, numpy: ", text, re.M)
    assert "  channel: {use: channel, ebn0: 3.0, rate: 1000000.0, kind: awgn, taps: [1.0], seed: null}\n" in text
    assert "  - source.bits -> mapper.bits\n" in text
    assert "memory" not in text
    assert "queue" not in text
    assert loads(text) == composed()


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "yes",
        "~",
        "null",
        "1e3",
        "0x1F",
        "-.5",
        "$x",
        "${x}",
        "$$",
        "a: b",
        "- a",
        "#",
        "2026-01-02",
        "1:30",
        "\x85",
        "\ufeff",
    ]
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
data = st.recursive(
    scalars | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8
)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}(\.[A-Za-z_][A-Za-z0-9_-]{0,8}){0,2}", fullmatch=True)


@st.composite
def graphs(draw):
    every = draw(st.lists(names, min_size=2, max_size=6, unique=True))
    every = [a for a in every if not any(b.startswith(f"{a}.") for b in every)]
    workers = draw(
        st.lists(st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True), min_size=1, max_size=3, unique=True)
    )
    blocks = []
    for i, name in enumerate(every):
        params = {"data": draw(data), "text": draw(words)}
        worker = workers[i] if i < len(workers) else draw(st.sampled_from(workers))
        blocks.append(BlockSpec(name, "anything", params, worker, draw(st.integers(1, 1 << 40))))
    workers = workers[: len(every)]
    hosts = [draw(st.sampled_from([None, "127.0.0.2", "localhost"])) for _ in workers]
    specs = [WorkerSpec(w, h, draw(st.none() | st.integers(1, 64))) for w, h in zip(workers, hosts, strict=True)]
    blocks.append(BlockSpec("sink.all", "scope", {}, workers[0]))
    blocks.append(BlockSpec("sink.channel", "channel", {"ebn0": "3 dB"}, workers[0]))
    policy = st.sampled_from(["block", "drop-oldest", "drop-newest"])
    endpoint = st.sampled_from([None, "tcp://127.0.0.1:*", "ipc:///tmp/x"])
    wires = [
        WireSpec("sink.channel.symbols", "sink.all.x", draw(st.integers(1, 99)), draw(policy), draw(endpoint)),
        WireSpec("sink.origin.symbols", "sink.channel.symbols"),
        WireSpec("sink.bits.bits", "sink.origin.bits"),
    ]
    blocks += [BlockSpec("sink.origin", "mapper", {}, workers[-1]), BlockSpec("sink.bits", "bits", {}, workers[-1])]
    network = NetworkSpec("tcp://127.0.0.1:5555", draw(st.sampled_from([None, "/k $5"])), draw(st.booleans()))
    name = draw(words.filter(bool))
    return GraphSpec(name, draw(st.integers(0, 2**64 - 1)), blocks, wires, specs, network)


@settings(max_examples=100)
@given(graphs())
def test_what_is_dumped_loads_to_the_same(spec):
    assert loads(dump(spec)) == spec
