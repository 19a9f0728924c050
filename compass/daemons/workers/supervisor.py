"""Parent of several `opengnssd` workers: reserves the ports, starts the processes, and restarts those that die."""

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

RESTART_SECONDS_MIN = 0.1
"""Shortest pause from a worker's death to its restart: the others accept its hosts meanwhile, so nothing is urgent."""
RESTART_SECONDS_MAX = 30.0
"""Longest pause: a worker that dies at each start, say because its certificate was replaced by a wrong one, costs one
start in this time."""
STABLE_SECONDS = 60.0
"""Time of serving after which a worker's death says nothing about the next start: pauses begin at the minimum again."""
STOP_SECONDS = 15.0
"""Time from SIGTERM to SIGKILL: longer than a commit may wait for the database (`compass.store.engine`), so that a
running commit ends and no client is left in doubt about it."""

_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from compass.daemons.workers.worker import main; main()"
_ROOT = str(Path(compass.__file__).parents[2])


def pause_before_next(pause_seconds: float, lived_seconds: float) -> float:
    """Return the seconds until a worker is restarted, from its last pause and the time that it has served since."""
    if lived_seconds >= STABLE_SECONDS:
        return RESTART_SECONDS_MIN
    return min(max(pause_seconds * 2, RESTART_SECONDS_MIN), RESTART_SECONDS_MAX)


class WorkersService(Service):
    """Service of `opengnssd` with `workers` above 1."""

    log = Logger()

    def __init__(self, reactor: Any, config: ServerConfig, verbose: bool = False) -> None:
        """Read the certificates, as each worker will. Raises IdentityError before anything is opened."""
        own_name(identity_of(config.tls), config.tls, "server")
        self._reactor = reactor
        self._config = config
        self._reserved: list[PortReservation] = []
        self._workers = [_Worker(reactor, config, verbose, n + 1) for n in range(config.server.workers)]

    def startService(self) -> None:
        """Reserve the ports and start the processes; `started` fires when all of them serve.

        `started` fails with CannotListenError, or with CannotStart if one of the processes fails.
        """
        super().startService()
        self.started: Deferred[Any] = Deferred()
        self.started.addErrback(lambda failure: failure.trap(CancelledError) and None)
        # Without a running reactor, the end of a started process would be missed.
        self._reactor.callWhenRunning(self._start)

    def _start(self) -> None:
        if not self.running:
            return
        try:
            for address, port in _endpoints(self._config):
                self._reserved.append(PortReservation(address, port))
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
        """Stop all workers in order. Returns a Deferred that fires when they have ended."""
        super().stopService()
        self.started.cancel()

        def finish(_: object) -> None:
            for opened in self._reserved:
                opened.close()
            self.log.info("opengnssd has stopped")

        return gatherResults([worker.stop() for worker in self._workers]).addBoth(finish)


def _endpoints(config: ServerConfig) -> list[tuple[str, int]]:
    """Return every endpoint that the configuration names, for whatever protocol."""
    sections = [getattr(config, name) for name in config.__struct_fields__]
    listens = [getattr(section, "listen", ()) for section in sections]
    texts = [text for listen in listens for text in ((listen,) if isinstance(listen, str) else listen)]
    return [parse_listen(text) for text in texts if text]


class _Worker:
    """Worker of the server: its process, and the processes that replace it."""

    log = Logger()

    def __init__(self, reactor: Any, config: ServerConfig, verbose: bool, number: int) -> None:
        self._reactor = reactor
        self._number = number
        self._config = config
        self._verbose = verbose
        self._first: Deferred[None] | None = Deferred()
        self._process: _Process | None = None
        self._pause = 0.0
        self._restart: Any = None
        self._stopping = False

    def start(self) -> Deferred[None]:
        """Start the process. Returns a Deferred of the first time that it serves; it may fail with CannotStart."""
        assert self._first is not None
        first = self._first
        self._begin()
        return first

    def stop(self) -> Deferred[None]:
        """Stop the process. Returns a Deferred that fires when it has ended."""
        self._stopping = True
        self._first = None
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        ended: Deferred[None] = Deferred()
        if self._process is None:
            ended.callback(None)
        else:
            self._process.end(ended)
        return ended

    def _begin(self) -> None:
        self._restart = None
        process = _Process(self._reactor, self)
        try:
            process.spawn(WorkerConfig(self._number, os.getpid(), self._config, self._verbose))
        except OSError as error:
            self.ended(f"could not be started: {error}.", 0.0)
        else:
            self._process = process

    def received(self, message: WorkerMessage) -> None:
        """Handle a message of the process: log its entries, note that it serves, or why it failed."""
        match message:
            case LogRecord(level, namespace, text, fields):
                where = Logger(namespace or "compass")
                more = {"text": text, "worker_fields": fields}
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
        """Restart the process after a pause, unless this worker is stopping."""
        self._process = None
        if self._first is not None:
            self._failed(f"worker {self._number} ended: {how}")
        if self._stopping:
            return
        self._pause = pause_before_next(self._pause, lived_seconds)
        self.log.error(
            "worker {n} ended after {lived:.1f} s: {how} It restarts in {pause:g} s",
            n=self._number,
            lived=lived_seconds,
            how=how,
            pause=self._pause,
        )
        self._restart = self._reactor.callLater(self._pause, self._begin)


class _Process(protocol.ProcessProtocol):
    """Process of a worker: its configuration, its messages and its end."""

    def __init__(self, reactor: Any, worker: _Worker) -> None:
        self._reactor = reactor
        self._worker = worker
        self._unread = b""
        self._began = reactor.seconds()
        self._kill: Any = None
        self._ended: Deferred[None] | None = None

    def spawn(self, config: WorkerConfig) -> None:
        """Start the process. Raises OSError if the system refuses another process."""
        command = [sys.executable, "-c", _PROGRAM, _ROOT]
        files: dict[int, int | str] = {0: "w", 1: 1, 2: 2, REPORT_FD: "r"}
        transport = self._reactor.spawnProcess(self, sys.executable, command, env=None, childFDs=files)
        transport.write(msgspec.json.encode(config))
        transport.closeStdin()

    def childDataReceived(self, fd: int, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._worker.received(msgspec.json.decode(line, type=WorkerMessage))

    def end(self, ended: Deferred[None]) -> None:
        """End the process by SIGTERM, and by SIGKILL after STOP_SECONDS."""
        self._ended = ended
        self._signal("TERM")
        self._kill = self._reactor.callLater(STOP_SECONDS, self._signal, "KILL")

    def _signal(self, name: str) -> None:
        transport: Any = self.transport
        if name == "KILL":
            self._worker.log.warn("worker {pid} does not end: killing it", pid=transport.pid)
        with contextlib.suppress(ProcessExitedAlready):
            transport.signalProcess(name)

    def processEnded(self, reason: Failure) -> None:
        if self._kill is not None and self._kill.active():
            self._kill.cancel()
        self._worker.ended(_how(reason.value), self._reactor.seconds() - self._began)
        if self._ended is not None:
            self._ended.callback(None)


def _how(ended: Any) -> str:
    if ended.signal is not None:
        return f"killed by {signal.Signals(ended.signal).name}."
    return f"exit status {ended.exitCode}."
