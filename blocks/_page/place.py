"""Where the page may be: an address and a port of this machine."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from flowgraph.block import BlockError


def origin_of(host: str, port: int) -> str:
    """Return how a browser names a server: IPv6 in brackets, and port 80 goes without saying."""
    name = f"[{host}]" if ":" in host else host
    return name if port == 80 else f"{name}:{port}"


def place_for(host: str, port: int) -> tuple[str, int]:
    """Return the address, as browsers write it, and the port at which a page can be, a free one for 0.

    Raises `BlockError` where it cannot be there.

    >>> place_for("localhost", 0)[0]
    '127.0.0.1'
    """
    try:
        wanted = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise BlockError(f"--address must be an address of this machine, as 192.168.1.7, not {host!r}") from None
    if wanted.is_unspecified:
        raise BlockError(f"--address must be one address of this machine, not {host}: browsers are to name it")
    if not 0 <= port < 1 << 16:
        raise BlockError(f"--port must be from 1 to 65535, or 0 for a free one, not {port}")
    host = str(wanted)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise BlockError(f"the live page cannot be at {origin_of(host, port)}: {error.strerror}") from None
        return host, tried.getsockname()[1]
