"""What a follower of a server's changes is told: where it stands, then each change."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from compass.model.rows import Change


class Position(msgspec.Struct, frozen=True):
    """What follows is every change after `revision` of this store."""

    store: str
    """Revisions of different stores have nothing to do with each other."""
    revision: int
    complete: bool
    """False: what happened before is not told, read everything again. True: nothing is missing since the revision
    that was asked for, or none was."""


FeedEvent: TypeAlias = Position | Change
