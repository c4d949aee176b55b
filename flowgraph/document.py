"""YAML text -> a tree of nodes, each of which knows where it was written.

Plain data only: no tags, keys are words, nothing is expanded. A file is refused early when it is large, nested deeply or,
its aliases counted as often as they are used, has too many values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from flowgraph.mistake import ConfigError, Mistake

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
MAX_DEPTH = 20

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A subset of YAML 1.1: no base 60, no dates, no octal by a leading zero; those stay text, as does `10 dB`.
_WORDS = {
    form: value
    for word, value in (("true", True), ("yes", True), ("on", True), ("false", False), ("no", False), ("off", False))
    for form in (word, word.capitalize(), word.upper())
} | dict.fromkeys(("", "~", "null", "Null", "NULL"))
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})|0x[0-9a-fA-F]{1,15}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+][0-9]{1,4})?|[-+]?\.inf|\.nan")


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
        """Return a mistake about the value."""
        if self.origin is not None:
            source = self.origin
            place = f", {source.file}:{source.line}:{source.col}" if source.line else ""
            message += f" (from {source.path} = {source.written}{place})"
        return Mistake(self.file, self.line, self.col, self.path, message)

    def wrong_key(self, message: str) -> Mistake:
        """Return a mistake about the key."""
        line, col = self.key or (self.line, self.col)
        return Mistake(self.file, line, col, self.path, message)

    def at(self, offset: int) -> Node:
        """Return the place of the character `offset` of a plain scalar; elsewhere the node itself."""
        return replace(self, col=self.col + offset) if self.text is not None and self.origin is None else self

    @property
    def written(self) -> str:
        if self.text is not None:
            return self.text
        return {dict: "a mapping", list: "a list"}.get(type(self.value)) or repr(self.value)

    @property
    def folder(self) -> Path:
        """Where relative paths in this value start: the folder of the file that wrote it."""
        wrote = self.origin or self
        return Path(wrote.file).parent if wrote.line and wrote.file != STRING else Path()


STRING = "<string>"  # the file's name for text that came from none


def scalar(text: str) -> Any:
    """Return the value of a plain scalar: null, a truth value, a number, else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0)
    if _NUMBER.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return text


def node_of(value: Any, file: str, path: str) -> Node:
    """Return a node for a value that comes from Python; text is read as a plain scalar."""
    if isinstance(value, str):
        return Node(scalar(value), file, path=path, text=value)
    inner: Any = value
    if isinstance(value, dict):
        inner = {str(key): node_of(each, file, f"{path}.{key}") for key, each in value.items()}
    elif isinstance(value, list | tuple):
        inner = [node_of(each, file, f"{path}[{i}]") for i, each in enumerate(value)]
    return container(Node(inner, file, path=path))


def container(node: Node) -> Node:
    """Return the node with its size counted anew."""
    inner = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    return replace(node, size=1 + sum(each.size for each in inner))


def read(file: str) -> tuple[Node, list[Mistake]]:
    """Return the tree of a YAML file and the mistakes that leave it readable. Raises `ConfigError` where there is no tree."""
    path = Path(file)
    try:
        if path.is_dir():
            _refuse(file, "must be a file, not a folder")
        if path.exists() and not path.is_file():
            _refuse(file, "must be a regular file")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        _refuse(file, f"cannot be read: {error.strerror}")
    if len(data) > MAX_BYTES:
        _refuse(file, f"must be at most {MAX_BYTES} bytes, not {path.stat().st_size}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, col = _position(data[: error.start].decode("utf-8"))
        _refuse(file, f"must be UTF-8 text, not the byte 0x{data[error.start]:02x}", line, col)
    return parse(text, file)


def parse(text: str, file: str = STRING) -> tuple[Node, list[Mistake]]:
    """Return the tree of a YAML text, as `read` does."""
    if len(text) > MAX_BYTES:
        _refuse(file, f"must be at most {MAX_BYTES} characters, not {len(text)}")
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, _Parser):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, col = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        _refuse(file, f"must be YAML: {error.problem or error.context}", line, col)
    except yaml.reader.ReaderError as error:
        line, col = _position(text.encode()[: error.position].decode(errors="replace"))
        _refuse(file, f"must be YAML: {error.reason}", line, col)
    if builder.root is None:
        _refuse(file, "must be a mapping, not empty", 1, 1)
    return builder.root, builder.mistakes


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _refuse(file: str, message: str, line: int = 0, col: int = 0, path: str = "") -> NoReturn:
    raise ConfigError([Mistake(file, line, col, path, message)])


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    value: Any
    mark: Any
    path: str
    anchor: str | None
    key: tuple[str, Any] | None = None  # the key whose value comes next, and its mark


@dataclass(slots=True)
class _Builder:
    """Builds the tree from the parser's events, without recursion."""

    file: str
    root: Node | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, Node | None] = field(default_factory=dict)  # None while it is being built
    nodes: int = 0
    documents: int = 0

    def take(self, event: Any) -> None:
        mark = event.start_mark
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._stop(mark, "must be one YAML document, not several")
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.tag is not None:
                self._stop(mark, f"must be plain data, not tagged {event.tag.replace('tag:yaml.org,2002:', '!!')}")
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            else:
                self._begin({} if isinstance(event, yaml.MappingStartEvent) else [], event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self.open.pop()
            node = self._node(done.value, done.mark, done.path)
            self._add(container(node), done.anchor)

    def _scalar(self, event: Any) -> None:
        mark, plain = event.start_mark, event.style is None
        parent = self.open[-1] if self.open else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            parent.key = (event.value, mark)
            return
        node = self._node(scalar(event.value) if plain else event.value, mark, self._path())
        one_line = plain and event.end_mark.column - mark.column == len(event.value)
        self._add(replace(node, text=event.value if one_line else None), event.anchor)

    def _begin(self, value: Any, event: Any) -> None:
        path = self._path(event.start_mark)
        if len(self.open) >= MAX_DEPTH:
            self._stop(event.start_mark, f"must be nested at most {MAX_DEPTH} deep")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.open.append(_Open(value, event.start_mark, path, event.anchor))

    def _alias(self, event: Any) -> None:
        mark, path = event.start_mark, self._path(event.start_mark)
        if event.anchor not in self.anchors:
            self._stop(mark, f"must be the name of an anchor before it, not *{event.anchor}")
        node = self.anchors[event.anchor]
        if node is None:
            self._stop(mark, f"must not contain itself: *{event.anchor}")
        self._add(replace(node, line=mark.line + 1, col=mark.column + 1, path=path), None)

    def _node(self, value: Any, mark: Any, path: str) -> Node:
        return Node(value, self.file, mark.line + 1, mark.column + 1, path)

    def _path(self, mark: Any = None) -> str:
        """Return the path of what comes next; `mark` is given where it cannot be a key."""
        if not self.open:
            return ""
        parent = self.open[-1]
        if isinstance(parent.value, list):
            return f"{parent.path}[{len(parent.value)}]"
        if parent.key is None:
            self._stop(mark, "must be a word as the key")
        return f"{parent.path}.{parent.key[0]}" if parent.path else parent.key[0]

    def _add(self, node: Node, anchor: str | None) -> None:
        self.nodes += 1
        parent = self.open[-1] if self.open else None
        if parent is None:
            self.root = node
        elif isinstance(parent.value, list):
            parent.value.append(node)
        else:
            assert parent.key is not None
            name, mark = parent.key
            node = replace(node, key=(mark.line + 1, mark.column + 1))
            if name in parent.value:
                first = parent.value[name].key
                self.mistakes.append(node.wrong_key(f"must be given once, not twice (first at line {first[0]})"))
            else:
                parent.value[name] = node
            parent.key = None
        if anchor is not None:
            self.anchors[anchor] = node
        if max(self.nodes, node.size) > MAX_NODES:
            message = f"must have at most {MAX_NODES} values, aliases counted as often as they are used"
            _refuse(self.file, message, node.line, node.col, node.path)

    def _stop(self, mark: Any, message: str) -> NoReturn:
        path = self._path() if self.open and (isinstance(self.open[-1].value, list) or self.open[-1].key) else ""
        _refuse(self.file, message, mark.line + 1, mark.column + 1, path)

