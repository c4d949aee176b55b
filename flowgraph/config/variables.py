"""Variables: `$name` as a value, with its type; `${name}` inside a text; `$$` for a dollar."""

from __future__ import annotations

import re
from dataclasses import replace

from flowgraph.config.document import MAX_DEPTH, MAX_VALUES, UNRESOLVED, Mistakes, Node
from flowgraph.config.mistake import nearest, shown, unknown

MAX_TEXT = 100_000
_WHOLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([^}]*)\})")
_INSIDE = re.compile(r"\$(?:(\$)|\{([^}]*)\}|([A-Za-z_]\w*))")
_LOST = Node(UNRESOLVED)


class Variables:
    """The variables of one file: those `written` in it may use each other; those `given` to it are final.

    Where not all files could be read (`whole` is false), an unknown name is a mistake only if it is much like
    a known one.
    """

    def __init__(self, written: dict[str, Node], given: dict[str, Node], mistakes: Mistakes, whole: bool = True):
        self.written, self.mistakes, self.whole = written, mistakes, whole
        self.found = dict(given)
        self.used: set[str] = set()
        self.row: list[str] = []  # variables on the way to a value
        for name, node in written.items():  # all of them, as those that nobody uses may be wrong too
            self._find(name, node)

    def resolve(self, node: Node) -> Node:
        """Return the tree with all variables put in; after a mistake, with `UNRESOLVED` values."""
        value = node.value
        if isinstance(value, dict):
            return node.holding({key: self.resolve(each) for key, each in value.items()})
        if isinstance(value, list):
            return node.holding([self.resolve(each) for each in value])
        if not isinstance(value, str) or "$" not in value:
            return node
        if match := _WHOLE.fullmatch(value):
            found = self._find(match[1] or match[2], node)
            source = found.origin or found if found is not _LOST else None
            return replace(node, value=found.value, text=found.text, size=found.size, origin=source)
        return self._put_in(node)

    def _put_in(self, node: Node) -> Node:
        """Return a text with its variables put in."""
        length, sure = 0, True

        def text(match: re.Match[str]) -> str:
            nonlocal length, sure
            dollar, name, bare = match.groups()
            if dollar or bare:
                if bare in self.written:
                    self.mistakes.add(node.wrong(f"must have ${{{bare}}} inside a text, not ${bare}"))
                return "$" if dollar else match[0]
            found = self._find(name, node)
            if isinstance(found.value, dict | list):
                self.mistakes.add(node.wrong(f"must put one value into a text, not {shown(found.value)} (${{{name}}})"))
            if found.value is UNRESOLVED or isinstance(found.value, dict | list):
                sure = False
                return ""
            part = found.text if found.text is not None else str(found.value)
            length += len(part)
            return part if length <= MAX_TEXT else ""

        whole = _INSIDE.sub(text, node.value)
        if length > MAX_TEXT:
            self.mistakes.add(node.wrong(f"must be at most {MAX_TEXT} characters, its variables put in"))
        return replace(node, value=whole if sure and length <= MAX_TEXT else UNRESOLVED, text=None)

    def _find(self, name: str, user: Node) -> Node:
        """Return the value of a variable, or a node that is `UNRESOLVED`."""
        if user is not self.written.get(name):
            self.used.add(name)
        if name in self.found:
            return self.found[name]
        if name not in self.written:
            if self.whole or nearest(name, self.written):
                self.mistakes.add(user.wrong(unknown("a variable", name, self.written)))
            return _LOST
        if name in self.row:
            row = " -> ".join([*self.row[self.row.index(name) :], name])
            self.mistakes.add(user.wrong(f"must not be made of itself: {row}"))
            return _LOST
        if len(self.row) == MAX_DEPTH:
            self.mistakes.add(user.wrong(f"must be at most {MAX_DEPTH} variables away from a value"))
            return _LOST
        self.row.append(name)
        found = self.resolve(self.written[name])
        self.row.pop()
        if found.size > MAX_VALUES:
            self.mistakes.add(user.wrong(f"must have at most {MAX_VALUES} values, its variables put in"))
            found = _LOST
        self.found[name] = found
        return found
