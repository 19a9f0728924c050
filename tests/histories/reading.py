"""Histories as files: one event a line, as JSON with the field `event` naming its kind (events.py).

    {"event":"view","at":12.5,"who":"web1","service":"a.uss","revision":7,"listeners":[["10.0.0.1",80,1,"up"]]}

A recorder of a real run writes such lines with its own clock's seconds (a monotonic one that all recorders share);
several files are merged by time. What `opengnsc watch SERVICE --json` prints can be read as views.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from compass.model.replies import Dependencies
from compass.model.rows import Change, Listener
from tests.histories.events import Event, History, Instance, View, instance_of

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def line_of(event: Event) -> bytes:
    """Return the line of an event, without its end."""
    return _encoder.encode(event)


def write(path: Path, history: Iterable[Event]) -> None:
    """A file of lines."""
    path.write_bytes(b"".join(line_of(event) + b"\n" for event in history))


def read(*paths: Path) -> History:
    """The events of these files, merged by time. Raises msgspec.ValidationError on what is no event."""
    return list(heapq.merge(*map(_events, paths), key=lambda event: event.at))


def _events(path: Path) -> Iterator[Event]:
    for line in path.read_bytes().splitlines():
        if line.strip():
            yield _decoder.decode(line)


class _Line(msgspec.Struct, frozen=True):
    """A `LocalEvent` as printed."""

    kind: Literal["snapshot", "change"]
    revision: int
    data: msgspec.Raw


class WatchReader:
    """Turns the events of one `opengnsc watch --json` into views: what a program on `who` knows of each service."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._held: dict[str, dict[tuple[str, int], Instance]] = {}

    def read(self, line: bytes, at: float) -> list[View]:
        """The views that this line, printed at this time, changes."""
        told = msgspec.json.decode(line, type=_Line)
        if told.kind == "snapshot":
            return list(self._replaced(msgspec.json.decode(told.data, type=Dependencies), told.revision, at))
        change = msgspec.json.decode(told.data, type=Change)
        row = change.row
        if not isinstance(row, Listener):
            return []
        peers = self._held.setdefault(row.service, {})
        if change.removed or row.state == "offline":
            peers.pop((row.address, row.port), None)
        else:
            peers[row.address, row.port] = instance_of(row)
        return [self._view(row.service, told.revision, at, "notice")]

    def _replaced(self, told: Dependencies, revision: int, at: float) -> Iterator[View]:
        before, self._held = self._held, {}
        for category in told.categories:
            shown = {view.id: view.listeners for view in category.services}
            if category.backup:
                shown.setdefault(category.backup, category.backup_listeners)
            for service, listeners in shown.items():
                self._held[service] = {(row.address, row.port): instance_of(row) for row in listeners}
                yield self._view(service, revision, at, "snapshot")
        for gone in sorted(before.keys() - self._held.keys()):
            yield View(at, self._who, gone, revision, (), "snapshot", False)

    def _view(self, service: str, revision: int, at: float, because: str) -> View:
        listeners = tuple(peer for _, peer in sorted(self._held[service].items()))
        return View(at, self._who, service, revision, listeners, because)
