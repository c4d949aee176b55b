"""Figures for papers: what they show is where the arrays say it is, in both formats, and view blocks write them."""

import io

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from blocks.phy import noise, qam, theory
from blocks.phy.constellation import constellation
from blocks.sink.errors import ErrorMeter
from blocks.view import figures, measure
from blocks.view.constellation import ConstellationView
from blocks.view.images import ImageView
from blocks.view.spectrum import SpectrumView
from flowgraph.block import Context, Packet
from flowgraph.testing import run_block


def received(modulation="16qam", count=40_000, esn0_db=20.0):
    known = constellation(modulation)
    bits = noise.random_bytes(count * known.bits_per_symbol // 8, 3)
    sent = qam.map_symbols(bits, 8 * len(bits), modulation)
    return noise.awgn(sent, theory.db_to_ratio(-esn0_db), 5, 0, 0)


def drawn_by(block, packets):
    """Return the files that a view keeps."""
    kept = {}
    view = block(name="seen", context=Context(keep=kept.__setitem__))
    run_block(view, packets)
    return kept


@pytest.mark.parametrize("modulation", ["bpsk", "qpsk", "8psk", "16qam", "64qam"])
def test_decision_boundaries_are_as_far_from_both_their_points_and_nearer_to_none(modulation):
    points = constellation(modulation).points
    rng = np.random.default_rng(1)
    for a, b in measure.boundaries(constellation(modulation)):
        middle, along = (a + b) / 2, (b - a) / abs(b - a)
        reach = min(abs(b - a) / 2, 1.0)
        for place in middle + along * rng.uniform(-reach, reach, 5) * 0.99:
            distances = np.sort(np.abs(points - place))
            assert distances[0] == pytest.approx(distances[1], abs=1e-6)


def test_density_has_every_symbol_where_it_is():
    symbols = np.array([0.9 - 0.1j, 0.9 - 0.1j, -0.6 + 0.6j, 5 + 0j])
    counted = measure.density(symbols, 1.0, 4)  # rows are Q, upwards
    assert counted.sum() == 3
    assert counted[1, 3] == 2
    assert counted[3, 0] == 1


def test_a_tone_stands_at_its_frequency_and_white_noise_at_its_power():
    rng = np.random.default_rng(2)
    white = 2 * (rng.standard_normal(100_000) + 1j * rng.standard_normal(100_000)) / 2**0.5
    _, power = measure.spectrogram(white)
    assert power.mean() == pytest.approx(4, rel=0.02)
    assert measure.decibel(power.mean(axis=0)).std() < 0.5
    frequency, power = measure.spectrogram(np.exp(2j * np.pi * 0.125 * np.arange(5000)))
    assert frequency[power.mean(axis=0).argmax()] == 0.125
    assert power.mean(axis=0).sum() / 256 == pytest.approx(1.0, rel=1e-6)
    assert measure.spectrogram(np.ones(10))[1].shape == (1, 256)


def test_constellation_has_equal_axes_reference_points_regions_and_says_what_it_leaves_out():
    symbols = received()
    symbols[:3], symbols[5] = np.nan, 100
    (axes,) = figures.constellation(symbols, "16qam").axes
    assert axes.get_xlim() == axes.get_ylim() == (-2, 2)
    assert axes.get_aspect() == 1
    assert axes.get_title(loc="left") == "40,000 symbols\n1 lie outside\n3 are NaN or infinite"
    assert len(axes.lines[0].get_xdata()) == 16
    (regions,) = (each for each in axes.collections if isinstance(each, LineCollection))
    assert len(regions.get_segments()) == 6
    shown = axes.images[0].get_array()
    assert shown.sum() == 40_000 - 4
    assert shown[:80].sum() == pytest.approx(20_000, rel=0.05)  # as many below the middle as above


def test_figures_are_the_same_bytes_for_the_same_arrays_and_vectors_in_pdf():
    rows = [
        {"ebn0_db": 4.0, "ber": 0.06, "ber_low": 0.05, "ber_high": 0.07, "ber_theory": 0.0586},
        {"ebn0_db": 8.0, "ber": 0.0, "ber_low": 0.0, "ber_high": 0.02, "ber_theory": 0.0092},
    ]
    made = [figures.files(figures.error_rates({"measured": rows}), "ber") for _ in range(2)]
    assert made[0] == made[1]
    assert set(made[0]) == {"ber.pdf", "ber.png"}
    assert made[0]["ber.pdf"].startswith(b"%PDF")
    assert b"/Subtype /Image" not in made[0]["ber.pdf"]


def test_a_point_without_errors_is_an_arrow_below_its_bound_and_theory_a_line():
    rows = [
        {
            "ebn0_db": x,
            "ber": y,
            "ber_low": y and y * 0.9,
            "ber_high": high,
            "ber_theory": theory.bit_error_rate(x + 6.02),
        }
        for x, y, high in ((2.0, 0.1, 0.11), (6.0, 0.027, 0.03), (14.0, 0.0, 1e-4))
    ]
    (axes,) = figures.error_rates({"measured": rows}).axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 1e-4
    (line,) = (each for each in axes.lines if len(each.get_xdata()) > 10)
    x, y = line.get_xdata(), line.get_ydata()
    assert np.interp(6.0, x, y) == pytest.approx(theory.bit_error_rate(12.02), rel=0.01)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["measured", "99 % confidence", "theory", "no error: 99 % upper bound"]


def test_frequencies_have_the_unit_of_their_rate():
    (axes,) = figures.spectrum(received(count=5000), 2e6).axes
    assert axes.get_xlabel() == "frequency, MHz"
    assert axes.get_xlim() == (-1, 1)
    over_time, _bar = figures.spectrogram(received(count=5000)).axes
    assert over_time.get_xlabel() == "frequency, cycles a sample"
    assert over_time.get_ylim() == (0, 5000)


def test_views_write_their_figures_when_the_run_ends():
    symbols = Packet(received(count=4000), last=True).tagged(modulation="16qam")
    assert sorted(drawn_by(ConstellationView, {"symbols": [symbols]})) == ["seen.pdf", "seen.png"]
    kept = drawn_by(SpectrumView, {"samples": [symbols]})
    assert sorted(kept) == ["seen.pdf", "seen.png", "seen_over_time.pdf", "seen_over_time.png"]
    picture = Packet(np.full((1, 16, 16, 3), 200, np.uint8), last=True).tagged(psnr=21.5, caption="a dog", status="ok")
    kept = drawn_by(ImageView, {"image": [picture], "sent": [picture]})
    assert sorted(kept) == ["seen.pdf", "seen.png"]
    for block, port in ((ConstellationView, "symbols"), (SpectrumView, "samples"), (ImageView, "image")):
        assert drawn_by(block, {port: []}) == {}


def test_a_lost_picture_is_shown_as_lost():
    from PIL import Image

    def strip(received):
        whole = np.full((16, 16, 3), 90, np.uint8)
        drawn = figures.pictures(
            [("", {"sent": whole, "received": whole}), ("lost", {"sent": whole, "received": received})]
        )
        return np.asarray(Image.open(io.BytesIO(figures.files(drawn, "s")["s.png"])).convert("RGB"))

    both, one = strip(np.full((16, 16, 3), 90, np.uint8)), strip(None)
    assert both.shape == one.shape
    grey = [(each == 90).all(axis=2).sum() for each in (both, one)]
    assert grey[1] == pytest.approx(0.75 * grey[0], rel=0.02)


@pytest.mark.parametrize(("second", "drawn"), [(12.0, ["error_rates.pdf", "error_rates.png"]), (6.1, [])])
def test_a_meter_whose_channel_was_turned_draws_its_error_rates(second, drawn):
    kept = {}
    meter = ErrorMeter(context=Context(keep=kept.__setitem__))
    sent, got = [], []
    for frame, (esn0, header) in enumerate(((6.0, 0.1), (second, 0.1), (6.0, 0.3))):
        bits = noise.random_bytes(4000, 1, frame)
        symbols = noise.awgn(qam.map_symbols(bits, 32_000), theory.db_to_ratio(-esn0), 7, frame, 0)
        channel = {
            "kind": "awgn", "fading": "none", "esn0_db": esn0, "ebn0_db": esn0 - 6.02 + header, "modulation": "16qam",
            "bits_per_use": 4,
        }  # fmt: skip
        sent.append(Packet(bits, frame, packed=True, last=True))
        got.append(Packet(qam.decide(symbols), frame, packed=True, last=True).tagged(true_channel=channel))
    run_block(meter, {"sent": sent, "received": got})
    assert sorted(kept) == drawn
    rows = meter.count.rates_by_ebn0()  # one for each value turned to, whatever the frames' headers; the newest last
    assert [row["ebn0_db"] for row in rows] == [pytest.approx(second - 5.92, abs=0.006), pytest.approx(0.18, abs=0.006)]
    assert [row["bits"] for row in rows] == [32_000, 64_000]
    for row in meter.count.rates_by_ebn0():
        assert (row["ber_low"], row["ber_high"]) == theory.binomial_interval(row["bit_errors"], row["bits"])
        assert row["ber_low"] < row["ber_theory"] < row["ber_high"]
