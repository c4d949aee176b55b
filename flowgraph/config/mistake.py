"""What is wrong with a config, where that is, and the words for it: `must be X, not Y (did you mean Z?)`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_DIGITS = re.compile(r"\d+")
MAX_NAMED = 12  # known words that a sentence lists
MAX_COMPARED = 200  # known words that a misspelt one is compared with


class Mistake(NamedTuple):
    """One mistake. `line` and `col` count from 1; a line of 0 says that `file` has none (`--set`, say)."""

    file: str
    line: int
    col: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.col}" if self.line else self.file
        return " ".join(": ".join(part for part in (place, self.path, self.message) if part).splitlines())


class ConfigError(Exception):
    """All mistakes of a config, one a line."""

    def __init__(self, mistakes: Iterable[Mistake]):
        self.mistakes = list(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Return the sentence for a word that is none of the known ones: it names the nearest of them, or all.

    >>> unknown("a policy", "dorp-oldest", ["block", "drop-oldest"])
    "must be a policy, not 'dorp-oldest' (did you mean 'drop-oldest'?)"
    >>> unknown("a policy", "x", ["block", "drop-oldest"])
    "must be a policy (block, drop-oldest), not 'x'"
    """
    known = list(known)
    if near := nearest(word, known):
        return f"must be {kind}, not {shown(word)}{near}"
    named = ", ".join(known[:MAX_NAMED]) + ", ..." * (len(known) > MAX_NAMED)
    return f"must be {kind} ({named or 'there is none'}), not {shown(word)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'Z'?)` for the known word that is much like this one, or nothing."""
    lowered = {name.lower(): name for name in list(known)[:MAX_COMPARED]}
    near = difflib.get_close_matches(word[:80].lower(), lowered, 1, 0.6)
    if near and _DIGITS.sub("", near[0]) == _DIGITS.sub("", word.lower()):
        return ""  # another number is another thing, not a slip
    return f" (did you mean {lowered[near[0]]!r}?)" if near else ""


def shown(value: Any) -> str:
    """Return a value as a person would write it, in short."""
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"
