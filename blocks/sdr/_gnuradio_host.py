"""A GNU Radio flowgraph as the child of a block: samples in over ZeroMQ, through a channel, and out again.

Runs under the Python that GNU Radio is installed for, never in ours. The parent speaks through stdin: a line of JSON
says what to run, further ones how strong the noise is now, and the end of it, which comes however the parent ends, that
the flowgraph must go. A line of JSON on stdout says which GNU Radio is here, or why there is none.
"""

import json
import os
import shutil
import sys

TIMEOUT_MS = 1  # by default a ZMQ source of GNU Radio 3.10.5 holds items back for 100 ms
COMPLEX64 = 8
SINUSOIDS = 8  # that make up fading


def channel(stages):
    """Return the blocks of a channel: fading, then taps, clock, carrier and noise."""
    from gnuradio import channels

    made = []
    if fading := stages.get("fading"):
        made.append(channels.fading_model(SINUSOIDS, fading["doppler"], fading["direct"], fading["k"], stages["seed"]))
    offsets = stages["carrier_offset"], stages["step"]
    made.append(channels.channel_model(stages["noise"], *offsets, stages["taps"], stages["seed"], False))
    return made


def main():
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed belongs into the log
    try:
        from gnuradio import gr, zeromq
    except ImportError as error:
        answer.write(json.dumps({"missing": str(error)}) + "\n")
        return
    answer.write(json.dumps({"version": gr.version()}) + "\n")
    answer.flush()
    order = sys.stdin.readline()
    if not order:
        return
    stages = json.loads(order)
    top = gr.top_block()
    source = zeromq.pull_source(COMPLEX64, 1, stages["receive"], TIMEOUT_MS)
    sink = zeromq.push_sink(COMPLEX64, 1, stages["send"], TIMEOUT_MS)
    between = channel(stages)
    top.connect(source, *between, sink)
    top.start()
    for line in sys.stdin:
        between[-1].set_noise_voltage(json.loads(line)["noise"])
    shutil.rmtree(stages["folder"], ignore_errors=True)
    os._exit(0)  # nobody listens any more: a sink that waits for its peer is not waited for


if __name__ == "__main__":
    main()
