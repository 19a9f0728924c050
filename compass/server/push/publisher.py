"""Push: each change is encoded once and written to the sessions of exactly those who depend on it (P3).

The tail keeps the newest notices as encoded, so that a host which comes back resumes from its revision instead of
reading everything again. `Progress` is what each host has acknowledged (P12).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Protocol

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience, widening
from compass.model.names import category_of
from compass.model.replies import HostLag
from compass.model.rows import Category, Change, Dependency, Host
from compass.server.push.ack_latency import AckLatency
from compass.wire.frames import frame
from compass.wire.messages import Bookmark, Notice, encode

TAIL_MAX = 20_000
"""Notices kept in memory for resuming: some 4 MB. Whoever has missed more reads a snapshot."""
REPLAY_MAX = 2_000
"""Notices replayed to one host; for more a snapshot is the smaller answer."""
BOOKMARK_EVERY = 5_000
"""Revisions between bookmarks, which keep the quiet hosts inside the tail."""


class Subscriber(Protocol):
    """A session that watches."""

    host: str
    compares: bool
    """Its host compares digests."""

    @property
    def waiting(self) -> bool:
        """Whether there is something that it has not acknowledged."""

    def deliver(self, encoded: bytes, revision: int) -> None:
        """Write a notice."""

    def deliver_bookmark(self, encoded: bytes, revision: int) -> None:
        """Write a bookmark."""


class _Sent(msgspec.Struct, frozen=True):
    """A notice as encoded; for the member categories in `widened` another one, with a snapshot."""

    revision: int
    told: frozenset[str]
    encoded: bytes
    widened: frozenset[str] = frozenset()
    encoded_widened: bytes = b""

    def for_members(self, categories: frozenset[str]) -> bytes:
        """What a host with services of these categories gets; empty when it is not concerned."""
        if self.widened & categories:
            return self.encoded_widened
        return self.encoded if self.told & categories else b""


class Publisher:
    """Who watches what, and what was sent lately."""

    def __init__(
        self,
        catalogue: Catalogue,
        absent: Callable[[frozenset[str]], None],
        digest: Callable[[frozenset[str]], str] = lambda categories: "",
        seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`absent` is told the member categories of each notice, to reach hosts without a session; `digest` tells what
        hosts with services of these categories hold; `seconds` is a clock that never jumps."""
        self.way = AckLatency(seconds)
        """How long notices take."""
        self.notices = 0
        """That were told to somebody, or would have been."""
        self.doubtful = 0
        """Hosts that may not have held everything when it was looked last (`lagging`)."""
        self.deliveries = 0
        """How often one was handed to a session."""
        self._watchers: dict[str, dict[Subscriber, None]] = {}
        """By member category: the sessions, in the order of their watches."""
        self._sessions: dict[str, tuple[Subscriber, frozenset[str]]] = {}
        """By host: its session, and the member categories it was subscribed for."""
        self._tail: deque[_Sent] = deque()
        self._last_told: dict[str, int] = {}
        """By member category: the revision of the last notice."""
        self._began = catalogue.revision
        self._complete_after = catalogue.revision
        """The tail has every notice after this revision."""
        self._revision = catalogue.revision
        self._acknowledged: dict[str, int] = {}
        self._gaps: set[str] = set()
        self._absent = absent
        self._digest = digest

    def preload(self, changes: Iterable[Change], catalogue: Catalogue) -> None:
        """Fill the tail at start from the log's newest changes, oldest first; `catalogue` is the one after them.

        Audiences are known only back to the last change of a dependency or backup, so the tail begins there.
        """
        for number, change in enumerate(changes):
            if number == 0:
                self._complete_after = change.revision - 1
            if isinstance(change.row, Dependency | Category):
                self._tail.clear()
                self._complete_after = change.revision
                continue
            told = audience(catalogue, change.row)
            if told:
                self._keep(_Sent(change.revision, told, frame(encode(Notice(change)))))

    def forget(self, revision: int) -> None:
        """Begin anew at a revision: nothing can be replayed to whoever comes, not even that nothing was missed."""
        self._tail.clear()
        self._last_told.clear()
        self._revision = self._began = revision
        self._complete_after = revision + 1

    def committed(self, change: Change, catalogue: Catalogue) -> None:
        """Tell a change to whoever depends on it; `catalogue` is the one after it."""
        self._revision = change.revision
        told = audience(catalogue, change.row)
        if told:
            sent = _Sent(change.revision, told, frame(encode(Notice(change))))
            more = widening(catalogue, change)
            if more is not None:
                part, widened = more
                encoded = frame(encode(Notice(change, part)))
                sent = msgspec.structs.replace(sent, widened=widened, encoded_widened=encoded)
            self._deliver(sent)
            self._keep(sent)
            self._absent(told)
        if change.revision % BOOKMARK_EVERY == 0:
            self._deliver_bookmarks(change.revision)

    def _deliver_bookmarks(self, revision: int) -> None:
        encoded: dict[frozenset[str] | None, bytes] = {}
        for subscriber, categories in list(self._sessions.values()):
            kind = categories if subscriber.compares else None
            if kind not in encoded:
                encoded[kind] = self.bookmark(kind)
            subscriber.deliver_bookmark(encoded[kind], revision)

    def bookmark(self, categories: frozenset[str] | None) -> bytes:
        """The frame of a bookmark; with the digest of what hosts with services of these categories hold."""
        return frame(encode(Bookmark(self._revision, "" if categories is None else self._digest(categories))))

    def subscribe(self, subscriber: Subscriber, categories: frozenset[str]) -> Subscriber | None:
        """Push to it what concerns these member categories. Gives another session of its host that it replaces."""
        replaced = self.session_of(subscriber.host)
        if replaced is not None:
            self.unsubscribe(replaced)
        self._sessions[subscriber.host] = subscriber, categories
        for category in categories:
            self._watchers.setdefault(category, {})[subscriber] = None
        return None if replaced is subscriber else replaced

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Push to it no more."""
        if self.session_of(subscriber.host) is not subscriber:
            return
        _, categories = self._sessions.pop(subscriber.host)
        self.way.gone(subscriber.host)
        for category in categories:
            watchers = self._watchers[category]
            del watchers[subscriber]
            if not watchers:
                del self._watchers[category]

    def categories_of(self, host: str) -> frozenset[str]:
        """The member categories that a host's session is subscribed for."""
        return self._sessions[host][1]

    def last_told(self, categories: frozenset[str]) -> int:
        """The revision of the last notice for any of these member categories; where this server began, if later."""
        return max([self._began, *(self._last_told.get(category, 0) for category in categories)])

    def missed(self, categories: frozenset[str], since: int) -> list[tuple[int, bytes]] | None:
        """The notices after `since` for these member categories, or None when only a snapshot can tell."""
        if not self._complete_after <= since <= self._revision:
            return None
        found = []
        for sent in reversed(self._tail):
            if sent.revision <= since:
                break
            encoded = sent.for_members(categories)
            if encoded:
                found.append((sent.revision, encoded))
                if len(found) > REPLAY_MAX:
                    return None
        found.reverse()
        return found

    def acknowledged(self, host: str, revision: int, *, gap: bool = False) -> None:
        """A host holds everything up to `revision`, it says; more than there is it cannot hold."""
        revision = min(revision, self._revision)
        self._acknowledged[host] = max(revision, 0 if gap else self._acknowledged.get(host, 0))
        (self._gaps.add if gap else self._gaps.discard)(host)
        self.way.acknowledged(host, revision)

    def has_missed(self, host: Host) -> bool:
        """Whether there may be a notice that the host does not hold."""
        return self._pending(host) != 0

    def _pending(self, host: Host) -> int | None:
        """Notices that the host has not acknowledged; None when that is not known or too long ago."""
        at = self._acknowledged.get(host.name)
        if at is None:
            return None
        missed = self.missed(frozenset(category_of(service) for service in host.services), at)
        return None if missed is None else len(missed)

    def lagging(self, most: int) -> list[str]:
        """Hosts with a session that may not hold everything; at most one more than so many."""
        sessions = self._sessions.items()
        doubtful = (
            host
            for host, (session, _) in sessions
            if session.waiting or not self._acknowledged.get(host) or host in self._gaps
        )
        return list(islice(doubtful, most + 1))

    def held(self, host: str) -> int:
        """What a host has acknowledged here; 0: nothing."""
        return self._acknowledged.get(host, 0)

    def lag_of(self, host: Host, held: int) -> HostLag:
        """Of a host that no server has a session of, and that held a revision when it had one elsewhere."""
        missed = self.missed(frozenset(category_of(service) for service in host.services), held)
        status = "unknown" if missed is None else "ok"
        return HostLag(host.name, session=False, acknowledged=held, pending=len(missed or ()), status=status)

    def lag(self, host: Host) -> HostLag:
        """Which revision a host holds, as far as this server has heard."""
        pending = self._pending(host)
        status = "gap" if host.name in self._gaps else "unknown" if pending is None else "ok"
        return HostLag(
            host=host.name,
            session=host.name in self._sessions,
            acknowledged=self._acknowledged.get(host.name, 0),
            pending=pending or 0,
            status=status,
        )

    def session_of(self, host: str) -> Subscriber | None:
        """The watching session of a host."""
        session = self._sessions.get(host)
        return None if session is None else session[0]

    @property
    def watching(self) -> int:
        """Hosts with a watching session."""
        return len(self._sessions)

    def _deliver(self, sent: _Sent) -> None:
        told = self.subscribers(sent.told)
        self.notices += 1
        self.deliveries += len(told)
        began = self.way.begins()
        self._write(sent, told)
        if began is not None:
            # Who is not here any more has been let go while it was written to.
            here = [one.host for one in told if self.session_of(one.host) is one]
            self.way.notices_sent(sent.revision, began, here)

    def _write(self, sent: _Sent, told: list[Subscriber]) -> None:
        if not sent.widened:
            for subscriber in told:
                subscriber.deliver(sent.encoded, sent.revision)
            return
        widened = dict.fromkeys(self.subscribers(sent.widened))
        for subscriber in widened:
            subscriber.deliver(sent.encoded_widened, sent.revision)
        for subscriber in told:
            if subscriber not in widened:
                subscriber.deliver(sent.encoded, sent.revision)

    def subscribers(self, told: frozenset[str]) -> list[Subscriber]:
        """The sessions of hosts with services of these categories."""
        sets = [self._watchers[category] for category in sorted(told) if category in self._watchers]
        # In the order of the watches, so that the same history gives the same order of writes.
        return list(sets[0]) if len(sets) == 1 else list(dict.fromkeys(chain.from_iterable(sets)))

    def _keep(self, sent: _Sent) -> None:
        for category in sent.told:
            self._last_told[category] = sent.revision
        self._tail.append(sent)
        if len(self._tail) > TAIL_MAX:
            self._complete_after = self._tail.popleft().revision
