"""A user's NumPy function as a block."""

import numpy as np
import pytest

from blocks.function import NumpyFunction
from flowgraph.block import BlockError, Packet
from flowgraph.config.load import ConfigError, load
from flowgraph.testing import check_packet_invariance, run_block

SOURCE = """
import numpy as np

def half(x): return (x / 2).astype(np.complex64)
def pairs(x):
    means = x[: len(x) // 2 * 2].reshape(-1, 2).mean(axis=1)
    return np.concatenate([means, x[len(x) // 2 * 2 :]])

def twice(x): return np.repeat(x, 2)
def invert(bits): return 1 - bits
def fails(x): raise ValueError("no such carrier")
def wrong(x): return x[:-1]
def listed(x): return list(x)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return str(path)


def items(count, dtype="complex64"):
    return [Packet(np.arange(count).astype(dtype), last=True)]


def test_a_function_of_a_file(file):
    made = check_packet_invariance(NumpyFunction, {"file": file, "function": "half"}, {"items": items(100)})["items"]
    np.testing.assert_array_equal(made[0].data, np.arange(100) / 2)


def test_a_function_of_a_module():
    params = {"module": "numpy", "function": "negative", "input": "float32", "output": "float32"}
    made = check_packet_invariance(NumpyFunction, params, {"items": items(10, "float32")})["items"]
    np.testing.assert_array_equal(made[0].data, -np.arange(10))


@pytest.mark.parametrize(
    ("name", "ratio", "want"), [("pairs", "1/2", [0.5, 2.5, 4]), ("twice", 2, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])]
)
def test_more_or_fewer_items_out_than_in(file, name, ratio, want):
    params = {"file": file, "function": name, "input": "float64", "output": "float64", "ratio": ratio}
    made = check_packet_invariance(NumpyFunction, params, {"items": items(5, "float64")})["items"]
    np.testing.assert_array_equal(made[0].data, want)


def test_bits_are_given_one_by_one(file):
    params = {"file": file, "function": "invert", "input": "bits", "output": "bits"}
    frame = Packet(np.array([0b10110000], np.uint8), count=5, packed=True, last=True)
    made = check_packet_invariance(NumpyFunction, params, {"items": [frame]})["items"]
    assert (made[0].count, made[0].data[0]) == (5, 0b01001000)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"file": "mine.py", "function": "half"}, "mine.py could not be imported: FileNotFoundError"),
        ({"module": "no_such_module", "function": "f"}, "no_such_module could not be imported: ModuleNotFoundError"),
        ({"module": "numpy", "function": "no_such"}, "numpy has no function or class no_such"),
        ({"module": "numpy", "function": "pi"}, "numpy has no function or class pi"),
    ],
)
def test_a_function_that_is_not_there(params, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BlockError, match=message):
        run_block(NumpyFunction(params), {"items": items(1)})


GRAPH = """\
flowgraph: mine
blocks:
  tone: {use: tone_source, samples: 10}
  half: {use: numpy_function, file: FILE, function: half}
  drop: {use: error_meter}
wires:
  - tone.samples -> half.items
  - tone.samples -> drop.sent
  - half.items -> drop.received
"""


def test_a_file_is_looked_for_beside_the_graph(file, tmp_path, monkeypatch):
    graph, elsewhere = tmp_path / "graph.yaml", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    graph.write_text(GRAPH.replace("FILE", "mine.py"))
    (half,) = [block for block in load(graph).blocks if block.name == "half"]
    assert half.params["file"] == file
    graph.write_text(GRAPH.replace("FILE", "yours.py"))
    with pytest.raises(ConfigError, match=r"graph.yaml:4:37: blocks.half.file: must be a file"):
        load(graph)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", r"fails failed on 10 complex64: ValueError: no such carrier \(\w+.py:\d+\)"),
        ("wrong", r"must return an array complex64 \(10,\) for 10 items, not complex64 \(9,\)"),
        ("listed", r"must return an array complex64 \(10,\) for 10 items, not list"),
    ],
)
def test_a_function_that_fails(file, name, message):
    with pytest.raises(BlockError, match=message):
        run_block(NumpyFunction({"file": file, "function": name}), {"items": items(10)})


def test_items_of_another_type_are_refused(file):
    with pytest.raises(BlockError, match="input must carry complex64, not float32: set `input` to what arrives"):
        run_block(NumpyFunction({"file": file, "function": "half"}), {"items": items(3, "float32")})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"function": "f"}, "must have exactly one of file and module"),
        ({"function": "f", "file": "a.py", "module": "m"}, "must have exactly one of file and module"),
        ({"function": "f", "file": "a.txt"}, "text of the form"),
        ({"function": "f", "module": "m", "ratio": "1/0"}, "must be a positive number of items out per item in"),
        ({"function": "f", "module": "m", "ratio": -1}, "must be a positive number of items out per item in"),
        ({"function": "f", "module": "m", "input": "float12"}, "complex128"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        NumpyFunction(params)


def test_code_that_exits_is_told_as_any_other_fault(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\ndef quit(x): sys.exit('bad input')\nif __name__ != 'script': sys.exit(3)\n")
    block = NumpyFunction({"file": str(script), "function": "quit"})
    with pytest.raises(BlockError, match=r"^quit failed on 3 complex64: SystemExit: bad input \(script.py:2\)$"):
        run_block(block, {"items": items(3)})
    script.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(BlockError, match=r"script.py could not be imported: SystemExit: 3$"):
        run_block(block, {"items": items(3)})
