"""What administrators are told by one way (a mailbox, a webhook, ...), and when: pure, under a clock that is handed in.

The update log is the outbox: that an incident began (`alert`) or is over (`alert-over`) is a change in it. So what is
still to be told follows from one number, the revision up to which all has been told (`Outbox.told`); whoever keeps it
can end at any time, and another goes on after it. Something may then be told twice, never not at all, and a message
that is told again has the same id (`message_id`).

One message at a time. Of an incident there is one message when it begins and one when it is over; one that was over
before anything was said of it is told once, as both (`passed`). When more is waiting than may be sent within the minute
all of it becomes one message (`digest`).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from compass.model.rows import Alert, Change

PER_MINUTE = 10
"""Messages of one way within a minute, unless configured: as many as somebody who was woken up can read."""
PER_MINUTE_MAX = 600
"""Ten a second: more is a stream, and `GET /v1/events` is made for that."""
MINUTE_SECONDS = 60.0
PENDING_MAX = 10_000
"""Incidents that one way keeps one by one while it cannot tell them: some 5 MB. Of further ones it keeps the number."""
DIGEST_NEWS_MAX = 20
"""Incidents that a digest names: a screen. It counts all of them, and `opengnsadmin alert list` names those open."""
PAUSE_SECONDS_MIN = 2.0
"""Before the first repetition: a receiver that was just restarted is back by then."""
PAUSE_SECONDS_MAX = 300.0
"""Longest pause between two attempts, which are repeated without an end: greylisting lasts for some minutes, and who
repairs a mail server wants to see within a few that it works."""

Event = Literal["opened", "resolved", "passed"]
"""passed: it began and was over before its beginning was told."""


class IncidentUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message says of one incident."""

    event: Event
    alert: Alert
    revision: int
    """Of the change that is told; of the two of a `passed` incident, the first."""
    time: float
    """UNIX time of that change."""
    resolved_at: float = 0.0
    """UNIX time at which it was over; 0: it is not."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is sent at once."""

    id: str
    """The same whenever the same is told again, by whichever server."""
    event: Literal["opened", "resolved", "passed", "digest", "test"]
    time: float
    """UNIX time at which it was made."""
    news: tuple[IncidentUpdate, ...] = ()
    """Of a digest only the first."""
    counts: dict[Event, int] = {}
    """How many incidents it is about."""
    answers: str = ""
    """The id of the message that told the beginning of what this one tells the end of."""


class ChannelState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a way does."""

    pending: int = 0
    """Incidents with something still to be told."""
    attempts: int = 0
    """In vain since the last success."""
    told_at: float = 0.0
    """UNIX time of the last success; 0: none since the server started."""
    failed_at: float = 0.0
    problem: str = ""
    """Why the last attempt that failed did; kept when later ones succeed, with its time."""


class _Pending(msgspec.Struct):
    alert: Alert
    revision: int
    time: float
    begun: bool
    """Its beginning is to be told."""
    resolved_at: float = 0.0
    resolved_revision: int = 0

    def news(self) -> IncidentUpdate:
        """What there is to say."""
        event: Event = ("passed" if self.resolved_at else "opened") if self.begun else "resolved"
        return IncidentUpdate(event, self.alert, self.revision, self.time, self.resolved_at)


_Key = tuple[str, float]


class Outbox:
    """What one way has still to tell. `now` is in seconds on a clock that never jumps, `time` is UNIX time."""

    def __init__(self, store: str, random: Callable[[], float], per_minute: int = PER_MINUTE) -> None:
        """`store`: its id, part of messages' ids. `random`: of 0 to 1, for pauses that do not all end together."""
        self._store = store
        self._random = random
        self._per_minute = per_minute
        self._pending: dict[_Key, _Pending] = {}
        """In the order of their revisions."""
        self._more: dict[Event, int] = {}
        """How many more there are than are kept, and the revision of their first."""
        self._more_from = 0
        self._seen = 0
        self._sent: deque[float] = deque()
        """When messages were sent within the last minute."""
        self._message: Message | None = None
        """Under way, or to be repeated as it is."""
        self._covers: dict[_Key, Event] = {}
        self._covers_more: dict[Event, int] = {}
        self._flying = False
        self._not_before = 0.0
        self._standing = ChannelState()

    # What is to be told.

    def committed(self, change: Change) -> None:
        """An incident has begun or is over. Changes come in order; those that came before are nothing new."""
        alert = change.row
        if change.revision <= self._seen or not isinstance(alert, Alert):
            return
        self._seen = change.revision
        key = alert.id, alert.opened_at
        known = self._pending.get(key)
        if not change.removed:
            self._add(key, _Pending(alert, change.revision, change.time, begun=True))
        elif known is None:
            self._add(key, _Pending(alert, change.revision, change.time, False, change.time, change.revision))
        else:
            known.resolved_at, known.resolved_revision = change.time, change.revision

    def is_open(self, alert: Alert, revision: int) -> None:
        """An incident is open at this revision, and nobody knows whether that has been told: it is."""
        self._add((alert.id, alert.opened_at), _Pending(alert, revision, alert.opened_at, begun=True))

    def _add(self, key: _Key, pending: _Pending) -> None:
        if len(self._pending) < PENDING_MAX:
            self._pending[key] = pending
            return
        event = pending.news().event
        self._more[event] = self._more.get(event, 0) + 1
        self._more_from = self._more_from or pending.revision

    def forget(self) -> None:
        """Another server tells from here on."""
        self._pending.clear()
        self._more.clear()
        self._settle()
        self._more_from, self._seen, self._not_before = 0, 0, 0.0
        self._standing = msgspec.structs.replace(self._standing, attempts=0)

    def delivered_through(self, revision: int) -> int:
        """The revision up to which all is told, when the catalogue stands at `revision`."""
        first = next(iter(self._pending.values()), None)
        waiting = [at for at in (first.revision if first else 0, self._more_from) if at]
        return min(waiting) - 1 if waiting else max(revision, self._seen)

    # When and how.

    def deadline(self, now: float) -> float | None:
        """When there may be something to send; None: not before something else happens."""
        if self._flying or not (self._message or self._pending or self._more):
            return None
        self._pass(now)
        full = len(self._sent) >= self._per_minute
        return max(self._not_before, self._sent[0] + MINUTE_SECONDS if full else 0.0)

    def next(self, now: float, time: float) -> Message | None:
        """What to send now, or None. It is under way until one of the three below is called."""
        at = self.deadline(now)
        if at is None or at > now:
            return None
        if self._message is None:
            waiting = len(self._pending) + sum(self._more.values())
            alone = waiting <= self._per_minute - len(self._sent)
            self._message = self._single(time) if alone else self._digest(time)
        self._flying = True
        return self._message

    def delivered(self, now: float, time: float) -> None:
        """It has arrived."""
        self._over(now)
        self._standing = msgspec.structs.replace(self._standing, attempts=0, told_at=time)

    def rejected(self, now: float, time: float, problem: str) -> None:
        """It never will: whoever was to take it will not have it. The next one may do better."""
        self._over(now)
        self._standing = msgspec.structs.replace(self._standing, attempts=0, failed_at=time, problem=problem)

    def retry_later(self, now: float, time: float, problem: str, *, perhaps: bool) -> float:
        """It has not arrived, as far as is known; the pause in seconds until the next attempt.

        `perhaps`: it may have, so the very same is repeated. Otherwise what has happened meanwhile goes along.
        """
        self._flying = False
        attempts = self._standing.attempts + 1
        longest = min(PAUSE_SECONDS_MIN * 2 ** min(attempts - 1, 20), PAUSE_SECONDS_MAX)
        pause: float = longest * (0.5 + self._random() / 2)
        self._not_before = now + pause
        self._standing = msgspec.structs.replace(self._standing, attempts=attempts, failed_at=time, problem=problem)
        if not perhaps:
            self._settle()
        return pause

    def standing(self) -> ChannelState:
        """How this way does."""
        pending = len(self._pending) + sum(self._more.values())
        return msgspec.structs.replace(self._standing, pending=pending)

    def _single(self, time: float) -> Message:
        key, first = next(iter(self._pending.items()))
        news = first.news()
        self._covers = {key: news.event}
        id = message_id(self._store, news.event, news.alert)
        answers = message_id(self._store, "opened", news.alert) if news.event == "resolved" else ""
        return Message(id, news.event, time, (news,), {news.event: 1}, answers)

    def _digest(self, time: float) -> Message:
        news = [pending.news() for pending in self._pending.values()]
        self._covers = {key: one.event for key, one in zip(self._pending, news, strict=True)}
        self._covers_more = dict(self._more)
        counts = dict(self._more)
        for one in news:
            counts[one.event] = counts.get(one.event, 0) + 1
        ids = (message_id(self._store, one.event, one.alert) for one in news)
        id = hashlib.sha256(" ".join([*ids, str(counts)]).encode()).hexdigest()[:32]
        return Message(id, "digest", time, tuple(news[:DIGEST_NEWS_MAX]), counts)

    def _over(self, now: float) -> None:
        """The message is done with: what it said is not pending any more, but what has happened since is."""
        if self._message is None:
            return
        self._sent.append(now)
        self._not_before = 0.0
        for key, event in self._covers.items():
            pending = self._pending.pop(key, None)
            if pending is not None and event == "opened" and pending.resolved_at:
                # It goes to the end, where its revision belongs.
                pending.begun, pending.revision, pending.time = False, pending.resolved_revision, pending.resolved_at
                self._pending[key] = pending
        if len(self._pending) > 1:
            self._pending = dict(sorted(self._pending.items(), key=lambda one: one[1].revision))
        for kind, count in self._covers_more.items():
            self._more[kind] -= count
        self._more = {kind: count for kind, count in self._more.items() if count}
        if not self._more:
            self._more_from = 0
        self._settle()

    def _settle(self) -> None:
        self._message, self._flying = None, False
        self._covers, self._covers_more = {}, {}

    def _pass(self, now: float) -> None:
        while self._sent and self._sent[0] <= now - MINUTE_SECONDS:
            self._sent.popleft()


def message_id(store: str, event: str, alert: Alert) -> str:
    """The id of the message that tells this of an incident: 32 hexadecimal digits, the same at every server."""
    text = f"{store} {event} {alert.opened_at!r} {alert.id}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
