"""What watching costs: the data path, the page's server, its network, its memory, and how long a control takes.

`python -m benchmarks.live` prints the figures. The page is opened in Chromium, without which those of the page are left
out.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flowgraph.live import Remote

ROOT = Path(__file__).parent.parent
ROUNDS, COUNTED = 7, "2 Gbit"  # of runs with and without what is to be measured
STARTS = 5
TURNS = 100
WATCHED_S = 30.0
SPELLS, SPELL_S, SETTLE_S = 20, 10.0, 3.5  # with and without the page, in turn, and until each of them has begun
TICKS = os.sysconf("SC_CLK_TCK")
GRAPH = f"""
flowgraph: watched
blocks:
  source: {{use: bit_source, bits: 100 Tbit, frame: 4 Mbit}}
  link:   {{graph: {ROOT}/configs/links/awgn.yaml, ebn0: 8 dB}}
  errors: {{use: error_meter}}
wires:
  - source.bits -> link.bits -> errors.received
  - source.bits -> errors.sent
"""
TAPPED = ("link.map.symbols", "link.air.symbols", "link.demap.bits")
LOOK_ON = """
import re, sys, time
from pathlib import Path
from flowgraph import BlockError
from flowgraph.live import Remote
log, found = Path(sys.argv[1], "log.txt"), None
while not found:
    time.sleep(0.1)
    found = re.search(r"viewers find it at (\\S+)", log.read_text()) if log.exists() else None
try:
    remote = Remote(found[1])
    while True:
        remote.watch(*sys.argv[2:])
        for _ in remote.news(0.5):
            pass
except BlockError:  # the run has ended
    pass
"""


def children(process: int) -> dict[int, str]:
    """Return the command lines of the processes that a process has started, by number."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process:
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def cpu_s(process: int) -> float:
    """Return the seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mb(process: int) -> float:
    """Return what a process holds in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def spent(folder: str, bits: str, wires: tuple[str, ...] = (), viewed: bool = False) -> float:
    """Return the seconds of CPU that a run over so many bits takes, all its processes; its taps may be looked at."""
    Path(folder, "counted.yaml").write_text(GRAPH.replace("100 Tbit", bits))
    out = tempfile.mkdtemp(dir=folder)
    probes = (each for wire in wires for each in ("--probe", wire))
    run = start(folder, "counted.yaml", "--quiet", "--out", out, *probes)
    viewer = subprocess.Popen([sys.executable, "-c", LOOK_ON, out, *wires], cwd=ROOT) if viewed else None
    _, status, used = os.wait4(run.pid, 0)
    assert status == 0
    if viewer:
        viewer.wait()
    return used.ru_utime + used.ru_stime


def middle(shares: list[float]) -> tuple[float, float]:
    """Return the median, and its error as the quartiles have it."""
    low, median, high = np.quantile(shares, [0.25, 0.5, 0.75])
    return median, (high - low) / len(shares) ** 0.5


def costs_of_taps(folder: str) -> dict[str, float]:
    """Return what three taps add to the CPU time of a run, looked at and not, as shares of it, and their errors.

    Runs with and without take turns, so that what else the machine does falls on both; their start is no part of it.
    """
    ways = {"bare": ((), False), "idle": (TAPPED, False), "viewed": (TAPPED, True)}
    started = {what: min(spent(folder, "1 Mbit", *way) for _ in range(3)) for what, way in ways.items()}
    rounds = []
    for number in range(ROUNDS):
        turn = list(ways)[:: 1 if number % 2 else -1]
        rounds.append({what: spent(folder, COUNTED, *ways[what]) - started[what] for what in turn})
    results = {}
    for what in ("idle", "viewed"):
        shares = middle([each[what] / each["bare"] - 1 for each in rounds])
        results |= dict(zip((f"taps_{what}_cpu_share", f"taps_{what}_cpu_share_error"), shares, strict=True))
    return results


def round_trips(remote: Remote) -> np.ndarray:
    """Return the seconds from asking for a change to the answer that it holds."""
    seconds = []
    for number in range(TURNS):
        began = time.perf_counter()
        remote.set("ebn0", 8.0 + number % 2)
        seconds.append(time.perf_counter() - began)
    return np.array(seconds)


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


def opening(tab: Any, url: str) -> tuple[float, float]:
    """Return the seconds until a browser shows a page's header, controls and first view, and until it shows all."""
    began = time.monotonic()
    tab.goto(url, wait_until="commit")
    for shown in ("#header .pill", "aside input", "main .card canvas"):
        tab.wait_for_selector(shown, state="attached")
    usable = time.monotonic() - began
    tab.wait_for_selector("#card-graph canvas", state="attached")
    return usable, time.monotonic() - began


def soon(folder: str) -> dict[str, float]:
    """Return the seconds from the start of a run, on all cores, until its page has an address, is usable, is whole."""
    seconds = []
    with chromium() as browser:
        for number in range(STARTS):
            tab = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            began = time.monotonic()
            run = start(folder, "live.yaml", "--live", "--out", f"start{number}")
            try:
                assert run.stdout is not None
                url = run.stdout.readline().split()[2]
                address = time.monotonic() - began
                seconds.append((address, *(address + each for each in opening(tab, url))))
            finally:
                run.terminate()
                run.wait()
                tab.context.close()
    names = ("page_address_s", "page_usable_s", "page_whole_s")
    return dict(zip(names, np.median(seconds, axis=0), strict=True))


def counted(remote: Remote) -> tuple[int, float]:
    """Return how many bits a run has counted, and after how many seconds."""
    remote.watch()
    for _ in remote.news():  # what came in the meantime
        pass
    while True:
        for what, value in remote.news(1.0):
            if what == "report":
                return value["link"]["bits"], value["elapsed_s"]


def throughput_watched(remote: Remote, server: int) -> tuple[float, float]:
    """Return what a page that is open adds to a run's throughput, as a share, and the error of it.

    The page's server, which taps the run for all who look, takes turns with standing still; then nothing is drawn.
    """
    rates: dict[signal.Signals, list[float]] = {signal.SIGCONT: [], signal.SIGSTOP: []}
    for number in range(SPELLS):
        for word in list(rates)[:: 1 if number % 2 else -1]:
            os.kill(server, word)
            time.sleep(SETTLE_S)
            before, began = counted(remote)
            time.sleep(SPELL_S)
            after, ended = counted(remote)
            rates[word].append((after - before) / (ended - began))
    os.kill(server, signal.SIGCONT)
    return middle([watched / alone - 1 for watched, alone in zip(*rates.values(), strict=True)])


@contextmanager
def viewer(url: str) -> Iterator[None]:
    """Hold the page open for a viewer on another machine: what it sends is taken in and answered, and not drawn."""
    looking = subprocess.Popen([sys.executable, "-m", "benchmarks.viewer", url], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert looking.stdout is not None
        told = (int(looking.stdout.readline() or sys.exit("the viewer did not see the page")) for _ in range(20))
        if not any(updates >= 10 for updates in told):
            sys.exit("the page does not go on for the viewer")
        yield
        if looking.poll() is not None:
            sys.exit("the viewer left before the end")
    finally:
        looking.kill()
        looking.wait()


def page(url: str, server: int) -> dict[str, float]:
    """Return what a page costs that is open in a browser."""
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        squeeze = zlib.compressobj(1, wbits=-15)  # as the server does on the socket
        sent, updates = 0, 0

        def count(payload: str | bytes) -> None:
            nonlocal sent, updates
            data = payload.encode() if isinstance(payload, str) else payload
            sent += len(squeeze.compress(data)) + len(squeeze.flush(zlib.Z_SYNC_FLUSH))
            updates += b'"attr":"tags"' in data  # with which each update ends

        tab.on("websocket", lambda socket: socket.on("framereceived", count))
        tab.goto(url)
        tab.wait_for_timeout(8000)
        cpu, memory, sent, updates, began = cpu_s(server), memory_mb(server), 0, 0, time.monotonic()
        tab.wait_for_timeout(1000 * WATCHED_S)
        spent = time.monotonic() - began
        figures = {
            "page_updates_per_s": updates / spent,
            "page_server_cores": (cpu_s(server) - cpu) / spent,
            "page_mbit_per_s": 8e-6 * sent / spent,
            "page_mb_per_hour": (memory_mb(server) - memory) / spent * 3600,
        }
        figures["page_again_usable_s"], figures["page_again_whole_s"] = opening(tab, url)
    return figures


def keep(process: int, cores: set[int]) -> None:
    """Keep a process and its threads to some cores."""
    for thread in os.listdir(f"/proc/{process}/task"):
        os.sched_setaffinity(int(thread), cores)


def start(folder: str, *arguments: str | Path, one_core: bool = False) -> subprocess.Popen:
    """Start a run in a folder, kept to one core if so wanted."""
    command = [sys.executable, ROOT / "run_flowgraph.py", "run", *arguments]
    if one_core:
        command = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder}
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **quiet)


def main() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        (Path(folder) / "live.yaml").write_text(GRAPH)
        results = soon(folder) if shutil.which("chromium") else {}
        run = start(folder, "live.yaml", "--live", "--out", "out", one_core=True)
        try:
            assert run.stdout is not None
            url = run.stdout.readline().split()[2]
            log = Path(folder, "out/log.txt")
            while " running" not in log.read_text():
                time.sleep(0.1)
            found = re.search(r"viewers find it at (\S+)", log.read_text())
            assert found
            processes = children(run.pid)
            server = next(number for number, line in processes.items() if "blocks._page" in line)
            cores = os.sched_getaffinity(0)
            keep(server, cores)
            remote = Remote(found[1])
            if shutil.which("chromium"):
                results |= page(url, server)
            if others := cores - {min(cores)}:  # the run has its core for itself
                keep(server, others)
                keep(os.getpid(), others)
                with viewer(url):
                    shares = throughput_watched(remote, server)
                results |= dict(zip(("page_throughput_share", "page_throughput_share_error"), shares, strict=True))
                if shutil.which("chromium"):
                    with chromium() as browser:
                        opening(browser.new_page(viewport={"width": 1280, "height": 800}), url)
                        shares = throughput_watched(remote, server)
                    names = ("browser_throughput_share", "browser_throughput_share_error")
                    results |= dict(zip(names, shares, strict=True))
                keep(os.getpid(), cores)
            os.kill(server, 15)  # its taps would be on all the time
            seconds = round_trips(remote)
            results |= {"turn_median_s": float(np.median(seconds)), "turn_p99_s": float(np.quantile(seconds, 0.99))}
            remote.close()
        finally:
            run.terminate()
            run.wait()
        results |= costs_of_taps(folder)
    for name, value in results.items():
        print(f"{name:28} {value:.3g}")
    return results


if __name__ == "__main__":
    main()
