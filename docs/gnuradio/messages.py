"""A GNU Radio flowgraph between two of Semflow's blocks: the PDUs that `gnuradio_message_sink` sends, through a block,
to `gnuradio_message_source`. Put your own blocks in the place of `blocks.pdu_set`.

    /usr/bin/python3 messages.py --receive tcp://127.0.0.1:5555 --send tcp://127.0.0.1:5556
"""

import argparse
import signal

import pmt
from gnuradio import gr, pdu, zeromq

TIMEOUT_MS = 10


def flowgraph(options):
    """Return ZMQ Message Source -> PDU Set -> ZMQ Message Sink, of the pattern asked for."""
    if options.pattern == "push":
        source, sink = zeromq.pull_msg_source, zeromq.push_msg_sink
    elif options.pattern == "pub":
        source, sink = zeromq.sub_msg_source, zeromq.pub_msg_sink
    else:
        source, sink = zeromq.req_msg_source, zeromq.rep_msg_sink
    top = gr.top_block()
    seen = pdu.pdu_set(pmt.intern("seen"), pmt.PMT_T)
    incoming, outgoing = source(options.receive, TIMEOUT_MS, False), sink(options.send, TIMEOUT_MS, True)
    top.msg_connect(incoming, "out", seen, "pdus")
    top.msg_connect(seen, "pdus", outgoing, "in")
    return top


def main():
    parser = argparse.ArgumentParser(description="Pass PDUs on.")
    parser.add_argument("--receive", required=True, help="endpoint of gnuradio_message_sink, which binds")
    parser.add_argument("--send", required=True, help="endpoint to bind, to which gnuradio_message_source connects")
    parser.add_argument("--pattern", choices=("push", "pub", "rep"), default="push")
    top = flowgraph(parser.parse_args())
    top.start()
    signal.sigwait([signal.SIGINT, signal.SIGTERM])
    top.stop()
    top.wait()


if __name__ == "__main__":
    main()
