"""The processes in which blocks run: their environment, how they are started, and how one ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from typing import IO

from flowgraph.block import BlockError
from flowgraph.spec import WorkerSpec

# For glibc: keep freed packets for the next ones, which else come as fresh pages from the kernel, at half the speed; in
# one arena, as a packet is seldom freed by the thread that made it.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}
# Threads that wait for each other spin by default, which beside other work takes ten times as long as to sleep.
SLEEP_WHILE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}


def ending_signals() -> list[signal.Signals]:
    """Return the signals that end a run in order: Ctrl-C, SIGTERM, and SIGHUP unless `nohup` has it ignored."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def private_folder() -> str:
    """Make a folder for sockets that this user alone can enter; a socket's path holds about 100 characters."""
    folder = tempfile.mkdtemp(prefix="semflow-")
    if len(folder) > 80:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="semflow-", dir="/tmp")
    return folder


def compute_threads() -> int | None:
    """Return how many compute threads the environment asks for; None where it leaves that open.

    Raises `BlockError` where OMP_NUM_THREADS is no number; of a list, one for each level, the first counts.
    """
    written = os.environ.get("OMP_NUM_THREADS", "")
    first = written.split(",")[0].strip()
    if first and not (first.isdecimal() and int(first)):
        raise BlockError(f"the environment's OMP_NUM_THREADS must be a number of threads, not {written!r}")
    return int(first) if first else None


def environment_of(threads: int) -> dict[str, str]:
    """Return the environment of a process in which blocks run, with so many compute threads for each of its models."""
    return {
        **KEEP_MEMORY,
        **SLEEP_WHILE_WAITING,
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": "1",  # blocks run beside each other: a kernel keeps to its thread
    }


def launch(spec: WorkerSpec, connect: str, secret: str, keys: str, log: IO[str]) -> subprocess.Popen:
    """Start a worker of this machine, which is to report to the supervisor at `connect`."""
    environment = {
        **environment_of(spec.threads or compute_threads() or len(os.sched_getaffinity(0))),
        "SEMFLOW_CONNECT": connect,
        "SEMFLOW_WORKER": spec.name,
        "SEMFLOW_SECRET": secret,
        "SEMFLOW_KEYS": keys,
        "SEMFLOW_PARENT": str(os.getpid()),
    }
    # A session of its own: Ctrl-C reaches the supervisor alone, which then ends the run in order.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "flowgraph.worker"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def how_it_ended(code: int) -> str:
    """Return what is known of the end of a process that was to go on."""
    if code < 0:
        known = -code in set(signal.Signals)
        return f"was killed by {signal.Signals(-code).name if known else f'signal {-code}'}"
    return f"ended by itself with exit code {code}; its last words are in the run's log.txt"
