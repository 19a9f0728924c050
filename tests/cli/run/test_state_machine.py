"""The state machine of a run as a table: phase and event, then actions and the next phase."""

from __future__ import annotations

import signal

import pytest

from compass.cli.run.state_machine import (
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
    Phase,
    Print,
    Register,
    Registered,
    RunState,
    Signalled,
    Unregistered,
    step,
)
from compass.model.backoff import LOCAL_RETRY_SECONDS, LOCAL_RETRY_SECONDS_MAX, retry_seconds
from compass.model.exit_codes import ExitCode

TERM, HUP, KILLED = int(signal.SIGTERM), int(signal.SIGHUP), -int(signal.SIGKILL)
KEPT = "opengnscd keeps the registration and delivers it"
PENDING = "no server has answered yet; opengnscd keeps the registration and delivers it"
AWAY = Unregistered("unreachable", "away")

TABLE: list[tuple[Phase, Event, Phase, tuple[Action, ...]]] = [
    ("starting", Listening(), "registering", (Register(),)),
    ("starting", NotListening("late"), "stopping", (Print("late"), Kill())),
    ("starting", Signalled(TERM), "stopping", (ForwardSignal(TERM),)),
    ("starting", Signalled(HUP), "starting", (ForwardSignal(HUP),)),
    ("starting", Registered(), "starting", ()),
    ("registering", Registered(), "registered", (Print("registered"),)),
    ("registering", Registered(pending=True), "registered", (Print(PENDING),)),
    (
        "registering",
        Registered(True, "the store is unavailable"),
        "registered",
        (Print(f"the store is unavailable; {KEPT}"),),
    ),
    (
        "registering",
        AWAY,
        "registering",
        (Print("away; the command keeps running, registration is retried"), Register(0.5)),
    ),
    ("registering", Signalled(TERM), "leaving", (Deregister(),)),
    ("registering", Ended(KILLED), "leaving", (Deregister(),)),
    ("registered", Signalled(TERM), "leaving", (Deregister(),)),
    ("registered", Signalled(HUP), "registered", (ForwardSignal(HUP),)),
    ("registered", Ended(0), "leaving", (Deregister(),)),
    ("registered", NotListening("late"), "registered", ()),
    ("registered", DeregisterDone(), "registered", ()),
    ("draining", Drained(), "leaving", (Deregister(),)),
    ("draining", Signalled(TERM), "leaving", (Deregister(),)),
    ("draining", Signalled(HUP), "draining", (ForwardSignal(HUP),)),
    ("draining", Ended(KILLED), "leaving", (Deregister(),)),
    ("leaving", Drained(), "leaving", ()),
    ("leaving", DeregisterDone(), "stopping", ()),
    ("leaving", Ended(0), "leaving", ()),
    ("leaving", Registered(), "leaving", ()),
    ("leaving", AWAY, "leaving", ()),
    ("leaving", Signalled(TERM), "stopping", (ForwardSignal(TERM),)),
    ("stopping", Ended(3), "stopping", (Finish(3),)),
    ("stopping", Ended(KILLED), "stopping", (Finish(137),)),
    ("stopping", Signalled(TERM), "stopping", (ForwardSignal(TERM),)),
    ("stopping", DeregisterDone("late"), "stopping", ()),
    ("stopping", Unregistered("forbidden", "late"), "stopping", ()),
]


@pytest.mark.parametrize(("phase", "event", "then", "done"), TABLE)
def test_each_step(phase: Phase, event: Event, then: Phase, done: tuple[Action, ...]) -> None:
    """Each row of the table holds."""
    state, actions = step(RunState(phase=phase), event)
    assert (state.phase, actions) == (then, done)


def play(*events: Event) -> tuple[RunState, list[Action]]:
    """All that is done from the start."""
    state, done = RunState(), list[Action]()
    for event in events:
        state, actions = step(state, event)
        done += actions
    return state, done


def test_a_signal_waits_for_the_deregistration_and_its_end_is_no_crash() -> None:
    """SIGTERM while registered: deregistered, passed on, and 128 + 15 when the command dies of it."""
    _, done = play(Listening(), Registered(), Signalled(TERM), DeregisterDone(), Ended(-TERM))
    assert done == [Register(), Print("registered"), Deregister(), ForwardSignal(TERM), Finish(128 + TERM)]


def test_a_death_by_a_signal_that_was_passed_on_is_deregistered() -> None:
    """SIGHUP kills a command that does not handle it; the sender wanted this end."""
    _, done = play(Listening(), Registered(), Signalled(HUP), Ended(-HUP), DeregisterDone())
    assert done == [Register(), Print("registered"), ForwardSignal(HUP), Deregister(), Finish(128 + HUP)]


def test_what_the_terminal_sent_is_not_sent_again() -> None:
    """The command has it already; its registration ends nevertheless."""
    _, done = play(Listening(), Registered(), Signalled(signal.SIGINT, shared=True), DeregisterDone(), Ended(0))
    assert done == [Register(), Print("registered"), Deregister(), Finish(0)]


def test_a_second_request_to_stop_does_not_wait_and_is_one_signal() -> None:
    """The command gets what it was asked, once; another signal than the first comes after it."""
    _, done = play(Listening(), Registered(), Signalled(TERM), Signalled(TERM), DeregisterDone())
    assert done[2:] == [Deregister(), ForwardSignal(TERM)]
    _, done = play(Listening(), Registered(), Signalled(TERM), Signalled(signal.SIGINT))
    assert done[2:] == [Deregister(), ForwardSignal(TERM), ForwardSignal(signal.SIGINT)]


def test_a_second_request_to_stop_after_the_end_does_not_wait() -> None:
    """If the command has ended and the daemon does not answer, a second stop signal ends the run."""
    _, done = play(Listening(), Registered(), Ended(0), Signalled(TERM))
    assert done == [Register(), Print("registered"), Deregister(), Finish(0)]


def test_failures_are_said_once_and_success_is() -> None:
    """Two failed attempts and a registration print two lines, and the pauses double."""
    state, done = play(Listening(), AWAY, AWAY, Registered())
    assert [action for action in done if isinstance(action, Register)] == [Register(), Register(0.5), Register(1.0)]
    assert [action.text for action in done if isinstance(action, Print)][1:] == ["registered"]
    assert state.attempts == 0


def test_the_daemons_own_pause_is_respected() -> None:
    """A refusal that says when to come again."""
    _, done = play(Listening(), Unregistered("busy", "later", retry_after_seconds=4.0))
    assert done[-1] == Register(4.0)


def test_a_refusal_decides_the_status() -> None:
    """Whatever the command ends with."""
    _, done = play(Listening(), Unregistered("bad-credential", "no"), Ended(0))
    assert done[-2:] == [Kill(), Finish(ExitCode.NOT_ALLOWED)]


def test_a_deregistration_that_failed_is_said() -> None:
    """The service stops all the same."""
    _, done = play(Listening(), Registered(), Signalled(TERM), DeregisterDone("away"), Ended(0))
    assert done[3:] == [Print("not deregistered: away"), ForwardSignal(TERM), Finish(0)]


def test_pauses_grow_to_their_limit_and_stay_there() -> None:
    """Also after weeks."""
    assert retry_seconds(0) == LOCAL_RETRY_SECONDS
    assert retry_seconds(4) < LOCAL_RETRY_SECONDS_MAX == retry_seconds(5) == retry_seconds(100_000)


def test_users_are_given_time_before_a_stop_when_it_is_wanted() -> None:
    """Drain, wait, deregister, pass the signal on; and a second signal does not wait for the users."""
    state = RunState("registered", drains=True)
    state, actions = step(state, Signalled(TERM))
    assert (state.phase, actions) == ("draining", (Drain(),))
    for event in (Drained(), Signalled(TERM)):
        leaving, actions = step(state, event)
        assert (leaving.phase, actions) == ("leaving", (Deregister(),))
        assert step(leaving, DeregisterDone())[1] == (ForwardSignal(TERM),)
