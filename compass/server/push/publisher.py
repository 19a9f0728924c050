"""Push: each change is encoded once and written to the sessions of exactly those hosts that depend on it (P3).

The replay buffer holds the newest notices as encoded, so that a host which reconnects resumes from its revision instead
of reading a snapshot. Each host's acknowledged revision is kept for the proof of delivery (P12).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import added_topics, audience, snapshot, view_octets
from compass.model.interfaces import Clock
from compass.model.metrics import LAG_BOUNDS, Histogram
from compass.model.names import category_of
from compass.model.replay_buffer import ReplayBuffer
from compass.model.replies import HostLag
from compass.model.rows import Category, Change, Dependency, Host
from compass.server.commit.replica import Replica
from compass.server.sessions.session import Session
from compass.wire.frames import frame
from compass.wire.messages import Bookmark, Notice, encode

TAIL_MAX = 20_000
"""Notices kept in memory for resuming: some 4 MB. A host that has missed more reads a snapshot."""
TAIL_OCTETS_MAX = 32 * 1024 * 1024
"""Octets of these notices: listeners with much metadata have notices of 10 kB."""
REPLAY_MAX = 2_000
"""Notices replayed to one host; for more a snapshot is the smaller answer."""
WIDENING_OCTETS_MAX = 256 * 1024
"""Octets of a snapshot in a notice, which the replay buffer keeps; a host that needs more gets a resync instead."""
BOOKMARK_EVERY = 5_000
"""Revisions between bookmarks, which keep quiet hosts inside the replay buffer."""


class _Sent(msgspec.Struct, frozen=True):
    """A notice as encoded; for the member categories in `widened` another one, with a snapshot.

    `encoded_widened` is empty if the snapshot is too large for a notice: their hosts need a resync.
    """

    revision: int
    audience: frozenset[str]
    encoded: bytes
    widened: frozenset[str] = frozenset()
    encoded_widened: bytes = b""

    def for_members(self, categories: frozenset[str]) -> bytes | None:
        """Return what a host with services of these categories is sent; empty: nothing; None: a resync."""
        if self.widened & categories:
            return self.encoded_widened or None
        return self.encoded if self.audience & categories else b""


def _size(sent: _Sent) -> int:
    return len(sent.encoded) + len(sent.encoded_widened)


class Publisher:
    """The subscriptions by category, the newest notices, and what each host has acknowledged."""

    def __init__(self, replica: Replica, clock: Clock) -> None:
        revision = replica.catalogue.revision
        self.push_lag = Histogram(LAG_BOUNDS)
        """Seconds from the commit of a notice to a host's acknowledgement."""
        self.notices = 0
        """Notices that had an audience, even if no host of it has a session here."""
        self.doubtful = 0
        """Hosts that may not have held everything with the last heartbeat (`lagging`)."""
        self.deliveries = 0
        """Notices handed to sessions."""
        self.audience: frozenset[str] = frozenset()
        """Member categories whose hosts were sent the last change."""
        self._watchers: dict[str, dict[Session, None]] = {}
        """Sessions by member category, in the order of their watches."""
        self._sessions: dict[str, tuple[Session, frozenset[str]]] = {}
        """Session of each host, with the member categories that it subscribed for."""
        self._recent: ReplayBuffer[_Sent] = ReplayBuffer(TAIL_MAX, revision, TAIL_OCTETS_MAX, _size)
        self._last_notice: dict[str, int] = {}
        """Revision of the last notice by member category."""
        self._began = revision
        self._acknowledged: dict[str, int] = {}
        """Revision that each host has acknowledged."""
        self._gaps: set[str] = set()
        """Hosts that reported a gap."""
        self._replica = replica
        self._clock = clock

    def preload(self, changes: Iterable[Change]) -> None:
        """Fill the replay buffer at start from the log's newest changes, oldest first.

        Audiences are known only back to the last change of a dependency or backup, so the buffer begins there.
        """
        catalogue = self._replica.catalogue
        for number, change in enumerate(changes):
            if number == 0:
                self._recent.restart(change.revision - 1)
            if isinstance(change.row, Dependency | Category):
                self._recent.restart(change.revision)
                continue
            concerned = audience(catalogue, change.row)
            if concerned:
                self._keep(_Sent(change.revision, concerned, frame(encode(Notice(change)))))
        self._recent.advance(catalogue.revision)

    def reloaded(self, catalogue: Catalogue) -> None:
        """Restart at a catalogue that the log did not lead to: no host can resume, not even one at its revision."""
        self._last_notice.clear()
        self._began = catalogue.revision
        self._recent.restart(catalogue.revision, resumable=False)

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Send a change to the hosts that depend on it; `catalogue` is the one after it."""
        self._recent.advance(change.revision)
        self.audience = concerned = audience(catalogue, change.row)
        if concerned:
            sent = _Sent(change.revision, concerned, frame(encode(Notice(change))))
            more = added_topics(catalogue, change)
            if more is not None:
                topics, widened = more
                encoded = b""
                if view_octets(catalogue, topics) <= WIDENING_OCTETS_MAX:
                    encoded = frame(encode(Notice(change, snapshot(catalogue, topics))))
                sent = msgspec.structs.replace(sent, widened=widened, encoded_widened=encoded)
            # Kept first: a host that needs a resync in its place is sent what it missed at once.
            self._keep(sent)
            self._deliver(sent)
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
        """Return the frame of a bookmark, with the digest of what hosts with services of these categories hold."""
        digest = ""
        if categories is not None:
            digest = self._replica.digests.part(self._replica.catalogue, categories, self.last_notice)
        return frame(encode(Bookmark(self._recent.revision, digest)))

    def subscribe(self, subscriber: Session, categories: frozenset[str]) -> Session | None:
        """Push to a session what concerns these member categories. Returns the session of its host that it replaces."""
        replaced = self.session_of(subscriber.host)
        if replaced is not None:
            self.unsubscribe(replaced)
        self._sessions[subscriber.host] = subscriber, categories
        for category in categories:
            self._watchers.setdefault(category, {})[subscriber] = None
        return None if replaced is subscriber else replaced

    def unsubscribe(self, subscriber: Session) -> None:
        """Stop pushing to a session."""
        if self.session_of(subscriber.host) is not subscriber:
            return
        _, categories = self._sessions.pop(subscriber.host)
        for category in categories:
            watchers = self._watchers[category]
            del watchers[subscriber]
            if not watchers:
                del self._watchers[category]

    def categories_of(self, host: str) -> frozenset[str]:
        """Return the member categories that a host's session is subscribed for."""
        return self._sessions[host][1]

    def last_notice(self, categories: frozenset[str]) -> int:
        """Return the revision of the last notice for any of these categories; where this server began, if later."""
        return max([self._began, *(self._last_notice.get(category, 0) for category in categories)])

    def missed(self, categories: frozenset[str], since: int, most: int | None = None) -> list[tuple[int, bytes]] | None:
        """Return the notices after `since` for these member categories, or None when a snapshot has to be sent: they
        are more than `most` (None: `REPLAY_MAX`), or one of them would bring too much."""
        if not self._recent.covers(since):
            return None
        found = []
        for sent in self._recent.newest_first(since):
            encoded = sent.for_members(categories)
            if encoded is None:
                return None
            if encoded:
                found.append((sent.revision, encoded))
                if len(found) > (REPLAY_MAX if most is None else most):
                    return None
        found.reverse()
        return found

    def acknowledged(self, host: str, revision: int, *, gap: bool = False) -> None:
        """Note that a host holds everything up to `revision`, as it says; it cannot hold more than there is."""
        revision = min(revision, self._recent.revision)
        self._acknowledged[host] = max(revision, 0 if gap else self._acknowledged.get(host, 0))
        (self._gaps.add if gap else self._gaps.discard)(host)

    def has_missed(self, host: Host) -> bool:
        """Return whether there may be a notice that the host does not hold."""
        return self._pending(host) != 0

    def _pending(self, host: Host) -> int | None:
        """Return how many notices the host has not acknowledged; None: unknown, or too long ago."""
        at = self._acknowledged.get(host.name)
        if at is None:
            return None
        missed = self.missed(frozenset(category_of(service) for service in host.services), at)
        return None if missed is None else len(missed)

    def lagging(self, most: int) -> list[str]:
        """Return hosts with a session that may not hold everything, at most one more than `most`."""
        sessions = self._sessions.items()
        doubtful = (
            host
            for host, (session, _) in sessions
            if session.waiting or not self._acknowledged.get(host) or host in self._gaps
        )
        return list(islice(doubtful, most + 1))

    def held(self, host: str) -> int:
        """Return the revision that a host has acknowledged here; 0: none."""
        return self._acknowledged.get(host, 0)

    def lag_of(self, host: Host, held: int) -> HostLag:
        """Return the lag of a host without a session, which held the revision `held` when it last had one."""
        missed = self.missed(frozenset(category_of(service) for service in host.services), held)
        status = "unknown" if missed is None else "ok"
        return HostLag(host.name, session=False, acknowledged=held, pending=len(missed or ()), status=status)

    def lag(self, host: Host) -> HostLag:
        """Return the lag of a host, as far as this server knows."""
        pending = self._pending(host)
        status = "gap" if host.name in self._gaps else "unknown" if pending is None else "ok"
        return HostLag(
            host=host.name,
            session=host.name in self._sessions,
            acknowledged=self._acknowledged.get(host.name, 0),
            pending=pending or 0,
            status=status,
        )

    def session_of(self, host: str) -> Session | None:
        """Return the watching session of a host."""
        session = self._sessions.get(host)
        return None if session is None else session[0]

    @property
    def watching(self) -> int:
        """Hosts with a watching session."""
        return len(self._sessions)

    def awaited(self) -> tuple[int, float]:
        """Return the number of hosts that have a notice to acknowledge, and for how many seconds the oldest waits."""
        since = [at for at in (session.awaited_since for session, _ in self._sessions.values()) if at is not None]
        return len(since), self._clock.seconds() - min(since) if since else 0.0

    def _deliver(self, sent: _Sent) -> None:
        subscribers = self.subscribers(sent.audience)
        self.notices += 1
        self.deliveries += len(subscribers)
        now = self._clock.seconds()
        if not sent.widened:
            for subscriber in subscribers:
                subscriber.deliver(sent.encoded, sent.revision, now)
            return
        widened = dict.fromkeys(self.subscribers(sent.widened))
        for subscriber in widened:
            if sent.encoded_widened:
                subscriber.deliver(sent.encoded_widened, sent.revision, now)
            else:
                subscriber.fall_behind(sent.revision - 1)
        for subscriber in subscribers:
            if subscriber not in widened:
                subscriber.deliver(sent.encoded, sent.revision, now)

    def subscribers(self, categories: frozenset[str]) -> list[Session]:
        """Return the sessions of hosts with services of these categories."""
        if len(categories) == 1:
            (category,) = categories
            return list(self._watchers.get(category, ()))
        # In the order of the watches, so that the same history gives the same order of writes.
        sets = [self._watchers[category] for category in sorted(categories) if category in self._watchers]
        return list(dict.fromkeys(chain.from_iterable(sets)))

    def _keep(self, sent: _Sent) -> None:
        for category in sent.audience:
            self._last_notice[category] = sent.revision
        self._recent.append(sent)
