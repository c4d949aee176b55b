"""YAML -> a checked `GraphSpec`, or every mistake at once, each with its place.

A block is of a type (`use:`), or it is a sub-graph (`graph:`), a file with inputs and outputs of its own. Those
are taken apart here; what is left are blocks, with dotted names (`link.channel`), and wires between them.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec import structs
from pydantic.fields import FieldInfo

from flowgraph import registry
from flowgraph.block import BlockError
from flowgraph.changes import find_parameter, with_change
from flowgraph.config.document import MAX_DEPTH, MAX_VALUES, STRING, UNRESOLVED, Mistakes, Node, TooMany, node_of
from flowgraph.config.layers import Document, Files, beside
from flowgraph.config.mistake import ConfigError, Mistake, nearest, unknown
from flowgraph.config.options import NAME, NAME_RULE, BlockOptions, ChangeOptions, JobOptions, Signature, WireOptions
from flowgraph.config.validate import validate, validated
from flowgraph.config.variables import Variables
from flowgraph.config.workers import Placement
from flowgraph.control import matching_files
from flowgraph.graph import Flat, Part, Side, Wire, dtypes, examine, find_port
from flowgraph.spec import BlockSpec, ChangeSpec, GraphSpec, WireSpec

__all__ = ["ConfigError", "Mistake", "load", "loads"]

_END = re.compile(r"\S.*\.[^.\s]+")
_WIRE_RULE = "'block.output -> block.input'"


def load(
    path: str | Path,
    overlays: Iterable[str | Path] = (),
    set: Mapping[str, Any] | None = None,
    seed: int | None = None,
    subgraph: bool = False,
    probes: Sequence[str] = (),
) -> GraphSpec:
    """Load a YAML file, lay `overlays` over it, set variables, and return the checked graph.

    Text in `set` is read as a YAML scalar. `probes` are tapped beside those that the file names. With `subgraph`, the
    file may be a sub-graph, to be looked at alone: it cannot run, as nothing feeds its inputs. Raises `ConfigError`
    with every mistake.
    """
    return _Loader(subgraph, probes=probes).load(str(path), [str(overlay) for overlay in overlays], set or {}, seed)


def loads(
    text: str,
    overlays: Iterable[str | Path] = (),
    set: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> GraphSpec:
    """Load a YAML text as `load` does a file; paths in it start at the working directory."""
    loader = _Loader(subgraph=False)
    loader.files.put(STRING, text)
    return loader.load(STRING, [str(overlay) for overlay in overlays], set or {}, seed)


def graph_of(document: Document, files: Files) -> GraphSpec | None:
    """Return the graph of a document that was put together from pieces of others; None if `files` has mistakes."""
    return _Loader(False, files).graph(document)


def with_settings(document: Document, settings: Mapping[str, Any], mistakes: Mistakes) -> Document:
    """Return a document whose variables are set to other values."""
    at = document.keys.get("vars", Node({}))
    written = dict(mistakes.mapping(at))
    for name, value in settings.items():
        if name in written:
            written[name] = node_of(value, "--set", name)
        elif document.whole or nearest(name, written):
            mistakes.add(Mistake("--set", 0, 0, name, unknown("a variable", name, written)))
    return replace(document, keys={**document.keys, "vars": at.holding(written)})


@dataclass
class _Subgraph(Part):
    """A sub-graph where it is used: its ports, as the ports of blocks inside that they lead to.

    A port that could not be followed leads nowhere; `known` tells whether all ports are there.
    """

    inputs: dict[str, list[str]] = field(default_factory=dict)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    known: bool = False


@dataclass
class _Level:
    """A graph or sub-graph while it is read: what its names mean, and how its blocks' flat names begin."""

    document: Document
    variables: Variables
    prefix: str = ""
    above: tuple[str, ...] = ()  # the sub-graph files around it, and its own
    names: dict[str, Part] = field(default_factory=dict)


@dataclass(frozen=True)
class _Laid:
    """A wire of the flat graph, with what is said of the wire it was written as."""

    wire: Wire
    options: WireOptions | None
    at: Node


def _wanted_of(pattern: str) -> str:
    """Return what a pattern that no file matches was to be."""
    if os.path.isdir(pattern):
        return "a folder with files"
    return "a glob that some file matches" if glob.has_magic(pattern) else "a file or a folder that is there"


class _Loader:
    """One load: collects the flat graph and the mistakes, level by level."""

    def __init__(self, subgraph: bool, files: Files | None = None, probes: Sequence[str] = ()) -> None:
        self.probes = [node_of(text, "--probe", text) for text in probes]
        self.subgraph = subgraph  # whether the file may be a sub-graph
        self.files = files or Files(Mistakes())
        self.mistakes = self.files.mistakes
        self.flat = Flat()
        self.blocks: list[BlockSpec] = []
        self.wires: list[_Laid] = []
        self.values = 0  # in all blocks and wires

    def load(self, file: str, overlays: list[str], settings: Mapping[str, Any], seed: int | None) -> GraphSpec:
        spec = None
        try:
            document = self.files.document(file)
            for overlay in overlays:
                document = document.under(self.files.document(overlay))
            spec = self.graph(with_settings(document.settled(), settings, self.mistakes), seed)
        except TooMany:
            pass
        if self.mistakes or spec is None:
            raise self.files.error()
        return spec

    def graph(self, document: Document, seed: int | None = None) -> GraphSpec | None:
        is_subgraph = "subgraph" in document.keys
        if is_subgraph and not self.subgraph:
            self.mistakes.add(document.keys["subgraph"].wrong_key("must be a flowgraph, not a sub-graph"))
            return None
        written = self._mapping(document, "vars")
        level = _Level(document, Variables(written, {}, self.mistakes, document.whole))
        self._contents(level)
        if is_subgraph:
            used = _Subgraph(None, None, document.at)
            self._ports(level, used)
            self.flat.vague.update(end for ends in used.inputs.values() for end in ends)
        job = {key: node for key, node in document.keys.items() if key in JobOptions.model_fields}
        job = {key: level.variables.resolve(node) for key, node in job.items()}
        if is_subgraph:
            job["flowgraph"] = level.variables.resolve(document.keys["subgraph"])
        if seed is not None:
            job["seed"] = node_of(seed, "--seed", "")
        if not document.whole:
            job.setdefault("flowgraph", Node(UNRESOLVED))
        options = validated(self.mistakes, JobOptions, document.at, job, "a key of a flowgraph")
        at = {name: part.at for name, part in level.names.items()}
        placement = Placement(document, level.variables, self.mistakes, at, self.flat.blocks, self.flat.whole)
        placement.place()
        fused = placement.fused()
        network = placement.network(
            (laid.options.endpoint, laid.at) for laid in self.wires if laid.options and laid.options.endpoint
        )
        if document.whole:
            for name in document.added - level.variables.used:
                known = written.keys() - document.added
                self.mistakes.add(written[name].wrong_key(unknown("a variable that something uses", name, known)))
        probes, changes = self._probes(level), self._changes(level)
        self.flat.wires = [laid.wire for laid in self.wires]
        self.mistakes.add(*examine(self.flat))
        if self.mistakes or options is None or network is None:
            return None
        blocks = [structs.replace(block, worker=placement.worker_of[block.name]) for block in self.blocks]
        wires = self._wire_specs()
        spec = GraphSpec(options.flowgraph, options.seed, blocks, wires, placement.workers, network, probes, changes)
        try:
            return spec.fuse(fused)
        except ValueError as error:
            self.mistakes.add(document.keys["fuse"].wrong(str(error)))
            return None

    def _contents(self, level: _Level) -> None:
        """Take in the blocks and wires of a level."""
        document = level.document
        self.flat.whole = self.flat.whole and document.whole
        blocks = document.keys.get("blocks", Node({}))
        if document.whole and blocks.value == {}:
            self.mistakes.add(document.keys.get("blocks", document.at).wrong("must have blocks"))
        for name, node in self._mapping(document, "blocks").items():
            if not NAME.fullmatch(name) and "made_with" not in document.keys:
                self.mistakes.add(node.wrong_key(f"{NAME_RULE}, not {name!r}"))
            level.names[name] = self._block(level, name, level.variables.resolve(node))
        wires = document.keys.get("wires", Node([]))
        for node in self.mistakes.expect(wires, list, "a list of wires") or ():
            self._wire(level, level.variables.resolve(node))

    def _mapping(self, document: Document, key: str) -> dict[str, Node]:
        return self.mistakes.mapping(document.keys.get(key, Node({})))

    def _spend(self, node: Node) -> None:
        """Count values against what a graph may have, its variables put in and its sub-graphs taken apart."""
        self.values += node.size
        if self.values > MAX_VALUES:
            self.mistakes.add(node.wrong(f"must make a graph of at most {MAX_VALUES} values in all"))
            raise TooMany

    # Blocks and sub-graphs

    def _block(self, level: _Level, name: str, node: Node) -> Part:
        self._spend(node)
        keys = self.mistakes.expect(node, dict, "a mapping with `use:` or `graph:`")
        part = Part(None, None, node)
        if keys is not None and ("use" in keys) == ("graph" in keys):
            near = next(filter(None, (nearest(key, ("use", "graph")) for key in keys)), "")
            remedy = ", not both" if "use" in keys else near
            self.mistakes.add(node.wrong_key(f"must have `use: TYPE` or `graph: FILE`{remedy}"))
        elif keys is not None and "graph" in keys:
            return self._subgraph(level, name, node)
        elif keys is not None:
            part = self._part(level, name, node)
        self.flat.blocks[level.prefix + name] = part
        return part

    def _part(self, level: _Level, name: str, node: Node) -> Part:
        keys = dict(node.value)
        use = keys.pop("use")
        memory = {"memory": keys.pop("memory")} if "memory" in keys else {}
        options = validated(self.mistakes, BlockOptions, node, memory, "an option of a block")
        if self.mistakes.expect(use, str, "a block type") is None:
            return Part(None, None, node)
        try:
            block = registry.find(use.value)
        except BlockError as error:
            self.mistakes.add(use.wrong(str(error)))
            return Part(None, None, node)
        given = {key: self._path(each, block.Params.model_fields.get(key)) for key, each in keys.items()}
        kind = f"a parameter of {use.value}"
        params, data, mistakes = validate(block.Params, node, given, kind, ("use", "memory"))
        self.mistakes.add(*mistakes)
        if options is not None:
            self.blocks.append(BlockSpec(level.prefix + name, use.value, data, "", options.memory))
        return Part(block, params, node)

    def _path(self, node: Node, info: FieldInfo | None) -> Node:
        """Return the value of a parameter that names files, made absolute; of any other as it is.

        What may be a path or a name (`path: maybe`) is a path if there is something; what is written, or comes before
        the run, need not be there (`path: any`).
        """
        extra = info.json_schema_extra if info else None
        kind = extra.get("path") if isinstance(extra, dict) else None
        if not kind or not isinstance(node.value, str) or (info and node.value == info.default):
            return node  # a default is a word of the block's, such as "sample"
        folder, path = node.folder.absolute(), Path(os.path.expanduser(node.value))
        absolute = os.path.normpath(folder / path)
        if kind == "maybe":
            if os.path.exists(absolute):
                return replace(node, value=absolute, text=None)
            if node.value.startswith(("/", ".", "~")):
                self.mistakes.add(node.wrong(f"must be a folder that exists, or a name, not {absolute!r}"))
            return node
        if kind == "any":
            return replace(node, value=absolute, text=None)
        if not os.path.exists(absolute) and not path.is_absolute():
            absolute = os.path.normpath(glob.escape(str(folder)) + os.sep + str(path))
        try:
            if not matching_files(absolute):
                self.mistakes.add(node.wrong(f"must be {_wanted_of(absolute)}, not {absolute!r}"))
        except OSError as error:
            self.mistakes.add(node.wrong(f"must be files that can be read, not {absolute!r}: {error.strerror}"))
        return replace(node, value=absolute, text=None)

    def _subgraph(self, level: _Level, name: str, node: Node) -> _Subgraph:
        keys = dict(node.value)
        graph, used = keys.pop("graph"), _Subgraph(None, None, node)
        if self.mistakes.expect(graph, str, "a sub-graph file") is None:
            return used
        file = beside(graph)
        if row := self.files.circle(level.above, file):
            self.mistakes.add(graph.wrong(f"must not contain itself: {row}"))
            return used
        if len(level.above) == MAX_DEPTH:
            self.mistakes.add(graph.wrong(f"must be at most {MAX_DEPTH} sub-graphs deep"))
            return used
        document = self.files.document(file, graph).settled()
        if "subgraph" not in document.keys:
            if document.whole:
                self.mistakes.add(graph.wrong(f"must be a sub-graph file, not {file}, which has no `subgraph:`"))
            return used
        written = self._mapping(document, "vars")
        given = {key: each for key, each in keys.items() if key in written}
        if document.whole:
            for key in keys.keys() - given.keys():
                self.mistakes.add(keys[key].wrong_key(unknown(f"a variable of {file}", key, written)))
        variables = Variables(written, given, self.mistakes, document.whole)
        inner = _Level(document, variables, f"{level.prefix}{name}.", (*level.above, file))
        self._contents(inner)
        self._ports(inner, used)
        self.flat.doors |= {end: (node, port) for port, ends in used.inputs.items() for end in ends}
        return used

    def _ports(self, level: _Level, used: _Subgraph) -> None:
        """Take in the inputs and outputs of a sub-graph."""
        document = level.document
        self.mistakes.expect(document.keys["subgraph"], str, "the name of the sub-graph")
        for port, each in self._mapping(document, "inputs").items():
            ends = each.value if isinstance(each.value, list) else [each]
            used.inputs[port] = [flat for end in ends for flat in self._inner_end(level, end, "inputs")]
        for port, each in self._mapping(document, "outputs").items():
            used.outputs[port] = self._inner_end(level, each, "outputs")
        used.known = document.whole
        if "signature" in document.keys:
            self._check_signature(document, used)

    def _inner_end(self, level: _Level, written: Node, side: Side) -> list[str]:
        """Return the flat ports behind a port of a sub-graph."""
        node = level.variables.resolve(written)
        text = self.mistakes.expect(node, str, f"the {side[:-1]} of a block, 'block.port'")
        return self._end(level, text, node, side) if text else []

    def _check_signature(self, document: Document, used: _Subgraph) -> None:
        """Check that a sub-graph has the ports that its signature file says, and no others."""
        node = document.keys["signature"]
        if self.mistakes.expect(node, str, "a signature file") is None:
            return
        file = beside(node)
        tree = self.files.tree(file, node)
        signature = validated(self.mistakes, Signature, tree, tree.value, "a key of a signature") if tree else None
        if signature is None:
            return
        self._check_side("inputs", document, used.inputs, signature.inputs, file)
        self._check_side("outputs", document, used.outputs, signature.outputs, file)

    def _check_side(
        self,
        side: Side,
        document: Document,
        ports: dict[str, list[str]],
        signature: dict[str, Any],
        file: str,
    ) -> None:
        written = self._mapping(document, side)
        for name in [name for name in signature if name not in written]:
            at = document.keys.get(side, document.keys["signature"])
            self.mistakes.add(at.wrong_key(f"must have the {side[:-1]} {name!r} that {file} asks for"))
        for name, at in written.items():
            if name not in signature:
                self.mistakes.add(at.wrong_key(unknown(f"an {side[:-1]} of {file}", name, signature)))
                continue
            allowed = {signature[name]} if isinstance(signature[name], str) else {*signature[name]}
            for end in ports[name]:
                port = find_port(self.flat.blocks, end, side)
                found = dtypes(self.flat.blocks[end.rpartition(".")[0]], port) if port else allowed
                fits = allowed <= found if side == "inputs" else found <= allowed
                if not fits:
                    verb, said = "take" if side == "inputs" else "give", " or ".join(sorted(allowed))
                    self.mistakes.add(at.wrong(f"must {verb} {said}, as {file} says, not {' or '.join(sorted(found))}"))

    # Wires

    def _wire(self, level: _Level, node: Node) -> None:
        self._spend(node)
        options: WireOptions | None = None
        text = node
        if isinstance(node.value, dict):
            options = validated(self.mistakes, WireOptions, node, node.value, "an option of a wire")
            text = node.value.get("wire", Node(UNRESOLVED))
        elif self.mistakes.expect(node, str, f"{_WIRE_RULE}, or a mapping with `wire:`") is None:
            text = Node(UNRESOLVED)
        if not isinstance(text.value, str):
            self.flat.whole = False
            return
        ends, offset = [], 0
        for piece in text.value.split("->"):
            ends.append((piece.strip(), text.at(offset + len(piece) - len(piece.lstrip()))))
            offset += len(piece) + len("->")
        if len(ends) < 2 or not all(_END.fullmatch(end) for end, _ in ends):
            self.mistakes.add(text.wrong(f"must be {_WIRE_RULE}, not {text.value!r}"))
            self.flat.whole = False
            return
        found = True  # what stands in the middle of a row and is no input need not be told to be no output either
        for (left, left_at), (right, right_at) in pairwise(ends):
            sources = self._end(level, left, left_at, "outputs") if found else []
            targets = self._end(level, right, right_at, "inputs")
            found = bool(targets)
            for target in targets or (None,):
                source = sources[0] if sources else None
                delay = options.delay if options else 0
                self.wires.append(_Laid(Wire(source, target, left_at, right_at, delay), options, text))

    def _end(self, level: _Level, text: str, at: Node, side: Side) -> list[str]:
        """Return the flat ports that `block.port` means in a level; none where that cannot be told."""
        block, _, port = text.rpartition(".")
        used = level.names.get(block)
        if isinstance(used, _Subgraph):
            ports = used.inputs if side == "inputs" else used.outputs
            if port in ports or not used.known:
                return ports.get(port, [])
            self.mistakes.add(at.wrong(unknown(f"an {side[:-1]} of {block}", port, ports)))
            self.flat.vague.update(end for ends in used.inputs.values() for end in ends)
            return []
        if used is None and not level.document.whole and not nearest(block, level.names):
            return []
        try:
            find_port(level.names, text, side)
        except LookupError as error:
            self.mistakes.add(at.wrong(str(error)))
            if side == "inputs":
                self.flat.vague.add(f".{port}" if used is None else f"{level.prefix}{block}")
            return []
        return [level.prefix + text]

    # Probes and changes

    def _probes(self, level: _Level) -> list[str]:
        """Return the outputs that are tapped."""
        written = self.mistakes.expect(level.document.keys.get("probes", Node([])), list, "a list of outputs")
        found: list[str] = []
        for each in [*(written or ()), *self.probes]:
            node = level.variables.resolve(each)
            text = self.mistakes.expect(node, str, "an output, 'block.port'")
            if text is not None:
                end = text.partition("->")[0].strip()  # a wire means the output that it comes from
                if "." not in end:
                    self.mistakes.add(node.wrong(f"must be an output, 'block.port', not {text!r}"))
                    continue
                inside = end.rpartition(".")[0] in self.flat.blocks
                inner = replace(level, names={**level.names, **self.flat.blocks}) if inside else level
                found += self._end(inner, end, node, "outputs")
        return list(dict.fromkeys(found))

    def _changes(self, level: _Level) -> list[ChangeSpec]:
        """Return the changes of live parameters that the file has logged, or plans."""
        written = self.mistakes.expect(level.document.keys.get("changes", Node([])), list, "a list of changes")
        types = {name: part.block for name, part in self.flat.blocks.items() if part.block}
        params = {block.name: block.params for block in self.blocks}
        found = []
        for each in written or ():
            node = level.variables.resolve(each)
            given = self.mistakes.expect(node, dict, "{set: NAME, to: VALUE, frame: N, offset: N}")
            options = given and validated(self.mistakes, ChangeOptions, node, given, "an option of a change")
            if not options:
                continue
            at = given["set"]
            try:
                block, name = find_parameter(types, options.set)
                at = given["to"]
                made = with_change(types[block], params[block], name, at.plain)
            except BlockError as error:
                self.mistakes.add(at.wrong(str(error)))
            else:
                value = made.model_dump(mode="json")[name]
                found.append(ChangeSpec(block, name, value, options.frame, options.offset))
        return found

    def _wire_specs(self) -> list[WireSpec]:
        return [
            WireSpec(
                laid.wire.source or "",
                laid.wire.target or "",
                **(laid.options.model_dump(exclude={"wire"}) if laid.options else {}),
            )
            for laid in self.wires
        ]
