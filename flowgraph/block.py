"""What a block is: packets, ports, parameters and the life of a block. Everything else in the engine serves these.

A stream is a row of *frames* (one image, say); a frame travels as one or more *packets*, in order, the last of
which says so. Items are counted, never guessed: 13 bits are 13 bits, packed in 2 bytes.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from flowgraph.cache import Cache

BITS = "bits"  # the one item type that NumPy lacks: bits packed into uint8, most significant first
NUMBERS = (  # the others
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)

_NAMES = {np.dtype(name): name for name in NUMBERS}  # NumPy spells a name anew each time that it is asked

ERASED = "erased"  # key of the tag whose value counts the items that are missing from its offset on


class BlockError(Exception):
    """A fault that a person can mend: one sentence, shown as it is with the block's name before it."""

    block = ""  # whose fault it is, where that is not the block that raised it


class ParamsError(BlockError, ValueError):
    """Parameters given in Python that a block cannot have: a sentence for each, one a line."""


class Tag(NamedTuple):
    """A fact about the item at `offset` of a frame; it holds until the next tag of that key. `value` is plain data."""

    offset: int
    key: str
    value: Any


def _scaled(tag: Tag, ratio: Fraction | int) -> Tag:
    """Return a tag of items as one of those made of them, `ratio` for each; what is missing in part is missing."""
    over, under = ratio.numerator, ratio.denominator  # in whole numbers: fractions take their time
    begin = tag.offset * over // under
    if tag.key != ERASED:
        return Tag(begin, tag.key, tag.value)
    return Tag(begin, ERASED, -(-(tag.offset + tag.value) * over // under) - begin)


@dataclass(slots=True)
class Packet:
    """A stretch of one frame: an array and what rides with it.

    data    contiguous array, read-only once handed out; the first axis counts items (bytes, where those are bits)
    frame   number of the frame, rising along a stream
    offset  items of the frame before this packet
    count   items in this packet; `len(data)` unless the items are bits
    packed  whether the items are bits packed into bytes, most significant first; unused bits of the last byte are 0
    tags    facts about items, by offset in the frame
    last    whether the frame ends here
    """

    data: np.ndarray
    frame: int = 0
    offset: int = 0
    count: int = -1
    packed: bool = False
    tags: tuple[Tag, ...] = ()
    last: bool = False

    def __post_init__(self):
        if self.count < 0:
            self.count = 8 * len(self.data) if self.packed else len(self.data)

    @property
    def dtype(self) -> str:
        """Name of the item type: a NumPy dtype's, or `"bits"`."""
        return BITS if self.packed else _NAMES.get(self.data.dtype) or self.data.dtype.name

    @property
    def end(self) -> int:
        """Items of the frame up to the end of this packet."""
        return self.offset + self.count

    def tag(self, key: str, default: Any = None) -> Any:
        """Return the newest value of the tag `key` in this packet."""
        return next((tag.value for tag in reversed(self.tags) if tag.key == key), default)

    def tagged(self, **values: Any) -> Packet:
        """Return this packet with further tags at its first item."""
        return replace(self, tags=self.tags + tuple(Tag(self.offset, k, v) for k, v in values.items()))

    def erased(self) -> np.ndarray | None:
        """Return which items are missing by the tags `erased`, bool [count]; None where none is."""
        gone = None
        for tag in self.tags:
            if tag.key == ERASED and isinstance(tag.value, int):
                gone = np.zeros(self.count, np.bool_) if gone is None else gone
                gone[max(tag.offset - self.offset, 0) : max(tag.offset - self.offset + tag.value, 0)] = True
        return gone

    def with_erased(self, gone: np.ndarray | None) -> Packet:
        """Return this packet with tags that say which items are missing, and no others of that key."""
        tags = [tag for tag in self.tags if tag.key != ERASED]
        if gone is not None:
            edges = np.flatnonzero(np.diff(np.concatenate([[0], gone.view(np.int8), [0]])))
            tags += [
                Tag(self.offset + int(a), ERASED, int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)
            ]
        return replace(self, tags=tuple(sorted(tags, key=lambda tag: tag.offset)))

    def derive(
        self, data: np.ndarray, ratio: Fraction | int = 1, count: int = -1, packed: bool = False, **tags: Any
    ) -> Packet:
        """Return what a block made of this packet: same frame, end and tags; `ratio` is items out per item in."""
        if ratio == 1:
            offset, kept = self.offset, self.tags
        else:
            offset = self.offset * ratio.numerator // ratio.denominator
            kept = tuple(_scaled(tag, ratio) for tag in self.tags)
        added = tuple(Tag(offset, k, v) for k, v in tags.items())
        return Packet(data, self.frame, offset, count, packed, kept + added, self.last)


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a block.

    dtype     a NumPy dtype's name or `"bits"`; a tuple where several are understood (or can be made)
    shape     shape of one item, in which None stands for any length; `()` is a plain stream, None alone any shape
    align     (inputs) packets come in multiples of so many items, the end of a frame excepted
    octets    (inputs) so do bits, of 8, and other items as they come
    whole     (inputs) a packet is always a whole frame; where several are connected, all are
    optional  may stay unconnected
    chosen    (outputs) picks the one dtype out of several from the block's parameters
    """

    name: str
    dtype: str | tuple[str, ...]
    doc: str = ""
    shape: tuple[int | None, ...] | None = ()
    unit: str = ""
    align: int | Callable[[Any], int] = 1
    octets: bool = False
    whole: bool = False
    optional: bool = False
    chosen: Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        strange = [dtype for dtype in self.dtypes if dtype != BITS and dtype not in NUMBERS]
        if strange:
            raise TypeError(f"port {self.name}: dtype must be one of {', '.join((BITS, *NUMBERS))}, not {strange[0]!r}")

    @property
    def dtypes(self) -> tuple[str, ...]:
        return (self.dtype,) if isinstance(self.dtype, str) else self.dtype


LIVE: dict[str, Any] = {"live": True}  # marks a parameter that may change while the graph runs


class Params(BaseModel):
    """Parameters of a block: subclass it inside the block; unknown names are refused.

    Quantities are annotated with their unit (`flowgraph.units`), bounds and sentence stand in `Field`. A parameter that
    may change while the graph runs is marked `json_schema_extra=LIVE`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


Made = Packet | dict[str, Packet] | None  # a packet for the only output, packets by port, or nothing
Output = Made | Future[Made]


@dataclass(slots=True)
class Context:
    """What a block is given of the run: its seed, and the ways to hand things to the person who started it.

    `keep` is None where nobody keeps files, `cache` where no other run follows in the process; `graph` returns
    the graph as YAML, nothing for a block that runs without one. `later` has a thread of the worker call a function, of
    which `ahead` may be under way; where that is 0 it calls it at once. `progress` is what the block said last.
    """

    seed: int = 0
    report: Callable[[str, int | None, dict[str, Any]], None] = lambda section, frame, values: None
    keep: Callable[[str, bytes], None] | None = lambda path, data: None
    warn: Callable[[str], None] = lambda message: None
    files: Callable[[str, Collection[str]], Iterable[tuple[str, bytes | OSError]]] = lambda pattern, endings: ()
    checkpoint: Callable[[], None] = lambda: None
    cache: Cache | None = None
    graph: Callable[[], str] = lambda: ""
    later: Callable[[Callable[[], Made]], Output] = lambda make: make()
    ahead: int = 0
    progress: tuple[int, int] | None = None


@functools.lru_cache(1024)
def _key(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "little")


class Block:
    """Base of every block. Declare `inputs`, `outputs` and `Params`; write `work` (or `produce`, for a source).

    `start()` and `stop()` run in the worker, where the block lives; `stop()` runs even after a failure. `work()` gets
    one packet for each connected input, by the input's name, and returns a packet, a dict of packets by output, None,
    or an iterator of these. With several inputs connected it gets whole frames, paired by frame number, and None for
    an input whose frame was lost; optional inputs need a default of None. `flush()` runs once after the last packet.

    A complete block that inverts bits:

    >>> class Invert(Block):
    ...     "Invert every bit."
    ...     inputs = (Port("bits", "bits"),)
    ...     outputs = (Port("bits", "bits"),)
    ...     ratio = Fraction(1)
    ...     def work(self, bits):
    ...         inverse = 1 - np.unpackbits(bits.data, count=bits.count)
    ...         return bits.derive(np.packbits(inverse), count=bits.count, packed=True)
    >>> Invert.type_name()
    'invert'
    """

    Params: ClassVar[type[Params]] = Params
    inputs: ClassVar[tuple[Port, ...]] = ()
    outputs: ClassVar[tuple[Port, ...]] = ()
    # Items out per item in: a number, a function of the parameters, or None where it varies from frame to frame.
    ratio: ClassVar[Any] = None
    # Inputs that must carry the same number of items a frame.
    equal_rates: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, params: BaseModel | dict[str, Any] | None = None, name: str = "", context: Context | None = None
    ):
        """Make a block of checked parameters, or of a dict. Raises `ParamsError` with all that is wrong with these."""
        self.params: Any = params if isinstance(params, BaseModel) else self._checked(params or {})
        self.name = name or self.type_name()
        self.context = context or Context()

    @classmethod
    def _checked(cls, params: dict[str, Any]) -> BaseModel:
        try:
            return cls.Params.model_validate(params)
        except ValidationError:
            from flowgraph.config.validate import mistakes_in

            name = cls.type_name()
            mistakes = mistakes_in(params, cls.Params, name, f"a parameter of {name}")
            raise ParamsError("\n".join(map(str, mistakes))) from None

    @classmethod
    def type_name(cls) -> str:
        """Name of this type of block in a config: the class's name in snake case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()

    @classmethod
    def summary(cls) -> str:
        """First sentence of the class's documentation."""
        return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")

    @property
    def key(self) -> int:
        """64-bit key of this block's random numbers: the same for a seed and a name, wherever the block runs."""
        return _key(self.context.seed, self.name)

    def align(self, port: Port) -> int:
        if port.octets:
            return 8
        return port.align(self.params) if callable(port.align) else port.align

    def start(self) -> None:
        """Get what the block needs: models, devices, files."""

    def produce(self) -> Iterator[Output]:
        """Make the stream of a source, packet by packet."""
        raise TypeError(f"{type(self).__name__} has no inputs and must define produce()")

    if TYPE_CHECKING:  # every block names its own inputs
        work: Callable[..., Output | Iterator[Output]]
    else:

        def work(self, **packets):
            """Turn one packet of every input into packets."""
            raise TypeError(f"{type(self).__name__} must define work()")

    def changed(self, name: str) -> None:
        """Take over a live parameter, whose new value `self.params` has, before the next packet comes.

        Blocks that look at `self.params` in `work()` need not. A `BlockError` refuses the value, and says why.
        """

    def flush(self) -> Output | Iterator[Output]:
        """Hand out what is left after the last packet."""
        return None

    def stop(self) -> None:
        """Give back what `start()` got; called wherever `start()` was, even where that failed."""

    @classmethod
    def devices(cls) -> list[str]:
        """Return what is attached to this machine for such a block to work with, a line each."""
        return []

    # What a block tells the person who runs the graph

    def report(self, section: str, frame: int | None = None, **values: Any) -> None:
        """Add figures to `report.json`: to a section (`"link"`, `"payload"`), or to a frame's row of `"frames"`."""
        self.context.report(section, frame, values)

    def keep(self, path: str, data: bytes | Callable[[], bytes]) -> None:
        """Store a file in the run's folder, wherever this block runs; where none is kept, `data` is not called."""
        if self.context.keep:
            self.context.keep(path, data() if callable(data) else data)

    def warn(self, message: str) -> None:
        """Tell the user something once that does not stop the run; it is counted as an error of this block."""
        self.context.warn(message)

    def files(self, pattern: str, endings: Collection[str] = ()) -> Iterable[tuple[str, bytes | OSError]]:
        """Read a file, a folder's files or a glob's, sorted by name: name, and content or why it cannot be read.

        Of a folder or a glob only files with one of the `endings`, as `.png`, where any are given.
        """
        return self.context.files(pattern, endings)

    def progress(self, step: int, steps: int) -> None:
        """Tell how far long work on what came last is; people who watch see the newest a few times a second."""
        self.context.progress = step, steps

    def checkpoint(self) -> None:
        """Let go of everything if the run is being stopped; for a block that waits for the world outside."""
        self.context.checkpoint()

    # What a block need not wait for

    def later(self, make: Callable[[], Made]) -> Output:
        """Return what `make()` returns, or the promise of it where the worker has threads to spare, to be handed out.

        Outputs leave in the order in which they were handed out. `make` must not depend on what the block changes.
        """
        return self.context.later(make)

    # What a block need not do again, where one graph after another is run

    def cached(self, make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return `make(*arguments, **options)`, or what that returned to the block of this name in the run before."""
        if self.context.cache is None:
            return make(*arguments, **options)
        wanted = arguments, options
        return self.context.cache.object((self.name, make), wanted, lambda: make(*arguments, **options))

    def computed(self, make: Callable[[], np.ndarray], *facts: Any) -> np.ndarray:
        """Return the array that `make` makes from `facts` alone, arrays and plain data; a sweep makes it once."""
        if self.context.cache is None:
            return make()
        return self.context.cache.array((self.type_name(), *facts), make)
