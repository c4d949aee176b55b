"""Where a wire listens: follows from where its two blocks run."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from flowgraph.spec import GraphSpec, NetworkSpec, WireSpec

LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def fault_of_listening(network: NetworkSpec, host: str) -> str:
    """Say what is wrong with listening on `host`, where strangers could reach it; return "" where nothing is."""
    if network.keys or network.insecure or is_loopback(host):
        return ""
    remedy = "`keys: FOLDER` (`run_flowgraph.py keys FOLDER` makes it) or `insecure: true`"
    return f"must be an address of this machine, not {host}, unless `network:` has {remedy}"


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


def listening_on(spec: GraphSpec) -> list[str]:
    """Return the hosts whose addresses the graph listens on."""
    found = [worker.host for worker in spec.workers if worker.host]
    written = [*(wire.endpoint for wire in spec.wires), spec.network.listen, spec.network.live]
    return found + [urlsplit(text).hostname or "" for text in written if text and text.startswith("tcp:")]
