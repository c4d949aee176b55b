"""The paper's figures: sweeps into tables and curves, by the commands that their files name."""

import hashlib
import re
import sys
import tomllib

import numpy as np
import pytest
import yaml
from conftest import ROOT

from configs.paper import figures
from configs.paper.figures import METHODS
from flowgraph import Sweep
from flowgraph.config.load import load

PAPER = ROOT / "configs" / "paper"
BOTH, ALONE = METHODS


def row(flowgraph=BOTH, name="a", psnr=15.0, ssim=0.25, **values):
    given = {f"vars.{key}": value for key, value in values.items()}
    found = {"flowgraph": flowgraph, "name": name, "psnr": psnr, "ssim": ssim, "vars.diffusion": "embedded"}
    return found | dict.fromkeys(("lpips", "clip_score", "quality.fid")) | given


def cells(table):
    """The cells of a Markdown table, without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def by_method(names="abcd"):
    rows = [row(BOTH, name, 15 + i, 0.3, ebn0=7.5) for i, name in enumerate(names)]
    return rows + [row(ALONE, name, 10 + 1.5 * i, 0.1, ebn0=7.5) for i, name in reversed(list(enumerate(names)))]


def test_gains_are_paired_by_image_whatever_the_order_of_rows():
    """5, 4.5, 4, 3.5 dB: mean 4.25, deviation .6455, 1.96 x .6455 / 2 = .63; unpaired it would be 2.3."""
    rows = by_method()
    assert figures.gain(rows[:4], rows[4:], "psnr") == "+4.25 ± 0.63"
    table = cells(figures.by_method(rows))
    gains = ["+4.25 ± 0.63", "0.300 ± 0.000", "0.100 ± 0.000", "+0.200 ± 0.000"]
    assert table == [["7.5 dB", "16.50 ± 1.27", "12.25 ± 1.90", *gains]]
    rows[0]["psnr"] = None  # 4.5, 4, 3.5 dB are left
    assert figures.gain(rows[:4], rows[4:], "psnr") == "+4.00 ± 0.57"
    assert figures.gain(rows[:1], rows[4:], "psnr") == "not measured"


def test_steps_are_told_against_none_and_against_the_best():
    values = {30: (14, 16), 4: (20, 21), 0: (19, 19)}
    rows = [row(name=n, psnr=p, T=t, guidance=9) for t, pair in values.items() for n, p in zip("ab", pair, strict=True)]
    table = cells(figures.by_steps(rows))
    assert [line[1] for line in table] == ["30", "4", "0"]
    assert [line[3] for line in table] == ["-4.00 ± 1.96", "+1.50 ± 0.98", ""]
    assert [line[4] for line in table] == ["-5.50 ± 0.98", "", "-1.50 ± 0.98"]


def test_a_noisy_caption_does_not_break_its_table():
    assert figures.markdown(["caption"], [["a dog | cat"]]).splitlines()[2] == r"| a dog \| cat |"


def test_means_have_the_intervals_of_their_images():
    """Of a unit normal's 10,000 draws the half-width is 1.96 / 100."""
    mean, spread = figures.mean_and_interval(list(np.random.default_rng(1).normal(3, 1, 10_000)))
    assert (mean, spread) == (pytest.approx(3, abs=4 / 100), pytest.approx(0.0196, rel=0.03))
    assert np.isnan(figures.mean_and_interval([1.0])[1])


def test_figure_3_has_the_published_points_beside_ours():
    drawn, _ = figures.fig3(by_method())
    ssim, psnr, lpips, _, fid = drawn.axes
    lines = {line.get_label(): line for line in ssim.get_lines()}
    assert list(lines["text + latent, published"].get_ydata()) == [0.14, 0.20, 0.27, 0.32, 0.3321]
    assert list(lines["text only, published"].get_xdata()) == [5, 6.25, 7.5, 8.75, 10]
    [bars, *_] = psnr.containers
    assert (bars.get_label(), bars[0].get_xydata().tolist()) == ("text + latent", [[7.5, 16.5]])
    assert not lpips.containers  # no weights: the published points alone
    assert max(line.get_ydata()[0] for line in fid.get_lines()) == 250
    assert drawn.get_suptitle().endswith("\nnot measured, for want of weights: LPIPS, CLIP score, FID")


def test_what_is_neither_measured_nor_published_has_no_panel():
    drawn, _ = figures.fig5([row(T=t, guidance=9, name=name) for t in (0, 10) for name in "ab"])
    assert [axes.get_ylabel() for axes in drawn.axes] == ["SSIM", "PSNR, dB"]


def test_table_1_with_its_616_bytes_corrected():
    """77 characters are 77 bytes: 131,149 bytes, 2.085 % of a float64 image and 16.68 % of an 8-bit one."""
    sent = {"payload.caption_bytes": 77, "payload.overhead_bytes": 0}
    rows = [
        row(flowgraph, size="512x512") | sent | {"payload.latent_bytes": latent}
        for flowgraph, latent in ((BOTH, 131_072), (ALONE, None))
    ]
    assert cells(figures.payloads(rows)) == [
        ["text + latent", "77", "131072", "262298", "0.3335", "2.085%", "16.68%"],
        ["text only", "77", "0", "154", "0.0002", "0.001%", "0.01%"],
    ]


def test_channels_are_told_by_what_they_do_to_bits_captions_and_latents():
    rows = []
    for flowgraph in figures.CHANNELS:
        for latent, mse in (("float64", 0.8), ("quant8", 0.5)):
            each = {"link.ber": 0.04, "latent_mse": mse, "caption_sent": "dog", "caption_received": "dog"}
            rows += [row(flowgraph, "a", latent=latent, ebn0=5.0) | each]
            rows += [row(flowgraph, "b", latent=latent, ebn0=5.0) | each | {"caption_received": "dof"}]
    _, table = figures.channels(rows)
    assert cells(table)[0] == [
        "5 dB",
        "flips, the paper's formula",
        "0.04000",
        "50.0%",
        "0.8000 ± 0.0000",
        "0.5000 ± 0.0000",
    ]
    assert len(cells(table)) == 3


@pytest.mark.parametrize("variant", ["exact_flips", "modulated"])
def test_channels_differ_in_nothing_but_the_link(variant):
    def without_link(name):
        spec = load(PAPER / f"{name}.yaml")
        return {b.name: (b.type, b.params, b.worker) for b in spec.blocks if not b.name.startswith("link")}

    assert without_link(variant) == without_link("text_and_latent")


@pytest.mark.parametrize("sweep", ["fig3", "fig4", "fig5", "fig5_pictures", "table1", "channels"])
def test_every_sweep_loads_with_the_papers_own_models(sweep):
    models = {"diffusion": "stable-diffusion-v1-5/stable-diffusion-v1-5", "size": "512x512"}
    for cell in Sweep.load(PAPER / f"{sweep}.yaml", captioner="Salesforce/blip-image-captioning-large", **models).cells:
        params = {block.name: block.params for block in cell.graph.blocks}
        assert params["render"]["model"] == params["caption"]["tokenizer"] == models["diffusion"]
        assert params["caption"]["size"] == "512x512"


def test_pictures_stand_side_by_side_over_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    overlay = tmp_path / "two.yaml"
    overlay.write_text("vars: {T: [2, 0], size: 64x64, limit: 2}")
    drawn, table = figures.strip(Sweep.load(PAPER / "fig5_pictures.yaml", overlays=[overlay]), tmp_path)
    shown = [axes.images[0].get_array() for axes in drawn.axes]
    assert [axes.get_ylabel() for axes in drawn.axes[:3]] == ["sent", "T = 2", "T = 0"]
    assert {picture.shape for picture in shown} == {(64, 64, 3)}
    assert [line[:2] for line in cells(table)] == [
        [name, steps] for steps in ("T = 2", "T = 0") for name in ("astronaut.png", "camera.png")
    ]
    error = np.mean((np.float64(shown[2]) - shown[0]) ** 2)
    assert float(cells(table)[2][2]) == pytest.approx(10 * np.log10(255**2 / error), abs=0.06)


@pytest.mark.parametrize("which", ["fig4", "table1"])
def test_a_variable_that_is_not_there_is_a_sentence(which, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["figures", which, "--set", "nosie=3", "--out", str(tmp_path / "out")])
    assert figures.main() == 2
    assert "must be a variable of " in capsys.readouterr().err


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert citation["references"][0]["doi"] == "10.1109/MLSP58920.2024.10734812"


@pytest.fixture(scope="module")
def page():
    """The page on the paper, by heading."""
    parts = (ROOT / "docs" / "paper.md").read_text().split("\n## ")
    return {part.partition("\n")[0]: part for part in parts}


def test_the_page_on_the_paper_is_made_again_with_four_photographs(page, tmp_path):
    """Within what another machine's rounding does to a picture: 0.1 dB and 0.005 of SSIM."""
    small = {"limit": 4, "size": "128x128"}
    steps = tmp_path / "steps.yaml"
    steps.write_text("vars: {guidance: [9], T: [10, 4, 0]}")
    methods = Sweep.load(PAPER / "fig3.yaml", ebn0="7.5 dB", **small).run(tmp_path / "fig3", workers=2)
    by_t = Sweep.load(PAPER / "fig5.yaml", overlays=[steps], **small).run(tmp_path / "fig5", workers=1)
    made = [figures.by_method(methods.to_pylist()), figures.by_steps(by_t.to_pylist())]
    _, *tables = page["Four photographs"].split("\n\n")[1:]
    for again, written in zip(made, tables, strict=True):
        assert again.splitlines()[0] == written.splitlines()[0]
        for one, other in zip(cells(again), cells(written), strict=True):
            for head, a, b in zip(again.splitlines()[0].strip("|").split("|"), one, other, strict=True):
                tolerance = 0.005 if "SSIM" in head else 0.1
                assert numbers(a) == pytest.approx(numbers(b), abs=tolerance), (head, a, b)


def numbers(cell):
    """The numbers in a cell: value and interval."""
    return [float(part) for part in cell.removesuffix("dB").split("±") if part.strip()]


def test_the_page_names_the_weights_that_it_was_measured_with(page):
    [line] = [line for line in page["# The paper, figure by figure"].splitlines() if line.startswith("- Weights")]
    told = dict(re.findall(r"(\w+) `(\w+)`", line))
    for part, digest in told.items():
        [file] = (ROOT / "models" / "embedded" / part).glob("*.safetensors")
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(digest)
    assert set(told) == {"vae", "unet", "text_encoder", "captioner"}
