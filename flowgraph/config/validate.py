"""Nodes against a pydantic model: checked values, or mistakes at the places where the values were written."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from flowgraph.config.document import Mistakes, Node, node_of
from flowgraph.config.mistake import Mistake, nearest, shown, unknown
from flowgraph.units import Unit


def validate(
    model: type[BaseModel], owner: Node, given: dict[str, Node], kind: str, known: Collection[str] = ()
) -> tuple[BaseModel | None, dict[str, Any], list[Mistake]]:
    """Return the model made of `given`, the plain data that it was made of, and the mistakes.

    The model is None where there are mistakes or unresolved values. `owner` is the mapping that holds `given`,
    `kind` what a key of it is called; `known` names keys that are taken.
    """
    fields = model.model_fields
    sure = {name: _fitting(node, fields.get(name)) for name, node in given.items() if node.resolved}
    data = {name: node.plain for name, node in sure.items()}
    try:
        made = model.model_validate(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        if texts := _texts(owner, sure, errors):
            return validate(model, owner, given | {k: _as_text(v, texts) for k, v in sure.items()}, kind, known)
        unsure = given.keys() - sure.keys()
        errors = [each for each in errors if each["type"] != "missing" or each["loc"][0] not in unsure]
        return None, data, _mistakes(model, owner, sure, errors, kind, known)
    return (made if len(sure) == len(given) else None), data, []


def validated(mistakes: Mistakes, model: type[BaseModel], owner: Node, given: dict[str, Node], kind: str) -> Any:
    """Return the model made of `given`, or None after mistakes; see `validate`."""
    made, _, found = validate(model, owner, given, kind)
    mistakes.add(*found)
    return made


def mistakes_in(params: Mapping[str, Any], model: type[BaseModel], path: str, kind: str) -> list[Mistake]:
    """Return what is wrong with parameters that come from Python."""
    given = {name: node_of(value, "", f"{path}.{name}", reading=False) for name, value in params.items()}
    return validate(model, Node(given, path=path), given, kind)[2]


def _fitting(node: Node, info: FieldInfo | None) -> Node:
    """Return a truth value as the word that was written, where none is wanted: pydantic takes yes for 1."""
    if isinstance(node.value, bool) and info and {*_leaves(info.annotation)} <= {int, float, str, type(None)}:
        return replace(node, value=node.text or shown(node.value))
    return node


def _leaves(annotation: Any) -> Iterator[Any]:
    """Yield the types that a type is made of."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield from map(type, inner)
    elif inner:
        for each in inner[:1] if get_origin(annotation) is Annotated else inner:
            yield from _leaves(each)
    else:
        yield annotation


def _texts(owner: Node, given: dict[str, Node], errors: list[Any]) -> set[int]:
    """Return which nodes are plain scalars that were to be text but read as something else: `name: 12`."""
    found: set[int] = set()
    others: set[int] = set()
    for error in errors:
        node = _locate(owner, given, error["loc"])
        text = node.text and isinstance(node.value, bool | int | float)
        wanted = error["type"] in ("string_type", "literal_error")
        (found if text and wanted else others).add(id(node))
    return found - others


def _as_text(node: Node, texts: set[int]) -> Node:
    if isinstance(node.value, dict):
        return node.holding({key: _as_text(each, texts) for key, each in node.value.items()})
    if isinstance(node.value, list):
        return node.holding([_as_text(each, texts) for each in node.value])
    return replace(node, value=node.text) if id(node) in texts else node


def _locate(owner: Node, given: dict[str, Node], loc: tuple[int | str, ...]) -> Node:
    """Return the node that an error speaks of; names of the members of a union in `loc` lead nowhere."""
    node, inner = owner, given
    for step in loc:
        if (isinstance(inner, dict) and step in inner) or (
            isinstance(inner, list) and isinstance(step, int) and step < len(inner)
        ):
            node = inner[step]
            inner = node.value
    return node


def _mistakes(
    model: type[BaseModel],
    owner: Node,
    given: dict[str, Node],
    errors: list[Any],
    kind: str,
    known: Collection[str],
) -> list[Mistake]:
    mistakes: list[Mistake] = []
    wrong: dict[int, tuple[Node, list[Any]]] = {}  # a union tells of each of its members
    for error in errors:
        node, name = _locate(owner, given, error["loc"]), str(error["loc"][-1]) if error["loc"] else ""
        if error["type"] == "missing":
            info = model.model_fields.get(name)
            meaning = f": {info.description}" if info and info.description else ""
            mistakes.append(node.wrong_key(f"must have {name!r}, {kind}{meaning}"))
        elif error["type"] == "extra_forbidden":
            names = [*known, *model.model_fields] if len(error["loc"]) == 1 else []
            mistakes.append(node.wrong_key(unknown(kind, name, names)))
        else:
            wrong.setdefault(id(node), (node, []))[1].append(error)
    for node, each in wrong.values():
        info = model.model_fields.get(str(each[0]["loc"][0])) if each[0]["loc"] else None
        mistakes.append(node.wrong(_sentence(node, each, unit_of(info) if info else "")))
    return mistakes


def _sentence(node: Node, errors: list[Any], unit: str) -> str:
    """Return one sentence for all that is wrong with a value."""
    for error in errors:
        if error["type"] == "value_error":
            said = str(error["ctx"]["error"])
            return said if " must " in f" {said}" else f"must be right: {said}"
    wanted = " or ".join(dict.fromkeys(_wanted(error, unit) for error in errors))
    if errors[0]["type"] in _LENGTHS:
        return f"must be {wanted}, not of {len(node.value)}"
    expected = " ".join(error.get("ctx", {}).get("expected", "") for error in errors)
    choices = re.findall(r"'([^']*)'", expected)
    near = nearest(node.value, choices) if isinstance(node.value, str) else ""
    return f"must be {wanted}, not {shown(node.value)}{near}"


def unit_of(info: FieldInfo) -> str:
    """Return the unit of a parameter, which may be that of one member of a union; nothing where it has none."""

    def symbols(annotation: Any, metadata: Iterable[Any]) -> Iterator[str]:
        yield from (item.symbol for item in metadata if isinstance(item, Unit))
        for each in get_args(annotation):
            yield from symbols(each, getattr(each, "__metadata__", ()))

    return next(symbols(info.annotation, info.metadata), "")


_KINDS = {
    "int": "an integer",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "none": "null",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_LENGTHS = {
    "too_short": ("a list of at least", "min_length"),
    "too_long": ("a list of at most", "max_length"),
    "string_too_short": ("text of at least", "min_length"),
    "string_too_long": ("text of at most", "max_length"),
}


def _wanted(error: Any, unit: str) -> str:
    """Return what pydantic wanted, in words to stand after "must be"."""
    what, context = error["type"], error.get("ctx", {})
    if what in _BOUNDS:
        words, key = _BOUNDS[what]
        bound = f"{context[key]:g}" if isinstance(context[key], float) else context[key]
        return f"{words} {bound}" + (f" {unit}" if unit else "")
    if what in _LENGTHS:
        words, key = _LENGTHS[what]
        return f"{words} {context[key]}"
    if what == "string_pattern_mismatch":
        return f"text of the form {context['pattern']}"
    if "expected" in context:
        return context["expected"]
    kind = _KINDS.get(what.partition("_")[0])
    if kind is None:
        return f"right ({error['msg']})"
    return f"{kind} in {unit}" if unit and kind in ("an integer", "a number") else kind
