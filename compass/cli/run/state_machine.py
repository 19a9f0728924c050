"""The state of `opengnsc run`, without doing any of it: (where it is, what happened) -> (where it is, what to do).

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
FORWARDED_SIGNALS = STOP_SIGNALS | {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
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
    pending_signals: tuple[int, ...] = ()
    """Signals that are passed on after the deregistration."""
    forwarded: frozenset[int] = frozenset()
    """Signals that the command has had; to end by one of them is no crash."""
    attempts: int = 0
    """To register, in vain, one after the other."""
    exit_status: int | None = None
    """The exit status, when it is not to be the command's."""
    ended: int | None = None
    """How the command ended, when that was before its deregistration."""


Step: TypeAlias = tuple[RunState, tuple[Action, ...]]


def step(state: RunState, event: Event) -> Step:
    """What comes of it. A event that is too late to matter changes nothing."""
    match event, state.phase:
        case Signalled(), _:
            return _signalled(state, event)
        case Ended(status), _:
            return _ended(state, status)
        case Listening(), "starting":
            return _with(state, phase="registering"), (Register(),)
        case NotListening(text), "starting":
            return _with(state, phase="stopping", exit_status=int(ExitCode.NOT_LISTENING)), (Print(text), Kill())
        case Registered(pending), "registering":
            news = Print("no server can be reached; opengnscd keeps the registration and delivers it")
            return _with(state, phase="registered", attempts=0), (news if pending else Print("registered"),)
        case Unregistered(), "registering":
            return _unregistered(state, event)
        case Drained(), "draining":
            return _with(state, phase="leaving"), (Deregister(),)
        case DeregisterDone(problem), "leaving":
            return _deregistered(state, problem)
        case _:
            return state, ()


def _signalled(state: RunState, signalled: Signalled) -> Step:
    number = signalled.number
    passing: tuple[int, ...] = () if signalled.shared else (number,)
    state = _with(state, forwarded=state.forwarded | {number})
    if number in STOP_SIGNALS and state.phase == "registered" and state.drains:
        return _with(state, phase="draining", pending_signals=passing), (Drain(),)
    if number in STOP_SIGNALS and state.phase in ("registering", "registered"):
        return _with(state, phase="leaving", pending_signals=passing), (Deregister(),)
    if number in STOP_SIGNALS and state.phase == "draining":
        # Asked twice: whoever asks does not want to wait for the users.
        waiting = tuple(dict.fromkeys(state.pending_signals + passing))
        return _with(state, phase="leaving", pending_signals=waiting), (Deregister(),)
    if number in STOP_SIGNALS and state.phase in ("starting", "leaving"):
        # Asked once more: nor for the deregistration.
        passing = tuple(dict.fromkeys(state.pending_signals + passing))
        state = _with(state, phase="stopping", pending_signals=())
        if state.ended is not None:
            return state, (Finish(_exit_status(state, state.ended)),)
    return state, tuple(ForwardSignal(number) for number in passing)


def _ended(state: RunState, status: int) -> Step:
    wanted = status == 0 or -status in state.forwarded
    finish = Finish(_exit_status(state, status))
    if state.phase == "leaving":
        return _with(state, ended=status), ()
    if state.phase in ("registering", "draining") or (state.phase == "registered" and wanted):
        return _with(state, phase="leaving", ended=status), (Deregister(),)
    if state.phase == "registered":
        return state, (Print(f"the command {_end_text(status)}; opengnscd tells its users"), finish)
    if state.phase == "starting":
        return state, (
            Print(f"the command {_end_text(status)} before it accepted connections; never registered"),
            finish,
        )
    return state, (finish,)


def _unregistered(state: RunState, failed: Unregistered) -> Step:
    status = exit_of(failed.code)
    if status is not ExitCode.UNAVAILABLE:
        said = Print(f"registration refused ({failed.code}): {failed.text}; the command is stopped")
        return _with(state, phase="stopping", exit_status=int(status)), (said, Kill())
    pause = max(retry_seconds(state.attempts), failed.retry_after_seconds)
    again = (Register(pause),)
    # Said once: the service runs, and the name service may be away for long.
    news = () if state.attempts else (Print(f"{failed.text}; the command runs on, registration is tried again"),)
    return _with(state, attempts=state.attempts + 1), (*news, *again)


def _deregistered(state: RunState, problem: str) -> Step:
    said = (Print(f"not deregistered: {problem}"),) if problem and not state.attempts else ()
    if state.ended is not None:
        return state, (*said, Finish(_exit_status(state, state.ended)))
    passing = tuple(ForwardSignal(number) for number in state.pending_signals)
    return _with(state, phase="stopping", pending_signals=()), (*said, *passing)


def _exit_status(state: RunState, status: int) -> int:
    if state.exit_status is not None:
        return state.exit_status
    return status if status >= 0 else SIGNAL_STATUS - status


def _end_text(status: int) -> str:
    return f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"


def _with(state: RunState, **changes: object) -> RunState:
    return msgspec.structs.replace(state, **changes)
