"""YAML text -> a tree of nodes, each of which knows where it was written.

Plain data only: no tags, keys are words, and nothing is expanded. A file is refused early when it is large or
nested deeply, or when it has too many values, its aliases counted as often as they are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from flowgraph.config.mistake import ConfigError, Mistake, shown

MAX_BYTES = 1_000_000
MAX_VALUES = 50_000
MAX_DEPTH = 20
MAX_MISTAKES = 500
STRING = "<string>"  # names the text that came from no file

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A subset of YAML 1.1. Dates, base 60 and octal by a leading zero stay text, and so does `10 dB`.
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_WORDS: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
for _word in (*_TRUE, *_FALSE):
    _WORDS |= dict.fromkeys((_word, _word.capitalize(), _word.upper()), _word in _TRUE)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,19})|0x[0-9a-fA-F]{1,15}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,40}\.[0-9]{0,40}(?:[eE][-+][0-9]{1,4})?|\.[0-9]{1,40}|[-+]?\.inf|\.nan")


class _Unresolved:
    """The value of a node that could not be found out, of which a mistake tells already."""


UNRESOLVED = _Unresolved()


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a config and its place: a scalar, a list of nodes, or a dict of them.

    path    where it stands in the document: `blocks.pack.latent`
    key     line and column of its key, in a mapping
    text    as it was written, of a plain scalar
    origin  the value of the variable that came to stand here
    size    values in it, itself included
    """

    value: Any
    file: str = ""
    line: int = 0
    col: int = 0
    path: str = ""
    key: tuple[int, int] | None = None
    text: str | None = None
    origin: Node | None = None
    size: int = 1

    def wrong(self, message: str) -> Mistake:
        """Return a mistake about the value; one that a variable brought is told with its origin."""
        if source := self.origin:
            place = f", {source.file}:{source.line}:{source.col}" if source.line else ""
            message += f" (from {source.path} = {source.written}{place})"
        return Mistake(self.file, self.line, self.col, self.path, message)

    def wrong_key(self, message: str) -> Mistake:
        """Return a mistake about the key."""
        line, col = self.key or (self.line, self.col)
        return Mistake(self.file, line, col, self.path, message)

    def at(self, offset: int) -> Node:
        """Return the place of the character `offset` of a plain scalar; of anything else the node itself."""
        return self if self.text is None or self.origin else replace(self, col=self.col + offset)

    def holding(self, inner: dict[str, Node] | list[Node]) -> Node:
        """Return this node with other nodes in it."""
        nodes = inner.values() if isinstance(inner, dict) else inner
        return replace(self, value=inner, text=None, size=1 + sum(node.size for node in nodes))

    @property
    def inner(self) -> Iterable[Node]:
        """The nodes in this one."""
        if isinstance(self.value, dict):
            return self.value.values()
        return self.value if isinstance(self.value, list) else ()

    @property
    def plain(self) -> Any:
        """The tree as plain data."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        return [node.plain for node in self.value] if isinstance(self.value, list) else self.value

    @property
    def resolved(self) -> bool:
        """Whether everything in the tree is known."""
        return self.value is not UNRESOLVED and all(node.resolved for node in self.inner)

    @property
    def written(self) -> str:
        """The value as it was written, in short."""
        return self.text if self.text is not None and len(self.text) <= 80 else shown(self.value)

    @property
    def folder(self) -> Path:
        """Where relative paths in this value start: the folder of the file that wrote it."""
        wrote = self.origin or self
        return Path(wrote.file).parent if wrote.line and wrote.file != STRING else Path()


class TooMany(Exception):
    """So many mistakes that more of them help nobody."""


class Mistakes(list[Mistake]):
    """The mistakes found so far."""

    def add(self, *mistakes: Mistake) -> None:
        """Add mistakes that are new. Raises `TooMany`."""
        self.extend(mistake for mistake in dict.fromkeys(mistakes) if mistake not in self)
        if len(self) > MAX_MISTAKES:
            raise TooMany

    def expect(self, node: Node, kind: type, wanted: str) -> Any:
        """Return the node's value if it is of that kind, else None, after a mistake."""
        if isinstance(node.value, kind):
            return node.value
        if node.value is not UNRESOLVED:
            self.add(node.wrong(f"must be {wanted}, not {shown(node.value)}"))
        return None

    def mapping(self, node: Node) -> dict[str, Node]:
        """Return the nodes in a mapping; none, after a mistake, in anything else."""
        return self.expect(node, dict, "a mapping") or {}


def scalar(text: str) -> Any:
    """Return the value of a plain scalar: null, a truth value, a number, else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and -(1 << 63) <= int(text, 0) < 1 << 64:
        return int(text, 0)
    if _NUMBER.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return text


def node_of(value: Any, file: str, path: str, reading: bool = True) -> Node:
    """Return the node of a value that comes from Python; text is read as YAML has it, or stays as it is."""
    if isinstance(value, str) and reading:
        if value[:1] + value[-1:] in ("[]", "{}"):
            try:
                return node_of(parse(value, file)[0].plain, file, path)
            except ConfigError:
                pass  # no list or mapping: a name may begin and end so, too
        return Node(scalar(value), file, path=path, text=value)
    node = Node(value, file, path=path)
    if isinstance(value, dict):
        return node.holding({str(key): node_of(each, file, f"{path}.{key}", reading) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return node.holding([node_of(each, file, f"{path}[{i}]", reading) for i, each in enumerate(value)])
    return node


def read(file: str) -> tuple[Node, list[Mistake]]:
    """Return the tree of a YAML file, and the mistakes that leave it readable.

    Raises `ConfigError` when there is no tree.
    """
    path = Path(file)
    try:
        if path.exists() and not path.is_file():
            _refuse(file, "must be a file, not a folder" if path.is_dir() else "must be a regular file")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        _refuse(file, f"must be a file that can be read: {getattr(error, 'strerror', None) or error}")
    if len(data) > MAX_BYTES:
        _refuse(file, f"must be at most {MAX_BYTES} bytes, not {path.stat().st_size}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, col = _position(data[: error.start].decode())
        _refuse(file, f"must be UTF-8 text, not the byte 0x{data[error.start]:02x}", line, col)
    return parse(text, file)


def parse(text: str, file: str = STRING) -> tuple[Node, list[Mistake]]:
    """Return the tree of a YAML text, as `read` does."""
    if len(text) > MAX_BYTES:
        _refuse(file, f"must be at most {MAX_BYTES} characters, not {len(text)}")
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, _PARSER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        line = [*text.splitlines(), ""][: mark.line + 1][-1]
        problem = error.problem or error.context
        if line[mark.column : mark.column + 1] == "\t":
            problem = "a tab, where YAML takes spaces alone"
        hint = " (inside { }, a text with ${...} needs quotes)" if re.search(r"\{.*\$\{", line) else ""
        _refuse(file, f"must be YAML: {problem}{hint}", mark.line + 1, mark.column + 1)
    except yaml.reader.ReaderError as error:
        bad = next((i for i, c in enumerate(text) if not c.isprintable() and c not in "\t\r\n\x85\ufeff"), 0)
        _refuse(file, f"must be YAML: {error.reason}", *_position(text[:bad]))
    if builder.root is None:
        _refuse(file, "must be a mapping, not an empty file", 1, 1)
    return builder.root, builder.mistakes


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _refuse(file: str, message: str, line: int = 0, col: int = 0, path: str = "") -> NoReturn:
    raise ConfigError([Mistake(file, line, col, path, message)])


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    node: Node
    anchor: str | None
    key: tuple[str, int, int] | None = None  # the key whose value comes next, its line and column


@dataclass(slots=True)
class _Builder:
    """Builds the tree from the parser's events, without recursion."""

    file: str
    root: Node | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, Node | None] = field(default_factory=dict)  # None while it is being built
    values: int = 0

    def take(self, event: Any) -> None:
        place = (event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            if self.root is not None:
                self._stop(place, "must be one YAML document, not several")
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor or "", place)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self.open.pop()
            self._add(done.node.holding(done.node.value), done.anchor)
        elif isinstance(event, yaml.NodeEvent):
            self._begin(event, place)

    def _begin(self, event: Any, place: tuple[int, int]) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._stop(place, f"must be plain data, not tagged {tag}")
        top = self.open[-1] if self.open else None
        if top and isinstance(top.node.value, dict) and top.key is None:
            if not isinstance(event, yaml.ScalarEvent):
                self._stop(place, "must have words as keys")
            top.key = (event.value, *place)
        elif isinstance(event, yaml.ScalarEvent):
            value = event.value if event.style else scalar(event.value)
            end: Any = event.end_mark  # a quoted or folded text does not stand there as it is
            as_is = not event.style and end.column + 1 - place[1] == len(event.value)
            text = event.value if as_is else None
            self._add(Node(value, self.file, *place, self._path(), text=text), event.anchor)
        else:
            if len(self.open) == MAX_DEPTH:
                self._stop(place, f"must be nested at most {MAX_DEPTH} deep")
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
            if event.anchor is not None:
                self.anchors[event.anchor] = None
            self.open.append(_Open(Node(value, self.file, *place, self._path()), event.anchor))

    def _alias(self, name: str, place: tuple[int, int]) -> None:
        top = self.open[-1] if self.open else None
        if top and isinstance(top.node.value, dict) and top.key is None:
            self._stop(place, "must have words as keys")
        if name not in self.anchors:
            self._stop(place, f"must be an alias of an anchor before it, not *{name}")
        node = self.anchors[name]
        if node is None:
            self._stop(place, f"must not contain itself, as *{name} does")
        line, col = place
        self._add(replace(node, line=line, col=col, path=self._path(), text=None), None)

    def _path(self) -> str:
        """Return the path of the value that comes next."""
        if not self.open:
            return ""
        top = self.open[-1]
        if isinstance(top.node.value, list):
            return f"{top.node.path}[{len(top.node.value)}]"
        key = top.key[0] if top.key else ""
        return f"{top.node.path}.{key}" if top.node.path else key

    def _add(self, node: Node, anchor: str | None) -> None:
        self.values += 1
        top = self.open[-1] if self.open else None
        if top is None:
            self.root = node
        elif isinstance(top.node.value, list):
            top.node.value.append(node)
        elif top.key is not None:
            name, line, col = top.key
            top.key = None
            first = top.node.value.get(name)
            node = replace(node, key=(line, col))
            if first is None:
                top.node.value[name] = node
            else:
                message = f"must be given once, not again (first on line {first.key[0]})"
                self.mistakes.append(node.wrong_key(message))
        if anchor is not None:
            self.anchors[anchor] = node
        if max(self.values, node.size) > MAX_VALUES:
            message = f"must have at most {MAX_VALUES} values, aliases counted as often as they are used"
            _refuse(self.file, message, node.line, node.col, node.path)

    def _stop(self, place: tuple[int, int], message: str) -> NoReturn:
        _refuse(self.file, message, *place, self._path())
