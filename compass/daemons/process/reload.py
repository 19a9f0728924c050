"""Reload of a daemon on SIGHUP.

The daemon restarts within its own process, which loads all files again, certificates and the program itself included.
The service manager sees no gap, and hosts notice this as little as any other restart.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

from twisted.logger import Logger

from compass.daemons.config.file import ConfigProblem
from compass.model.rules.certificates import problems_of
from compass.pki.identity import Identity, IdentityError
from compass.system.systemd import SdNotify, passed_variables


class Files(Protocol):
    """Configuration and certificates of a daemon."""

    def read_identity(self) -> Identity:
        """Read all of them. Raises ConfigProblem or IdentityError."""


class Reload:
    """Reload on SIGHUP: an orderly stop and a restart in the same process, unless the files are invalid."""

    log = Logger("compass")

    def __init__(self, reactor: Any, name: str, files: Files, manager: SdNotify) -> None:
        self._reactor = reactor
        self._name = name
        self._files = files
        self._manager = manager
        self.wanted = False
        """True if the process restarts once the reactor has stopped."""

    def on_sighup(self) -> None:
        """Check the files and stop the reactor for a restart; if the files are invalid, log the problems."""
        if self.wanted:
            return
        now = datetime.now(UTC)
        try:
            problems = problems_of(self._files.read_identity().certificates(now), now.timestamp())
            if problems:
                raise IdentityError(problems)
        except (ConfigProblem, IdentityError) as problem:
            why = str(problem)
            self.log.error("SIGHUP: {name} continues unchanged, its files are wrong: {why}", name=self._name, why=why)
            return
        self.wanted = True
        self.log.info("SIGHUP: {name} reloads its files", name=self._name)
        self._manager.reloading()
        self._reactor.stop()

    def reexec(self) -> NoReturn:
        """Replace this process by the same program with the same arguments, as the program is on disk now."""
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | passed_variables())
