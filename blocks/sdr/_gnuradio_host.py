"""A GNU Radio flowgraph as the child of a block: a channel between two ZeroMQ sockets, or a radio on one or both.

Runs under the Python that GNU Radio is installed for, never in ours. The parent speaks through stdin, in lines of JSON:
what to open, when to start, then what to change (a channel's noise, a radio's frequency and gains), or how many samples
a radio has taken; the end of it, which comes however the parent ends, ends the flowgraph. Lines of JSON on stdout
answer: which GNU Radio is here, and what could not be. The folder of the sockets, which the command line names, goes
with it.
"""

import contextlib
import ctypes
import json
import os
import shutil
import sys

TIMEOUT_MS = 1  # by default a ZMQ source of GNU Radio 3.10.5 holds items back for 100 ms
COMPLEX64 = 8
SINUSOIDS = 8  # that make up fading
PLUTO_SAMPLES = 1 << 15  # of a buffer
PLUTO_TRANSMITS = -89.75, 0.0  # dB: gr-iio does not tell
RATE_WITHIN = 1e-6  # of what was asked for
UNBUFFERED = 2  # _IONBF of stdio.h


def channel(stages):
    """Return the blocks of a channel: fading, then taps, clock, carrier and noise."""
    from gnuradio import channels

    made = []
    if fading := stages.get("fading"):
        made.append(channels.fading_model(SINUSOIDS, fading["doppler"], fading["direct"], fading["k"], stages["seed"]))
    offsets = stages["carrier_offset"], stages["step"]
    made.append(channels.channel_model(stages["noise"], *offsets, stages["taps"], stages["seed"], False))
    return made


def within(what, value, low, high):
    """Refuse what the device that is attached cannot do."""
    if not low <= value <= high:
        raise ValueError(f"{what} must be within {low:g} to {high:g} on this device, not {value:g}")


def gain(order, side, low, high):
    """Return the gain asked for, or the device's least."""
    name = f"{side}_gain"
    if order[name] is None:
        return low
    within(name, order[name], low, high)
    return order[name]


def exactly(asked, made):
    """Refuse a sample rate that the device has taken for another: all of a signal's times would be wrong."""
    if abs(made - asked) > RATE_WITHIN * asked:
        raise ValueError(f"sample_rate must be one that this device has, such as {made:.9g}, not {asked:.9g}")


def usrp(order, transmits):
    """Return the receiver or the transmitter of a USRP."""
    from gnuradio import uhd

    make = uhd.usrp_sink if transmits else uhd.usrp_source
    radio = make(order["address"], uhd.stream_args(cpu_format="fc32", channels=[0]))
    side = "transmit" if transmits else "receive"
    radio.set_clock_source(order["clock_source"], 0)
    radio.set_time_source(order["time_source"], 0)
    radio.set_samp_rate(order["sample_rate"])
    exactly(order["sample_rate"], radio.get_samp_rate())
    usrp_frequency(radio, order, side)
    usrp_gain(radio, order, side)
    if order[f"{side}_antenna"]:
        radio.set_antenna(order[f"{side}_antenna"], 0)
    return radio


def usrp_frequency(radio, order, side):
    from gnuradio import uhd

    frequencies = radio.get_freq_range(0)
    within("frequency", order["frequency"], frequencies.start(), frequencies.stop())
    radio.set_center_freq(uhd.tune_request(order["frequency"]), 0)


def usrp_gain(radio, order, side):
    gains = radio.get_gain_range(0)
    radio.set_gain(gain(order, side, gains.start(), gains.stop()), 0)


def soapy(order, transmits):
    """Return the receiver or the transmitter of a device that SoapySDR has a driver for."""
    from gnuradio import soapy

    radio = (soapy.sink if transmits else soapy.source)(order["address"], "fc32", 1, "", "", [""], [""])
    side = "transmit" if transmits else "receive"
    for what in ("clock_source", "time_source"):
        if order[what] != "internal":
            getattr(radio, f"set_{what}")(order[what])
    radio.set_sample_rate(0, order["sample_rate"])
    exactly(order["sample_rate"], radio.get_sample_rate(0))
    soapy_frequency(radio, order, side)
    if radio.has_gain_mode(0):
        radio.set_gain_mode(0, False)
    soapy_gain(radio, order, side)
    if order[f"{side}_antenna"]:
        radio.set_antenna(0, order[f"{side}_antenna"])
    return radio


def soapy_frequency(radio, order, side):
    frequencies = radio.get_frequency_range(0)
    within("frequency", order["frequency"], frequencies[0].minimum(), frequencies[-1].maximum())
    radio.set_frequency(0, order["frequency"])


def soapy_gain(radio, order, side):
    gains = radio.get_gain_range(0)
    radio.set_gain(0, gain(order, side, gains.minimum(), gains.maximum()))


def pluto(order, transmits):
    """Return the receiver or the transmitter of an ADALM-Pluto, whose transmit gain is an attenuation."""
    from gnuradio import iio

    address = order["address"] or iio.get_pluto_uri()
    if transmits:
        radio = iio.fmcomms2_sink_fc32(address, [True, True], PLUTO_SAMPLES, False)
    else:
        radio = iio.fmcomms2_source_fc32(address, [True, True], PLUTO_SAMPLES)
        radio.set_gain_mode(0, "manual")
        radio.set_quadrature(True)
        radio.set_rfdc(True)
        radio.set_bbdc(True)
    side = "transmit" if transmits else "receive"
    pluto_gain(radio, order, side)
    pluto_frequency(radio, order, side)
    radio.set_samplerate(round(order["sample_rate"]))
    radio.set_filter_params("Auto", "", 0, 0)
    return radio


def pluto_frequency(radio, order, side):
    radio.set_frequency(round(order["frequency"]))


def pluto_gain(radio, order, side):
    if side == "transmit":
        radio.set_attenuation(0, -gain(order, side, *PLUTO_TRANSMITS))
    else:
        radio.set_gain(0, order["receive_gain"])


RADIOS = {"usrp": usrp, "soapy": soapy, "pluto": pluto}
FREQUENCIES = {"usrp": usrp_frequency, "soapy": soapy_frequency, "pluto": pluto_frequency}
GAINS = {"usrp": usrp_gain, "soapy": soapy_gain, "pluto": pluto_gain}


def turn(radios, order, change):
    """Have radios, by their side, take another frequency or gain; where one cannot, all keep what they had."""

    def take(wanted):
        for side, radio in radios.items():
            if "frequency" in change:
                FREQUENCIES[order["driver"]](radio, wanted, side)
            if f"{side}_gain" in change:
                GAINS[order["driver"]](radio, wanted, side)

    try:
        take({**order, **change})
    except Exception:
        take(order)
        raise
    order.update(change)


def opened(order):
    """Return the flowgraph of an order, and what can be changed in it: a channel, or radios by their side."""
    from gnuradio import blocks, gr, zeromq

    top = gr.top_block()
    sink = zeromq.push_sink(COMPLEX64, 1, order["send"], TIMEOUT_MS) if order["send"] else None
    source = zeromq.pull_source(COMPLEX64, 1, order["receive"], TIMEOUT_MS) if order["receive"] else None
    if "driver" not in order:
        between = channel(order)
        top.connect(source, *between, sink)
        return top, {"channel": between[-1]}
    radio, radios = RADIOS[order["driver"]], {}
    if sink:
        radios["receive"] = radio(order, False)
        top.connect(radios["receive"], sink)
    if source:
        radios["transmit"] = radio(order, True)
        top.connect(source, blocks.multiply_const_cc(1 / order["full_scale"]), radios["transmit"])
    return top, radios


def devices():
    """Return what is attached, a line each."""

    def usrps():
        from gnuradio import uhd

        return [each.to_string() for each in uhd.find(uhd.device_addr(""))]

    def soapies():
        import SoapySDR

        return [str(each) for each in SoapySDR.Device.enumerate()]

    def plutos():
        from gnuradio import iio

        try:
            return [iio.get_pluto_uri()]
        except RuntimeError as error:  # none, or more than one
            return [] if "No Pluto" in str(error) else [f"none chosen: {error}"]

    found = []
    packages = {"usrp": "gnuradio", "soapy": "python3-soapysdr", "pluto": "gnuradio"}
    for driver, look in (("usrp", usrps), ("soapy", soapies), ("pluto", plutos)):
        try:
            lines = [f"address: {each}" for each in look()] or ["none found"]
        except ImportError:
            lines = [f"cannot be looked for: apt-get install {packages[driver]}"]
        except RuntimeError as error:
            lines = [f"cannot be looked for: {error}"]
        found += [f"{driver:6} {line}" for line in lines]
    return found


def serve(order, say):
    """Open the flowgraph of an order, and do as the parent says for as long as it does."""

    def tried(step):
        """Return what a step makes; say why it could not be made."""
        try:
            return step()
        except Exception as error:  # of whatever kind the drivers have
            say(fault=" ".join(str(error).split()) or type(error).__name__)
            return None

    if (made := tried(lambda: opened(order))) is None:
        return
    top, ends = made
    say(opened=True)
    for line in sys.stdin:
        change = json.loads(line)
        if not change:
            top.start()
        elif "noise" in change:
            ends["channel"].set_noise_voltage(change["noise"])
        elif "taken" in change:
            say(taken=ends["transmit"].nitems_read(0))
        elif tried(lambda change=change: turn(ends, order, change) or True):
            say(turned=True)


def converse(say):
    """Say which GNU Radio is here; take an order, and carry it out."""
    try:
        from gnuradio import gr
    except ImportError as error:
        say(missing=str(error))
        return
    say(version=gr.version())
    line = sys.stdin.readline()
    if not line:
        return
    order = json.loads(line)
    if "devices" in order:
        say(devices=devices())
    else:
        serve(order, say)


def main():
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed belongs into the log
    libc = ctypes.CDLL(None)
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, UNBUFFERED, 0)  # gr-iio prints O and U there

    def say(**facts):
        answer.write(json.dumps(facts) + "\n")
        answer.flush()

    with contextlib.suppress(BrokenPipeError):  # the parent has died
        converse(say)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    os._exit(0)  # nobody listens any more: a sink that waits for its peer is not waited for


if __name__ == "__main__":
    main()
