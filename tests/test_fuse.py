"""Fused blocks: one thread, calls for wires, the same results, the same report, faults by the right name."""

import json

import pytest

from blocks.phy.channel import AwgnChannel
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.sink.errors import ErrorMeter
from blocks.source.bits import BitSource
from flowgraph import Block, BlockError, Flowgraph, Port
from flowgraph.config.load import ConfigError, loads
from flowgraph.report import RunFailed

JOB = """\
flowgraph: fused
seed: 5
fuse: {fuse}
workers:
  tx: {{blocks: [source]}}
  air: {{blocks: [link, errors]}}
blocks:
  source: {{use: bit_source, bits: 300001, frame: 70001, packet: 8192}}
  link:   {{graph: configs/links/rayleigh.yaml, ebn0: 8 dB}}
  errors: {{use: error_meter}}
wires:
  - source.bits -> link.bits -> errors.received
  - source.bits -> errors.sent
"""
LINK = ["link.map", "link.air", "link.equalize", "link.demap", "link.meter"]


def job(fuse):
    return JOB.format(fuse=fuse)


@pytest.mark.parametrize("fuse", ["[link]", "[link.map, link.air]", "[link.demap, link.air, link.equalize]"])
def test_a_fused_graph_tells_and_counts_what_the_same_graph_in_threads_does(fuse, tmp_path):
    reports = []
    for each in ("[]", fuse):
        Flowgraph.from_spec(loads(job(each))).run(tmp_path / each)
        reports.append(json.loads((tmp_path / each / "report.json").read_text()))
    threads, fused = reports
    assert fused["link"] == threads["link"]
    assert fused["wires"] == threads["wires"]
    assert {name: row["items"] for name, row in fused["blocks"].items()} == {
        name: row["items"] for name, row in threads["blocks"].items()
    }


def test_a_sub_graph_fuses_with_all_its_blocks_and_runs_again_from_what_was_resolved():
    from flowgraph.dump import dump

    spec = loads(job("[link]"))
    chains = {block.name: block.chain for block in spec.blocks}
    assert chains == {"source": "", "errors": "", **dict.fromkeys(LINK, "link.map")}
    assert loads(dump(spec)) == spec


@pytest.mark.parametrize(
    ("fuse", "message"),
    [
        ("[link.map, lnk]", "3:18: fuse[1]: must be a block, not 'lnk' (did you mean 'link'?)"),
        ("link", "3:7: fuse: must be a list of blocks, not 'link'"),
        ("[source, link.map]", "3:7: fuse: must be wired to another fused block of its worker, and source is not"),
        (
            "[link.equalize, link.demap, errors]",
            "3:7: fuse: must have one block that is fed from outside the chain, not link.equalize, link.demap, errors",
        ),
    ],
)
def test_what_cannot_be_fused_is_told_with_its_place(fuse, message):
    with pytest.raises(ConfigError) as caught:
        loads(job(fuse))
    assert [str(mistake) for mistake in caught.value.mistakes] == [f"<string>:{message}"]


class Fail(Block):
    """Fail at the third packet."""

    inputs = (Port("bits", "bits"),)
    outputs = (Port("bits", "bits"),)
    seen = 0

    def work(self, bits):
        self.seen += 1
        if self.seen == 3:
            raise BlockError("has had enough")
        return bits


def test_a_fault_bears_the_name_of_the_block_inside_the_chain_and_all_are_stopped(tmp_path):
    stopped = []

    class Through(Fail):
        def work(self, bits):
            return bits

        def stop(self):
            stopped.append(self.name)

    graph = Flowgraph("fails")
    chain = [BitSource({"bits": 81_920, "packet": 8192}), Through(), Fail(), Through()]
    graph.connect(*chain)
    graph.fuse(*chain)
    with pytest.raises(RunFailed, match=r"^block fail: has had enough$"):
        graph.run(tmp_path)
    assert stopped == ["through", "through_2"]


def test_a_whole_graph_can_be_one_call(tmp_path):
    source, errors = BitSource({"bits": 400_000}), ErrorMeter()
    chain = [source, QamMapper(), AwgnChannel({"ebn0": 6}), QamDemapper(), errors]
    graph = Flowgraph("loop", seed=1)
    graph.connect(*chain[:-1], (errors, "received"))
    graph.connect(source, (errors, "sent"))
    graph.fuse(*chain)
    link = graph.run(tmp_path).sections["link"]
    low, high = link["ber_interval"]
    assert link["bits"] == 400_000
    assert low < link["ber_theory"] < high


def test_of_a_chain_those_are_stopped_that_were_started(tmp_path):
    class Needs(Fail):
        """Needs in stop() what start() got."""

        def start(self):
            if self.name == "needs_2":
                raise BlockError("has no model")
            self.got = []

        def stop(self):
            if self.name != "needs_2":
                self.got.append("stopped")

    graph = Flowgraph("fails")
    chain = [BitSource({"bits": 8192}), Needs(), Needs(), Needs()]
    graph.connect(*chain)
    graph.fuse(*chain)
    with pytest.raises(RunFailed, match=r"^block needs_2: has no model$"):
        graph.run(tmp_path)
    assert chain[1].got == ["stopped"]
    assert not hasattr(chain[3], "got")
