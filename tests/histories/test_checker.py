"""Each promise broken by hand: the checker names it, where it was broken and at which revision; a whole run passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.catalogue.interest import dependencies_of
from compass.model.rows import Category, Change, Dependency, Listener, Row, Service, State
from tests.histories.checker import check
from tests.histories.events import (
    Answered,
    Applied,
    Calmed,
    Committed,
    Died,
    Disturbed,
    Ended,
    Event,
    History,
    Instance,
    Lived,
    Logged,
    Looked,
    Opened,
    Probed,
    Received,
    Settled,
    Started,
    Stopped,
    Suspected,
    Table,
    Unsettled,
    View,
    Watched,
)

A, PORT = "10.0.0.1", 80
SERVICE, USER = "a.uss", "portal.web"


def listener(state: State, epoch: int = 1, **fields: Any) -> Listener:
    return Listener(SERVICE, A, PORT, state, 0.0, epoch, "h1", **fields)


def log_of(steps: Iterable[tuple[str, Row]]) -> list[Change]:
    """Changes in order, each with the right revision and previous."""
    catalogue, changes = Catalogue(), []
    for operation, row in steps:
        topic = topic_of(row)
        previous = catalogue.topics.get(topic, 0) if topic else 0
        changes.append(Change(catalogue.revision + 1, previous, 0.0, operation, row))
        catalogue = catalogue.apply(changes[-1])
    return changes


BEGINNING: list[tuple[str, Row]] = [
    ("category-add", Category("uss")),
    ("category-add", Category("web")),
    ("service-add", Service(SERVICE)),
    ("service-add", Service(USER)),
    ("dependency-add", Dependency("web", "uss")),
]
LIFE: list[tuple[str, Row]] = [
    ("register", listener("up")),
    ("report", listener("suspect")),
    ("confirm", listener("down")),
    ("recover", listener("up")),
    ("died", listener("offline")),
    ("register", listener("up", epoch=2)),
]
STATES: list[State] = ["up", "suspect", "down", "up", "offline", "up"]


def a_run() -> History:
    """Return one listener's life as the log, a server, its host h1 and a dependant h2 have it. All is well."""
    changes = log_of([*BEGINNING, *LIFE])
    history: History = [
        Started(0.0, "gns1"),
        Started(0.0, "h2"),
        Opened(0.1, "h1", 1, "gns1"),
        Watched(0.1, "h1", 1, (SERVICE,), 5, True),
        Opened(0.1, "h2", 2, "gns1"),
        Watched(0.1, "h2", 2, (USER,), 5, True),
        View(0.1, "h2", SERVICE, 3, (), "snapshot"),
    ]
    for place, change in enumerate(changes[5:]):
        at, row = 1.0 + 10 * place, change.row
        assert isinstance(row, Listener)
        if change.operation == "confirm":
            history.append(Probed(at - 0.2, "gns1", A, PORT, "refused"))
        if change.operation == "died":
            history.append(Died(at - 0.1, "h1", SERVICE, A, PORT, 1))
        history.append(Committed(at, "gns1", change))
        if change.operation == "register":
            history.append(
                Answered(
                    at + 0.01, "h1", "register", "registered", change.revision, True, SERVICE, A, PORT, row.epoch, "up"
                )
            )
            history.append(Lived(at + 0.02, "h1", SERVICE, A, PORT, row.epoch))
        shown = () if row.state == "offline" else (Instance(A, PORT, row.epoch, row.state),)
        history += [
            Received(at + 0.02, "h2", 2, change.revision, SERVICE, change.previous),
            Applied(at + 0.02, "h2", change.revision, "applied"),
            View(at + 0.02, "h2", SERVICE, change.revision, shown, "notice"),
            Looked(
                at + 0.03,
                "h2",
                SERVICE,
                "none" if row.state in ("down", "offline") else "service",
                change.revision,
                change.revision,
                "listed",
                USER,
            ),
        ]
    catalogue = Catalogue()
    for change in changes:
        catalogue = catalogue.apply(change)
        history += [Logged(99.0, "gns1", change), Logged(99.0, "gns2", change)]
    return [
        *history,
        Table(99.0, "gns1", catalogue.revision, tuple(catalogue.all_rows())),
        Settled(99.0, "h2", USER, "listed", dependencies_of(catalogue, USER).categories),
        Lived(99.0, "h1", SERVICE, A, PORT, 2, True),
    ]


def swapped(history: History, found: Callable[[Event], bool], *instead: Event) -> History:
    """The history with the first event of this kind replaced."""
    place = next(place for place, event in enumerate(history) if found(event))
    return [*history[:place], *instead, *history[place + 1 :]]


def altered(history: History, kind: type, number: int = 0, **fields: Any) -> History:
    """The history with other fields in the n-th event of a kind."""
    places = [place for place, event in enumerate(history) if isinstance(event, kind)]
    place = places[number]
    return [*history[:place], msgspec.structs.replace(history[place], **fields), *history[place + 1 :]]


def without(history: History, *kinds: type, number: int | None = None) -> History:
    """The history without events of these kinds, or without the n-th only."""
    if number is None:
        return [event for event in history if not isinstance(event, kinds)]
    places = [place for place, event in enumerate(history) if isinstance(event, kinds)]
    return [event for place, event in enumerate(history) if place != places[number]]


def relogged(*steps: tuple[str, Row], change: Callable[[list[Change]], list[Change]] = lambda log: log) -> History:
    """Nothing but a log."""
    return [Logged(0.0, "gns1", entry) for entry in change(log_of([*BEGINNING, *steps]))]


def promises(history: History) -> set[str]:
    return {violation.promise for violation in check(history)}


def test_a_run_in_which_all_is_well_breaks_nothing() -> None:
    assert check(a_run()) == []


def test_what_a_real_run_cannot_see_is_not_missed() -> None:
    """Without probes, commits or notices the rest is judged all the same."""
    assert check(without(a_run(), Committed, Probed, Received, Applied, Opened, Watched)) == []


LATE = Answered(98.0, "h1", "register", "registered", 12, True, SERVICE, A, PORT, 2, "up")

BROKEN: dict[str, tuple[str, str, int, Callable[[], History]]] = {
    "an answer that is not in the log": ("P1", "h1", 12, lambda: [LATE, *without(a_run(), Committed)]),
    "an answer that came before its commit": ("P1", "h1", 6, lambda: _moved_up(a_run())),
    "an answer of another epoch": ("P1", "h1", 6, lambda: altered(a_run(), Answered, epoch=7)),
    "an answer of another state": ("P1", "h1", 6, lambda: altered(a_run(), Answered, state="down")),
    "two answers for one change": (
        "P1",
        "h9",
        11,
        lambda: [*a_run(), msgspec.structs.replace(LATE, who="h9", revision=11)],
    ),
    "an answer at another change's revision": ("P1", "h1", 7, lambda: altered(a_run(), Answered, revision=7, state="")),
    "a change committed twice": ("P1", "log", 7, lambda: relogged(LIFE[0], LIFE[0])),
    "a living instance that nobody took away": ("P1", "h1", 10, lambda: _lost()),
    "a log with a gap": ("P2", "gns1", 7, lambda: relogged(*LIFE, change=lambda log: log[:5] + log[6:])),
    "two servers that read two logs": ("P2", "gns2", 6, lambda: _other_log()),
    "tables that the log does not give": ("P2", "gns1", 11, lambda: altered(a_run(), Table, rows=())),
    "a server ahead of the log": ("P2", "gns1", 12, lambda: altered(a_run(), Table, revision=12)),
    "a notice that is missing": ("P3", "h2", 8, lambda: without(a_run(), Received, number=2)),
    "the last notice missing": ("P3", "h2", 11, lambda: without(a_run(), Received, number=5)),
    "a notice that comes twice": ("P3", "h2", 6, lambda: altered(a_run(), Received, 1, revision=6)),
    "notices out of order": ("P3", "h2", 7, lambda: _exchanged(a_run())),
    "a notice that does not concern the host": (
        "P3",
        "h1",
        6,
        lambda: swapped(
            a_run(),
            lambda event: isinstance(event, Applied),
            Received(1.1, "h1", 1, 6, SERVICE, 3),
        ),
    ),
    "a notice of what is not in the log": ("P3", "h2", 12, lambda: altered(a_run(), Received, 5, revision=12)),
    "a notice before the watch": ("P3", "h2", 6, lambda: without(a_run(), Watched, number=1)),
    "a notice with another previous": ("P3", "h2", 7, lambda: altered(a_run(), Received, 1, previous=5)),
    "a view that the log does not give": (
        "P3",
        "h2",
        6,
        lambda: altered(a_run(), View, 1, listeners=(Instance(A, PORT, 1, "slow"),)),
    ),
    "a view that goes back": ("P3", "h2", 3, lambda: [*a_run(), View(99.0, "h2", SERVICE, 3, ())]),
    "a wrong evidence of gaps": ("P4", "log", 7, lambda: relogged(*LIFE, change=_misnumbered)),
    "an end that is no pull": ("P4", "h2", 11, lambda: altered(a_run(), Settled, categories=())),
    "an end without an answer": ("P4", "h2", 11, lambda: altered(a_run(), Settled, answer="unknown-service")),
    "a list that is empty by accident": ("P5", "h2", 6, lambda: altered(a_run(), View, 1, listeners=())),
    "nothing to use, told in spite of the log": ("P5", "h2", 6, lambda: altered(a_run(), Looked, answer="none")),
    "a service told to be unknown that is there": (
        "P5",
        "h2",
        6,
        lambda: altered(a_run(), Looked, listed="unknown-service"),
    ),
    "a service listed that is not there": ("P5", "h2", 6, lambda: altered(a_run(), Looked, asker="no.web")),
    "an instance that is back in a view": (
        "P6",
        "h2",
        10,
        lambda: altered(a_run(), View, 5, listeners=(Instance(A, PORT, 1, "up"),)),
    ),
    "an instance that comes back in the log": ("P6", "log", 8, lambda: relogged(LIFE[0], LIFE[4], LIFE[3])),
    "an older epoch over a newer one": ("P6", "log", 7, lambda: relogged(LIFE[5], LIFE[0])),
    "not ready after it was": ("P7", "h2", 6, lambda: altered(a_run(), Looked, listed="not-ready")),
    "down without a failed probe": ("P8", "log", 8, lambda: altered(a_run(), Probed, problem="")),
    "a suspicion of what the log never had": ("P8", "h2", 0, lambda: _suspected(epoch=7)),
    "a suspicion that is not settled in the end": ("P8", "gns1", 11, lambda: [*a_run(), Unsettled(99.0, "gns1", 1)]),
    "a suspicion before the watch": ("P3", "h2", 0, lambda: _suspected(session=9)),
    "a suspicion that does not concern the host": ("P3", "h1", 5, lambda: _suspected(who="h1", session=1)),
    "a suspicion for a host that takes none": ("P13", "h2", 0, lambda: _suspected(takes=False)),
    "a suspicion that a host writes into what it holds": (
        "P3",
        "h2",
        6,
        lambda: altered(_suspected(), View, 1, listeners=(Instance(A, PORT, 1, "suspect"),)),
    ),
    "a dead entry that stays": ("P9", "h2", 9, lambda: _stays(a_run())),
    "somebody told dead who lives": ("P9", "h1", 10, lambda: without(a_run(), Died)),
}


def _moved_up(history: History) -> History:
    answer = next(event for event in history if isinstance(event, Answered))
    rest = without(history, Answered, number=0)
    place = next(place for place, event in enumerate(rest) if isinstance(event, Committed))
    return [*rest[:place], answer, *rest[place:]]


def _lost() -> History:
    return [*relogged(*LIFE[:5]), Lived(99.0, "h1", SERVICE, A, PORT, 1, True)]


@pytest.mark.parametrize(("host", "is_removed"), [("h1", True), ("h2", False)])
def test_an_instance_that_was_registered_again_and_removed_is_not_missed(host: str, is_removed: bool) -> None:
    """The removal of another host's instance at the same address and port is not that of this one."""
    again = msgspec.structs.replace(listener("up", epoch=3), host=host)
    gone, newer = msgspec.structs.replace(again, state="offline"), listener("up", epoch=4, cause="")
    log = [LIFE[0], ("register", again), ("remove", gone), ("register", newer), ("died", listener("offline", epoch=4))]
    history = [*relogged(*log), Lived(99.0, "h1", SERVICE, A, PORT, 1, True), Died(0.5, "h2", SERVICE, A, PORT, 4)]
    missed = [one for one in check(history) if "lives and is not registered" in one.what]
    assert bool(missed) is not is_removed


def _other_log() -> History:
    other = log_of([*BEGINNING, ("register", listener("up", weight=5))])
    return [*relogged(*LIFE), *(Logged(0.0, "gns2", change) for change in other)]


def _misnumbered(log: list[Change]) -> list[Change]:
    return [*log[:6], msgspec.structs.replace(log[6], previous=3), *log[7:]]


def _exchanged(history: History) -> History:
    places = [place for place, event in enumerate(history) if isinstance(event, Received)]
    one, other = places[1], places[2]
    history[one], history[other] = history[other], history[one]
    return history


def _stays(history: History) -> History:
    """The host of the dead process reports it only after two seconds."""
    late = [2.0 if isinstance(event, View) and event.revision == 10 else 0.0 for event in history]
    return [msgspec.structs.replace(event, at=event.at + more) for event, more in zip(history, late, strict=True)]


def _suspected(who: str = "h2", session: int = 2, epoch: int = 1, *, takes: bool = True) -> History:
    """A server suspects the first instance while it is up in the log."""
    history = [
        msgspec.structs.replace(event, suspicions=takes) if isinstance(event, Watched) else event for event in a_run()
    ]
    told = Suspected(5.0, who, session, SERVICE, A, PORT, epoch, 30.0)
    return sorted([*history, told], key=lambda event: event.at)


def test_a_suspicion_is_no_entry_of_the_log() -> None:
    """A suspicion is sent without a revision, and withdrawn without one: nothing of it is missed in the log."""
    withdrawn = Suspected(6.0, "h2", 2, SERVICE, A, PORT, 1, 0.0)
    history: History = [*_suspected(), withdrawn, Unsettled(99.0, "gns1", 0)]
    assert check(sorted(history, key=lambda event: event.at)) == []


@pytest.mark.parametrize("what", BROKEN)
def test_the_checker_names_the_promise_the_place_and_the_revision(what: str) -> None:
    """The checker finds each way to break a promise."""
    promise, who, revision, history = BROKEN[what]
    found = check(history())
    assert (promise, who, revision) in {(one.promise, one.who, one.revision) for one in found}, list(map(str, found))


def test_after_a_resume_point_what_came_before_may_come_again() -> None:
    """A session's notices are unique from one answered watch to the next; a new session begins again."""
    history = a_run()
    again: History = [
        Ended(97.0, "h2", 2),
        Opened(97.0, "h2", 3),
        Watched(97.0, "h2", 3, (USER,), 10),
        Received(97.1, "h2", 3, 11, SERVICE, 10),
    ]
    assert check([*history[:-3], *again, *history[-3:]]) == []


def test_a_killed_process_is_waited_for_where_nobody_can_know_of_it() -> None:
    """P9 binds while the host, the dependant and what is between them are well."""
    for who in ("h1", "h2", "gns1"):
        wrong = [Disturbed(30.0, who, "silent"), *_stays(a_run()), Calmed(50.0, who)]
        assert "P9" not in promises(sorted(wrong, key=lambda event: event.at)), who
    gone = swapped(_stays(a_run()), lambda event: isinstance(event, Died), Died(40.9, "h1", SERVICE, A, PORT, 1))
    stopped: History = [Stopped(40.5, "h1", "kill"), *gone]
    assert "P9" not in promises(sorted(stopped, key=lambda event: event.at))


def test_evidence_of_the_host_itself_is_no_accident() -> None:
    """P5: a host may stop using what its own programs found dead."""
    assert check(altered(a_run(), View, 1, listeners=(), because="reported")) == []
