"""HTTPS JSON API of the server: everything that `opengnsadmin` can do, for programs and browsers without OpenGNSP.

The gateway translates and decides nothing. Callers authenticate with a bearer token or a client certificate;
authorization and refusals are those of OpenGNSP. Other paths of this port (metrics, the console) are further operations
with their handlers: `site(..., more=...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol, cast

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.web.server import Request, Site

from compass.gateway.http import channel, health, server
from compass.gateway.http.health import Health
from compass.gateway.http.openapi import Operation
from compass.gateway.http.prometheus_sd import PROMETHEUS, CategoryAsked, target_groups
from compass.gateway.http.request import BODY_MAX, RequestRejected
from compass.gateway.http.sse import EventStream, resumes_at
from compass.gateway.http.status_codes import status_of
from compass.gateway.metrics.exposition import Metrics
from compass.gateway.server_api import operations
from compass.gateway.server_api.operations import EventsAsked, Who
from compass.gateway.server_api.origin_check import OriginCheck
from compass.model.cluster import HostSessions
from compass.model.host_api import Condition
from compass.model.interfaces import Clock
from compass.model.limits import FETCH_LIMIT_MAX
from compass.model.replies import FeedEvent, Position, Refusal, Reply, Rows
from compass.model.requests import Fetch, Join
from compass.model.rows import AuthorityInfo, Listener
from compass.model.rules.decide import ROLES
from compass.model.rules.draft import Principal

TOPOLOGY_MAX = 4 * 1024 * 1024
"""Longest body of an administrator's request: a topology of 30,000 services, as over OpenGNSP."""
AUTHENTICATE = {"WWW-Authenticate": 'Bearer realm="OpenGNS"'}


class PeerIdentifier(Protocol):
    """Source of the roles and names in verified certificates."""

    def identify(self, transport: Any) -> tuple[str, str, str]:
        """Return role and name of a connection's peer, or as third value why its certificate is not usable."""


class ServerApi(Protocol):
    """Interface of the server for callers over HTTPS."""

    def ready(self) -> tuple[str, int] | None:
        """Return the store's id and revision, or None while the catalogue is not complete (P5)."""

    @property
    def store_answers(self) -> bool:
        """True if the store accepted the last write."""

    @property
    def certificates(self) -> Condition:
        """Worst condition of the server's own certificates."""

    def bearer(self, token: str, origin: str) -> Principal | Refusal:
        """Return the principal of a token, or a refusal."""

    def turned_away(self, name: str, origin: str, why: str) -> None:
        """Record a certificate that gives no access."""

    def authority(self) -> AuthorityInfo | Refusal:
        """Return what a host needs to verify the authority before it joins."""

    def join(self, request: Join, origin: str) -> Deferred[Any]:
        """Return a Deferred of the first certificate of a host that has a join token."""

    def may_ask(self, asker: Principal, kind: type[msgspec.Struct]) -> Refusal | None:
        """Return the refusal if a principal may not make requests of a type, else None: before one is read."""

    def may_look(self, asker: Principal) -> Refusal | None:
        """Return the refusal if a principal may not read the server's status, else None."""

    def ask_as(self, asker: Principal, request: Any) -> Deferred[Reply]:
        """Return a Deferred of the reply to a request."""

    def follow(
        self, asker: Principal, since: int | None, deliver: Callable[[FeedEvent], None]
    ) -> Callable[[], None] | Refusal:
        """Deliver every change until the returned function is called."""

    def follow_hosts(self, asker: Principal, deliver: Callable[[HostSessions], None]) -> Callable[[], None] | Refusal:
        """Deliver the sessions of hosts until the returned function is called."""


def site(
    api: ServerApi,
    clock: Clock,
    peers: PeerIdentifier,
    more: tuple[tuple[Operation, server.Endpoint], ...] = (),
    metrics: Metrics | None = None,
    *,
    metrics_are_open: bool = False,
    names: Collection[str] | None = None,
) -> Site:
    """Return the factory to listen with, behind TLS for which a client certificate is optional.

    `metrics_are_open`: metrics need no authentication. `names`: DNS names that clients use; None: every name.
    """
    if metrics is not None:
        more = (*more, _metrics(api, metrics, is_open=metrics_are_open))
    requests = metrics.gateways.http_requests if metrics is not None else None
    handlers = ServerHttp(api, clock, peers)
    pages = {operation.path.encode() for operation, _ in more if operation.is_page}
    root = handlers.resource(more)
    return channel.site(root, clock, OriginCheck(names, pages), requests, handlers.body_max)


def _metrics(api: ServerApi, metrics: Metrics, *, is_open: bool) -> tuple[Operation, server.Endpoint]:
    """Return the operation of metrics, for callers that may read the server's status, or for all."""

    def scraped(request: Request, _: None) -> bytes:
        refused = None if is_open else api.may_look(_who(request))
        return server.answer(request, refused) if refused is not None else metrics.answer(request)

    return msgspec.structs.replace(health.METRICS, no_authentication=is_open), scraped


class ServerHttp:
    """Handlers of the API's operations."""

    def __init__(self, api: ServerApi, clock: Clock, peers: PeerIdentifier) -> None:
        self._api = api
        self._clock = clock
        self._peers = peers
        self._document = msgspec.json.encode(operations.server_document())

    def resource(self, more: tuple[tuple[Operation, server.Endpoint], ...] = ()) -> Any:
        """Return the root resource."""
        routes: list[tuple[Operation, server.Endpoint]] = [
            (health.HEALTH, lambda request, _: server.answer(request, self._health("running"))),
            (health.READY, self._ready),
            (operations.OPENAPI, lambda request, _: server.octets(request, self._document)),
            (operations.WHO, self._say_who),
            (operations.AUTHORITY, lambda request, _: server.answer(request, self._api.authority())),
            (operations.JOIN, self._join),
            (PROMETHEUS, self._prometheus),
            (operations.EVENTS_OF_ALL, self._events),
            (operations.HOST_SESSIONS, self._host_sessions),
            *((operation, self._ask) for operation in operations.ASKED),
            *more,
        ]
        return server.resource(routes, self._admit)

    def _admit(self, request: Request, operation: Operation) -> None:
        """Refuse callers that must authenticate first, and those without the right to ask, before input is read."""
        if operation.no_authentication:
            return
        cast(Any, request).asker = asker = self._asker(request)
        if operation in operations.ASKED:
            self._check_right(asker, operation)

    def _check_right(self, asker: Principal, operation: Operation) -> None:
        refused = self._api.may_ask(asker, operation.asks) if operation.asks is not None else None
        if refused is not None:
            raise RequestRejected(status_of(refused.code), refused, server.retry(refused))

    def body_max(self, request: Request, method: bytes, target: bytes) -> int:
        """Return the longest body: that of a topology for an administrator, else only what a query needs.

        It is asked when a body turns out to be longer than the latter. Raises RequestRejected.
        """
        if not (request.requestHeaders.hasHeader("authorization") or _has_certificate(request)):
            return BODY_MAX
        asker, path = self._asker(request), target.partition(b"?")[0].decode("ascii", "replace")
        for operation in operations.ASKED:
            if (operation.method.encode(), operation.path) == (method, path):
                self._check_right(asker, operation)
        return TOPOLOGY_MAX if asker.role == "admin" else BODY_MAX

    def _asker(self, request: Request) -> Principal:
        """Return the caller, by its token if there is one, else by its certificate. Raises RequestRejected."""
        origin = _origin(request)
        shown = request.getHeader("authorization")
        if shown is not None:
            scheme, _, token = shown.partition(" ")
            if scheme.lower() != "bearer":
                raise _unauthorized("Authorization must be 'Bearer TOKEN'")
            found = self._api.bearer(token.strip(), origin)
            if isinstance(found, Principal):
                _prove(request)
                return found
            if found.code == "bad-credential":
                raise _unauthorized(found.message, found.code)
            raise RequestRejected(status_of(found.code), found, server.retry(found))
        if not _has_certificate(request):
            raise _unauthorized("show a certificate of this installation, or a token: 'Authorization: Bearer TOKEN'")
        role, name, wrong = self._peers.identify(cast(Any, request.channel).transport)
        if not wrong and role not in ("admin", "host"):
            wrong = f"the certificate of {name!r} has the role {role}; host or admin is needed here"
        if wrong:
            self._api.turned_away(name, origin, wrong)
            raise RequestRejected(403, Refusal("forbidden", wrong))
        return Principal("admin" if role == "admin" else "host", name, origin)

    def _ask(self, request: Request, asked: Any) -> Any:
        return server.answers(request, self._api.ask_as(_who(request), asked))

    def _join(self, request: Request, asked: Join) -> Any:
        return server.answers(request, self._api.join(asked, _origin(request)))

    def _health(self, status: str) -> Health:
        return Health(status, "available" if self._api.store_answers else "away", self._api.certificates)

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
        """Answer with one of three (P5): 503 while nothing is loaded, 404 for an unknown name, else the list."""
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
        stream = _CallersStream(request, self._clock, self)

        def deliver(event: FeedEvent) -> None:
            stream.deliver(event.revision, "position" if isinstance(event, Position) else "change", event)

        result = self._api.follow(who, resumes_at(request, asked.since), deliver)
        if isinstance(result, Refusal):
            return server.answer(request, result)
        stream.start(result)
        return Deferred()

    def _host_sessions(self, request: Request, _: None) -> Any:
        stream = _CallersStream(request, self._clock, self)
        result = self._api.follow_hosts(_who(request), lambda told: stream.deliver(told.view, "sessions", told))
        if isinstance(result, Refusal):
            return server.answer(request, result)
        stream.start(result)
        return Deferred()

    def is_allowed(self, request: Request) -> bool:
        """Return whether the caller would still be admitted: its token may have been removed meanwhile."""
        try:
            return self._asker(request) == _who(request)
        except RequestRejected:
            return False


class _CallersStream(EventStream):
    """Stream that ends when its caller would no longer be admitted."""

    def __init__(self, request: Request, clock: Clock, handlers: ServerHttp) -> None:
        super().__init__(request, clock)
        self._handlers = handlers

    def is_allowed(self) -> bool:
        return self._handlers.is_allowed(self._request)


def _targets(reply: Reply) -> Any:
    if not isinstance(reply, Rows):
        return reply
    return target_groups(row for row in reply.rows if isinstance(row, Listener) and row.state != "offline")


def _origin(request: Request) -> str:
    """Return the address that a request came from."""
    return str(getattr(request.getClientAddress(), "host", ""))


def _who(request: Request) -> Principal:
    who: Principal = cast(Any, request).asker
    return who


def _prove(request: Request) -> None:
    """Let the connection count as that of a known client: a gateway without TLS has no such count."""
    transport: Any = request.channel.transport if request.channel is not None else None
    prove = getattr(transport, "proven", None)
    if prove is not None:
        prove()


def _has_certificate(request: Request) -> bool:
    transport: Any = request.channel.transport if request.channel is not None else None
    shown = getattr(transport, "getPeerCertificate", None)
    return shown is not None and shown() is not None


def _unauthorized(text: str, code: str = "forbidden") -> RequestRejected:
    return RequestRejected(401, Refusal(code, text), AUTHENTICATE)
