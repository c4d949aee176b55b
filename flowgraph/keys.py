"""CURVE keys for graphs that reach beyond one machine: one pair for all workers of a user, in a folder of one's own."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import zmq
from zmq.utils import z85

from flowgraph.block import BlockError
from flowgraph.transport import PLAIN_NAME

SECRET_FILE = "semflow.key"


def make_keys(folder: str) -> Path:
    """Make a pair of CURVE keys in `folder`, readable by its owner alone; copy the folder to the other hosts.

    Raises `BlockError` where a key is there already.
    """
    path = Path(folder).expanduser() / SECRET_FILE
    public, secret = zmq.curve_keypair()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if path.is_file():
            raise BlockError(f"{path} is there already: remove it first if its graphs are no longer used") from None
        raise BlockError(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(public + b"\n" + secret + b"\n")
    return path


def load_keys(folder: str) -> tuple[bytes, bytes]:
    """Return the public and the secret key. Raises `BlockError` with the remedy where they are missing or broken."""
    path = Path(folder).expanduser() / SECRET_FILE
    try:
        public, secret = path.read_bytes().split()
        if zmq.curve_public(secret) != public:
            raise ValueError
    except FileNotFoundError:
        raise BlockError(f"no keys in {folder}: make them with `run_flowgraph.py keys {folder}`") from None
    except OSError as error:
        raise BlockError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, zmq.ZMQError):
        raise BlockError(f"{path} must hold a public and a secret CURVE key, one a line: make new keys") from None
    return public, secret


class Doorkeeper:
    """Answers ZeroMQ's question whom to let in (ZAP, RFC 27): who holds our public key or, without keys, the token."""

    def __init__(self, context: zmq.Context, curve: tuple[bytes, bytes] | None = None, token: str = ""):
        self.welcome = (b"CURVE", z85.decode(curve[0])) if curve else (b"PLAIN", PLAIN_NAME, token.encode())
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind("inproc://zeromq.zap.01")
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._answer, name="doorkeeper", daemon=True)
        self.thread.start()

    def _answer(self) -> None:
        while not self.closing.is_set():
            if not self.socket.poll(100):
                continue
            version, request, _domain, _address, _identity, mechanism, *credentials = self.socket.recv_multipart()
            welcome = (mechanism, *credentials) == self.welcome
            code, text = (b"200", b"OK") if welcome else (b"400", b"unknown")
            self.socket.send_multipart([version, request, code, text, b"worker" if welcome else b"", b""])
        self.socket.close()

    def close(self) -> None:
        self.closing.set()
        self.thread.join()
