"""The way back of a loop: a wire with a delay, which pairs what the receiver made of earlier frames with the next."""

import numpy as np
import pytest

from flowgraph import Block, Flowgraph, Packet, Port
from flowgraph.config.load import ConfigError, load
from flowgraph.drawing import mermaid
from flowgraph.dump import dump

FRAMES = [0, 1, 2, 4, 7, 8, 9]  # as where some images could not be read


class Frames(Block):
    """Sends its frame's number."""

    outputs = (Port("x", "int64"),)

    def produce(self):
        for frame in FRAMES:
            yield Packet(np.array([frame]), frame, last=True)


class Transmitter(Block):
    """Sends on what came, and keeps what it was told of which frame."""

    inputs = (Port("x", "int64", whole=True), Port("told", "int64", whole=True, optional=True))
    outputs = (Port("x", "int64"),)
    heard: dict

    def start(self):
        self.heard = {}

    def work(self, x, told=None):
        self.heard[x.frame] = told and (told.frame, int(told.data[0]))
        return x


class Receiver(Block):
    """Answers every frame with ten times its number."""

    inputs, outputs = (Port("x", "int64"),), (Port("x", "int64"), Port("answer", "int64"))

    def work(self, x):
        return {"x": x, "answer": x.derive(10 * x.data)}


class Collect(Block):
    inputs = (Port("x", "int64"),)

    def start(self):
        self.frames = []

    def work(self, x):
        self.frames.append(x.frame)


@pytest.mark.parametrize("delay", [1, 2, 5, 20])
def test_every_frame_gets_the_answer_to_the_one_so_many_before(delay, tmp_path):
    graph, transmit, receive, collect = Flowgraph("loop"), Transmitter(), Receiver(), Collect()
    graph.connect(Frames(), (transmit, "x"))
    graph.connect(transmit, receive)
    graph.connect((receive, "x"), collect)
    graph.connect((receive, "answer"), (transmit, "told"), delay=delay)
    report = graph.run(tmp_path)
    earlier = [None] * delay + [(frame, 10 * frame) for frame in FRAMES]
    assert transmit.heard == dict(zip(FRAMES, earlier, strict=False))
    assert collect.frames == FRAMES
    assert report.result["status"] == "done"
    assert all(wire.lost == wire.dropped == 0 for wire in report.wires.values())


def test_the_way_back_crosses_processes_and_is_drawn_and_written_down(tmp_path):
    """A bit meter compares every frame with what became of the third one before it, in another process."""
    (tmp_path / "a.yaml").write_text("""
flowgraph: loop
seed: 1
workers: {near: {blocks: [source, meter]}, far: {blocks: [back]}}
blocks:
  source: {use: bit_source, bits: 20000, frame: 1000}
  meter:  {use: error_meter}
  back:   {use: scrambler}
wires:
  - source.bits -> back.bits
  - source.bits -> meter.sent
  - {wire: back.bits -> meter.received, delay: 3}
""")
    spec = load(tmp_path / "a.yaml")
    assert [wire.delay for wire in spec.wires] == [0, 0, 3]
    assert '-.->|"bits to received, 3 frames later"|' in mermaid(spec)
    (tmp_path / "b.yaml").write_text(dump(spec))
    assert load(tmp_path / "b.yaml") == spec
    link = Flowgraph.from_spec(spec).run(tmp_path / "out").sections["link"]
    assert link["bits"] == 17 * 1000  # the first three frames have nothing to be compared with
    assert link["bit_frames_lost"] == 3
    assert 0.4 < link["ber"] < 0.6  # other bits, scrambled


def test_a_loop_without_a_delay_is_refused_and_told_how_to_mend(tmp_path):
    (tmp_path / "a.yaml").write_text("""
flowgraph: loop
blocks:
  source: {use: bit_source}
  errors: {use: error_meter}
  once:   {use: scrambler}
  again:  {use: scrambler}
wires:
  - once.bits -> again.bits -> once.bits
  - source.bits -> errors.sent
  - again.bits -> errors.received
""")
    with pytest.raises(ConfigError, match="must not close a loop without a delay: once -> again -> once"):
        load(tmp_path / "a.yaml")
    text = (tmp_path / "a.yaml").read_text()
    (tmp_path / "b.yaml").write_text(
        text.replace(
            "  - once.bits -> again.bits -> once.bits\n",
            "  - once.bits -> again.bits\n  - {wire: again.bits -> once.bits, delay: 1}\n",
        )
    )
    with pytest.raises(ConfigError, match="must not be the only wire to once, as it has a delay"):
        load(tmp_path / "b.yaml")
