"""Subprocesses: foreign commands with bounded time and bounded output, which never block the daemon.

A command has its own process group, so that everything it started can be ended with it. Its input is in memory
(memfd_create(2)), so no writer waits for it to read; its pidfd shows its end, whatever still holds its output.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from compass.model.interfaces import Timer
from compass.model.text import escape
from compass.system.descriptors import ReadableDescriptor
from compass.system.files import file_in_memory

OUTPUT_OCTETS_MAX = 1024 * 1024
"""Most octets of output; a command that writes more is ended."""
SHOWN_OCTETS_MAX = 500
"""Octets of output shown in a problem: the last ones, where commands say what was wrong."""
GRACE_SECONDS = 2.0
"""After SIGTERM, for a command that is over its time; then SIGKILL."""
READ_OCTETS = 65_536
NOT_HANDED_ON = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")
"""Variables of the service manager that are for the daemon only."""


class CommandResult(msgspec.Struct, frozen=True):
    """Result of a command."""

    output: bytes
    """Output to both streams, up to the requested number of octets."""
    problem: str = ""
    """Why it did not do what it should, in words, with the end of what it said; empty: it did."""


class CommandRunner:
    """Runs commands on a reactor that takes file descriptors."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._running: set[_Command] = set()
        self._stopped = False

    def run(
        self,
        command: Sequence[str],
        data: bytes,
        limit_seconds: float,
        environment: Mapping[str, str] | None = None,
        output_max: int = OUTPUT_OCTETS_MAX,
    ) -> Deferred[CommandResult]:
        """Run it with `data` on its standard input and `environment` added to the daemon's; never fails."""
        over: Deferred[CommandResult] = Deferred()
        running = _Command(self._reactor, limit_seconds, output_max)

        def ended(what: CommandResult) -> None:
            self._running.discard(running)
            if not self._stopped:
                over.callback(what)

        self._running.add(running)
        running.start(command, data, environment or {}, ended)
        return over

    def stop(self) -> None:
        """End all running commands without a result: the daemon's next run completes what is unfinished."""
        self._stopped = True
        for running in list(self._running):
            running.end("opengnscd has stopped")


class _Output(ReadableDescriptor):
    """Pipe with the output of a command."""

    def __init__(self, descriptor: int, command: _Command) -> None:
        super().__init__(descriptor)
        self._command = command

    def doRead(self) -> None:  # noqa: N802
        """Read output."""
        self._command.read()


class _End(_Output):
    """Pidfd of a command."""

    def doRead(self) -> None:  # noqa: N802
        """Finish the run."""
        self._command.died()


class _Command:
    """Run of one command."""

    def __init__(self, reactor: Any, limit_seconds: float, output_max: int) -> None:
        self._reactor = reactor
        self._limit = limit_seconds
        self._output_max = output_max
        self._output = bytearray()
        self._problem = ""
        self._timer: Timer | None = None
        self._readers: list[_Output] = []

    def start(
        self,
        command: Sequence[str],
        data: bytes,
        environment: Mapping[str, str],
        ended: Callable[[CommandResult], None],
    ) -> None:
        self._name, self._ended = command[0], ended
        kept = {name: value for name, value in os.environ.items() if name not in NOT_HANDED_ON}
        try:
            with file_in_memory(data) as file:
                self._process = subprocess.Popen(
                    command,
                    stdin=file,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=kept | dict(environment),
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            ended(CommandResult(b"", f"cannot run {self._name}: {getattr(error, 'strerror', None) or error}"))
            return
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        self._pidfd = os.pidfd_open(self._process.pid)
        os.set_blocking(self._pipe, False)
        self._readers = [_Output(self._pipe, self), _End(self._pidfd, self)]
        for reader in self._readers:
            self._reactor.addReader(reader)
        self._timer = self._reactor.callLater(self._limit, self._late)

    def end(self, problem: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End the run. The first reason is the one that is reported."""
        self._problem = self._problem or problem
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _late(self) -> None:
        self.end(f"{self._name} was ended: it took more than {self._limit:g} s")
        self._timer = self._reactor.callLater(GRACE_SECONDS, self.end, self._problem, signal.SIGKILL)

    def read(self) -> bool:
        """Read output; return whether there may be more."""
        try:
            octets = os.read(self._pipe, READ_OCTETS)
        except BlockingIOError:
            return False
        if not octets:
            self._reactor.removeReader(self._readers[0])
            return False
        self._output += octets
        if len(self._output) > self._output_max:
            del self._output[self._output_max :]
            self.end(f"{self._name} was ended: it wrote more than {self._output_max} octets", signal.SIGKILL)
            self._reactor.removeReader(self._readers[0])
            return False
        return True

    def died(self) -> None:
        """Finish the run: the process ended."""
        if self._problem:
            # What it has started in the background must end as well. Until the process is waited for, no other process
            # has its number.
            self.end(self._problem, signal.SIGKILL)
        status = self._process.wait()
        # The reader may be gone already: after a flood, or because the command closed its output.
        while self._readers[0] in self._reactor.getReaders() and self.read():
            pass
        for reader in self._readers:
            self._reactor.removeReader(reader)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        os.close(self._pidfd)
        assert self._process.stdout is not None
        self._process.stdout.close()
        output = bytes(self._output)
        self._ended(CommandResult(output, self._problem or _told(self._name, status, output)))


def _told(name: str, status: int, output: bytes) -> str:
    """Describe an exit status in words; empty for 0."""
    if not status:
        return ""
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    lines = output[-SHOWN_OCTETS_MAX:].decode(errors="replace").strip().splitlines()
    said = " | ".join(map(escape, lines))[-SHOWN_OCTETS_MAX:]
    return f"{name} {how}" + (f": {said}" if said else "")
