"""Fixtures of several suites."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgresql import PostgreSQL

# How fast examples are made says something about the machine, and nothing about the program.
settings.register_profile("compass", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("compass")

# Who is started in the background of a shell script ignores these, and so would every program that a test starts.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

MEMORY = Path("/dev/shm")
"""Directory of files that Linux keeps in memory."""


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A real PostgreSQL for all tests that want one."""
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory for simulated machines, in memory where that can be had.

    Time is virtual there, but each fsync of a daemon would take a real disk's time: most of what a campaign takes.
    """
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="compass-", dir=MEMORY) as directory:
        yield Path(directory)
