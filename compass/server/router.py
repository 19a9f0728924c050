"""Router: one table says how each type of request is answered; sessions and the HTTPS API ask here.

Whether the asker may ask is decided by `decide.ROLES`. Requests that a rule decides or answers are checked there, with
the catalogue that they are decided on; the router checks all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred

from compass.model import requests
from compass.model.replies import Refusal
from compass.model.rules.decide import permit, permit_unread
from compass.model.rules.draft import Principal
from compass.server.components import Components
from compass.server.failure.doubts import DoubtfulDeaths
from compass.server.sessions.request_limits import ChangeLimit, ReportLimit, RequestLimit, WatchLimit
from compass.server.sessions.session import Greeting, Redirect, Session
from compass.wire.events import AcknowledgementReceived
from compass.wire.messages import Answer


class Handler(msgspec.Struct, frozen=True):
    """Rule by which requests of one type are answered."""

    answer: Callable[[Any, Any], Any]
    """Return the answer to a request of a principal or, with `needs_session`, of a session: now, or a Deferred or a
    coroutine."""
    limits: tuple[RequestLimit, ...] = ()
    """Limits in the order in which they are checked; those after a refusal do not count the request."""
    needs_session: bool = False
    checked: bool = False
    """A rule checks the right of the asker; else the router does."""


def handlers(components: Components) -> dict[type, Handler]:
    """Return the table of all requests."""
    c = components
    write = Handler(c.committer.submit, checked=True)
    read = Handler(c.queries.ask, checked=True)
    changes = ChangeLimit(c.clock, c.change_rates, c.committer.replica)
    doubts = DoubtfulDeaths(c.committer.replica, c.holdings, c.detector)
    watches = WatchLimit(c.clock, c.committer.replica)
    return {
        requests.Register: Handler(c.holdings.submit, (changes,), checked=True),
        requests.Deregister: Handler(doubts.deregister, (changes,), checked=True),
        requests.Drain: Handler(c.committer.submit, (changes,), checked=True),
        requests.Disown: write,
        requests.Report: Handler(c.detector.report, (ReportLimit(c.clock),), checked=True),
        requests.Put: write,
        requests.Remove: write,
        requests.Rename: write,
        requests.IssueCredential: write,
        requests.RevokeCredential: write,
        requests.Apply: write,
        requests.Purge: write,
        requests.Pull: read,
        requests.Fetch: read,
        requests.Impact: read,
        requests.Watch: Handler(c.subscriptions.watch, (watches,), needs_session=True),
        requests.Findings: Handler(
            lambda request, session: c.detector.findings(session.asker.name, request), needs_session=True
        ),
        requests.Invite: Handler(c.issuer.invite),
        requests.Renew: Handler(c.issuer.renew, needs_session=True),
        requests.ReadLog: Handler(lambda request, _: c.logs.read(request)),
        requests.Status: Handler(lambda request, _: c.status.status()),
        requests.Digest: Handler(lambda request, _: c.status.digest(request)),
        requests.Lag: Handler(lambda request, _: c.status.lags(request)),
        requests.Examine: Handler(lambda request, _: c.detector.examine(request)),
        requests.Steer: Handler(lambda request, _: c.drain.steer(request, c.cluster.others(c.identity.name))),
        requests.Ways: Handler(lambda request, _: c.alerts.status()),
        requests.TryWays: Handler(lambda request, _: c.alerts.send_test(request)),
    }


class Router:
    """Answers requests, and follows what happens on sessions."""

    def __init__(self, components: Components) -> None:
        self.asked = Counter[type[msgspec.Struct]]()
        """Requests by type."""
        self.components = components
        self._handlers = handlers(components)

    # What sessions hand on.

    def hello(self, session: Session) -> Greeting | Redirect:
        """Accept a peer, unless this server is being drained."""
        identity, catalogue = self.components.identity, self.components.committer.replica.catalogue
        greeting = Greeting(identity.name, identity.store, catalogue.revision, identity.software)
        if session.asker.role == "host":
            greeting = greeting._replace(renews=self.components.issuer.renews)
        return self.components.drain.redirect_of(session) or greeting

    def request(
        self, request: requests.Request, asker: Principal, session: Session | None = None
    ) -> Answer | Deferred[Answer]:
        """Return the answer to a request, or its refusal: at once what is in memory."""
        handler = self._handlers[type(request)]
        if handler.needs_session and session is None:
            return Refusal("out-of-turn", "this request needs a session; /v1/events sends every change")
        self.asked[type(request)] += 1
        if session is not None and isinstance(request, requests.Register):
            session.has_registered = True
        if not handler.checked:
            refusal = self.refusal(request, asker)
            if refusal is not None:
                return refusal
        for limit in handler.limits:
            exceeded = limit.exceeded(request, asker)
            if exceeded is not None:
                return exceeded
        if not handler.checked:
            return maybeDeferred(handler.answer, request, session if handler.needs_session else asker)
        answer: Answer | Deferred[Answer] = handler.answer(request, asker)
        for limit in handler.limits:
            assert isinstance(answer, Deferred)
            answer.addCallback(limit.answered, request, asker)
        return answer

    def acknowledged(self, session: Session, event: AcknowledgementReceived) -> None:
        """Note how far a host is; a host that reports a gap watches again by itself."""
        if not session.host:
            return
        acknowledge = event.acknowledge
        if not session.is_accepted:
            session.is_accepted = True
            self.components.refused_hosts.accepted(session.host)
        publisher = self.components.publisher
        publisher.acknowledged(session.host, acknowledge.revision, gap=acknowledge.status != "ok")
        if event.waited is not None:
            publisher.push_lag.add(event.waited)
        if acknowledge.status == "differs":
            self.components.anti_entropy.differs(session.host, acknowledge.revision)

    def refused(self, host: str, why: str) -> None:
        """Let administrators know that a host is refused."""
        self.components.refused_hosts.refused(host, why)

    def closed(self, session: Session) -> None:
        """End the subscription of a session, and see whether its host has to be checked or dialled."""
        host, publisher = session.host, self.components.publisher
        if not host and session.has_registered and session.asker.role == "host":
            self._registrant_closed(session.asker.name)
            return
        if not host or publisher.session_of(host) is not session:
            return
        publisher.unsubscribe(session)
        row = self.components.committer.replica.catalogue.hosts.get(host)
        # A host that can be dialled may leave whenever it likes; it is lost when it cannot be reached.
        lost = not (session.left and row is not None and row.update_port)
        self.components.hosts.disconnected(host, lost=lost, held=publisher.held(host))

    def _registrant_closed(self, host: str) -> None:
        """Check the listeners of a host that has registered and never watched, when it has no session left."""
        if not self.components.connections.has_session("host", host):
            self.components.hosts.registrant_lost(host)

    # Rights.

    def refusal_of_type(self, kind: type[msgspec.Struct], asker: Principal) -> Refusal | None:
        """Return the refusal of requests of a type that the asker may not make, after writing it to the log."""
        committer = self.components.committer
        refused = permit_unread(committer.replica.catalogue, kind, asker, self.components.now())
        if refused is None:
            return None
        committer.log_security(refused[1])
        return refused[0]

    def refusal(self, request: requests.Request, asker: Principal) -> Refusal | None:
        """Return the refusal of a request that the asker may not make, after writing it to the security log."""
        committer = self.components.committer
        decision = permit(committer.replica.catalogue, request, asker, self.components.now())
        if decision is None:
            return None
        if decision.security is not None:
            committer.log_security(decision.security)
        return cast(Refusal, decision.reply)
