"""Serves the page: on loopback, or on another address to those who have its token; to pages of its own origin alone."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import textwrap
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.core.validation import silence
from bokeh.core.validation.warnings import EMPTY_LAYOUT
from bokeh.server.auth_provider import AuthProvider
from bokeh.server.server import Server
from bokeh.settings import settings
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import PeriodicCallback
from tornado.web import HTTPError, RequestHandler, authenticated
from tornado.websocket import WebSocketHandler

from blocks._page.feed import Feed
from blocks._page.history import History
from blocks._page.page import maker
from blocks._page.place import origin_of, place_for
from flowgraph.place import is_loopback

ALONE_S = 10.0  # after which the page of a run that was killed goes too, when nobody looks at it
SESSION_S = 5.0  # for which the page of a viewer that has left is kept


class _Door(AuthProvider):
    """Lets in who has the token: once in the address, from then on in a cookie. Pages of other sites are kept out."""

    def __init__(self, token: str, port: int, origins: list[str]):
        self.token, self.cookie, self.origins = token, f"semflow-{port}", origins
        super().__init__()

    @property
    def get_user(self) -> None:
        return None

    @property
    def get_user_async(self) -> Any:
        return self._let_in

    async def _let_in(self, handler: RequestHandler) -> str | None:
        user = self.user(handler)
        if isinstance(handler, WebSocketHandler):
            if user is None:
                raise HTTPError(403)  # Bokeh itself would open the socket first
            _hurry(handler)
        return user

    def user(self, handler: RequestHandler) -> str | None:
        """Return who asks; None without the token. Refuses what a page of another site has its browser ask for."""
        if self._foreign(handler.request):
            raise HTTPError(403)
        handler.set_header("Content-Security-Policy", "frame-ancestors 'none'")  # nobody lays a page of theirs over it
        if self.token == "":
            return "viewer"
        if self._is_token(handler.get_query_argument("token", "")):
            handler.set_cookie(self.cookie, self.token, httponly=True, samesite="Strict")
            handler.request.arguments.pop("token", None)  # Bokeh writes them into the page, where scripts read them
            return "viewer"
        return "viewer" if self._is_token(handler.get_cookie(self.cookie) or "") else None

    def _foreign(self, request: HTTPServerRequest) -> bool:
        """Tell whether a request comes from, or by the name of, another site; links to the page may be followed."""
        asked, headers = request.host.lower(), request.headers
        origin = headers.get("Origin", f"http://{asked}").lower()
        site, place = headers.get("Sec-Fetch-Site", "none"), headers.get("Sec-Fetch-Dest", "")
        linked = place == "document" and "Upgrade" not in headers
        ours = asked in self.origins and origin.removeprefix("http://") in self.origins
        return not ours or (site not in ("same-origin", "none") and not linked)

    def _is_token(self, shown: str) -> bool:
        return secrets.compare_digest(shown.encode(), self.token.encode())

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


def _hurry(socket: WebSocketHandler) -> None:
    """Let a socket send at once: else a message's second part waits 40 ms until the first one is acknowledged.

    It can be told so only once it is open: Tornado lets the sockets of all requests wait.
    """
    opened = socket.open

    def open_(*arguments: str) -> Any:
        socket.set_nodelay(True)
        return opened(*arguments)

    socket.open = open_


class _Refused(RequestHandler):
    """Says what is missing."""

    def get(self) -> None:
        """Refuse."""
        self.set_status(403)
        self.finish("This page needs its token: open the whole address that was printed, with ?token=...")


class _Pictures(RequestHandler):
    """The pictures that the run has kept, from memory: no file is read."""

    def initialize(self, history: History, door: _Door) -> None:
        """Take what all requests share."""
        self.history, self.door = history, door

    def get_current_user(self) -> str | None:
        return self.door.user(self)

    def get_login_url(self) -> str:
        return "/refused"

    @authenticated
    def get(self, name: str) -> None:
        """Answer with a picture."""
        data = self.history.pictures.get(f"images/{name}")
        if data is None:
            raise HTTPError(404)
        self.set_header("Content-Type", "image/png")
        self.set_header("Cache-Control", "private, no-cache")  # another run may be here tomorrow
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
    host, port = place_for(host, port)
    _log_in_a_line()
    silence(EMPTY_LAYOUT)  # a page's views come one after another
    history = History(address)
    feed = Feed(history, keys)
    try:
        token = "" if is_loopback(host) else secrets.token_urlsafe(16)
        origins = [origin_of(name, port) for name in (host, *(["localhost"] if token == "" else []))]
        door = _Door(token, port, origins)
        settings.allowed_ws_origin = origins  # what the server takes for them can be no IPv6 address
        server = Server(
            {"/": Application(FunctionHandler(maker(history, feed)))},
            address=host,
            port=port,
            auth_provider=door,
            extra_patterns=[
                (r"/pictures/(\d+_[a-z]+\.png)", _Pictures, {"history": history, "door": door}),
                (r"/alive", _Alive),
            ],
            sign_sessions=True,  # the socket serves those alone that the page was given to
            secret_key=secrets.token_bytes(32),
            include_headers=[],  # else scripts could read the cookie: it would stand in the page
            include_cookies=[],
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


def _log_in_a_line() -> None:
    """Have one line logged of each fault, and of each odd thing that a viewer sends."""
    for name in ("bokeh.server.protocol_handler", "bokeh.server.views.ws", "tornado.application"):
        logging.getLogger(name).addFilter(_shorten)
    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)  # that a viewer has left is no fault


def _shorten(record: logging.LogRecord) -> bool:
    """Leave of a record what happened and why, not how the server came upon it."""
    told = textwrap.shorten(record.getMessage(), 160)
    error = record.exc_info and record.exc_info[1]
    record.msg, record.args, record.exc_info = f"{told}: {error!r:.240}" if error else told, (), None
    return True


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
