"""P5, P6, P7 and P9: the answers to programs on hosts, compared with the expected state at their revision."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from compass.model.names import category_of
from tests.histories.events import (
    Calmed,
    Died,
    Disturbed,
    Ended,
    History,
    Looked,
    Received,
    Started,
    Stopped,
    View,
    Violation,
    Watched,
)
from tests.histories.expected_state import Truth

CALM_AFTER_SECONDS = 5.0
"""After a disturbance bounds in time hold again only when what it delayed has been worked off."""


def check(history: History, truth: Truth, gone_within_seconds: float) -> Iterator[Violation]:
    """Every view and every lookup, then the dead."""
    loaded: dict[str, set[str]] = {}
    """Categories by host of which its daemon has had a whole view since its start."""
    last: dict[tuple[str, str], View] = {}
    for event in history:
        match event:
            case Started():
                loaded.pop(event.who, None)
                for key in [key for key in last if key[0] == event.who]:
                    del last[key]
            case Watched():
                loaded.setdefault(event.who, set()).update(category_of(service) for service in event.services)
            case View():
                yield from _view(event, last.get((event.who, event.service)), truth)
                last[event.who, event.service] = event
            case Looked():
                yield from _looked(event, loaded.get(event.who, set()), truth)
    yield from _dead(history, gone_within_seconds)


def _view(view: View, before: View | None, truth: Truth) -> Iterator[Violation]:
    if not view.held:
        return
    if view.revision > truth.revision:
        yield Violation("P3", view.who, view.at, view.revision, f"{view.service}: a view of what is not in the log")
        return
    due, seen = truth.instances(view.service, view.revision), frozenset(view.listeners)
    if before is not None and before.held and view.revision < before.revision:
        what = f"{view.service} goes back from {before.revision} ({view.because})"
        yield Violation("P3", view.who, view.at, view.revision, what)
    if view.because == "reported" or due == seen:
        return
    named = f"{view.service} ({view.because}) is {_shown(seen)}, the log says {_shown(due)}"
    if not any(one.usable for one in seen) and any(one.usable for one in due):
        yield Violation("P5", view.who, view.at, view.revision, f"empty by accident: {named}")
    catalogue = truth.at(view.revision)
    for one in seen - due:
        row = catalogue.listener(view.service, one.address, one.port)
        if row is not None and row.state == "offline" and one.epoch <= row.epoch:
            what = f"epoch {one.epoch} is back, which is {row.cause}: {named}"
            yield Violation("P6", view.who, view.at, view.revision, what)
            return
    yield Violation("P3", view.who, view.at, view.revision, named)


def _shown(instances: frozenset[object]) -> str:
    return ", ".join(map(str, sorted(instances, key=str))) or "empty"


def _looked(look: Looked, loaded: set[str], truth: Truth) -> Iterator[Violation]:
    """P5: three answers, and each only when it is so. P7: what was held once is answered from."""
    if max(look.revision, look.held) > truth.revision:
        yield Violation("P5", look.who, look.at, look.revision, "an answer of what is not in the log")
        return
    if look.listed == "not-ready" and category_of(look.asker) in loaded:
        yield Violation("P7", look.who, look.at, look.revision, f"{look.asker}: not ready, and was before")
    exists = truth.at(look.held).service(look.asker) is not None
    if (look.listed in ("unknown-service", "unknown-category") and exists) or (look.listed == "listed" and not exists):
        what = f"{look.asker} is told to be {look.listed}, at {look.held} it is {'there' if exists else 'not there'}"
        yield Violation("P5", look.who, look.at, look.held, what)
    if look.answer == "none" and look.revision:
        left = [one for one in truth.instances(look.service, look.revision) if one.state != "down"]
        if left:
            what = f"{look.service}: nothing to use, and the log has {_shown(frozenset(left))}"
            yield Violation("P5", look.who, look.at, look.revision, what)


class _Spans:
    """Periods of a condition by host: pairs of begin and end."""

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[float, float]]] = {}
        self._open: dict[str, float] = {}

    def begin(self, who: str, at: float) -> None:
        self._open.setdefault(who, at)

    def end(self, who: str, at: float) -> None:
        if who in self._open:
            self._spans.setdefault(who, []).append((self._open.pop(who), at))

    def touches(self, who: str, begin: float, end: float) -> bool:
        """Return whether the condition held at any time from `begin` to `end`."""
        spans = [*self._spans.get(who, []), *([(self._open[who], float("inf"))] if who in self._open else [])]
        return any(b <= end and e >= begin for b, e in spans)

    def covers(self, who: str, begin: float, end: float) -> bool:
        """Return whether the condition held all the time from `begin` to `end`."""
        spans = [*self._spans.get(who, []), *([(self._open[who], float("inf"))] if who in self._open else [])]
        return any(b <= begin and e >= end for b, e in spans)


def _dead(history: History, within: float) -> Iterator[Violation]:
    """P9: a killed process is gone from the view of every dependant that is connected, within the bound."""
    if not any(isinstance(event, Received) for event in history):
        return
    connected, disturbed = _Spans(), _Spans()
    seen: dict[str, dict[str, list[View]]] = {}
    """Views by service and host, in the order of time."""
    hosts: set[str] = set()
    dead: list[Died] = []
    for event in history:
        match event:
            case Watched():
                connected.begin(event.who, event.at)
            case Ended():
                connected.end(event.who, event.at)
            case Stopped():
                connected.end(event.who, event.at)
                disturbed.begin(event.who, event.at)
            case Disturbed():
                disturbed.begin(event.who, event.at)
            case Calmed():
                disturbed.end(event.who, event.at + CALM_AFTER_SECONDS)
            case Started():
                disturbed.end(event.who, event.at + CALM_AFTER_SECONDS)
                for service in [service for service, views in seen.items() if event.who in views]:
                    seen[service][event.who].append(View(event.at, event.who, service, 0, (), held=False))
            case View():
                seen.setdefault(event.service, {}).setdefault(event.who, []).append(event)
                hosts.add(event.who)
            case Died():
                dead.append(event)
    common = {event.who for event in history if isinstance(event, Disturbed | Stopped)} - hosts
    for died in dead:
        begin, end = died.at, died.at + within
        if not connected.covers(died.who, begin, end) or disturbed.touches(died.who, begin, end):
            continue
        if any(disturbed.touches(who, begin, end) for who in common):
            continue
        for who, views in seen.get(died.service, {}).items():
            if not connected.covers(who, begin, end) or disturbed.touches(who, begin, end):
                continue
            place = bisect_right(views, end, key=lambda view: view.at) - 1
            if place >= 0 and any(
                (one.address, one.port) == (died.address, died.port) and died.epoch and one.epoch == died.epoch
                for one in views[place].listeners
            ):
                what = f"{died.service} at {died.address}:{died.port} died at {died.at:.3f} s and is still there"
                yield Violation("P9", who, end, views[place].revision, what)
