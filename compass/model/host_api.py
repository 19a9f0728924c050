"""Vocabulary of the host API: requests of a host's own programs to the agent, and its replies.

It is part of the model because three packages use it and may not import each other: the agent that replies, the
gateway that maps it to HTTP, and the client library that sends requests.
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
"""Integer that MessagePack can represent. JSON has larger ones; the host API refuses these, since no request to a
server could contain them."""
LocalPort = Annotated[Integer, between(1, PORT_MAX)]


class LocalRegister(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Function 2.1, requested by a program on the host."""

    service: ServiceId
    port: LocalPort
    credential: str
    address: OptionalAddress = ""
    """Empty: the host's own."""
    weight: Annotated[Integer, between(0, WEIGHT_MAX)] = 1
    metadata: Metadata = {}
    pid: Annotated[Integer, between(0, 2**31 - 1)] = 0
    """Process id of the serving program; when the process ends, the listener is deregistered as died. 0: no process is
    watched."""
    hold: bool = False
    """True if the registration ends with the connection of its request."""
    zone: OptionalLabel = ""
    """Empty: the host's own."""
    load: Share = IDLE
    degradation: Share = IDLE
    shared: bool = False
    """True if further processes may share the registration, such as the workers of one server; it ends with the last
    one. Each registers with its `pid` and the same credential."""


class LocalDeregister(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Function 2.2, requested by a program on the host."""

    service: ServiceId
    port: LocalPort
    credential: str
    address: OptionalAddress = ""
    epoch: Annotated[Integer, between(0, EPOCH_MAX)] = 0
    """Epoch of the instance, from the reply to its registration; 0: the instance that is registered here now."""
    pid: Annotated[Integer, between(0, 2**31 - 1)] = 0
    """Process that leaves a registration which it shares; the others keep it. 0: the registration ends for all."""


class LocalLoad(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Report of the share of its capacity that a listener of this host has in use, for policies that depend on load."""

    service: ServiceId
    port: LocalPort
    credential: str
    load: Share
    """Load from 0 (idle) to 1 (full)."""
    address: OptionalAddress = ""


class LocalDrain(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Drain of a listener that is registered here, or the end of the drain: new users are accepted again."""

    service: ServiceId
    port: LocalPort
    credential: str
    draining: bool = True
    address: Address = ""


class LocalReport(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Function 2.5, requested by a program on the host."""

    service: ServiceId
    address: Address
    port: LocalPort
    state: Literal["unreachable", "slow"] = "unreachable"
    reporter: OptionalServiceId = ""
    """The service that reports; empty: the host."""
    detail: Detail = ""


class Outcome(msgspec.Struct, frozen=True):
    """Result of a registration, deregistration or report.

    `pending`: no server was available; the agent stores the request on disk and delivers it when a server is available
    again.
    """

    state: State | Literal["pending"]
    service: str
    address: str
    port: int
    epoch: int = 0
    """Epoch of the instance. A deregistration with this epoch does not affect a newer instance (P6). 0: of a report."""
    revision: int = 0
    """Revision of the commit; 0 while pending."""


class Resolved(msgspec.Struct, frozen=True):
    """The listeners to use for a service or a category, best first."""

    name: str
    revision: int
    source: str
    """`service`, `backup`, `draining`, `suspect`, or `none`: no usable listener is registered."""
    listeners: tuple[Listener, ...]
    policy: str = ""
    """The pool policy that ordered them."""


class RegistrationStatus(msgspec.Struct, frozen=True):
    """Registration in the agent's journal, without its credential."""

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
"""Source of a known server: the configuration, DNS SRV records, an announcement, or the goodbye of another server."""


class KnownServer(msgspec.Struct, frozen=True):
    """Address of a server, with the agent's experience of it."""

    name: str
    """Name that the server's certificate must prove."""
    endpoint: str
    """Endpoint to which the agent connects: an address or a name, and a port."""
    source: Source
    state: Literal["open", "connecting", "ready", "asked-to-wait", "backing-off"]
    """`ready`: the agent may connect now. `asked-to-wait`: a server at this endpoint has set a time for the retry."""
    next_try_seconds: float = 0.0
    """Seconds until the next attempt; 0: an attempt is possible at once."""
    failures: int = 0
    """Failures in a row."""
    problem: str = ""
    """Text of the last failure."""
    steered: bool = False
    """True if another server redirected this host there, so that it is preferred for a while."""


ReactionState: TypeAlias = Literal["idle", "waiting", "running", "failed", "withheld"]


class ReactionStatus(msgspec.Struct, frozen=True):
    """State of a hook or template of the host's configuration."""

    kind: str
    """`hook` or `template`."""
    name: str
    on: tuple[str, ...]
    """Categories and services whose changes start it."""
    state: ReactionState
    """`failed`: the last run failed and is repeated. `withheld`: there is no data to act on."""
    turns: int = 0
    """Runs since the agent started."""
    failures: int = 0
    """Failed runs in a row."""
    ago_seconds: float = -1.0
    """Seconds since the last run ended; negative: there was none."""
    problem: str = ""
    """Problem of the last run, or reason for `withheld`."""


class HostStatus(msgspec.Struct, frozen=True):
    """Status of the agent."""

    host: str
    session: Literal["open", "connecting", "waiting", "stopped"]
    server: str
    """Name of the server while a session is open."""
    store: str
    revision: int
    loaded: bool
    """True once a complete view was read from a server or from disk."""
    services: tuple[str, ...]
    """Services on whose behalf the host receives changes."""
    listeners: int
    registrations: tuple[RegistrationStatus, ...]
    problem: str = ""
    """Reason for which there is no session, or for which a message of a server was not applied."""
    zone: str = ""
    """Zone of the host, as a label; empty: unknown."""
    servers: tuple[KnownServer, ...] = ()
    """All known addresses of servers, in the order of preference."""
    view: str = ""
    """Directory in which the view is shared with the programs of the host (shared-view.md); empty: it is not shared."""
    reactions: tuple[ReactionStatus, ...] = ()
    """Hooks, then templates, in the order of the configuration."""
    warnings: tuple[str, ...] = ()
    """Problems of this host's registrations that a person has to solve, such as a file that cannot be read."""


class LocalEvent(msgspec.Struct, frozen=True):
    """Event for a watching program: all of its dependencies, or one change of these."""

    kind: Literal["snapshot", "change"]
    revision: int
    data: Dependencies | Change


LocalRequest: TypeAlias = LocalRegister | LocalDeregister | LocalLoad | LocalDrain | LocalReport
