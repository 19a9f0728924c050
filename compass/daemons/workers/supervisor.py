"""The parent of several `opengnssd` workers: it reserves the ports, starts the processes, starts again who dies."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import CannotListenError, ProcessExitedAlready
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

import compass
from compass.daemons.config.reader import parse_listen
from compass.daemons.config.settings import ServerConfig
from compass.daemons.net.listen import identity_of, own_name
from compass.daemons.net.reuseport import PortReservation
from compass.daemons.process.start import CannotStart
from compass.daemons.workers.messages import REPORT_FD, Failed, LogRecord, Serving, WorkerConfig, WorkerMessage
from compass.model.names import format_endpoint

AGAIN_SECONDS_MIN = 0.1
"""From a worker's death to the next start: the others take its hosts meanwhile, so nothing is urgent."""
AGAIN_SECONDS_MAX = 30.0
"""A worker that dies at each start, say because its certificate was replaced by a wrong one, costs a start so often."""
LIVED_SECONDS = 60.0
"""One that has served for so long is no sign of what comes next: the pauses begin anew."""
STOP_SECONDS = 15.0
"""From SIGTERM to SIGKILL: longer than a commit may wait for the database (`compass.store.engine`), so that what is
being written comes to its end and nobody is left in doubt."""

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from compass.daemons.workers.worker import main; main()"
_ROOT = str(Path(compass.__file__).parents[2])


def pause_before_next(pause_seconds: float, lived_seconds: float) -> float:
    """Seconds until a worker is started again, from the pause before it and how long it has served since."""
    if lived_seconds >= LIVED_SECONDS:
        return AGAIN_SECONDS_MIN
    return min(max(pause_seconds * 2, AGAIN_SECONDS_MIN), AGAIN_SECONDS_MAX)


class WorkersService(Service):
    """`opengnssd` with `workers` above 1."""

    log = Logger()

    def __init__(self, reactor: Any, config: ServerConfig, verbose: bool = False) -> None:
        """Reads the certificates, as each worker will: raises IdentityError before anything is opened."""
        identity = identity_of(config.tls)
        own_name(identity, config.tls, "server")
        for warning in identity.warnings:
            self.log.warn("{warning}", warning=warning)
        self._reactor = reactor
        self._config = config
        self._reserved: list[PortReservation] = []
        self._workers = [_Worker(reactor, config, verbose, n + 1) for n in range(config.server.workers)]

    def startService(self) -> None:
        """Reserve the ports and start the processes; `started` fires when all of them serve.

        It fails with CannotListenError, or with CannotStart when one of them cannot.
        """
        super().startService()
        self.started: Deferred[Any] = Deferred()
        self.started.addErrback(lambda failure: failure.trap(CancelledError) and None)
        # Whoever starts a process must have a reactor that runs, or its end is missed.
        self._reactor.callWhenRunning(self._start)

    def _start(self) -> None:
        if not self.running:
            return
        try:
            for place in _places(self._config):
                self._reserved.append(PortReservation(*place))
        except CannotListenError:
            self.started.errback(Failure())
            return
        serving = gatherResults([worker.start() for worker in self._workers], consumeErrors=True)
        serving.addCallbacks(self._all_serve, self._one_cannot)

    def _all_serve(self, _: object) -> None:
        if not self.running:
            return
        for opened in self._reserved:
            where, number = format_endpoint(opened.address, opened.port), len(self._workers)
            self.log.info("opengnssd listens on {where} with {number} workers", where=where, number=number)
        self.started.callback(None)

    def _one_cannot(self, failure: Failure) -> None:
        if self.running:
            first: Any = failure.value
            self.started.errback(first.subFailure)

    def stopService(self) -> Deferred[Any]:
        """Have all workers say goodbye, and wait until they are gone."""
        super().stopService()
        self.started.cancel()

        def finish(_: object) -> None:
            for opened in self._reserved:
                opened.close()
            self.log.info("opengnssd has stopped")

        return gatherResults([worker.stop() for worker in self._workers]).addBoth(finish)


def _places(config: ServerConfig) -> list[tuple[str, int]]:
    """Every address that the file tells to listen on, whatever is served there."""
    sections = [getattr(config, name) for name in config.__struct_fields__]
    listens = [getattr(section, "listen", ()) for section in sections]
    texts = [text for listen in listens for text in ((listen,) if isinstance(listen, str) else listen)]
    return [parse_listen(text) for text in texts if text]


class _Worker:
    """One of the processes, and its successors."""

    log = Logger()

    def __init__(self, reactor: Any, config: ServerConfig, verbose: bool, number: int) -> None:
        self._reactor = reactor
        self._number = number
        self._config = config
        self._verbose = verbose
        self._first: Deferred[None] | None = Deferred()
        self._process: _Process | None = None
        self._pause = 0.0
        self._again: Any = None
        self._stopping = False

    def start(self) -> Deferred[None]:
        """Fires when it serves for the first time; fails with CannotStart when it cannot."""
        assert self._first is not None
        first = self._first
        self._begin()
        return first

    def stop(self) -> Deferred[None]:
        """Fires when it is gone."""
        self._stopping = True
        self._first = None
        if self._again is not None and self._again.active():
            self._again.cancel()
        gone: Deferred[None] = Deferred()
        if self._process is None:
            gone.callback(None)
        else:
            self._process.end(gone)
        return gone

    def _begin(self) -> None:
        self._again = None
        process = _Process(self._reactor, self)
        try:
            process.spawn(WorkerConfig(self._number, os.getpid(), self._config, self._verbose))
        except OSError as error:
            self.ended(f"it could not be started: {error}.", 0.0)
        else:
            self._process = process

    # What the process tells.

    def said(self, word: WorkerMessage) -> None:
        """Hand on what goes into the log; note that it serves, or why it cannot."""
        match word:
            case LogRecord(level, namespace, text, fields):
                where = Logger(namespace or "compass")
                more = {"text": text, "said_fields": fields}
                where.emit(LogLevel.lookupByName(level), "worker {n}: {text}", n=self._number, **more)
            case Serving():
                if self._first is None:
                    self.log.info("worker {n} serves again", n=self._number)
                else:
                    first, self._first = self._first, None
                    first.callback(None)
            case Failed(why):
                self._failed(why)

    def _failed(self, why: str) -> None:
        if self._first is not None:
            first, self._first = self._first, None
            self._stopping = True
            first.errback(CannotStart(why))
        elif not self._stopping:
            self.log.error("worker {n} could not start: {why}", n=self._number, why=why)

    def ended(self, how: str, lived_seconds: float) -> None:
        """Start the next one, unless that is not wanted any more."""
        self._process = None
        if self._first is not None:
            self._failed(f"worker {self._number} ended: {how}")
        if self._stopping:
            return
        self._pause = pause_before_next(self._pause, lived_seconds)
        self.log.error(
            "worker {n} ended after {lived:.1f} s: {how} It is started again in {pause:g} s",
            n=self._number,
            lived=lived_seconds,
            how=how,
            pause=self._pause,
        )
        self._again = self._reactor.callLater(self._pause, self._begin)


class _Process(protocol.ProcessProtocol):
    """One process: its orders, its voice and its end."""

    def __init__(self, reactor: Any, worker: _Worker) -> None:
        self._reactor = reactor
        self._worker = worker
        self._unread = b""
        self._began = reactor.seconds()
        self._kill: Any = None
        self._gone: Deferred[None] | None = None

    def spawn(self, orders: WorkerConfig) -> None:
        """Start it. Raises OSError when there can be no more processes."""
        command = [sys.executable, "-c", _PROGRAM, _ROOT]
        files: dict[int, int | str] = {0: "w", 1: 1, 2: 2, REPORT_FD: "r"}
        transport = self._reactor.spawnProcess(self, sys.executable, command, env=None, childFDs=files)
        transport.write(msgspec.json.encode(orders))
        transport.closeStdin()

    def childDataReceived(self, fd: int, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._worker.said(msgspec.json.decode(line, type=WorkerMessage))

    def end(self, gone: Deferred[None]) -> None:
        """By SIGTERM, and by SIGKILL when that takes too long."""
        self._gone = gone
        self._signal("TERM")
        self._kill = self._reactor.callLater(STOP_SECONDS, self._signal, "KILL")

    def _signal(self, name: str) -> None:
        transport: Any = self.transport
        if name == "KILL":
            self._worker.log.warn("worker {pid} does not end: it is killed", pid=transport.pid)
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess(name)

    def processEnded(self, reason: Failure) -> None:
        if self._kill is not None and self._kill.active():
            self._kill.cancel()
        self._worker.ended(_how(reason.value), self._reactor.seconds() - self._began)
        if self._gone is not None:
            self._gone.callback(None)


def _how(ended: Any) -> str:
    if ended.signal is not None:
        return f"killed by {signal.Signals(ended.signal).name}."
    return f"exit status {ended.exitCode}."
