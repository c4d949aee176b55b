"""What supervisor, workers and viewers say to each other, and which files that parameters name are read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowgraph import control, live
from flowgraph.wire import WireError

DEEP = b"\x84\xa4type\xa7Figures\xa7section\xa1x\xa5frame\xc0\xa6values\x81\xa1k" + b"\x91" * 100_000 + b"\xc0"
NO_TEXT = b"\x82\xa4type\xa7Refused\xa6reason\xa2\xff\xfe"
SAID = [
    (control.from_worker, control.Failed("relay", "the sky fell", "trace")),
    (control.from_worker, control.Figures("frames", 3, {"ber": [0.1, None]})),
    (control.from_supervisor, control.Refused("why")),
    (live._request, live.Set("ebn0", [1, [2, "3 dB"]])),
    (live._answer, live.InForce("ebn0", 2.0, 0, 7)),
]


@pytest.mark.parametrize("read", [control.from_worker, control.from_supervisor, live._request, live._answer])
@pytest.mark.parametrize("data", [b"", DEEP, NO_TEXT, b"\x81\xa4type\xa4Nope"], ids=["none", "deep", "no text", "else"])
def test_a_message_that_is_none_is_refused_by_every_reader(read, data):
    with pytest.raises(WireError):
        read(data)


@given(st.sampled_from(SAID), st.data())
def test_a_message_with_any_byte_changed_is_refused_or_read(said, data):
    read, message = said
    assert read(control.encode(message)) == message
    changed = bytearray(control.encode(message))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        read(bytes(changed))


@pytest.mark.parametrize("depth", [3, 100, 900])
def test_a_value_to_be_set_is_at_most_a_table(depth):
    value = b"\x91" * depth + b"\x01"
    with pytest.raises(WireError):
        live._request(b"\x83\xa4type\xa3Set\xa4name\xa4ebn0\xa5value" + value)


def test_of_a_folder_only_files_of_the_wanted_kind_are_looked_at(tmp_path):
    for name in ("b.PNG", "a.png", "notes.txt", "video.mp4"):
        (tmp_path / name).write_bytes(b"x")
    names = [path.name for path in control.matching_files(str(tmp_path), {".png"})]
    assert names == ["a.png", "b.PNG"]
    assert len(control.matching_files(str(tmp_path))) == 4
    assert [path.name for path in control.matching_files(f"{tmp_path}/*", {".txt"})] == ["notes.txt"]
    assert control.matching_files(str(tmp_path / "video.mp4"), {".png"}) == [tmp_path / "video.mp4"]


def test_a_file_that_is_too_large_is_not_read_but_told(tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(300 << 30)  # sparse: it takes no room
    content = control.read_file(tmp_path / "huge.png")
    assert (content.name, content.data, content.error) == ("huge.png", b"", "it has more than the 200 MiB allowed")


def test_files_come_in_the_order_of_their_numbers(tmp_path):
    names = ["1.png", "2.png", "10.png", "a.png", "img2_1.png", "img2_10.png", "img11_0.png"]
    for name in reversed(names):
        (tmp_path / name).touch()
    assert [path.name for path in control.matching_files(str(tmp_path))] == names
