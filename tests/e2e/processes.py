"""Programs of the project as processes of their own, waited for by asking and ended by their number."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 40.0
"""Time limit for what takes a fraction of a second on an idle machine; not a figure that is measured."""
LOOK_SECONDS = 0.005
LOG_SHOWN_MAX = 6_000
"""Characters of a program's log that a failed test shows."""

T = TypeVar("T")


def _members(session: int) -> list[int]:
    """Return the processes of a session: also those that a program of it has put in a process group of their own."""
    found = []
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if os.getsid(number := int(directory.name)) == session:
                found.append(number)
    return found


def environment() -> dict[str, str]:
    """This process's environment without settings of the programs under test, with the project on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENGNS")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def python(entry: str, *arguments: str) -> list[str]:
    """The command line of an entry point, `module:function`, as its console script would run it."""
    module, _, function = entry.partition(":")
    return [sys.executable, "-c", f"from {module} import {function}; {function}()", *arguments]


def eventually(condition: Callable[[], T | None], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """The first true answer of `condition`, which is asked again and again."""
    until = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}; the last answer: {answer!r}"
        time.sleep(LOOK_SECONDS)


class Program:
    """A program that may be started, ended and started again; its output goes into one log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, more: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = environment() | dict(more or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The number of the running process."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Return whether the program has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program; a caller that needs it ready asks it."""
        assert not self.runs, f"{self.name} runs already"
        with self.log.open("ab") as log:
            # A group of its own, so that what it started can be ended with it.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL: it gets no chance to say anything."""
        return self._end(signal.SIGKILL)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        assert self._process is not None
        return self._process.wait(PATIENCE_SECONDS)

    def clear_away(self) -> None:
        """End the program and every process of its session, whatever state that is in."""
        if self._process is not None:
            for pid in _members(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(PATIENCE_SECONDS)

    def shown_log(self) -> str:
        """The end of what it said, without the questions by which tests wait."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = [line for line in text.splitlines() if '"GET /v1/' not in line]
        return "\n".join(lines)[-LOG_SHOWN_MAX:]

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None, f"{self.name} was not started"
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_SECONDS)
