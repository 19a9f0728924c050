"""Worker process of `opengnssd`: a server of its own over the common store, on ports that its parent reserved."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure

from compass.daemons.net.reuseport import share_ports
from compass.daemons.process.logging import fields_of
from compass.daemons.process.start import EXIT_CONFIG, EXIT_START, begin_log, forbid_core_files, why_not
from compass.daemons.services.opengnssd import ServerService
from compass.daemons.workers import messages
from compass.pki.identity import IdentityError


def main() -> NoReturn:
    """Read the configuration, serve, and end with a status as `opengnssd` does."""
    # A terminal sends these signals to all of its processes; a worker obeys its parent only.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=messages.WorkerConfig)
    messages.die_with(config.parent)
    forbid_core_files()
    reports = os.fdopen(messages.REPORT_FD, "wb")

    def send(message: messages.WorkerMessage) -> None:
        # Also called by the database's thread; the file's lock keeps each line whole.
        reports.write(msgspec.json.encode(message) + b"\n")
        reports.flush()

    begin_log(config.verbose, lambda event: send(_record(event)))
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    share_ports()
    try:
        service = ServerService(reactor, config.config, config.number)
    except IdentityError as problem:
        send(messages.Failed(str(problem)))
        sys.exit(EXIT_CONFIG)
    ending = Ending(reactor)

    def failed(failure: Failure) -> None:
        send(messages.Failed(why_not(failure)))
        ending.begin(EXIT_START)

    def began() -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: reactor.callFromThread(ending.begin, 0))
        service.startService()
        started: Deferred[None] = service.started
        started.addCallbacks(lambda _: send(messages.Serving()), failed)

    reactor.callWhenRunning(began)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    sys.exit(ending.status)


class Ending:
    """End of the process: stops the reactor once, although the parent and a service manager may both signal."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._begun = False
        self.status = 0

    def begin(self, status: int) -> None:
        """Stop the reactor; the status of the first call is the exit status."""
        if not self._begun:
            self._begun, self.status = True, status
            self._reactor.stop()


def _record(event: LogEvent) -> messages.LogRecord:
    """Return an event as the message to the parent: the traceback of a failure is part of the text."""
    text = formatEvent(event)
    if "log_failure" in event:
        text += "\n" + event["log_failure"].getTraceback()
    level = event.get("log_level")
    namespace = str(event.get("log_namespace", ""))
    return messages.LogRecord(level.name if level else "info", namespace, text[: messages.TEXT_MAX], fields_of(event))
