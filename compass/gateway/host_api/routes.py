"""HTTP JSON API of the host daemon for programs on the same machine (mission section 5), as a twisted.web site.

The gateway translates and decides nothing: each path decodes a request, calls the daemon, and encodes the result. Only
programs on the machine may ask; requests that a web page made a browser send are recognised by Origin or Host, and
refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import msgspec
from msgspec import UNSET
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from compass.gateway.host_api import operations
from compass.gateway.host_api.callers import when_caller_ends, with_local_process
from compass.gateway.host_api.local_peers import user_of
from compass.gateway.host_api.operations import NameAsked, ServiceAsked, WatchAsked
from compass.gateway.http import channel, health, same_origin, server
from compass.gateway.http.health import Health
from compass.gateway.http.long_poll import LongPoll
from compass.gateway.http.openapi import Operation
from compass.gateway.http.prometheus_sd import PROMETHEUS, CategoryAsked, target_groups
from compass.gateway.http.request import set_headers
from compass.gateway.http.sse import EventStream, resumes_at
from compass.gateway.metrics.exposition import Metrics
from compass.model.host_api import (
    WORST_FIRST,
    Condition,
    HostStatus,
    LocalCheckResult,
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
    """Interface of the daemon for programs on its host. `user`: whose program asks."""

    def dependencies(self, service: str, user: int) -> Deferred[Dependencies | Refusal]:
        """Return the dependencies of a service (function 2.3)."""

    def resolve(self, name: str) -> Resolved | Refusal:
        """Return the listeners to use for a service or category, best first."""

    def category(self, name: str) -> CategoryView | Refusal:
        """Return all registered listeners of a category."""

    def register(self, request: LocalRegister, user: int) -> Deferred[Outcome | Refusal]:
        """Register a listener (function 2.1)."""

    def deregister(self, request: LocalDeregister, user: int) -> Deferred[Outcome | Refusal]:
        """Deregister a listener (function 2.2)."""

    def report_load(self, request: LocalLoad, user: int) -> Deferred[Outcome | Refusal]:
        """Report the load of a listener of this host."""

    def report_check(self, request: LocalCheckResult, user: int) -> Deferred[Outcome | Refusal]:
        """Record the result of a check that a program makes of its own listener."""

    def drain(self, request: LocalDrain, user: int) -> Deferred[Outcome | Refusal]:
        """Set whether a listener of this host accepts new users."""

    def released(self, outcome: Outcome) -> None:
        """Handle the end of the connection that held a registration."""

    def report(self, request: LocalReport, user: int) -> Deferred[Outcome | Refusal]:
        """Report a failure of a listener (function 2.5)."""

    def watch(
        self, service: str, since: int | None, deliver: Callable[[LocalEvent], None], user: int
    ) -> Deferred[Callable[[], None] | Refusal]:
        """Deliver events until the returned function is called."""

    def status(self) -> HostStatus:
        """Return the figures of the daemon."""


def site(api: HostApi, clock: Clock, metrics: Metrics | None = None) -> Site:
    """Return the factory to listen with, on the loopback or a Unix socket."""
    requests = metrics.gateways.http_requests if metrics is not None else None
    return channel.site(HostHttp(api, clock).resource(metrics), clock, check_origin, requests)


class HostHttp:
    """Handlers of the API's operations."""

    def __init__(self, api: HostApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._document = msgspec.json.encode(operations.host_document())

    def resource(self, metrics: Metrics | None = None) -> Any:
        """Return the root resource."""
        routes: list[tuple[Operation, server.Endpoint]] = [
            (operations.DEPENDENCIES, self._dependencies),
            (operations.RESOLVE, self._resolve),
            (PROMETHEUS, self._prometheus),
            (operations.REGISTER, self._register),
            (operations.DEREGISTER, self._deregister),
            (operations.LOAD, _outcome_of(self._api.report_load)),
            (operations.CHECK, _outcome_of(self._api.report_check)),
            (operations.DRAIN, _outcome_of(self._api.drain)),
            (operations.REPORT, _outcome_of(self._api.report)),
            (operations.WATCH, self._watch),
            (operations.STATUS, lambda request, _: server.answer(request, self._api.status())),
            (health.HEALTH, lambda request, _: server.answer(request, self._health("running"))),
            (health.READY, self._ready),
            (operations.OPENAPI, lambda request, _: server.octets(request, self._document)),
        ]
        if metrics is not None:
            routes.append((health.METRICS, lambda request, _: metrics.answer(request)))
        return server.resource(routes, lambda request, _: None)

    def _dependencies(self, request: Request, asked: ServiceAsked) -> Any:
        if asked.since is UNSET or not asked.wait > 0:
            return server.answers(request, self._api.dependencies(asked.service, user_of(request)))
        seconds, user = min(asked.wait, operations.WAIT_SECONDS_MAX), user_of(request)
        waiting = LongPoll(request, self._clock, seconds)
        ended: Deferred[Any] = waiting.begin(self._api.watch(asked.service, asked.since, waiting.notify, user))
        ended.addCallback(lambda refusal: refusal or self._api.dependencies(asked.service, user))
        return server.answers(request, ended)

    def _health(self, status: str) -> Health:
        # A host with short sessions has none most of the time, which is no problem.
        status_now = self._api.status()
        reached = status_now.session == "open" or (status_now.loaded and not status_now.problem)
        found = {one.condition for one in status_now.certificates}
        condition: Condition = next((worst for worst in WORST_FIRST if worst in found), "valid")
        return Health(status, "available" if reached else "away", condition, status_now.warnings)

    def _ready(self, request: Request, _: None) -> bytes:
        if not self._api.status().loaded:
            text = "this host has not loaded a view yet, from a server or from its disk"
            return server.answer(request, Refusal("not-ready", text, retry_after_seconds=1.0))
        return server.answer(request, self._health("ready"))

    def _resolve(self, request: Request, asked: NameAsked) -> bytes | None:
        return server.answer_view(request, self._api.resolve(asked.name))

    def _prometheus(self, request: Request, asked: CategoryAsked) -> bytes | None:
        view = self._api.category(asked.category)
        if isinstance(view, Refusal):
            return server.answer(request, view)
        return server.answer_view(
            request, target_groups(peer for service in view.services for peer in service.listeners)
        )

    def _register(self, request: Request, asked: LocalRegister) -> Any:
        wanted = with_local_process(request, asked)
        if isinstance(wanted, Refusal):
            return server.answer(request, wanted)
        registered = self._api.register(wanted, user_of(request))
        return self._hold(request, registered) if asked.hold else _outcome(request, registered)

    def _deregister(self, request: Request, asked: LocalDeregister) -> Any:
        wanted = with_local_process(request, asked)
        if isinstance(wanted, Refusal):
            return server.answer(request, wanted)
        return _outcome(request, self._api.deregister(wanted, user_of(request)))

    def _hold(self, request: Request, asked: Deferred[Outcome | Refusal]) -> Any:
        """Answer and keep the response open: the registration ends with the connection."""
        held: list[Outcome] = []
        closed: list[object] = []

        def connection_closed(reason: object) -> None:
            closed.append(reason)
            for outcome in held:
                self._api.released(outcome)

        request.notifyFinish().addBoth(connection_closed)
        # What is held by a connection is held by every fork of its program, too; so the program itself is watched.
        request.notifyFinish().addBoth(when_caller_ends(request, partial(_close, request)))

        def answered(answer: Outcome | Refusal) -> Any:
            if isinstance(answer, Refusal):
                return b"" if closed else server.answer(request, answer)
            held.append(answer)
            if closed:
                self._api.released(answer)
            else:
                set_headers(request, _status_of(answer))
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
            stream.start(result)
            return None

        watching = self._api.watch(asked.service, since, deliver, user_of(request))
        return server.ignore_cancellation(watching.addCallback(answered))


def _close(request: Request) -> None:
    """Close the connection of a request, which fails with that."""
    cast(Any, request.channel).transport.abortConnection()


def _outcome_of(ask: Callable[[Any, int], Deferred[Outcome | Refusal]]) -> server.Endpoint:
    return lambda request, asked: _outcome(request, ask(asked, user_of(request)))


def _outcome(request: Request, asked: Deferred[Outcome | Refusal]) -> Deferred[bytes]:
    return server.answers(request, asked, _status_of)


def _status_of(outcome: Outcome) -> int:
    """Return 202 for a request that waits for a server, else 200."""
    return 202 if outcome.state == "pending" else 200


def check_origin(request: Request) -> None:
    """Refuse requests that a web page made a browser send: cross-site requests and rebound names."""
    same_origin.refuse_other_sites(request)
    if same_origin.values_of(request, "origin"):
        same_origin.refuse("this API is for programs on this host, not for web pages")
    connection = cast(HTTPChannel | None, request.channel)
    if connection is not None and isinstance(connection.getPeer(), UNIXAddress):
        return
    for named in same_origin.values_of(request, "host"):
        if named and not _is_loopback(same_origin.host_of(named)):
            same_origin.refuse(f"this API is served on the loopback only, not at {named[:80]!r}")


def _is_loopback(name: str) -> bool:
    """Return whether the name in a Host header is that of the loopback: localhost, unix, or a loopback address."""
    address = same_origin.address_of(name)
    return name in ("localhost", "unix") or (address is not None and address.is_loopback)
