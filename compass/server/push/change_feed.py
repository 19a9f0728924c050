"""Change feed: callers over HTTPS follow all changes, and resume after a lost connection from recent ones in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.octets import change_octets
from compass.model.replay_buffer import ReplayBuffer
from compass.model.replies import FeedEvent, Position, Refusal
from compass.model.rows import Change, shown

RECENT_MAX = 2_000
"""Changes that a follower can resume from: a few seconds at full speed, hours as a rule; some 2 MB."""
RECENT_OCTETS_MAX = 8 * 1024 * 1024
"""Octets of these changes: those of listeners with much metadata have 10 kB each."""
FOLLOWERS_MAX = 200
"""At the same time: consoles and programs that feed other systems. Each change is encoded once for each of them."""

Deliver = Callable[[FeedEvent], None]


class ChangeFeed:
    """Recent changes, and the followers that get the next ones."""

    _log = Logger()

    def __init__(self, store: str, revision: int) -> None:
        """`store` is the store's id, `revision` that of the catalogue."""
        self._store = store
        self._recent: ReplayBuffer[Change] = ReplayBuffer(RECENT_MAX, revision, RECENT_OCTETS_MAX, change_octets)
        self._followers: dict[int, Deliver] = {}
        self._last = 0
        """Number of the follower that came last."""

    @property
    def followers(self) -> int:
        """Number of followers."""
        return len(self._followers)

    def preload(self, changes: Iterable[Change]) -> None:
        """Fill the buffer at start from the log's newest changes, oldest first and without a gap."""
        revision = self._recent.revision
        for number, change in enumerate(changes):
            if number == 0:
                self._recent.restart(change.revision - 1)
            self._keep(change)
        self._recent.advance(revision)

    def follow(self, since: int | None, deliver: Deliver) -> Callable[[], None] | Refusal:
        """Deliver every change from now on, or after revision `since`; the first event says from where.

        Events that are due at once are delivered before this returns. Returns what ends the delivery.
        """
        if len(self._followers) >= FOLLOWERS_MAX:
            text = f"{FOLLOWERS_MAX} follow the changes already; let one follow on behalf of others"
            return Refusal("busy", text, retry_after_seconds=1.0)
        missed = None if since is None else self._recent.after(since)
        if since is None or missed is None:
            deliver(Position(self._store, self._recent.revision, complete=since is None))
        else:
            deliver(Position(self._store, since, complete=True))
            for change in missed:
                deliver(change)
        self._last += 1
        number = self._last
        self._followers[number] = deliver

        def stop() -> None:
            self._followers.pop(number, None)

        return stop

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Deliver a change to all followers."""
        change = self._keep(change)
        if self._followers:
            self._deliver(change)

    def reloaded(self, catalogue: Catalogue) -> None:
        """Make all followers read everything again: the log did not lead to this catalogue."""
        self._recent.restart(catalogue.revision)
        self._deliver(Position(self._store, catalogue.revision, complete=False))

    def _keep(self, change: Change) -> Change:
        """Append a change, without the digest of a credential, which no follower may see (P11). Returns it so."""
        change = shown(change)
        self._recent.append(change)
        return change

    def _deliver(self, event: FeedEvent) -> None:
        for deliver in list(self._followers.values()):
            try:
                deliver(event)
            except Exception:
                # The other followers must get the event all the same.
                self._log.failure("a follower did not accept a change")
