"""Service manager: notifications to it (sd_notify(3)) of readiness, status, reload, end and signs of life, and the
listening sockets that it passes (sd_listen_fds(3)).

systemd sets NOTIFY_SOCKET and, with WatchdogSec=, WATCHDOG_USEC; any other manager that sets them gets the same.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from compass.model.text import escape

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Environment variables of the protocol, for a program that keeps them from its children."""
WATCHDOG_PART = 0.5
"""Share of the watchdog's time between two signs of life, as sd_watchdog_enabled(3) advises."""
FIRST_DESCRIPTOR = 3
"""Number of the first descriptor that is passed (sd_listen_fds(3))."""


def passed_variables() -> dict[str, str]:
    """Return the variables that say which sockets this process was started with.

    They are read from the kernel: Twisted removes them from the environment when its endpoints are imported.
    """
    try:
        octets = Path("/proc/self/environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(pair).partition("=") for pair in octets.split(b"\0"))
    return {name: value for name, _, value in pairs if name in ("LISTEN_FDS", "LISTEN_PID")}


def passed_sockets(environment: Mapping[str, str]) -> list[socket.socket]:
    """Return the listening stream sockets that the manager passed to this process. Raises OSError.

    The originals stay open and inheritable, so that the program which replaces this one at a reload has them, too.
    """
    number = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not number.isdigit():
        return []
    every = [socket.socket(fileno=os.dup(FIRST_DESCRIPTOR + at)) for at in range(int(number))]
    return [one for one in every if one.type == socket.SOCK_STREAM]


class SdNotify:
    """Sender of notifications to the socket that the environment names; without one, nothing is sent."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero octet of an abstract name.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        own = str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "")
        wanted = bool(path) and microseconds.isdigit() and environment.get("WATCHDOG_PID", own) == own
        self.watchdog_seconds = int(microseconds) / 1e6 * WATCHDOG_PART if wanted else 0.0
        """Seconds between two signs of life; 0: the manager wants none."""
        self._reloading = False

    def ready(self, status: str = "") -> None:
        """Report that the service can be used."""
        self._send("READY=1", status)

    def status(self, text: str) -> None:
        """Report the service's state to people, in one line."""
        self._send("", text)

    def reloading(self) -> None:
        """Announce a reload, so that the manager does not take the coming stop for the end."""
        self._reloading = True
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> None:
        """Report that the service is about to end, unless a reload was announced."""
        if not self._reloading:
            self._send("STOPPING=1", status)

    def alive(self) -> None:
        """Send one sign of life."""
        self._send("WATCHDOG=1")

    def start_watchdog(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        """Send signs of life from now on, if the manager wants them.

        `call_later` is the program's event loop: if the loop hangs, the signs end and the manager finds out.
        """
        if self.watchdog_seconds:
            self.alive()
            call_later(self.watchdog_seconds, lambda: self.start_watchdog(call_later))

    def _send(self, state: str, status: str = "") -> None:
        text = "\n".join(filter(None, [state, f"STATUS={escape(status)}" if status else ""]))
        if self._address:
            # A manager that does not answer is no reason for the service to end.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), self._address)
