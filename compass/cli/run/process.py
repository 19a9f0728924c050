"""Process of the command of `opengnsc run`, from its start to its end, around the pure `state_machine`.

Threads wait for the command to listen, for its repeated check, and for the daemon's answers; the main thread carries
out what follows. The process is not reaped before the end, so its number stays its own while the daemon or a signal may
still use it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Queue

import msgspec

from compass.cli.run import state_machine
from compass.cli.run.dependency_env import Notes
from compass.cli.run.notify_socket import NotifySocket
from compass.cli.run.process_tree import ProcessTree
from compass.cli.run.readiness import Endpoint, ReadinessCheck, accepts, readiness_problem
from compass.cli.run.registered_address import RegisteredAddress
from compass.cli.run.repeated_check import CheckedService, CheckPlan, RepeatedCheck
from compass.cli.run.restart_policy import Policy
from compass.cli.run.spawn import spawn_command
from compass.client.core.blocking_api import ApiProblem, Holding, HostApi
from compass.client.core.errors import UNCHANGED
from compass.model.exit_codes import ExitCode
from compass.model.host_api import LocalDeregister, LocalDrain, LocalRegister, Outcome
from compass.model.names import format_endpoint
from compass.system.systemd import SdNotify

PROBE_SECONDS = 0.05
"""Seconds between two checks whether the command listens: how late a start-up may be registered."""
WAITING_NOTE_SECONDS = 3.0
"""Seconds after which a command that does not listen yet is mentioned, or half of the time limit if that is less."""
FIRST_PROCESS = 1
"""This process's number as the first process of a container, which has its own namespace of process numbers."""
JOB_CONTROL = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
"""Signals by which a terminal stops its jobs; SIGSTOP is sent to one process on purpose."""
NOT_UNDERSTOOD = frozenset({"malformed", "unknown-message"})
"""Codes of a daemon that does not know a field of a request."""


class RunOptions(msgspec.Struct, frozen=True):
    """Options of `opengnsc run`."""

    registrations: tuple[LocalRegister, ...]
    """The registrations; the supervisor sets `pid`. Dependencies are those of the first one's service."""
    command: tuple[str, ...]
    environment: dict[str, str]
    ready_seconds: float
    check: ReadinessCheck = ReadinessCheck()
    plan: CheckPlan = CheckPlan()
    any_holder: bool = False
    """True: the port may be held by a process outside of the command's tree."""
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
    tree: ProcessTree
    address: RegisteredAddress
    """Addresses at which the services must accept connections."""
    watchdog: NotifySocket | None
    has_terminal: bool
    """True: the command is in the process group of this program, which the terminal signals."""


class SupervisedProcess:
    """Process of the command, from its start to its end."""

    def __init__(self, context: RunContext) -> None:
        self.state = state_machine.RunState(
            drains=context.options.drain_seconds > 0, restarts=context.options.restart != "no"
        )
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
        self._declared = context.options.plan.declared(context.options.check)
        self._hidden = False
        """True once it is known that /proc does not show who holds the port."""
        self._status = 0
        """Status of the first process, if it ended before the command served."""

    def run(self) -> int:
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
        if self._run.watchdog is not None:
            self._run.watchdog.started()
        for target in (self._await_listening, self._call_daemon):
            threading.Thread(target=target, daemon=True).start()
        while True:
            event = self._run.events.get() or self._process_ended()
            if event is None:
                continue
            if isinstance(event, state_machine.Listening) and not self._pid:
                # The first process has ended: the one that serves is the command now.
                self._pid = self._serving_root() or min(self._run.tree.roots(), default=0)
            self.state, actions = state_machine.step(self.state, event)
            for action in actions:
                if isinstance(action, state_machine.Finish):
                    self._finished.set()
                    for holding in list(self._holdings.values()):
                        holding.close()
                    self._reap()
                    return action.status
                self._carry_out(action)

    def _start(self) -> int:
        """Start the command with the signals as we got them. Returns its process number."""
        own_group = not self._run.has_terminal
        return spawn_command(self._run.options.command, self._run.environment, own_group=own_group)

    def _reap(self) -> None:
        """Forget the process that has ended; until now its number was its own."""
        if self._pid:
            os.waitpid(self._pid, 0)
        self._pid = 0

    def _signal(self, number: int) -> None:
        """Send the command a signal; without its first process, each of those that this one left."""
        for pid in {self._pid} if self._pid else self._run.tree.roots():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _carry_out(self, action: state_machine.Action) -> None:
        match action:
            case state_machine.Print(text):
                self._run.notes.print_note(text)
                if text == "registered":
                    self._run.manager.ready("registered")
            case state_machine.ForwardSignal(number):
                self._signal(number)
            case state_machine.Kill():
                self._run.tree.terminate()
                self._call_later(state_machine.KILL_SECONDS, lambda: self._run.tree.signal(signal.SIGKILL))
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
        pending, why = False, ""
        if self._run.options.check.accepts and (wrong := self._run.address.problem()):
            return state_machine.Unregistered("bad-address", wrong)
        for registration in self._run.options.registrations:
            try:
                outcome = self._register_one(registration)
            except ApiProblem as problem:
                return state_machine.Unregistered(problem.code, problem.message, problem.retry_after_seconds)
            self._epochs[registration.service, registration.port] = outcome.epoch
            pending, why = pending or outcome.state == "pending", why or outcome.why
        return state_machine.Registered(pending, why)

    def _register_one(self, registration: LocalRegister) -> Outcome:
        """Register one service. Raises ApiProblem."""
        try:
            return self._register_checked(msgspec.structs.replace(registration, check=self._declared))
        except ApiProblem as problem:
            if self._declared is None or problem.code not in NOT_UNDERSTOOD:
                raise
        # A daemon of an earlier version, which knows no checks.
        self._declared = None
        self._run.notes.print_note("opengnscd is of an earlier version and hears of no checks; update it")
        return self._register_checked(registration)

    def _register_checked(self, registration: LocalRegister) -> Outcome:
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

    def _process_ended(self) -> state_machine.Event | None:
        """Return how the command ended, or None while it runs.

        A command whose first process ends with status 0 while its descendants live has become a daemon, or has replaced
        itself: the process that serves is followed then.
        """
        self._run.tree.reap_others(self._pid)
        if not self._pid:
            return None if self._run.tree.roots() else state_machine.Ended(self._status)
        self._mirror_stop()
        found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        status = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        if status == 0 and not self.state.forwarded & state_machine.STOP_SIGNALS:
            if self.state.phase in ("registering", "registered") and (heir := self._serving_root()):
                self._reap()
                self._pid = heir
                return state_machine.Followed(heir)
            if self.state.phase == "starting" and len(self._run.tree.roots()) > 1:
                self._reap()
                return state_machine.Followed()
        return state_machine.Ended(status)

    def _mirror_stop(self) -> None:
        """Stop as well when job control has stopped the command, so that the shell sees its job as stopped."""
        try:
            found = os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:
            # It has ended and cannot stop any more.
            return
        if found is not None and found.si_status in JOB_CONTROL and self._run.has_terminal:
            os.kill(os.getpid(), signal.SIGSTOP)

    def _serving_root(self) -> int:
        """Return the child of this program whose tree holds the first port, other than the command; 0: none."""
        for endpoint in self._run.address.endpoints()[0]:
            for holder in self._run.tree.holders(*endpoint, self._protocol).holders:
                if (root := self._run.tree.root_of(holder)) != self._pid:
                    return root
        return 0

    @property
    def _protocol(self) -> str:
        """Protocol of the ports, as proc(5) names it."""
        return "tcp" if self._run.options.check.accepts else "udp"

    def _held(self, endpoint: Endpoint) -> str:
        """Return why the listening port is not the command's; empty: it is, or nothing says whose it is."""
        if self._run.options.any_holder or self._hidden:
            return ""
        found = self._run.tree.holders(*endpoint, self._protocol)
        if found.holders:
            return ""
        where = format_endpoint(*endpoint)
        if found.unreadable:
            self._hidden = True
            self._run.notes.print_note(f"whether the command holds {where} is not checked: {found.unreadable}")
            return ""
        if self._protocol == "udp":
            return f"is not bound to the UDP port {where}"
        if not accepts(endpoint):
            # The port was closed in between.
            return f"accepts no connections at {where}"
        return (
            f"does not hold {where}, where another process accepts connections: end that one, "
            "or use --port-holder any if a program outside of the command, such as a container engine, serves for it"
        )

    def _services(self) -> list[CheckedService]:
        """Return each service with its check; the additional check is made once, where the first service listens."""
        options = self._run.options
        first = options.check
        checks = [first, *[ReadinessCheck(seconds=first.seconds, accepts=first.accepts)] * len(options.registrations)]
        several = zip(options.registrations, self._run.address.endpoints(), checks, strict=False)
        return [CheckedService(wish, endpoints, check, self._held) for wish, endpoints, check in several]

    def _await_listening(self) -> None:
        seconds = self._run.options.ready_seconds
        began, is_noted = time.monotonic(), False
        end, note_at = began + seconds, began + min(WAITING_NOTE_SECONDS, seconds / 2)
        missing = [""]
        while time.monotonic() < end:
            services = self._services()
            missing = [
                problem for one in services if (problem := readiness_problem(one.endpoints, one.check, one.held))
            ]
            if not missing:
                self._listening(services)
                return
            if not is_noted and time.monotonic() > note_at:
                is_noted = True
                self._run.notes.print_note(f"waiting: the command {missing[0]}; at most {seconds:g} s")
            if self._finished.wait(PROBE_SECONDS):
                return
        text = (
            f"the command {missing[0]} after {seconds:g} s and is stopped; "
            "is it the address and the port that it listens on, or does it need a longer --ready-timeout?"
        )
        self._put_event(state_machine.NotListening(text))

    def _listening(self, services: Sequence[CheckedService]) -> None:
        self._put_event(state_machine.Listening())
        options = self._run.options
        if options.plan.interval_seconds:
            RepeatedCheck(self._run.api, options.plan, services, self, self._finished).start()

    def watchdog_problem(self) -> str:
        """Return why the command seems to hang by its watchdog; empty: it does not, or it has none."""
        return self._run.watchdog.problem() if self._run.watchdog is not None else ""

    def check_changed(self, problem: str) -> None:
        """Queue a change of the repeated check's result."""
        self._put_event(state_machine.CheckChanged(problem))

    def _call_daemon(self) -> None:
        while not self._finished.is_set():
            event = self._daemon_calls.get()()
            if event is not None:
                self._put_event(event)

    def _put_event(self, event: state_machine.Event) -> None:
        """Queue an event, unless this process has ended: the next one has a state of its own."""
        if not self._finished.is_set():
            self._run.events.put(event)
