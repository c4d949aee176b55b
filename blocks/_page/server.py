"""Serves the page: on loopback, or on another address to those who have its token; to pages of its own origin alone."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.server.auth_provider import AuthProvider
from bokeh.server.server import Server
from tornado.ioloop import PeriodicCallback
from tornado.web import HTTPError, RequestHandler, authenticated

from blocks._page.feed import Feed
from blocks._page.history import History, warm_up
from blocks._page.page import maker
from blocks._page.place import origin_of, port_for
from flowgraph.block import BlockError
from flowgraph.place import is_loopback

ALONE_S = 10.0  # after which the page of a run that was killed goes too, when nobody looks at it
SESSION_S = 5.0  # for which the page of a viewer that has left is kept


class _Token(AuthProvider):
    """Lets in who has the token: once in the address, from then on in a cookie."""

    def __init__(self, token: str, port: int):
        self.token, self.cookie = token, f"semflow-{port}"
        super().__init__()

    @property
    def get_user(self) -> None:
        return None

    @property
    def get_user_async(self) -> Any:
        return self._let_in

    async def _let_in(self, handler: Any) -> str | None:
        user = self.user(handler)
        if user is None and "Upgrade" in handler.request.headers:
            raise HTTPError(403)  # Bokeh itself would open the socket first
        return user

    def user(self, handler: Any) -> str | None:
        """Return who asks; None without the token."""
        if self.token == "":
            return "viewer"
        shown = handler.get_query_argument("token", "")
        if shown and secrets.compare_digest(shown, self.token):
            handler.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict")
            return "viewer"
        held = handler.get_cookie(self.cookie) or ""
        return "viewer" if secrets.compare_digest(held, self.token) else None

    @property
    def login_url(self) -> str:
        return "/refused"

    @property
    def get_login_url(self) -> None:
        return None

    @property
    def login_handler(self) -> type[RequestHandler]:
        return _Refused

    @property
    def logout_url(self) -> None:
        return None

    @property
    def logout_handler(self) -> None:
        return None


class _Refused(RequestHandler):
    """Says what is missing."""

    def get(self) -> None:
        """Refuse."""
        self.set_status(403)
        self.finish("This page needs its token: open the whole address that was printed, with ?token=...")


class _Pictures(RequestHandler):
    """The pictures that the run has kept, from memory: no file is read."""

    def initialize(self, history: History, provider: _Token) -> None:
        """Take what all requests share."""
        self.history, self.provider = history, provider

    def get_current_user(self) -> str | None:
        return self.provider.user(self)

    def get_login_url(self) -> str:
        return "/refused"

    @authenticated
    def get(self, name: str) -> None:
        """Answer with a picture."""
        data = self.history.pictures.get(f"images/{name}")
        if data is None:
            raise HTTPError(404)
        self.set_header("Content-Type", "image/png")
        self.set_header("Cache-Control", "private, max-age=3600")
        self.finish(data)


class _Alive(RequestHandler):
    """Tells a page that its server is there."""

    def get(self) -> None:
        """Answer with nothing."""
        self.set_status(204)


def serve(
    address: str, keys: str | None = None, host: str = "127.0.0.1", port: int = 0, parent: int | None = None
) -> None:
    """Serve the page of the run at `address` until Ctrl-C; its own address is printed.

    With a `parent`, the process of the run, it ends by itself some time after that one was killed. Raises `BlockError`
    where no run answers, or the page cannot be where it was wanted.
    """
    port = port_for(host, port)
    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)  # that a viewer has left is no fault
    history = History(address)
    feed = Feed(history, keys)
    try:
        warm_up()
        token = "" if is_loopback(host) else secrets.token_urlsafe(16)
        origins = [origin_of(host, port)] + ([f"localhost:{port}"] if token == "" else [])
        provider = _Token(token, port)
        server = Server(
            {"/": Application(FunctionHandler(maker(history, feed)))},
            address=host,
            port=port,
            allow_websocket_origin=origins,
            auth_provider=provider,
            extra_patterns=[
                (r"/pictures/(\d+_[a-z]+\.png)", _Pictures, {"history": history, "provider": provider}),
                (r"/alive", _Alive),
            ],
            websocket_compression_level=1,
            websocket_max_message_size=1 << 20,
            unused_session_lifetime_milliseconds=int(1000 * SESSION_S),
            check_unused_sessions_milliseconds=int(1000 * SESSION_S),
        )
        url = f"http://{origin_of(host, port)}/" + (f"?token={token}" if token else "")
        print(f"live page: {url}", flush=True)
        if parent is not None:
            _end_with(server, parent)
        signal.signal(signal.SIGTERM, lambda number, at: server.io_loop.add_callback_from_signal(server.io_loop.stop))
        server.start()
        server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        feed.close()


def _end_with(server: Server, parent: int) -> None:
    """Have a server end some time after the process of its run has, unless somebody looks at it."""
    alone = 0.0

    def look() -> None:
        nonlocal alone
        killed = os.getppid() != parent
        alone = alone + 1.0 if killed and not server.get_sessions() else 0.0
        if alone > ALONE_S:
            server.io_loop.stop()

    PeriodicCallback(look, 1000).start()


def main() -> int:
    """Serve the page beside a run: ADDRESS, HOST, PORT and KEYS as arguments."""
    address, host, port, keys = sys.argv[1:]
    try:
        serve(address, keys or None, host, int(port), os.getppid())
    except BlockError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
