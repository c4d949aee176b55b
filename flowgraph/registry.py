"""Finds block types by name. Packages offer theirs as entry points of the group `semflow.blocks`:

[project.entry-points."semflow.blocks"]
mine = "my_package.blocks"              # a package or module: every Block in it, and in what it contains
one = "my_package.filters:Notch"        # a single class
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import NamedTuple

from flowgraph.block import Block, BlockError
from flowgraph.config.mistake import unknown

GROUP = "semflow.blocks"


class _Found(NamedTuple):
    blocks: dict[str, list[type[Block]]]  # more than one of a name is a mistake, told when the name is wanted
    failures: dict[str, str]  # why a module could not be imported


def find(type_name: str) -> type[Block]:
    """Return the block type of that name. Raises `BlockError` when there is none, or more than one."""
    found = _scan()
    classes = found.blocks.get(type_name, [])
    if not classes:
        missing = "".join(f"; {name} could not be imported: {why}" for name, why in failures().items())
        raise BlockError(unknown("a block type", type_name, sorted(found.blocks)) + missing)
    return _the_one(type_name, classes)


def all_blocks() -> dict[str, type[Block]]:
    """Return all block types by name, sorted. Raises `BlockError` when two bear the same name."""
    return {name: _the_one(name, classes) for name, classes in sorted(_scan().blocks.items())}


def failures() -> dict[str, str]:
    """Return why modules that offer blocks could not be imported, by name."""
    return _scan().failures


def _the_one(name: str, classes: list[type[Block]]) -> type[Block]:
    if len(classes) > 1:
        places = " and ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in classes)
        raise BlockError(f"must be one block type, not two: {name!r} is {places}; rename one or uninstall its package")
    return classes[0]


@functools.cache
def _scan() -> _Found:
    found = _Found({}, {})
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.value, entry.name)):
        for cls in _offered(entry, found.failures):
            classes = found.blocks.setdefault(cls.type_name(), [])
            if cls not in classes:
                classes.append(cls)
    return found


def _offered(entry: EntryPoint, failures: dict[str, str]) -> Iterator[type[Block]]:
    module = _imported(entry.module, failures)
    if module is None:
        return
    if not entry.attr:
        yield from _walk(module, failures)
    elif isinstance(cls := getattr(module, entry.attr, None), type) and issubclass(cls, Block):
        yield cls
    else:
        failures[entry.value] = f"{entry.module} has no block {entry.attr}"


def _walk(module: ModuleType, failures: dict[str, str]) -> Iterator[type[Block]]:
    for name, value in vars(module).items():
        defined_here = isinstance(value, type) and value.__module__ == module.__name__
        if defined_here and issubclass(value, Block) and not name.startswith("_"):
            yield value
    for info in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{module.__name__}."):
        if info.name.rpartition(".")[2].startswith("_"):  # private, a program among them: to import that is to run it
            continue
        inner = _imported(info.name, failures)
        if inner is not None:
            yield from _walk(inner, failures)


def _imported(name: str, failures: dict[str, str]) -> ModuleType | None:
    """Import a module; one that fails does not take the others with it."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        failures[name] = " ".join(f"{type(error).__name__}: {error}".splitlines())
        return None
