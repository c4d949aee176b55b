"""The finished cells of a sweep, and the table that they make: a row a frame, as Parquet and CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from flowgraph.journal import Journal
from flowgraph.report import FRAME_KEYS, SECTIONS, Report
from flowgraph.sweep.plan import Cell, Sweep, plain

if TYPE_CHECKING:
    import pyarrow

FILE, PARQUET, CSV = "cells.jsonl", "table.parquet", "table.csv"
BATCH_ROWS = 20_000


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """What a cell has found: figures of the whole by column, figures a frame by column, or why there are none."""

    cell: str
    version: str
    figures: dict[str, Any] = {}
    frames: dict[str, list[Any]] = {}
    fault: str | None = None

    @classmethod
    def of(cls, cell: str, code: str, report: Report) -> Entry:
        """Return what a report says, its nested figures as columns of their own: `link.ber_interval.0`."""
        rows = [dict(_flat("", row)) for _, row in sorted(report.frames.items())]
        names = dict.fromkeys(name for row in rows for name in row)
        frames = {name: [row.get(name) for row in rows] for name in names}
        return cls(cell, code, dict(_flat("", report.sections)), frames)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, each in inner:
            yield from _flat(f"{name}.{key}" if name else str(key), each)
    else:
        yield name, None if isinstance(value, float) and not math.isfinite(value) else value


class Table:
    """A sweep's table, and the folder where it grows: a cell that is there is never run again, unless it failed.

    Raises `BlockError` as a `Journal` does.
    """

    def __init__(self, folder: Path, sweep: Sweep):
        self.folder, self.sweep = folder, sweep
        self.offsets: dict[str, int | None] = dict.fromkeys(cell.key for cell in sweep.cells)
        self.faults: dict[str, str] = {}
        self.kinds: dict[str, type] = {}  # of the values in each column of figures
        self.of_frames: set[str] = set()  # columns that may differ from frame to frame
        self.journal = Journal(folder / FILE, Entry, self._take)

    def _take(self, offset: int, entry: Entry) -> None:
        if entry.cell not in self.offsets:  # of another grid
            return
        self.offsets[entry.cell] = offset
        self.faults.pop(entry.cell, None)
        if entry.fault is not None:
            self.faults[entry.cell] = entry.fault
        self.of_frames |= entry.frames.keys()
        for name, values in entry.frames.items():
            self.kinds[name] = _kind(values, self.kinds.get(name))
        for name, value in entry.figures.items():
            self.kinds[name] = _kind([value], self.kinds.get(name))

    def add(self, entry: Entry) -> None:
        """Write down what a cell has found."""
        self._take(self.journal.add(entry), entry)

    def waiting(self) -> list[Cell]:
        """Return the cells that have no figures yet."""
        return [cell for cell in self.sweep.cells if self.offsets[cell.key] is None or cell.key in self.faults]

    def write(self) -> None:
        """Write the table of what is there, in the order of the cells."""
        import pyarrow
        from pyarrow import csv, parquet

        columns = Columns(self)
        parts = [self.folder / f"{name}.part" for name in (PARQUET, CSV)]
        with parquet.ParquetWriter(parts[0], columns.schema) as one, csv.CSVWriter(parts[1], columns.schema) as other:
            for batch in columns.batches():
                part = pyarrow.table(batch, schema=columns.schema)
                one.write_table(part)
                other.write_table(part)
        for part in parts:
            part.replace(part.with_suffix(""))

    @property
    def files(self) -> list[Path]:
        """Where the table is."""
        return [self.folder / name for name in (CSV, PARQUET)]

    def read(self) -> pyarrow.Table:
        """Return the table that was written."""
        from pyarrow import parquet

        return parquet.read_table(self.folder / PARQUET)

    def close(self) -> None:
        """Let others write to the folder."""
        self.journal.close()


class Columns:
    """The columns of a table: what names a row, then figures by frame and by cell, then where they come from.

    A variable whose values are quantities of one unit is a column of numbers, and its field tells the unit.
    """

    def __init__(self, table: Table):
        import pyarrow

        self.table = table
        types = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
        variables = table.sweep.cells[0].values if table.sweep.cells else {}
        self.variables = {name: _Variable(name, table.sweep.cells) for name in variables}
        rest = sorted(table.kinds.keys() - {"frame"}, key=self._place)
        fields = [pyarrow.field("flowgraph", types[str])]
        for name, each in self.variables.items():
            unit = {"unit": each.unit} if each.unit else None
            fields.append(pyarrow.field(f"vars.{name}", types[each.kind], metadata=unit))
        fields += [pyarrow.field("seed", pyarrow.uint64()), pyarrow.field("frame", types[int])]
        fields += [pyarrow.field(name, types.get(table.kinds[name], pyarrow.null())) for name in rest]
        fields += [pyarrow.field(name, types[str]) for name in ("fault", "cell", "config", "version")]
        self.schema = pyarrow.schema(fields)

    def _place(self, name: str) -> tuple[Any, ...]:
        section, _, key = name.partition(".")
        if name in self.table.of_frames:
            return 0, FRAME_KEYS.index(name) if name in FRAME_KEYS else len(FRAME_KEYS), name
        sections, known = list(SECTIONS), SECTIONS.get(section, [])
        place = sections.index(section) if section in sections else len(sections)
        return 1, place, section, known.index(key) if key in known else len(known), name

    def batches(self) -> Iterator[dict[str, list[Any]]]:
        """Yield the rows by column, some thousands at a time."""
        batch: dict[str, list[Any]] = {name: [] for name in self.schema.names}
        for cell in self.table.sweep.cells:
            offset = self.table.offsets[cell.key]
            if offset is not None:
                self._append(batch, cell, self.table.journal.at(offset))
            if len(batch["cell"]) >= BATCH_ROWS:
                yield batch
                batch = {name: [] for name in batch}
        yield batch

    def _append(self, batch: dict[str, list[Any]], cell: Cell, entry: Entry) -> None:
        same = {"flowgraph": cell.graph.name, "seed": cell.seed, "config": cell.config}
        same |= {"fault": entry.fault, "cell": entry.cell, "version": entry.version}
        same |= {f"vars.{name}": each.value(cell) for name, each in self.variables.items()}
        count = max((len(values) for values in entry.frames.values()), default=1)
        for name, column in batch.items():
            if name in same:
                column += [same[name]] * count
            else:
                values = entry.frames.get(name) or [entry.figures.get(name)] * count
                kind = self.table.kinds.get(name, int)
                column += values if kind in (bool, int) else [None if v is None else kind(v) for v in values]


class _Variable:
    """A variable in the table: numbers of one unit, or text."""

    def __init__(self, name: str, cells: list[Cell]):
        self.name = name
        values = {repr(cell.values[name]): cell.values[name] for cell in cells}.values()
        found = [self._number(value) for value in values]
        units = {each[1] for each in found if each and each[1]}
        self.numeric = all(found) and len(units) < 2
        self.unit = units.pop() if self.numeric and units else ""
        self.kind: type = str
        if self.numeric:
            self.kind = _kind([each[0] for each in found if each], None)

    def _number(self, value: Any) -> tuple[float, str] | None:
        found = plain(value)
        if isinstance(found, tuple):
            return found
        return (found, "") if isinstance(found, int | float) and not isinstance(found, bool) else None

    def value(self, cell: Cell) -> Any:
        """Return the value in a cell's rows."""
        value = cell.values[self.name]
        if self.numeric:
            found = self._number(value)
            return found and self.kind(found[0])
        return value if isinstance(value, str) or value is None else str(value)


def _kind(values: Iterable[Any], known: type | None) -> Any:
    """Return the type that holds these values and those of a type known before; that of nothing is NoneType."""
    kinds = {known or type(None)} | {_kind_of(value) for value in values}
    kinds.discard(type(None))
    if len(kinds) > 1:
        return float if kinds == {int, float} else str
    return kinds.pop() if kinds else type(None)


def _kind_of(value: Any) -> type:
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 63:
        return float
    return type(value) if isinstance(value, bool | int | float | str | None) else str
