"""Who may see the live page, and what it keeps of a run: without a browser."""

import asyncio
import http.client
import importlib
import json
import logging
import re
import signal
import socket
import threading
from base64 import urlsafe_b64encode
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from bokeh.document import Document
from bokeh.util.token import get_token_payload
from matplotlib.figure import Figure
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketClosedError, websocket_connect

from blocks._page.choice import choose
from blocks._page.history import FREQUENCIES, History, Row
from blocks._page.look import LIGHT
from blocks._page.page import Page, _views, spans
from blocks._page.pictures import marked
from blocks._page.server import _Door, _hurry, _Pictures, _shorten, serve
from blocks._page.signals import LATE_S, WATERFALL_S
from blocks._page.window import SIZE, Window
from flowgraph import BlockError, Packet, registry
from flowgraph.config.load import load
from flowgraph.live import Parameter, Run
from flowgraph.spec import BlockSpec, GraphSpec, NetworkSpec

GRAPH = """
flowgraph: watched
blocks:
  numbers: {use: lab_numbers, frames: 1000, pause: 0.05}
  tally:   {use: lab_tally}
wires: [numbers.x -> tally.x]
"""


def own_address():
    """Return an address of this machine that others could reach; None where it has loopback alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        try:
            made.connect(("192.0.2.1", 9))  # nothing is sent
            return made.getsockname()[0]
        except OSError:
            return None


def ask(host, port, path="/", **headers):
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.body = answer.read()
    connection.close()
    return answer


def websocket(host, port, origin, session, **headers):
    """Return the status with which the page's socket answers a browser that comes from `origin`."""
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": f"bokeh, {session}"}
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request("GET", "/ws", headers={"Origin": origin, **upgrade, **key, **headers})
    status = connection.getresponse().status
    connection.close()
    return status


def is_closed_upon(data, host, port, session):
    """Send the page's socket something as a browser could; return whether the server closes it."""

    async def send():
        socket = await websocket_connect(f"ws://{host}:{port}/ws", subprotocols=["bokeh", session])
        with suppress(WebSocketClosedError):  # upon the first of them, say
            for each in data:
                await socket.write_message(each, binary=isinstance(each, bytes))
        while await socket.read_message() is not None:
            pass
        return True

    return asyncio.run(asyncio.wait_for(send(), 10))


def session_of(page):
    return re.search(rb'"token":"([^"]+)"', page)[1].decode()


@pytest.fixture
def start(cli):
    """Starts a run with its page at an address; returns what it printed: the page's own."""
    (cli.folder / "live.yaml").write_text(GRAPH)
    started = []

    def start_one(*options):
        run = cli.start("run", "live.yaml", "--live", "--quiet", "--out", "out", *options)
        started.append(run)
        return run, run.stdout.readline()

    yield start_one
    for run in started:
        run.terminate()
        run.wait(10)
        run.stdout.close(), run.stderr.close()


def test_on_loopback_no_token_is_asked_for_and_foreign_origins_are_refused(start):
    _, printed = start()
    host, port = re.fullmatch(r"live page: http://(127\.0\.0\.1):(\d+)/\n", printed).groups()
    page = ask(host, port)
    assert page.status == 200
    assert b"cdn.bokeh.org" not in page.body
    session = session_of(page.body)
    assert websocket(host, port, "http://evil.example", session) == 403
    assert websocket(host, port, f"http://evil.example:{port}", session) == 403
    assert websocket(host, port, f"http://localhost:{port}", session) == 101
    for path in ("/pictures/0000_sent.png", "/pictures/../../etc/passwd", "/pictures/%2e%2e%2flive.yaml"):
        assert ask(host, port, path).status == 404
    away, here = {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-origin"}
    for headers, status in (
        ({"Host": "evil.example"}, 403),  # a name that leads here
        ({"Origin": "http://evil.example"}, 403),
        (away | {"Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "iframe"}, 403),  # of another port
        (away | {"Sec-Fetch-Dest": "document"}, 200),  # a link, in a notebook say
        (here | {"Sec-Fetch-Dest": "image"}, 200),
    ):
        for path in ("/", "/autoload.js?bokeh-autoload-element=x"):
            assert ask(host, port, path, **headers).status == status, headers
        assert ask(host, port, "/pictures/0000_sent.png", **headers).status == (404 if status == 200 else 403)
    assert page.getheader("Content-Security-Policy") == "frame-ancestors 'none'"


def test_what_is_no_message_closes_its_viewer_s_socket_alone(start):
    run, printed = start()
    host, port = re.search(r"//(.*):(\d+)/", printed).groups()
    session = session_of(ask(host, port).body)
    forged = json.dumps({"session_id": "x", "session_expiry": 1 << 40}).encode()
    assert is_closed_upon([], host, port, urlsafe_b64encode(forged).decode().rstrip("="))
    for data in ([b"\xff"], ["[]", "{}", "{}"], ["{" * 60_000, "{}", "{}"], ["x" * (2 << 20)]):
        assert is_closed_upon(data, host, port, session)
    assert ask(host, port, "/?theme=%ff").status == 200
    run.send_signal(signal.SIGINT)
    told = run.communicate(timeout=20)[1]
    assert "Traceback" not in told
    assert max(map(len, told.splitlines())) < 450


def test_beyond_this_machine_a_token_opens_the_page_its_socket_and_its_pictures(start):
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback: connect it to a network")
    _, printed = start("--address", address)
    port, token = re.fullmatch(rf"live page: http://{re.escape(address)}:(\d+)/\?token=(\S+)\n", printed).groups()
    for path in ("/", "/?token=wrong", "/?token=", "/?token=%C3%A9", "/pictures/0000_sent.png"):
        answer = ask(address, port, path)
        assert (answer.status, answer.getheader("Location", "").partition("?")[0]) == (302, "/refused")
    refused = ask(address, port, "/refused")
    assert refused.status == 403
    assert b"needs its token" in refused.body
    page = ask(address, port, f"/?token={token}")
    assert page.status == 200
    cookie = page.getheader("Set-Cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    again = ask(address, port, Cookie=cookie.partition(";")[0])
    for each in (page, again):
        assert token.encode() not in each.body
        assert token not in str(get_token_payload(session_of(each.body)))  # as scripts can read it
    session, origin = session_of(again.body), f"http://{address}:{port}"
    assert websocket(address, port, origin, session) == 403
    assert websocket(address, port, origin, session, Cookie=cookie.partition(";")[0]) == 101
    assert websocket(address, port, "http://evil.example", session, Cookie=cookie.partition(";")[0]) == 403


def picture(history, **headers):
    """Return what the server answers who asks for a picture."""

    async def ask_for_it():
        (bound,) = bind_sockets(0, "127.0.0.1")
        port = bound.getsockname()[1]
        door = _Door("", port, [f"127.0.0.1:{port}"])
        server = HTTPServer(Application([(r"/(.*)", _Pictures, {"history": history, "door": door})]))
        server.add_sockets([bound])
        try:
            return await asyncio.to_thread(ask, "127.0.0.1", port, "/0000_sent.png", **headers)
        finally:
            server.stop()

    return asyncio.run(ask_for_it())


def test_a_browser_asks_for_a_picture_anew_as_another_run_may_be_at_the_port():
    history = History("ipc:///somewhere")
    history.add("images/0000_sent.png", b"\x89PNG of this run")
    first = picture(history)
    assert (first.body, first.getheader("Cache-Control")) == (b"\x89PNG of this run", "private, no-cache")
    kept = {"If-None-Match": first.getheader("Etag")}
    same = picture(history, **kept)
    assert (same.status, same.body) == (304, b"")
    history.add("images/0000_sent.png", b"\x89PNG of the next run")
    assert picture(history, **kept).body == b"\x89PNG of the next run"


def test_a_fault_of_the_page_is_told_with_its_cause_in_a_line():
    try:
        raise KeyError("no such view")
    except KeyError as error:
        cause = (KeyError, error, error.__traceback__)
    record = logging.LogRecord("bokeh", logging.ERROR, "", 0, "fault\n message: %r", ("x " * 9000,), cause)
    assert _shorten(record)
    told = logging.Formatter().format(record)
    assert told.startswith("fault message: 'x x")
    assert told.endswith(": KeyError('no such view')")
    assert len(told) < 200
    assert "\n" not in told


def test_an_ipv6_address_is_the_same_however_it_is_written(start):
    with socket.socket(socket.AF_INET6) as tried:
        try:
            tried.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6: turn it on")
    _, printed = start("--address", "0:0:0:0:0:0:0:1")
    port = re.fullmatch(r"live page: http://\[::1\]:(\d+)/\n", printed)[1]
    page = ask("::1", port)
    assert page.status == 200
    assert websocket("::1", port, f"http://[::1]:{port}", session_of(page.body)) == 101
    assert websocket("::1", port, f"http://[::2]:{port}", session_of(page.body)) == 403


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"host": "0.0.0.0"}, "--address must be one address of this machine"),
        ({"host": "myhost"}, "--address must be an address of this machine, as 192.168.1.7, not 'myhost'"),
        ({"port": 99999}, "--port must be from 1 to 65535, or 0 for a free one, not 99999"),
        ({"host": "192.0.2.77"}, "the live page cannot be at 192.0.2.77:0: Cannot assign requested address"),
        ({}, "no run is at ipc:///tmp/nobody-is-here: has it ended?"),
    ],
)
def test_what_cannot_be_served_is_told(options, reason):
    with pytest.raises(BlockError) as told:
        serve("ipc:///tmp/nobody-is-here", **options)
    assert str(told.value).startswith(reason)


def run_of(link, tmp_path, folder):
    """Return a graph and its outputs' item types, as a run tells its viewers."""
    config = tmp_path / "link.yaml"
    config.write_text(
        f"flowgraph: g\nblocks:\n  source: {{use: bit_source}}\n  link: {{graph: {folder}/{link}.yaml, ebn0: 10 dB}}\n"
        "  errors: {use: error_meter}\nwires:\n  - source.bits -> link.bits -> errors.received\n"
        "  - source.bits -> errors.sent\n"
    )
    spec, taps = load(config), {}
    for block in spec.blocks:
        cls = registry.find(block.type)
        params = cls.Params.model_validate(block.params)
        block.params.update(params.model_dump(mode="json"))
        for port in cls.outputs:
            taps[f"{block.name}.{port.name}"] = [port.chosen(params)] if port.chosen else list(port.dtypes)
    return spec, taps


@pytest.mark.parametrize(
    ("link", "decided", "unequalized", "received", "gains", "llrs", "per_symbol"),
    [
        ("awgn", "air.symbols", None, "air.symbols", None, None, 1),
        ("rayleigh_pilots", "equalize.symbols", "estimate.symbols", "air.symbols", "air.gains", None, 1),
        ("tdl", "equalize.symbols", "demodulate.symbols", "air.samples", "demodulate.gains", "demap.bits", 1),
        ("waveform", "demodulate.symbols", None, "air.symbols", None, None, 2),
        ("ldpc", "air.symbols", None, "air.symbols", None, "demap.bits", 1),
    ],
)
def test_what_is_shown_follows_from_the_graph(link, decided, unequalized, received, gains, llrs, per_symbol, tmp_path):
    from conftest import ROOT

    chosen = choose(*run_of(link, tmp_path, ROOT / "configs/links"))
    wanted = (decided, unequalized, received, gains, llrs)
    found = (chosen.decided, chosen.unequalized, chosen.received, chosen.gains, chosen.llrs)
    assert found == tuple(each and f"link.{each}" for each in wanted)
    assert chosen.samples_per_symbol == per_symbol


@pytest.fixture
def history(tmp_path):
    from conftest import ROOT

    made = History("ipc:///somewhere")
    spec, taps = run_of("awgn", tmp_path, ROOT / "configs/links")
    ebn0 = Parameter("link.air", "ebn0", 10.0, "dB", "", "awgn_channel", {})
    made.meet(Run("0.1.0", spec, "ipc:///feed", [ebn0], taps))
    return made


def report(t, bits, errors, **more):
    return {
        "status": "running", "elapsed_s": t, "link": {"bits": bits, "bit_errors": errors}, "frames": [], "wires": {},
        "workers": {"main": {"state": "alive", "cpu_s": t / 4, "memory": 50_000_000}},
        "blocks": {"link.air": {"busy_s": t / 2, "items": bits // 4, "errors": 0}}, **more,
    }  # fmt: skip


def test_rates_are_those_of_the_last_second(history):
    for t, errors in ((0.0, 0), (0.5, 50), (1.0, 100), (1.5, 600), (2.0, 1100)):
        history.add("report", report(t, int(10_000 * t), errors))
    assert history.samples[-1]["ber"] == pytest.approx(0.1)  # 1000 errors in the second half
    over = {window_s: history.rates_at(history.samples[-1], window_s)["ber"] for window_s in (0.5, 1.5, 30.0)}
    assert over == pytest.approx({0.5: 0.1, 1.5: 1050 / 15_000, 30.0: 1100 / 20_000})
    assert history.busy["link.air"] == pytest.approx(0.5)
    assert history.rates["link.air"] == pytest.approx(2500)
    assert history.cpu["main"] == pytest.approx(0.25)


def test_evm_and_snr_are_those_of_the_noise_that_is_there_now(history):
    from blocks.phy import noise, qam

    sent = qam.map_symbols(noise.random_bytes(4096, 1), 32_768)
    for esn0_db in (20.0, 14.0):
        channel = {"n0": 10 ** (-esn0_db / 10), "esn0_db": esn0_db}
        for number in range(8):
            data = noise.awgn(sent[1024 * number :][:1024], channel["n0"], 5, number, 0)
            history.add("link.air.symbols", Packet(data).tagged(modulation="16qam", true_channel=channel))
        evm, snr = history.streams["link.air.symbols"].quality()
        assert snr == pytest.approx(esn0_db, abs=0.2)
        assert evm == pytest.approx(channel["n0"] ** 0.5, rel=0.05)
    density = history.streams["link.air.symbols"].densities
    assert density["0.1 s"].sum() == pytest.approx(1024, rel=0.01)
    assert density["1 s"].sum() == pytest.approx(1024 * (1 - 0.9**16) / 0.1, rel=0.01)  # old pieces fade
    assert density["all"].sum() == pytest.approx(16 * 1024, rel=0.01)


def test_values_in_force_are_those_that_others_have_turned_too(history):
    change = {"block": "link.air", "parameter": "ebn0", "value": 3.0, "frame": 1, "offset": 0}
    history.add("report", report(1.0, 100, 1, changes=[change]))
    assert history.in_force["link.air.ebn0"] == 3.0


def test_one_that_is_set_instead_of_others_leaves_them_null(tmp_path):
    made = History("ipc:///somewhere")
    either = (("ebn0", 10.0, "esn0"), ("esn0", None, "ebn0"))
    parameters = [Parameter("air", name, value, "dB", "", "", {"instead_of": [other]}) for name, value, other in either]
    made.meet(Run("0.1.0", GraphSpec("g", 0, [], [], [], NetworkSpec()), "ipc:///feed", parameters, {}))
    assert made.in_force == {"air.ebn0": 10.0, "air.esn0": None}
    changes = [{"block": "air", "parameter": name, "value": 3.0, "frame": 1, "offset": 0} for name, *_ in either]
    made.add("report", report(1.0, 100, 1, changes=changes))
    made.add("report", report(1.0, 100, 1, changes=changes))
    assert (made.in_force, made.turned) == ({"air.ebn0": None, "air.esn0": 3.0}, 2)


def test_the_first_view_is_there_at_once_and_the_others_once_that_has_arrived(history):
    document, asked = Document(), SimpleNamespace(request=SimpleNamespace(arguments={}), session=None)
    document._session_context = lambda: asked  # as a server has it
    page = Page(document, history, SimpleNamespace(set=None))
    slots = [root for root in document.roots if root.name.endswith("_slot")]
    assert [len(slot.children) for slot in slots] == [1] + [0] * (len(slots) - 1)
    page.update()
    assert [len(slot.children) for slot in slots][1] == 0  # the browser has not answered
    page.echo.begin()
    page.update()
    assert [slot.children[0].name for slot in slots] == [*(view.name for view in page.views), "graph"]


def test_what_is_known_of_symbols_is_drawn_as_soon_as_it_can_be_told(history, monkeypatch):
    monkeypatch.setattr("blocks._page.signals.ESTIMATES", known := threading.Event())
    history.add("link.air.symbols", Packet(np.ones(64, np.complex64)).tagged(modulation="16qam"))
    view = next(view for view in _views(history) if view.name == "constellation")
    view.make(LIGHT)
    titles = []
    for _ in range(2):  # no more symbols come in between
        view.update(history)
        titles.append(view.text)
        known.set()
    assert titles[0] == ""
    assert titles[1].startswith("16QAM · EVM")


def test_a_waterfall_has_each_row_where_its_time_is(history):
    view = next(view for view in _views(history) if view.name == "spectrum")
    view.make(LIGHT)

    def shown():
        """The times in tenths of a second that are drawn, and what is there."""
        data = view.images.data
        lines = [(100 * k + n, line[0]) for k, image in zip(view.numbers, data["image"], strict=True)
                 for n, line in enumerate(image) if not np.isnan(line[0])]  # fmt: skip
        assert all(np.all((image == image[:, :1]) | np.isnan(image)) for image in data["image"])
        return dict(sorted(lines))

    def add(time, duration, level):
        view._add(Row(time, duration, np.full(FREQUENCIES, level, np.float32)))

    add(0.0, 0.2, 1)
    add(0.21, 0.04, 2)
    assert shown() == {0: 1, 1: 1, 2: 2}
    add(9.9, 0.2, 3)  # over the seam
    assert shown() == {0: 1, 1: 1, 2: 2, 99: 3, 100: 3}
    add(20.0, 0.1, 4)  # the first ten seconds are out of sight by now
    assert shown() == {100: 3, 200: 4}
    add(55.5, 0.1, 5)
    assert shown() == {200: 4, 555: 5}


def test_a_waterfall_moves_on_where_nothing_comes_and_stands_still_when_the_run_has_ended(history, monkeypatch):
    view = next(view for view in _views(history) if view.name == "spectrum")
    view.make(LIGHT)

    def newest(after_s, **more):
        """Where the end of the newest row is drawn, so many seconds after the run was met."""
        monkeypatch.setattr("time.monotonic", lambda: history.began + after_s)
        history.add("report", report(after_s, 100, 1) | more)
        view.update(history)
        row = history.streams["link.air.symbols"].rows[-1]
        return view.images.data["y"][0] - view.numbers[0] * WATERFALL_S + row.time + row.duration

    monkeypatch.setattr("time.monotonic", lambda: history.began + 1.0)
    history.add("link.air.symbols", Packet(np.ones(256, np.complex64)))
    assert newest(1.0) == pytest.approx(0)
    assert newest(1.2) == pytest.approx(0)  # the next piece may still be in time
    assert newest(3.0) == pytest.approx(-2 + LATE_S, abs=0.02)
    assert newest(9.0, status="done") == pytest.approx(0)


def test_a_socket_is_told_to_send_at_once_when_it_opens():
    done = []
    handler = SimpleNamespace(set_nodelay=lambda wanted: done.append(wanted), open=lambda: done.append("open"))
    _hurry(handler)
    assert done == []
    handler.open()
    assert done == [True, "open"]


def test_cards_fill_their_rows(history):
    history.run.spec.blocks.append(BlockSpec("save", "image_writer", {}, "main"))
    styles = spans(_views(history))
    for columns in (2, 3, 4):
        widths = [int(re.search(rf"--of-{columns}: (\d)", style)[1]) for style in styles.values()]
        assert sum(widths) % columns == 0
        assert max(widths) <= 2


def test_the_window_draws_what_the_history_has(history):
    from blocks.phy import noise, qam, theory
    from blocks.sink.images import png

    figure = Figure(figsize=SIZE, layout="constrained")
    history.run.spec.blocks.append(BlockSpec("save", "image_writer", {}, "main"))
    window = Window(history, figure)
    assert window.update()
    assert not window.update()  # nothing is new
    symbols = noise.awgn(qam.map_symbols(noise.random_bytes(512, 1), 4096), 0.05, 5, 0, 0)
    channel = {"kind": "awgn", "modulation": "16qam", "bits_per_symbol": 4, "bits_per_use": 4.0, "n0": 0.05}
    channel["esn0_db"] = 7.0 + theory.ratio_to_db(4)
    history.add("link.air.symbols", Packet(symbols).tagged(modulation="16qam", true_channel=channel))
    # Of the bits that a frame is for it is 7.6 dB; of those that the channel carries, as the closed form has it, 7.
    at = {"ebn0_db": 7.6, "esn0_db": channel["esn0_db"]}
    point = at | {"bits": 10_000, "bit_errors": 150, "ber": 0.015, "ber_low": 0.012, "ber_high": 0.018}
    for t in (0.0, 1.0, 2.0):
        made = report(t, int(10_000 * t), int(150 * t))
        made["link"]["ber_points"] = [point | {"ber_theory": 0.01697}]
        made["frames"] = [{"frame": 3, "name": "dog", "psnr": 21.0, "status": "ok", "caption_received": "a dog"}]
        history.add("report", made)
    for kind in ("sent", "received"):
        history.add(f"images/0003_{kind}.png", png(np.full((16, 16, 3), 90, np.uint8)))
    assert window.update()
    figure.canvas.draw()
    axes = {each.get_xlabel(): each for each in figure.get_axes()}
    assert set(axes) >= {"in-phase", "time, s", "Eb/N0, dB", "frequency, cycles a sample", "21.0 dB\na dog"}
    assert "SNR 13" in axes["in-phase"].get_title(loc="left")
    rates = {line.get_label(): line.get_ydata() for line in axes["time, s"].get_lines()}
    assert rates["bits"][-1] == pytest.approx(0.015)
    (form,) = (line for line in axes["Eb/N0, dB"].get_lines() if line.get_label() == "closed form, uncoded")
    assert np.interp(7.0, *form.get_data()) == pytest.approx(0.01697, rel=0.01)
    assert figure.get_suptitle().startswith(
        "running · time 2.0 s · frames 4 · Eb/N0 7.00 dB · BER, last second 1.50e-02"
    )
    history.add("report", made | {"status": "failed", "fault": "block x: it broke"})
    assert window.update()
    assert "the run has ended after 2.0 s: block x: it broke" in figure.get_suptitle()


@pytest.mark.parametrize(
    "command", [["run", "live.yaml", "--window", "--out", "out"], ["watch", "ipc:///x", "--window"]]
)
def test_a_window_without_a_display_is_refused_before_anything_starts(cli, command):
    (cli.folder / "live.yaml").write_text(GRAPH)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
        cli.environment.pop(name, None)
    refused = cli.run(*command)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("--window needs a display, and one of matplotlib's toolkits (apt-get install ")
    assert not (cli.folder / "out").exists()


def test_the_program_beside_a_run_does_nothing_when_it_is_imported():
    assert callable(importlib.import_module("blocks._page.__main__").main)


def test_states_are_told_apart(history):
    assert history.state()[0] == "starting"
    history.add("report", report(1.0, 1, 0))
    assert history.state() == ("running", "")
    history.heard -= 3
    assert history.state() == ("silent", "no word for 3 s")
    history.gone = True
    assert history.state()[0] == "gone"
    history.add("report", report(4.0, 1, 0) | {"status": "failed", "fault": "block x: it broke"})
    assert history.state() == ("failed", "the run has ended after 4.0 s: block x: it broke")


def test_pictures_kept_are_bounded(history):
    for frame in range(200):
        for kind in ("sent", "received"):
            history.add(f"images/{frame:04d}_{kind}.png", b"\x89PNG")
        history.add("page.png", b"\x89PNG")
    assert len(history.pictures) == 2 * 60
    assert "images/0199_sent.png" in history.pictures


def test_words_that_differ_are_marked_and_none_is_taken_for_html():
    assert marked("a dog runs", "a dog runs") == ("a dog runs", "a dog runs")
    before, after = marked("a <script> dog", "a <script> wet cat")
    assert before == "a &lt;script&gt; <del>dog</del>"
    assert after == "a &lt;script&gt; <ins>wet cat</ins>"


def test_odd_pieces_break_nothing(history):
    for data in (np.full(64, np.nan, np.complex64), np.zeros(0, np.complex64), np.ones(3, np.complex64) * 1e30):
        history.add("link.air.symbols", Packet(data).tagged(modulation="16qam"))
    assert np.isfinite(history.streams["link.air.symbols"].densities["all"]).all()
