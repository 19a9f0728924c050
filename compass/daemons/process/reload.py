"""What a service manager and a daemon tell each other: readiness, life, reload and end (sd_notify(3)).

systemd sets NOTIFY_SOCKET and, with WatchdogSec=, WATCHDOG_USEC; whoever else sets them is told the same. SIGHUP has
the daemon begin anew in its own process: all files are read again, certificates and the program itself too. That is a
restart without a gap in the manager's eyes, and hosts notice a restart as little as they notice this.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from twisted.logger import Logger

from compass.daemons.config.reader import ConfigProblem
from compass.pki.identity import IdentityError

WATCHDOG_PART = 0.5
"""Of the watchdog's time, between two signs of life, as sd_watchdog_enabled(3) advises."""


class SdNotify:
    """Tells the socket that the environment names; nobody, when it names none."""

    def __init__(self, reactor: Any, environment: Mapping[str, str]) -> None:
        where = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero of an abstract name.
        self._where = where.replace("@", "\0", 1) if where.startswith("@") else where
        microseconds = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.sign_seconds = int(microseconds) / 1e6 * WATCHDOG_PART if meant and microseconds.isdigit() else 0.0
        """Between two signs of life; 0: none are wanted."""
        self._reactor = reactor
        self._reloads = False

    def serves(self) -> None:
        """The daemon can be used; from now on it gives signs of life, if they are wanted."""
        self._tell("READY=1")
        if self._where and self.sign_seconds:
            self._alive()

    def reloads(self) -> None:
        """It begins anew: its coming end is none."""
        self._reloads = True
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stops(self) -> None:
        """It is about to end."""
        if not self._reloads:
            self._tell("STOPPING=1")

    def _alive(self) -> None:
        # By the reactor: what hangs there hangs everything, and then the manager should know.
        self._tell("WATCHDOG=1")
        self._reactor.callLater(self.sign_seconds, self._alive)

    def _tell(self, state: str) -> None:
        if self._where:
            # That it cannot be told is no reason not to serve.
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.setblocking(False)
                told.sendto(state.encode(), self._where)


class Reload:
    """What SIGHUP does: end in order and begin anew in the same process, unless the files have become wrong."""

    log = Logger("compass")

    def __init__(self, reactor: Any, name: str, check: Callable[[], object], supervision: SdNotify) -> None:
        """`check` reads configuration and certificates and raises ConfigProblem or IdentityError."""
        self._reactor = reactor
        self._name = name
        self._check = check
        self._supervision = supervision
        self.wanted = False
        """Whether the process is to begin anew when the reactor has ended."""

    def on_sighup(self) -> None:
        """SIGHUP came."""
        if self.wanted:
            return
        try:
            self._check()
        except (ConfigProblem, IdentityError) as problem:
            why = str(problem)
            self.log.error("SIGHUP: {name} goes on as it is, its files are wrong: {why}", name=self._name, why=why)
            return
        self.wanted = True
        self.log.info("SIGHUP: {name} reads its files and begins anew", name=self._name)
        self._supervision.reloads()
        self._reactor.stop()

    def reexec(self) -> NoReturn:
        """The same program with the same arguments, as it is on disk now, in this process."""
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
