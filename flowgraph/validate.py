"""Nodes against a pydantic model: checked values, or mistakes at the places where the values were written."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from flowgraph.document import Node
from flowgraph.mistake import Mistake, shown, unknown
from flowgraph.units import Unit


class Unresolved:
    """Stands for a value that could not be found out, of which a mistake tells already."""

    def __repr__(self) -> str:
        return "?"


UNRESOLVED = Unresolved()


def plain(node: Node) -> Any:
    """Return a tree as plain data."""
    if isinstance(node.value, dict):
        return {key: plain(each) for key, each in node.value.items()}
    if isinstance(node.value, list):
        return [plain(each) for each in node.value]
    return node.value


def resolved(node: Node) -> bool:
    """Tell whether nothing in a tree is `UNRESOLVED`."""
    if isinstance(node.value, dict | list):
        return all(map(resolved, node.value.values() if isinstance(node.value, dict) else node.value))
    return node.value is not UNRESOLVED


def validate(
    model: type[BaseModel], owner: Node, given: dict[str, Node], kind: str, known: Collection[str] = ()
) -> tuple[BaseModel | None, dict[str, Any], list[Mistake]]:
    """Return the model made of `given`, the plain data it was made of, and the mistakes.

    The model is None where there are mistakes or unresolved values. `owner` is the mapping that holds `given`, `kind` what
    a key of it is called, and `known` names keys that are not the model's own.
    """
    unsure = {name for name, node in given.items() if not resolved(node)}
    data = {name: plain(node) for name, node in given.items() if name not in unsure}
    try:
        made = model.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        words = _words(given, errors)
        if words:  # `name: yes` and `name: 12` are text where text is wanted
            return validate(model, owner, given | words, kind, known)
        mistakes = _mistakes(model, owner, given, errors, kind, known, unsure)
        return None, data, mistakes
    mistakes = [
        given[name].wrong(f"must be a number, not {shown(value)}")
        for name, value in data.items()
        if isinstance(value, bool) and type(getattr(made, name, None)) in (int, float)  # pydantic takes yes for 1
    ]
    return (None if mistakes or unsure else made), data, mistakes


def _words(given: dict[str, Node], errors: list[Any]) -> dict[str, Node]:
    found = {}
    for error in errors:
        node = given.get(str(error["loc"][0])) if error["loc"] else None
        wants_text = error["type"] in ("string_type", "literal_error")
        if wants_text and node is not None and node.text and isinstance(node.value, bool | int | float):
            found[str(error["loc"][0])] = Node(**{**{f: getattr(node, f) for f in Node.__slots__}, "value": node.text})
    return found


def _mistakes(
    model: type[BaseModel],
    owner: Node,
    given: dict[str, Node],
    errors: list[Any],
    kind: str,
    known: Collection[str],
    unsure: set[str],
) -> list[Mistake]:
    mistakes: list[Mistake] = []
    wants: dict[int, tuple[Node, list[str]]] = {}  # a union reports once for each of its members
    for error in errors:
        loc, what = error["loc"], error["type"]
        name = str(loc[0]) if loc else ""
        node = _locate(owner, given, loc)
        if what == "missing":
            if name not in unsure:
                mistakes.append(node.wrong_key(_missing(model, loc, kind)))
        elif what == "extra_forbidden":
            names = [*known, *model.model_fields] if len(loc) == 1 else ()
            mistakes.append(node.wrong_key(unknown(kind, str(loc[-1]), names)))
        else:
            unit = _unit(model.model_fields.get(name))
            wants.setdefault(id(node), (node, []))[1].append(_want(error, unit))
    for node, parts in wants.values():
        sentences = [part for part in parts if part.startswith("must")]
        if sentences:
            mistakes.append(node.wrong(sentences[-1]))
        else:
            value = node.value if node is not owner else plain(node)
            choices = " or ".join(dict.fromkeys(parts))
            words = re.findall(r"'([^']*)'", choices)
            if words and isinstance(value, str) and " or ".join(parts) == choices:
                near = unknown("", value, words).partition(" (did you mean")[2]
            else:
                near = ""
            mistakes.append(node.wrong(f"must be {choices}, not {shown(value)}" + (f" (did you mean{near}" if near else "")))
    return mistakes


def _locate(owner: Node, given: dict[str, Node], loc: tuple[Any, ...]) -> Node:
    """Return the node that an error speaks of; names of union members in `loc` are passed over."""
    node, inner = owner, given
    children: Any = inner
    for step in loc:
        if isinstance(children, dict) and step in children:
            node = children[step]
        elif isinstance(children, list) and isinstance(step, int) and step < len(children):
            node = children[step]
        children = node.value if node is not owner else children
    return node


def _missing(model: type[BaseModel], loc: tuple[Any, ...], kind: str) -> str:
    name = str(loc[-1])
    info = model.model_fields.get(name) if len(loc) == 1 else None
    meaning = f": {info.description}" if info is not None and info.description else ""
    return f"must give {name!r}, {kind}{meaning}"


def _unit(info: FieldInfo | None) -> str:
    return next((item.symbol for item in (info.metadata if info else ()) if isinstance(item, Unit)), "")


def _want(error: Any, unit: str) -> str:
    """Return what pydantic wanted, to stand after "must be", or a whole sentence that starts with "must"."""
    what, ctx = error["type"], error.get("ctx", {})
    of_unit = f" {unit}" if unit else ""
    match what:
        case "value_error" | "assertion_error":
            said = str(ctx["error"])
            return said if said.startswith("must") else f"must be right: {said}"
        case "greater_than":
            return f"more than {ctx['gt']:g}{of_unit}"
        case "greater_than_equal":
            return f"at least {ctx['ge']:g}{of_unit}"
        case "less_than":
            return f"less than {ctx['lt']:g}{of_unit}"
        case "less_than_equal":
            return f"at most {ctx['le']:g}{of_unit}"
        case "multiple_of":
            return f"a multiple of {ctx['multiple_of']:g}{of_unit}"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return "an integer" + (f" in {unit}" if unit else "")
        case "float_type" | "float_parsing":
            return "a number" + (f" in {unit}" if unit else "")
        case "finite_number":
            return "a finite number"
        case "bool_type" | "bool_parsing":
            return "true or false"
        case "string_type":
            return "text"
        case "list_type" | "tuple_type" | "set_type":
            return "a list"
        case "dict_type" | "model_type" | "mapping_type":
            return "a mapping"
        case "none_required":
            return "null"
        case "literal_error" | "enum":
            return str(ctx["expected"])
        case "too_short":
            return f"a list of at least {ctx['min_length']}"
        case "too_long":
            return f"a list of at most {ctx['max_length']}"
        case "string_too_short":
            return f"text of at least {ctx['min_length']} characters"
        case "string_too_long":
            return f"text of at most {ctx['max_length']} characters"
        case "string_pattern_mismatch":
            return f"text of the form {ctx['pattern']}"
    return f"must be right: {error['msg']}"
