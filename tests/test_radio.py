"""Radios through GNU Radio's drivers, as far as that goes without one: limits, faults, a loop in a radio's place."""

import subprocess
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
from conftest import ROOT, program
from test_gnuradio import PYTHON, missing

from blocks.sdr import _gnuradio_host
from blocks.sdr.gnuradio_radio import GnuradioRadio, GnuradioTransmitter
from blocks.sdr.host import Host
from blocks.sdr.waveform import BurstModulator
from flowgraph import Flowgraph, Packet
from flowgraph.block import BlockError, Context, ParamsError
from flowgraph.changes import Changes
from flowgraph.spec import ChangeSpec
from flowgraph.testing import run_block

with_gnuradio = pytest.mark.skipif(
    missing(), reason="needs GNU Radio: apt-get install --no-install-recommends gnuradio"
)
USRP = {"driver": "usrp", "frequency": "2.45 GHz"}

# A program in the place of the one that holds the radio, with what drivers print now and then: what is sent comes back,
# or, if nothing receives, goes into the file `air`, of which a program that sends nothing receives what there is
LOOP = """\
import json, pathlib, sys, zmq
print(json.dumps({"version": "3.10.5.1"}), flush=True)
order = json.loads(sys.stdin.readline())
print(json.dumps({"opened": True}), flush=True)
sys.stdin.readline()
air = pathlib.Path(__file__).with_name("air")
context = zmq.Context()
to, back, came = context.socket(zmq.PULL), context.socket(zmq.PUSH), 0
print("[INFO] [UHD] I/O OK\\nUUusrp_sink :error: In the last 9 ms, 2 underflows occurred.", file=sys.stderr, flush=True)
print("UOsO[WARNING] D", file=sys.stderr, flush=True)
if order["send"]:
    back.bind(order["send"])
if order["receive"]:
    to.connect(order["receive"])
else:
    back.send(air.read_bytes() if air.exists() else bytes(8 * 100))
poller = zmq.Poller()
poller.register(to), poller.register(sys.stdin)
while True:
    for end, _ in poller.poll():
        if end is to:
            samples = to.recv()
            came += len(samples) // 8
            back.send(samples) if order["send"] else air.open("ab").write(samples)
        elif not (line := sys.stdin.readline()):
            sys.exit()
        elif "taken" in line:
            print(json.dumps({"taken": came}), flush=True)
        else:
            print(json.dumps({"fault": "not here"} if json.loads(line).get("frequency") == 2.6e9 else {"turned": True}),
                  flush=True)
"""


@pytest.fixture
def loop(tmp_path):
    (tmp_path / "loop.py").write_text(LOOP)
    return program(tmp_path, f"exec {sys.executable} {tmp_path}/loop.py")


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (USRP | {"frequency": "9 GHz"}, "must have a frequency within 0 to 8e\\+09 Hz on usrp, not 9e\\+09"),
        (USRP | {"receive_gain": "95 dB"}, "must have a receive_gain within 0 to 90 dB on usrp, not 95"),
        (USRP | {"driver": "pluto", "frequency": "100 MHz"}, "frequency within 3.25e\\+08 to 3.8e\\+09 Hz on pluto"),
        (USRP | {"driver": "pluto", "transmit_gain": "1 dB"}, "transmit_gain within -89.75 to 0 dB on pluto, not 1"),
        (USRP | {"driver": "pluto", "sample_rate": "100 MHz"}, "sample_rate within 521000 to 6.144e\\+07 Hz on pluto"),
        (USRP | {"driver": "pluto", "clock_source": "external"}, "must have internal as clock_source"),
        (USRP | {"transmit_from": "tcp://10.0.0.1:5557", "transmit": True}, "endpoint on this machine"),
    ],
)
def test_what_no_such_radio_can_do_is_refused_before_anything_starts(params, sentence):
    with pytest.raises(ParamsError, match=sentence):
        GnuradioRadio(params)


def test_nothing_is_sent_that_was_not_allowed(tmp_path):
    params = USRP | {"python": str(tmp_path / "never"), "transmit_from": "tcp://127.0.0.1:5557"}
    with pytest.raises(BlockError, match="must have transmit: true to send anything"):
        run_block(GnuradioRadio(params))


@with_gnuradio
@pytest.mark.parametrize("driver", ["usrp", "soapy", "pluto"])
def test_a_device_that_is_not_there_is_one_sentence(driver):
    address = {"usrp": "serial=0000", "soapy": "driver=nobody", "pluto": "ip:127.0.0.1"}[driver]
    params = {"driver": driver, "address": address, "frequency": "2.45 GHz"}
    with pytest.raises(BlockError, match=f"cannot open the {driver} '{address}': .*; `devices` lists") as error:
        run_block(GnuradioRadio(params))
    assert "\n" not in str(error.value)


@with_gnuradio
def test_devices_are_listed(cli):
    ended = cli.run("devices")
    assert (ended.returncode, ended.stderr.count("Traceback")) == (0, 0)
    assert ended.stdout.strip()


def test_late_samples_are_counted_told_and_reported(loop):
    told, figures = [], {}
    context = Context(warn=told.append, report=lambda section, frame, values: figures.update(values))
    params = USRP | {"python": loop, "duration": "0.3 s"}
    made = run_block(GnuradioRadio(params, "radio", context))["samples"]
    assert sum(packet.count for packet in made) == 100
    assert [packet.last for packet in made] == [False] * (len(made) - 1) + [True]
    assert (made[0].tag("sample_rate"), made[0].tag("center_frequency")) == (1e6, 2.45e9)
    assert (figures["overruns"], figures["underruns"]) == (3, 3)
    assert figures["radio"] == {"version": "3.10.5.1", "samples": 100, "overruns": 3, "underruns": 3}
    assert sorted(sentence.split(",")[0] for sentence in told) == ["the radio has overruns", "the radio has underruns"]
    assert all("lower sample_rate" in sentence for sentence in told)


def test_frequency_and_gain_are_turned_while_it_runs(loop):
    told = []
    block = GnuradioRadio(USRP | {"python": loop, "duration": "0.3 s"}, "radio")
    changes = Changes(block, tell=lambda number, change, fault: told.append((change.parameter, change.value, fault)))
    block.start()
    try:
        stream = block.produce()
        assert next(stream).tag("center_frequency") == 2.45e9
        for name, value in [("frequency", "2.4 GHz"), ("receive_gain", 30), ("frequency", 2.6e9), ("frequency", 9e9)]:
            changes.ask(0, ChangeSpec("radio", name, value))
        changes.take_place(0, 100)
        assert [packet.tag("center_frequency") for packet in stream] == [2.4e9]
    finally:
        block.stop()
    assert told[:3] == [("frequency", 2.4e9, ""), ("receive_gain", 30.0, ""), ("frequency", 2.4e9, "not here")]
    assert "frequency within 0 to 8e+09 Hz on usrp" in told[3][2]


def test_a_radio_that_gives_nothing_is_told_of(loop):
    with pytest.raises(BlockError, match=r"GNU Radio 3\.10\.5\.1 has given nothing for 0.3 s"):
        run_block(GnuradioRadio(USRP | {"python": loop, "wait": "0.3 s"}))


def looped(folder, loop, link, *overlays, items, **variables):
    """Return `configs/radio_check.yaml` over a link of `configs/links/`, with a loop in the radio's place."""
    (folder / "loop.yaml").write_text(
        f"subgraph: loop\nextends: {ROOT}/configs/links/{link}\nvars: {{endpoint: 'ipc://{folder}/to'}}\n"
    )
    used = f"{{graph: loop.yaml, transmit: true, items: {items}, sample_rate: $sample_rate, python: {loop}}}"
    (folder / "overlay.yaml").write_text(f"blocks: {{link: {used}}}\n")
    overlays = [ROOT / "configs/overlays" / name for name in overlays] + [folder / "overlay.yaml"]
    return Flowgraph.load(ROOT / "configs/radio_check.yaml", overlays=overlays, **variables)


def test_bits_pass_the_link_that_the_overlays_name(tmp_path, loop):
    frames = [Packet(np.zeros(5000, np.uint8), number, count=40_000, packed=True, last=True) for number in range(5)]
    samples = sum(each.count for each in run_block(BurstModulator({"gap": 20_000}), {"bits": frames})["samples"])
    check = looped(tmp_path, loop, "radio.yaml", items=samples, bits="200 kbit")
    link = check.run(tmp_path / "out").sections["link"]
    assert (link["bits"], link["bit_errors"], link["packets_lost"]) == (200_000, 0, 0)


def test_a_tone_passes_the_link_that_the_overlays_name(tmp_path, loop):
    count = 1 << 18
    check = looped(tmp_path, loop, "tone/radio.yaml", "tone.yaml", items=count, tone_samples=count, sample_rate="1 MHz")
    link = check.run(tmp_path / "out").sections["link"]
    assert (link["windows"], link["windows_without_tone"]) == (4, 0)
    assert (link["level_dbfs"], link["frequency_hz"]) == (pytest.approx(0, abs=1e-4), pytest.approx(100e3, abs=1e-3))


@pytest.mark.parametrize(
    ("overlays", "measured"),
    [
        ([], "carrier_offset_hz"),
        (["tone"], "frequency_offset_hz"),
        pytest.param(["gnuradio", "tone"], "frequency_offset_hz", marks=with_gnuradio),
    ],
)
def test_a_simulated_radio_has_the_sample_rate_that_is_set(tmp_path, overlays, measured):
    laid = [ROOT / f"configs/overlays/{name}.yaml" for name in overlays]
    size = {"tone_samples": 1 << 17} if "tone" in overlays else {"bits": "40 kbit"}
    graph = Flowgraph.load(ROOT / "configs/radio_check.yaml", overlays=laid, sample_rate="4 MHz", **size)
    assert graph.run(tmp_path / "out").sections["link"][measured] == pytest.approx(15e3, abs=150)


@pytest.fixture
def half(tmp_path, loop):
    """Return a function that runs one end of a link with two radios, the air between them being a file.

    The receiver's ends with what is in it.
    """

    def run(end, python=loop, **variables):
        radio = tmp_path / "radio.yaml"
        ends = f"items: {(tmp_path / 'air').stat().st_size // 8}" if "receiver" in end else "transmit: true"
        link = f"graph: '{ROOT}/configs/${{links}}/radio.yaml', sample_rate: $sample_rate, python: {python}, {ends}"
        radio.write_text(f"blocks: {{link: {{{link}}}}}\n")
        overlays = [radio, ROOT / f"configs/overlays/two_radios/{end}.yaml"]
        return Flowgraph.load(ROOT / "configs/radio_check.yaml", overlays=overlays, **variables).run(tmp_path / end)

    return run


def test_one_machine_transmits_bits_and_another_receives_them(half, tmp_path):
    sent = half("check_transmitter", bits="80 kbit").sections
    assert sent["gnuradio"]["link.send"]["samples"] == (tmp_path / "air").stat().st_size // 8
    assert sent["link"]["underruns"] == 3
    link = half("check_receiver", bits="80 kbit").sections["link"]
    assert (link["bits"], link["bit_errors"], link["packets_found"], link["packets_lost"]) == (80_000, 0, 6, 0)


def test_one_machine_transmits_a_tone_and_another_measures_it(half):
    half("tone_transmitter", tone_samples=1 << 17)
    link = half("tone_receiver").sections["link"]
    assert (link["windows"], link["windows_without_tone"]) == (2, 0)
    assert link["frequency_offset_hz"] == pytest.approx(0, abs=1e-3)


# A program that has GNU Radio's own blocks in the place of drivers
FILES = f"""\
import ctypes, importlib.util
from gnuradio import blocks
spec = importlib.util.spec_from_file_location("host", "{ROOT}/blocks/sdr/_gnuradio_host.py")
host = importlib.util.module_from_spec(spec)
spec.loader.exec_module(host)
def usrp(order, transmits):
    made = blocks.file_sink(8, "AIR") if transmits else blocks.file_source(8, "AIR", False)
    if transmits:
        made.set_unbuffered(True)
    ctypes.CDLL(None).printf(b"U" if transmits else b"O")  # as gr-iio does
    return made
host.RADIOS["usrp"] = usrp
host.main()
"""


@with_gnuradio
def test_gnuradio_sends_every_sample_before_the_run_ends(half, tmp_path):
    (tmp_path / "files.py").write_text(FILES.replace("AIR", str(tmp_path / "air")))
    python = program(tmp_path, f"exec {PYTHON} -I {tmp_path}/files.py $3")
    sent = half("check_transmitter", python, bits="80 kbit").sections
    assert sent["gnuradio"]["link.send"]["samples"] == (tmp_path / "air").stat().st_size // 8
    link = half("check_receiver", python, bits="80 kbit").sections["link"]
    assert (link["bits"], link["bit_errors"], link["packets_lost"]) == (80_000, 0, 0)
    assert (sent["link"]["underruns"], link["overruns"]) == (1, 1)


def test_a_transmitter_that_takes_nothing_is_told_of(loop, tmp_path):
    (tmp_path / "loop.py").write_text(LOOP.replace("to.connect", "to.bind"))
    params = USRP | {"python": loop, "transmit": True, "wait": "0.3 s"}
    with pytest.raises(BlockError, match=r"GNU Radio 3\.10\.5\.1 has taken nothing for 0.3 s"):
        run_block(GnuradioTransmitter(params), {"samples": [Packet(np.zeros(9, np.complex64), last=True)]})


def test_a_transmitter_is_not_opened_without_leave():
    with pytest.raises(BlockError, match="must have transmit: true to send anything"):
        run_block(GnuradioTransmitter(USRP), {"samples": []})


@pytest.mark.parametrize("overlay", ["usrp", "soapy", "pluto"])
@pytest.mark.parametrize("end", ["transmitter", "receiver"])
@pytest.mark.parametrize(("job", "kind"), [("main", ""), ("radio_check", "check_"), ("radio_check", "tone_")])
def test_two_radios_fit_every_overlay(overlay, end, job, kind):
    overlays = [ROOT / f"configs/overlays/{name}.yaml" for name in (overlay, f"two_radios/{kind}{end}")]
    Flowgraph.load(ROOT / f"configs/{job}.yaml", overlays=overlays)


@pytest.mark.parametrize("overlay", ["usrp", "soapy", "pluto", "gnuradio"])
@pytest.mark.parametrize("further", [(), ("tone",)])
def test_the_radio_check_fits_every_overlay(overlay, further):
    overlays = [ROOT / f"configs/overlays/{name}.yaml" for name in (overlay, *further)]
    Flowgraph.load(ROOT / "configs/radio_check.yaml", overlays=overlays)


# What the program asks of the drivers

ORDER = {
    "address": "ip:10.0.0.2", "frequency": 2.45e9, "sample_rate": 2e6, "receive_gain": 20.0, "transmit_gain": -30.0,
    "receive_antenna": "RX2", "transmit_antenna": "TX", "clock_source": "external", "time_source": "external",
}  # fmt: skip
CLASSES = {
    ("usrp", False): "uhd.usrp_source",
    ("usrp", True): "uhd.usrp_sink",
    ("soapy", False): "soapy.source",
    ("soapy", True): "soapy.sink",
    ("pluto", False): "iio.fmcomms2_source_fc32",
    ("pluto", True): "iio.fmcomms2_sink_fc32",
}


@pytest.fixture
def asked(monkeypatch):
    """Return a function that returns a driver's stand-in, which notes what it is asked."""
    gnuradio = MagicMock()
    monkeypatch.setitem(sys.modules, "gnuradio", gnuradio)

    def ask(driver, transmits, low=-90.0, high=6e9, rate=ORDER["sample_rate"], order=ORDER):
        radio = MagicMock()
        module, name = CLASSES[driver, transmits].split(".")
        setattr(getattr(gnuradio, module), name, MagicMock(return_value=radio))
        for limits in (radio.get_freq_range(), radio.get_gain_range()):
            limits.start.return_value, limits.stop.return_value = low, high
        radio.get_frequency_range.return_value = [radio.get_gain_range.return_value]
        radio.get_gain_range().minimum.return_value, radio.get_gain_range().maximum.return_value = low, high
        radio.get_samp_rate.return_value = radio.get_sample_rate.return_value = rate
        radio.reset_mock()
        assert _gnuradio_host.RADIOS[driver](order, transmits) is radio
        return {name: args for name, args, _ in radio.method_calls if "()" not in name}

    return ask


@pytest.mark.parametrize(("driver", "transmits"), CLASSES)
def test_drivers_are_asked_for_what_the_parameters_say(asked, driver, transmits):
    said = asked(driver, transmits)
    gain = (-30.0 if transmits else 20.0,)
    if driver == "pluto":
        assert said["set_frequency"] == (2_450_000_000,)
        assert said["set_samplerate"] == (2_000_000,)
        assert said["set_attenuation" if transmits else "set_gain"] == (0, 30.0 if transmits else 20.0)
    else:
        place = (lambda *value: (*value, 0)) if driver == "usrp" else (lambda *value: (0, *value))
        assert said["set_gain"] == place(*gain)
        assert said["set_antenna"] == place("TX" if transmits else "RX2")
        assert said["set_clock_source"][0] == said["set_time_source"][0] == "external"
    if missing():
        return
    names = sorted({name.split(".")[0] for name in said})
    absent = f"[name for name in {names} if not hasattr({CLASSES[driver, transmits]}, name)]"
    program = f"from gnuradio import uhd, soapy, iio; print({absent})"
    found = subprocess.run([PYTHON, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip().splitlines()[-1] == "[]", found.stdout


@pytest.mark.parametrize("driver", ["usrp", "soapy"])
def test_what_the_device_itself_cannot_do_is_refused(asked, driver):
    with pytest.raises(ValueError, match=r"frequency must be within 0 to 1e\+09 on this device, not 2.45e\+09"):
        asked(driver, False, 0.0, 1e9)


@pytest.mark.parametrize("driver", ["usrp", "soapy", "pluto"])
def test_both_sides_are_turned_and_keep_what_they_had_where_one_cannot(asked, driver):
    asked(driver, True)  # for the imports
    order = ORDER | {"driver": driver}
    radios = {"receive": MagicMock(), "transmit": MagicMock()}
    least = MagicMock(**{"start.return_value": 0, "stop.return_value": 6e9, "minimum.return_value": 0})
    least.maximum.return_value = 6e9
    for radio in radios.values():
        radio.get_freq_range.return_value = radio.get_gain_range.return_value = least
        radio.get_frequency_range.return_value = [least]
    _gnuradio_host.turn(radios, order, {"frequency": 1e9})
    _gnuradio_host.turn(radios, order, {"receive_gain": 5.0})
    names = [[name for name, _, _ in radio.method_calls if name.startswith("set_")] for radio in radios.values()]
    tuned = "set_center_freq" if driver == "usrp" else "set_frequency"
    assert names == [[tuned, "set_gain"], [tuned]]
    radios["transmit"].attach_mock(MagicMock(side_effect=[RuntimeError("no"), None]), tuned)
    with pytest.raises(RuntimeError, match="no"):
        _gnuradio_host.turn(radios, order, {"frequency": 2e9})
    assert order["frequency"] == 1e9
    assert len([name for name, _, _ in radios["receive"].method_calls if name == tuned]) == 3


@pytest.mark.parametrize("driver", ["usrp", "soapy", "pluto"])
def test_the_transmit_gain_is_the_least_of_the_device_by_default(asked, driver, loop, monkeypatch):
    orders = []
    monkeypatch.setattr(Host, "open", lambda host, order, *ends: orders.append(order))
    block = GnuradioTransmitter(USRP | {"driver": driver, "python": loop, "transmit": True})
    block.start()
    block.stop()
    said = asked(driver, True, -12.0, rate=1e6, order=orders[0])
    name, value = {
        "usrp": ("set_gain", (-12.0, 0)),
        "soapy": ("set_gain", (0, -12.0)),
        "pluto": ("set_attenuation", (0, 89.75)),
    }[driver]
    assert said[name] == value


@pytest.mark.parametrize(("rate", "set_to"), [(2e6, 2_000_000), (4.1 * 1e6, 4_100_000), (30e6 / 9, 3_333_333)])
def test_a_pluto_gets_the_nearest_whole_number_of_samples_a_second(asked, rate, set_to):
    assert asked("pluto", False, order=ORDER | {"sample_rate": rate})["set_samplerate"] == (set_to,)


@pytest.mark.parametrize("driver", ["usrp", "soapy"])
def test_a_sample_rate_that_the_device_takes_for_another_is_refused(asked, driver):
    with pytest.raises(ValueError, match=r"sample_rate must be one that this device has, such as 1999980, not 2000000"):
        asked(driver, False, rate=1_999_980.0)
    asked(driver, True, rate=2_000_000.01)
