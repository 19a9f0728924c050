"""A system's process: its processor time, its memory, and its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


class NotInstalled(Exception):
    """The system's programs are not on this machine."""


def program(*names: str) -> str:
    """The path of the first of these programs that is there. Raises NotInstalled."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise NotInstalled(names[0])


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        port: int = asking.getsockname()[1]
        return port


class Running:
    """Process of a system; its output goes to a log next to its data."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def listens(self, address: str, port: int) -> None:
        """Wait until it takes connections."""
        until = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self._process.args!r} does not serve:\n{self._log.read_text()[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection((address, port), 1.0):
                return
            time.sleep(0.02)

    def cpu_seconds(self) -> float:
        """Processor time of it and of the children that it has now."""
        return sum(_cpu_seconds(pid) for pid in self._family())

    def memory(self) -> int:
        """Resident octets, likewise."""
        return sum(_memory(pid) for pid in self._family())

    def _family(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [self.pid, *map(int, children.read_text().split())] if children.exists() else [self.pid]

    def stop(self) -> None:
        """End the process by SIGTERM, then by SIGKILL."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
