"""The command line. Exit codes: 0 done, 1 a block failed, 2 the config (or the command) is wrong, 130 interrupted."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from flowgraph.config.mistake import nearest, unknown

if TYPE_CHECKING:
    from blocks.view.viewer import Viewer
    from flowgraph.report import Report

VERSION = version("semflow")


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """Return the parser, and those of all commands."""
    parser = argparse.ArgumentParser(
        prog="semflow" if Path(sys.argv[0]).stem == "semflow" else "run_flowgraph.py",
        description="Run a flowgraph: images by meaning over radio.",
        epilog="`run_flowgraph.py CONFIG ...` is short for `run_flowgraph.py run CONFIG ...`.",
    )
    parser.add_argument("--version", action="version", version=f"semflow {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("config", metavar="CONFIG", help="YAML file")
    config.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set a variable of the config")
    config.add_argument("--overlay", action="append", default=[], metavar="FILE", help="lay another YAML file over it")
    config.add_argument("--seed", type=int, metavar="N", help="seed of all random numbers")

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--port", type=int, metavar="N", help="port of the live page (default: a free one)")
    where.add_argument(
        "--address", metavar="A",
        help="address of the live page (default: 127.0.0.1); beyond this machine it asks for the token that is printed",
    )  # fmt: skip
    run = commands.add_parser("run", parents=[config, where], help="run a flowgraph")
    run.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/<flowgraph>-<time>/)")
    run.add_argument("--quiet", action="store_true", help="no progress, no tables")
    run.add_argument("--probe", action="append", default=[], metavar="WIRE", help="tap a wire: BLOCK.OUTPUT")
    seen = run.add_mutually_exclusive_group()
    seen.add_argument("--live", action="store_true", help="serve a live page, while the run lasts and until Ctrl-C")
    seen.add_argument("--window", action="store_true", help="show the run in a desktop window, without a browser")
    run.set_defaults(command=_run)
    sweep = commands.add_parser(
        "sweep", parents=[config], help="run a grid over a flowgraph's variables, into one table"
    )
    sweep.add_argument(
        "--out", metavar="DIR", help="its folder, in which a sweep goes on where one stopped (default: runs/<sweep>/)"
    )
    sweep.add_argument("--workers", type=int, metavar="N", help="cells that are run at a time (default: one a core)")
    sweep.add_argument(
        "--ray", metavar="local|ADDRESS", help="run the cells on a Ray cluster: one of this machine, or that at ADDRESS"
    )
    sweep.add_argument("--quiet", action="store_true", help="no progress")
    sweep.set_defaults(command=_sweep)
    ber = commands.add_parser("ber", parents=[config], help="draw a waterfall: error rates of links against Eb/N0")
    ber.add_argument(
        "--out", metavar="DIR", help="its folder, in which a run goes on where one stopped (default: runs/<waterfall>/)"
    )
    ber.add_argument(
        "--workers", type=int, metavar="N", help="points that are measured at a time (default: one a core)"
    )
    ber.add_argument("--quiet", action="store_true", help="no progress")
    ber.set_defaults(command=_ber)
    check = commands.add_parser("check", parents=[config], help="validate a config and print every mistake in it")
    check.set_defaults(command=_check)
    graph = commands.add_parser("graph", parents=[config], help="draw a flowgraph as Mermaid text")
    graph.add_argument("--png", metavar="FILE", help="draw it as a picture instead")
    graph.set_defaults(command=_graph)
    blocks = commands.add_parser("blocks", help="list the block types, or describe one")
    blocks.add_argument("name", nargs="?", metavar="NAME")
    blocks.set_defaults(command=_blocks)
    devices = commands.add_parser("devices", help="list the radios that are attached to this machine")
    devices.set_defaults(command=_devices)
    schema = commands.add_parser("schema", help="print the JSON Schema of configs, for editors")
    schema.set_defaults(command=_schema)
    worker = commands.add_parser("worker", help="join a run on another host as one of its workers")
    worker.add_argument("name", metavar="NAME", help="the worker's name in the config")
    worker.add_argument("--connect", required=True, metavar="tcp://HOST:PORT", help="`network.listen` of the config")
    worker.add_argument("--keys", metavar="DIR", help="folder with the run's keys")
    worker.add_argument(
        "--insecure", action="store_true", help="no keys beyond this machine; the config must say so too"
    )
    worker.set_defaults(command=_worker)
    keys = commands.add_parser("keys", help="make CURVE keys for runs over several hosts")
    keys.add_argument("folder", metavar="DIR")
    keys.set_defaults(command=_keys)
    watch = commands.add_parser("watch", parents=[where], help="serve the live page of a run, of another host too")
    watch.add_argument("run", metavar="ADDRESS", help="as the run has printed it")
    watch.add_argument("--window", action="store_true", help="show it in a desktop window instead, without a browser")
    watch.add_argument("--keys", metavar="DIR", help="folder with the run's keys, beyond this machine")
    watch.set_defaults(command=_watch)
    probe = commands.add_parser("probe", help="publish a wire of a run, for GNU Radio's ZMQ SUB Source and the like")
    probe.add_argument("wire", metavar="WIRE", help="BLOCK.OUTPUT")
    probe.add_argument("--on", required=True, metavar="ADDRESS", help="as the run has printed it")
    probe.add_argument("--to", required=True, metavar="ENDPOINT", help="where: tcp://127.0.0.1:5555")
    probe.add_argument("--keys", metavar="DIR", help="folder with the run's keys, beyond this machine")
    probe.set_defaults(command=_probe)
    turn = commands.add_parser("set", help="change a live parameter of a run")
    turn.add_argument("name", metavar="NAME", help="link.air.ebn0, or as much of its end as is clear")
    turn.add_argument("value", metavar="VALUE", help="with its unit, as in a config")
    turn.add_argument("--on", required=True, metavar="ADDRESS", help="as the run has printed it")
    turn.add_argument("--keys", metavar="DIR", help="folder with the run's keys, beyond this machine")
    turn.set_defaults(command=_set)
    return parser, commands.choices


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    first = arguments[0]
    if first not in commands and not first.startswith("-"):
        if nearest(first, commands) and not Path(first).exists():
            parser.error(unknown("a command or a config", first, commands))
        arguments.insert(0, "run")
    options, unread = parser.parse_known_args(arguments)
    if unread:
        commands[arguments[0]].error(f"unrecognized arguments: {' '.join(unread)}")
    from flowgraph.block import BlockError
    from flowgraph.console import printing

    try:
        with printing():
            return options.command(options)
        return 0
    except BlockError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _load(options: argparse.Namespace, subgraph: bool = False):
    """Load the config with all its overlays; returns None once every mistake has been printed.

    A sub-graph cannot run by itself; where `subgraph` is true it may be looked at.
    """
    from flowgraph.config.load import ConfigError, load

    _must_be(options.config, "flowgraph")
    try:
        probes = getattr(options, "probe", ())
        return load(options.config, options.overlay, _settings(options.set), options.seed, subgraph, probes)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return None


def _must_be(config: str, wanted: str) -> None:
    """Raise `BlockError` where a config is of another kind than the wanted one."""
    from flowgraph.block import BlockError
    from flowgraph.config.layers import kind_of

    kind = kind_of(config)
    if kind and kind != wanted:
        command = {"flowgraph": "run", "waterfall": "ber", "sweep": "sweep"}[kind]
        raise BlockError(f"{config} is a {kind}, not a {wanted}: use `run_flowgraph.py {command} {config}`")


def _settings(pairs: list[str]) -> dict[str, str]:
    from flowgraph.block import BlockError

    for pair in pairs:
        if "=" not in pair:
            raise BlockError(f"--set must be NAME=VALUE, not {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)


@contextmanager
def _writing() -> Iterator[None]:
    """Tell of a folder that cannot be written."""
    from flowgraph.block import BlockError

    try:
        yield
    except OSError as error:
        if Path(error.filename or "").is_file():
            raise BlockError(f"--out must be a folder, not the file {error.filename}") from None
        raise BlockError(f"--out: cannot write to {error.filename}: {error.strerror}") from None


def _run(options: argparse.Namespace) -> int:
    with _viewer(options) or nullcontext() as viewer:
        return _run_beside(viewer, options)


def _run_beside(viewer: Viewer | None, options: argparse.Namespace) -> int:
    spec = _load(options)
    if spec is None:
        return 2
    from flowgraph.api import Flowgraph
    from flowgraph.console import Progress, print_summary, printing
    from flowgraph.keys import load_keys
    from flowgraph.report import RunFailed, RunFolder

    _end_when_told()
    progress = Progress(options.quiet)
    graph = Flowgraph.from_spec(spec)
    if spec.network.keys:
        load_keys(spec.network.keys)  # what is missing is told before there is a folder
    with _writing():
        folder = RunFolder.for_run(spec.name, options.out)

    def observe(report: Report) -> None:
        progress.observe(report)
        if viewer:
            viewer.observe(report, spec.network.keys)

    try:
        report = graph.run(folder, observe=observe, tell=progress.tell, live=viewer is not None)
        code = 0
    except RunFailed as failure:
        report = failure.report
        code = 130 if failure.interrupted else 1
    with printing():
        if not options.quiet:
            print_summary(report, folder)
        elif code:
            print(report.result["fault"], file=sys.stderr)
    if viewer and code != 130:
        viewer.stay()
    return code


def _viewer(options: argparse.Namespace) -> Viewer | None:
    """Return the page or the window that is wanted beside a run."""
    if options.live:
        from blocks.view import viewer

        return viewer.page(*_place(options))
    for option, value in (("--port", options.port), ("--address", options.address)):
        if value is not None:
            from flowgraph.block import BlockError

            raise BlockError(f"{option} is for the live page: say --live too")
    if options.window:
        from blocks.view import viewer

        return viewer.window()
    return None


def _place(options: argparse.Namespace) -> tuple[str, int]:
    """Return address and port of the page; a port of 0 is any that is free."""
    return options.address or "127.0.0.1", options.port or 0


def _watch(options: argparse.Namespace) -> int:
    from blocks.view import viewer

    if options.window:
        viewer.show(options.run, options.keys)
    else:
        viewer.serve(options.run, options.keys, *_place(options))
    return 0


def _end_when_told() -> None:
    """Have Ctrl-C and its like end what runs, once: a second one must not disturb the end."""
    from flowgraph.launch import ending_signals

    signals = ending_signals()

    def interrupt(number, frame):
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in signals:
        signal.signal(each, interrupt)


def _load_plan(options: argparse.Namespace, kind: str):
    """Load a waterfall or a sweep; returns None once every mistake has been printed."""
    from flowgraph.config.mistake import ConfigError

    _must_be(options.config, kind)
    if kind == "sweep":
        from flowgraph.sweep.plan import load
    else:
        from blocks.view.waterfall import load  # type: ignore[assignment]
    try:
        return load(options.config, options.overlay, _settings(options.set), options.seed)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return None


def _check_workers(options: argparse.Namespace) -> None:
    from flowgraph.block import BlockError

    if options.workers is not None and options.workers < 1:
        raise BlockError(f"--workers must be at least 1, not {options.workers}")


def _sweep(options: argparse.Namespace) -> int:
    from flowgraph.block import BlockError

    _check_workers(options)
    if options.workers and options.ray not in (None, "local"):
        raise BlockError("--workers is for this machine: a cluster has as many as it has")
    sweep = _load_plan(options, "sweep")
    if sweep is None:
        return 2
    from flowgraph.console import printing
    from flowgraph.sweep.command import run

    _end_when_told()
    with _writing():
        table = run(sweep, options.out, options.workers, options.ray, options.quiet)
    with printing():
        if table.faults:
            remedy = "the same command tries them again"
            print(f"{len(table.faults)} of {len(sweep.cells)} cells failed; {remedy}", file=sys.stderr)
        if not options.quiet:
            print(*table.files, sep="\n")
    return 1 if table.faults else 0


def _ber(options: argparse.Namespace) -> int:
    _check_workers(options)
    waterfall = _load_plan(options, "waterfall")
    if waterfall is None:
        return 2
    from blocks.view.waterfall import RoundFailed, measure
    from flowgraph.report import RunFolder, folder_of

    _end_when_told()
    with _writing():
        folder = RunFolder(Path(options.out) if options.out else folder_of(waterfall.title))
    try:
        measure(waterfall, folder, options.workers, options.quiet)
    except RoundFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    if not options.quiet:
        print(*(folder.path / name for name in sorted(folder.written)), sep="\n")
    return 0


def _check(options: argparse.Namespace) -> int:
    from flowgraph.config.layers import kind_of

    kind = kind_of(options.config)
    if kind in ("waterfall", "sweep"):
        plan = _load_plan(options, kind)
        if plan is None:
            return 2
        print(f"{options.config}: {plan.title}: {plan.contents}: ok")
        return 0
    spec = _load(options, subgraph=True)
    if spec is None:
        return 2
    sizes = {"block": spec.blocks, "wire": spec.wires, "worker": spec.workers}
    counted = ", ".join(f"{len(each)} {what}{'s' * (len(each) != 1)}" for what, each in sizes.items())
    print(f"{options.config}: {spec.name}: {counted}: ok")
    return 0


def _graph(options: argparse.Namespace) -> int:
    spec = _load(options, subgraph=True)
    if spec is None:
        return 2
    if options.png:
        from flowgraph.block import BlockError
        from flowgraph.drawing import draw

        try:
            draw(spec, Path(options.png))
        except (OSError, ValueError) as error:
            raise BlockError(f"--png: cannot draw into {options.png}: {error}") from None
        print(options.png)
    else:
        from flowgraph.drawing import mermaid

        print(mermaid(spec))
    return 0


def _blocks(options: argparse.Namespace) -> int:
    from flowgraph import registry
    from flowgraph.config.schema import describe

    if options.name:
        print(describe(registry.find(options.name)))
        return 0
    blocks = registry.all_blocks()
    width = max(map(len, blocks), default=0)
    for name, block in blocks.items():
        print(f"{name:{width}}  {block.summary()}")
    for module, why in registry.failures().items():
        print(f"{module} could not be imported: {why}", file=sys.stderr)
    return 0


def _devices(options: argparse.Namespace) -> int:
    from flowgraph import registry

    found = [line for block in registry.all_blocks().values() for line in block.devices()]
    print("\n".join(found or ["no radio is attached, or none that its driver finds"]))
    return 0


def _schema(options: argparse.Namespace) -> int:
    from flowgraph.config.schema import json_schema

    print(json.dumps(json_schema(), indent=1, ensure_ascii=False))
    return 0


def _worker(options: argparse.Namespace) -> int:
    from urllib.parse import urlsplit

    from flowgraph.block import BlockError
    from flowgraph.keys import load_keys
    from flowgraph.place import is_loopback
    from flowgraph.worker import Worker

    try:
        target = urlsplit(options.connect)
        complete = target.scheme == "tcp" and target.hostname and target.port
    except ValueError:  # a port beyond 65535, half an IPv6 address
        complete = None
    if not complete:
        raise BlockError(f"--connect must be tcp://HOST:PORT, not {options.connect!r}")
    if not options.keys and not options.insecure and not is_loopback(target.hostname):
        raise BlockError(f"{target.hostname} is another machine: give --keys DIR, or say --insecure")
    print(f"worker {options.name}: joining {options.connect}", file=sys.stderr)
    worker = Worker(options.connect, options.name, curve=load_keys(options.keys) if options.keys else None)
    if worker.run():
        return 0
    print(f"{options.connect} has gone, or refuses this worker: are the keys the same?", file=sys.stderr)
    return 1


def _probe(options: argparse.Namespace) -> int:
    from flowgraph.live import Remote, relay

    remote = Remote(options.on, options.keys)
    try:
        relay(remote, options.wire, options.to, lambda line: print(line, file=sys.stderr))
    finally:
        remote.close()
    return 0


def _set(options: argparse.Namespace) -> int:
    from flowgraph.live import Remote

    remote = Remote(options.on, options.keys)
    try:
        held = remote.set(options.name, options.value)
    finally:
        remote.close()
    print(f"{held.name} = {held.value} {held}")
    return 0


def _keys(options: argparse.Namespace) -> int:
    from flowgraph.keys import make_keys

    print(f"{make_keys(options.folder)}: copy the folder to the other hosts, and name it in `network: {{keys: ...}}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
