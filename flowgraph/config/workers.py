"""Where a job runs: which worker has which block, and how other hosts are reached."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from flowgraph.config.document import Mistakes, Node
from flowgraph.config.layers import Document, beside
from flowgraph.config.mistake import nearest, unknown
from flowgraph.config.options import NAME, NAME_RULE, NetworkOptions, WorkerOptions
from flowgraph.config.validate import validated
from flowgraph.config.variables import Variables
from flowgraph.place import fault_of_listening
from flowgraph.spec import NetworkSpec, WorkerSpec


@dataclass
class Placement:
    """Reads `workers:` and `network:` of a job, whose top level and all blocks inside are known by then.

    names   the top level's blocks and sub-graphs, and where they are written
    blocks  the flat names of all blocks
    sure    whether nothing is missing after a mistake told elsewhere
    """

    document: Document
    variables: Variables
    mistakes: Mistakes
    names: dict[str, Node]
    blocks: Iterable[str]
    sure: bool
    workers: list[WorkerSpec] = field(default_factory=list)
    worker_of: dict[str, str] = field(default_factory=dict)  # by the flat name of the block
    hosts: list[Node] = field(default_factory=list)

    def place(self) -> None:
        """Give every block a worker: `workers` and `worker_of`."""
        if "workers" not in self.document.keys:
            self.workers = [WorkerSpec("main")]
            self.worker_of = dict.fromkeys(self.blocks, "main")
            return
        inside = self._inside()
        written = self.mistakes.mapping(self.document.keys["workers"])
        for name, node in written.items():
            for at, wanted in self._worker(name, node):
                if wanted not in inside and wanted not in self.names:
                    self.sure = False
                    if self.document.whole or nearest(wanted, self.names):
                        self.mistakes.add(at.wrong(unknown("a block", wanted, self.names)))
                for block in inside.get(wanted, ()):
                    if self.worker_of.setdefault(block, name) != name:
                        both = f"{self.worker_of[block]} and {name}"
                        self.mistakes.add(at.wrong(f"must run in one worker, not in both {both}"))
        for name, at in self.names.items() if self.sure else ():
            homeless = [block for block in inside.get(name, ()) if block not in self.worker_of]
            if homeless:
                which = ", ".join(homeless) + ": " if len(homeless) < len(inside[name]) else ""
                known = ", ".join(written) or "there is none"
                self.mistakes.add(at.wrong_key(f"{which}must be listed in a worker ({known})"))

    def fused(self) -> list[str]:
        """Return the blocks that `fuse:` names, those inside of sub-graphs too."""
        written = self.mistakes.expect(self.document.keys.get("fuse", Node([])), list, "a list of blocks")
        inside, found = self._inside(), []
        for each in written or ():
            node = self.variables.resolve(each)
            wanted = self.mistakes.expect(node, str, "the name of a block")
            if wanted is not None and wanted not in inside and (self.document.whole or nearest(wanted, self.names)):
                self.mistakes.add(node.wrong(unknown("a block", wanted, self.names)))
            found += inside.get(wanted or "", [])
        return found

    def _worker(self, name: str, written: Node) -> list[tuple[Node, str]]:
        """Take in a worker; return the names of its blocks with their places."""
        node = self.variables.resolve(written)
        if not NAME.fullmatch(name):
            self.mistakes.add(node.wrong_key(f"{NAME_RULE}, not {name!r}"))
        given = self.mistakes.expect(node, dict, "a mapping with `blocks:`")
        options = given and validated(self.mistakes, WorkerOptions, node, given, "an option of a worker")
        if options:
            self.workers.append(WorkerSpec(name, options.host, options.threads))
            if options.host:
                self.hosts.append(given["host"])
        else:
            self.sure = False
        names = [(each, each.text or each.value) for each in (given or {}).get("blocks", Node([])).inner]
        return [(each, text) for each, text in names if isinstance(text, str)]

    def _inside(self) -> dict[str, list[str]]:
        """Return the blocks that a dotted name stands for: the block itself, or all in the sub-graph."""
        found: dict[str, list[str]] = {}
        for name in self.blocks:
            parts = name.split(".")
            for length in range(1, len(parts) + 1):
                found.setdefault(".".join(parts[:length]), []).append(name)
        return found

    def network(self, endpoints: Iterable[tuple[str, Node]]) -> NetworkSpec | None:
        """Return how other hosts are reached, once it is sure that the graph may be reached from there.

        `endpoints` are those that wires were given by hand, with their places.
        """
        at = self.document.keys.get("network", Node({}))
        given = {key: self.variables.resolve(node) for key, node in self.mistakes.mapping(at).items()}
        if "keys" in given and isinstance(given["keys"].value, str):
            given["keys"] = replace(given["keys"], value=os.path.abspath(beside(given["keys"])), text=None)
        options = validated(self.mistakes, NetworkOptions, at, given, "an option of the network")
        if options is None:
            return None
        listening = [(str(host.value), host) for host in self.hosts]
        if options.listen:
            listening.append((urlsplit(options.listen).hostname or "", given["listen"]))
        else:
            for host in self.hosts:
                self.mistakes.add(host.wrong("must come with `network: {listen: tcp://ADDRESS:PORT}`"))
        if options.live:
            listening.append((urlsplit(options.live).hostname or "", given["live"]))
        listening += self._addresses(endpoints)
        network = NetworkSpec(options.listen, options.keys, options.insecure, options.live)
        for address, node in listening:
            if fault := fault_of_listening(network, address):
                self.mistakes.add(node.wrong(fault))
        return network

    def _addresses(self, endpoints: Iterable[tuple[str, Node]]) -> list[tuple[str, Node]]:
        """Return the addresses of endpoints written by hand; each may be written once."""
        taken: set[str] = set()
        found = []
        for endpoint, at in endpoints:
            if endpoint in taken and not endpoint.endswith(":*"):
                self.mistakes.add(at.wrong(f"must have an endpoint of its own, not {endpoint} again"))
            taken.add(endpoint)
            if endpoint.startswith("tcp:"):
                found.append((urlsplit(endpoint.removesuffix(":*")).hostname or "", at))
        return found
