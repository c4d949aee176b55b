"""The one look of all figures, on paper and on the live page."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flowgraph.block import Block

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# M. Okabe and K. Ito, "Color Universal Design", 2008: told apart by the colour-blind as well; shapes help in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = "osD^vPX"
# Of densities: rises evenly in lightness, for every kind of sight (S. van der Walt and N. Smith, 2015).
SHADES = "viridis"

_RULES: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": "0.35",
    "grid.color": "0.88",
    "grid.linewidth": 0.7,
    "xtick.color": "0.25",
    "ytick.color": "0.25",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
    "figure.dpi": 160,
    "pdf.fonttype": 42,  # letters stay letters: journals ask for it
}

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


def styled(draw: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Have a function draw in this style."""

    @functools.wraps(draw)
    def drawn(*arguments: _Given.args, **options: _Given.kwargs) -> _Made:
        import matplotlib

        with matplotlib.rc_context(_RULES):
            return draw(*arguments, **options)

    return drawn


def new_figure(width: float, height: float, **layout: Any) -> Figure:
    """Return an empty figure of so many inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**layout))


def axes_or_new(axes: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """Return `axes` and their figure, or those of a new one of so many inches."""
    if axes is None:
        figure = new_figure(width, height)
        return figure, figure.subplots()
    root = axes.get_figure(root=True)
    assert root is not None
    return root, axes


@styled
def files(figure: Figure, stem: str) -> dict[str, bytes]:
    """Return a figure as the files `stem`.pdf, in vectors, and `stem`.png, by name; the same figure, the same bytes."""
    made, layout = {}, figure.get_layout_engine()
    for ending in ("pdf", "png"):
        content = io.BytesIO()
        figure.savefig(content, format=ending, metadata={"CreationDate": None} if ending == "pdf" else None)
        made[f"{stem}.{ending}"] = content.getvalue()
        figure.set_layout_engine("none")  # it is laid out: that takes as long as drawing
    figure.set_layout_engine(layout)
    return made


def keep_figure(block: Block, stem: str, draw: Callable[[], Figure]) -> None:
    """Store a figure, PDF and PNG, in the folder of a block's run; where none is kept, `draw` is not called."""
    if block.context.keep:
        for name, data in files(draw(), stem).items():
            block.keep(name, data)
