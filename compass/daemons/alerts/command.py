"""Command channel: a program that runs with JSON on its standard input."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.python.failure import Failure

from compass.model.text import escape
from compass.server.alerts.notifier import DeliveryFailed
from compass.server.alerts.outbox import Message
from compass.server.alerts.render import render_json
from compass.system.files import file_in_memory

LAST_OUTPUT_SECONDS = 0.5
"""Time limit for reading the output of an alert command that has ended."""
ALERT_COMMAND_SECONDS = 30.0
"""Time limit of an alert command: after it the command is killed, so that the next alert is sent."""
ERROR_OUTPUT_OCTETS_MAX = 1_000
"""Part of a command's standard error that is kept for the log: its end."""


def command_channel(reactor: Any, command: tuple[str, ...], server: str) -> Callable[[Message], Deferred[None]]:
    """Return the delivery of one message: it fails if the command's status is not 0, and may be retried if it is 75."""
    run = command_runner(reactor, command)

    def deliver(message: Message) -> Deferred[None]:
        def failed(failure: Failure) -> None:
            failure.trap(CommandFailed)
            ended = failure.value.__cause__ if failure.value is not None else None
            again = isinstance(ended, ProcessTerminated) and ended.exitCode == os.EX_TEMPFAIL
            raise DeliveryFailed(str(failure.value), final=not again, perhaps=True) from None

        return run(msgspec.json.encode(render_json(message, server))).addErrback(failed)

    return deliver


def command_runner(
    reactor: Any, command: tuple[str, ...], limit_seconds: float = ALERT_COMMAND_SECONDS
) -> Callable[[bytes], Deferred[None]]:
    """Return a function that runs the command with octets on its standard input, and kills it after `limit_seconds`."""

    def run(data: bytes) -> Deferred[None]:
        process = _Command(reactor)
        # The whole input is there before the command is: a server that is killed meanwhile leaves no command without.
        with file_in_memory(data) as file:
            descriptors = {0: file.fileno(), 1: "r", 2: "r"}
            transport = reactor.spawnProcess(process, command[0], command, env=None, childFDs=descriptors)

        def kill() -> None:
            process.error_output = f"killed after {limit_seconds:g} s".encode()
            with contextlib.suppress(ProcessExitedAlready):
                transport.signalProcess("KILL")

        timer = reactor.callLater(limit_seconds, kill)

        def ended(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        return process.ended.addBoth(ended)

    return run


class CommandFailed(Exception):
    """Failure of a command: its status, and the end of its standard error."""


class _Command(protocol.ProcessProtocol):
    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.ended: Deferred[None] = Deferred(lambda _: self._kill())
        self.error_output = b""

    def _kill(self) -> None:
        transport: Any = self.transport
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess("KILL")

    def errReceived(self, data: bytes) -> None:
        self.error_output = (self.error_output + data)[-ERROR_OUTPUT_OCTETS_MAX:]

    def processExited(self, reason: Failure) -> None:  # noqa: N802
        # Output may still be in the pipe, but a process that the command left running may hold the pipe for ever.
        self._reactor.callLater(LAST_OUTPUT_SECONDS, self.processEnded, reason)

    def processEnded(self, reason: Failure) -> None:
        if self.ended.called:
            return
        if reason.check(ProcessDone):
            self.ended.callback(None)
        else:
            output = escape(self.error_output.decode("utf-8", "replace").strip())
            failed = CommandFailed(f"{reason.getErrorMessage()} {output}".strip())
            failed.__cause__ = reason.value
            self.ended.errback(failed)
        transport: Any = self.transport
        transport.loseConnection()
