"""The JSON Schema for editors accepts what loads and refuses what does not; help comes from the same declarations."""

import json
import re

import pytest
import yaml
from test_load import JOB, LINK
from toy_blocks import Bits, Channel, Demapper, Meter, Scope, toys  # noqa: F401

from flowgraph.config.schema import describe, json_schema


def accepts(schema, value, root):
    """Tell whether a value fits a schema: the few keywords of JSON Schema that ours uses."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    unknown = schema.keys() - {
        *("type", "const", "enum", "pattern", "anyOf", "properties", "required", "additionalProperties", "items"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "minLength"),
        *("description", "title", "default", "x-unit", "path", "live", "$schema", "$defs"),
    }
    assert not unknown
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "null": type(None),
        "integer": int,
        "number": (int, float),
    }
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if wanted and not any(
        isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in wanted
    ):
        return False
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return False
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return False
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    if "anyOf" in schema and not any(accepts(each, value, root) for each in schema["anyOf"]):
        return False
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(
            accepts(schema.get("items", {}), each, root) for each in value
        )
    if isinstance(value, dict):
        more = schema.get("additionalProperties", True)
        properties = schema.get("properties", {})
        return set(schema.get("required", ())) <= value.keys() and all(
            accepts(properties[key], each, root)
            if key in properties
            else (more if isinstance(more, bool) else accepts(more, each, root))
            for key, each in value.items()
        )
    return True


def fits(text):
    schema = json_schema()
    return accepts(schema, yaml.safe_load(text), schema)


OVERLAY = """\
extends: [a.yaml, b.yaml]
vars: {x: [1, 2]}
network: {listen: "tcp://127.0.0.1:5555", insecure: true}
workers: {one: null, two: {blocks: [a, link.b], host: $there, threads: 2}}
blocks:
  a: null
  b: {use: channel, ebn0: 10 dB, rate: $rate, kind: rayleigh, taps: [1, 0.5], memory: 2 MiB}
  c: {use: bits, count: $n, live: $on}
"""


@pytest.mark.parametrize(
    "text", [JOB, LINK, LINK + "signature: phy.yaml\n", OVERLAY], ids=["job", "sub-graph", "signature", "overlay"]
)
def test_the_schema_accepts_what_loads(text):
    assert fits(text)


@pytest.mark.parametrize(
    "text",
    [
        "sede: 3",
        "seed: -1",
        "blocks: {a: {use: chanel}}",
        "blocks: {a: {use: bits, cuont: 3}}",
        "blocks: {a: {use: bits, count: many}}",
        "blocks: {a: {use: channel}}",
        "blocks: {a: {use: channel, ebn0: 10 Hz}}",
        "blocks: {a: {use: channel, ebn0: 1, kind: x}}",
        "wires: [a.b]",
        "wires: [{wire: a.b -> c.d, queue: 0}]",
        "wires: [{wire: a.b -> c.d, policy: x}]",
        "workers: {a: {blocks: []}}",
        "network: {listn: x}",
    ],
)
def test_the_schema_refuses_what_does_not_load(text):
    assert not fits(text)


def test_the_schema_is_json_and_tells_what_parameters_mean():
    schema = json.loads(json.dumps(json_schema()))
    (channel,) = [
        each
        for each in schema["properties"]["blocks"]["additionalProperties"]["anyOf"]
        if each.get("title") == "channel"
    ]
    assert channel["description"] == "Add noise."
    assert channel["properties"]["ebn0"]["description"] == "energy of a bit over the noise density [dB]"
    assert channel["properties"]["rate"]["default"] == 1e6
    assert channel["required"] == ["use", "ebn0"]


def test_a_block_is_described_from_its_declaration():
    assert describe(Channel).splitlines() == [
        "channel",
        "=======",
        "",
        "Add noise.",
        "",
        "Inputs",
        "  symbols  complex64",
        "",
        "Outputs",
        "  symbols  complex64",
        "",
        "Items out per item in: 1",
        "",
        "Parameters",
        "  ebn0  number [dB]      required   energy of a bit over the noise density; at least -300; at most 300",
        "  rate  number [Hz]      1000000.0  symbols a second; more than 0; may change while it runs",
        "  kind  awgn | rayleigh  awgn       what the channel does",
        "  taps  list of number   [1.0]      impulse response",
        "  seed  integer | null   null       own seed",
    ]
    assert "  bits  bits or float32 or int8  the bits" in describe(Demapper)
    assert "Items out per item in: follows from the parameters" in describe(Demapper)
    assert "As many items a frame: sent, received" in describe(Meter)
    assert "  x  complex64  optional" in describe(Scope)
    assert "live    true | false  true" in describe(Bits)
