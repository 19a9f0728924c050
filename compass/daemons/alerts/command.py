"""A command as a way to administrators: it is run with JSON on its standard input."""

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

from compass.server.alerts.notifier import DeliveryFailed
from compass.server.alerts.outbox import Message
from compass.server.alerts.render import render_json

LAST_WORDS_SECONDS = 0.5
"""For the output of an alert command that has ended."""
ALERT_COMMAND_SECONDS = 30.0
"""An alert command that runs longer is ended, so that the next alert gets out."""
COMPLAINT_OCTETS_MAX = 1_000
"""Kept of what an alert command writes to standard error: its last words, for the log."""


def command_way(reactor: Any, command: tuple[str, ...], server: str) -> Callable[[Message], Deferred[None]]:
    """One attempt of a way: the command failed if its status is not 0; with 75 it is run again later."""
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
    """Runs the alert command with the news on its standard input; it is killed when it takes too long."""

    def run(news: bytes) -> Deferred[None]:
        process = _Command(reactor, news)
        transport = reactor.spawnProcess(process, command[0], command, env=None)

        def kill() -> None:
            process.complaint = f"it was ended after {limit_seconds:g} s".encode()
            with contextlib.suppress(ProcessExitedAlready):
                transport.signalProcess("KILL")

        timer = reactor.callLater(limit_seconds, kill)

        def over(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        return process.over.addBoth(over)

    return run


class CommandFailed(Exception):
    """How a command ended, and its last words."""


class _Command(protocol.ProcessProtocol):
    def __init__(self, reactor: Any, news: bytes) -> None:
        self._reactor = reactor
        self.over: Deferred[None] = Deferred(lambda _: self._kill())
        self.complaint = b""
        self._news = news

    def _kill(self) -> None:
        transport: Any = self.transport
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess("KILL")

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._news)
        transport.closeStdin()

    def errReceived(self, data: bytes) -> None:
        self.complaint = (self.complaint + data)[-COMPLAINT_OCTETS_MAX:]

    def processExited(self, reason: Failure) -> None:  # noqa: N802
        # Its last words may still be in the pipe; something that it left running may hold the pipe for ever.
        self._reactor.callLater(LAST_WORDS_SECONDS, self.processEnded, reason)

    def processEnded(self, reason: Failure) -> None:
        if self.over.called:
            return
        if reason.check(ProcessDone):
            self.over.callback(None)
        else:
            words = self.complaint.decode("utf-8", "replace").strip()
            failed = CommandFailed(f"{reason.getErrorMessage()} {words}".strip())
            failed.__cause__ = reason.value
            self.over.errback(failed)
        transport: Any = self.transport
        transport.loseConnection()
