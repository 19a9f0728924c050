"""Options of a registration, the same on every face of the library."""

from __future__ import annotations

import os
from typing import TypedDict

from compass.model.host_api import OwnCheck


class Options(TypedDict, total=False):
    """Options of a registration."""

    address: str
    """Address at which this process listens; default: the one that the daemon is configured with."""
    credential: str
    """Token of the service."""
    credential_file: str | os.PathLike[str]
    """File with the token (preferred). Default: OPENGNS_CREDENTIAL_FILE, else OPENGNS_CREDENTIAL."""
    zone: str
    """Zone of the listener, a label; default: the zone that the daemon is configured with."""
    load: float
    degradation: float
    """Share of the capacity in use, and the amount that one more user adds, for policies that depend on load."""
    weight: int
    """Relative share of users, 1 by default; 0: used only if nothing else is up."""
    metadata: dict[str, str]
    """Metadata for its users."""
    check: OwnCheck | str
    """Check that the daemon repeats while the listener is registered: a path for GET, or an OwnCheck."""
    hold: bool
    """True: the daemon notices the end of this process by a connection, instead of by the process's number. This is
    done without being asked for where the daemon cannot see this process, as in a container."""
    patience_seconds: float
    """Seconds to wait for an unreachable daemon; PATIENCE_SECONDS by default."""
