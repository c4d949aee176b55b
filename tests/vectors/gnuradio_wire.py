"""Makes gnuradio_wire.json with GNU Radio 3.10 and the Python that it is installed for: `/usr/bin/python3 FILE`.

Bytes in hex: PMTs as `pmt.serialize_str` writes them, and messages as its ZeroMQ sinks send them.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pmt
import zmq
from gnuradio import blocks, gr, zeromq


def values():
    """Return a PMT of every type, by name."""
    symbol, integer = pmt.intern, pmt.from_long
    metadata = pmt.dict_add(pmt.make_dict(), symbol("len"), integer(4))
    two = pmt.dict_add(metadata, symbol("rate"), pmt.from_double(0.5))
    nested = pmt.dict_add(pmt.make_dict(), symbol("inner"), two)
    u8 = pmt.init_u8vector(4, [0xDE, 0xAD, 0xBE, 0xEF])
    return {
        "true": pmt.PMT_T,
        "false": pmt.PMT_F,
        "nil": pmt.PMT_NIL,
        "symbol": symbol("packet_len"),
        "utf8": symbol("größe"),
        "empty_symbol": symbol(""),
        "int32": integer(-3),
        "int64": integer(-(1 << 40)),
        "uint64": pmt.from_uint64((1 << 64) - 2),
        "small_uint64": pmt.from_uint64(5),
        "double": pmt.from_double(-0.1),
        "complex": pmt.from_complex(1.5, -2.0),
        "pair": pmt.cons(symbol("a"), integer(1)),
        "list": pmt.list3(integer(1), symbol("b"), pmt.PMT_T),
        "dict": two,
        "nested_dict": nested,
        "empty_dict": pmt.make_dict(),
        "vector": pmt.to_pmt([1, 2.5, "x"]),
        "empty_vector": pmt.make_vector(0, pmt.PMT_NIL),
        "tuple": pmt.make_tuple(pmt.from_uint64((1 << 63) + 1), pmt.from_double(0.25)),
        "u8vector": u8,
        "s8vector": pmt.init_s8vector(2, [-1, 2]),
        "u16vector": pmt.init_u16vector(2, [1, 65535]),
        "s16vector": pmt.init_s16vector(2, [-2, 3]),
        "u32vector": pmt.init_u32vector(2, [1, 1 << 31]),
        "s32vector": pmt.init_s32vector(2, [-1, 1 << 30]),
        "u64vector": pmt.init_u64vector(2, [1, 1 << 63]),
        "s64vector": pmt.init_s64vector(2, [-1, 1 << 62]),
        "f32vector": pmt.init_f32vector(2, [0.5, -1.25]),
        "f64vector": pmt.init_f64vector(2, [0.1, -1e300]),
        "c32vector": pmt.init_c32vector(1, [1 - 2j]),
        "c64vector": pmt.init_c64vector(1, [0.1 + 0.2j]),
        "empty_u8vector": pmt.init_u8vector(0, []),
        "pdu": pmt.cons(metadata, u8),
        "pdu_without_metadata": pmt.cons(pmt.PMT_NIL, pmt.init_c32vector(1, [1 - 2j])),
    }


def stream_message(sink, items, source, kind):
    """Return the parts of the first message that a GNU Radio sink sends of `items`."""
    context = zmq.Context()
    with tempfile.TemporaryDirectory() as folder:
        top, address = gr.top_block(), f"ipc://{folder}/wire"
        top.connect(source(items), sink(address))
        top.start()
        socket = context.socket(kind)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(address)
        if kind == zmq.REQ:
            socket.send((1000).to_bytes(4, "little"))
        parts = [part.hex() for part in socket.recv_multipart()]
        socket.close(0)
        top.stop()
        top.wait()
    context.term()
    return parts


def streams():
    """Return messages of every item type, of a key, and with tags."""
    tags = [
        gr.tag_utils.python_to_tag((2, pmt.intern("packet_len"), pmt.from_long(3), pmt.intern("py"))),
        gr.tag_utils.python_to_tag((4, pmt.intern("gain"), pmt.from_complex(0.5, 0.25), pmt.PMT_F)),
    ]
    types = {
        "complex64": (gr.sizeof_gr_complex, blocks.vector_source_c, [1 + 2j, -0.5j]),
        "float32": (gr.sizeof_float, blocks.vector_source_f, [0.5, -1.25]),
        "int32": (gr.sizeof_int, blocks.vector_source_i, [1, -70000]),
        "int16": (gr.sizeof_short, blocks.vector_source_s, [1, -300]),
        "uint8": (gr.sizeof_char, blocks.vector_source_b, [1, 255]),
    }
    made = {}
    for name, (size, source, items) in types.items():
        made[name] = stream_message(
            lambda a, size=size: zeromq.push_sink(size, 1, a, 100, False), items, source, zmq.PULL
        )
    repeated, size = (lambda items: blocks.vector_source_b(items, True)), gr.sizeof_char
    key = stream_message(
        lambda a: zeromq.pub_sink(size, 1, a, 100, False, -1, "key"), list(range(16)) * 256, repeated, zmq.SUB
    )
    made["key"] = [key[0]]
    made["reply"] = stream_message(
        lambda a: zeromq.rep_sink(size, 1, a, 100, False), [1, 2, 3], blocks.vector_source_b, zmq.REQ
    )
    made["tags"] = stream_message(
        lambda a: zeromq.push_sink(size, 1, a, 100, True),
        list(range(8)),
        lambda items: blocks.vector_source_b(items, False, 1, tags),
        zmq.PULL,
    )
    return made


def main():
    found = {
        "version": gr.version(),
        "numpy": np.__version__,
        "pmt": {name: pmt.serialize_str(value).hex() for name, value in values().items()},
        "stream": streams(),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    main()
