"""The shell of `opengnsc run`: a real command, real signals, a real daemon, around the pure `state`.

Everything that happens comes through one queue. Threads wait for it: one for signals, one for the command to listen,
one for the daemon's answers; the main thread alone starts, signals and ends the command, and starts the next one. The
command's process is not reaped before the end, so its number means nobody else while the daemon or a signal is on the
way to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Queue

import msgspec

from compass.cli.run.dependency_env import DependencyEnvironment
from compass.cli.run.readiness import ReadinessCheck, accepts, readiness_problem, running_checks, spawning
from compass.cli.run.restart_policy import Policy, RestartCounter
from compass.cli.run.state_machine import (
    FORWARDED_SIGNALS,
    KILL_SECONDS,
    LEAVE_SECONDS,
    STOP_SIGNALS,
    Action,
    Deregister,
    DeregisterDone,
    Drain,
    Drained,
    Ended,
    Event,
    Finish,
    ForwardSignal,
    Kill,
    Listening,
    NotListening,
    Print,
    Register,
    Registered,
    RunState,
    Signalled,
    Unregistered,
    step,
)
from compass.client.core.blocking_api import ApiProblem, Holding, HostApi
from compass.client.core.client import UNCHANGED
from compass.model.exit_codes import ExitCode
from compass.model.host_api import LocalDeregister, LocalDrain, LocalRegister, Outcome
from compass.model.names import format_endpoint
from compass.system.sd_notify import VARIABLES, SdNotify

PROBE_SECONDS = 0.05
"""Between two looks whether the command listens: what a start-up may be registered late."""
STUCK_EVENTS = 100
"""Happenings that wait to be taken: with more we are not alive, whatever else moves."""
FIRST_PROCESS = 1
"""Our own number as the first process of a container, which has a namespace of process numbers of its own."""
FROM_KERNEL = 0x80
"""SI_KERNEL of sigaction(2): the terminal sent the signal, to the whole foreground process group."""
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that this interpreter ignores and that the command is to have as usual."""


class RunOptions(msgspec.Struct, frozen=True):
    """What `opengnsc run` is to do."""

    registrations: tuple[LocalRegister, ...]
    """The registrations; their `pid` is set here. The first one's service is on whose behalf dependencies are asked."""
    command: tuple[str, ...]
    environment: dict[str, str]
    ready_seconds: float
    check: ReadinessCheck = ReadinessCheck()
    drain_seconds: float = 0.0
    restart: Policy = "no"
    restart_limit: int = 0
    dependencies_file: Path | None = None


class Supervisor:
    """One command under the name service, and each that takes its place."""

    def __init__(self, api: HostApi, options: RunOptions, say: Callable[[str], None]) -> None:
        self._api = api
        self._options = options
        self._print = say
        # Signs of life are wanted of the manager's main process, which may be a wrapper of this one.
        self._notify = SdNotify({name: value for name, value in options.environment.items() if name != "WATCHDOG_PID"})
        # The command is not the main process: the manager would refuse its messages, or worse, believe them.
        self._environment = {name: value for name, value in options.environment.items() if name not in VARIABLES}
        self._dependencies = DependencyEnvironment(
            api, options.registrations[0].service, options.dependencies_file, say
        )
        self._events: Queue[Event | None] = Queue()
        self._signals: frozenset[int] = frozenset()

    def run(self) -> int:
        """Start the command, see it through, and give the exit status."""
        places = [endpoints_of(registration.address, registration.port) for registration in self._options.registrations]
        for several in places:
            if any(accepts(place) for place in several):
                at = " or ".join(format_endpoint(*place) for place in several)
                self._print(f"another process accepts connections at {at}; end it, or choose another --port")
                return ExitCode.CONFLICT
        self._signals = _block_signals()
        threading.Thread(target=self._await_signals, daemon=True).start()
        if self._notify.watchdog_seconds:
            threading.Thread(target=self._send_signs_of_life, daemon=True).start()
        self._environment |= self._dependencies.variables()
        self._dependencies.start()
        restarts = RestartCounter(self._options.restart, self._options.restart_limit)
        while True:
            began = time.monotonic()
            instance = SupervisedProcess(
                self._api, self._options, self._environment, self._events, self._print, self._notify
            )
            status = instance.run(places)
            asked = bool(instance.state.forwarded & STOP_SIGNALS)
            refused = instance.state.exit_status is not None
            ran = time.monotonic() - began
            pause = None if asked or instance.could_not_start else restarts.pause(status, ran, refused=refused)
            if pause is None:
                if restarts.exhausted and not asked:
                    self._print(
                        f"it has ended {self._options.restart_limit + 1} times in a row: it is not started again"
                    )
                return status
            self._print(f"the command is started again in {pause:g} s")
            self._notify.status("waiting to start again")
            if self._wait_for_stop(pause):
                return status

    def _wait_for_stop(self, seconds: float) -> bool:
        """Wait; whether a signal ended it."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left)
            except Empty:
                return False
            if isinstance(event, Signalled) and event.number in STOP_SIGNALS:
                return True
        return False

    def _await_signals(self) -> None:
        while True:
            seen = signal.sigwaitinfo(self._signals)
            if seen.si_signo == signal.SIGCHLD:
                # None: look whether the command, or an orphan, has ended.
                self._events.put(None)
            else:
                self._events.put(Signalled(seen.si_signo, shared=seen.si_code == FROM_KERNEL))

    def _send_signs_of_life(self) -> None:
        """Signs of life for the service manager, as long as events are taken."""
        while True:
            if self._events.qsize() < STUCK_EVENTS:
                self._notify.alive()
            time.sleep(self._notify.watchdog_seconds)


class SupervisedProcess:
    """One process of the command, from its start to its end."""

    def __init__(
        self,
        api: HostApi,
        options: RunOptions,
        environment: dict[str, str],
        events: Queue[Event | None],
        say: Callable[[str], None],
        notify: SdNotify,
    ) -> None:
        self.state = RunState(drains=options.drain_seconds > 0)
        self.could_not_start = False
        """The command could not be started at all."""
        self._api = api
        self._options = options
        self._environment = environment
        self._events = events
        self._print = say
        self._notify = notify
        self._pid = 0
        self._epochs: dict[tuple[str, int], int] = {}
        self._holdings: dict[tuple[str, int], Holding] = {}
        """In a process namespace of our own: the daemon cannot watch processes by our numbers, but sees connections."""
        self._daemon_calls: Queue[Callable[[], Event | None]] = Queue()
        self._finished = threading.Event()

    def run(self, places: Sequence[Sequence[tuple[str, int]]]) -> int:
        """Start it, see it through, and give the exit status."""
        try:
            self._pid = self._start()
        except FileNotFoundError:
            self.could_not_start = True
            self._print(f"there is no command {self._options.command[0]!r}")
            return ExitCode.NO_COMMAND
        except OSError as error:
            self.could_not_start = True
            self._print(f"{self._options.command[0]!r} cannot be executed: {error.strerror}")
            return ExitCode.NOT_EXECUTABLE
        for target in (lambda: self._await_listening(places), self._call_daemon):
            threading.Thread(target=target, daemon=True).start()
        while True:
            event = self._events.get() or self._process_ended()
            if event is None:
                continue
            self.state, actions = step(self.state, event)
            for action in actions:
                if isinstance(action, Finish):
                    self._finished.set()
                    for holding in list(self._holdings.values()):
                        holding.close()
                    os.waitpid(self._pid, 0)
                    return action.status
                self._carry_out(action)

    def _start(self) -> int:
        """The command as a process of its own in our process group, with the signals as they were given to us."""
        command = self._options.command
        return os.posix_spawnp(command[0], list(command), self._environment, setsigmask=[], setsigdef=PYTHON_IGNORES)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Print(text):
                self._print(text)
                if text == "registered":
                    self._notify.ready("registered")
            case ForwardSignal(number):
                os.kill(self._pid, number)
            case Kill():
                os.kill(self._pid, signal.SIGTERM)
                self._call_later(KILL_SECONDS, lambda: os.kill(self._pid, signal.SIGKILL))
            case Register(pause):
                self._call_later(pause, lambda: self._daemon_calls.put(self._register))
            case Drain():
                self._notify.stopping("leaving")
                self._print(f"draining for {self._options.drain_seconds:g} s")
                self._daemon_calls.put(self._drain)
                self._call_later(self._options.drain_seconds, lambda: self._events.put(Drained()))
            case Deregister():
                self._notify.stopping("leaving")
                self._daemon_calls.put(self._deregister)
                text = f"opengnscd at {self._api.endpoint} did not answer within {LEAVE_SECONDS:g} s"
                self._call_later(LEAVE_SECONDS, lambda: self._events.put(DeregisterDone(text)))

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, lambda: None if self._finished.is_set() else call())
        timer.daemon = True
        timer.start()

    def _register(self) -> Event:
        """All of them; after a failure those that are registered already are asked for again, which changes nothing."""
        pending = False
        for registration in self._options.registrations:
            try:
                outcome = self._register_one(registration)
            except ApiProblem as problem:
                return Unregistered(problem.code, problem.message, problem.retry_after_seconds)
            self._epochs[registration.service, registration.port] = outcome.epoch
            pending = pending or outcome.state == "pending"
        return Registered(pending=pending)

    def _register_one(self, registration: LocalRegister) -> Outcome:
        """Raises ApiProblem."""
        if os.getpid() != FIRST_PROCESS:
            return self._api.register(msgspec.structs.replace(registration, pid=self._pid))
        key = registration.service, registration.port
        if key in self._holdings:
            self._holdings.pop(key).close()
        # Noted before it is asked for: the command may end meanwhile, and then it must be over, too.
        holding = self._holdings[key] = self._api.holding(msgspec.structs.replace(registration, hold=True), self._print)
        outcome = holding.next()
        if outcome is None or self._finished.is_set():
            holding.close()
            raise ApiProblem("deregistered", "the command has ended")
        threading.Thread(target=self._follow_holding, args=(key, holding), daemon=True).start()
        return outcome

    def _follow_holding(self, key: tuple[str, int], holding: Holding) -> None:
        """Make it anew whenever the daemon is restarted."""
        try:
            while (outcome := holding.next()) is not None:
                self._epochs[key] = outcome.epoch
        except ApiProblem as problem:
            self._print(f"{key[0]} at port {key[1]} is not registered any more: {problem.message}")

    def _drain(self) -> None:
        for registration in self._options.registrations:
            try:
                self._api.drain(
                    LocalDrain(
                        registration.service, registration.port, registration.credential, True, registration.address
                    )
                )
            except ApiProblem as problem:
                self._print(f"users of {registration.service} are not told that it drains: {problem.message}")

    def _deregister(self) -> Event:
        problems = []
        for registration in self._options.registrations:
            epoch = self._epochs.get((registration.service, registration.port), 0)
            request = LocalDeregister(
                registration.service, registration.port, registration.credential, registration.address, epoch=epoch
            )
            try:
                self._api.deregister(request)
            except ApiProblem as problem:
                if problem.code not in UNCHANGED:
                    problems.append(problem.message)
        return DeregisterDone("; ".join(dict.fromkeys(problems)))

    def _process_ended(self) -> Ended | None:
        """How the command ended, if it has. Orphans, of which we are the parent as the first process of a container,
        are let go."""
        _reap_others(self._pid)
        found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        return Ended(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)

    def _await_listening(self, places: Sequence[Sequence[tuple[str, int]]]) -> None:
        seconds = self._options.ready_seconds
        end = time.monotonic() + seconds
        missing = [""]
        while time.monotonic() < end:
            # The check of its own is made once, where the first one listens.
            checks = [self._options.check, *[ReadinessCheck()] * (len(places) - 1)]
            missing = list(filter(None, map(readiness_problem, places, checks)))
            if not missing:
                self._put_event(Listening())
                return
            if self._finished.wait(PROBE_SECONDS):
                return
        text = (
            f"the command {missing[0]} after {seconds:g} s and is stopped; "
            "is it the address and the port that it listens on, or does it need a longer --ready-timeout?"
        )
        self._put_event(NotListening(text))

    def _call_daemon(self) -> None:
        while not self._finished.is_set():
            event = self._daemon_calls.get()()
            if event is not None:
                self._put_event(event)

    def _put_event(self, event: Event) -> None:
        """Unless it is over: the next instance has another state."""
        if not self._finished.is_set():
            self._events.put(event)


def _reap_others(pid: int) -> None:
    """Let go of ended children that are neither the command nor a check: orphans, whose parent we have become."""
    with spawning:
        for children in Path("/proc/self/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                if child != pid and child not in running_checks:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(child, os.WNOHANG)


def _block_signals() -> frozenset[int]:
    """Block the signals that `sigwaitinfo` takes from now on; those that we were told to ignore stay ignored."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    taken = {number for number in FORWARDED_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    taken.add(signal.SIGCHLD)
    signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    return frozenset(taken)


def endpoints_of(address: str, port: int) -> list[tuple[str, int]]:
    """Where a command that serves `address` accepts connections. Without an address it may be any of this machine."""
    if address:
        return [(address, port)]
    return [(own, port) for own in dict.fromkeys(["127.0.0.1", "::1", *_own_addresses()])]


def _own_addresses() -> list[str]:
    """The addresses that this machine's connections to others come from; nothing is sent to find out."""
    found = []
    # Documentation addresses (RFC 5737, RFC 3849): nobody's, so they go the default way.
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as unsent:
                unsent.connect((elsewhere, 9))
                found.append(str(unsent.getsockname()[0]))
        except OSError:
            continue
    return found
