"""One worker process of `opengnssd`: a server of its own over the common store, on ports that its parent reserved."""

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
from compass.daemons.workers.messages import (
    REPORT_FD,
    TEXT_MAX,
    Failed,
    LogRecord,
    Serving,
    WorkerConfig,
    WorkerMessage,
    die_with,
)
from compass.pki.identity import IdentityError


def main() -> NoReturn:
    """Read the orders, serve, and end with a status as `opengnssd` does."""
    # A terminal sends these to all of its processes; only the parent's word counts here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerConfig)
    die_with(orders.parent)
    forbid_core_files()
    voice = os.fdopen(REPORT_FD, "wb")

    def say(word: WorkerMessage) -> None:
        # Also from the database's thread; a line is never torn, for the file keeps others out while it takes one.
        voice.write(msgspec.json.encode(word) + b"\n")
        voice.flush()

    begin_log(orders.verbose, lambda event: say(_entry(event)))
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    share_ports()
    try:
        service = ServerService(reactor, orders.config, orders.number)
    except IdentityError as problem:
        say(Failed(str(problem)))
        sys.exit(EXIT_CONFIG)
    ending = Ending(reactor)

    def failed(failure: Failure) -> None:
        say(Failed(why_not(failure)))
        ending.begin(EXIT_START)

    def began() -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: reactor.callFromThread(ending.begin, 0))
        service.startService()
        started: Deferred[None] = service.started
        started.addCallbacks(lambda _: say(Serving()), failed)

    reactor.callWhenRunning(began)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    sys.exit(ending.status)


class Ending:
    """Stops the reactor once: a supervisor that signals the whole unit, and the parent, both say so."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._begun = False
        self.status = 0

    def begin(self, status: int) -> None:
        """The first reason counts."""
        if not self._begun:
            self._begun, self.status = True, status
            self._reactor.stop()


def _entry(event: LogEvent) -> LogRecord:
    """An entry of the log as its parent gets it: the traceback of a failure is part of the text."""
    text = formatEvent(event)
    if "log_failure" in event:
        text += "\n" + event["log_failure"].getTraceback()
    level = event.get("log_level")
    namespace = str(event.get("log_namespace", ""))
    return LogRecord(level.name if level else "info", namespace, text[:TEXT_MAX], fields_of(event))
