"""Processes of another user of this machine, who has no right: functions run in them.

The interpreter may be where that user cannot read, so the processes are forks of this one: everything is imported
before they change their user.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401  # Name lookups import it, and another user may not be able to read it.
import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ANOTHER_USER = 12345
"""Number of a user that no machine has."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something as another user")


def as_another_user(work: Callable[[], Any], user: int = ANOTHER_USER) -> Any:
    """Return what `work` returns in a process of another user, or raise what it raises."""
    reader, writer = os.pipe()
    pid = _forked(lambda: os.write(writer, pickle.dumps(_outcome(work))), user)
    os.close(writer)
    with os.fdopen(reader, "rb") as results:
        octets = results.read()
    os.waitpid(pid, 0)
    result = pickle.loads(octets)
    if isinstance(result, BaseException):
        raise result
    return result


@contextlib.contextmanager
def another_user_does(*works: Callable[[], Any], user: int = ANOTHER_USER) -> Iterator[None]:
    """Repeat each work in a process of its own, of another user, until the block ends.

    The processes leave the processors to others: what they do to a daemon is looked at, not what they do to a machine.
    """

    def repeat(work: Callable[[], Any]) -> None:
        os.nice(19)
        while True:
            with contextlib.suppress(Exception):
                work()

    pids = [_forked(lambda work=work: repeat(work), user) for work in works]  # type: ignore[misc]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A new directory in which every user may read and write."""
    with tempfile.TemporaryDirectory(prefix="gns-", dir="/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as problem:
        return problem


def _forked(work: Callable[[], Any], user: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        work()
    finally:
        os._exit(0)
