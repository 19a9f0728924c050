"""Containers as far as processes see one: a PID namespace with its own mount of /proc, and shared sockets and files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment, Host
from tests.e2e.processes import environment, eventually

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
NEEDS_NAMESPACES = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("unshare"), reason="PID namespaces need root and unshare (util-linux)"
)
SERVES = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listening:
    while True:
        listening.accept()[0].close()
"""
"""A service, which knows nothing of compass."""


def children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def first_process(unshared: subprocess.Popen[bytes]) -> int:
    """The first process of a container, in our numbers."""
    return eventually(lambda: children(unshared.pid), "the container has begun")[0]


def kill_container(unshared: subprocess.Popen[bytes]) -> None:
    """SIGKILL of its first process, with which the kernel ends all others."""
    os.kill(first_process(unshared), signal.SIGKILL)


@contextlib.contextmanager
def contained(
    deployment: Deployment, host: Host, service: str, command: Sequence[str], api: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a container, which asks the daemon of the host for a service."""
    own = {"OPENGNS_API": api or f"unix:{host.socket}", "OPENGNS_CREDENTIAL": deployment.token(service)}
    with started([*UNSHARE, *command], own) as unshared:
        yield unshared


@contextlib.contextmanager
def started(command: Sequence[str], own: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has ended when the block ends, with all that it started."""
    process = subprocess.Popen(command, env=environment() | own, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def serving(host: Host, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A service on the host itself."""
    with started([sys.executable, "-c", SERVES, host.address, str(port)], {}) as process:
        yield process
