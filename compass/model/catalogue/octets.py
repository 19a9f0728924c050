"""Octets that listeners occupy in a catalogue: what is bounded, because views, stores and memories hold octets.

The catalogue keeps the sums by service, by category and of all, and each change moves them.
"""

from __future__ import annotations

from immutables import Map

from compass.model.names import category_of
from compass.model.rows import Change, Listener

LISTENER_OCTETS = 384
"""Octets of a listener without its names and its metadata: the names of all fields, the numbers, an address, a zone and
a cause of the usual length."""
ENTRY_OCTETS = 6
"""Octets of a metadata entry without key and value: their lengths."""
ALL = ""
"""Key of the sum of all listeners; the other keys are service ids and category names."""


def octets_of(listener: Listener) -> int:
    """Return the octets that a listener counts for, whatever its state."""
    return LISTENER_OCTETS + len(listener.service) + len(listener.host) + metadata_octets(listener.metadata)


def change_octets(change: Change) -> int:
    """Return the octets of a change, for a buffer of changes."""
    return octets_of(change.row) if isinstance(change.row, Listener) else LISTENER_OCTETS


def metadata_octets(metadata: dict[str, str]) -> int:
    """Return the octets of metadata as UTF-8."""
    return sum(_length(key) + _length(value) + ENTRY_OCTETS for key, value in metadata.items())


def growth(before: Listener | None, after: Listener) -> int:
    """Return the octets by which a listener grows."""
    if before is None:
        return octets_of(after)
    if before.metadata is after.metadata and before.host == after.host:
        # A change of state, as nearly all are.
        return 0
    return octets_of(after) - octets_of(before)


def moved(sums: Map[str, int], service: str, octets: int) -> Map[str, int]:
    """Return the sums after a service's listeners have grown by `octets`."""
    if not octets:
        return sums
    for key in (service, category_of(service), ALL):
        total = sums.get(key, 0) + octets
        sums = sums.set(key, total) if total else sums.delete(key)
    return sums


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
