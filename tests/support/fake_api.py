"""A stand-in for opengnscd that speaks its HTTP API over a Unix socket and does as a test says."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import Queue
from typing import Any

Answer = tuple[int, Any]
Start = Callable[..., "subprocess.Popen[str]"]
SERVICE = "chinaserver.openuss"
CREDENTIAL = "s3cr3t-token-of-the-china-server"
WAIT_SECONDS = 10.0
"""Time limit for a condition that is certain: only a broken test waits for all of it."""


@dataclass
class Asked:
    """Request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


def outcome(state: str = "up", port: int = 2028, **more: Any) -> Answer:
    """An answer to register, deregister and report."""
    fields = {"state": state, "service": SERVICE, "address": "127.0.0.1", "port": port, "epoch": 7, "revision": 5}
    return (202 if state == "pending" else 200), fields | more


def refusal(code: str, status: int = 403, **more: Any) -> Answer:
    """A refusal."""
    return status, {"type": "refusal", "code": code, "message": f"refusal: {code}"} | more


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 50

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A program that does not wait for its answer is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@dataclass
class LittleApi:
    """API that records its requests; `answers` has a fixed answer or a function of the request by path."""

    socket: Path
    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, Answer | Callable[[Asked], Answer]] = field(default_factory=dict)
    streams: Queue[list[bytes]] = field(default_factory=Queue)
    """Octets written to each watch, and each registration that is held, before its connection ends."""
    seen: threading.Condition = field(default_factory=threading.Condition)

    @property
    def place(self) -> str:
        return f"unix:{self.socket}"

    def answer(self, asked: Asked) -> Answer:
        with self.seen:
            self.asked.append(asked)
            self.seen.notify_all()
        made = self.answers.get(asked.path.split("?")[0], refusal("unknown-message", 404))
        return made(asked) if callable(made) else made

    def wait_for(self, path: str, count: int = 1) -> Asked:
        """The request number `count` for a path, as soon as it has come."""

        def found() -> list[Asked]:
            return [asked for asked in self.asked if asked.path.split("?")[0] == path]

        with self.seen:
            assert self.seen.wait_for(lambda: len(found()) >= count, WAIT_SECONDS), f"{path}: {self.asked}"
            return found()[count - 1]

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]


def wait_until(condition: Callable[[], Any]) -> Any:
    """The condition's value, once it is true."""
    end = time.monotonic() + WAIT_SECONDS
    while not (value := condition()):
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)
    return value


@contextmanager
def serving(socket: Path) -> Iterator[LittleApi]:
    """The stand-in at a socket."""
    api = LittleApi(socket)

    class Conversation(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, dict(self.headers), json.loads(body) if body else None)
            status, answer = api.answer(asked)
            if answer == "stream":
                self._stream(api.streams.get())
                return
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, pieces: list[bytes]) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.close_connection = True

        do_GET = do_POST = _serve  # noqa: N815

    server = _Server(str(socket), Conversation)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        socket.unlink()
