"""Recordings: what was recorded plays the same, whoever wrote it; what is broken gives one sentence."""

import json
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import sigmf

from blocks.sdr.sigmf import RecordingSink, RecordingSource
from flowgraph import Flowgraph
from flowgraph.block import BlockError, Context, Packet, Tag
from flowgraph.testing import assert_same_stream, recut, run_block, whole_frames

RNG = np.random.default_rng(6)


def samples(count):
    return (RNG.normal(size=count) + 1j * RNG.normal(size=count)).astype(np.complex64)


def record(path, packets, context=None, **params):
    run_block(RecordingSink({"path": str(path), **params}, "record", context), {"items": packets})
    return Path(f"{path}.sigmf-meta")


def play(path, context=None, **params):
    return run_block(RecordingSource({"path": str(path), **params}, "play", context))["items"]


def metadata(path):
    return json.loads(path.read_text())


def other_program(path, datatype, numbers, captures=({},), annotations=(), **facts):
    """A recording as the `sigmf` package writes it, of anybody's numbers."""
    numbers.tofile(f"{path}.sigmf-data")
    file = sigmf.SigMFFile(data_file=f"{path}.sigmf-data", global_info={"core:datatype": datatype, **facts})
    for each in captures:
        file.add_capture(each.get("core:sample_start", 0), metadata=dict(each))
    for start, count, facts in annotations:
        file.add_annotation(start, count, metadata=facts)
    file.tofile(str(path), overwrite=True)
    return Path(f"{path}.sigmf-meta")


# There and back

KINDS = ["bits", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "complex64", "complex128"]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_items_and_tags_of_any_type_come_back_to_the_last_bit(tmp_path, kind):
    def frame(number, count, *tags):
        if kind == "bits":
            data = np.packbits(RNG.integers(0, 2, count, np.uint8))
            return Packet(data, number, count=count, packed=True, tags=tags, last=True)
        data = RNG.integers(0, 100, count).astype(kind) * np.dtype(kind).type(1.25)
        return Packet(data.astype(kind), number, tags=tags, last=True)

    sent = [
        frame(0, 1003, Tag(0, "estimate", {"n0": 0.1, "list": [1, None, "x"]}), Tag(800, "late", True)),
        frame(1, 0),
        frame(4, 7),
        frame(5, 4096, Tag(8, "late", -3)),
    ]
    path = record(tmp_path / "a", recut(sent, [500, 7, 64]))
    assert_same_stream(play(path, item=kind, packet=100), sent)


def test_items_of_any_shape_come_back(tmp_path):
    picture = Packet(RNG.integers(0, 256, (2, 4, 5, 3), np.uint8), 3, last=True)
    assert_same_stream(play(record(tmp_path / "a", [picture]), item="uint8"), [picture])


def test_what_was_lost_before_it_was_recorded_is_lost_when_it_is_played(tmp_path):
    x = samples(100)
    packets = [Packet(x[:30], 2), Packet(x[50:], 2, 50, last=True)]
    assert_same_stream(play(record(tmp_path / "a", packets)), packets)


def test_metadata_are_valid_and_tell_of_rate_frequency_bursts_graph_and_seed(tmp_path):
    burst = Tag(40, "burst", {"frame": 0, "sequence": 0, "count": 25})
    context = Context(seed=9, graph=lambda: "flowgraph: mine")
    x = samples(100)
    packets = [Packet(x[:60], tags=(burst,)), Packet(x[60:], 0, 60, last=True).tagged(center_frequency=868e6)]
    path = record(tmp_path / "a", packets, context, sample_rate="2 MHz", frequency="2.45 GHz", description="a test")
    file = sigmf.fromfile(path)  # compares the checksum
    file.validate()
    np.testing.assert_array_equal(file.read_samples(), x)
    about = file.get_global_info()
    assert (about["core:sample_rate"], about["core:datatype"], about["core:description"]) == (2e6, "cf32_le", "a test")
    assert (about["semflow:flowgraph"], about["semflow:seed"], about["semflow:complete"]) == (
        "flowgraph: mine",
        9,
        True,
    )
    captures = [(each["core:sample_start"], each["core:frequency"]) for each in file.get_captures()]
    assert captures == [(0, 2.45e9), (60, 868e6)]
    (marked,) = [each for each in file.get_annotations() if each["core:label"] == "burst"]
    assert (marked["core:sample_start"], marked["core:sample_count"]) == (40, 25)
    tags = play(path)[0].tags
    assert Tag(0, "sample_rate", 2e6) in tags
    assert [tag for tag in tags if tag.key == "center_frequency"] == [
        Tag(0, "center_frequency", 2.45e9),
        Tag(60, "center_frequency", 868e6),
    ]
    assert burst in tags


def test_parts_are_no_larger_than_asked_and_play_as_one(tmp_path):
    sent = [Packet(samples(1000), 0, tags=(Tag(700, "x", 1),), last=True), Packet(samples(600), 1, last=True)]
    record(tmp_path / "a", recut(sent, [100]), part="2000 B", sample_rate=1e6)
    files = sorted(tmp_path.glob("*.sigmf-data"))
    assert len(files) == 7
    assert max(each.stat().st_size for each in files) <= 2000
    made = play(tmp_path / "a-*.sigmf-meta")
    for packet in made:
        packet.tags = tuple(tag for tag in packet.tags if tag.key != "sample_rate")
    assert_same_stream(made, sent)
    for each in tmp_path.glob("a-00003.*"):
        each.unlink()
    with pytest.raises(BlockError, match="part 3 must be there, between a-00002"):
        play(tmp_path / "a-*.sigmf-meta")


@pytest.mark.parametrize(("datatype", "bits"), [("ci16", 16), ("ci8", 8), ("cu8", 8)])
def test_integers_are_within_half_a_step_and_count_what_they_clip(tmp_path, datatype, bits):
    x = np.append(samples(1000), np.complex64(9 + 0.5j))
    told = []
    path = record(tmp_path / "a", [Packet(x, last=True)], Context(warn=told.append), datatype=datatype, full_scale=8)
    back = np.concatenate([packet.data for packet in play(path)])
    step = 8 / 2 ** (bits - 1)
    assert np.abs((back - x)[:-1].view(np.float32)).max() <= step / 2 * 1.001
    assert abs(back[-1] - (8 - step + 0.5j)) < 1e-6
    assert told == ["1 numbers were beyond full_scale, 8, and clipped"]


# Others' recordings


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("kind", ["f32", "f64", "i32", "i16", "u32", "u16", "i8", "u8"])
@pytest.mark.parametrize("form", ["c", "r"])
def test_any_datatype_is_read_and_scaled_as_the_reference_does(tmp_path, form, kind, order):
    dtype = np.dtype(kind[0] + str(int(kind[1:]) // 8)).newbyteorder("<" if order == "le" else ">")
    count = 64 * (2 if form == "c" else 1)
    if kind[0] == "f":
        numbers = RNG.normal(size=count).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        numbers = RNG.integers(limits.min, limits.max, count, dtype.newbyteorder("="), endpoint=True).astype(dtype)
    name = form + kind if dtype.itemsize == 1 else f"{form}{kind}_{order}"
    path = other_program(tmp_path / "a", name, numbers)
    (packet,) = play(path, item="complex64" if form == "c" else "float32")
    np.testing.assert_allclose(
        packet.data, sigmf.fromfile(path).read_samples().view(packet.data.dtype), rtol=1e-6, atol=1e-7
    )


def test_known_bytes_of_big_endian_integers(tmp_path):
    (tmp_path / "a.sigmf-data").write_bytes(bytes.fromhex("4000 8000 0001 ffff"))
    meta = {"global": {"core:datatype": "ci16_be", "core:version": "1.0.0"}, "captures": [], "annotations": []}
    (tmp_path / "a.sigmf-meta").write_text(json.dumps(meta))
    (packet,) = play(tmp_path / "a.sigmf-meta", full_scale=2)
    np.testing.assert_array_equal(packet.data, np.array([1 - 2j, (1 - 1j) / 2**14], np.complex64))


def test_captures_with_headers_annotations_and_archives(tmp_path):
    x = samples(100)
    annotations = [(10, 20, {"core:label": "beacon", "core:comment": "mine"}), (50, None, {"other:x": 1})]
    captures = [{"core:frequency": 1e6}, {"core:sample_start": 60, "core:frequency": 2e6}]
    facts = {"core:sample_rate": 48e3}
    with warnings.catch_warnings(action="ignore"):
        path = other_program(tmp_path / "a", "cf32_le", x, captures, annotations, **facts)
        sigmf.fromfile(path).tofile(tmp_path / "b.sigmf")
    for each in (path, tmp_path / "b.sigmf"):
        (packet,) = play(each)
        np.testing.assert_array_equal(packet.data, x)
        assert set(map(str, packet.tags)) == set(
            map(
                str,
                [
                    Tag(0, "sample_rate", 48e3),
                    Tag(0, "center_frequency", 1e6),
                    Tag(60, "center_frequency", 2e6),
                    Tag(10, "beacon", {"comment": "mine", "sample_count": 20}),
                    Tag(50, "annotation", {"other:x": 1}),
                ],
            )
        )
    meta = metadata(path)
    del meta["global"]["core:sha512"]
    meta["captures"][1]["core:header_bytes"] = 5
    (tmp_path / "a.sigmf-data").write_bytes(x[:60].tobytes() + b"?????" + x[60:].tobytes())
    (tmp_path / "a.sigmf-meta").write_text(json.dumps(meta))
    np.testing.assert_array_equal(play(path)[0].data, x)


# Playing


def test_loops_and_items(tmp_path):
    x = samples(100)
    path = record(tmp_path / "a", [Packet(x[:60], last=True), Packet(x[60:], 1, last=True)])
    frames = whole_frames(play(path, loops=3, packet=7))
    assert [(f.frame, f.count, f.last) for f in frames] == [(n, (60, 40)[n % 2], True) for n in range(6)]
    frames = whole_frames(play(path, loops=0, items=275))
    assert [f.count for f in frames] == [60, 40, 60, 40, 60, 15]
    assert frames[-1].last
    np.testing.assert_array_equal(np.concatenate([f.data for f in frames]), np.resize(x, 275))


def test_real_time_is_no_faster_than_the_sample_rate_and_needs_one(tmp_path):
    path = record(tmp_path / "a", [Packet(samples(1000), last=True)])
    with pytest.raises(BlockError, match="must have a sample_rate with real_time"):
        play(path, real_time=True)
    began = time.monotonic()
    play(path, real_time=True, sample_rate="5 kHz", packet=100)
    assert time.monotonic() - began >= 0.2


# What goes wrong


def cut(path, folder):
    data = folder / "a.sigmf-data"
    data.write_bytes(data.read_bytes()[:-3])


def damage(path, folder):
    data = bytearray((folder / "a.sigmf-data").read_bytes())
    data[5] ^= 1
    (folder / "a.sigmf-data").write_bytes(data)


def rewrite(**facts):
    def change(path, folder):
        meta = metadata(path)
        meta["global"] |= {key.replace("_", ":", 1): value for key, value in facts.items()}
        path.write_text(json.dumps(meta))

    return change


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (cut, "a.sigmf-meta: its data are not those of its SHA-512"),
        (damage, "a.sigmf-meta: its data are not those of its SHA-512"),
        (rewrite(core_datatype="cq16"), "a.sigmf-meta: .*global/core:datatype.*cq16"),
        (rewrite(core_dataset="../b"), "a.sigmf-meta: .*b"),
        (rewrite(core_dataset="/etc/passwd"), "a.sigmf-meta: must have its data in its own folder"),
        (rewrite(core_datatype="rf32_le"), "item must be float32 for a.sigmf-meta, of rf32_le, not complex64"),
        (lambda path, folder: (folder / "a.sigmf-data").unlink(), "a.sigmf-meta: must have its data beside it"),
        (lambda path, folder: path.write_text("{"), "a.sigmf-meta: no SigMF that can be read"),
        (lambda path, folder: path.write_text("[]"), "a.sigmf-meta: no SigMF that can be read"),
        (lambda path, folder: path.write_bytes(b"\xff\0"), "a.sigmf-meta: no SigMF that can be read"),
    ],
)
def test_a_broken_recording_gives_one_sentence(tmp_path, wrong, sentence):
    path = record(tmp_path / "a", [Packet(samples(100), last=True)])
    wrong(path, tmp_path)
    with pytest.raises(BlockError, match=sentence) as error:
        play(path)
    assert "\n" not in str(error.value)


def test_without_checksum_what_was_cut_is_seen_by_its_length(tmp_path):
    path = record(tmp_path / "a", [Packet(samples(100), last=True)])
    cut(path, tmp_path)
    with pytest.raises(BlockError, match=r"its data end within a sample .* it was cut"):
        play(path, checksum=False)


def test_a_recording_whose_run_is_cut_is_valid_says_so_and_plays(tmp_path):
    x = samples(100)
    sink = RecordingSink({"path": str(tmp_path / "a")}, "record")
    sink.start()
    sink.work(items=Packet(x[:50]).tagged(k=1))
    sink.work(items=Packet(x[50:], 0, 50))
    told = []
    for _ in range(2):  # while it is written, or after a kill; and stopped
        sigmf.fromfile(tmp_path / "a.sigmf-meta").validate()
        assert metadata(tmp_path / "a.sigmf-meta")["global"]["semflow:complete"] is False
        (packet,) = play(tmp_path / "a.sigmf-meta", Context(warn=told.append))
        np.testing.assert_array_equal(packet.data, x)
        sink.stop()
    assert told == ["a.sigmf-meta was cut while it was recorded: its 100 items are played"] * 2


def test_without_the_package_there_is_one_sentence(tmp_path, monkeypatch):
    path = record(tmp_path / "a", [Packet(samples(10), last=True)])
    monkeypatch.setitem(sys.modules, "sigmf", None)
    for block in (lambda: record(tmp_path / "b", []), lambda: play(path)):
        with pytest.raises(BlockError, match=r"recordings need SigMF: pip install 'semflow\[recordings\]'"):
            block()


def test_a_recording_is_not_overwritten_unasked(tmp_path):
    record(tmp_path / "a", [Packet(samples(10), last=True)])
    with pytest.raises(BlockError, match="say overwrite: true"):
        record(tmp_path / "a", [Packet(samples(10), last=True)])
    x = samples(20)
    path = record(tmp_path / "a", [Packet(x, last=True)], overwrite=True)
    np.testing.assert_array_equal(play(path)[0].data, x)


@pytest.mark.parametrize("tagged", [False, True])  # the data, or the metadata, find no room
def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path, tagged):
    told = []
    packets = [Packet(samples(100), 0, 100 * n) for n in range(50)]
    if tagged:
        packets = [Packet(p.data[:1], 0, n).tagged(words="x" * 800) for n, p in enumerate(packets)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        path = record(tmp_path / "a", packets, Context(warn=told.append))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(told) == 1
    assert "the run goes on: File too large" in told[0]
    sigmf.fromfile(path).validate()
    assert metadata(path)["global"]["semflow:complete"] is False
    made = np.concatenate([packet.data for packet in play(path)])
    np.testing.assert_array_equal(made, np.concatenate([p.data for p in packets])[: len(made)])
    assert len(made) > (15 if tagged else 2000)


# A link

LIVE = """\
flowgraph: live
seed: 3
blocks:
  bits: {use: bit_source, bits: 60001 bit, frame: 20000 bit}
  modulate: {use: burst_modulator}
  air: {use: awgn_channel, esn0: 9 dB}
  demodulate: {use: burst_demodulator}
  samples: {use: recording_sink, path: air, sample_rate: 2 MHz}
  received: {use: recording_sink, path: live}
wires:
  - bits.bits -> modulate.bits
  - modulate.samples -> air.symbols -> demodulate.samples
  - air.symbols -> samples.items
  - demodulate.bits -> received.items
"""
REPLAY = """\
flowgraph: replay
blocks:
  radio: {use: recording_source, path: air.sigmf-meta}
  demodulate: {use: burst_demodulator}
  received: {use: recording_sink, path: replayed}
wires:
  - radio.items -> demodulate.samples
  - demodulate.bits -> received.items
"""


def test_a_recorded_link_gives_the_same_bits_with_the_same_errors(tmp_path):
    (tmp_path / "live.yaml").write_text(LIVE)
    (tmp_path / "replay.yaml").write_text(REPLAY)
    Flowgraph.load(tmp_path / "live.yaml").run(tmp_path / "out")
    Flowgraph.load(tmp_path / "replay.yaml").run(tmp_path / "out2")
    live, replayed = (play(tmp_path / f"{name}.sigmf-meta", item="bits") for name in ("live", "replayed"))
    assert_same_stream(replayed, live)
    meta = metadata(tmp_path / "air.sigmf-meta")
    assert sum(each["core:label"] == "burst" for each in meta["annotations"]) == 7
    (tmp_path / "again.yaml").write_text(meta["global"]["semflow:flowgraph"].replace(str(tmp_path / "air"), "second"))
    assert "burst_modulator" in meta["global"]["semflow:flowgraph"]
