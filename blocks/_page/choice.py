"""What of a graph is worth looking at, found in the graph alone: its wires' item types and its ports' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowgraph.spec import GraphSpec

COMPLEX, SOFT = ("complex64", "complex128"), ("float32", "int8")
SIDE = ("gains", "taps")  # ports that take what is known of the channel, beside the signal


@dataclass(frozen=True)
class Choice:
    """Outputs to begin with, `block.port`; None where a graph has nothing of the kind."""

    decided: str | None = None  # symbols as the receiver decides on them
    unequalized: str | None = None  # the same as they came to the equaliser
    received: str | None = None  # what came out of the channel, or from a radio
    gains: str | None = None
    llrs: str | None = None
    samples_per_symbol: int = 1  # of `received`

    @property
    def outputs(self) -> set[str]:
        """All that are to be watched."""
        chosen = (self.decided, self.unequalized, self.received, self.gains, self.llrs)
        return {output for output in chosen if output}


def complex_outputs(taps: Mapping[str, list[str]]) -> list[str]:
    """Return the outputs that carry complex numbers: item types by output in, in the same order."""
    return [output for output, types in taps.items() if types and set(types) <= {*COMPLEX}]


def choose(spec: GraphSpec, taps: Mapping[str, list[str]]) -> Choice:
    """Choose by the wires' item types, given by output; the graph has all parameters, those by default too.

    The receiver is the first block that makes something else of complex numbers: bits of symbols, or bits and symbols
    of samples.
    """
    signals = set(complex_outputs(taps))
    inputs: dict[str, dict[str, str]] = {}  # what feeds each port of each block
    for wire in spec.wires:
        inputs.setdefault(wire.target_block, {})[wire.target_port] = wire.source
    soft = [each for each, types in taps.items() if each.endswith(".bits") and len(types) == 1 and types[0] in SOFT]
    for block in spec.in_order():
        outputs = [each for each in taps if each.rpartition(".")[0] == block.name]
        came = [source for port, source in inputs.get(block.name, {}).items() if source in signals and port not in SIDE]
        if came and {*outputs} - signals:
            break
    else:
        return Choice(llrs=soft[0] if soft else None)
    chain = _upstream(came[0], inputs, signals)
    types_of = {each.name: each.type for each in spec.blocks}
    channels = [each for each in chain if types_of[each.rpartition(".")[0]].endswith("_channel")]
    oversampled = [each for each in outputs if each in signals]  # then the symbols are its own
    equalizer = inputs.get(came[0].rpartition(".")[0], {})
    return Choice(
        decided=oversampled[0] if oversampled else came[0],
        unequalized=equalizer.get("symbols") if "gains" in equalizer else None,
        received=(channels or chain)[0],
        gains=next((each for each in taps if each in signals and each.endswith(".gains")), None),
        llrs=next((each for each in soft if each in outputs), soft[0] if soft else None),
        samples_per_symbol=_samples_per_symbol(spec) if oversampled else 1,
    )


def _samples_per_symbol(spec: GraphSpec) -> int:
    return next((each.params["samples_per_symbol"] for each in spec.blocks if "samples_per_symbol" in each.params), 1)


def _upstream(output: str, inputs: dict[str, dict[str, str]], signals: set[str]) -> list[str]:
    """Return an output and those that it comes of, as far as they are complex."""
    chain = [output]
    while True:
        feeding = inputs.get(chain[-1].rpartition(".")[0], {})
        before = [source for port, source in feeding.items() if source in signals and port not in SIDE]
        if not before or before[0] in chain:
            return chain
        chain.append(before[0])
