"""Identity of a server: what does not change while it runs."""

from __future__ import annotations

import msgspec

from compass.model.rules.draft import Principal


class ServerIdentity(msgspec.Struct, frozen=True):
    """Run of a server over a store."""

    id: str
    """Differs from that of every other run."""
    name: str
    software: str
    store: str
    """Id of the store."""
    engine: str
    started_at: float
    """UNIX time."""
    channels: tuple[str, ...] = ()
    """Names of the channels by which this server can notify administrators."""

    @property
    def principal(self) -> Principal:
        """Principal of the requests that the server makes by itself."""
        return Principal("server", self.name, "")
