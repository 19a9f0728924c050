"""State machine of `opengnsc run`, without any I/O: (state, event) -> (state, actions).

    starting -> registering -> registered -> draining -> leaving -> stopping

`draining` (optional) gives users time to finish before the listener is deregistered. `leaving` is between a request to
stop and the stop itself: users are notified before the service ends. A command that crashes is not deregistered here:
the daemon watches its process and reports that it died, which says more than `deregistered`. Only an intended end is
deregistered: status 0, or by a signal that was forwarded.
"""

from __future__ import annotations

import signal
from typing import Literal, TypeAlias

import msgspec

from compass.model.backoff import retry_seconds
from compass.model.exit_codes import ExitCode, exit_of

Phase = Literal["starting", "registering", "registered", "draining", "leaving", "stopping"]

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""Signals that ask a service to end; the listener is deregistered before they are forwarded."""
FORWARDED_SIGNALS = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
"""All signals that are forwarded to the command: every one that can be caught, except that of the command's own end."""

LEAVE_SECONDS = 5.0
"""Seconds that a stop waits for the deregistration: half of what supervisors commonly wait before they kill."""
KILL_SECONDS = 10.0
"""Seconds between SIGTERM and SIGKILL for a command that may not serve."""
SIGNAL_STATUS = 128
"""A process killed by signal N has the status 128 + N, as in every shell."""


class Listening(msgspec.Struct, frozen=True):
    """Event: the command accepts connections."""


class NotListening(msgspec.Struct, frozen=True):
    """Event: the command did not accept connections in time."""

    text: str


class Registered(msgspec.Struct, frozen=True):
    """Event: the daemon has the registration. `pending`: no server has it yet. `why`: the daemon's reason."""

    pending: bool = False
    why: str = ""


class Unregistered(msgspec.Struct, frozen=True):
    """Event: the attempt to register failed with a refusal code; `unreachable` if the daemon does not run."""

    code: str
    text: str
    retry_after_seconds: float = 0.0


class Drained(msgspec.Struct, frozen=True):
    """Event: the time for draining is over."""


class DeregisterDone(msgspec.Struct, frozen=True):
    """Event: the deregistration is answered, or the wait for it is over. `problem`: why it failed."""

    problem: str = ""


class Signalled(msgspec.Struct, frozen=True):
    """Event: a signal arrived. `shared`: the terminal has sent it to the command as well."""

    number: int
    shared: bool = False


class Ended(msgspec.Struct, frozen=True):
    """Event: the command's process ended, with its exit status or minus the signal that killed it."""

    status: int


class Followed(msgspec.Struct, frozen=True):
    """Event: the command's process ended with status 0, and `pid` of its tree serves from now on.

    0: nothing of the tree listens yet, and the rest of it is waited for.
    """

    pid: int = 0


class CheckChanged(msgspec.Struct, frozen=True):
    """Event: the repeated check failed often enough, or passes again if `problem` is empty."""

    problem: str = ""


Event: TypeAlias = (
    Listening
    | NotListening
    | Registered
    | Unregistered
    | Drained
    | DeregisterDone
    | Signalled
    | Ended
    | Followed
    | CheckChanged
)


class Register(msgspec.Struct, frozen=True):
    """Action: ask the daemon to register, after a pause."""

    after_seconds: float = 0.0


class Drain(msgspec.Struct, frozen=True):
    """Action: stop sending new users to the listener; `Drained` follows after the drain time."""


class Deregister(msgspec.Struct, frozen=True):
    """Action: ask the daemon to deregister; `DeregisterDone` follows within `LEAVE_SECONDS`."""


class ForwardSignal(msgspec.Struct, frozen=True):
    """Action: send the command a signal."""

    number: int


class Kill(msgspec.Struct, frozen=True):
    """Action: end the command's tree with SIGTERM, and with SIGKILL after `KILL_SECONDS`."""


class Print(msgspec.Struct, frozen=True):
    """Action: print a line for people."""

    text: str


class Finish(msgspec.Struct, frozen=True):
    """Action: end the run with a status."""

    status: int


Action: TypeAlias = Register | Drain | Deregister | ForwardSignal | Kill | Print | Finish


class RunState(msgspec.Struct, frozen=True):
    """State of a run."""

    phase: Phase = "starting"
    drains: bool = False
    """True: a stop drains first."""
    restarts: bool = False
    """True: a command whose check fails is ended, because it is then started again."""
    pending_signals: tuple[int, ...] = ()
    """Signals to forward after the deregistration."""
    forwarded: frozenset[int] = frozenset()
    """Signals that the command has got; an end by one of them is not a crash."""
    attempts: int = 0
    """Failed attempts to register in a row."""
    exit_status: int | None = None
    """Exit status of the run, if it is not the command's."""
    ended: int | None = None
    """Status of a command that ended before its deregistration."""


Step: TypeAlias = tuple[RunState, tuple[Action, ...]]


def step(state: RunState, event: Event) -> Step:
    """Return the next state and the actions. An event that comes too late changes nothing."""
    match event, state.phase:
        case Signalled(), _:
            return _signalled(state, event)
        case Ended(status), _:
            return _ended(state, status)
        case Listening(), "starting":
            return _with(state, phase="registering"), (Register(),)
        case NotListening(text), "starting":
            return _with(state, phase="stopping", exit_status=int(ExitCode.NOT_LISTENING)), (Print(text), Kill())
        case Registered(pending, why), "registering":
            text = f"{why or 'no server has answered yet'}; opengnscd keeps the registration and delivers it"
            return _with(state, phase="registered", attempts=0), (Print(text if pending else "registered"),)
        case Unregistered(), "registering":
            return _unregistered(state, event)
        case Followed(0), "starting":
            return state, (Print("the command has started others and ended; what it started is waited for"),)
        case Followed(pid), "registering" | "registered" if pid:
            text = f"the command's first process has ended; process {pid}, which serves now, is followed"
            return _with(state, phase="registering"), (Print(text), Register())
        case CheckChanged(problem), "registering" | "registered":
            return _checked(state, problem)
        case Drained(), "draining":
            return _with(state, phase="leaving"), (Deregister(),)
        case DeregisterDone(problem), "leaving":
            return _deregistered(state, problem)
        case _:
            return state, ()


def _signalled(state: RunState, signalled: Signalled) -> Step:
    number = signalled.number
    forwards: tuple[int, ...] = () if signalled.shared else (number,)
    state = _with(state, forwarded=state.forwarded | {number})
    if number in STOP_SIGNALS and state.phase == "registered" and state.drains:
        return _with(state, phase="draining", pending_signals=forwards), (Drain(),)
    if number in STOP_SIGNALS and state.phase in ("registering", "registered"):
        return _with(state, phase="leaving", pending_signals=forwards), (Deregister(),)
    if number in STOP_SIGNALS and state.phase == "draining":
        # A second stop signal: do not wait for the users.
        pending = tuple(dict.fromkeys(state.pending_signals + forwards))
        return _with(state, phase="leaving", pending_signals=pending), (Deregister(),)
    if number in STOP_SIGNALS and state.phase in ("starting", "leaving"):
        # A further stop signal: do not wait for the deregistration either.
        forwards = tuple(dict.fromkeys(state.pending_signals + forwards))
        state = _with(state, phase="stopping", pending_signals=())
        if state.ended is not None:
            return state, (Finish(_exit_status(state, state.ended)),)
    return state, tuple(ForwardSignal(number) for number in forwards)


def _ended(state: RunState, status: int) -> Step:
    wanted = status == 0 or -status in state.forwarded
    finish = Finish(_exit_status(state, status))
    if state.phase == "leaving":
        return _with(state, ended=status), ()
    if state.phase in ("registering", "draining") or (state.phase == "registered" and wanted):
        return _with(state, phase="leaving", ended=status), (Deregister(),)
    if state.phase == "registered":
        return state, (Print(f"the command {_end_text(status)}; opengnscd reports it"), finish)
    if state.phase == "starting":
        return state, (
            Print(f"the command {_end_text(status)} before it accepted connections; it was never registered"),
            finish,
        )
    return state, (finish,)


def _checked(state: RunState, problem: str) -> Step:
    if not problem:
        return state, (Print("the command passes its check again"),)
    if not state.restarts:
        return state, (Print(f"the command {problem}; its users are sent elsewhere until it passes its check"),)
    stopping = _with(state, phase="stopping", exit_status=int(ExitCode.FAILED))
    return stopping, (Print(f"the command {problem} and is stopped"), Kill())


def _unregistered(state: RunState, failed: Unregistered) -> Step:
    status = exit_of(failed.code)
    if status is not ExitCode.UNAVAILABLE:
        note = Print(f"registration refused ({failed.code}): {failed.text}; the command is stopped")
        return _with(state, phase="stopping", exit_status=int(status)), (note, Kill())
    pause = max(retry_seconds(state.attempts), failed.retry_after_seconds)
    again = (Register(pause),)
    # Printed once: the service runs, and the name service may be unavailable for long.
    notes = () if state.attempts else (Print(f"{failed.text}; the command keeps running, registration is retried"),)
    return _with(state, attempts=state.attempts + 1), (*notes, *again)


def _deregistered(state: RunState, problem: str) -> Step:
    notes = (Print(f"not deregistered: {problem}"),) if problem and not state.attempts else ()
    if state.ended is not None:
        return state, (*notes, Finish(_exit_status(state, state.ended)))
    forwards = tuple(ForwardSignal(number) for number in state.pending_signals)
    return _with(state, phase="stopping", pending_signals=()), (*notes, *forwards)


def _exit_status(state: RunState, status: int) -> int:
    if state.exit_status is not None:
        return state.exit_status
    return status if status >= 0 else SIGNAL_STATUS - status


def _end_text(status: int) -> str:
    return f"ended with status {status}" if status >= 0 else f"was killed by {signal.Signals(-status).name}"


def _with(state: RunState, **changes: object) -> RunState:
    return msgspec.structs.replace(state, **changes)
