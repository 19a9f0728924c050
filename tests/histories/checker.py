"""Which promise a history breaks, where and by what. Pure: events in, violations out (opengnsp.md, "Promises").

What the log says is the measure of everything else, so the log itself is judged first; when that is broken, what
depends on it is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.rows import Alert, Change, Listener, key_of
from tests.histories import notice_order, suspicions, views
from tests.histories.events import Answered, Committed, Died, History, Lived, Logged, Orphaned, Probed, Table, Violation
from tests.histories.expected_state import Truth

GONE_WITHIN_SECONDS = 1.0
"""P9: "gone within a second"."""


def check(history: History, gone_within_seconds: float = GONE_WITHIN_SECONDS) -> list[Violation]:
    """All violations, those of the log first, the others in the order of time."""
    logs: dict[str, list[Change]] = {}
    for event in history:
        if isinstance(event, Logged):
            logs.setdefault(event.who, []).append(event.change)
    broken = list(_broken_logs(logs))
    if broken:
        return broken
    truth = Truth(_longest(logs))
    found = [
        *_tables(history, truth),
        *_chains(truth),
        *_answers(history, truth),
        *_removals(truth),
        *_deaths(history, truth),
        *_condemned(history, truth),
        *_orphans(history, truth),
        *notice_order.check(history, truth),
        *views.check(history, truth, gone_within_seconds),
        *suspicions.check(history, truth),
    ]
    return sorted(found, key=lambda violation: (violation.at, violation.revision))


def _longest(logs: dict[str, list[Change]]) -> list[Change]:
    return max(logs.values(), key=lambda changes: len(changes), default=[])


def _broken_logs(logs: dict[str, list[Change]]) -> Iterator[Violation]:
    """P2: no gaps, and the same from every server."""
    longest = _longest(logs)
    for who, changes in logs.items():
        for place, change in enumerate(changes):
            if change.revision != place + 1:
                yield Violation("P2", who, 0.0, change.revision, f"the log has this where {place + 1} belongs")
                break
            if change != longest[place]:
                yield Violation("P2", who, 0.0, change.revision, f"it reads {change}, another server {longest[place]}")
                break


def _tables(history: History, truth: Truth) -> Iterator[Violation]:
    """P2: replaying the log gives the tables, and what each server holds."""
    for event in history:
        if not isinstance(event, Table):
            continue
        if event.revision > truth.revision:
            yield Violation("P2", event.who, event.at, event.revision, f"the log ends at {truth.revision}")
            continue
        replayed = {(type(row), key_of(row)): row for row in truth.at(event.revision).all_rows()}
        held = {(type(row), key_of(row)): row for row in event.rows}
        for kind, key in sorted(replayed.keys() | held.keys(), key=str):
            if replayed.get((kind, key)) != held.get((kind, key)):
                what = f"it holds {held.get((kind, key))}, the log gives {replayed.get((kind, key))}"
                yield Violation("P2", event.who, event.at, event.revision, what)


def _chains(truth: Truth) -> Iterator[Violation]:
    """P4: each change names the one before it on its topic; P1: no change is committed twice."""
    for change, before in zip(truth.changes, truth.catalogues, strict=False):
        topic = topic_of(change.row)
        due = before.topics.get(topic, 0) if topic else 0
        if change.previous != due:
            what = f"{topic}: previous is {change.previous}, the last change was {due}"
            yield Violation("P4", "log", change.time, change.revision, what)
        if isinstance(change.row, Listener) and not change.removed and _same(_row_before(before, change), change.row):
            yield Violation("P1", "log", change.time, change.revision, f"the same change a second time: {change.row}")


def _row_before(before: Catalogue, change: Change) -> Listener | None:
    assert isinstance(change.row, Listener)
    return before.listener(change.row.service, change.row.address, change.row.port)


def _same(one: Listener | None, other: Listener) -> bool:
    """Return whether two rows differ in nothing but when and why."""
    return one is not None and msgspec.structs.replace(one, changed_at=other.changed_at, cause=other.cause) == other


STATES = {"registered": None, "deregistered": "offline", "reported": None, "drained": None}
"""Answers that name a listener and the state that it has at the answer's revision."""


def _answers(history: History, truth: Truth) -> Iterator[Violation]:
    """P1: what was answered is in the log at its revision, was there before the answer, and stands there once."""
    committed = {event.change.revision for event in history if isinstance(event, Committed)}
    recorded, done, given = bool(committed), 0, dict[int, Answered]()
    for event in history:
        if isinstance(event, Committed):
            done = max(done, event.change.revision)
        if not isinstance(event, Answered) or not event.revision:
            continue

        def broken(what: str, event: Answered = event) -> Violation:
            named = f"{event.request} {event.service} {event.address}:{event.port} -> {event.outcome}: "
            return Violation("P1", event.who, event.at, event.revision, named + what)

        if recorded and done < event.revision:
            yield broken(f"answered before it was committed; the store stood at {done}")
            continue
        change = truth.change(event.revision)
        if change is None:
            yield broken(f"not in the log, which ends at {truth.revision}")
            continue
        if event.outcome not in STATES:
            continue
        row = truth.at(event.revision).listener(event.service, event.address, event.port)
        if row is None or (event.state and row.state != event.state) or (event.epoch and row.epoch != event.epoch):
            yield broken(f"the log has {row}")
        elif event.changed and event.outcome in ("registered", "deregistered"):
            own = _own_change(event, truth)
            if not own:
                yield broken(f"at this revision the log has {change.operation} {key_of(change.row)}")
            elif own in given:
                yield broken(f"answered as its own change to {given[own].who} already")
            given[own] = event


def _own_change(event: Answered, truth: Truth) -> int:
    """The revision of the listener's own change; what follows it in the same decision is its alerts."""
    revision = event.revision
    while revision > 0 and isinstance(truth.changes[revision - 1].row, Alert):
        revision -= 1
    change = truth.change(revision)
    return revision if change and key_of(change.row) == (event.service, event.address, event.port) else 0


def _removals(truth: Truth) -> Iterator[Violation]:
    """P6: what is offline comes back by a new registration with a larger epoch only."""
    for change, before in zip(truth.changes, truth.catalogues, strict=False):
        row = change.row
        if not isinstance(row, Listener) or change.removed:
            continue
        old = _row_before(before, change)
        if old is None:
            continue
        if row.epoch < old.epoch:
            what = f"{change.operation} of epoch {row.epoch} over epoch {old.epoch}"
            yield Violation("P6", "log", change.time, change.revision, what)
        elif old.state == "offline" != row.state and (change.operation != "register" or row.epoch == old.epoch):
            what = f"{change.operation} brings back epoch {old.epoch} of {row.service} at {row.address}:{row.port}"
            yield Violation("P6", "log", change.time, change.revision, what)


def _deaths(history: History, truth: Truth) -> Iterator[Violation]:
    """P9, the other way round: no living instance is said to be dead, and each that was not removed is registered."""
    committed_at = {event.change.revision: place for place, event in enumerate(history) if isinstance(event, Committed)}
    ended: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
    for place, event in enumerate(history):
        if isinstance(event, Died):
            ended.setdefault((event.service, event.address, event.port), []).append((place, event.epoch))
    serving = any(isinstance(event, Lived) for event in history)
    for change in truth.changes:
        row = change.row
        if serving and change.operation == "died" and isinstance(row, Listener):
            until = committed_at.get(change.revision, len(history))
            mine = ended.get((row.service, row.address, row.port), [])
            if not any(place < until and epoch in (0, row.epoch) for place, epoch in mine):
                yield Violation("P9", row.host, change.time, change.revision, f"said to be dead, and lives: {row}")
    for event in history:
        if isinstance(event, Lived) and event.last:
            found = truth.at(truth.revision).listener(event.service, event.address, event.port)
            if (
                found is None
                or found.epoch < event.epoch
                or (found.state == "offline" and not _was_removed(truth, found) and not _removed(truth, event))
            ):
                what = f"epoch {event.epoch} lives and is not registered; the log has {found}"
                yield Violation("P1", event.who, event.at, truth.revision, what)


def _orphans(history: History, truth: Truth) -> Iterator[Violation]:
    """P9: whatever becomes of hosts and their disks, no row stays in use without a process."""
    for event in history:
        if isinstance(event, Orphaned):
            what = f"epoch {event.epoch} of {event.service} at {event.address}:{event.port} is in use without a process"
            yield Violation("P9", event.who, event.at, truth.revision, what)


def _removed(truth: Truth, event: Lived) -> bool:
    """Return whether an administrator removed the instance, before a newer one at its address and port ended.

    Its host may have registered it again with a later epoch meanwhile, when a newer instance of another host had ended.
    """
    place = event.service, event.address, event.port
    rows = [change.row for change in truth.changes if change.operation == "remove"]
    removed = [row for row in rows if isinstance(row, Listener) and key_of(row) == place]
    return any(row.epoch == event.epoch or (row.host == event.who and row.epoch > event.epoch) for row in removed)


def _was_removed(truth: Truth, row: Listener) -> bool:
    last = truth.change(truth.at(truth.revision).topics.get(row.service, 0))
    mine = [change for change in truth.changes if change.row == row]
    return last is not None and bool(mine) and mine[-1].operation == "remove"


def _condemned(history: History, truth: Truth) -> Iterator[Violation]:
    """P8, first form: only a listener that failed a probe since it was suspected is `down`."""
    if not any(isinstance(event, Probed) for event in history):
        return
    committed = {event.change.revision: place for place, event in enumerate(history) if isinstance(event, Committed)}
    failed: dict[tuple[str, int], list[int]] = {}
    for place, event in enumerate(history):
        if isinstance(event, Probed) and event.problem:
            failed.setdefault((event.address, event.port), []).append(place)
    suspected: dict[tuple[str, str, int], int] = {}
    for change in truth.changes:
        row = change.row
        if not isinstance(row, Listener):
            continue
        key = (row.service, row.address, row.port)
        if row.state == "suspect":
            suspected[key] = change.revision
        if row.state == "down" and change.operation == "confirm":
            since = committed.get(suspected.get(key, 0), 0)
            until = committed.get(change.revision, len(history))
            if not any(since < place < until for place in failed.get((row.address, row.port), [])):
                what = f"{row.service} at {row.address}:{row.port} is down and failed no probe since it was suspected"
                yield Violation("P8", "log", change.time, change.revision, what)
