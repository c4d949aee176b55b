"""The flat graph, written down: YAML that loads to the same again."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

import yaml
from msgspec.structs import fields

from flowgraph.spec import GraphSpec


def dump(spec: GraphSpec) -> str:
    """Return the graph as YAML that loads to the same again, with the versions that it was made with."""
    lines = [
        f"flowgraph: {_flow(spec.name)}",
        f"seed: {spec.seed}",
        f"made_with: {_flow(_versions())}",
        "workers:",
    ]
    for worker in spec.workers:
        entry: dict[str, Any] = {"blocks": [block.name for block in spec.blocks if block.worker == worker.name]}
        entry |= _given(worker, ("host", "threads"))
        lines.append(f"  {_flow(worker.name)}: {_flow(entry)}")
    if fused := [block.name for block in spec.blocks if block.chain]:
        lines.append(f"fuse: {_flow(fused)}")
    if network := _given(spec.network, ("listen", "keys", "insecure", "live")):
        lines.append(f"network: {_flow(network)}")
    lines.append("blocks:")
    for block in spec.blocks:
        entry = {"use": block.type, **_given(block, ("memory",)), **block.params}
        lines.append(f"  {_flow(block.name)}: {_flow(entry)}")
    lines.append("wires:" if spec.wires else "wires: []")
    for wire in spec.wires:
        options = _given(wire, ("queue", "policy", "delay", "endpoint"))
        lines.append(f"  - {_flow({'wire': wire.name, **options} if options else wire.name)}")
    if spec.probes:
        lines.append(f"probes: {_flow(spec.probes)}")
    if spec.changes:
        lines.append("changes:")
    for change in spec.changes:
        entry = {"set": change.name, "to": change.value, "frame": change.frame, "offset": change.offset}
        lines.append(f"  - {_flow(entry)}")
    return "\n".join(lines) + "\n"


def _given(spec: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a description that differ from their defaults."""
    defaults = {each.name: each.default for each in fields(spec)}
    return {name: getattr(spec, name) for name in names if getattr(spec, name) != defaults[name]}


class _Dumper(yaml.SafeDumper):
    """Writes text that holds line breaks and the like with escapes, so that it comes back as it was."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"'),
)


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    style: dict[str, Any] = {"sort_keys": False, "default_flow_style": True, "allow_unicode": True, "width": 1 << 30}
    return yaml.dump([_literal(value)], Dumper=_Dumper, **style).strip()[1:-1]


def _literal(value: Any) -> Any:
    """Return plain data in which no text is taken for a variable."""
    if isinstance(value, dict):
        return {key: _literal(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(each) for each in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for name in ("semflow", "numpy", "torch", "diffusers", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
