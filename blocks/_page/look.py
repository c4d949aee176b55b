"""How the page looks: two themes in the colours of `blocks.view.style`, and plots to begin from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from bokeh.models import CustomJS, InlineStyleSheet, Range1d, Select
from bokeh.plotting import figure
from bokeh.themes import Theme

from blocks._page.history import History
from blocks.view.style import COLOURS

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, _ = COLOURS
FONT = "system-ui, 'DejaVu Sans', sans-serif"

SELECT = """
select { font: 12px var(--font) !important; height: 24px !important; min-height: 0 !important;
  padding: 0 22px 0 8px !important; color: var(--ink) !important; text-overflow: ellipsis;
  border: 1px solid var(--line) !important; border-radius: 5px;
  background: var(--arrow) no-repeat right 7px center / 9px 6px var(--paper) !important; }
select:focus { outline: 2px solid var(--focus) !important; }
label { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
"""


@dataclass(frozen=True)
class Look:
    """Colours of one theme; `lines` are told apart by the colour-blind on its background."""

    dark: bool
    ink: str
    faint: str
    grid: str
    alarm: str
    lines: tuple[str, ...]

    def theme(self) -> Theme:
        """Return what Bokeh is to draw plots with."""
        words = {"text_color": self.faint, "text_font": FONT, "text_font_style": "normal"}

        def prefixed(prefix: str, size: str) -> dict[str, Any]:
            return {f"{prefix}_{key}": value for key, value in words.items()} | {f"{prefix}_text_font_size": size}

        axis = {
            "axis_line_color": self.faint, "axis_line_alpha": 0.6, "minor_tick_line_color": None,
            "major_tick_line_color": self.faint, "major_tick_in": 0, "major_tick_out": 4, "axis_label_standoff": 4,
        }  # fmt: skip
        return Theme(
            json={
                "attrs": {
                    "Plot": {
                        "background_fill_color": None, "border_fill_color": None, "outline_line_color": None,
                        "min_border": 4, "min_border_right": 12,
                    },
                    "Axis": axis | prefixed("axis_label", "11px") | prefixed("major_label", "11px"),
                    "Grid": {"grid_line_color": self.grid},
                }
            }
        )  # fmt: skip


LIGHT = Look(False, "#1b1f24", "#5c6672", "#e4e7eb", VERMILLION, (BLUE, VERMILLION, GREEN, PURPLE, ORANGE))
DARK = Look(True, "#e8eaed", "#a3adb8", "#333a43", ORANGE, (SKY, ORANGE, GREEN, PURPLE, VERMILLION))


class Part(Protocol):
    """What the page is made of, and how it follows the run."""

    def update(self, history: History) -> None:
        """Show what is new."""


class Key(NamedTuple):
    """What a line or a mark of a plot is, said above it. Bokeh would draw its own legends anew with all data."""

    label: str
    colour: str
    style: str = "solid"  # of a line, as CSS has it
    mark: str = ""


class View:
    """One card of the page: its title, what is in it, and how it follows the run."""

    name = title = ""
    width = 1  # in columns
    root: Any  # of what is in it, once that is made
    choices: Sequence[Any] = ()  # where a viewer chooses what is shown
    told = text = ""  # the element above the plot, if there is one, and the HTML that stands in it

    def keys(self, look: Look) -> list[Key]:
        """Return what the lines and marks are that are drawn."""
        return []

    def make(self, look: Look) -> None:
        """Make what is in the card; once, and before `update` is called."""
        raise NotImplementedError

    def update(self, history: History) -> None:
        """Show what is new."""
        raise NotImplementedError


def choice(label: str, value: str, options: Mapping[str, str], chosen: Callable[[str], None]) -> Select:
    """Return a list to choose from, for a card's head; the browser keeps what was chosen there over a reload.

    `options` says what stands there for each value.
    """
    made = Select(
        value=value, options=list(options.items()), title=label, sizing_mode="stretch_width", height=24, margin=0,
        max_width=38 + 8 * max(map(len, options.values())), stylesheets=[InlineStyleSheet(css=SELECT)], tags=[label],
    )  # fmt: skip
    made.js_on_change("value", CustomJS(code="localStorage.setItem(cb_obj.tags[0], cb_obj.value)"))
    made.on_change("value", lambda attr, old, new: chosen(new) if new in options else None)
    return made


def plot(x_label: str, y_label: str, x: tuple[float, float], y: tuple[float, float], **options: Any) -> Any:
    """Return an empty plot that fills its card; its ranges stand still."""
    return figure(
        x_axis_label=x_label,
        y_axis_label=y_label,
        x_range=Range1d(*x),
        y_range=Range1d(*y),
        sizing_mode="stretch_both",
        toolbar_location=None,
        tools="",
        **options,
    )
