"""What a service manager is told (sd_notify(3)): readiness, state, and that we are alive."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import MutableMapping

WATCHDOG_PART = 0.5
"""Of the watchdog's time, between two signs of life, as sd_watchdog_enabled(3) advises."""


class Notify:
    """Tells the socket that the environment names; nobody, when it names none.

    The variables are taken out of the environment: the command is not the manager's main process, and a message of its
    own would be refused or, worse, believed.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        environment.pop("WATCHDOG_PID", None)
        microseconds = environment.pop("WATCHDOG_USEC", "")
        # A path, or an abstract name that is written with an @.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self.watchdog_seconds = int(microseconds) / 1e6 * WATCHDOG_PART if microseconds.isdigit() and path else 0.0
        """Between two signs of life; 0: none are wanted."""

    def ready(self, text: str) -> None:
        """The service can be used."""
        self._tell(f"READY=1\nSTATUS={text}")

    def stopping(self) -> None:
        """It is about to end."""
        self._tell("STOPPING=1\nSTATUS=leaving")

    def state(self, text: str) -> None:
        """In a line, for people."""
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """Still here."""
        self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if self._address:
            # A manager that has gone away is no reason for the service to end.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
                telling.setblocking(False)
                telling.sendto(text.encode(), self._address)
