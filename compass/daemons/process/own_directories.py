"""Directories that belong to one daemon: a second daemon over one of them refuses to start.

Two daemons over one state directory would overwrite each other's registrations, and two over one shared view would
show programs now this view and now that one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from compass.daemons.process.start import CannotStart
from compass.system.directory_lock import DirectoryInUse, DirectoryLock, lock_directory

HANDOVER_SECONDS = 4.0
"""Wait for the daemon before to end, which has two seconds to close its session, so that a restart or an upgrade may
start the new one while the old one stops."""
POLL_SECONDS = 0.05
"""Pause between two attempts to lock a directory."""


class OwnDirectories:
    """The locked directories of this daemon."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._locks: dict[Path, DirectoryLock | None] = {}

    async def lock(self, directory: Path, key: str) -> None:
        """Lock the directory that a key of [host] names. Raises CannotStart if another process has locked it or this
        user may not use it."""
        until = time.monotonic() + HANDOVER_SECONDS
        while not self._has_locked(directory, key, may_wait=time.monotonic() < until):
            await deferLater(self._reactor, POLL_SECONDS)

    def release(self) -> None:
        """Let another daemon use the directories."""
        for lock in self._locks.values():
            if lock is not None:
                lock.release()
        self._locks.clear()

    def _has_locked(self, directory: Path, key: str, *, may_wait: bool) -> bool:
        """Lock one directory. Returns whether there is nothing to wait for."""
        try:
            directory.mkdir(mode=0o700 if key == "state_directory" else 0o755, parents=True, exist_ok=True)
        except OSError:
            # The component that writes there says so; a directory that does not exist is not shared.
            return True
        # One directory by two names has one lock.
        place = directory.resolve()
        if place in self._locks:
            return True
        try:
            self._locks[place] = lock_directory(place)
        except DirectoryInUse as problem:
            if may_wait:
                return False
            other = f"process {problem.pid}" if problem.pid else "another process"
            raise CannotStart(
                f"{other} uses {directory} already: stop that daemon, or set [host] {key} to another directory"
            ) from None
        except OSError as error:
            raise CannotStart(
                f"cannot lock {directory}: {error.strerror} ({error.filename or directory}); let the user of this "
                f"daemon own everything in the directory, or set [host] {key} to another one"
            ) from None
        if self._locks[place] is None:
            self._log.warn("{path} is on a disk that makes no locks: see that no second daemon uses it", path=directory)
        return True
