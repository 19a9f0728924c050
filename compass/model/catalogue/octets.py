"""Octets that listeners occupy in a catalogue: what is bounded, because views, stores and memories hold octets.

The catalogue keeps the sums by service, by category and of all, and each change moves them.
"""

from __future__ import annotations

from immutables import Map

from compass.model.rows import AdministrationEntry, Change, Listener, LogEntry, SecurityEntry, UpdateEntry

LISTENER_OCTETS = 384
"""Octets of a listener without its names and its metadata: the names of all fields, the numbers, an address, a zone and
a cause of the usual length."""
ENTRY_OCTETS = 6
"""Octets of a metadata entry without key and value: their lengths."""
CHECK_OCTETS = 512
"""Octets of a check and its problem of the usual length. They count whether the check fails or not, so that a failure
never makes a registration too large."""
ALL = ""
"""Key of the sum of all listeners; the other keys are service ids and category names."""


def octets_of(listener: Listener) -> int:
    """Return the octets that a listener counts for, whatever its state."""
    octets = LISTENER_OCTETS + len(listener.service) + len(listener.host) + (CHECK_OCTETS if listener.check else 0)
    return octets + metadata_octets(listener.metadata) if listener.metadata else octets


def change_octets(change: Change) -> int:
    """Return the octets of a change, for a buffer of changes."""
    return octets_of(change.row) if isinstance(change.row, Listener) else LISTENER_OCTETS


def entry_octets(entry: LogEntry) -> int:
    """Return the octets of a log entry, for a page of them."""
    match entry:
        case UpdateEntry():
            return change_octets(entry.change)
        case SecurityEntry():
            return LISTENER_OCTETS + _length(entry.parameters)
        case AdministrationEntry():
            return LISTENER_OCTETS + _length(entry.arguments)


def metadata_octets(metadata: dict[str, str]) -> int:
    """Return the octets of metadata as UTF-8."""
    return sum(_length(key) + _length(value) + ENTRY_OCTETS for key, value in metadata.items())


def moved(sums: Map[str, int], before: Listener | None, after: Listener | None) -> Map[str, int]:
    """Return the sums with a listener in place of one with the same key; None: there is none."""
    if before is not None and after is not None and _counts_like(before, after):
        # A change of state, as nearly all are.
        return sums
    octets = 0
    # Written out, as every registration does this on each server and each host.
    for row, sign in ((after, 1), (before, -1)):
        if row is not None:
            octets += sign * (LISTENER_OCTETS + len(row.service) + len(row.host))
            octets += sign * metadata_octets(row.metadata) if row.metadata else 0
            octets += sign * CHECK_OCTETS if row.check else 0
            service = row.service
    for key in (service, service.partition(".")[2], ALL) if octets else ():
        total = sums.get(key, 0) + octets
        sums = sums.set(key, total) if total else sums.delete(key)
    return sums


def without_service(sums: Map[str, int], service: str) -> Map[str, int]:
    """Return the sums without the listeners of a service."""
    octets = sums.get(service, 0)
    for key in (service, service.partition(".")[2], ALL) if octets else ():
        left = sums[key] - octets
        sums = sums.set(key, left) if left else sums.delete(key)
    return sums


def _counts_like(before: Listener, after: Listener) -> bool:
    return before.host == after.host and before.metadata == after.metadata and bool(before.check) == bool(after.check)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
