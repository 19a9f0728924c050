"""P3 and P4: what each session was sent, compared with the log and the push filter."""

from __future__ import annotations

from collections.abc import Iterator

from compass.model.catalogue.catalogue import topic_of
from compass.model.catalogue.interest import dependencies_of
from compass.model.names import category_of
from tests.histories.events import Ended, History, Received, Settled, Stopped, Violation, Watched
from tests.histories.expected_state import Truth


class _Stream:
    """The notices of one session from one resume point on."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.members = frozenset(category_of(service) for service in watched.services)
        self.last = watched.start

    def received(self, event: Received, truth: Truth) -> Iterator[Violation]:
        """Ordered, unique, complete, and nothing that does not concern it."""
        who, revision, last = event.who, event.revision, self.last
        if revision > truth.revision:
            yield Violation("P3", who, event.at, revision, f"a notice of what is not in the log ({truth.revision})")
            return
        if revision <= last and event.topic:
            what = "a second time" if revision == last else f"after {last}: out of order, or a second time"
            yield Violation("P3", who, event.at, revision, f"session {event.session}: notice {what}")
            return
        yield from self.missing(revision - 1 if event.topic else revision, event.at, truth)
        self.last = revision
        if event.topic:
            yield from self._unconcerned(event, truth)

    def missing(self, until: int, at: float, truth: Truth) -> Iterator[Violation]:
        """The notices up to there that had to come and did not."""
        for revision in range(self.last + 1, until + 1):
            if truth.told[revision] & self.members:
                row = truth.changes[revision - 1].row
                what = f"session {self.watched.session}: no notice of {topic_of(row)}, {self.watched.start} -> {until}"
                yield Violation("P3", self.watched.who, at, revision, what)

    def _unconcerned(self, event: Received, truth: Truth) -> Iterator[Violation]:
        change = truth.changes[event.revision - 1]
        if not truth.told[event.revision] & self.members:
            what = f"session {event.session}: a notice of {event.topic}, which none of its services needs"
            yield Violation("P3", event.who, event.at, event.revision, what)
        if (event.topic, event.previous) != (topic_of(change.row), change.previous):
            what = f"the notice is of {event.topic} after {event.previous}, the log has another change: {change}"
            yield Violation("P3", event.who, event.at, event.revision, what)


def check(history: History, truth: Truth) -> Iterator[Violation]:
    """Each session's notices; at the end, that nothing is missing anywhere."""
    open_streams: dict[tuple[str, int], _Stream] = {}
    last_at, settled = 0.0, False
    for event in history:
        last_at = event.at
        match event:
            case Watched():
                open_streams[event.who, event.session] = _Stream(event)
            case Received():
                stream = open_streams.get((event.who, event.session))
                if stream is None:
                    what = f"session {event.session}: a notice before the watch was answered"
                    yield Violation("P3", event.who, event.at, event.revision, what)
                else:
                    yield from stream.received(event, truth)
            case Ended():
                open_streams.pop((event.who, event.session), None)
            case Stopped():
                for key in [key for key in open_streams if key[0] == event.who]:
                    del open_streams[key]
            case Settled():
                settled = True
                yield from _settled(event, truth)
    if settled:
        for stream in open_streams.values():
            yield from stream.missing(truth.revision, last_at, truth)


def _settled(event: Settled, truth: Truth) -> Iterator[Violation]:
    """P4: whatever was lost, at the end every host has the rows that a pull returns."""
    final = truth.at(truth.revision)
    due = "listed"
    if category_of(event.service) not in final.categories:
        due = "unknown-category"
    elif final.service(event.service) is None:
        due = "unknown-service"
    if event.answer != due:
        what = f"{event.service}: the answer is {event.answer}, a pull gives {due}"
        yield Violation("P4", event.who, event.at, truth.revision, what)
    elif due == "listed":
        pulled = {view.category: view for view in dependencies_of(final, event.service).categories}
        held = {view.category: view for view in event.categories}
        for category in sorted(pulled.keys() | held.keys()):
            if pulled.get(category) != held.get(category):
                what = f"{event.service} ends with {held.get(category)}, a pull gives {pulled.get(category)}"
                yield Violation("P4", event.who, event.at, truth.revision, what)
