"""A viewer of the live page on another machine, as far as this one can tell: it takes in what the page's server sends
and answers as the page's script does, and draws nothing.

`python -m benchmarks.viewer URL`, of a page on loopback, says how many updates have come, once a second.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import urllib.request
from typing import Any

from bokeh.protocol import Protocol
from bokeh.protocol.receiver import Receiver
from bokeh.util.serialization import make_globally_unique_id
from tornado.websocket import WebSocketClientConnection, websocket_connect

from blocks._page.page import ANSWER


async def _send(socket: WebSocketClientConnection, kind: str, content: dict[str, Any]) -> None:
    for part in ({"msgid": make_globally_unique_id(), "msgtype": kind}, {}, content):
        await socket.write_message(json.dumps(part))


def _answering(part: Any) -> dict[str, str] | None:
    """Return the names of the models between which the script carries the number."""
    if isinstance(part, dict):
        if part.get("attributes", {}).get("code") == ANSWER:
            return {name: model["id"] for name, model in part["attributes"]["args"]["entries"]}
        part = list(part.values())
    found = (_answering(each) for each in part) if isinstance(part, list) else ()
    return next((each for each in found if each), None)


async def look_on(url: str) -> None:
    """Hold a page open."""
    with urllib.request.urlopen(url) as page:
        token = re.search(r'"token":"([^"]+)"', page.read().decode())
    if not token:
        sys.exit(f"{url} is no page of Semflow's")
    socket = await websocket_connect(
        url.replace("http", "ws", 1) + "ws",
        subprotocols=["bokeh", token[1]],
        compression_options={},
        max_message_size=1 << 28,
    )
    receiver, models, updates, told = Receiver(Protocol()), None, 0, time.monotonic()
    while (fragment := await socket.read_message()) is not None:
        message = await receiver.consume(fragment)
        if message is None:
            continue
        if message.msgtype == "ACK":
            await _send(socket, "PULL-DOC-REQ", {})
        elif message.msgtype == "PULL-DOC-REPLY":
            models = _answering(message.content["doc"])
            if not models:
                sys.exit(f"{url} does not ask for answers")
            await _answer(socket, models, [1])
        elif message.msgtype == "PATCH-DOC" and models:
            for event in message.content["events"]:
                if event.get("attr") == "tags" and event["model"]["id"] == models["carrier"]:
                    updates += 1
                    await _answer(socket, models, event["new"][:1])
        if time.monotonic() > told + 1:
            told += 1
            print(updates, flush=True)


async def _answer(socket: WebSocketClientConnection, models: dict[str, str], number: list[int]) -> None:
    change = {"kind": "ModelChanged", "model": {"id": models["answer"]}, "attr": "tags", "new": number}
    await _send(socket, "PATCH-DOC", {"events": [change]})


if __name__ == "__main__":
    asyncio.run(look_on(sys.argv[1]))
