"""What blocks and configs look like, for people and for editors, out of the declarations themselves."""

from __future__ import annotations

import inspect
import types
import typing
from fractions import Fraction
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flowgraph import registry
from flowgraph.block import Block, Port
from flowgraph.config.options import BlockOptions, ChangeOptions, JobOptions, NetworkOptions, WireOptions, WorkerOptions
from flowgraph.config.validate import unit_of

VARIABLE = {"type": "string", "pattern": r"\$"}
WIRE = r"\S\.\S+\s*->\s*\S+\.\S|\$"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of configs and sub-graphs, with a branch for each block type there is."""
    definitions: dict[str, Any] = {}
    branches = [_block_schema(name, block, definitions) for name, block in registry.all_blocks().items()]
    subgraph = {
        "type": "object",
        "description": "A sub-graph: its file, and values for the variables of that file.",
        "properties": {"graph": {"type": "string", "description": "file, relative to this one"}},
        "required": ["graph"],
    }
    removed = {"type": "null", "description": "Remove what a file below this one has."}
    text = {"type": "string"}
    files = {"anyOf": [text, {"type": "array", "items": text}]}
    wire = {**text, "pattern": WIRE, "description": "`block.output -> block.input`, or a longer row"}
    job = _object(JobOptions, definitions, "job")["properties"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Semflow flowgraph",
        "description": "A flowgraph, an overlay for one, or a sub-graph.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **job,
            "subgraph": {**text, "description": "what this sub-graph is called"},
            "signature": {**text, "description": "file that says which inputs and outputs it must have"},
            "inputs": _named(files, "inputs of the sub-graph, and the `block.port` or ports they lead to"),
            "outputs": _named(text, "outputs of the sub-graph, and the `block.port` they come from"),
            "extends": {**files, "description": "files that this one is laid over"},
            "vars": {
                "type": "object",
                "description": "variables: `$name` as a value, `${name}` inside a text",
            },
            "blocks": _named({"anyOf": [*branches, subgraph, removed]}, "blocks by name"),
            "wires": {
                "type": "array",
                "description": "wires, from outputs to inputs",
                "items": {"anyOf": [wire, _object(WireOptions, definitions, "wire")]},
            },
            "workers": _named(
                {"anyOf": [_object(WorkerOptions, definitions, "worker"), removed]},
                "worker processes by name; without them all blocks share one",
            ),
            "fuse": {
                "type": "array",
                "description": "blocks that run in one thread, the wires between them being calls",
                "items": text,
            },
            "network": _object(NetworkOptions, definitions, "network"),
            "probes": {
                "type": "array",
                "description": "outputs that are tapped for whoever looks on, `block.port`, or wires from them",
                "items": text,
            },
            "changes": {
                "type": "array",
                "description": "live parameters that change while the graph runs, each from an item on",
                "items": _object(ChangeOptions, definitions, "change"),
            },
            "made_with": {
                "type": "object",
                "description": "versions that wrote this file; then names may have dots",
            },
        },
        "$defs": definitions,
    }


def _named(value: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": ["object", "null"], "description": description, "additionalProperties": value}


def _block_schema(name: str, block: type[Block], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _object(block.Params, definitions, name)
    use = {"const": name, "description": block.summary()}
    memory = _object(BlockOptions, definitions, "block")["properties"]
    return {
        **schema,
        "title": name,
        "description": block.summary(),
        "properties": {"use": use, **memory, **schema["properties"]},
        "required": ["use", *schema.get("required", ())],
    }


def _object(model: type[BaseModel], definitions: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the schema of a model whose every value may be a variable instead."""
    schema = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    for name, inner in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = inner
    properties = {}
    for name, each in schema.get("properties", {}).items():
        info = model.model_fields[name]
        notes = {key: each.pop(key) for key in ("description", "default", "title") if key in each}
        if unit := unit_of(info):
            notes["description"] = f"{notes.get('description', '')} [{unit}]".strip()
        properties[name] = {"anyOf": [each, VARIABLE], **{k: v for k, v in notes.items() if k != "title"}}
    required = {"required": schema["required"]} if "required" in schema else {}
    return {"type": "object", "additionalProperties": False, "properties": properties, **required}


def describe(block: type[Block]) -> str:
    """Return the help page of a block type: what it does, its ports and its parameters."""
    name = block.type_name()
    lines = [name, "=" * len(name), "", inspect.getdoc(block) or "", ""]
    for title, ports in (("Inputs", block.inputs), ("Outputs", block.outputs)):
        if ports:
            lines += [title, *(f"  {line}" for line in _table([_port(port) for port in ports])), ""]
    if isinstance(block.ratio, int | Fraction):
        lines += [f"Items out per item in: {block.ratio}", ""]
    elif callable(block.ratio):
        lines += ["Items out per item in: follows from the parameters", ""]
    if len(block.equal_rates) > 1:
        lines += [f"As many items a frame: {', '.join(block.equal_rates)}", ""]
    fields = block.Params.model_fields
    if fields:
        rows = [_parameter(each, info) for each, info in fields.items()]
        lines += ["Parameters", *(f"  {line}" for line in _table(rows)), ""]
    return "\n".join(lines).rstrip()


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _port(port: Port) -> tuple[str, ...]:
    kind = " or ".join(port.dtypes)
    if port.shape is None:
        kind += " of any shape"
    elif port.shape:
        kind += " " + "x".join("n" if length is None else str(length) for length in port.shape)
    if port.unit:
        kind += f" [{port.unit}]"
    notes = [port.doc, "whole frames" * port.whole, "optional" * port.optional]
    return port.name, kind, "; ".join(note for note in notes if note)


def _parameter(name: str, info: FieldInfo) -> tuple[str, ...]:
    unit = unit_of(info)
    words = {PydanticUndefined: "required", None: "null", True: "true", False: "false"}
    default = next((word for value, word in words.items() if info.default is value), str(info.default))
    extra = info.json_schema_extra
    live = isinstance(extra, dict) and extra.get("live")
    bounds = [_bound(item) for item in info.metadata]
    notes = [info.description or "", *bounds, "may change while it runs" * bool(live)]
    kind = _kind(info.annotation) + (f" [{unit}]" if unit else "")
    return name, kind, default, "; ".join(note for note in notes if note)


def _bound(item: Any) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return " and ".join(f"{said} {getattr(item, key):g}" for key, said in words.items() if hasattr(item, key))


def _kind(annotation: Any) -> str:
    """Return a type in the words of a config."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(inner[0])
    if origin is typing.Literal:
        return " | ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_kind(each) for each in inner)
    if origin in (list, tuple):
        return f"list of {_kind(inner[0])}" if inner else "list"
    names = {int: "integer", float: "number", str: "text", bool: "true | false", type(None): "null"}
    return names.get(annotation) or str(getattr(annotation, "__name__", annotation))
