"""Where a wire listens: follows from where its two blocks run."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flowgraph.spec import GraphSpec, WireSpec

LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def endpoint(spec: GraphSpec, wire: WireSpec, directory: str, token: str) -> str:
    """Return where the receiving end of `wire` listens.

    `inproc` inside a worker, `ipc` in the run's private directory between workers of one host, `tcp` between hosts; a
    `tcp` port is left to the system (`*`). An endpoint written in the config is taken as it is.
    """
    if wire.endpoint:
        return wire.endpoint
    worker_of = {block.name: block.worker for block in spec.blocks}
    host_of = {worker.name: worker.host for worker in spec.workers}
    source, target = worker_of[wire.source_block], worker_of[wire.target_block]
    number = spec.wires.index(wire)
    if source == target:
        return f"inproc://{token}/{number}"
    if host_of[source] == host_of[target] is None:
        return f"ipc://{directory}/{number}"
    host = host_of[target] or (urlsplit(spec.network.listen).hostname if spec.network.listen else LOOPBACK)
    return f"tcp://{host}:*"


def open_addresses(spec: GraphSpec) -> list[str]:
    """Return the addresses beyond this machine that the graph would listen on: they need keys or `insecure: true`."""
    found = [worker.host for worker in spec.workers if worker.host and not is_loopback(worker.host)]
    written = [*(wire.endpoint for wire in spec.wires), spec.network.listen, spec.network.live]
    hosts = [urlsplit(text).hostname or "" for text in written if text and text.startswith("tcp:")]
    return sorted(set(found + [host for host in hosts if not is_loopback(host)]))
