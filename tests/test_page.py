"""The live page in a real browser, on a graph that runs: what a person sees, turns, and is told."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT, CommandLine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'semflow[dev]'")
if not CHROMIUM:
    reason = "no Chromium: apt-get install -y --no-install-recommends chromium"
    pytest.skip(reason, allow_module_level=True)

GRAPH = f"""
flowgraph: watched
seed: 3
blocks:
  source: {{use: lab_bits}}
  link:   {{graph: {ROOT}/configs/links/awgn.yaml, ebn0: 12 dB}}
  errors: {{use: error_meter}}
  photos: {{use: lab_pictures}}
  save:   {{use: image_writer}}
wires:
  - source.bits -> link.bits -> errors.received
  - source.bits -> errors.sent
  - photos.sent -> save.sent
  - photos.received -> save.image
"""


SMALL = """
flowgraph: small
blocks:
  numbers: {use: lab_numbers, frames: 100000, pause: 0.05}
  tally:   {use: lab_tally}
wires: [numbers.x -> tally.x]
"""


class Live:
    """A run with its page, started from the command line."""

    def __init__(self, cli: CommandLine, graph: str = GRAPH):
        self.cli = cli
        config = cli.folder / "live.yaml"
        config.write_text(graph)
        self.run = cli.start("run", config, "--live", "--quiet", "--out", "out")
        printed = self.run.stdout.readline()
        assert printed.startswith("live page: "), self.run.stderr.read()
        self.url = printed.split()[2]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def live():
    with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as folder:
        line = CommandLine(Path(folder))
        yield Live(line)
        line.clean_up()


@pytest.fixture(scope="module")
def open_page(browser):
    """Opens the page of a run, in a viewer of its own."""

    def open_one(live, **options):
        page = browser.new_page(viewport={"width": 1280, "height": 800}, **options)
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.goto(live.url)
        page.wait_for_selector("#card-graph canvas")
        return page

    return open_one


@pytest.fixture(scope="module")
def first_page(live, open_page):
    """The page of the common run as the first viewer has it, who stays."""
    return open_page(live)


@pytest.fixture
def page(first_page):
    """The first viewer's page; what goes wrong in the browser fails the test."""
    yield first_page
    assert first_page.faults == []


@pytest.fixture
def another(open_page):
    """Opens pages of viewers who leave at the test's end; what goes wrong in the browser fails the test."""
    opened = []

    def open_one(live, **options):
        opened.append(open_page(live, **options))
        return opened[-1]

    yield open_one
    for page in opened:
        page.close()
    assert [fault for page in opened for fault in page.faults] == []


def model(page, name, expression):
    """Return what an expression of `root`, a model of the page by its name, has in the browser."""
    code = "([name, code]) => { const root = Bokeh.documents[0].get_model_by_name(name); return eval(code) }"
    return page.evaluate(code, [name, expression])


DENSITY = "Array.from(root.renderers[0].data_source.data.image[0]).join()"
TIMES = "Array.from(root.renderers[0].data_source.data.t)"


def header(page):
    """Return what the page's head says of the run."""
    return page.locator("#header").inner_text()


def answers(page):
    """Return what is said below the controls."""
    return " ".join(page.locator("aside .bk-clearfix").all_inner_texts())


def rate(page):
    """Return the error rate of the last second that the page shows."""
    shown = re.search(r"BER, last second\s*([\d.e-]+)", header(page))
    return float(shown[1]) if shown else None


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_the_page_shows_the_graph_s_views_and_symbols_move(live, page):
    titles = page.locator("section h2").all_inner_texts()
    assert titles[:3] == ["Constellation", "Error rates", "Error rate against Eb/N0"]
    assert {"Pictures", "Spectrum and waterfall", "Signal in time"} <= set(titles)
    assert wait_for(lambda: "EVM" in page.locator("#constellation_told").inner_text(), 20)
    before = model(page, "constellation", DENSITY)
    assert wait_for(lambda: model(page, "constellation", DENSITY) != before, 2)
    assert "running" in header(page)
    equal = "(root.x_range.end - root.x_range.start) / root.inner_width * root.inner_height"
    height = "root.y_range.end - root.y_range.start"
    assert model(page, "constellation", equal) == pytest.approx(model(page, "constellation", height), rel=0.01)
    assert model(page, "spectrum", "root.children[1].left[0].minor_tick_line_color") is None  # as in the page's theme
    hosts = page.evaluate("performance.getEntriesByType('resource').map(entry => new URL(entry.name).host)")
    assert set(hosts) <= {live.url.split("/")[2], ""}  # nothing comes from elsewhere
    scripts = page.evaluate(
        "[...document.scripts].map(each => each.src.split('/').pop().split('.')[0]).filter(Boolean)"
    )
    assert scripts == ["bokeh", "bokeh-widgets"]  # the others would be as much again


def test_axes_are_not_drawn_anew_with_all_data_that_come(page):
    """Only what lies over them is, and it ends where they end."""
    painted = page.evaluate(
        """async () => {
          const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name("constellation"))
          const counts = {_paint_primary: 0, _paint_overlays: 0}
          for (const name in counts) {
            const paint = view[name]
            view[name] = function (context) { counts[name] += 1; return paint.call(this, context) }
          }
          await new Promise(done => setTimeout(done, 2000))
          const drawn = [...view.renderer_views.values()].filter(each => each.glyph)
          return {...counts, clipped: drawn.map(each => each.needs_clip)}
        }"""
    )
    assert painted["_paint_overlays"] > 5
    assert painted["_paint_primary"] == 0
    assert painted["clipped"] == [True] * 3  # density, decision regions, points


def test_pictures_appear_with_captions_whose_differences_are_marked(page):
    card = page.locator("#card-pictures")
    card.locator("figure img").nth(1).wait_for()
    assert card.locator("figcaption").all_inner_texts() == ["sent", "received"]
    assert wait_for(lambda: card.locator("figure img").nth(1).evaluate("image => image.naturalWidth") == 48, 5)
    assert wait_for(lambda: card.locator("del").count() == card.locator("ins").count() == 1, 5)
    assert (card.locator("del").inner_text(), card.locator("ins").inner_text()) == ("dog", "cat")
    assert "a <b> dog on grass" in card.locator(".words").inner_text()  # as text, whatever it holds


def test_what_is_new_comes_in_one_message(another, live):
    page, messages = another(live), []

    def take(payload):
        text = payload.decode(errors="replace") if isinstance(payload, bytes) else payload
        if text.startswith('{"events":'):
            messages.append([event.get("attr") for event in json.loads(text)["events"]])

    page.on("websocket", lambda socket: socket.on("framereceived", take))
    page.reload()
    page.wait_for_selector("#card-graph canvas")
    messages.clear()
    page.wait_for_timeout(2000)
    assert len(messages) > 4
    assert all(attributes[-1] == "tags" and attributes.count("tags") == 1 for attributes in messages)
    assert max(map(len, messages)) > 4


def test_the_snr_slider_turned_by_the_keyboard_changes_the_error_rate(page):
    assert wait_for(lambda: rate(page) is not None, 15)
    page.get_by_role("slider", name="turn link.air.ebn0").focus()
    page.keyboard.press("Home")  # -5 dB: theory says 0.28
    assert wait_for(lambda: (rate(page) or 0) > 0.1), header(page)
    assert wait_for(lambda: "in force: -5" in answers(page))
    points = "JSON.stringify(root.renderers.map(each => Array.from(each.data_source.data.x ?? [])))"
    assert wait_for(lambda: "[-5]" in model(page, "ebn0", points))  # the point in force
    field = page.get_by_label("link.air.ebn0, dB", exact=False).first
    field.fill("12 dB")
    field.press("Enter")
    assert wait_for(lambda: "in force: 12" in answers(page))
    page.get_by_role("slider", name="turn link.air.ebn0").press("Home")  # where it was left
    assert wait_for(lambda: "in force: -5" in answers(page))


def test_a_value_out_of_range_is_refused_with_the_reason_and_the_old_one_stays(page):
    field = page.get_by_label("link.air.ebn0, dB", exact=False).first
    before = field.input_value()
    field.fill("900 dB")
    field.press("Enter")
    assert wait_for(lambda: "ebn0 must be at most 300 dB, not '900 dB'" in answers(page), 3), answers(page)
    assert wait_for(lambda: field.input_value() == before, 3)


def test_two_viewers_see_what_one_of_them_turns(live, page, another):
    one, two = page, another(live)
    field = one.get_by_label("link.air.ebn0, dB", exact=False).first
    field.fill("8 dB")
    field.press("Enter")
    for page in (one, two):
        assert wait_for(lambda page=page: "in force: 8" in answers(page), 3)
    first = model(two, "rates", TIMES)
    assert wait_for(lambda: len(model(two, "rates", TIMES)) > len(first), 3)


def test_a_reload_keeps_the_history_and_what_was_chosen_by_the_keyboard(page):
    assert wait_for(lambda: len(model(page, "rates", TIMES)) > 5, 15)
    persistence = page.get_by_role("combobox", name="persistence of Constellation")
    window = page.get_by_role("combobox", name="window of Error rates")
    for choice, keys in ((persistence, ["End"]), (window, ["ArrowDown", "ArrowDown"])):
        choice.focus()
        for key in keys:
            page.keyboard.press(key)
    before = model(page, "rates", TIMES)
    page.reload()
    page.wait_for_selector("#card-graph canvas")
    after = model(page, "rates", TIMES)
    assert after[: len(before)] == before
    assert (persistence.input_value(), window.input_value()) == ("all", "over 30 s")


@pytest.fixture
def stop_a_browser():
    """Opens a page in a Chromium of its own, and stops all its processes as Ctrl-Z would."""
    started = []

    def stop(url):
        with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as folder:
            command = [CHROMIUM, "--headless", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
            viewer = subprocess.Popen([*command, url], stderr=subprocess.PIPE, text=True, start_new_session=True)
            started.append(viewer)
            told = next(line for line in viewer.stderr if "DevTools listening on" in line)
            port = re.search(r":(\d+)/", told)[1]

            def titles():
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
                    return [each["title"] for each in json.load(answer)]

            assert wait_for(lambda: any("Semflow" in title for title in titles()))
            os.killpg(viewer.pid, signal.SIGSTOP)

    yield stop
    for viewer in started:
        os.killpg(viewer.pid, signal.SIGKILL)
        viewer.communicate()


def test_a_browser_that_is_stopped_holds_neither_the_run_nor_another_viewer_up(live, stop_a_browser, page):
    stop_a_browser(live.url)
    before = model(page, "rates", TIMES)
    assert wait_for(lambda: model(page, "rates", TIMES)[-1] > before[-1] + 2, 10)
    assert live.run.poll() is None


def test_a_run_that_was_killed_is_shown_as_such(cli, another):
    live = Live(cli, SMALL)
    page = another(live, color_scheme="dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert wait_for(lambda: "running" in header(page), 20)
    live.run.kill()
    assert wait_for(lambda: "the run was killed, or is out of reach" in header(page), 8), header(page)
    assert "gone" in header(page)


def test_the_page_stays_after_the_end_until_ctrl_c(cli, another):
    graph = GRAPH.replace("use: lab_pictures", "use: lab_pictures, frames: 2").replace(
        "use: lab_bits", "use: lab_bits, frames: 10"
    )
    live = Live(cli, graph)
    page = another(live)
    assert wait_for(lambda: "the run has ended after" in header(page), 20), header(page)
    assert live.run.poll() is None
    field = page.get_by_label("link.air.ebn0, dB", exact=False).first
    field.fill("3 dB")
    field.press("Enter")
    assert wait_for(lambda: "the run has ended" in answers(page), 3)
    shown = model(page, "constellation", DENSITY)
    assert set(shown.split(",")) > {"0"}
    live.run.send_signal(signal.SIGINT)
    assert live.run.wait(10) == 0
    page.get_by_text("The page's server is gone: what is shown stands still.").wait_for()
    assert model(page, "constellation", DENSITY) == shown
    assert cli.wait_until(lambda: not cli.processes(), 5)
    live.run.stdout.close(), live.run.stderr.close()
