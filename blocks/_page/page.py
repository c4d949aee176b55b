"""The page: one document a viewer, made of views that follow the common history ten times a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import bokeh
from bokeh.core.serialization import Serializer
from bokeh.document import Document
from bokeh.document.events import DocumentPatchedEvent
from bokeh.layouts import column
from bokeh.models import Arrow, ColumnDataSource, CustomJS, GlyphRenderer
from bokeh.protocol.messages.patch_doc import PatchJson, patch_doc
from jinja2 import Template

from blocks._page.choice import complex_outputs
from blocks._page.controls import Controls, changes
from blocks._page.feed import Feed
from blocks._page.graph import GraphView, workers
from blocks._page.history import History, load_estimates
from blocks._page.look import DARK, LIGHT, Part, View
from blocks._page.pictures import PictureView
from blocks._page.rates import RateOverEbn0, RateOverTime
from blocks._page.signals import SignalView, signal_views

UPDATE_MS = 100
ORDER = ("constellation", "unequalized", "rates", "ebn0", "pictures", "spectrum", "time", "llrs", "gains")
GROWING = ("rates", "time", "gains", "spectrum")  # cards that gain most from more room
TEMPLATE = Path(__file__).with_name("page.html")
# Neither WebGL, tables nor MathJax are used, which are as much again.
SCRIPTS = [f"static/js/{name}.min.js?v={bokeh.__version__}" for name in ("bokeh", "bokeh-widgets")]
STATES = {"done": "ended"}  # whose names say it less well

READY = """
tell(carrier.tags[1])
for (const slider of sliders) {
  const handle = Bokeh.index.find_one(slider)?.slider_el?.querySelector(".noUi-handle")
  handle?.setAttribute("aria-label", slider.tags[0])
}
for (const choice of choices) {
  const kept = localStorage.getItem(choice.tags[0])
  if (choice.options.some(([value, label]) => value == kept)) choice.value = kept
}
"""


def header(history: History) -> str:
    """Return how the run is, and its main figures, as HTML."""
    state, sentence = history.state()
    parts = [f'<span class="pill {state}">{STATES.get(state, state)}</span>']
    parts += [f"<span>{escape(sentence)}</span>"] if sentence else []
    parts += [
        f'<span class="figure"><span>{name}</span> <b>{escape(value)}</b></span>'
        for name, value in history.figures().items()
    ]
    return "".join(parts)


# What the page says beside its cards, by the elements in which it stands
TEXTS: dict[str, Callable[[History], str]] = {"header": header, "changes": changes, "workers": workers}

ANSWER = "tell(carrier.tags[1]); answer.tags = [carrier.tags[0]]"  # what a browser does with the end of an update


@contextmanager
def in_one_message(document: Document) -> Iterator[None]:
    """Send what changes in a document as one message, for the browser to draw it at once; Bokeh sends every change by
    itself, and every array in it.

    Models that are new must have been sent before: what changed in them would be sent with them, and again. Bokeh has
    no public way to do this; the names with underscores are those of Bokeh 3.9's server.
    """
    context = document.session_context
    session = context.session if context else None
    if session is None:  # the document itself is still to be sent
        yield
        return
    events: list[DocumentPatchedEvent] = []
    session._document_patched = events.append
    try:
        yield
    finally:
        del session._document_patched
        if events:
            serializer = Serializer(references=document.models.synced_references, deferred=False)
            message = patch_doc(patch_doc.create_header(), {}, PatchJson(events=serializer.encode(events)))
            document.models.flush_synced(lambda model: not serializer.has_ref(model))
            for connection in session._subscribed_connections:
                session._pending_writes.append(connection._socket.send_message(message))


class Echo:
    """Tells whether a browser has taken in what was sent: one that is slow, or stands still, gets less, and nothing
    piles up for it. `then` is called when all has arrived. The `carrier` is to be part of the document.
    """

    def __init__(self, then: Callable[[], None]):
        self.carrier, self.answer, self.then = ColumnDataSource(), ColumnDataSource(), then  # that nothing draws
        self.sent = self.heard = 0
        arguments = {"carrier": self.carrier, "answer": self.answer}
        self.carrier.js_on_change("tags", CustomJS(args=arguments, code=ANSWER))
        self.answer.on_change("tags", lambda attr, old, new: self._hear(new))

    def _hear(self, tags: list[Any]) -> None:
        if tags == [self.sent]:
            self.heard = self.sent
            self.then()

    def begin(self) -> None:
        """Take what was sent as arrived."""
        self.heard = self.sent

    @property
    def arrived(self) -> bool:
        """Whether all that was sent has arrived."""
        return self.heard == self.sent

    def call(self, texts: dict[str, str]) -> None:
        """Send a number after what was sent, to be sent back; and HTML, by the element in which it is to stand.

        Bokeh's own texts would be laid out anew, with all around them, whenever one changes.
        """
        self.sent += 1
        self.carrier.tags = [self.sent, list(texts.items())]


class Page:
    """What one viewer sees of a run: the header and the controls at once, views one after another."""

    def __init__(self, document: Document, history: History, feed: Feed):
        self.document, self.history = document, history
        context = document.session_context
        assert context is not None
        self.look = DARK if context.request.arguments.get("theme") == [b"dark"] else LIGHT
        with history.lock:
            assert history.run is not None
            title = history.run.spec.name
            self.views = _views(history)
            graph = GraphView(history.run)
            controls = Controls(history, feed.set, document.add_next_tick_callback)
        self.parts: list[Part] = [controls]
        self.said: dict[str, str] = {}
        choices = [choice for view in self.views for choice in view.choices]
        for view in self.views:
            for number, choice in enumerate(view.choices):
                choice.name = f"{view.name}_{number}"
        cards = [*self.views, graph]
        slots = [column(name=f"{view.name}_slot", sizing_mode="stretch_both") for view in cards]
        with document.models.freeze():  # else every root has all models looked through again
            for root in (controls.root, *slots, *choices):
                document.add_root(root)
        document.title = f"{title} · Semflow"
        document.theme = self.look.theme()
        document.template = Template(TEMPLATE.read_text(encoding="utf-8"))
        document.template_variables.update(
            heading=title, views=self.views, spans=spans(self.views), graph=graph, look=self.look, scripts=SCRIPTS
        )
        self.echo = Echo(self._send)
        controls.root.update(name="controls", tags=[self.echo.carrier])
        self.waiting = list(zip(cards, slots, strict=True))
        self.update()
        arguments = {"carrier": self.echo.carrier, "choices": choices, "sliders": controls.sliders}
        ready = CustomJS(args=arguments, code=READY)
        document.js_on_event("document_ready", ready)
        document.on_event("document_ready", lambda event: self.echo.begin())  # it holds what was sent so far
        document.add_periodic_callback(self.update, UPDATE_MS)
        document.on_session_destroyed(self._leave)

    def update(self) -> None:
        """Show what is new, and more views, as soon as what was new before has arrived."""
        self.due = True
        self._send()

    def _send(self) -> None:
        if not (self.due or self.waiting) or not self.echo.arrived:
            return
        self.due = False
        self._make_views()
        with in_one_message(self.document):
            with self.history.lock:
                self.history.selected[self] = {view.output for view in self.views if isinstance(view, SignalView)}
                for part in self.parts:
                    part.update(self.history)
                texts = {name: tell(self.history) for name, tell in TEXTS.items()}
            texts |= {view.told: view.text for view in self.views if view.told}
            self.echo.call(dict(texts.items() - self.said.items()))
            self.said = texts

    def _make_views(self) -> None:
        """Make the views that are not there yet: the first alone, to be there soonest, then the others."""
        many = len(self.waiting) if self.echo.sent else 1
        new, self.waiting = self.waiting[:many], self.waiting[many:]
        for view, slot in new:
            view.make(self.look)
            view.root.name = view.name
            for kind in (GlyphRenderer, Arrow):  # over the axes, which would be drawn anew with all that is below
                for drawn in view.root.select({"type": kind}):
                    drawn.level = "overlay"
            slot.children = [view.root]
            self.parts.append(view)
        if new and not self.waiting:
            threading.Thread(target=load_estimates, name="load", daemon=True).start()

    def _leave(self, session: Any) -> None:
        with self.history.lock:
            self.history.selected.pop(self, None)


def _views(history: History) -> list[View]:
    """Return the views that a graph calls for, in the order of the page."""
    run = history.run
    assert run is not None
    signals = {view.name: view for view in signal_views(history, complex_outputs(run.taps))}
    types = {block.type for block in run.spec.blocks}
    others: list[View] = [RateOverTime(), RateOverEbn0()] if "error_meter" in types else []
    others += [PictureView()] if "image_writer" in types else []
    views = {view.name: view for view in (*signals.values(), *others)}
    return [views[name] for name in ORDER if name in views]


def spans(views: Sequence[View]) -> dict[str, str]:
    """Return how many columns each card takes, of two, three or four, as CSS: some take one more, to fill the rows."""
    styles = {view.name: "" for view in views}
    for columns in (2, 3, 4):
        width = {view.name: view.width for view in views}
        for name in GROWING:
            if name in width and sum(width.values()) % columns:
                width[name] += 1
        for name, wide in width.items():
            styles[name] += f"--of-{columns}: {wide}; "
    return styles


def maker(history: History, feed: Feed) -> Callable[[Document], None]:
    """Return what makes the document of a new viewer."""

    def make(document: Document) -> None:
        Page(document, history, feed)

    return make
