"""Actions that follow from a step of a registration (`states`), for the registrar to carry out."""

from __future__ import annotations

from typing import Literal

import msgspec

from compass.agent.registration.journal import Registration
from compass.model.replies import Refusal


class Attempt(msgspec.Struct, frozen=True):
    """Context of one request to register."""

    entry: Registration
    """Entry as it was sent."""
    first: bool = False
    """A program waits for the answer, or has waited for it."""
    is_late: bool = False
    """The program has got `pending` meanwhile, with `first`: a refusal is kept to be shown."""
    replaced: Registration | None = None
    """Entry to restore if a server refuses this one, with `first`."""
    renewed: bool = False
    """The entry has taken a newer epoch after a refusal; it does not take a second one."""


class Action(msgspec.Struct, frozen=True):
    """Action that the registrar carries out."""


class Register(Action, frozen=True):
    """Ask a server to register; `Registered`, `RegisterRefused` or `RefusedForNow` follows."""

    attempt: Attempt


class Verify(Action, frozen=True):
    """Ask a server to register an instance that the journal does not hold; `CredentialAccepted` may follow."""

    entry: Registration


class Deregister(Action, frozen=True):
    """Ask a server to deregister; `Deregistered`, `DeregisterRefused` or `RefusedForNow` follows."""

    entry: Registration


class Doubt(Action, frozen=True):
    """Ask a server to probe an unverified instance; `Judged` or `RefusedForNow` follows."""

    entry: Registration


class DeregisterUnknown(Action, frozen=True):
    """Ask a server to deregister what the journal cannot vouch for; `DeregisterAccepted` may follow."""

    entry: Registration


class Renew(Action, frozen=True):
    """Choose an epoch above `known`; `Renewed` follows."""

    attempt: Attempt
    known: int


class RetryLater(Action, frozen=True):
    """Make the entry `Due` again after a pause."""

    epoch: int
    retry_after_seconds: float


class DoubtLater(Action, frozen=True):
    """Make every unverified entry `Due` again after a long pause, although nothing is known to have changed."""


class Watch(Action, frozen=True):
    """Watch the process of the entry in place of the one watched before."""


class Unwatch(Action, frozen=True):
    """Stop watching the process."""


class Hold(Action, frozen=True):
    """Bind the instance to the connection on which it was asked for."""


class Rebind(Action, frozen=True):
    """Bind the connections of the instance `epoch` to the entry's instance."""

    epoch: int


class Release(Action, frozen=True):
    """Forget the connections of the instance."""

    epoch: int


class Refuse(Action, frozen=True):
    """Refuse the program's request."""

    refusal: Refusal


class Log(Action, frozen=True):
    """Write a log line."""

    level: Literal["info", "warn"]
    text: str
