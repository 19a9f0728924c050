"""Outbox of one channel to administrators (a mailbox, a webhook, ...): what is sent, and when. Pure.

The update log is the record: that an incident began (`alert`) or is over (`alert-over`) is a change in it. So what is
still to be sent follows from one number, the revision through which everything has been delivered; a server that
records this number can stop at any time, and another continues from it. A message may then be sent twice, but is never
lost, and a repetition has the same id (`message_id`).

One message at a time. An incident has one message when it begins and one when it is over; an incident that was over
before its beginning was sent has one for both (`passed`). When more is waiting than may be sent within the minute, all
of it becomes one message (`digest`).
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Literal

import msgspec

from compass.model.backoff import Backoff
from compass.model.interfaces import Randomness
from compass.model.rows import Alert, Change

PER_MINUTE = 10
"""Messages through one channel within a minute, unless configured: as many as a person who was woken up can read."""
PER_MINUTE_MAX = 600
"""Ten a second: more is a stream, and `GET /v1/events` is made for that."""
MINUTE_SECONDS = 60.0
PENDING_MAX = 10_000
"""Incidents that are kept one by one while they cannot be sent: some 5 MB. Further ones are only counted."""
DIGEST_NEWS_MAX = 20
"""Incidents that a digest names: a screen. It counts all of them, and `opengnsadmin alert list` names those open."""
PAUSE_SECONDS_MIN = 2.0
"""Before the first repetition: a receiver that was just restarted is available again by then."""
PAUSE_SECONDS_MAX = 300.0
"""Longest pause between two attempts, which are repeated without an end: greylisting lasts for some minutes, and an
operator who repairs a mail server wants to see within a few that it works."""

Event = Literal["opened", "resolved", "passed"]
"""passed: the incident was over before its beginning was sent."""


class IncidentUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """An incident in a message."""

    event: Event
    alert: Alert
    revision: int
    """Revision of the change; of the two of a `passed` incident, the first."""
    time: float
    """UNIX time of that change."""
    resolved_at: float = 0.0
    """UNIX time at which the incident was over; 0: it is open."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message to administrators."""

    id: str
    """Id, the same for each repetition, by any server."""
    event: Literal["opened", "resolved", "passed", "digest", "test"]
    time: float
    """UNIX time at which the message was made."""
    news: tuple[IncidentUpdate, ...] = ()
    """Incidents; of a digest only the first DIGEST_NEWS_MAX."""
    counts: dict[Event, int] = {}
    """Numbers of incidents by event."""
    answers: str = ""
    """Id of the message about the beginning of the incident that is over; empty: none."""


class ChannelState(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of a channel."""

    pending: int = 0
    """Incidents that are still to be sent."""
    attempts: int = 0
    """Failed attempts since the last success."""
    told_at: float = 0.0
    """UNIX time of the last success; 0: none since the server started."""
    failed_at: float = 0.0
    problem: str = ""
    """Reason of the last failure; kept with its time when later attempts succeed."""


class _Pending(msgspec.Struct):
    """An incident that is still to be sent."""

    alert: Alert
    revision: int
    time: float
    begun: bool
    """True if its beginning is to be sent."""
    resolved_at: float = 0.0
    resolved_revision: int = 0

    def update(self) -> IncidentUpdate:
        event: Event = ("passed" if self.resolved_at else "opened") if self.begun else "resolved"
        return IncidentUpdate(event, self.alert, self.revision, self.time, self.resolved_at)


_Key = tuple[str, float]


class Outbox:
    """Incidents to be sent through one channel. `now` is seconds on a clock that never jumps, `time` is UNIX time."""

    def __init__(self, store: str, random: Randomness, per_minute: int = PER_MINUTE) -> None:
        """`store`: the store's id, part of messages' ids. `random`: 0 to 1, so that pauses do not all end together."""
        self._store = store
        self._random = random
        self._per_minute = per_minute
        self._pending: dict[_Key, _Pending] = {}
        """Incidents in the order of their revisions."""
        self._more: dict[Event, int] = {}
        """Numbers of incidents beyond PENDING_MAX, which are not kept."""
        self._more_from = 0
        """Revision of the first of those; 0: none."""
        self._seen = 0
        """Last revision that was put in."""
        self._sent: deque[float] = deque()
        """Times of the messages within the last minute."""
        self._message: Message | None = None
        """The message under way, or to be repeated unchanged."""
        self._covers: dict[_Key, Event] = {}
        self._covers_more: dict[Event, int] = {}
        """Incidents that this message is about, and what it says of them."""
        self._flying = False
        self._not_before = 0.0
        self._backoff = Backoff(first=PAUSE_SECONDS_MIN, longest=PAUSE_SECONDS_MAX)
        self._state = ChannelState()

    # What is to be sent.

    def committed(self, change: Change) -> None:
        """Put in the beginning or end of an incident. Changes come in order; one that was put in before is ignored."""
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
        """Put in an incident that is open at this revision, when it is not known whether its beginning was sent."""
        self._add((alert.id, alert.opened_at), _Pending(alert, revision, alert.opened_at, begun=True))

    def _add(self, key: _Key, pending: _Pending) -> None:
        if len(self._pending) < PENDING_MAX:
            self._pending[key] = pending
            return
        event = pending.update().event
        self._more[event] = self._more.get(event, 0) + 1
        self._more_from = self._more_from or pending.revision

    def forget(self) -> None:
        """Drop everything: another server sends from here on."""
        self._pending.clear()
        self._more.clear()
        self._clear_message()
        self._more_from, self._seen, self._not_before = 0, 0, 0.0
        self._state = msgspec.structs.replace(self._state, attempts=0)
        self._backoff.reset()

    def delivered_through(self, revision: int) -> int:
        """Return the revision through which everything is delivered; `revision` is the catalogue's."""
        first = next(iter(self._pending.values()), None)
        waiting = [at for at in (first.revision if first else 0, self._more_from) if at]
        return min(waiting) - 1 if waiting else max(revision, self._seen)

    # When and how.

    def deadline(self, now: float) -> float | None:
        """Return when there may be something to send; None: not before another call changes that."""
        if self._flying or not (self._message or self._pending or self._more):
            return None
        self._expire_sent(now)
        full = len(self._sent) >= self._per_minute
        return max(self._not_before, self._sent[0] + MINUTE_SECONDS if full else 0.0)

    def next(self, now: float, time: float) -> Message | None:
        """Return what to send now, or None. A message is under way until one of the next three methods is called."""
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
        """Record that the message arrived."""
        self._end(now)
        self._state = msgspec.structs.replace(self._state, attempts=0, told_at=time)

    def rejected(self, now: float, time: float, problem: str) -> None:
        """Record a permanent rejection: drop the message and continue with the next."""
        self._end(now)
        self._state = msgspec.structs.replace(self._state, attempts=0, failed_at=time, problem=problem)

    def retry_later(self, now: float, time: float, problem: str, *, perhaps: bool) -> float:
        """Record a failed attempt. Returns the seconds until the next one.

        `perhaps`: the message may have arrived, so it is repeated unchanged. Otherwise the next attempt includes what
        has happened meanwhile.
        """
        self._flying = False
        attempts = self._state.attempts + 1
        pause = self._backoff.next() * (0.5 + self._random.random() / 2)
        self._not_before = now + pause
        self._state = msgspec.structs.replace(self._state, attempts=attempts, failed_at=time, problem=problem)
        if not perhaps:
            self._clear_message()
        return pause

    def state(self) -> ChannelState:
        """Return the state of the channel."""
        pending = len(self._pending) + sum(self._more.values())
        return msgspec.structs.replace(self._state, pending=pending)

    def _single(self, time: float) -> Message:
        key, first = next(iter(self._pending.items()))
        news = first.update()
        self._covers = {key: news.event}
        id = message_id(self._store, news.event, news.alert)
        answers = message_id(self._store, "opened", news.alert) if news.event == "resolved" else ""
        return Message(id, news.event, time, (news,), {news.event: 1}, answers)

    def _digest(self, time: float) -> Message:
        news = [pending.update() for pending in self._pending.values()]
        self._covers = {key: one.event for key, one in zip(self._pending, news, strict=True)}
        self._covers_more = dict(self._more)
        counts = dict(self._more)
        for one in news:
            counts[one.event] = counts.get(one.event, 0) + 1
        ids = (message_id(self._store, one.event, one.alert) for one in news)
        id = hashlib.sha256(" ".join([*ids, str(counts)]).encode()).hexdigest()[:32]
        return Message(id, "digest", time, tuple(news[:DIGEST_NEWS_MAX]), counts)

    def _end(self, now: float) -> None:
        """End the message: what it was about is no longer pending, but what has happened since is."""
        if self._message is None:
            return
        self._sent.append(now)
        self._not_before = 0.0
        self._backoff.reset()
        for key, event in self._covers.items():
            pending = self._pending.pop(key, None)
            if pending is not None and event == "opened" and pending.resolved_at:
                # The incident goes to the end, where its revision belongs.
                pending.begun, pending.revision, pending.time = False, pending.resolved_revision, pending.resolved_at
                self._pending[key] = pending
        if len(self._pending) > 1:
            self._pending = dict(sorted(self._pending.items(), key=lambda one: one[1].revision))
        for kind, count in self._covers_more.items():
            self._more[kind] -= count
        self._more = {kind: count for kind, count in self._more.items() if count}
        if not self._more:
            self._more_from = 0
        self._clear_message()

    def _clear_message(self) -> None:
        self._message, self._flying = None, False
        self._covers, self._covers_more = {}, {}

    def _expire_sent(self, now: float) -> None:
        while self._sent and self._sent[0] <= now - MINUTE_SECONDS:
            self._sent.popleft()


def message_id(store: str, event: str, alert: Alert) -> str:
    """Return the id of the message about this event: 32 hexadecimal digits, the same at every server."""
    text = f"{store} {event} {alert.opened_at!r} {alert.id}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
