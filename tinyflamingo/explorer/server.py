"""A server for one page, for this machine alone.

It listens on 127.0.0.1 and knows one path, "/". A page of another site can make a browser ask 127.0.0.1 under the name
of that site (DNS rebinding); so the name in the header Host must be this machine's.

Not here: the page (`build.py`).
"""

from __future__ import annotations

import errno
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tinyflamingo.errors import UserError
from tinyflamingo.language import _, is_chinese

ADDRESS, PORT = "127.0.0.1", 8017


class Server(ThreadingHTTPServer):
    """A server of `page`, HTML in UTF-8, to be set before it serves. port 0: any free one; `url` has it."""

    daemon_threads = True
    page = b""

    def __init__(self, port: int = PORT) -> None:
        """Raises `UserError` if the port is taken or does not exist."""
        if port > 65535:
            raise UserError(f"--port {port}: a port is a number from 0 to 65535")
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            wrong = _("is taken by another program" if taken else f"cannot be used ({error.strerror})")
            raise UserError(f"port {port} {wrong}: choose another --port, or --port 0 for any free one") from error
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}
        self.url = f"http://{ADDRESS}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        """The page, for a browser that asks for it by this machine's name."""
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            self._answer(403, "text/plain", b"this server answers to 127.0.0.1 and localhost only\n")
        elif self.path.partition("?")[0] != "/":
            self._answer(404, "text/plain", b"there is nothing here but /\n")
        else:
            self._answer(200, "text/html", self.server.page)

    do_HEAD = do_GET

    def _answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        if self.command == "GET":
            with suppress(ConnectionError):  # the reader went on before all of it had come
                self.wfile.write(body)

    def log_message(self, *_):
        """Print nothing."""


def serve(build: Callable[[], bytes], port: int = PORT, browser: bool = True) -> None:
    """Serve the page that `build` makes, and open it in the browser. A taken port is an error first.

    It ends by `KeyboardInterrupt`, as every command does that is stopped with Ctrl-C.
    """
    with Server(port) as server:
        server.page = build()
        url = f"{server.url}#lang=zh" if is_chinese() else server.url  # else the page has the browser's language
        print(_(f"the explorer is at {url}; stop it with Ctrl-C"), flush=True)
        if browser:  # in a thread: some browsers run in the terminal, until they are closed
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        server.serve_forever()
