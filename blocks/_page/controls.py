"""Controls of live parameters: what is typed or turned is sent to the run, and its answer shown; what was turned."""

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
from flowgraph.changes import alternatives
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
select.bk-input { background: var(--arrow) no-repeat right 9px center / 9px 6px var(--paper) !important; }
.bk-icon { background-color: var(--faint) !important; }
input:focus, select:focus, .noUi-handle:focus { outline: 2px solid var(--focus) !important; outline-offset: 1px; }
.noUi-target { background: var(--line) !important; border: none !important; box-shadow: none !important; }
.noUi-connect { background: var(--focus) !important; }
.noUi-handle { background: var(--paper) !important; border: 2px solid var(--focus) !important;
  box-shadow: none !important; }
:host(.instead) .bk-input-group { flex-direction: row; align-items: center; gap: 8px; }
:host(.instead) label { flex: 1; color: var(--faint) !important; }
:host(.instead) .bk-input-container { flex: none; width: 84px; }
:host(.instead) .bk-input { height: 26px; }
"""
LOGGED = 4  # changes that are listed


class Control:
    """One live parameter: a field that takes what a config takes, a slider for a number, and what is in force."""

    def __init__(self, parameter: Parameter, turn: Turn, later: Later):
        self.parameter, self.turn, self.later = parameter, turn, later
        sheet = InlineStyleSheet(css=CSS)
        wide: dict[str, Any] = {"sizing_mode": "stretch_width", "stylesheets": [sheet], "margin": (0, 0, 0, 0)}
        self.slider: Slider | None = None
        self.field: TextInput | Select
        if choices := _choices(parameter.schema):
            self.field = Select(options=choices, description=parameter.description, **wide)
        else:
            self.field = TextInput(description=parameter.description, **wide)
        self.field.on_change("value", lambda attr, old, new: self._ask(new))
        if (span := _span(parameter)) and not choices:
            low, high, step = span
            self.slider = Slider(
                start=low, end=high, step=step, value=low, show_value=False, title="",
                tags=[f"turn {parameter.full_name}"], **wide,
            )  # fmt: skip
            self.slider.on_change("value_throttled", lambda attr, old, new: self._ask(float(f"{new:.12g}")))
        self.answer = Div(text=_held(parameter.value), disable_math=True, **wide)
        self.answer.html_attributes = {"aria-live": "polite"}
        parts = [self.field, *([self.slider] if self.slider else []), self.answer]
        self.root = column(*parts, sizing_mode="stretch_width", css_classes=["control"], spacing=2)
        self.value = parameter.value
        self.taking_over = False  # what changes is what the run said, and is not to be asked for
        self.hold(parameter.value)

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
            self.answer.visible = True
            return
        if held.coming:
            self.answer.text = f'{_held(self.value)}, <span class="held">{escape(_shown(held.value))}</span> {held}'
            return
        self.hold(held.value)
        self.answer.text = f"{_held(held.value)} {held}"

    def hold(self, value: Any) -> None:
        """Show the value that is in force."""
        if value != self.value:
            self.answer.text = _held(value)
        self.value, self.taking_over = value, True
        self.field.value = _shown(value)
        if self.slider and _is_number(value):
            self.slider.update(start=min(self.slider.start, value), end=max(self.slider.end, value), value=value)
            # Else turning it to where this viewer has left it last would be no change, and not be told.
            self.slider.set_from_json("value_throttled", value)
        self.taking_over = False
        parameter = self.parameter
        unit = f", {parameter.unit}" if parameter.unit else ""
        # One that another is set instead of takes little room: what is typed there takes that one's place.
        instead = value is None and bool(alternatives(parameter.schema))
        self.field.update(
            title=f"or {parameter.name}{unit}" if instead else f"{parameter.full_name}{unit}",
            css_classes=["instead"] if instead else [],
        )
        self.answer.visible = not instead or "alarm" in self.answer.text
        if self.slider:
            self.slider.visible = _is_number(value)


class Controls:
    """The controls of all live parameters, those of which one is set instead of the others together."""

    def __init__(self, history: History, turn: Turn, later: Later):
        assert history.run is not None
        self.controls = {each.full_name: Control(each, turn, later) for each in history.run.parameters}
        none = Div(text="no parameter of this graph is live", stylesheets=[InlineStyleSheet(css=CSS)])
        roots = [control.root for control in self.controls.values()] or [none]
        self.root = column(*roots, sizing_mode="stretch_width", spacing=14)
        self.sliders = [each.slider for each in self.controls.values() if each.slider]
        self.seen = -1

    def update(self, history: History) -> None:
        """Take over what other viewers, or the command line, have changed."""
        if history.turned == self.seen:
            return
        self.seen = history.turned
        for name, control in self.controls.items():
            if history.in_force[name] != control.value or control.slider is None:
                control.hold(history.in_force[name])


def changes(history: History) -> str:
    """Return the newest changes of live parameters, each with the item that it holds from, as HTML."""
    told = "".join(
        f"<li><b>{escape(each['block'])}.{escape(each['parameter'])} = {escape(_shown(each['value']))}</b>"
        f"<br>from item {each['offset']:,} of frame {each['frame']}</li>"
        for each in reversed(history.report.get("changes", [])[-LOGGED:])
    )
    return f"<ol>{told}</ol>" if told else "none so far"


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
    """Return from, to and step of a slider; None for what can be no number."""
    number = next((each for each in _kinds(parameter.schema) if each.get("type") in ("number", "integer")), None)
    if number is None:
        return None
    now = [float(parameter.value)] if _is_number(parameter.value) else []
    low = number.get("minimum", number.get("exclusiveMinimum", -float("inf")))
    high = number.get("maximum", number.get("exclusiveMaximum", float("inf")))
    step = 1.0 if number.get("type") == "integer" else 0.25
    if high - low > WIDEST:
        near = SPANS.get(parameter.unit) or (
            min([0.0, *(2.0 * each for each in now)]),
            max([20.0, *(2.0 * each for each in now)]),
            step,
        )
        low, high, step = max(low, near[0]), min(high, near[1]), near[2]
    return min([low, *now]), max([high, *now]), step


def _kinds(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a schema and all that may be in its place."""
    return [schema, *(kind for each in schema.get("anyOf", []) for kind in _kinds(each))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
