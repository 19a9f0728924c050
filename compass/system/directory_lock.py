"""Lock of a directory that only one process may use at a time: flock(2) on a file in it.

The lock ends with the process, however it ends, so that no file has to be removed before the next start.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

FILE_NAME = "lock"
"""Name of the locked file, which contains the process id of the last holder, for people."""
MODE = 0o600
"""Mode of the file: another user that could open it could lock it, and so keep the daemon from starting."""
NUMBER_MAX = 32
"""Octets read from the file: a process id and a line end."""
_UNSUPPORTED = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of a disk on which no lock can be made, and of which most cannot be written by two processes either."""


class DirectoryInUse(Exception):
    """Directory that another process has locked."""

    def __init__(self, directory: Path, pid: str) -> None:
        super().__init__(f"another process{f', {pid},' if pid else ''} uses {directory}")
        self.pid = pid
        """Process id of the other process as it numbers itself; empty: unknown."""


class DirectoryLock:
    """Lock of one directory, held until `release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another process lock the directory. A repeated call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def lock_directory(directory: Path) -> DirectoryLock | None:
    """Lock an existing directory. Returns None if its disk can make no lock. Raises DirectoryInUse, OSError."""
    try:
        # Without O_CLOEXEC a hook of the daemon would keep the lock when the daemon has ended.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(directory / FILE_NAME, flags, MODE)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        pid = os.pread(descriptor, NUMBER_MAX, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise DirectoryInUse(directory, pid if pid.isdigit() else "") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return DirectoryLock(descriptor)
        os.close(descriptor)
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return DirectoryLock(descriptor)
