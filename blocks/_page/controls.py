"""Controls of live parameters: what is typed or turned is sent to the run, and its answer shown."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from html import escape
from typing import Any

from bokeh.layouts import column
from bokeh.models import Div, InlineStyleSheet, Select, Slider, TextInput

from blocks._page.history import History
from flowgraph.block import BlockError
from flowgraph.live import InForce, Parameter

Turn = Callable[[str, Any], "Future[InForce]"]
Later = Callable[[Callable[[], None]], None]  # runs something when the page's document may be touched

SPANS = {"dB": (-5.0, 25.0, 0.25)}  # of a slider, where the parameter's own bounds are too far to turn: from, to, step
WIDEST = 100.0  # of a parameter's own bounds, in steps of which a slider is made

CSS = """
:host { font: 12px/1.35 var(--font); color: var(--faint); }
.alarm { color: var(--alarm); font-weight: 600; }
.held { color: var(--ink); }
label, .bk-slider-title { color: var(--ink) !important; font: 13px var(--font); }
.bk-input, input, select { background: var(--paper) !important; color: var(--ink) !important;
  border: 1px solid var(--line) !important; border-radius: 5px; font: 13px var(--font); }
.bk-icon { background-color: var(--faint) !important; }
input:focus, select:focus, .noUi-handle:focus { outline: 2px solid var(--focus) !important; outline-offset: 1px; }
.noUi-target { background: var(--line) !important; border: none !important; box-shadow: none !important; }
.noUi-connect { background: var(--focus) !important; }
.noUi-handle { background: var(--paper) !important; border: 2px solid var(--focus) !important;
  box-shadow: none !important; }
"""


class Control:
    """One live parameter: a field that takes what a config takes, a slider for a number, and what is in force."""

    def __init__(self, parameter: Parameter, turn: Turn, later: Later):
        self.parameter, self.turn, self.later = parameter, turn, later
        sheet = InlineStyleSheet(css=CSS)
        unit = f", {parameter.unit}" if parameter.unit else ""
        label = f"{parameter.full_name}{unit}"
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "stylesheets": [sheet], "margin": (0, 0, 0, 0)}
        self.slider: Slider | None = None
        self.field: TextInput | Select
        if choices := _choices(parameter.schema):
            self.field = Select(title=label, value=_shown(parameter.value), options=choices, **wide)
        else:
            about = parameter.description
            self.field = TextInput(title=label, value=_shown(parameter.value), description=about, **wide)
        self.field.on_change("value", lambda attr, old, new: self._ask(new))
        if (span := _span(parameter)) and not choices:
            low, high, step = span
            self.slider = Slider(
                start=low, end=high, step=step, value=parameter.value, show_value=False, title="",
                html_attributes={"aria-label": f"turn {parameter.full_name}"}, **wide,
            )  # fmt: skip
            self.slider.on_change("value_throttled", lambda attr, old, new: self._ask(new))
        self.answer = Div(text=_held(parameter.value), disable_math=True, **wide)
        self.answer.html_attributes = {"aria-live": "polite"}
        parts = [self.field, *([self.slider] if self.slider else []), self.answer]
        self.root = column(*parts, sizing_mode="stretch_width", css_classes=["control"], spacing=2)
        self.value = parameter.value
        self.taking_over = False  # what changes is what the run said, and is not to be asked for

    def _ask(self, value: Any) -> None:
        if self.taking_over or _shown(value) == _shown(self.value):
            return
        self.answer.text = "asked for …"
        name = self.parameter.full_name
        self.turn(name, value).add_done_callback(lambda answer: self.later(partial(self._told, answer)))

    def _told(self, answer: Future[InForce]) -> None:
        try:
            held = answer.result()
        except BlockError as error:
            self.hold(self.value)
            self.answer.text = f'<span class="alarm">{escape(str(error))}</span><br>{_held(self.value)}'
            return
        self.hold(held.value)
        self.answer.text = f"{_held(held.value)} from item {held.offset:,} of frame {held.frame} on"

    def hold(self, value: Any) -> None:
        """Show the value that is in force."""
        if value != self.value:
            self.answer.text = _held(value)
        self.value, self.taking_over = value, True
        self.field.value = _shown(value)
        if self.slider and isinstance(value, int | float):
            self.slider.update(start=min(self.slider.start, value), end=max(self.slider.end, value), value=value)
        self.taking_over = False


class Controls:
    """The controls of all live parameters, those that are not set last."""

    def __init__(self, history: History, turn: Turn, later: Later):
        assert history.run is not None
        parameters = sorted(history.run.parameters, key=lambda each: history.in_force[each.full_name] is None)
        self.controls = {each.full_name: Control(each, turn, later) for each in parameters}
        none = Div(text="no parameter of this graph is live", stylesheets=[InlineStyleSheet(css=CSS)])
        roots = [control.root for control in self.controls.values()] or [none]
        self.root = column(*roots, sizing_mode="stretch_width", spacing=14)
        self.seen = -1

    def update(self, history: History) -> None:
        """Take over what other viewers, or the command line, have changed."""
        if history.turned == self.seen:
            return
        self.seen = history.turned
        for name, control in self.controls.items():
            if history.in_force[name] != control.value or control.slider is None:
                control.hold(history.in_force[name])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _held(value: Any) -> str:
    return "not set" if value is None else f'in force: <span class="held">{escape(_shown(value))}</span>'


def _choices(schema: dict[str, Any]) -> list[str]:
    """Return the values of a parameter that is one of a few words."""
    if schema.get("type") == "boolean":
        return ["True", "False"]
    return [str(each) for each in schema.get("enum", [])]


def _span(parameter: Parameter) -> tuple[float, float, float] | None:
    """Return from, to and step of a slider; None for what is no number, or not set."""
    value = parameter.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    schemas: list[dict[str, Any]] = [parameter.schema, *parameter.schema.get("anyOf", [])]
    number = next((each for each in schemas if each.get("type") in ("number", "integer")), {})
    low = number.get("minimum", number.get("exclusiveMinimum", -float("inf")))
    high = number.get("maximum", number.get("exclusiveMaximum", float("inf")))
    step = 1.0 if number.get("type") == "integer" else 0.25
    if high - low > WIDEST:
        near = SPANS.get(parameter.unit) or (min(0.0, 2.0 * value), max(20.0, 2.0 * value), step)
        low, high, step = max(low, near[0]), min(high, near[1]), near[2]
    return min(low, value), max(high, value), step
