"""What the parent of several worker processes tells each of them, and what they say to it."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any, TypeAlias, Union

import msgspec

from compass.daemons.config.settings import ServerConfig

REPORT_FD = 3
"""File descriptor on which a worker speaks, one JSON object a line. Standard error is for what Python itself says."""
TEXT_MAX = 16_000
"""Characters of one log entry that a worker hands on: a long traceback."""
_PR_SET_PDEATHSIG = 1


class WorkerConfig(msgspec.Struct, frozen=True):
    """A worker reads them from its standard input: unlike its arguments they may hold a database's password."""

    number: int
    """From 1 on; part of the worker's name."""
    parent: int
    """Process id."""
    config: ServerConfig
    """As the parent read it: a worker that is started again must not find another store in a file that was edited."""
    verbose: bool


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """The catalogue is loaded and sessions are accepted."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It could not begin to serve."""

    why: str


class LogRecord(msgspec.Struct, frozen=True, tag="said"):
    """An entry for the log."""

    level: str
    namespace: str
    text: str
    fields: dict[str, Any] = {}
    """What the text names, for a log in JSON."""


WorkerMessage: TypeAlias = Union[Serving, Failed, LogRecord]  # noqa: UP007


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends (prctl(2)).

    By SIGKILL: it works on a process that hangs, the port is free at once for who starts the server again, and to
    those outside it is one server that was killed, not a few that go one by one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:
        # It ended before we asked.
        os.kill(os.getpid(), signal.SIGKILL)
