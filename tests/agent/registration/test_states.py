"""The states of a registration as a truth table: each state with each event, and what follows."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from compass.agent.registration import actions, states
from compass.agent.registration.actions import Attempt
from compass.agent.registration.journal import Registration, State
from compass.agent.registration.states import Event, step
from compass.model.replies import Refusal

KEY = ("s.a", "10.0.0.1", 80)
EPOCH, NEWER = 5, 9
PHASES: tuple[str, ...] = ("absent", *get_args(State))


def entry(state: str = "pending", **changes: Any) -> Registration:
    fields: dict[str, Any] = {"epoch": EPOCH, "credential": "secret", "pid": 7, "hold": True, "state": state, **changes}
    if state == "refused":
        fields.setdefault("problem", "no")
        fields.setdefault("code", "bad-value")
    return Registration(*KEY, **fields)


NEW = entry(epoch=NEWER)
OTHER = entry(epoch=NEWER, credential="other")
OLD = entry("registered", epoch=2)
UNVERIFIED = entry("registered", unverified="in another PID namespace")
MINE, FIRST = Attempt(entry()), Attempt(entry(), first=True)
REPLACING = Attempt(entry(), first=True, replaced=OLD)
RENEWED = Attempt(entry(), first=True, renewed=True)
REGISTERED = Attempt(entry("registered"))


def refusal(code: str) -> Refusal:
    return Refusal(code, "no", epoch=NEWER if code == "stale-epoch" else 0)


def refused(attempt: Attempt, code: str) -> Event:
    return states.RegisterRefused(attempt, refusal(code))


# Actions that come together, by their names.
ENDED = "Log Unwatch Release Deregister"
GIVEN_UP, LOST, KEPT = "Unwatch Release Refuse", "Unwatch Release Log Refuse", "Unwatch Release Watch Log Refuse"

# For each event: state before -> state after and actions. A state that is not named stays as it is, without an action,
# or with those of "*".
TABLE: list[tuple[str, Event, dict[str, tuple[str, str]]]] = [
    (
        "a program registers",
        states.RegisterRequested(NEW),
        {phase: ("pending", "Hold Register") for phase in PHASES},
    ),
    (
        "a program registers with another credential",
        states.RegisterRequested(OTHER),
        {
            "pending": ("pending", "Verify"),
            "registered": ("registered", "Verify"),
            "leaving": ("leaving", "Verify"),
            **{phase: ("pending", "Hold Register") for phase in ("absent", "refused")},
        },
    ),
    (
        "a program registers whose user has guessed",
        states.RegisterRequested(NEW, proven_first=True),
        {phase: (phase, "Verify") for phase in PHASES},
    ),
    (
        "a server accepts the other credential",
        states.CredentialAccepted(OTHER),
        {phase: ("registered", "Watch Hold") for phase in PHASES},
    ),
    (
        "a program deregisters",
        states.DeregisterRequested(KEY, 0, "secret"),
        {
            "absent": ("absent", "Refuse"),
            **{phase: ("leaving", "Unwatch Deregister") for phase in PHASES[1:]},
        },
    ),
    (
        "a program deregisters an older instance",
        states.DeregisterRequested(KEY, EPOCH - 1, "secret"),
        {
            "absent": ("absent", "DeregisterUnknown"),
            **{phase: (phase, "Refuse") for phase in PHASES[1:]},
        },
    ),
    (
        "a program deregisters a newer instance",
        states.DeregisterRequested(KEY, NEWER, "secret"),
        {
            "absent": ("absent", "DeregisterUnknown"),
            **{phase: ("leaving", "Unwatch Deregister") for phase in PHASES[1:]},
        },
    ),
    (
        "a program deregisters with another credential",
        states.DeregisterRequested(KEY, NEWER, "other"),
        {phase: (phase, "DeregisterUnknown") for phase in PHASES},
    ),
    (
        "a server accepts it",
        states.DeregisterAccepted(NEWER),
        {phase: ("absent", "Unwatch") for phase in PHASES[1:]},
    ),
    ("a server accepts it for older instances", states.DeregisterAccepted(EPOCH - 1), {}),
    (
        "a program reports its load",
        states.LoadRequested(KEY, 0.5, "secret"),
        {
            "pending": ("pending", "Register"),
            "registered": ("registered", "Register"),
            **{phase: (phase, "Refuse") for phase in ("absent", "leaving", "refused")},
        },
    ),
    (
        "a program reports a load with another credential",
        states.LoadRequested(KEY, 0.5, "other"),
        {phase: (phase, "Refuse") for phase in PHASES},
    ),
    (
        "the host's own check fails",
        states.CheckChanged(EPOCH, "GET /, every 5 s, fails after 3", "status 503"),
        {"pending": ("pending", "Register"), "registered": ("registered", "Register")},
    ),
    ("the check of another instance fails", states.CheckChanged(NEWER, "GET /", "status 503"), {}),
    ("the check has not changed", states.CheckChanged(EPOCH, "", ""), {}),
    (
        "a server registers the instance",
        states.Registered(EPOCH),
        {"pending": ("registered", ""), "refused": ("registered", "")},
    ),
    ("a server registers another instance", states.Registered(NEWER), {}),
    (
        "a server refuses the instance that a program asked for",
        refused(FIRST, "bad-value"),
        {
            "*": ("", "Refuse"),
            **{phase: ("absent", GIVEN_UP) for phase in ("pending", "registered", "refused")},
        },
    ),
    (
        "a server refuses the instance that replaced another one",
        refused(REPLACING, "bad-value"),
        {
            "*": ("", "Refuse"),
            **{phase: ("registered", "Unwatch Release Watch Refuse") for phase in ("pending", "registered", "refused")},
        },
    ),
    (
        "a server refuses to register it again",
        refused(MINE, "bad-credential"),
        {
            "*": ("", "Refuse"),
            **{phase: ("refused", KEPT) for phase in ("pending", "registered", "refused")},
        },
    ),
    (
        "a server knows a newer instance than one that is pending",
        refused(MINE, "stale-epoch"),
        {
            "*": ("", "Refuse"),
            **{phase: (phase, "Renew") for phase in ("pending", "registered", "refused")},
        },
    ),
    (
        "a server knows a newer instance than one that was registered",
        refused(REGISTERED, "stale-epoch"),
        {
            "*": ("", "Refuse"),
            **{phase: ("absent", LOST) for phase in ("pending", "registered", "refused")},
        },
    ),
    (
        "a server knows a newer instance than one that was renewed",
        refused(RENEWED, "stale-epoch"),
        {
            "*": ("", "Refuse"),
            **{phase: ("absent", GIVEN_UP) for phase in ("pending", "registered", "refused")},
        },
    ),
    (
        "an administrator removed the instance that a program asks for again",
        refused(FIRST, "deregistered"),
        {
            "*": ("", "Refuse"),
            **{phase: (phase, "Renew") for phase in ("pending", "registered", "refused")},
        },
    ),
    (
        "an administrator removed the instance",
        refused(MINE, "deregistered"),
        {
            "*": ("", "Refuse"),
            **{phase: ("absent", LOST) for phase in ("pending", "registered", "refused")},
        },
    ),
    (
        "the instance gets a newer epoch",
        states.Renewed(MINE, NEWER),
        {phase: (phase, "Rebind Watch Register") for phase in ("pending", "registered", "refused")},
    ),
    ("a server deregisters the instance", states.Deregistered(EPOCH), {"leaving": ("absent", "")}),
    ("a server deregisters another instance", states.Deregistered(NEWER), {}),
    (
        "a server refuses to deregister",
        states.DeregisterRefused(EPOCH, refusal("bad-credential")),
        {"leaving": ("absent", "Log")},
    ),
    (
        "nothing is left to deregister",
        states.DeregisterRefused(EPOCH, refusal("unknown-listener")),
        {"leaving": ("absent", "")},
    ),
    (
        "no server can decide",
        states.RefusedForNow(EPOCH, 1.0),
        {phase: (phase, "RetryLater") for phase in PHASES},
    ),
    (
        "the process ends",
        states.ProcessEnded(EPOCH, "why"),
        {phase: ("leaving", ENDED) for phase in ("pending", "registered", "refused")},
    ),
    ("the process of another instance ends", states.ProcessEnded(NEWER, "why"), {}),
    (
        "the connection closes",
        states.ConnectionClosed(EPOCH, "why"),
        {phase: ("leaving", ENDED) for phase in ("pending", "registered", "refused")},
    ),
    (
        "the daemon starts again and cannot recognise the process",
        states.Resumed(EPOCH, "in another PID namespace"),
        {phase: (phase, "Log") for phase in ("pending", "registered", "refused")},
    ),
    (
        "the daemon starts again and recognises the process",
        states.Resumed(EPOCH),
        {phase: (phase, "") for phase in ("pending", "registered", "refused")},
    ),
    ("a server answers about an instance that is certain", states.Judged(EPOCH, "offline"), {}),
    (
        "a session begins",
        states.Due(),
        {
            "leaving": ("leaving", "Deregister"),
            **{phase: (phase, "Register") for phase in ("pending", "registered", "refused")},
        },
    ),
]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("event", "rows"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_state_with_each_event(event: Event, rows: dict[str, tuple[str, str]], phase: str) -> None:
    before = None if phase == "absent" else entry(phase)
    after, following = step(before, event)
    default = rows.get("*", ("", ""))
    state, names = rows.get(phase, default)
    assert (after.state if after else "absent") == (state or phase)
    assert " ".join(type(action).__name__ for action in following) == names
    if not state:
        assert after is before, "an event without a row leaves the entry as it is"


def test_every_event_and_every_action_has_a_row() -> None:
    seen: set[type] = set()
    for _, event, _ in TABLE:
        for phase in PHASES:
            seen |= {type(action) for action in step(None if phase == "absent" else entry(phase), event)[1]}
    assert {type(event) for _, event, _ in TABLE} == set(states.Event.__subclasses__())
    for unverified in (states.Due(), states.Judged(EPOCH, "up")):
        seen |= {type(action) for action in step(UNVERIFIED, unverified)[1]}
    assert seen == set(actions.Action.__subclasses__())


@pytest.mark.parametrize("state", ["pending", "registered", "refused"])
def test_what_is_not_verified_is_doubted_and_not_registered_again(state: str) -> None:
    """A daemon that may hold a copy of the journal moves no row and ends none: it asks servers to probe."""
    doubted, _ = step(entry(state), states.Resumed(EPOCH, "on another machine"))
    assert doubted == entry(state, unverified="on another machine")
    assert step(doubted, states.Due()) == (doubted, (actions.Doubt(doubted),))
    assert step(doubted, states.Resumed(EPOCH))[0] == entry(state)


@pytest.mark.parametrize(
    ("found", "stays", "names"),
    [
        ("up", True, "DoubtLater"),
        ("draining", True, "DoubtLater"),
        ("bad-credential", True, ""),
        ("suspect", True, "RetryLater"),
        ("down", True, "RetryLater"),
        ("offline", False, "Log Unwatch"),
        ("unknown-listener", False, "Log Unwatch"),
        ("stale-epoch", False, "Log Unwatch"),
    ],
)
def test_what_a_server_found_of_an_unverified_instance(found: str, stays: bool, names: str) -> None:
    after, following = step(UNVERIFIED, states.Judged(EPOCH, found))
    assert after is (UNVERIFIED if stays else None)
    assert " ".join(type(action).__name__ for action in following) == names
    assert step(UNVERIFIED, states.Judged(NEWER, "offline")) == (UNVERIFIED, ()), "it is about another instance"


def test_a_program_that_registers_again_makes_its_instance_certain() -> None:
    after, _ = step(UNVERIFIED, states.RegisterRequested(entry()))
    assert after == entry()


def test_a_refusal_that_a_repetition_would_repeat_is_not_repeated() -> None:
    for code in ("bad-credential", "forbidden"):
        assert step(entry("refused", code=code), states.Due())[1] == ()


def test_what_is_asked_for_is_the_entry_after_the_step() -> None:
    """A newer epoch, a load and a death are in the journal and in the request alike."""
    asked: list[tuple[Registration | None, Event]] = [
        (None, states.RegisterRequested(NEW)),
        (entry(), states.LoadRequested(KEY, 0.5, "secret")),
        (entry(), states.Renewed(MINE, NEWER)),
        (entry("registered"), states.Due()),
    ]
    for before, event in asked:
        after, following = step(before, event)
        assert isinstance(following[-1], actions.Register) and following[-1].attempt.entry is after
    for event in (states.ProcessEnded(EPOCH, "why"), states.DeregisterRequested(KEY, NEWER, "secret")):
        after, following = step(entry(), event)
        assert isinstance(following[-1], actions.Deregister) and following[-1].entry is after
    assert step(entry(), states.ProcessEnded(EPOCH, "why"))[0] == entry("leaving", died=True)


def test_a_replaced_instance_is_restored_as_it_was() -> None:
    after, _ = step(entry(), refused(REPLACING, "bad-value"))
    assert after is OLD
    assert step(OLD, states.RegisterRequested(NEW))[1][-1] == actions.Register(
        Attempt(NEW, first=True, replaced=OLD)
    ), "the request remembers what it replaces"


def test_an_instance_is_renewed_once_and_above_what_the_server_knows() -> None:
    assert step(entry(), refused(MINE, "stale-epoch"))[1] == (actions.Renew(MINE, NEWER),)
    after, following = step(entry(), states.Renewed(MINE, NEWER + 1))
    assert after == entry(epoch=NEWER + 1)
    assert following[-1] == actions.Register(Attempt(entry(epoch=NEWER + 1), renewed=True))


def test_a_registration_that_works_again_forgets_its_problem() -> None:
    after, _ = step(entry("refused"), states.Registered(EPOCH))
    assert after == entry("registered")


def test_an_instance_without_a_connection_is_bound_to_none() -> None:
    loose = msgspec.structs.replace(NEW, hold=False)
    assert step(None, states.RegisterRequested(loose))[1] == (actions.Register(Attempt(loose, first=True)),)
