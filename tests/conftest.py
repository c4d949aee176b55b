"""What several tests need: the command line as a user runs it, in an environment of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a machine may be busy
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent
LAB = ROOT / "tests" / "lab"


def program(folder, text):
    """A shell script that stands for another program, GNU Radio's Python say."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


class CommandLine:
    """Runs `run_flowgraph.py` in a scratch folder, and finds what a run leaves behind."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {
            **os.environ,
            "TMPDIR": str(folder),
            "PYTHONPATH": f"{LAB}:{ROOT}",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def start(self, *arguments: object, **options) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "run_flowgraph.py"), *map(str, arguments)]
        return subprocess.Popen(
            command,
            env=self.environment,
            cwd=options.pop("cwd", self.folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *arguments: object, timeout: float = 120, **options) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"still running after {timeout} s: {process.communicate()}")
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def processes(self) -> dict[int, str]:
        """Return the processes that belong to runs from here: command line by number."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"TMPDIR={self.folder}".encode() in (entry / "environ").read_bytes():
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command:  # a zombie has none
                        found[int(entry.name)] = command
            except OSError:
                continue
        return found

    def sockets(self) -> list[Path]:
        """Return the private folders of runs that are still there."""
        return list(self.folder.glob("semflow-*"))

    def wait_until(self, condition, seconds: float = 20.0) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return True
            time.sleep(0.02)
        return False

    def clean_up(self) -> None:
        for number in self.processes():
            os.kill(number, signal.SIGKILL)


@pytest.fixture
def cli():
    # Sockets' paths are limited to about 100 characters: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="t", ignore_cleanup_errors=True) as folder:
        line = CommandLine(Path(folder))
        yield line
        line.clean_up()
