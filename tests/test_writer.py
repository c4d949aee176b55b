"""`image_writer`: the files of a run's folder, and the page."""

import io

import numpy as np
import pytest
from PIL import Image

from blocks.sink import images
from blocks.sink.images import MARGIN, ROWS, TEXT, TILE, TITLE, ImageWriter
from flowgraph.block import Context, Packet
from flowgraph.testing import run_block

HEAD = MARGIN + TITLE + MARGIN // 2
RED, GREEN, GREY = (200, 30, 30), (30, 200, 30), (128, 128, 128)


def picture(frame, colour=RED, size=(16, 24), **tags):
    return Packet(np.full((1, *size, 3), colour, np.uint8), frame, last=True).tagged(**tags)


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def run(image, sent=None):
    """The files kept, opened, and the rows reported."""
    files, rows = {}, {}
    context = Context(
        keep=lambda path, data: files.update({path: opened(data)}),
        report=lambda section, frame, values: rows.update({frame: values}),
    )
    run_block(ImageWriter({}, "save", context), {"image": image} | ({"sent": sent} if sent is not None else {}))
    return files, rows


def column(page, left, row):
    """The tile of the page at a column's left edge."""
    top = HEAD + row * (TILE + MARGIN)
    return page[top : top + TILE, left : left + TILE]


def has(tile, colour, tolerance=0):
    return (np.abs(tile.astype(int) - colour).max(-1) <= tolerance).any()


def test_images_are_kept_to_the_last_bit():
    noise = np.random.default_rng(1).integers(0, 256, (2, 1, 16, 24, 3), np.uint8)
    files, rows = run([Packet(noise[0], 3, last=True)], [Packet(noise[1], 3, last=True)])
    assert set(files) == {"images/0003_received.png", "images/0003_sent.png", "page.png"}
    np.testing.assert_array_equal(files["images/0003_received.png"], noise[0][0])
    np.testing.assert_array_equal(files["images/0003_sent.png"], noise[1][0])
    assert not rows


def test_frames_beyond_9999_keep_their_numbers():
    files, _ = run([picture(12345)])
    assert "images/12345_received.png" in files


def test_page_shows_sent_and_received_and_words():
    sent = [picture(i, RED, name=f"photo{i}.png", caption="a red square") for i in range(2)]
    received = [picture(i, GREEN, caption="a red sq", mode="text+latent", steps=3, psnr=21.5) for i in range(2)]
    page = run(received, sent)[0]["page.png"]
    assert page.shape == (HEAD + 2 * (TILE + MARGIN), 4 * MARGIN + 2 * TILE + TEXT, 3)
    for row in range(2):
        assert (column(page, MARGIN, row)[2:-90, 2:-2] == RED).all()
        assert (column(page, 2 * MARGIN + TILE, row)[2:-90, 2:-2] == GREEN).all()
        words = page[HEAD + row * (TILE + MARGIN) :][:TILE, 3 * MARGIN + 2 * TILE :]
        lines = ((words < 128).all(-1)).any(1)
        assert np.flatnonzero(np.diff(lines.astype(int)) == 1).size >= 3  # name, caption sent, caption received
    assert (page[:, -MARGIN // 2 :] == 255).all()


def test_page_without_the_originals_has_one_column_of_pictures():
    page = run([picture(0, GREEN)])[0]["page.png"]
    assert page.shape == (HEAD + TILE + MARGIN, 3 * MARGIN + TILE + TEXT, 3)
    assert (column(page, MARGIN, 0)[2:100, 2:-2] == GREEN).all()


@pytest.mark.parametrize("arrived", [True, False])
def test_a_lost_frame_shows_as_such(arrived):
    grey = picture(1, GREY, status="lost", mode="none", steps=0, reason="header damaged")
    sent = [picture(i, name="a.png", caption="words") for i in range(3)]
    received = [picture(0, GREEN), *([grey] if arrived else []), picture(2, GREEN)]
    files, rows = run(received, sent)
    tile = column(files["page.png"], 2 * MARGIN + TILE, 1)
    assert has(tile, (190, 30, 30), 10)  # "lost", in red
    assert not has(column(files["page.png"], 2 * MARGIN + TILE, 0), (190, 30, 30), 10)
    assert ("images/0001_received.png" in files) == arrived
    assert "images/0001_sent.png" in files
    want = {} if arrived else {1: {"status": "lost", "reason": "its image never arrived"}}
    assert rows == want


def test_page_shows_the_first_twelve():
    files, _ = run([picture(i) for i in range(15)])
    assert files["page.png"].shape[0] == HEAD + ROWS * (TILE + MARGIN)
    says_so = files["page.png"][:HEAD, 2 * MARGIN + TILE :] < 255
    assert says_so.any()
    assert not (run([picture(i) for i in range(ROWS)])[0]["page.png"][:HEAD, 2 * MARGIN + TILE :] < 255).any()
    assert "images/0014_received.png" in files


def test_pictures_of_any_shape_fit_their_tile():
    page = run([picture(0, RED, (64, 640)), picture(1, RED, (640, 64)), picture(2, RED, (8, 8))])[0]["page.png"]
    assert [(column(page, MARGIN, row) == RED).all(-1).sum() for row in range(3)] == [
        26 * 256,
        256 * 26,
        256 * 256,
    ]
    assert (page[HEAD:, MARGIN + TILE : 2 * MARGIN + TILE] == 255).all()


def test_long_and_unprintable_captions_stay_in_their_place():
    words = "x" * 2000 + "\x00\x07\xad " + "W M " * 500
    page = run([picture(0, caption=words, status="degraded", reason=words)], [picture(0, caption=words, name=words)])[0]
    assert page["page.png"].shape == (HEAD + TILE + MARGIN, 4 * MARGIN + 2 * TILE + TEXT, 3)
    assert (page["page.png"][-MARGIN:] == 255).all()


def test_a_run_that_is_cut_off_leaves_the_page_of_what_was_there(monkeypatch):
    monkeypatch.setattr(images, "PAGE_EVERY_S", 0.0)
    files = {}
    block = ImageWriter({}, "save", Context(keep=lambda path, data: files.update({path: data})))
    block.start()
    block.work(image=picture(0))
    block.work(image=picture(1))  # neither flush nor stop came
    assert set(files) == {"images/0000_received.png", "images/0001_received.png", "page.png"}
    assert opened(files["page.png"]).shape[0] == HEAD + 2 * (TILE + MARGIN)


def test_no_images_no_page():
    assert run([]) == ({}, {})
