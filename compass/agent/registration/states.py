"""States of one registration: (entry, event) -> (entry', actions). Pure: no clock, no journal, no server.

    absent -> pending -> registered -> leaving -> absent
                  \\-> refused <-/

`None` is the absent entry. An answer belongs to the instance that was asked for: if the journal holds another instance
by now, or the same one is leaving, the answer changes nothing. Each entry is due again on the next session.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from compass.agent.registration.actions import (
    Action,
    Attempt,
    Deregister,
    DeregisterUnknown,
    Doubt,
    DoubtLater,
    Hold,
    Log,
    Rebind,
    Refuse,
    Register,
    Release,
    Renew,
    RetryLater,
    Unwatch,
    Verify,
    Watch,
)
from compass.agent.registration.journal import Registration, State, format_key
from compass.agent.upstream.refusals import FUTILE, GONE, REPLACED
from compass.model.replies import Refusal
from compass.model.rows import FAILING, ListenerKey

UNVERIFIED_SECONDS = 5.0
"""Pause between two questions about an unverified instance whose listener fails: a probe and its repetition."""
UNVERIFIED_AGAIN_SECONDS = 30.0
"""Shortest pause between two questions about unverified instances whose listeners answer; the longest is twice as long.
What answers may be another program, which ends without a notice. A question costs a probe, and only hosts that lost
sight of a process ask."""


class Event(msgspec.Struct, frozen=True):
    """Event that concerns a registration."""


class RegisterRequested(Event, frozen=True):
    """A program asked to register `entry`, which is `pending`."""

    entry: Registration
    proven_first: bool = False
    """Only a server's answer makes this an entry: the credentials of this program's user were wrong lately."""


class CredentialAccepted(Event, frozen=True):
    """A server registered `entry`, which replaces an instance that has another credential."""

    entry: Registration


class DeregisterRequested(Event, frozen=True):
    """A program asked to deregister; `epoch` 0: whatever instance there is."""

    key: ListenerKey
    epoch: int
    credential: str


class DeregisterAccepted(Event, frozen=True):
    """A server deregistered every instance up to `epoch` with a credential that the journal does not have."""

    epoch: int


class LoadRequested(Event, frozen=True):
    """A program reported the load of its listener."""

    key: ListenerKey
    load: float
    credential: str


class Registered(Event, frozen=True):
    """A server registered the instance."""

    epoch: int
    warning: str = ""
    """Text of the server about what is doubtful."""


class RegisterRefused(Event, frozen=True):
    """A server refused for good to register the instance."""

    attempt: Attempt
    refusal: Refusal

    @property
    def epoch(self) -> int:
        """Epoch of the instance."""
        return self.attempt.entry.epoch


class Renewed(Event, frozen=True):
    """The instance gets the epoch `newer`."""

    attempt: Attempt
    newer: int

    @property
    def epoch(self) -> int:
        """Epoch of the instance so far."""
        return self.attempt.entry.epoch


class Deregistered(Event, frozen=True):
    """A server deregistered the instance."""

    epoch: int


class DeregisterRefused(Event, frozen=True):
    """A server refused for good to deregister the instance."""

    epoch: int
    refusal: Refusal


class RefusedForNow(Event, frozen=True):
    """No server could decide the request."""

    epoch: int
    retry_after_seconds: float


class ProcessEnded(Event, frozen=True):
    """The process of the instance ended."""

    epoch: int
    reason: str


class CheckChanged(Event, frozen=True):
    """The result of the host's own check of the instance changed."""

    epoch: int
    check: str
    failing: str


class ConnectionClosed(Event, frozen=True):
    """The connection that held the registration is closed, or the program did not open it again in time."""

    epoch: int
    reason: str


class Resumed(Event, frozen=True):
    """The daemon has started again, and watches the process of the instance or cannot recognise it."""

    epoch: int
    unknown: str = ""
    """Reason for which the daemon cannot say whether the instance lives; empty: it does."""


class Judged(Event, frozen=True):
    """A server answered about an unverified instance: the state of its listener, or a refusal's code."""

    epoch: int
    state: str


class Due(Event, frozen=True):
    """A session began, or the pause after a refusal is over: nothing was asked for the entry on this session."""


Step: TypeAlias = tuple[Registration | None, tuple[Action, ...]]
Phase: TypeAlias = Literal["absent"] | State


def step(entry: Registration | None, event: Event) -> Step:
    """Return the entry after the event, and the actions in their order. What has no row changes nothing."""
    match event, _phase(entry, event), entry:
        case RegisterRequested(new, proven_first), phase, _ if proven_first or _keeps_place(entry, phase, new):
            # Only a server can judge the other credential, so the living instance stays until one has, and so does a
            # death that no server has heard of yet.
            return entry, (Verify(new),)
        case RegisterRequested(new), _, _:
            return new, (*_hold(new), Register(Attempt(new, first=True, replaced=entry)))
        case CredentialAccepted(new), _, _:
            return _with(new, state="registered"), (Watch(), *_hold(new))
        case DeregisterRequested(), _, _:
            return _deregister(entry, event)
        case DeregisterAccepted(epoch), _, Registration() if entry.epoch <= epoch:
            return None, (Unwatch(),)
        case LoadRequested(), _, _:
            return _load(entry, event)
        case Registered(_, warning), "pending" | "registered" | "refused", Registration():
            return _registered(entry, warning)
        case RegisterRefused(), "pending" | "registered" | "refused", Registration():
            return _refused(entry, event)
        case RegisterRefused(_, refusal), _, _:
            return entry, (Refuse(refusal),)
        case Renewed(attempt, newer), "pending" | "registered" | "refused", Registration():
            renewed = _with(entry, epoch=newer)
            again = msgspec.structs.replace(attempt, entry=renewed, renewed=True)
            return renewed, (Rebind(attempt.entry.epoch), Watch(), Register(again))
        case Deregistered(), "leaving", _:
            return None, ()
        case DeregisterRefused(_, refusal), "leaving", Registration():
            text = f"{format_key(entry.key)} could not be deregistered: {refusal.message}"
            return None, () if refusal.code in GONE or refusal.host else (Log("warn", text),)
        case RefusedForNow(epoch, seconds), _, _:
            return entry, (RetryLater(epoch, seconds),)
        case ProcessEnded(_, why) | ConnectionClosed(_, why), "pending" | "registered" | "refused", Registration():
            dead = _with(entry, state="leaving", died=True, problem="", code="")
            died = Log("info", f"{format_key(entry.key)} died: {why}")
            return dead, (died, Unwatch(), Release(entry.epoch), Deregister(dead))
        case Resumed(_, unknown), "pending" | "registered" | "refused", Registration():
            doubted = Log("warn", f"it is not known whether {format_key(entry.key)} lives: {unknown}; servers probe it")
            return _with(entry, unverified=unknown), (doubted,) if unknown else ()
        case Judged(_, state), "pending" | "registered" | "refused", Registration() if entry.unverified:
            return _judged(entry, state)
        case CheckChanged(_, check, failing), "pending" | "registered", Registration():
            return _checked(entry, _with(entry, check=check, failing=failing))
        case Due(), _, Registration():
            return entry, _due(entry)
        case _:
            return entry, ()


def is_displaced(entry: Registration) -> bool:
    """Return whether another host's instance at the same address and port counts in place of the entry."""
    return entry.state == "refused" and entry.code in REPLACED


def _phase(entry: Registration | None, event: Event) -> Phase:
    """Return the state of the entry; `absent` also if the event concerns another instance."""
    if entry is None or getattr(event, "epoch", entry.epoch) != entry.epoch:
        return "absent"
    return entry.state


def _keeps_place(entry: Registration | None, phase: Phase, new: Registration) -> bool:
    """Return whether the new instance has another credential than one that lives or whose end is not delivered."""
    living = entry if phase in ("pending", "registered", "leaving") else None
    return living is not None and not living.has_credential(new.credential)


def _deregister(entry: Registration | None, asked: DeregisterRequested) -> Step:
    name = format_key(asked.key)
    if entry is not None and asked.epoch and asked.epoch < entry.epoch:
        text = f"{name} belongs to a newer instance, which stays registered"
        return entry, (Refuse(Refusal("stale-epoch", text, epoch=entry.epoch)),)
    if entry is None and not asked.epoch:
        text = f"{name} was not registered on this host; name the epoch of the instance that is to go"
        return None, (Refuse(Refusal("unknown-listener", text)),)
    if entry is None or not entry.has_credential(asked.credential):
        epoch = asked.epoch or (entry.epoch if entry is not None else 0)
        unknown = Registration(*asked.key, epoch=epoch, credential=asked.credential, state="leaving")
        return entry, (DeregisterUnknown(unknown),)
    leaving = _with(entry, state="leaving", epoch=max(entry.epoch, asked.epoch))
    return leaving, (Unwatch(), Deregister(leaving))


def _load(entry: Registration | None, asked: LoadRequested) -> Step:
    name = format_key(asked.key)
    if entry is None or not entry.lives:
        text = f"{name} is not registered on this host; register it"
        return entry, (Refuse(Refusal("unknown-listener", text)),)
    if not entry.has_credential(asked.credential):
        text = f"report the load of {name}: this is not the credential that it was registered with"
        return entry, (Refuse(Refusal("bad-credential", text)),)
    loaded = _with(entry, load=asked.load)
    return loaded, (Register(Attempt(loaded)),)


def _registered(entry: Registration, warning: str) -> Step:
    if (entry.state, entry.problem) == ("registered", warning):
        return entry, ()
    doubt = (Log("warn", f"{format_key(entry.key)}: {warning}"),) if warning else ()
    return _with(entry, state="registered", problem=warning, code=""), doubt


def _refused(entry: Registration, event: RegisterRefused) -> Step:
    attempt, refusal = event.attempt, event.refusal
    if refusal.host and refusal.code == "deregistered" and not attempt.renewed:
        # The newer instance of the other host is over, and this one lives.
        return entry, (Renew(attempt, refusal.epoch),)
    # A living process may have an old epoch because the clock was set back. One that was registered already has been
    # replaced by a newer instance and must not take its place.
    is_behind = refusal.code == "stale-epoch" or (attempt.first and refusal.code == "deregistered")
    if is_behind and attempt.entry.state == "pending" and not attempt.renewed:
        return entry, (Renew(attempt, refusal.epoch),)
    is_awaited = attempt.first and not attempt.is_late
    if refusal.host and refusal.code == "stale-epoch" and not is_awaited:
        return _displaced(entry, refusal)
    release = (Unwatch(), Release(entry.epoch))
    if is_awaited and attempt.replaced is not None:
        return attempt.replaced, (*release, Watch(), Refuse(refusal))
    if is_awaited:
        return None, (*release, Refuse(refusal))
    lost = Log("warn", f"{format_key(entry.key)} is not registered any more: {refusal.message}")
    if refusal.code in REPLACED:
        return None, (*release, lost, Refuse(refusal))
    refused = _with(entry, state="refused", problem=refusal.message, code=refusal.code)
    return refused, (*release, Watch(), lost, Refuse(refusal))


def _displaced(entry: Registration, refusal: Refusal) -> Step:
    """Keep the entry, with its process and connections watched: it counts again when the other instance is over."""
    text = (
        f"host {refusal.host} has registered the same service, address and port later, and that instance counts; this "
        "one counts again when that one ends"
    )
    if (entry.code, entry.problem) == (refusal.code, text):
        return entry, (Refuse(refusal),)
    log = Log("warn", f"{format_key(entry.key)} does not count now: {text}")
    return _with(entry, state="refused", problem=text, code=refusal.code), (log, Refuse(refusal))


def _checked(entry: Registration, changed: Registration) -> Step:
    if changed == entry:
        return entry, ()
    return changed, () if entry.unverified else (Register(Attempt(changed)),)


def _due(entry: Registration) -> tuple[Action, ...]:
    if entry.code in FUTILE:
        return ()
    if entry.state == "leaving":
        return (Deregister(entry),)
    return (Doubt(entry),) if entry.unverified else (Register(Attempt(entry)),)


def _judged(entry: Registration, state: str) -> Step:
    if state == "offline" or state in GONE or state == "stale-epoch":
        return None, (
            Log("info", f"{format_key(entry.key)} has ended: no server has it, or it answers no probe"),
            Unwatch(),
        )
    # A listener that fails is probed until it is down, which settles it. One that answers stays as it is, as long as
    # it answers.
    if state in FAILING:
        return entry, (RetryLater(entry.epoch, UNVERIFIED_SECONDS),)
    return entry, () if state in FUTILE else (DoubtLater(),)


def _hold(entry: Registration) -> tuple[Action, ...]:
    return (Hold(),) if entry.hold else ()


def _with(entry: Registration, **changes: Any) -> Registration:
    return msgspec.structs.replace(entry, **changes)
