"""The server's HTTPS JSON API: whatever `opengnsadmin` can do, for programs and browsers without OpenGNSP.

It translates and decides nothing. Who asks is said by a bearer token or by the client's certificate; what he may is
decided where it is decided for OpenGNSP, and refused in the same words. More paths of this port (metrics, a console)
are more operations with their endpoints: `site(..., more=...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.web.server import Request, Site

from compass.gateway.host_api.operations import CategoryAsked
from compass.gateway.http import health, server
from compass.gateway.http.health import Health
from compass.gateway.http.openapi import Operation
from compass.gateway.http.prometheus_sd import target_groups
from compass.gateway.http.sse import EventStream, resumes_at
from compass.gateway.http.status_codes import status_of
from compass.gateway.metrics.exposition import Metrics
from compass.gateway.server_api import operations
from compass.gateway.server_api.operations import EventsAsked, Who
from compass.model.interfaces import Clock
from compass.model.limits import FETCH_LIMIT_MAX
from compass.model.replies import FeedEvent, Position, Refusal, Reply, Rows
from compass.model.requests import Fetch
from compass.model.rows import Listener
from compass.model.rules.decide import ROLES
from compass.model.rules.draft import Principal

TOPOLOGY_MAX = 4 * 1024 * 1024
"""Octets of a body from somebody who has said who he is: a topology of 30,000 services, as over OpenGNSP."""
AUTHENTICATE = {"WWW-Authenticate": 'Bearer realm="OpenGNS"'}

PeerOf = Callable[[Any], tuple[str, str, str]]
"""Role and name in the verified certificate of a connection's peer, or in third place why these cannot be known."""


class ServerApi(Protocol):
    """What the server does for those who come over HTTPS."""

    def ready(self) -> tuple[str, int] | None:
        """The store's id and revision, or None while the catalogue is not complete (P5)."""

    @property
    def store_answers(self) -> bool:
        """Whether the store took the last write."""

    def bearer(self, token: str, origin: str) -> Principal | Refusal:
        """Who shows this token."""

    def turned_away(self, name: str, origin: str, why: str) -> None:
        """Somebody has shown a certificate that opens nothing here."""

    def may_look(self, asker: Principal) -> Refusal | None:
        """Why somebody may not see the server's figures; None: he may."""

    def ask_as(self, asker: Principal, request: Any) -> Deferred[Reply]:
        """The reply to a request, or its refusal."""

    def follow(
        self, asker: Principal, since: int | None, deliver: Callable[[FeedEvent], None]
    ) -> Callable[[], None] | Refusal:
        """Deliver every change until the result is called."""


class ServerRequest(server.BoundedRequest):
    """A request whose body may be a topology, when a certificate or a token has come with it."""

    @property
    def body_max(self) -> int:
        """Strangers get no more room than a question needs."""
        known = self.requestHeaders.hasHeader("authorization") or _has_certificate(self)
        return TOPOLOGY_MAX if known else server.BODY_MAX


def site(
    api: ServerApi,
    clock: Clock,
    peer_of: PeerOf,
    more: tuple[tuple[Operation, server.Endpoint], ...] = (),
    metrics: Metrics | None = None,
    *,
    metrics_are_open: bool = False,
) -> Site:
    """The factory to listen with, behind TLS that asks for a certificate and takes none as well.

    `metrics_are_open`: nobody has to say who he is to read them.
    """
    if metrics is not None:
        more = (*more, _metrics(api, metrics, is_open=metrics_are_open))
    requests = metrics.gateways.http_requests if metrics is not None else None
    return server.site(ServerHttp(api, clock, peer_of).resource(more), clock, ServerRequest, requests)


def _metrics(api: ServerApi, metrics: Metrics, *, is_open: bool) -> tuple[Operation, server.Endpoint]:
    """Metrics are for whoever may ask for the server's status, or for all."""

    def scraped(request: Request, _: None) -> bytes:
        refused = None if is_open else api.may_look(_who(request))
        return server.answer(request, refused) if refused is not None else metrics.answer(request)

    return msgspec.structs.replace(health.METRICS, no_authentication=is_open), scraped


class ServerHttp:
    """The paths of the API."""

    def __init__(self, api: ServerApi, clock: Clock, peer_of: PeerOf) -> None:
        self._api = api
        self._clock = clock
        self._peer_of = peer_of
        self._document = msgspec.json.encode(operations.server_document())

    def resource(self, more: tuple[tuple[Operation, server.Endpoint], ...] = ()) -> Any:
        """The root resource."""
        routes: list[tuple[Operation, server.Endpoint]] = [
            (health.HEALTH, lambda request, _: server.answer(request, self._health("running"))),
            (health.READY, self._ready),
            (operations.OPENAPI, lambda request, _: server.octets(request, self._document)),
            (operations.WHO, self._say_who),
            (operations.PROMETHEUS, self._prometheus),
            (operations.EVENTS_OF_ALL, self._events),
            *((operation, self._ask) for operation in operations.ASKED),
            *more,
        ]
        return server.resource(routes, self._admit)

    def _admit(self, request: Request, operation: Operation) -> None:
        """Refuse what another site's page made a browser send, and strangers where somebody must be known."""
        origin = request.getHeader("origin")
        if origin is not None and origin.partition("://")[2] != request.getHeader("host"):
            raise server.RequestRejected(403, Refusal("forbidden", "this API is not for pages of other sites"))
        if not operation.no_authentication:
            cast(Any, request).asker = self._asker(request)

    def _asker(self, request: Request) -> Principal:
        """Who asks, by the token if there is one, else by the certificate. Raises Unusable."""
        origin = str(getattr(request.getClientAddress(), "host", ""))
        shown = request.getHeader("authorization")
        if shown is not None:
            scheme, _, token = shown.partition(" ")
            if scheme.lower() != "bearer":
                raise _unknown("Authorization must be 'Bearer TOKEN'")
            found = self._api.bearer(token.strip(), origin)
            if isinstance(found, Principal):
                return found
            if found.code == "bad-credential":
                raise _unknown(found.message, found.code)
            raise server.RequestRejected(status_of(found.code), found, server.retry(found))
        if not _has_certificate(request):
            raise _unknown("show a certificate of this installation, or a token: 'Authorization: Bearer TOKEN'")
        role, name, wrong = self._peer_of(cast(Any, request.channel).transport)
        if not wrong and role not in ("admin", "host"):
            wrong = f"the certificate of {name!r} has the role {role}; host or admin is needed here"
        if wrong:
            self._api.turned_away(name, origin, wrong)
            raise server.RequestRejected(403, Refusal("forbidden", wrong))
        return Principal("admin" if role == "admin" else "host", name, origin)

    def _ask(self, request: Request, asked: Any) -> Any:
        return server.answers(request, self._api.ask_as(_who(request), asked))

    def _health(self, status: str) -> Health:
        return Health(status, "available" if self._api.store_answers else "away")

    def _ready(self, request: Request, _: None) -> bytes:
        if self._api.ready() is None:
            text = "this server has not loaded its catalogue yet"
            return server.answer(request, Refusal("not-ready", text, retry_after_seconds=1.0))
        return server.answer(request, self._health("ready"))

    def _say_who(self, request: Request, _: None) -> bytes:
        asker = _who(request)
        kinds: list[Any] = [kind for kind, roles in ROLES.items() if asker.role in roles]
        may = sorted(str(kind.__struct_config__.tag) for kind in kinds)
        return server.answer(request, Who(asker.role, asker.name, tuple(may)))

    def _prometheus(self, request: Request, asked: CategoryAsked) -> Any:
        """Three answers (P5): 503 while nothing is loaded, 404 for a name that there is not, and else the list."""
        who, name = _who(request), asked.category.lower()

        def known(reply: Reply) -> Deferred[Any]:
            if isinstance(reply, Refusal):
                return succeed(reply)
            if isinstance(reply, Rows) and not reply.rows:
                return succeed(Refusal("unknown-category", f"there is no category {name!r}"))
            found = self._api.ask_as(who, Fetch("listener", within=name, limit=FETCH_LIMIT_MAX))
            return found.addCallback(_targets)

        return server.answers(request, self._api.ask_as(who, Fetch("category", name=name)).addCallback(known))

    def _events(self, request: Request, asked: EventsAsked) -> Any:
        who = _who(request)
        stream = EventStream(request, self._clock, still_may=lambda: self._is_known(request))

        def deliver(event: FeedEvent) -> None:
            stream.deliver(event.revision, "position" if isinstance(event, Position) else "change", event)

        result = self._api.follow(who, resumes_at(request, asked.since), deliver)
        if isinstance(result, Refusal):
            return server.answer(request, result)
        stream.goes_on(result)
        return Deferred()

    def _is_known(self, request: Request) -> bool:
        """Whether who asked would still be let in: a token may have been removed meanwhile."""
        try:
            return self._asker(request) == _who(request)
        except server.RequestRejected:
            return False


def _targets(reply: Reply) -> Any:
    if not isinstance(reply, Rows):
        return reply
    return target_groups(row for row in reply.rows if isinstance(row, Listener) and row.state != "offline")


def _who(request: Request) -> Principal:
    who: Principal = cast(Any, request).asker
    return who


def _has_certificate(request: Request) -> bool:
    transport: Any = request.channel.transport if request.channel is not None else None
    shown = getattr(transport, "getPeerCertificate", None)
    return shown is not None and shown() is not None


def _unknown(text: str, code: str = "forbidden") -> server.RequestRejected:
    return server.RequestRejected(401, Refusal(code, text), AUTHENTICATE)
