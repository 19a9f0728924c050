"""The shell of `opengnsc run`: a real command, real signals, a real daemon, around the pure `course`.

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
from compass.cli.run.readiness import ReadinessCheck, accepts, readiness_problem, spawning, under_way
from compass.cli.run.restart_policy import Policy, Restarts
from compass.cli.run.state_machine import (
    KILL_SECONDS,
    LEAVE_SECONDS,
    PASSED_SIGNALS,
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
STUCK_HAPPENINGS = 100
"""Happenings that wait to be taken: with more we are not alive, whatever else moves."""
FIRST_PROCESS = 1
"""Our own number as the first process of a container, which has a namespace of process numbers of its own."""
FROM_KERNEL = 0x80
"""SI_KERNEL of sigaction(2): the terminal sent the signal, to the whole foreground process group."""
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that this interpreter ignores and that the command is to have as usual."""


class RunOptions(msgspec.Struct, frozen=True):
    """What `opengnsc run` is to do."""

    wishes: tuple[LocalRegister, ...]
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

    def __init__(self, api: HostApi, orders: RunOptions, say: Callable[[str], None]) -> None:
        self._api = api
        self._orders = orders
        self._say = say
        # Signs of life are wanted of the manager's main process, which may be a wrapper of this one.
        self._notify = SdNotify({name: value for name, value in orders.environment.items() if name != "WATCHDOG_PID"})
        # The command is not the main process: the manager would refuse its messages, or worse, believe them.
        self._environment = {name: value for name, value in orders.environment.items() if name not in VARIABLES}
        self._surroundings = DependencyEnvironment(api, orders.wishes[0].service, orders.dependencies_file, say)
        self._happenings: Queue[Event | None] = Queue()
        self._taken: frozenset[int] = frozenset()

    def run(self) -> int:
        """Start the command, see it through, and give the exit status."""
        places = [places_of(wish.address, wish.port) for wish in self._orders.wishes]
        for several in places:
            if any(accepts(place) for place in several):
                at = " or ".join(format_endpoint(*place) for place in several)
                self._say(f"another process accepts connections at {at}; end it, or choose another --port")
                return ExitCode.CONFLICT
        self._taken = _take_signals()
        threading.Thread(target=self._await_signals, daemon=True).start()
        if self._notify.watchdog_seconds:
            threading.Thread(target=self._stay_alive, daemon=True).start()
        self._environment |= self._surroundings.variables()
        self._surroundings.keep()
        restarts = Restarts(self._orders.restart, self._orders.restart_limit)
        while True:
            began = time.monotonic()
            instance = SupervisedProcess(
                self._api, self._orders, self._environment, self._happenings, self._say, self._notify
            )
            status = instance.run(places)
            asked = bool(instance.course.passed & STOP_SIGNALS)
            refused = instance.course.verdict is not None
            ran = time.monotonic() - began
            pause = None if asked or instance.lost else restarts.pause(status, ran, refused=refused)
            if pause is None:
                if restarts.exhausted and not asked:
                    self._say(f"it has ended {self._orders.restart_limit + 1} times in a row: it is not started again")
                return status
            self._say(f"the command is started again in {pause:g} s")
            self._notify.status("waiting to start again")
            if self._told_to_stop(pause):
                return status

    def _told_to_stop(self, seconds: float) -> bool:
        """Wait; whether a signal ended it."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                happening = self._happenings.get(timeout=left)
            except Empty:
                return False
            if isinstance(happening, Signalled) and happening.number in STOP_SIGNALS:
                return True
        return False

    def _await_signals(self) -> None:
        while True:
            seen = signal.sigwaitinfo(self._taken)
            if seen.si_signo == signal.SIGCHLD:
                # None: look whether the command, or an orphan, has ended.
                self._happenings.put(None)
            else:
                self._happenings.put(Signalled(seen.si_signo, shared=seen.si_code == FROM_KERNEL))

    def _stay_alive(self) -> None:
        """Signs of life for the service manager, as long as happenings are taken."""
        while True:
            if self._happenings.qsize() < STUCK_HAPPENINGS:
                self._notify.alive()
            time.sleep(self._notify.watchdog_seconds)


class SupervisedProcess:
    """One process of the command, from its start to its end."""

    def __init__(
        self,
        api: HostApi,
        orders: RunOptions,
        environment: dict[str, str],
        happenings: Queue[Event | None],
        say: Callable[[str], None],
        notify: SdNotify,
    ) -> None:
        self.course = RunState(drains=orders.drain_seconds > 0)
        self.lost = False
        """The command could not be started at all."""
        self._api = api
        self._orders = orders
        self._environment = environment
        self._happenings = happenings
        self._say = say
        self._notify = notify
        self._pid = 0
        self._epochs: dict[tuple[str, int], int] = {}
        self._holdings: dict[tuple[str, int], Holding] = {}
        """In a process namespace of our own: the daemon cannot watch processes by our numbers, but sees connections."""
        self._asks: Queue[Callable[[], Event | None]] = Queue()
        self._over = threading.Event()

    def run(self, places: Sequence[Sequence[tuple[str, int]]]) -> int:
        """Start it, see it through, and give the exit status."""
        try:
            self._pid = self._start()
        except FileNotFoundError:
            self.lost = True
            self._say(f"there is no command {self._orders.command[0]!r}")
            return ExitCode.NO_COMMAND
        except OSError as error:
            self.lost = True
            self._say(f"{self._orders.command[0]!r} cannot be executed: {error.strerror}")
            return ExitCode.NOT_EXECUTABLE
        for target in (lambda: self._await_listening(places), self._ask_daemon):
            threading.Thread(target=target, daemon=True).start()
        while True:
            happening = self._happenings.get() or self._ended()
            if happening is None:
                continue
            self.course, actions = step(self.course, happening)
            for action in actions:
                if isinstance(action, Finish):
                    self._over.set()
                    for holding in list(self._holdings.values()):
                        holding.close()
                    os.waitpid(self._pid, 0)
                    return action.status
                self._do(action)

    def _start(self) -> int:
        """The command as a process of its own in our process group, with the signals as they were given to us."""
        command = self._orders.command
        return os.posix_spawnp(command[0], list(command), self._environment, setsigmask=[], setsigdef=PYTHON_IGNORES)

    def _do(self, action: Action) -> None:
        match action:
            case Print(text):
                self._say(text)
                if text == "registered":
                    self._notify.ready("registered")
            case ForwardSignal(number):
                os.kill(self._pid, number)
            case Kill():
                os.kill(self._pid, signal.SIGTERM)
                self._later(KILL_SECONDS, lambda: os.kill(self._pid, signal.SIGKILL))
            case Register(pause):
                self._later(pause, lambda: self._asks.put(self._register))
            case Drain():
                self._notify.stopping("leaving")
                self._say(f"draining for {self._orders.drain_seconds:g} s")
                self._asks.put(self._drain)
                self._later(self._orders.drain_seconds, lambda: self._happenings.put(Drained()))
            case Deregister():
                self._notify.stopping("leaving")
                self._asks.put(self._deregister)
                text = f"opengnscd at {self._api.endpoint} did not answer within {LEAVE_SECONDS:g} s"
                self._later(LEAVE_SECONDS, lambda: self._happenings.put(DeregisterDone(text)))

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, lambda: None if self._over.is_set() else call())
        timer.daemon = True
        timer.start()

    def _register(self) -> Event:
        """All of them; after a failure those that are registered already are asked for again, which changes nothing."""
        pending = False
        for wish in self._orders.wishes:
            try:
                outcome = self._registered(wish)
            except ApiProblem as problem:
                return Unregistered(problem.code, problem.message, problem.retry_after_seconds)
            self._epochs[wish.service, wish.port] = outcome.epoch
            pending = pending or outcome.state == "pending"
        return Registered(pending=pending)

    def _registered(self, wish: LocalRegister) -> Outcome:
        """Raises ApiProblem."""
        if os.getpid() != FIRST_PROCESS:
            return self._api.register(msgspec.structs.replace(wish, pid=self._pid))
        key = wish.service, wish.port
        if key in self._holdings:
            self._holdings.pop(key).close()
        # Noted before it is asked for: the command may end meanwhile, and then it must be over, too.
        holding = self._holdings[key] = self._api.holding(msgspec.structs.replace(wish, hold=True), self._say)
        outcome = holding.next()
        if outcome is None or self._over.is_set():
            holding.close()
            raise ApiProblem("deregistered", "the command has ended")
        threading.Thread(target=self._hold, args=(key, holding), daemon=True).start()
        return outcome

    def _hold(self, key: tuple[str, int], holding: Holding) -> None:
        """Make it anew whenever the daemon is restarted."""
        try:
            while (outcome := holding.next()) is not None:
                self._epochs[key] = outcome.epoch
        except ApiProblem as problem:
            self._say(f"{key[0]} at port {key[1]} is not registered any more: {problem.message}")

    def _drain(self) -> None:
        for wish in self._orders.wishes:
            try:
                self._api.drain(LocalDrain(wish.service, wish.port, wish.credential, True, wish.address))
            except ApiProblem as problem:
                self._say(f"users of {wish.service} are not told that it drains: {problem.message}")

    def _deregister(self) -> Event:
        problems = []
        for wish in self._orders.wishes:
            epoch = self._epochs.get((wish.service, wish.port), 0)
            request = LocalDeregister(wish.service, wish.port, wish.credential, wish.address, epoch=epoch)
            try:
                self._api.deregister(request)
            except ApiProblem as problem:
                if problem.code not in UNCHANGED:
                    problems.append(problem.message)
        return DeregisterDone("; ".join(dict.fromkeys(problems)))

    def _ended(self) -> Ended | None:
        """How the command ended, if it has. Orphans, of which we are the parent as the first process of a container,
        are let go."""
        _reap_others(self._pid)
        found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        return Ended(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)

    def _await_listening(self, places: Sequence[Sequence[tuple[str, int]]]) -> None:
        seconds = self._orders.ready_seconds
        end = time.monotonic() + seconds
        missing = [""]
        while time.monotonic() < end:
            # The check of its own is made once, where the first one listens.
            checks = [self._orders.check, *[ReadinessCheck()] * (len(places) - 1)]
            missing = list(filter(None, map(readiness_problem, places, checks)))
            if not missing:
                self._put(Listening())
                return
            if self._over.wait(PROBE_SECONDS):
                return
        text = (
            f"the command {missing[0]} after {seconds:g} s and is stopped; "
            "is it the address and the port that it listens on, or does it need a longer --ready-timeout?"
        )
        self._put(NotListening(text))

    def _ask_daemon(self) -> None:
        while not self._over.is_set():
            happening = self._asks.get()()
            if happening is not None:
                self._put(happening)

    def _put(self, happening: Event) -> None:
        """Unless it is over: the next instance has another course."""
        if not self._over.is_set():
            self._happenings.put(happening)


def _reap_others(pid: int) -> None:
    """Let go of ended children that are neither the command nor a check: orphans, whose parent we have become."""
    with spawning:
        for children in Path("/proc/self/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                if child != pid and child not in under_way:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(child, os.WNOHANG)


def _take_signals() -> frozenset[int]:
    """Block the signals that `sigwaitinfo` takes from now on; those that we were told to ignore stay ignored."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    taken = {number for number in PASSED_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    taken.add(signal.SIGCHLD)
    signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    return frozenset(taken)


def places_of(address: str, port: int) -> list[tuple[str, int]]:
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
