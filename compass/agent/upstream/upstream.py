"""Upstream: one session to one of several servers, whichever side dialled, and the next one when it is lost.

`Upstream` owns at most one `Session`, the shell around the sans-IO `ClientConnection`. While there is none, `Connector`
tries the addresses that `ServerSelector` returns, and requests wait a moment; a connection that a server dialled
becomes a session of the same kind. While the session is with a server that is not the preferred one, this host tries
a better address from time to time, and closes the one session only when the other is open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from compass.agent.upstream.connector import Connector, UpstreamDependencies
from compass.agent.upstream.pending_requests import PendingRequests
from compass.agent.upstream.server_selector import Candidate, ServerAddress
from compass.agent.upstream.session import Session
from compass.model.host_api import KnownServer
from compass.model.interfaces import Stream
from compass.model.names import InvalidName, format_endpoint, parse_server
from compass.model.replies import Refusal, Reply
from compass.model.requests import Request
from compass.system.timers import Timers
from compass.wire.events import SessionEnded
from compass.wire.messages import Held, Pushed, Welcome

LINGER_SECONDS = 1.0
"""Seconds in mode `short` after which an idle session is closed."""
STOP_SECONDS = 2.0
"""Seconds that the end of the session may take when the daemon stops."""

SessionStatus = Literal["open", "connecting", "waiting", "stopped"]


class Follower(Protocol):
    """Follower of the session: its beginning, pushed messages, and its end."""

    def session_opened(self, welcome: Welcome) -> None:
        """Send what must be asked first; requests that waited follow."""

    def session_pushed(self, messages: Sequence[Pushed]) -> None:
        """Handle messages that arrived together, in order."""

    def session_ended(self) -> None:
        """Handle the end of the session; requests without a reply have been answered `unreachable`."""


class SessionListener(Protocol):
    """Receiver of the beginning and the end of working sessions."""

    def session_settled(self) -> None:
        """Handle a session on which the replica is up to date, once for each session."""

    def session_ended(self) -> None:
        """Handle the end of a session, also of one that never settled."""


class Upstream:
    """Owner of the one session.

    `peer_of` must find a server at the other end of every connection, except those that were dialled by a name of the
    configuration: that name alone identifies the server.
    """

    _log = Logger()

    def __init__(self, parts: UpstreamDependencies) -> None:
        self._clock = parts.clock
        self._selector = parts.selector
        self._followers: list[Follower] = []
        self._listeners: list[SessionListener] = []
        self._software = parts.software
        self._mode = parts.mode
        self._peer_of = parts.peer_of
        self._connector = Connector(parts, self)
        self._waiting = PendingRequests(parts.clock, self)
        self._in_step = False
        self._session: Session | None = None
        self._timers = Timers(parts.clock)
        self._running = False
        self._stopped: Deferred[None] | None = None
        self.server = ""
        self.problem = ""
        self.opened_count = 0
        """Number of sessions since the start."""

    @property
    def status(self) -> SessionStatus:
        """Return the state; `connecting` includes the short pauses while every address is tried once."""
        if self._session is not None:
            return "open"
        if not self._running:
            return "stopped"
        return "connecting" if self._connector.trying() else "waiting"

    def servers(self) -> tuple[KnownServer, ...]:
        """Return every known address of a server with its state."""
        return self._selector.known(self._clock.seconds(), self._used, self._connector.tried())

    def follow(self, follower: Follower) -> None:
        """Let `follower` use every session."""
        self._followers.append(follower)

    def add_listener(self, listener: SessionListener) -> None:
        """Notify `listener`, after the followers, of sessions that settle and that end."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Connect."""
        self._running = True
        self._go()

    def update(self, origin: str, candidates: Sequence[Candidate]) -> None:
        """Replace the servers that an origin proposes."""
        self._selector.update(origin, candidates)
        if self._running and self._session is None:
            self._connector.candidates_changed()

    def stop(self) -> Deferred[None]:
        """Close the session. Returns what fires when the transport is closed."""
        self._running = False
        self._timers.cancel("return")
        self._connector.give_up()
        self.problem = "the daemon is stopping"
        self._waiting.refuse()
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        if self._session is not None:
            self._session.close(STOP_SECONDS)
        else:
            stopped.callback(None)
        return stopped

    def settled(self) -> None:
        """Record that the session works: the follower is up to date. Back-off restarts from here."""
        if self._session is not None and self._session.server is not None:
            self._selector.worked(self._session.server)
        self.problem = ""
        first, self._in_step = not self._in_step, True
        self._touch()
        for listener in self._listeners if first else ():
            listener.session_settled()

    def keep(self, why: str) -> None:
        """Keep every session from now on, because no server dials this host; until the daemon is started again."""
        if self._mode == "short":
            self._mode = "keep"
            self._timers.cancel("linger")
            self._log.warn("this host keeps its session, although its mode is short: {why}", why=why)
            self._look_for_better()

    def abandon(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        """Give this session up, as if the server had ended it."""
        if self._session is not None:
            self.problem = reason
            self._log.warn("session with {server} given up: {reason}", server=self.server, reason=reason)
            self._session.close(reason=reason, retry_after_seconds=retry_after_seconds)

    def ask(self, request: Request) -> Deferred[Reply]:
        """Send a request. Returns the reply; `unreachable` if no server could be asked or the reply was lost."""
        if self._session is not None:
            if self._mode == "short":
                self._touch()
            return self._session.ask(request)
        return self._waiting.add(request) if self.expected() else succeed(self.unreachable())

    def expected(self) -> bool:
        """Return whether there is a session or may be one in a moment; in the mode `short` this connects."""
        if self._session is None and self._mode == "short" and self._running and not self._connector.trying():
            self._selector.reset_backoff()
            self._go()
        return self._session is not None or (self._running and self._connector.trying())

    def retry_now(self) -> None:
        """Try every address again without a pause: what stood against a session may have changed."""
        if self._session is None:
            self._selector.reset_backoff()
            self._go()

    def address_changed(self, old: str, new: str) -> None:
        """Leave a session that comes from the old address: its packets may not arrive any more."""
        if self._session is not None and self._session.local_address == old:
            self.abandon(f"the address of this host changed from {old} to {new}")

    def others(self) -> list[ServerAddress]:
        """Return an address of each server that the session is not with."""
        return self._selector.others(self._used)

    def acknowledge(self, revision: int, status: Held = "ok") -> None:
        """Acknowledge what the replica holds."""
        if self._session is not None:
            self._session.acknowledge(revision, status)

    def update_factory(self) -> Factory:
        """Return the factory for connections that a server dials to the Update listener."""
        return Factory.forProtocol(lambda: self.new_session(None))

    # From sessions ----------------------------------------------------------------------------------------------

    def connected(self, session: Session) -> bool:
        """Return whether a new connection is wanted; one too many is closed with a goodbye."""
        if not self._running or (self._session is not None and not self._is_better(session)):
            return False
        self._connector.greeting.add(session)
        return True

    def opened(self, session: Session, welcome: Welcome) -> None:
        """Use a new session. Of two that were made at once the first one stays, unless the other is better."""
        self._connector.greeting.discard(session)
        problem = self.problem_with(session)
        old = self._session
        if problem:
            self._log.warn("peer is not a compass server: {problem}", problem=problem)
            session.close(reason=problem)
            if session.server is not None:
                self.not_reached(session.server, problem)
            return
        if not self._running or (old is not None and (old.unanswered or not self._is_better(session))):
            session.close()
            return
        if old is not None:
            self._end_session()
            old.close(reason="this host goes to a server that it prefers")
        self._session, self.server, self._in_step = session, welcome.server, False
        self.opened_count += 1
        self._connector.give_up()
        self._log.info(
            "session with server {server} at revision {revision}", server=welcome.server, revision=welcome.revision
        )
        self._look_for_better()
        for follower in self._followers:
            follower.session_opened(welcome)
        self._touch()
        while self._session is session and (waiting := self._waiting.next()) is not None:
            request, answer = waiting
            session.ask(request).chainDeferred(answer)

    def pushed(self, session: Session, messages: Sequence[Pushed]) -> None:
        """Hand on messages of the current session."""
        if session is self._session:
            if self._mode == "short":
                self._touch()
            for follower in self._followers:
                follower.session_pushed(messages)

    def ended(self, session: Session, end: SessionEnded) -> None:
        """Handle the end of a connection: closed, refused, timed out or left."""
        self._connector.greeting.discard(session)
        was_ours, worked = session is self._session, self._in_step
        if session.server is not None:
            self._heed_goodbye(session, session.server, end)
        if was_ours:
            self._selector.lost(self._clock.seconds(), worked=worked)
            self._end_session()
            if self._stopped is not None:
                self._stopped.callback(None)
        if was_ours and self._mode == "short" and worked and not self.problem:
            return  # There is nothing to ask for now.
        if session.server is not None and (was_ours or not session.leaving):
            self.not_reached(session.server, end.reason)
        elif was_ours:
            self._no_session(end.reason)

    def _heed_goodbye(self, session: Session, server: ServerAddress, end: SessionEnded) -> None:
        """Record the goodbye's pause and, from a server, its redirect."""
        now = self._clock.seconds()
        if end.retry_after_seconds > 0:
            self._selector.retry_after(server, now, end.retry_after_seconds)
        instead = []
        for text in end.instead if end.instead and not self.problem_with(session) else ():
            try:
                instead.append(parse_server(text))
            except InvalidName as problem:
                self._log.warn("{name} redirects this host to an invalid server: {why}", name=server.name, why=problem)
        if instead:
            self._selector.redirected(instead, now)

    def _end_session(self) -> None:
        self._timers.cancel_all()
        self._session, self.server = None, ""
        for follower in self._followers:
            follower.session_ended()
        for listener in self._listeners:
            listener.session_ended()

    # Connecting -------------------------------------------------------------------------------------------------

    def _go(self) -> None:
        if self._running and self._session is None:
            self._connector.connect_next()

    def not_reached(self, server: ServerAddress, reason: str) -> None:
        """Let the address rest and try the next one."""
        where = format_endpoint(server.address, server.port)
        self._log.info("no session with {name} at {where}: {reason}", name=server.name, where=where, reason=reason)
        self._selector.failed(server, self._clock.seconds(), reason)
        self._no_session(reason)

    def _no_session(self, reason: str) -> None:
        if self._session is not None or not self._running:
            return
        self.problem = reason
        if not self._selector.has_untried:
            self._waiting.refuse()
        self._go()

    @property
    def _used(self) -> ServerAddress | None:
        """Return the address of the session; None also for one that a server dialled."""
        return self._session.server if self._session is not None else None

    def _look_for_better(self) -> None:
        """Try a server that is preferred to this one after a while."""
        if self._mode == "keep":
            self._timers.start("return", self._selector.return_seconds(), self._go_back)

    def _go_back(self) -> None:
        better = self._selector.better(self._used, self._clock.seconds())
        if better is not None and not self._connector.tried():
            self._connector.connect(better)
        self._look_for_better()

    def _is_better(self, session: Session) -> bool:
        """Return whether a new session's address is preferred to that of the current one."""
        return session.server is not None and self._selector.prefers(session.server, self._used, self._clock.seconds())

    def problem_with(self, session: Session) -> str:
        """Return why the peer is not trusted as a server. A name of the configuration needs no certificate's role."""
        if session.server is not None and self._selector.source(session.server) == "configured":
            return ""
        role, name, wrong = self._peer_of(cast(Stream, session.transport))
        return wrong or ("" if role == "server" else f"the certificate of {name!r} has the role {role}, not server")

    def new_session(self, server: ServerAddress | None) -> Session:
        """Make the protocol for a connection; `server` None: a server dialled it."""
        return Session(self._clock, self, self._software, server)

    def _touch(self) -> None:
        """Keep the session for a while in the mode `short`: it was used."""
        if self._mode == "short" and self._session is not None:
            self._timers.start("linger", LINGER_SECONDS, self._leave)

    def _leave(self) -> None:
        if self._session is not None:
            if self._session.unanswered:
                self._touch()
            else:
                self._session.close()

    def unreachable(self) -> Refusal:
        """Return the refusal of a request for which no server could be asked."""
        why = f" ({self.problem})" if self.problem else ""
        return Refusal(
            "unreachable",
            f"no server can be reached{why}; the daemon keeps trying, lookups are answered from memory",
            retry_after_seconds=1.0,
        )
