"""The way up: one session to one of several servers, whichever side dialled, and the way back to one when it is lost.

`Session` is the shell around the sans-IO `ClientConnection`: it moves bytes, keeps one timer at its deadline and ties
replies to those who asked. `Upstream` owns at most one session, tries the servers in order with exponential back-off,
and takes a connection that a server dialled as a session of the same kind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from compass.host.session import Session
from compass.model.ports import Clock, Stream, Timer
from compass.model.replies import Refusal, Reply
from compass.model.requests import Request
from compass.wire.messages import Held, Pushed, Welcome

BACK_OFF_SECONDS_MIN = 0.2
"""First pause after all servers failed: a restart of a server takes about so long."""
BACK_OFF_SECONDS_MAX = 30.0
"""Longest pause: with 10,000 hosts waiting, some 300 connections a second reach a server that returns."""
RETRY_AFTER_SECONDS_MAX = 300.0
"""A server that asks for more patience than this is not believed."""
CONNECT_SECONDS = 5.0
"""From the first packet to the connection, TLS included in the greeting; then the next server is tried."""
ASK_PATIENCE_SECONDS = 3.0
"""How long a request waits for a session that is being made, before it is answered `unreachable`."""
WAITING_MAX = 1024
"""Requests that wait for a session; more are refused as busy."""
LINGER_SECONDS = 1.0
"""In mode `short`: a session on which nothing happened for so long is left."""
STOP_SECONDS = 2.0
"""How long the end of the session may take when the daemon stops."""

PeerOf = Callable[[Stream], tuple[str, str, str]]
"""Role and name in the peer's verified certificate, or in third place why they cannot be known."""
Mode = Literal["keep", "short"]
"""keep: a session is always open, notices come at once. short: connect, ask, leave; the server dials to push."""
SessionStatus = Literal["open", "connecting", "waiting", "stopped"]


class Follower(Protocol):
    """Who uses the session: told of its beginning, of what is pushed, and of its end."""

    def session_opened(self, welcome: Welcome) -> None:
        """Ask now what must be asked first; requests that waited follow."""

    def session_pushed(self, messages: Sequence[Pushed]) -> None:
        """Notices and bookmarks that arrived together, in order."""

    def session_ended(self) -> None:
        """No session any more; requests without an answer have been answered `unreachable`."""


class Upstream:
    """Keeps the one session. On a connection that a server dialled, `peer_of` must find a server at its other end."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        random: Callable[[], float],
        endpoints: Sequence[IStreamClientEndpoint],
        follower: Follower,
        software: str,
        mode: Mode = "keep",
        *,
        peer_of: PeerOf,
    ) -> None:
        self._clock = clock
        self._random = random
        self._endpoints = list(endpoints)
        self._follower = follower
        self._software = software
        self._mode = mode
        self._peer_of = peer_of
        self._in_step = False
        self._session: Session | None = None
        self._connecting: Deferred[IProtocol] | None = None
        self._unopened: set[Session] = set()
        self._not_before = [0.0] * len(self._endpoints)
        self._next = 0
        self._attempts = 0
        self._retry: Timer | None = None
        self._linger: Timer | None = None
        self._waiting: deque[tuple[Request, Deferred[Reply], Timer]] = deque()
        self._running = False
        self._stopped: Deferred[None] | None = None
        self.server = ""
        self.problem = ""

    @property
    def status(self) -> SessionStatus:
        """open, connecting (also the short pauses while every server is tried once), waiting or stopped."""
        if self._session is not None:
            return "open"
        if not self._running:
            return "stopped"
        return "connecting" if self._trying() else "waiting"

    def start(self) -> None:
        """Go for a session."""
        self._running = True
        self._connect()

    def stop(self) -> Deferred[None]:
        """Leave; fires when the transport is closed."""
        self._running = False
        _cancel(self._retry)
        if self._connecting is not None:
            self._connecting.cancel()
        self._refuse_waiting("the daemon is stopping")
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        for session in list(self._unopened):
            session.close()
        if self._session is not None:
            self._session.close(STOP_SECONDS)
        else:
            stopped.callback(None)
        return stopped

    def settled(self) -> None:
        """The session works: the follower is in step. From here back-off starts anew."""
        self._attempts = 0
        self.problem = ""
        self._in_step = True
        self._touch()

    def abandon(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        """Give this session up, as if the server had ended it."""
        if self._session is not None:
            self.problem = reason
            self._log.warn("session with {server} given up: {reason}", server=self.server, reason=reason)
            self._session.close(reason=reason, retry_after_seconds=retry_after_seconds)

    def ask(self, request: Request) -> Deferred[Reply]:
        """The server's reply; a refusal `unreachable` when no server could be asked or the answer got lost."""
        if self._session is not None:
            self._touch()
            return self._session.ask(request)
        answer: Deferred[Reply] = Deferred()
        if not self.expected():
            answer.callback(self._unreachable())
        elif len(self._waiting) >= WAITING_MAX:
            busy = f"{WAITING_MAX} requests wait for a server; try again in a moment"
            answer.callback(Refusal("busy", busy, retry_after_seconds=1.0))
        else:
            patience = self._clock.callLater(ASK_PATIENCE_SECONDS, self._impatient, answer)
            self._waiting.append((request, answer, patience))
        return answer

    def expected(self) -> bool:
        """Whether a session is there, or may be in a moment; in mode `short` this goes for one."""
        if self._session is None and self._mode == "short" and self._running and not self._trying():
            _cancel(self._retry)
            self._attempts = 0
            self._connect()
        return self._session is not None or self._trying()

    def acknowledge(self, revision: int, status: Held = "ok") -> None:
        """Say what is held."""
        if self._session is not None:
            self._session.acknowledge(revision, status)

    def update_factory(self) -> Factory:
        """Protocols for connections that a server dials to the Update listener."""
        return Factory.forProtocol(lambda: self._new_session(None))

    # From sessions ----------------------------------------------------------------------------------------------

    def connected(self, session: Session) -> bool:
        """Whether a new connection is wanted; one too many is closed politely."""
        if not self._running or self._session is not None:
            return False
        self._unopened.add(session)
        return True

    def opened(self, session: Session, welcome: Welcome) -> None:
        """A greeting is done; the first of two sessions that were made at once stays."""
        self._unopened.discard(session)
        problem = self._problem_with(session)
        if self._session is not None or not self._running or problem:
            if problem:
                self._log.warn("a connection to the Update listener is no server's: {problem}", problem=problem)
            session.close()
            return
        self._session, self.server, self._in_step = session, welcome.server, False
        _cancel(self._retry)
        if self._connecting is not None:
            self._connecting.cancel()
        self._log.info(
            "session with server {server} at revision {revision}",
            server=welcome.server,
            revision=welcome.revision,
        )
        self._follower.session_opened(welcome)
        self._touch()
        while self._waiting and self._session is session:
            request, answer, patience = self._waiting.popleft()
            _cancel(patience)
            session.ask(request).chainDeferred(answer)

    def pushed(self, session: Session, messages: Sequence[Pushed]) -> None:
        """From the one session that counts."""
        if session is self._session:
            self._touch()
            self._follower.session_pushed(messages)

    def ended(self, session: Session, reason: str, retry_after_seconds: float) -> None:
        """A connection is over: closed, refused, timed out or left."""
        self._unopened.discard(session)
        if session.place is not None and retry_after_seconds > 0:
            # What a server tells all of its hosts in one moment must not bring all of them back in one.
            patience = min(retry_after_seconds, RETRY_AFTER_SECONDS_MAX) * (1 + self._random() / 2)
            self._not_before[session.place] = self._clock.seconds() + patience
        was_ours = session is self._session
        if was_ours:
            _cancel(self._linger)
            self._session, self.server = None, ""
            self._follower.session_ended()
            if self._stopped is not None:
                self._stopped.callback(None)
        if not self._running or self._session is not None or (not was_ours and session.place is None):
            return
        if was_ours and self._mode == "short" and self._in_step and not self.problem:
            return  # Nothing more to be asked for now.
        self._failed(session.place, reason)

    # Connecting -------------------------------------------------------------------------------------------------

    def _trying(self) -> bool:
        """A session may be there in a moment: one is being made, or not every server has been tried yet."""
        active = self._making() or _pending(self._retry)
        return self._running and active and self._attempts < len(self._endpoints)

    def _making(self) -> bool:
        return self._connecting is not None or bool(self._unopened)

    def _connect(self) -> None:
        if self._session is not None or self._making() or not self._running:
            return
        place = self._next
        factory = Factory.forProtocol(lambda: self._new_session(place))
        connecting: Deferred[IProtocol] = cast(Any, self._endpoints[place]).connect(factory)
        self._connecting = connecting
        connecting.addTimeout(CONNECT_SECONDS, cast(Any, self._clock))

        def done(result: object) -> None:
            self._connecting = None
            if isinstance(result, Failure) and self._running and self._session is None:
                self._failed(place, result.getErrorMessage() or "no connection in time")

        connecting.addBoth(done)

    def _failed(self, place: int | None, reason: str) -> None:
        """Try the next server, after a pause that grows with every round through all of them."""
        self.problem = reason
        count = len(self._endpoints)
        if place is not None:
            self._attempts += 1
            self._next = (place + 1) % count
        now = self._clock.seconds()
        self._next = min(
            ((self._next + step) % count for step in range(count)),
            key=lambda index: max(self._not_before[index] - now, 0.0),
        )
        rounds = min(self._attempts // count, 16)
        pause = min(BACK_OFF_SECONDS_MIN * 2 ** (rounds - 1), BACK_OFF_SECONDS_MAX)
        pause = max(pause * (0.5 + self._random() / 2), self._not_before[self._next] - now)
        self._log.info("no session ({reason}); next attempt in {pause:.1f} s", reason=reason, pause=pause)
        _cancel(self._retry)
        self._retry = self._clock.callLater(pause, self._connect)
        if self._attempts >= count:
            self._refuse_waiting(reason)

    def _problem_with(self, session: Session) -> str:
        """Why a server must not be believed on a connection that it dialled; dialled ones name it by TLS."""
        if session.place is not None:
            return ""
        role, name, wrong = self._peer_of(cast(Stream, session.transport))
        return wrong or ("" if role == "server" else f"the certificate of {name!r} has the role {role}, not server")

    def _new_session(self, place: int | None) -> Session:
        return Session(self._clock, self, self._software, place)

    def _touch(self) -> None:
        """Something happened: in mode `short` the session is kept a little longer."""
        _cancel(self._linger)
        if self._mode == "short" and self._session is not None:
            self._linger = self._clock.callLater(LINGER_SECONDS, self._leave)

    def _leave(self) -> None:
        if self._session is not None:
            if self._session.unanswered:
                self._touch()
            else:
                self._session.close()

    # Waiting requests -------------------------------------------------------------------------------------------

    def _impatient(self, answer: Deferred[Reply]) -> None:
        self._waiting = deque(entry for entry in self._waiting if entry[1] is not answer)
        answer.callback(self._unreachable())

    def _refuse_waiting(self, reason: str) -> None:
        self.problem = reason
        waiting, self._waiting = self._waiting, deque()
        for _, answer, patience in waiting:
            _cancel(patience)
            answer.callback(self._unreachable())

    def _unreachable(self) -> Refusal:
        why = f" ({self.problem})" if self.problem else ""
        return Refusal(
            "unreachable",
            f"no server can be reached{why}; the daemon goes on trying, lookups are answered from memory",
            retry_after_seconds=1.0,
        )


def _pending(call: Timer | None) -> bool:
    return call is not None and bool(call.active())


def _cancel(call: Timer | None) -> None:
    if call is not None and call.active():
        call.cancel()
