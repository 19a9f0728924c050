"""Supervisor of `opengnsc run`: one command, its signals and the daemon, around the pure `state_machine`.

All events arrive in one queue. Threads wait for them: one for signals, one for the command to listen, one for the
daemon's answers; the main thread alone starts, signals and ends the command, and starts the next process. The command's
process is not reaped before the end, so its number stays its own while the daemon or a signal may still use it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Queue

import msgspec

from compass.cli.run import state_machine
from compass.cli.run.dependency_env import DependencyEnvironment, Notes
from compass.cli.run.readiness import ReadinessCheck, accepts, endpoints_of, readiness_problem, running_checks, spawning
from compass.cli.run.restart_policy import Policy, RestartCounter
from compass.client.core.blocking_api import ApiProblem, Holding, HostApi
from compass.client.core.errors import UNCHANGED
from compass.model.exit_codes import ExitCode
from compass.model.host_api import LocalDeregister, LocalDrain, LocalRegister, Outcome
from compass.model.names import format_endpoint
from compass.system.systemd import VARIABLES, SdNotify

PROBE_SECONDS = 0.05
"""Seconds between two checks whether the command listens: how late a start-up may be registered."""
STUCK_EVENTS = 100
"""Events in the queue; with more, the main thread hangs and no signs of life are sent."""
FIRST_PROCESS = 1
"""This process's number as the first process of a container, which has its own namespace of process numbers."""
FROM_KERNEL = 0x80
"""SI_KERNEL of sigaction(2): the terminal sent the signal, to the whole foreground process group."""
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that the Python interpreter ignores; the command gets their default action."""


class RunOptions(msgspec.Struct, frozen=True):
    """Options of `opengnsc run`."""

    registrations: tuple[LocalRegister, ...]
    """The registrations; the supervisor sets `pid`. Dependencies are those of the first one's service."""
    command: tuple[str, ...]
    environment: dict[str, str]
    ready_seconds: float
    check: ReadinessCheck = ReadinessCheck()
    drain_seconds: float = 0.0
    restart: Policy = "no"
    restart_limit: int = 0
    dependencies_file: Path | None = None


class RunContext(msgspec.Struct, frozen=True):
    """Dependencies of one run, shared by each process of the command."""

    api: HostApi
    options: RunOptions
    environment: dict[str, str]
    """Environment of the command."""
    notes: Notes
    manager: SdNotify
    """The service manager."""
    events: Queue[state_machine.Event | None]
    """Events for the main thread; None: SIGCHLD, the command or an orphan may have ended."""


class Supervisor:
    """Supervisor of one command, and of each process that replaces a process of it."""

    def __init__(self, api: HostApi, options: RunOptions, notes: Notes) -> None:
        # The manager wants signs of life from its main process, which may be a wrapper of this one.
        manager = SdNotify({name: value for name, value in options.environment.items() if name != "WATCHDOG_PID"})
        # The command is not the main process: the manager would refuse its messages, or worse, believe them.
        environment = {name: value for name, value in options.environment.items() if name not in VARIABLES}
        self._run = RunContext(api, options, environment, notes, manager, Queue())
        service = options.registrations[0].service
        self._dependencies = DependencyEnvironment(api, service, options.dependencies_file, notes)
        self._signals: frozenset[int] = frozenset()

    def run(self) -> int:
        """Run the command until it ends for good. Returns the exit status."""
        options, manager = self._run.options, self._run.manager
        endpoints = [endpoints_of(registration.address, registration.port) for registration in options.registrations]
        for several in endpoints:
            if any(accepts(endpoint) for endpoint in several):
                at = " or ".join(format_endpoint(*endpoint) for endpoint in several)
                self._run.notes.print_note(
                    f"another process accepts connections at {at}; end it, or choose another --port"
                )
                return ExitCode.CONFLICT
        self._signals = _block_signals()
        threading.Thread(target=self._await_signals, daemon=True).start()
        if manager.watchdog_seconds:
            threading.Thread(target=self._send_signs_of_life, daemon=True).start()
        self._run.environment.update(self._dependencies.variables())
        self._dependencies.start()
        restarts = RestartCounter(options.restart, options.restart_limit)
        while True:
            started = time.monotonic()
            process = SupervisedProcess(self._run)
            status = process.run(endpoints)
            stopped = bool(process.state.forwarded & state_machine.STOP_SIGNALS)
            refused = process.state.exit_status is not None
            ran = time.monotonic() - started
            pause = None if stopped or process.could_not_start else restarts.pause(status, ran, refused=refused)
            if pause is None:
                if restarts.exhausted and not stopped:
                    self._run.notes.print_note(
                        f"the command ended {options.restart_limit + 1} times in a row: giving up"
                    )
                return status
            self._run.notes.print_note(f"restarting the command in {pause:g} s")
            manager.status("waiting to start again")
            if self._wait_for_stop(pause):
                return status

    def _wait_for_stop(self, seconds: float) -> bool:
        """Wait. Returns whether a stop signal ended the wait."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                event = self._run.events.get(timeout=left)
            except Empty:
                return False
            if isinstance(event, state_machine.Signalled) and event.number in state_machine.STOP_SIGNALS:
                return True
        return False

    def _await_signals(self) -> None:
        while True:
            seen = signal.sigwaitinfo(self._signals)
            if seen.si_signo == signal.SIGCHLD:
                self._run.events.put(None)
            else:
                self._run.events.put(state_machine.Signalled(seen.si_signo, shared=seen.si_code == FROM_KERNEL))

    def _send_signs_of_life(self) -> None:
        """Send signs of life to the service manager as long as the main thread takes events."""
        while True:
            if self._run.events.qsize() < STUCK_EVENTS:
                self._run.manager.alive()
            time.sleep(self._run.manager.watchdog_seconds)


class SupervisedProcess:
    """Process of the command, from its start to its end."""

    def __init__(self, context: RunContext) -> None:
        self.state = state_machine.RunState(drains=context.options.drain_seconds > 0)
        self.could_not_start = False
        self._run = context
        self._pid = 0
        self._epochs: dict[tuple[str, int], int] = {}
        """Epoch of each registration, by service and port."""
        self._holds = os.getpid() == FIRST_PROCESS
        """The daemon cannot watch processes by our numbers, as in a container, but it sees connections. A daemon that
        is older than its own answer about this is not asked by a container's first process."""
        self._holdings: dict[tuple[str, int], Holding] = {}
        """Held registrations."""
        self._daemon_calls: Queue[Callable[[], state_machine.Event | None]] = Queue()
        self._finished = threading.Event()

    def run(self, endpoints: Sequence[Sequence[tuple[str, int]]]) -> int:
        """Start the process and carry out the state machine's actions until it ends. Returns the exit status."""
        try:
            self._pid = self._start()
        except FileNotFoundError:
            self.could_not_start = True
            self._run.notes.print_note(f"there is no command {self._run.options.command[0]!r}")
            return ExitCode.NO_COMMAND
        except OSError as error:
            self.could_not_start = True
            self._run.notes.print_note(f"{self._run.options.command[0]!r} cannot be executed: {error.strerror}")
            return ExitCode.NOT_EXECUTABLE
        for target in (lambda: self._await_listening(endpoints), self._call_daemon):
            threading.Thread(target=target, daemon=True).start()
        while True:
            event = self._run.events.get() or self._process_ended()
            if event is None:
                continue
            self.state, actions = state_machine.step(self.state, event)
            for action in actions:
                if isinstance(action, state_machine.Finish):
                    self._finished.set()
                    for holding in list(self._holdings.values()):
                        holding.close()
                    os.waitpid(self._pid, 0)
                    return action.status
                self._carry_out(action)

    def _start(self) -> int:
        """Start the command in our process group, with the signals as we got them. Returns its process number."""
        command = self._run.options.command
        return os.posix_spawnp(
            command[0], list(command), self._run.environment, setsigmask=[], setsigdef=PYTHON_IGNORES
        )

    def _carry_out(self, action: state_machine.Action) -> None:
        match action:
            case state_machine.Print(text):
                self._run.notes.print_note(text)
                if text == "registered":
                    self._run.manager.ready("registered")
            case state_machine.ForwardSignal(number):
                os.kill(self._pid, number)
            case state_machine.Kill():
                os.kill(self._pid, signal.SIGTERM)
                self._call_later(state_machine.KILL_SECONDS, lambda: os.kill(self._pid, signal.SIGKILL))
            case state_machine.Register(pause):
                self._call_later(pause, lambda: self._daemon_calls.put(self._register))
            case state_machine.Drain():
                self._run.manager.stopping("leaving")
                self._run.notes.print_note(f"draining for {self._run.options.drain_seconds:g} s")
                self._daemon_calls.put(self._drain)
                self._call_later(self._run.options.drain_seconds, lambda: self._run.events.put(state_machine.Drained()))
            case state_machine.Deregister():
                self._run.manager.stopping("leaving")
                self._daemon_calls.put(self._deregister)
                text = f"opengnscd at {self._run.api.endpoint} did not answer within {state_machine.LEAVE_SECONDS:g} s"
                self._call_later(
                    state_machine.LEAVE_SECONDS, lambda: self._run.events.put(state_machine.DeregisterDone(text))
                )

    def _call_later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, lambda: None if self._finished.is_set() else call())
        timer.daemon = True
        timer.start()

    def _register(self) -> state_machine.Event:
        """Register every service; repeating a registration that exists already changes nothing."""
        pending = False
        for registration in self._run.options.registrations:
            try:
                outcome = self._register_one(registration)
            except ApiProblem as problem:
                return state_machine.Unregistered(problem.code, problem.message, problem.retry_after_seconds)
            self._epochs[registration.service, registration.port] = outcome.epoch
            pending = pending or outcome.state == "pending"
        return state_machine.Registered(pending=pending)

    def _register_one(self, registration: LocalRegister) -> Outcome:
        """Register one service. Raises ApiProblem."""
        if not self._holds:
            try:
                return self._run.api.register(msgspec.structs.replace(registration, pid=self._pid))
            except ApiProblem as problem:
                if problem.code != "foreign-process":
                    raise
                self._holds = True
        key = registration.service, registration.port
        if key in self._holdings:
            self._holdings.pop(key).close()
        # Noted before the daemon is asked: if the command ends meanwhile, the registration must end too.
        held = msgspec.structs.replace(registration, hold=True)
        holding = self._holdings[key] = self._run.api.holding(held, self._run.notes.print_note)
        outcome = holding.next()
        if outcome is None or self._finished.is_set():
            holding.close()
            raise ApiProblem("deregistered", "the command has ended")
        threading.Thread(target=self._follow_holding, args=(key, holding), daemon=True).start()
        return outcome

    def _follow_holding(self, key: tuple[str, int], holding: Holding) -> None:
        """Keep the registration up to date; it is made again whenever the daemon is restarted."""
        try:
            while (outcome := holding.next()) is not None:
                self._epochs[key] = outcome.epoch
        except ApiProblem as problem:
            self._run.notes.print_note(f"{key[0]} at port {key[1]} is no longer registered: {problem.message}")

    def _drain(self) -> None:
        for registration in self._run.options.registrations:
            try:
                self._run.api.drain(
                    LocalDrain(
                        registration.service, registration.port, registration.credential, True, registration.address
                    )
                )
            except ApiProblem as problem:
                self._run.notes.print_note(f"cannot drain {registration.service}: {problem.message}")

    def _deregister(self) -> state_machine.Event:
        problems = []
        for registration in self._run.options.registrations:
            epoch = self._epochs.get((registration.service, registration.port), 0)
            request = LocalDeregister(
                registration.service, registration.port, registration.credential, registration.address, epoch=epoch
            )
            try:
                self._run.api.deregister(request)
            except ApiProblem as problem:
                if problem.code not in UNCHANGED:
                    problems.append(problem.message)
        return state_machine.DeregisterDone("; ".join(dict.fromkeys(problems)))

    def _process_ended(self) -> state_machine.Ended | None:
        """Return how the command ended, or None while it runs.

        As the first process of a container we are the parent of orphans, which are reaped here.
        """
        _reap_others(self._pid)
        found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        return state_machine.Ended(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)

    def _await_listening(self, endpoints: Sequence[Sequence[tuple[str, int]]]) -> None:
        seconds = self._run.options.ready_seconds
        end = time.monotonic() + seconds
        missing = [""]
        while time.monotonic() < end:
            # The additional check is made once, where the first service listens.
            checks = [self._run.options.check, *[ReadinessCheck()] * (len(endpoints) - 1)]
            missing = list(filter(None, map(readiness_problem, endpoints, checks)))
            if not missing:
                self._put_event(state_machine.Listening())
                return
            if self._finished.wait(PROBE_SECONDS):
                return
        text = (
            f"the command {missing[0]} after {seconds:g} s and is stopped; "
            "is it the address and the port that it listens on, or does it need a longer --ready-timeout?"
        )
        self._put_event(state_machine.NotListening(text))

    def _call_daemon(self) -> None:
        while not self._finished.is_set():
            event = self._daemon_calls.get()()
            if event is not None:
                self._put_event(event)

    def _put_event(self, event: state_machine.Event) -> None:
        """Queue an event, unless this process has ended: the next one has a state of its own."""
        if not self._finished.is_set():
            self._run.events.put(event)


def _reap_others(pid: int) -> None:
    """Reap ended children that are neither the command nor a check: orphans that we have inherited."""
    with spawning:
        for children in Path("/proc/self/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                if child != pid and child not in running_checks:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(child, os.WNOHANG)


def _block_signals() -> frozenset[int]:
    """Block the signals that `sigwaitinfo` receives from now on, but no ignored one. Returns those blocked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    taken = {number for number in state_machine.FORWARDED_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    taken.add(signal.SIGCHLD)
    signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    return frozenset(taken)
