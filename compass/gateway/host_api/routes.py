"""The host's HTTP JSON API for programs on the same machine (mission section 5), as a twisted.web site.

It translates and decides nothing: each path reads a request, asks the daemon that it was handed, and writes what came
of it. Only programs on the machine may ask; a browser that was lured here is recognised by its Origin or by the name
it believes to talk to, and refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Protocol, cast

import msgspec
from msgspec import UNSET
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from compass.gateway.host_api import operations
from compass.gateway.host_api.operations import CategoryAsked, NameAsked, ServiceAsked, WatchAsked
from compass.gateway.http import health, server
from compass.gateway.http.health import Health
from compass.gateway.http.long_poll import LongPoll
from compass.gateway.http.openapi import Operation
from compass.gateway.http.prometheus_sd import target_groups
from compass.gateway.http.sse import EventStream, resumes_at
from compass.gateway.metrics.exposition import Metrics
from compass.model.host_api import (
    HostStatus,
    LocalDeregister,
    LocalDrain,
    LocalEvent,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
    Resolved,
)
from compass.model.interfaces import Clock
from compass.model.replies import CategoryView, Dependencies, Refusal


class HostApi(Protocol):
    """What the daemon does for programs on its host."""

    def dependencies(self, service: str) -> Deferred[Dependencies | Refusal]:
        """Function 2.3."""

    def resolve(self, name: str) -> Resolved | Refusal:
        """The listeners to use."""

    def category(self, name: str) -> CategoryView | Refusal:
        """All registered listeners of a category."""

    def register(self, request: LocalRegister) -> Deferred[Outcome | Refusal]:
        """Function 2.1."""

    def deregister(self, request: LocalDeregister) -> Deferred[Outcome | Refusal]:
        """Function 2.2."""

    def report_load(self, request: LocalLoad) -> Deferred[Outcome | Refusal]:
        """How busy a listener of this host is."""

    def drain(self, request: LocalDrain) -> Deferred[Outcome | Refusal]:
        """Whether a listener of this host takes new users."""

    def released(self, outcome: Outcome) -> None:
        """The connection that held a registration is closed."""

    def report(self, request: LocalReport) -> Deferred[Outcome | Refusal]:
        """Function 2.5."""

    def watch(
        self, service: str, since: int | None, deliver: Callable[[LocalEvent], None]
    ) -> Deferred[Callable[[], None] | Refusal]:
        """Deliver events until the result is called."""

    def status(self) -> HostStatus:
        """The daemon in figures."""


def site(api: HostApi, clock: Clock, metrics: Metrics | None = None) -> Site:
    """The factory to listen with, on the loopback or a Unix socket."""
    requests = metrics.gateways.http_requests if metrics is not None else None
    return server.site(HostHttp(api, clock).resource(metrics), clock, requests=requests)


class HostHttp:
    """The paths of the API."""

    def __init__(self, api: HostApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._document = msgspec.json.encode(operations.host_document())

    def resource(self, metrics: Metrics | None = None) -> Any:
        """The root resource."""
        routes: list[tuple[Operation, server.Endpoint]] = [
            (operations.DEPENDENCIES, self._dependencies),
            (operations.RESOLVE, self._resolve),
            (operations.PROMETHEUS, self._prometheus),
            (operations.REGISTER, self._register),
            (operations.DEREGISTER, lambda request, asked: _outcome(request, self._api.deregister(asked))),
            (operations.LOAD, lambda request, asked: _outcome(request, self._api.report_load(asked))),
            (operations.DRAIN, lambda request, asked: _outcome(request, self._api.drain(asked))),
            (operations.REPORT, lambda request, asked: _outcome(request, self._api.report(asked))),
            (operations.WATCH, self._watch),
            (operations.STATUS, lambda request, _: server.answer(request, self._api.status())),
            (health.HEALTH, lambda request, _: server.answer(request, self._health("running"))),
            (health.READY, self._ready),
            (operations.OPENAPI, lambda request, _: server.octets(request, self._document)),
        ]
        if metrics is not None:
            routes.append((health.METRICS, lambda request, _: metrics.answer(request)))
        return server.resource(routes, lambda request, _: _check_origin(request))

    def _dependencies(self, request: Request, asked: ServiceAsked) -> Any:
        if asked.since is UNSET or not asked.wait > 0:
            return server.answers(request, self._api.dependencies(asked.service))
        seconds = min(asked.wait, operations.WAIT_SECONDS_MAX)
        waiting = LongPoll(request, self._clock, seconds, lambda: self._api.dependencies(asked.service))
        return server.answers(request, waiting.begin(self._api.watch(asked.service, asked.since, waiting.notify)))

    def _health(self, status: str) -> Health:
        # A host that keeps no session has none most of the time, and nothing is wrong with that.
        told = self._api.status()
        reached = told.session == "open" or (told.loaded and not told.problem)
        return Health(status, "available" if reached else "away")

    def _ready(self, request: Request, _: None) -> bytes:
        if not self._api.status().loaded:
            text = "this host has loaded no view yet, from a server or from its disk"
            return server.answer(request, Refusal("not-ready", text, retry_after_seconds=1.0))
        return server.answer(request, self._health("ready"))

    def _resolve(self, request: Request, asked: NameAsked) -> bytes:
        return server.answer(request, self._api.resolve(asked.name))

    def _prometheus(self, request: Request, asked: CategoryAsked) -> bytes:
        view = self._api.category(asked.category)
        if isinstance(view, Refusal):
            return server.answer(request, view)
        return server.answer(request, target_groups(peer for service in view.services for peer in service.listeners))

    def _register(self, request: Request, asked: LocalRegister) -> Any:
        registered = self._api.register(asked)
        return self._hold(request, registered) if asked.hold else _outcome(request, registered)

    def _hold(self, request: Request, asked: Deferred[Outcome | Refusal]) -> Any:
        """Answer, and keep the response open: when the connection is closed, the registration is over."""
        held: list[Outcome] = []
        closed: list[object] = []

        def gone(reason: object) -> None:
            closed.append(reason)
            for outcome in held:
                self._api.released(outcome)

        request.notifyFinish().addBoth(gone)

        def answered(answer: Outcome | Refusal) -> Any:
            if isinstance(answer, Refusal):
                return b"" if closed else server.answer(request, answer)
            held.append(answer)
            if closed:
                self._api.released(answer)
            else:
                server.prepare(request, _status_of(answer))
                request.write(msgspec.json.encode(answer) + b"\n")
            return None

        return server.ignore_cancellation(asked.addCallback(answered))

    def _watch(self, request: Request, asked: WatchAsked) -> Any:
        since = resumes_at(request, asked.since)
        stream = EventStream(request, self._clock)

        def deliver(event: LocalEvent) -> None:
            stream.deliver(event.revision, event.kind, event.data)

        def answered(result: Callable[[], None] | Refusal) -> Any:
            if isinstance(result, Refusal):
                return stream.refused(lambda: server.answer(request, result))
            stream.goes_on(result)
            return None

        return server.ignore_cancellation(self._api.watch(asked.service, since, deliver).addCallback(answered))


def _outcome(request: Request, asked: Deferred[Outcome | Refusal]) -> Deferred[bytes]:
    return server.answers(request, asked, _status_of)


def _status_of(outcome: Outcome) -> int:
    """202 for what is kept until a server returns."""
    return 202 if outcome.state == "pending" else 200


def _check_origin(request: Request) -> None:
    """Refuse what a web page made a browser send: cross-site requests and rebound names."""
    if request.getHeader("origin") is not None:
        raise server.RequestRejected(
            403, Refusal("forbidden", "this API is for programs on this host, not for web pages")
        )
    channel = cast(HTTPChannel | None, request.channel)
    if channel is not None and isinstance(channel.getPeer(), UNIXAddress):
        return
    named = request.getHeader("host") or ""
    if named and not _is_loopback(named):
        text = f"this API is reached at the loopback, not at {named[:80]!r}"
        raise server.RequestRejected(403, Refusal("forbidden", text))


def _is_loopback(named: str) -> bool:
    """Whether a Host header names this machine to itself: localhost, unix, or a loopback address."""
    name = named[1:].partition("]")[0] if named.startswith("[") else named.partition(":")[0].lower()
    if name in ("localhost", "unix"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
