"""The figures and tables of docs/beyond.md: from rows as sweeps make them, by sweeps that load."""

import numpy as np
import pytest
from conftest import ROOT
from test_paper import cells

from configs.beyond import figures
from flowgraph import Sweep

BEYOND = ROOT / "configs" / "beyond"


def row(flowgraph, name="a", psnr=20.0, ssim=0.5, symbols=1000.0, **values):
    given = {f"vars.{key}": value for key, value in values.items()}
    measured = {"psnr": psnr, "ssim": ssim, "squeezenet_distance": None, figures.SYMBOLS: symbols}
    return {"flowgraph": flowgraph, "name": name} | measured | given


def test_the_first_is_held_against_each_other_image_by_image():
    rows = [row("ours", name, psnr) for name, psnr in (("a", 20), ("b", 23))]
    rows += [row("theirs", name, psnr, symbols=None) for name, psnr in (("b", 21), ("a", 19))]
    assert [line[:5] for line in cells(figures.against(figures.name_by(rows)))] == [
        ["ours", "2", "1,000", "21.50 ± 2.94", ""],
        ["theirs", "2", "", "20.00 ± 1.96", "+1.50 ± 0.98"],
    ]


def test_modes_are_drawn_against_noise_and_against_channel_uses():
    rows = [row("analog", psnr=20 + snr, esn0=snr) for snr in (0.0, 10.0)]
    for each, received, again in zip(rows, ("dof", "dog"), (0.5, 0.1), strict=True):
        each |= {"caption_sent": "dog", "caption_received": received, "link.bits_again": again}
    rows += [
        row("WebP", psnr=psnr, symbols=count, max_bytes=size) for psnr, count, size in ((25, 600, 9), (28, 999, 20))
    ]
    drawn, table = figures.comparison(rows)
    by_noise, _, captions, by_uses, *_ = drawn.axes
    assert {bars.get_label(): bars[0].get_xydata().tolist() for bars in by_noise.containers} == {
        "analog": [[0, 20], [10, 30]]
    }
    assert {bars.get_label(): bars[0].get_xydata().tolist() for bars in by_uses.containers} == {
        "WebP": [[600, 25], [999, 28]],
        "analog": [[1100, 30]],
    }
    assert captions.containers[0][0].get_xydata().tolist() == [[0, 0], [10, 1]]
    assert drawn.get_suptitle().endswith("not measured, for want of weights: SqueezeNet feature distance")
    quality, *_, right, _ = table.split("\n\n")
    assert cells(quality) == [["analog", "1,100 to 1,500", "20.00", "30.00"]]
    assert right.startswith("| captions right, at Es/N0 |")
    assert cells(right) == [["analog", "1,100 to 1,500", "0.000", "1.000"]]


def test_as_many_modes_as_there_are_are_drawn():
    rows = [
        row(f"mode {n}", esn0=snr) | {"caption_sent": "a", "caption_received": "a"}
        for n in range(30)
        for snr in (0.0, 10.0)
    ]
    drawn, _ = figures.comparison(rows)
    assert len(drawn.axes[0].containers) == 30


def test_the_noise_of_elements_is_held_against_their_mean_at_each_noise_and_loss():
    rows = [
        row(name, image, psnr + (name == "ours") + 10 * lost, esn0=snr, lost=lost)
        for name in ("ours", "theirs")
        for image, psnr in (("a", 20), ("b", 22))
        for snr, lost in ((8.0, 0.0), (11.0, 0.0), (8.0, 0.1))
    ]
    _, table = figures.elements(rows)
    parts = table.split("Es/N0 ")[1:]
    assert [part.partition("\n")[0] for part in parts] == ["8 dB, 0% lost", "11 dB, 0% lost", "8 dB, 10% lost"]
    assert cells(parts[2].partition("\n\n")[2])[1][3:5] == ["22.00 ± 1.96", "+1.00 ± 0.00"]


def test_fading_is_told_with_what_was_sent_again():
    known, pilots = figures.LINKS.values()
    rows = [row(known, n, p, latent="quant8", steps="0", esn0=15.0) for n, p in (("a", 21), ("b", 22))]
    rows += [row(pilots, n, p, latent="quant8", steps="0", esn0=15.0) for n, p in (("a", 20), ("b", 21.5))]
    rows += [row(figures.AGAIN, n, 23, above=0.05, esn0=15.0) | {"link.bits_again": 0.4} for n in "ab"]
    _, table = figures.fading(rows)
    assert [line[:6] for line in cells(table)] == [
        ["15 dB", "quant8, T 0", "1,000", "21.50 ± 0.98", "20.75 ± 1.47", "-0.75 ± 0.49"],
        ["15 dB", "above 0.05", "1,400", "23.00 ± 0.00", "not measured", "not measured"],
    ]


def test_the_adaptive_mode_is_held_against_the_best_of_the_fixed_ones():
    rows = [row("adaptive", n, p, esn0=4.25) for n, p in (("a", 21), ("b", 22.5))]
    rows += [row("quant3", n, p, esn0=4.25) for n, p in (("a", 22), ("b", 23))]
    rows += [row("analog", n, 20, esn0=4.25) for n in "ab"]
    for each, received in zip(rows, ("dog", "dof"), strict=False):
        each |= {"caption_sent": "dog", "caption_received": received}
    _, table = figures.cliff(rows)
    assert cells(table) == [["4.25", "21.75 ± 1.47", "22.50 ± 0.98, quant3", "-0.75 ± 0.49", "1 of 2"]]


@pytest.mark.parametrize("name", [path.stem for path in sorted(BEYOND.glob("*.yaml")) if "sweep:" in path.read_text()])
def test_every_sweep_loads(name):
    loaded = Sweep.load(BEYOND / f"{name}.yaml")
    assert len({cell.key for cell in loaded.cells}) == len(loaded.cells)
    drawn = {*figures.DRAWN, "pictures", *(each for names in figures.FURTHER.values() for each in names)}
    assert name in drawn


def test_pictures_have_a_column_a_method(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    overlay = tmp_path / "small.yaml"
    overlay.write_text(f"flowgraph: {BEYOND}/modes/webp.yaml\nvars: {{esn0: [0 dB, 12 dB], size: 64x64, limit: 2}}")
    drawn, table = figures.side_by_side(Sweep.load(BEYOND / "pictures.yaml", overlays=[overlay]), tmp_path)
    assert [axes.get_ylabel() for axes in drawn.axes[:2]] == ["astronaut", "camera"]
    assert [axes.get_xlabel() for axes in drawn.axes[1::2]] == [
        "sent",
        *(f"WebP\n16QAM 1/2\nEs/N0 {s} dB" for s in (0, 12)),
    ]
    lost, received = (np.asarray(drawn.axes[place].images[0].get_array()) for place in (2, 4))
    assert np.ptp(lost) == 0  # mid-grey
    assert np.ptp(received) > 200
    assert [line[:2] for line in cells(table)][::2] == [
        ["astronaut.png", f"WebP, 16QAM 1/2, Es/N0 {s} dB"] for s in (0, 12)
    ]
