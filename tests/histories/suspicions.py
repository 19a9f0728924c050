"""Suspicions: what a server sends outside its log, while it cannot write to the log (opengnsp.md, "Store outages").

A suspicion is no entry of the log, so it is not looked for there. What a host holds is checked by views.py: if a
suspicion had changed it, that is seen as a view of what the log does not say.
"""

from __future__ import annotations

from collections.abc import Iterator

from compass.model.catalogue.interest import audience
from compass.model.names import category_of
from compass.model.rows import Listener
from tests.histories.events import Ended, History, Received, Stopped, Suspected, Unsettled, Violation, Watched
from tests.histories.expected_state import Truth


def check(history: History, truth: Truth) -> Iterator[Violation]:
    """Check the hosts that were sent suspicions, and that all suspicions were settled in the end."""
    registered = _registered(truth)
    watched: dict[tuple[str, int], Watched] = {}
    stands: dict[tuple[str, int], int] = {}
    for event in history:
        match event:
            case Watched():
                watched[event.who, event.session] = event
                stands[event.who, event.session] = event.start
            case Received():
                stands[event.who, event.session] = event.revision
            case Ended():
                watched.pop((event.who, event.session), None)
            case Stopped():
                watched = {key: one for key, one in watched.items() if key[0] != event.who}
            case Suspected():
                one = watched.get((event.who, event.session))
                yield from _told(event, one, stands.get((event.who, event.session), 0), truth, registered)
            case Unsettled() if event.count:
                what = f"{event.count} suspicions were neither written down nor withdrawn"
                yield Violation("P8", event.who, event.at, truth.revision, what)


def _registered(truth: Truth) -> dict[tuple[str, str, int, int], Listener]:
    """Every instance that the log has ever had."""
    rows = (change.row for change in truth.changes)
    return {(row.service, row.address, row.port, row.epoch): row for row in rows if isinstance(row, Listener)}


def _told(
    event: Suspected,
    watched: Watched | None,
    stands: int,
    truth: Truth,
    registered: dict[tuple[str, str, int, int], Listener],
) -> Iterator[Violation]:
    named = f"a suspicion of {event.service} at {event.address}:{event.port}, epoch {event.epoch}"
    row = registered.get((event.service, event.address, event.port, event.epoch))
    if row is None:
        yield Violation("P8", event.who, event.at, 0, f"{named}, which the log never had")
    elif watched is None:
        yield Violation("P3", event.who, event.at, 0, f"{named} before the watch was answered")
    elif not watched.suspicions:
        yield Violation("P13", event.who, event.at, 0, f"{named}, told to a host that takes none")
    elif stands <= truth.revision:
        members = {category_of(service) for service in watched.services}
        if not audience(truth.at(stands), row) & members:
            yield Violation("P3", event.who, event.at, stands, f"{named}, which none of its services needs")
