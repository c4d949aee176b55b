"""Files laid over one another: what a file `extends` lies under it, overlays lie over it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowgraph.config.document import MAX_DEPTH, Mistakes, Node, parse, read
from flowgraph.config.mistake import ConfigError, Mistake, unknown

JOB_KEYS = (
    *("flowgraph", "seed", "vars", "extends", "workers", "fuse", "network", "blocks", "wires"),
    *("probes", "changes", "made_with"),
)
SUBGRAPH_KEYS = ("subgraph", "signature", "vars", "extends", "inputs", "outputs", "blocks", "wires")
MERGED = ("vars", "blocks", "workers", "network")  # key by key; anything else is replaced as a whole


@dataclass(frozen=True)
class Document:
    """A file with all that it extends under it: nodes by top-level key."""

    at: Node  # the beginning of the file
    keys: dict[str, Node] = field(default_factory=dict)
    whole: bool = True  # every file that belongs to it could be read
    added: frozenset[str] = frozenset()  # variables that a file lays over others, none of which has them

    def under(self, over: Document) -> Document:
        """Return this document with another laid over it."""
        keys = dict(self.keys)
        for key, node in over.keys.items():
            below = keys.get(key)
            if node.value is None and below:
                del keys[key]
            elif below and key in MERGED and isinstance(below.value, dict) and isinstance(node.value, dict):
                merged = dict(below.value)
                for name, each in node.value.items():
                    if each.value is None and name in merged and key != "vars":
                        del merged[name]
                    else:
                        merged[name] = each
                keys[key] = node.holding(merged)
            else:
                keys[key] = node
        new = _names(over) - _names(self) if self.keys else frozenset()
        return Document(self.at, keys, self.whole and over.whole, self.added | over.added | new)

    def settled(self) -> Document:
        """Return this document for good: no file will come below whose keys an empty one could remove."""
        keys = {key: node for key, node in self.keys.items() if node.value is not None}
        return Document(self.at, keys, self.whole, self.added)


class Files:
    """Reads files, each once, and notes the mistakes in them.

    What calls itself neither a sub-graph nor a flowgraph, or by the key `kind`, is a `kind` of document with these
    `keys`.
    """

    def __init__(self, mistakes: Mistakes, kind: str = "flowgraph", keys: Sequence[str] = JOB_KEYS):
        self.mistakes, self.kind, self.keys = mistakes, kind, keys
        self.trees: dict[str, Node | list[Mistake]] = {}  # by name, in the order wanted; or why there is none
        self.documents: dict[str, Document] = {}
        self.real: dict[str, str] = {}  # where a name leads to, links followed

    def put(self, file: str, text: str) -> None:
        """Take a text for the content of a file."""
        self._keep(file, lambda: parse(text, file))

    def _keep(self, file: str, get: Callable[[], tuple[Node, list[Mistake]]]) -> None:
        self.trees[file] = []  # its place in the order comes before that of the files it names
        try:
            tree, mistakes = get()
        except ConfigError as error:
            self.trees[file] = error.mistakes
        else:
            self.mistakes.add(*mistakes)
            self.trees[file] = tree

    def error(self) -> ConfigError:
        """Return all mistakes, in the order in which a reader comes upon them."""
        order = {name: number for number, name in enumerate(self.trees)}
        return ConfigError(sorted(self.mistakes, key=lambda each: (order.get(each.file, -1), each.line, each.col)))

    def tree(self, file: str, asked: Node | None = None) -> Node | None:
        """Return the mapping in a file, which the node `asked` names; None after a mistake."""
        if file not in self.trees:
            self._keep(file, lambda: read(file))
        tree = self.trees[file]
        if isinstance(tree, list):  # what has no line of its own is a mistake of the one who names the file
            self.mistakes.add(
                *(asked.wrong(f"{file} {each.message}") if asked and not each.line else each for each in tree)
            )
            return None
        wanted = "a mapping (flowgraph:, blocks:, wires:)"
        return tree if self.mistakes.expect(tree, dict, wanted) is not None else None

    def document(self, file: str, asked: Node | None = None, above: tuple[str, ...] = ()) -> Document:
        """Return a file laid over what it extends; `above` names the files that extend it."""
        if file not in self.documents:
            self.documents[file] = self._document(file, asked, above)
        elif asked and isinstance(self.trees[file], list):
            self.tree(file, asked)  # each one who names a file that cannot be read is told
        return self.documents[file]

    def _document(self, file: str, asked: Node | None, above: tuple[str, ...]) -> Document:
        tree = self.tree(file, asked)
        if tree is None:
            return Document(Node(None, file), whole=False)
        own, document = dict(tree.value), Document(tree)
        kind, known = self.kind, self.keys
        if "subgraph" in own:
            kind, known = "sub-graph", SUBGRAPH_KEYS
        elif "flowgraph" in own and self.kind not in own:
            kind, known = "flowgraph", JOB_KEYS
        for key in [key for key in own if key not in known]:
            self.mistakes.add(own.pop(key).wrong_key(unknown(f"a key of a {kind}", key, known)))
        for base in _list(own.pop("extends", None)):
            if self.mistakes.expect(base, str, "a file to extend") is None:
                continue
            if row := self.circle((*above, file), beside(base)):
                self.mistakes.add(base.wrong(f"must not extend itself: {row}"))
            elif len(above) == MAX_DEPTH:
                self.mistakes.add(base.wrong(f"must be at most {MAX_DEPTH} files away from the first"))
            else:
                document = document.under(self.document(beside(base), base, (*above, file)))
        return document.under(Document(tree, own))

    def circle(self, above: tuple[str, ...], file: str) -> str:
        """Return how a file comes back to one of those above it, `a -> b -> a`, or nothing."""
        names = [*above, file]
        for each in names:
            if each not in self.real:
                self.real[each] = os.path.realpath(each)
        real = [self.real[each] for each in names]
        if real[-1] not in real[:-1]:
            return ""
        return " -> ".join(Path(each).name for each in names[real.index(real[-1]) :])


def kind_of(file: str) -> str | None:
    """Return what a YAML file calls itself, by the key that it begins with; None where it says nothing."""
    try:
        tree, _ = read(file)
    except ConfigError:
        return None
    keys = tree.value if isinstance(tree.value, dict) else {}
    return next((kind for kind in ("sweep", "waterfall", "flowgraph") if kind in keys), None)


def _names(document: Document) -> frozenset[str]:
    """Return the variables of a document."""
    node = document.keys.get("vars")
    return frozenset(node.value) if node and isinstance(node.value, dict) else frozenset()


def _list(node: Node | None) -> Iterable[Node]:
    if node is None:
        return ()
    return node.value if isinstance(node.value, list) else (node,)


def beside(node: Node) -> str:
    """Return the file that a node names, relative to the file that wrote it."""
    return os.path.normpath(node.folder / os.path.expanduser(node.value))
