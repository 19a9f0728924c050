"""The course of `opengnsc run`, without doing any of it: (where it is, what happened) -> (where it is, what to do).

    starting -> registering -> registered -> draining -> leaving -> stopping

`draining`, if it is wanted, gives users time to go before they are told that the listener is gone. `leaving` stands
between a request to stop and the stop itself: users are told before the service is gone. A command that crashes is not
deregistered here: the daemon watches its process and says that it died, which is more than `deregistered`. Only an end
that was wanted is: status 0, or by a signal that was passed on.
"""

from __future__ import annotations

import signal
from typing import Literal, TypeAlias

import msgspec

from compass.model.backoff import retry_seconds
from compass.model.exit_codes import ExitCode, exit_of

Phase = Literal["starting", "registering", "registered", "draining", "leaving", "stopping"]

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""Signals that ask a service to end; the listener is deregistered before they are passed on."""
PASSED_SIGNALS = STOP_SIGNALS | {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
"""All signals that are passed on to the command."""

LEAVE_SECONDS = 5.0
"""How long a stop waits for the deregistration: half of what supervisors commonly give a service before they kill."""
KILL_SECONDS = 10.0
"""How long a command that may not serve has to end after SIGTERM, before SIGKILL."""
SIGNAL_STATUS = 128
"""A process killed by signal N gives status 128 + N, as in every shell."""


class Listening(msgspec.Struct, frozen=True):
    """The command accepts connections."""


class NotListening(msgspec.Struct, frozen=True):
    """The time to begin accepting connections is over."""

    text: str


class Registered(msgspec.Struct, frozen=True):
    """The daemon has the registration; `pending`: no server has, yet."""

    pending: bool = False


class Unregistered(msgspec.Struct, frozen=True):
    """The attempt to register failed with a refusal's code; `unreachable` when the daemon does not run."""

    code: str
    text: str
    retry_after_seconds: float = 0.0


class Drained(msgspec.Struct, frozen=True):
    """The time for users to go is over."""


class DeregisterDone(msgspec.Struct, frozen=True):
    """The deregistration is answered, or is waited for no longer. `problem`: why it is not done."""

    problem: str = ""


class Signalled(msgspec.Struct, frozen=True):
    """A signal came. `shared`: from the terminal, which has given it to the command as well."""

    number: int
    shared: bool = False


class Ended(msgspec.Struct, frozen=True):
    """The command's process is over: its exit status, or minus the signal that killed it."""

    status: int


Event: TypeAlias = Listening | NotListening | Registered | Unregistered | Drained | DeregisterDone | Signalled | Ended


class Register(msgspec.Struct, frozen=True):
    """Ask the daemon to register, after a pause."""

    after_seconds: float = 0.0


class Drain(msgspec.Struct, frozen=True):
    """Let the listener take no new users; `Drained` follows when they have had their time."""


class Deregister(msgspec.Struct, frozen=True):
    """Ask the daemon to deregister; `Left` follows within `LEAVE_SECONDS`."""


class ForwardSignal(msgspec.Struct, frozen=True):
    """Send the command a signal."""

    number: int


class Kill(msgspec.Struct, frozen=True):
    """End the command: SIGTERM, and SIGKILL after `KILL_SECONDS`."""


class Print(msgspec.Struct, frozen=True):
    """A line for people."""

    text: str


class Finish(msgspec.Struct, frozen=True):
    """End with a status."""

    status: int


Action: TypeAlias = Register | Drain | Deregister | ForwardSignal | Kill | Print | Finish


class RunState(msgspec.Struct, frozen=True):
    """Where a run is."""

    phase: Phase = "starting"
    drains: bool = False
    """Users are given time before a stop."""
    waiting: tuple[int, ...] = ()
    """Signals that are passed on after the deregistration."""
    passed: frozenset[int] = frozenset()
    """Signals that the command has had; to end by one of them is no crash."""
    attempts: int = 0
    """To register, in vain, one after the other."""
    verdict: int | None = None
    """The exit status, when it is not to be the command's."""
    ended: int | None = None
    """How the command ended, when that was before its deregistration."""


Step: TypeAlias = tuple[RunState, tuple[Action, ...]]


def step(course: RunState, happening: Event) -> Step:
    """What comes of it. A happening that is too late to matter changes nothing."""
    match happening, course.phase:
        case Signalled(), _:
            return _signalled(course, happening)
        case Ended(status), _:
            return _ended(course, status)
        case Listening(), "starting":
            return _with(course, phase="registering"), (Register(),)
        case NotListening(text), "starting":
            return _with(course, phase="stopping", verdict=int(ExitCode.NOT_LISTENING)), (Print(text), Kill())
        case Registered(pending), "registering":
            news = Print("no server can be reached; opengnscd keeps the registration and delivers it")
            return _with(course, phase="registered", attempts=0), (news if pending else Print("registered"),)
        case Unregistered(), "registering":
            return _unregistered(course, happening)
        case Drained(), "draining":
            return _with(course, phase="leaving"), (Deregister(),)
        case DeregisterDone(problem), "leaving":
            return _left(course, problem)
        case _:
            return course, ()


def _signalled(course: RunState, signalled: Signalled) -> Step:
    number = signalled.number
    passing: tuple[int, ...] = () if signalled.shared else (number,)
    course = _with(course, passed=course.passed | {number})
    if number in STOP_SIGNALS and course.phase == "registered" and course.drains:
        return _with(course, phase="draining", waiting=passing), (Drain(),)
    if number in STOP_SIGNALS and course.phase in ("registering", "registered"):
        return _with(course, phase="leaving", waiting=passing), (Deregister(),)
    if number in STOP_SIGNALS and course.phase == "draining":
        # Asked twice: whoever asks does not want to wait for the users.
        waiting = tuple(dict.fromkeys(course.waiting + passing))
        return _with(course, phase="leaving", waiting=waiting), (Deregister(),)
    if number in STOP_SIGNALS and course.phase in ("starting", "leaving"):
        # Asked once more: nor for the deregistration.
        passing = tuple(dict.fromkeys(course.waiting + passing))
        course = _with(course, phase="stopping", waiting=())
        if course.ended is not None:
            return course, (Finish(_status(course, course.ended)),)
    return course, tuple(ForwardSignal(number) for number in passing)


def _ended(course: RunState, status: int) -> Step:
    wanted = status == 0 or -status in course.passed
    finish = Finish(_status(course, status))
    if course.phase == "leaving":
        return _with(course, ended=status), ()
    if course.phase in ("registering", "draining") or (course.phase == "registered" and wanted):
        return _with(course, phase="leaving", ended=status), (Deregister(),)
    if course.phase == "registered":
        return course, (Print(f"the command {_death(status)}; opengnscd tells its users"), finish)
    if course.phase == "starting":
        return course, (Print(f"the command {_death(status)} before it accepted connections; never registered"), finish)
    return course, (finish,)


def _unregistered(course: RunState, failed: Unregistered) -> Step:
    status = exit_of(failed.code)
    if status is not ExitCode.UNAVAILABLE:
        said = Print(f"registration refused ({failed.code}): {failed.text}; the command is stopped")
        return _with(course, phase="stopping", verdict=int(status)), (said, Kill())
    pause = max(retry_seconds(course.attempts), failed.retry_after_seconds)
    again = (Register(pause),)
    # Said once: the service runs, and the name service may be away for long.
    news = () if course.attempts else (Print(f"{failed.text}; the command runs on, registration is tried again"),)
    return _with(course, attempts=course.attempts + 1), (*news, *again)


def _left(course: RunState, problem: str) -> Step:
    said = (Print(f"not deregistered: {problem}"),) if problem and not course.attempts else ()
    if course.ended is not None:
        return course, (*said, Finish(_status(course, course.ended)))
    passing = tuple(ForwardSignal(number) for number in course.waiting)
    return _with(course, phase="stopping", waiting=()), (*said, *passing)


def _status(course: RunState, status: int) -> int:
    if course.verdict is not None:
        return course.verdict
    return status if status >= 0 else SIGNAL_STATUS - status


def _death(status: int) -> str:
    return f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"


def _with(course: RunState, **changes: object) -> RunState:
    return msgspec.structs.replace(course, **changes)
