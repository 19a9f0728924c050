"""Server as its callers over HTTPS see it, who have no session."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from twisted.internet.defer import Deferred, ensureDeferred, succeed

from compass.model.host_api import Condition
from compass.model.replies import Certified, Refusal, Reply
from compass.model.requests import Join, Lag, ReadLog, Request, Status
from compass.model.rows import AuthorityInfo
from compass.model.rules.certificates import condition_of, problems_of, seconds_left
from compass.model.rules.draft import Principal
from compass.server.components import ServerDependencies
from compass.server.metrics import ServerMetrics, loaded_metrics, session_metrics
from compass.server.push.change_feed import Deliver
from compass.server.queries.host_sessions import Deliver as DeliverSessions
from compass.server.router import Router
from compass.server.sessions.connection_limits import ConnectionLimits
from compass.server.sessions.drain import HostDrain
from compass.server.sessions.session import SessionContext
from compass.wire.messages import Answer, EncodedReply, StreamedReply

NOT_READY = Refusal("not-ready", "this server has not loaded its catalogue yet", retry_after_seconds=1.0)


class HttpsApi:
    """The server as the HTTPS gateway uses it, also before the catalogue is loaded."""

    def __init__(
        self, sessions: SessionContext, connections: ConnectionLimits, drain: HostDrain, given: ServerDependencies
    ) -> None:
        self._sessions = sessions
        self._connections = connections
        self._drain = drain
        self._given = given
        self.router: Router | None = None
        """None until the catalogue is loaded (P5)."""

    def ready(self) -> tuple[str, int] | None:
        """Return the store's id and revision, or None until the catalogue is loaded (P5)."""
        if self.router is None:
            return None
        components = self.router.components
        return components.identity.store, components.committer.catalogue.revision

    @property
    def store_answers(self) -> bool:
        """True if the store accepted the last write."""
        return self.router is not None and not self.router.components.committer.outage

    @property
    def certificates(self) -> Condition:
        """Worst condition of the server's own certificates."""
        return condition_of(self._given.certificates(), self._given.now())

    def bearer(self, token: str, origin: str) -> Principal | Refusal:
        """Return the principal that a bearer token belongs to, or why it is refused."""
        return NOT_READY if self.router is None else self.router.components.bearer_auth.principal(token, origin)

    def turned_away(self, name: str, origin: str, why: str) -> None:
        """Write to the security log that a certificate was refused."""
        self._connections.log_refusal(name, origin, why)

    def authority(self) -> AuthorityInfo | Refusal:
        """Return what a host needs to verify the authority before it joins."""
        return NOT_READY if self.router is None else self.router.components.issuer.info()

    def join(self, request: Join, origin: str) -> Deferred[Certified | Refusal]:
        """Return the first certificate of a host that has a join token."""
        if self.router is None:
            return succeed(NOT_READY)
        return ensureDeferred(self.router.components.issuer.join(request, origin))

    def may_ask(self, asker: Principal, kind: type[Struct]) -> Refusal | None:
        """Return why a caller may not make requests of a type."""
        return NOT_READY if self.router is None else self.router.refusal_of_type(kind, asker)

    def may_look(self, asker: Principal) -> Refusal | None:
        """Return why a caller may not see this server's figures; callers that may ask for its status may see them.

        Until the catalogue is loaded only administrators are known.
        """
        if self.router is None:
            return None if asker.role == "admin" else NOT_READY
        return self.router.refusal(Status(), asker)

    def ask_as(self, asker: Principal, request: Request) -> Deferred[Reply]:
        """Answer a request of a caller that has no session."""
        if self.router is None:
            return succeed(NOT_READY)
        answer = self.router.request(request, asker)
        return (answer if isinstance(answer, Deferred) else succeed(answer)).addCallback(self._decode)

    def follow(self, asker: Principal, since: int | None, deliver: Deliver) -> Callable[[], None] | Refusal:
        """Deliver every change to a caller that may read the log of changes; see `ChangeFeed.follow`."""
        if self.router is None:
            return NOT_READY
        refusal = self.router.refusal(ReadLog("updates"), asker)
        return refusal or self.router.components.change_feed.follow(since, deliver)

    def follow_hosts(self, asker: Principal, deliver: DeliverSessions) -> Callable[[], None] | Refusal:
        """Deliver the sessions of hosts, and their changes, to a caller that may read how far hosts are."""
        if self.router is None:
            return NOT_READY
        return self.router.refusal(Lag(), asker) or self.router.components.host_sessions.follow(deliver)

    def metrics(self) -> ServerMetrics:
        """Return the server's metrics."""
        router = self.router
        asked = {} if router is None else {str(kind.__struct_config__.tag): n for kind, n in router.asked.items()}
        return ServerMetrics(
            ready=router is not None,
            store_reachable=self.store_answers,
            requests=asked,
            refusals=self._sessions.refusals,
            draining=self._drain.redirect is not None,
            certificate_seconds=seconds_left(self._given.certificates(), self._given.now()),
            certificates_invalid=len(problems_of(self._given.certificates(), self._given.now())),
            **session_metrics(self._connections, self._given.now()),
            **({} if router is None else loaded_metrics(router.components)),
        )

    def _decode(self, answer: Answer) -> Reply:
        reply = answer.decode() if isinstance(answer, EncodedReply | StreamedReply) else answer
        if isinstance(reply, Refusal):
            self._sessions.refusals[reply.code] += 1
        return reply
