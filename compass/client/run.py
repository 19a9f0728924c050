"""The shell of `opengnsc run`: a real command, real signals, a real daemon, around the pure `course`.

Everything that happens comes through one queue. Threads wait for it: one for signals, one for the command to listen,
one for the daemon's answers; the main thread alone starts, signals and ends the command. The command's process is
not reaped before the end, so its number means nobody else while the daemon or a signal is on the way to it.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from queue import Queue

import msgspec

from compass.client.api import ApiProblem, HostApi
from compass.client.core import UNCHANGED
from compass.client.course import (
    KILL_SECONDS,
    LEAVE_SECONDS,
    PASSED_SIGNALS,
    Action,
    Course,
    Deregister,
    Ended,
    Finish,
    Happening,
    Kill,
    Left,
    Listening,
    NotListening,
    Pass,
    Register,
    Registered,
    Say,
    Signalled,
    Unregistered,
    step,
)
from compass.client.exits import Exit
from compass.model.local import LocalDeregister, LocalRegister
from compass.model.names import show_endpoint

PROBE_SECONDS = 0.05
"""Between two looks whether the command listens: what a start-up may be registered late."""
PROBE_ANSWER_SECONDS = 1.0
"""For one connection on this machine to be accepted."""
FROM_KERNEL = 0x80
"""SI_KERNEL of sigaction(2): the terminal sent the signal, to the whole foreground process group."""
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that this interpreter ignores and that the command is to have as usual."""


class Run:
    """One command under the name service. `wish.pid` is set here."""

    def __init__(
        self,
        api: HostApi,
        wish: LocalRegister,
        command: Sequence[str],
        environment: dict[str, str],
        ready_seconds: float,
        say: Callable[[str], None],
    ) -> None:
        self._api = api
        self._wish = wish
        self._command = command
        self._environment = environment
        self._ready_seconds = ready_seconds
        self._say = say
        self._epoch = 0
        self._course = Course()
        self._happenings: Queue[Happening | None] = Queue()
        self._asks: Queue[Callable[[], Happening]] = Queue()
        self._over = threading.Event()

    def run(self) -> int:
        """Start the command, see it through, and give the exit status."""
        places = places_of(self._wish.address, self._wish.port)
        if any(accepts(place) for place in places):
            at = " or ".join(show_endpoint(*place) for place in places)
            self._say(f"another process accepts connections at {at}; end it, or choose another --port")
            return Exit.CONFLICT
        taken = _take_signals()
        try:
            pid = self._start()
        except FileNotFoundError:
            self._say(f"there is no command {self._command[0]!r}")
            return Exit.NO_COMMAND
        except OSError as error:
            self._say(f"{self._command[0]!r} cannot be executed: {error.strerror}")
            return Exit.NOT_EXECUTABLE
        self._wish = msgspec.structs.replace(self._wish, pid=pid)
        for target in (lambda: self._await_signals(taken), lambda: self._await_listening(places), self._ask_daemon):
            threading.Thread(target=target, daemon=True).start()
        while True:
            happening = self._happenings.get() or self._ended()
            if happening is None:
                continue
            self._course, actions = step(self._course, happening)
            for action in actions:
                if isinstance(action, Finish):
                    self._over.set()
                    os.waitpid(pid, 0)
                    return action.status
                self._do(action)

    def _start(self) -> int:
        """The command as a process of its own in our process group, with the signals as they were given to us."""
        return os.posix_spawnp(
            self._command[0], list(self._command), self._environment, setsigmask=[], setsigdef=PYTHON_IGNORES
        )

    def _do(self, action: Action) -> None:
        match action:
            case Say(text):
                self._say(text)
            case Pass(number):
                os.kill(self._wish.pid, number)
            case Kill():
                os.kill(self._wish.pid, signal.SIGTERM)
                self._later(KILL_SECONDS, lambda: os.kill(self._wish.pid, signal.SIGKILL))
            case Register(pause):
                self._later(pause, lambda: self._asks.put(self._register))
            case Deregister():
                self._asks.put(self._deregister)
                text = f"opengnscd at {self._api.place} did not answer within {LEAVE_SECONDS:g} s"
                self._later(LEAVE_SECONDS, lambda: self._happenings.put(Left(text)))

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, lambda: None if self._over.is_set() else call())
        timer.daemon = True
        timer.start()

    def _register(self) -> Happening:
        try:
            outcome = self._api.register(self._wish)
        except ApiProblem as problem:
            return Unregistered(problem.code, problem.message, problem.retry_after_seconds)
        self._epoch = outcome.epoch
        return Registered(pending=outcome.state == "pending")

    def _deregister(self) -> Happening:
        wish = self._wish
        try:
            self._api.deregister(
                LocalDeregister(wish.service, wish.port, wish.credential, wish.address, epoch=self._epoch)
            )
        except ApiProblem as problem:
            return Left("" if problem.code in UNCHANGED else problem.message)
        return Left()

    def _ended(self) -> Ended | None:
        """How the command ended, if it has."""
        found = os.waitid(os.P_PID, self._wish.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        return Ended(found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)

    def _await_signals(self, taken: frozenset[int]) -> None:
        while True:
            seen = signal.sigwaitinfo(taken)
            if seen.si_signo == signal.SIGCHLD:
                # None: look whether the command has ended.
                self._happenings.put(None)
            else:
                self._happenings.put(Signalled(seen.si_signo, shared=seen.si_code == FROM_KERNEL))

    def _await_listening(self, places: Sequence[tuple[str, int]]) -> None:
        end = time.monotonic() + self._ready_seconds
        while time.monotonic() < end:
            if any(accepts(place) for place in places):
                self._happenings.put(Listening())
                return
            if self._over.wait(PROBE_SECONDS):
                return
        at = " or ".join(show_endpoint(*place) for place in places)
        text = (
            f"the command accepts no connections at {at} after {self._ready_seconds:g} s and is stopped; "
            "is it the address and the port that it listens on, or does it need a longer --ready-timeout?"
        )
        self._happenings.put(NotListening(text))

    def _ask_daemon(self) -> None:
        while True:
            self._happenings.put(self._asks.get()())


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


def accepts(place: tuple[str, int]) -> bool:
    """Whether a TCP connection is accepted there."""
    try:
        with socket.create_connection(place, PROBE_ANSWER_SECONDS):
            return True
    except OSError:
        return False
