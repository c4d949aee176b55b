"""The notebooks under docs/ run from top to bottom."""

import json

import pytest
from conftest import ROOT


def quality_of_pictures(names):
    assert all(5 < each < 40 for each in names["psnr"].values())


def rates_by_theory(names):
    """Those of the runs, and of the one that was turned while it ran."""
    assert [point["ebn0_db"] for point in names["points"]] == [10, 8, 6, 3]
    for point in [names["link"], *names["points"]]:
        assert point["ber"] == pytest.approx(point["ber_theory"], rel=0.1)
    assert names["samples"][-1]["ber"] > 10 * names["samples"][0]["ber"]


CLAIMS = {"deepjscc.ipynb": quality_of_pictures, "watching.ipynb": rates_by_theory}


@pytest.mark.parametrize("notebook", sorted((ROOT / "docs").rglob("*.ipynb")), ids=lambda path: path.name)
def test_notebook_runs(notebook, tmp_path, monkeypatch):
    """Its training is cut short, and nothing is left in its folder."""
    for beside in notebook.parent.glob("*.py"):
        (tmp_path / beside.name).write_text(beside.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict = {}
    for number, cell in enumerate(json.loads(notebook.read_text())["cells"]):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace("STEPS, BATCH, SIDE = 600", "STEPS, BATCH, SIDE = 3")
            exec(compile(source, f"{notebook.name}[{number}]", "exec"), names)
    CLAIMS[notebook.name](names)
