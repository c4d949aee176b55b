"""What is wrong with a config, where it stands, and the sentence that says so: `must be X, not Y (did you mean Z?)`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple


class Mistake(NamedTuple):
    """One mistake. `line` and `col` count from 1; a line of 0 means that `file` has no lines (`--set`, Python)."""

    file: str
    line: int
    col: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.col}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class ConfigError(Exception):
    """All mistakes of a config, one a line."""

    def __init__(self, mistakes: Iterable[Mistake]):
        self.mistakes = list(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Return the sentence for a word that is none of the known ones, with the nearest of them or all.

    >>> unknown("a policy", "dorp-oldest", ["block", "drop-oldest"])
    "must be a policy, not 'dorp-oldest' (did you mean 'drop-oldest'?)"
    >>> unknown("a policy", "x", ["block", "drop-oldest"])
    "must be a policy (block, drop-oldest), not 'x'"
    """
    known = list(known)
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lowered, 1, 0.6)
    if near:
        return f"must be {kind}, not {word!r} (did you mean {lowered[near[0]]!r}?)"
    return f"must be {kind} ({', '.join(known) or 'there is none'}), not {shown(word)}"


def shown(value: Any) -> str:
    """Return a value as a person wrote it, in short."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"
