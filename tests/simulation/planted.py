"""Bugs as one might make them, planted on purpose: campaigns that find nothing must be able to find these.

They exist here only; `compass` has no switch for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import msgspec

from compass.agent.agent import Agent
from compass.agent.changes import Changes
from compass.agent.registration.journal import RegistrationJournal
from compass.model.catalogue.catalogue import Catalogue
from compass.model.rows import Listener, Snapshot
from compass.model.rules import listeners
from compass.model.rules.certificates import problems_of
from compass.server.commit.committer import Committer
from compass.server.commit.transaction import TransactionWriter
from compass.server.failure.holdings import Holdings
from compass.server.push import snapshot_cache
from compass.server.push.publisher import Publisher
from compass.server.push.subscriptions import Subscriptions
from compass.server.sessions.session import Session
from compass.system.machine import Machine
from compass.wire.messages import Suspicion

STARTING_SECONDS = 1.0
"""Seconds for which a server with the third bug has not loaded its listeners."""


@contextmanager
def _replaced(owner: Any, name: str, other: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def reply_before_commit() -> Iterator[None]:
    """The answers of a batch go out as soon as it is decided, and the transaction follows."""
    write = TransactionWriter.write

    async def write_later(self: Any, batch: Any, entries: Any) -> Any:
        for pending, decision in zip(batch, self._decider.decide_batch(self._replica.catalogue, batch), strict=True):
            pending.answer(decision.reply)
        return await write(self, batch, entries)

    async def commit(self: Any, batch: Any, entries: Any) -> bool:
        try:
            await self.writer.write(batch, entries)
        except Exception:
            self._access.mark_unavailable("planted")
        return True

    with _replaced(TransactionWriter, "write", write_later), _replaced(Committer, "_commit", commit):
        yield


@contextmanager
def notice_dropped_for_slow_session() -> Iterator[None]:
    """Drop what does not fit into the buffers of a slow reader."""
    deliver = Session.deliver

    def drop(self: Any, encoded: bytes, revision: int, now: float) -> None:
        if not self._paused:
            deliver(self, encoded, revision, now)

    with _replaced(Session, "deliver", drop):
        yield


@contextmanager
def empty_list_during_start() -> Iterator[None]:
    """A server answers watches before it has loaded the listeners and the newest notices."""
    watch, module = Subscriptions.watch, cast(Any, snapshot_cache)
    complete = module.snapshot
    starting: list[bool] = []

    async def watch_early(self: Any, request: Any, session: Any) -> Any:
        started = getattr(self, "_planted_start", None) or self.admission._clock.seconds()
        self._planted_start = started
        if self.admission._clock.seconds() - started < STARTING_SECONDS:
            starting.append(True)
        try:
            return await watch(self, request, session)
        finally:
            starting.clear()

    def incomplete(catalogue: Catalogue, topics: Any) -> Snapshot:
        told: Snapshot = complete(catalogue, topics)
        rows = [row for row in told.rows if not (starting and isinstance(row, Listener))]
        return msgspec.structs.replace(told, rows=rows)

    with (
        _replaced(Subscriptions, "watch", watch_early),
        _replaced(snapshot_cache, "snapshot", incomplete),
        _replaced(Publisher, "preload", lambda *args: None),
    ):
        yield


@contextmanager
def suspicion_kept_as_truth() -> Iterator[None]:
    """A host writes what a server only suspects into what it holds."""

    def keep(self: Any, suspicion: Suspicion | None) -> None:
        if suspicion is None:
            return
        replica: Any = self._view.replica
        row = replica.catalogue.listener(suspicion.service, suspicion.address, suspicion.port)
        if row is not None and row.epoch == suspicion.epoch:
            replica.catalogue = replica.catalogue.with_row(msgspec.structs.replace(row, state="suspect"))

    with _replaced(Changes, "suspected", keep):
        yield


@contextmanager
def rows_and_books_not_compared() -> Iterator[None]:
    """A server that believes that a host holds whatever is recorded for it (K2)."""
    with _replaced(Holdings, "differ", lambda self, host, digest: False):
        yield


@contextmanager
def taken_over_in_silence() -> Iterator[None]:
    """The server does not send a host that another one has its address and port, nor that that one has ended (K3)."""
    with _replaced(Holdings, "_send_to", lambda self, host, row: None):
        yield


@contextmanager
def journal_of_anyone_proves_deaths() -> Iterator[None]:
    """A daemon takes every journal for its own machine's, and servers believe what it says of another host (K1)."""

    def own(self: Any, entry: Any) -> bool:
        return True

    def known(self: Any, other: Any) -> bool:
        return True

    def certain(principal: Any, request: Any, old: Any) -> bool:
        return False

    with (
        _replaced(RegistrationJournal, "_is_own", own),
        _replaced(Machine, "has_processes_of", known),
        _replaced(listeners, "is_doubtful", certain),
    ):
        yield


@contextmanager
def date_as_configuration() -> Iterator[None]:
    """A host does not start with a certificate that is not valid now, and no program starts it again (K4)."""
    start = Agent.start

    def start_if_valid(self: Any) -> None:
        parts = self._dependencies
        if not problems_of(parts.certificates(), parts.now()):
            start(self)

    with _replaced(Agent, "start", start_if_valid):
        yield


BUGS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "reply-before-commit": reply_before_commit,
    "notice-dropped-for-slow-session": notice_dropped_for_slow_session,
    "empty-list-during-start": empty_list_during_start,
    "suspicion-kept-as-truth": suspicion_kept_as_truth,
    "rows-and-books-not-compared": rows_and_books_not_compared,
    "taken-over-in-silence": taken_over_in_silence,
    "journal-of-anyone-proves-deaths": journal_of_anyone_proves_deaths,
    "date-as-configuration": date_as_configuration,
}
