"""Messages between the parent of several worker processes and each worker."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any, TypeAlias, Union

import msgspec

from compass.daemons.config.settings import ServerConfig

REPORT_FD = 3
"""File descriptor of a worker's messages, one JSON object per line. Standard error is for Python's own output."""
TEXT_MAX = 16_000
"""Longest log entry of a worker in characters: a long traceback."""
_PR_SET_PDEATHSIG = 1


class WorkerConfig(msgspec.Struct, frozen=True):
    """Configuration of a worker, which reads it from standard input: unlike arguments it may hold a password."""

    number: int
    """Number from 1 on; part of the worker's name."""
    parent: int
    """Process id of the parent."""
    config: ServerConfig
    """Configuration as the parent read it: a restarted worker must not find another store in an edited file."""
    verbose: bool


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """Message: the catalogue is loaded and sessions are accepted."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Message: the worker could not start."""

    why: str


class LogRecord(msgspec.Struct, frozen=True, tag="said"):
    """Message: an entry for the log."""

    level: str
    namespace: str
    text: str
    fields: dict[str, Any] = {}
    """Fields that the text names, for a log in JSON."""


WorkerMessage: TypeAlias = Union[Serving, Failed, LogRecord]  # noqa: UP007


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, for whatever reason (prctl(2)).

    SIGKILL also ends a process that hangs, frees the port at once for a restart of the server, and makes the end of the
    parent look like one killed server instead of several that end one by one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:
        # The parent ended before prctl.
        os.kill(os.getpid(), signal.SIGKILL)
