"""A GNU Radio flowgraph between two of Semflow's blocks: what `gnuradio_sink` sends, through a block, to
`gnuradio_source`. Put your own blocks in the place of `blocks.copy`.

    /usr/bin/python3 streams.py --receive tcp://127.0.0.1:5555 --send tcp://127.0.0.1:5556 --item complex64
"""

import argparse
import signal

from gnuradio import blocks, gr, zeromq

SIZES = {"complex64": 8, "float32": 4, "int32": 4, "int16": 2, "uint8": 1}
TIMEOUT_MS = 1  # by default a ZMQ source of GNU Radio 3.10.5 holds items back for 100 ms


def flowgraph(options):
    """Return ZMQ Source -> copy -> ZMQ Sink, of the pattern asked for, as GNU Radio 3.10.5 has them."""
    size, vlen, key = SIZES[options.item], options.vlen, options.key
    receive, send, tags = options.receive, options.send, options.tags
    if options.pattern == "push":
        source = zeromq.pull_source(size, vlen, receive, TIMEOUT_MS, tags)
        sink = zeromq.push_sink(size, vlen, send, TIMEOUT_MS, tags)
    elif options.pattern == "pub":
        source = zeromq.sub_source(size, vlen, receive, TIMEOUT_MS, tags, -1, key)
        sink = zeromq.pub_sink(size, vlen, send, TIMEOUT_MS, tags, -1, key)
    else:
        source = zeromq.req_source(size, vlen, receive, TIMEOUT_MS, tags)
        sink = zeromq.rep_sink(size, vlen, send, TIMEOUT_MS, tags)
    top = gr.top_block()
    top.connect(source, blocks.copy(size * vlen), sink)
    return top


def main():
    parser = argparse.ArgumentParser(description="Pass a stream on.")
    parser.add_argument("--receive", required=True, help="endpoint of gnuradio_sink, which binds")
    parser.add_argument("--send", required=True, help="endpoint to bind, to which gnuradio_source connects")
    parser.add_argument("--pattern", choices=("push", "pub", "rep"), default="push")
    parser.add_argument("--item", choices=SIZES, default="complex64")
    parser.add_argument("--vlen", type=int, default=1)
    parser.add_argument("--key", default="", help="for --pattern pub")
    parser.add_argument("--tags", action="store_true", help="pass_tags")
    top = flowgraph(parser.parse_args())
    top.start()
    signal.sigwait([signal.SIGINT, signal.SIGTERM])
    top.stop()
    top.wait()


if __name__ == "__main__":
    main()
