"""An administrator's session with a server that was just started."""

from __future__ import annotations

import time

from compass.admin.shell.connection import AdminSession, ConnectionFailed, IdentityFiles, Server

TIMEOUT_SECONDS = 10.0


def administrator_of_new_server(server: Server, identity: IdentityFiles) -> AdminSession:
    """A session with a server that is just starting: tried until it is ready."""
    patience = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return AdminSession.connect([server], identity, TIMEOUT_SECONDS)
        except ConnectionFailed as problem:
            if problem.kind != "unavailable" or time.monotonic() > patience:
                raise
            time.sleep(0.05)
