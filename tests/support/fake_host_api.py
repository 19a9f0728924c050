"""Fake daemon with set answers, the site in front of it, and a client."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint

from compass.gateway.host_api import routes
from compass.model.host_api import (
    HostStatus,
    LocalCheckResult,
    LocalDeregister,
    LocalDrain,
    LocalEvent,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
)
from compass.model.replies import Dependencies, Refusal
from compass.model.rows import Change, Listener
from tests.support.reactor_thread import ReactorThread

LISTENER = Listener("a.b", "10.0.0.1", 80, "up", 1.0, 5)
CHANGE = Change(8, 7, 1.0, "register", LISTENER)


class Told:
    """Daemon that returns the answer that the test has set, and records its requests."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Any = None
        self.deliver: Callable[[LocalEvent], None] = lambda event: None
        self.stopped = Flag()
        self.left = Flag()
        self.watches_silently = False

    def _asked(self, *what: Any) -> Deferred[Any]:
        self.asked.append(what)
        return self.answer if isinstance(self.answer, Deferred) else succeed(self.answer)

    def dependencies(self, service: str, user: int) -> Deferred[Any]:
        return self._asked("dependencies", service)

    def resolve(self, name: str) -> Any:
        self._asked("resolve", name)
        return self.answer

    def category(self, name: str) -> Any:
        self._asked("category", name)
        return self.answer

    def register(self, request: LocalRegister, user: int) -> Deferred[Any]:
        return self._asked(request)

    def deregister(self, request: LocalDeregister, user: int) -> Deferred[Any]:
        return self._asked(request)

    def report(self, request: LocalReport, user: int) -> Deferred[Any]:
        return self._asked(request)

    def report_load(self, request: LocalLoad, user: int) -> Deferred[Any]:
        return self._asked(request)

    def report_check(self, request: LocalCheckResult, user: int) -> Deferred[Any]:
        return self._asked(request)

    def drain(self, request: LocalDrain, user: int) -> Deferred[Any]:
        return self._asked(request)

    def released(self, outcome: Outcome) -> None:
        self.asked.append(("released", outcome))
        self.left.set()

    def watch(self, service: str, since: int | None, deliver: Callable[[LocalEvent], None], user: int) -> Deferred[Any]:
        self.asked.append(("watch", service, since))
        if isinstance(self.answer, Refusal):
            return succeed(self.answer)
        self.deliver = deliver
        if not self.watches_silently:
            deliver(LocalEvent("snapshot", 7, Dependencies(service, 7)))
        return succeed(self.stopped.set)

    def status(self) -> HostStatus:
        return HostStatus("h", "open", "s", "st", 7, True, (), 0, ())


class Api:
    """A daemon, the site in front of it, and a client."""

    def __init__(self, thread: ReactorThread, unix: Path) -> None:
        self.daemon = Told()
        self.thread = thread
        site = routes.site(self.daemon, thread.reactor)
        endpoint = TCP4ServerEndpoint(thread.reactor, 0, interface="127.0.0.1")
        self.listening = [thread.call(endpoint.listen, site)]
        self.listening.append(thread.call(UNIXServerEndpoint(thread.reactor, str(unix)).listen, site))
        self.port = self.listening[0].getHost().port
        self.unix = unix

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def open(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        connection = self.connection()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            headers.setdefault("Content-Type", "application/json")
            body = json.dumps(body).encode()
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        response = self.open(method, path, body, **headers)
        assert response.getheader("Content-Type") == "application/json"
        return response.status, json.loads(response.read())
