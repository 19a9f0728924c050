"""Vocabulary of the host API: requests of a host's own programs to the agent, and its replies.

It stands in the model because three packages speak it and may not import each other: the daemon that answers, the
gateway that spells it as HTTP, and the client library that asks.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from compass.model.limits import EPOCH_MAX, PORT_MAX, WEIGHT_MAX, Share, between
from compass.model.names import Address, Detail, Metadata, OptionalAddress, OptionalLabel, OptionalServiceId, ServiceId
from compass.model.replies import Dependencies
from compass.model.rows import IDLE, Change, Listener, State

Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""JSON's integers have no end, but MessagePack's do: what could never be said to a server is refused at the door."""
LocalPort = Annotated[Integer, between(1, PORT_MAX)]


class LocalRegister(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Function 2.1, asked by a program on the host."""

    service: ServiceId
    port: LocalPort
    credential: str
    address: OptionalAddress = ""
    """Empty: the host's own."""
    weight: Annotated[Integer, between(0, WEIGHT_MAX)] = 1
    metadata: Metadata = {}
    pid: Annotated[Integer, between(0, 2**31 - 1)] = 0
    """Process id of the program that serves; when it ends, the listener is deregistered as died. 0: no process is
    watched."""
    hold: bool = False
    """The registration lives as long as the connection that it was asked on."""
    zone: OptionalLabel = ""
    """Empty: the host's own."""
    load: Share = IDLE
    degradation: Share = IDLE


class LocalDeregister(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Function 2.2, asked by a program on the host."""

    service: ServiceId
    port: LocalPort
    credential: str
    address: OptionalAddress = ""
    epoch: Annotated[Integer, between(0, EPOCH_MAX)] = 0
    """The instance that goes, as its registration's answer named it; 0: the one registered here now."""


class LocalLoad(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A listener that is registered here says how much of its capacity is in use, for the policies that go by load."""

    service: ServiceId
    port: LocalPort
    credential: str
    load: Share
    """Load from 0 (idle) to 1 (full)."""
    address: OptionalAddress = ""


class LocalDrain(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A listener that is registered here takes no new users, or takes them again."""

    service: ServiceId
    port: LocalPort
    credential: str
    draining: bool = True
    address: Address = ""


class LocalReport(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Function 2.5, asked by a program on the host."""

    service: ServiceId
    address: Address
    port: LocalPort
    state: Literal["unreachable", "slow"] = "unreachable"
    reporter: OptionalServiceId = ""
    """The service that found out; empty: the host."""
    detail: Detail = ""


class Outcome(msgspec.Struct, frozen=True):
    """Result of a registration, deregistration or report.

    `pending`: no server could be asked; the agent keeps the request on disk and delivers it when a server is available
    again.
    """

    state: State | Literal["pending"]
    service: str
    address: str
    port: int
    epoch: int = 0
    """The instance; what a later deregistration names to be harmless to a newer one (P6). 0: of a report."""
    revision: int = 0
    """Revision of the commit; 0 while pending."""


class Resolved(msgspec.Struct, frozen=True):
    """The listeners to use for a service or a category, best first."""

    name: str
    revision: int
    source: str
    """`service`, `backup`, `draining`, `suspect`, or `none`: nothing is registered that could be used."""
    listeners: tuple[Listener, ...]
    policy: str = ""
    """The pool policy that ordered them."""


class RegistrationStatus(msgspec.Struct, frozen=True):
    """Registration as the agent's journal has it, without its credential."""

    service: str
    address: str
    port: int
    epoch: int
    state: str
    """`pending`, `registered`, `leaving` (its deregistration is not delivered yet) or `refused`."""
    pid: int = 0
    hold: bool = False
    problem: str = ""


Source: TypeAlias = Literal["configured", "srv", "announced", "steered"]
"""Source of a known server: the configuration, an SRV name of DNS, an announcement, or another server's goodbye."""


class KnownServer(msgspec.Struct, frozen=True):
    """Address of a server, with the agent's experience of it."""

    name: str
    """Name that the server's certificate must prove."""
    endpoint: str
    """Endpoint that the agent dials: an address or a name, and a port."""
    source: Source
    state: Literal["open", "connecting", "ready", "asked-to-wait", "backing-off"]
    """`ready`: it would be taken now. `asked-to-wait`: a server there said when to come back."""
    next_try_seconds: float = 0.0
    """Seconds until the next attempt; 0: at once, if one is needed."""
    failures: int = 0
    """Failures in a row."""
    problem: str = ""
    """The last of them."""
    steered: bool = False
    """True if another server redirected this host there, so that it is preferred for a while."""


ReactionState: TypeAlias = Literal["idle", "waiting", "running", "failed", "withheld"]


class ReactionStatus(msgspec.Struct, frozen=True):
    """A hook or a template of the host's configuration, and how it fares."""

    kind: str
    """`hook` or `template`."""
    name: str
    on: tuple[str, ...]
    """The categories and services it looks at."""
    state: ReactionState
    """`failed`: the last turn did not do what it should, and is tried again. `withheld`: nothing is known to act on."""
    turns: int = 0
    """Runs since the agent started."""
    failures: int = 0
    """Failed runs in a row."""
    ago_seconds: float = -1.0
    """Seconds since the last run ended; negative: there was none."""
    problem: str = ""
    """Problem of the last run, or the reason why it is withheld."""


class HostStatus(msgspec.Struct, frozen=True):
    """The daemon in figures."""

    host: str
    session: Literal["open", "connecting", "waiting", "stopped"]
    server: str
    """The server's name while a session is open."""
    store: str
    revision: int
    loaded: bool
    """False until a server, or the disk, has given a whole view."""
    services: tuple[str, ...]
    """Services on whose behalf the host receives changes."""
    listeners: int
    registrations: tuple[RegistrationStatus, ...]
    problem: str = ""
    """Why there is no session, or why what a server said was not taken."""
    zone: str = ""
    """Zone of the host, as a label; empty: unknown."""
    servers: tuple[KnownServer, ...] = ()
    """Every known way to a server, the preferred first."""
    view: str = ""
    """The directory in which the view is shared with the programs of the host; empty: it is not (shared-view.md)."""
    reactions: tuple[ReactionStatus, ...] = ()
    """The hooks, then the templates, as the configuration lists them."""


class LocalEvent(msgspec.Struct, frozen=True):
    """Event for a watching program: all of its dependencies, or one change of them."""

    kind: Literal["snapshot", "change"]
    revision: int
    data: Dependencies | Change


LocalRequest: TypeAlias = LocalRegister | LocalDeregister | LocalLoad | LocalDrain | LocalReport
