"""Requests to the name service (opengnsp.md, "Messages"): functions 2.1, 2.2, 2.3, 2.5 and 2.6.

The `type` tag is the message's name on the wire. Fields may be added with a default; none is ever removed or given
another meaning (P13).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, Union

import msgspec
from msgspec import Meta

from compass.model.limits import (
    CERTIFICATE_REQUEST_OCTETS_MAX,
    EPOCH_MAX,
    FETCH_LIMIT_MAX,
    INSTEAD_MAX,
    INVITATION_NAMES_MAX,
    INVITATION_SECONDS,
    INVITATION_SECONDS_MAX,
    INVITATION_SECONDS_MIN,
    LOG_WAIT_SECONDS_MAX,
    OVERLAP_SECONDS_MAX,
    PURGE_AGE_SECONDS_MIN,
    STEER_SECONDS_MAX,
    Share,
    Weight,
    between,
)
from compass.model.names import (
    Address,
    CheckText,
    Detail,
    HostName,
    Line,
    Metadata,
    ObjectName,
    OptionalLabel,
    OptionalServiceId,
    PoolName,
    Port,
    ServerName,
    ServiceId,
)
from compass.model.rows import IDLE, Category, Dependency, Host, Instance, Service, State

CertificateRequest = Annotated[bytes, Meta(max_length=CERTIFICATE_REQUEST_OCTETS_MAX)]


class Register(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="register"):
    """Function 2.1: register a listener. `epoch` orders the instances that use one address and port (P6)."""

    service: ServiceId
    credential: str
    address: Address
    port: Port
    epoch: Annotated[int, between(0, EPOCH_MAX)]
    weight: Weight = 1
    metadata: Metadata = {}
    zone: OptionalLabel = ""
    load: Share = IDLE
    degradation: Share = IDLE
    check: CheckText = ""
    """Check that the host makes of the listener, in words; empty: none."""
    failing: Detail = ""
    """Problem that the check found, `failures` times in a row; empty: it passes."""


class Deregister(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="deregister"):
    """Function 2.2: deregister a listener. `died`: its process ended without a deregistration, as its host observed.

    `unverified`, with `died`: the host has not observed it, and cannot; the server probes before it believes.
    """

    service: ServiceId
    credential: str
    address: Address
    port: Port
    epoch: Annotated[int, between(1, EPOCH_MAX)]
    died: bool = False
    unverified: bool = False


class Drain(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="drain"):
    """Drain a listener, so that it gets no new users, or end the drain. Administrators need no credential."""

    service: ServiceId
    address: Address
    port: Port
    draining: bool = True
    credential: str = ""


class Pull(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="pull"):
    """Function 2.3: read the dependencies of a service.

    `seen`, a revision of `store`: the reply must not be older, here as below.
    """

    service: ServiceId
    store: Line = ""
    seen: int = 0


class Watch(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="watch"):
    """Subscription of a host on behalf of its services: the pull of all of them, then notices (2.4).

    `since` and `store` name the state that the host holds already; without them, or if the log no longer reaches back
    to `since`, the reply contains a snapshot. `update_*` is the address to which the server may connect while the host
    keeps no session.
    """

    services: tuple[str, ...]
    store: Line = ""
    since: int = 0
    update_address: str = ""
    update_port: int = 0
    resync: bool = False
    """True if the host accepts `Resync` after it has read too slowly; otherwise it is disconnected and resumes."""
    probes: bool = False
    """True if the host answers an `inquiry`: it probes a listener that it depends on at the server's request."""
    digest: int = 0
    """Version of digests that the host compares with its replica; 0: none."""
    instance: Line = ""
    """Text that is the same in all sessions of one run of the daemon, and differs between two daemons; empty: unknown.
    """
    suspicions: bool = False
    """True if the host accepts `suspicion`: evidence that the server cannot write while its store is unavailable."""
    holds: Line = ""
    """Digest of the instances that the host holds, which asks for `recorded` where the store has others; empty: the
    host does not compare now."""
    trouble: Detail = ""
    """Text for administrators about this host, an open incident as long as it is sent; empty: there is none."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="report"):
    """Function 2.5: report a listener as dead or slow. `reporter` is the service that found this."""

    service: ServiceId
    address: Address
    port: Port
    state: Literal["unreachable", "slow"] = "unreachable"
    reporter: OptionalServiceId = ""
    detail: Detail = ""


class Findings(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="findings"):
    """Result of a host's probe of a listener on the server's behalf: the reply to the `inquiry` with that id."""

    id: int
    alive: bool
    detail: str = ""


class Disown(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="disown"):
    """Instances that the store has for this host and that this host does not hold: the answer to `recorded`."""

    instances: tuple[Instance, ...]
    detail: Detail = ""
    """Reason, if the host knows one."""


class Put(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="put"):
    """2.6: add a row (`create`) or change an existing row."""

    row: Category | Service | Dependency | Host
    create: bool = False


class Remove(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="remove"):
    """2.6: remove an unused object. `name`: category, `service.category`, `category on`, host name, or
    `service address:port` for a listener."""

    kind: Literal["category", "service", "dependency", "listener", "host"]
    name: Line


class Rename(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="rename"):
    """2.6: rename a category or a service, with all that is known of it. `force`: also if hosts then get less."""

    name: PoolName
    to: PoolName
    step: Literal["", "begin", "end"] = ""
    """`begin` adds the new name, `end` removes the old one; empty: both at once, while nothing uses the old one."""
    force: bool = False
    dry_run: bool = False


class IssueCredential(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="issue-credential"):
    """2.6: issue a new token for a service; its other tokens expire after `overlap_seconds`."""

    service: ServiceId
    overlap_seconds: Annotated[float, between(0, OVERLAP_SECONDS_MAX)] | None = None
    """None: the older tokens stay unchanged. 0: they are refused from now on."""


class RevokeCredential(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="revoke-credential"):
    """2.6: revoke a token: it is refused from now on."""

    service: ServiceId
    id: Line


class Apply(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="apply"):
    """2.6: bring the declared objects into the state of a topology, completely or not at all.

    Declared objects are categories, services and dependencies; `prune` removes those that the topology does not name.
    `dry_run` changes nothing and returns the difference.
    """

    rows: tuple[Category | Service | Dependency, ...]
    prune: bool = False
    dry_run: bool = False


class Purge(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="purge"):
    """2.6: remove the rows of listeners that have been offline or down for longer than `age_seconds`."""

    age_seconds: Annotated[float, Meta(extra_json_schema={"minimum": PURGE_AGE_SECONDS_MIN})]
    state: Literal["offline", "down"] = "offline"


class Fetch(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="fetch"):
    """2.6: read rows of one kind in the order of their keys: at most `limit`, after the first `after` rows."""

    kind: Literal["category", "service", "dependency", "listener", "credential", "host", "alert"]
    within: Line = ""
    """Category or service id to which the rows must belong; for listeners also a host name."""
    name: Line = ""
    """Name of the only row to return."""
    state: State | Literal[""] = ""
    limit: Annotated[int, between(1, FETCH_LIMIT_MAX)] = 10_000
    after: int = 0
    """Number of rows to skip."""
    store: Line = ""
    seen: int = 0
    pages: bool = False
    """True if the reply may end before `limit` rows, with a cursor for the next page."""
    cursor: Line = ""
    """Cursor of an earlier page, from which this one continues."""


class Impact(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="impact"):
    """2.6: list the hosts that would be notified of a change of this category, service or listener."""

    name: ObjectName
    store: Line = ""
    seen: int = 0


class ReadLog(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="read-log"):
    """2.6: read entries of a log after number `after` (for updates: the revision), at most `limit`.

    `wait_seconds`: if there is none yet, wait up to this time for one. `last`: start that number before the end
    instead. `pages`: the reply may end before all of these, and then says so.
    """

    log: Literal["updates", "security", "administration"]
    after: Annotated[int, between(0, 2**63 - 1)] = 0
    limit: int = 1000
    last: int = 0
    wait_seconds: Annotated[float, between(0, LOG_WAIT_SECONDS_MAX)] = 0.0
    pages: bool = False


class Examine(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="examine"):
    """2.6: read this server's evidence about a listener's health, its last judgement, and its flap damping."""

    service: ServiceId
    address: Address
    port: Port


class Steer(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="steer"):
    """Function 2.6: drain this server, so that its hosts go to other servers, or end the drain."""

    away: bool = True
    instead: Annotated[tuple[ServerName, ...], Meta(extra_json_schema={"maxItems": INSTEAD_MAX})] = ()
    """Servers that replace this one; none: each host chooses from those that it knows."""
    seconds: Annotated[float, between(0, STEER_SECONDS_MAX)] = 30.0
    """Seconds over which the present hosts are redirected."""
    force: bool = False
    """Drain also when no other server is known to which the hosts could go."""


class Ways(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="ways"):
    """2.6: list the channels by which this server notifies administrators of incidents, with their state."""


class TryWays(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="try-ways"):
    """2.6: send a test message by each channel by which this server notifies administrators."""

    name: Line = ""
    """Name of the only channel, or channels, to test."""


class Invite(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="invite"):
    """2.6: make a join token, with which one host gets its certificate from a server, once."""

    name: HostName
    """Name of the host in its certificate."""
    also: Annotated[tuple[Line, ...], Meta(extra_json_schema={"maxItems": INVITATION_NAMES_MAX})] = ()
    """Further DNS names and IP addresses of the host."""
    seconds: Annotated[float, between(INVITATION_SECONDS_MIN, INVITATION_SECONDS_MAX)] = INVITATION_SECONDS
    """Seconds for which the token is valid."""


class Renew(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="renew"):
    """Request of a host for a new certificate with the role and the names of the one that its session has."""

    request: CertificateRequest
    """Certificate request (PKCS #10, DER) for a new key of the host."""


class Join(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="join"):
    """Request of a host that has no certificate yet, over HTTPS: its first certificate for a join token."""

    token: Line
    """Secret part of the token."""
    request: CertificateRequest
    """Certificate request (PKCS #10, DER) for the key of the host."""


class Status(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="status"):
    """2.6: read the status of this server."""


class Digest(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="digest"):
    """2.6: read the digest of all rows of this server at `revision`; 0: at its current revision."""

    revision: Annotated[int, Meta(extra_json_schema={"minimum": 0})] = 0


class Lag(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="lag"):
    """2.6: read the revision that each host holds (P12), of all hosts or in pages as in `Fetch`."""

    pages: bool = False
    cursor: Line = ""


WriteRequest: TypeAlias = Union[  # noqa: UP007
    Register, Deregister, Drain, Report, Disown, Put, Remove, Rename, IssueCredential, RevokeCredential, Apply, Purge
]
"""Requests from outside that may change the catalogue: decided, committed, then answered."""
ReadRequest: TypeAlias = Union[Pull, Fetch, Impact]  # noqa: UP007
"""Requests that a pure function answers from the catalogue in memory."""
ShellRequest: TypeAlias = Union[  # noqa: UP007
    Watch, ReadLog, Status, Digest, Lag, Findings, Examine, Steer, Ways, TryWays, Invite, Renew
]
"""Requests that the server's shells answer, because they concern sessions or SQL."""
Request: TypeAlias = Union[WriteRequest, ReadRequest, ShellRequest]  # noqa: UP007


class WeighedReport(Report, frozen=True, omit_defaults=True, tag_field="type", tag="report"):
    """Report that the failure detector has weighed."""

    enough: bool = True
    """True if the reports up to this one suffice for `suspect`."""


class Suspect(msgspec.Struct, frozen=True):
    """Request of the failure detector, never on the wire: evidence against an instance that is not a report."""

    service: str
    address: str
    port: int
    epoch: int
    cause: str


class Incident(msgspec.Struct, frozen=True):
    """Request of the failure detector, never on the wire: begin of an incident, or its end (`text` empty)."""

    id: str
    text: Line = ""


class Verdict(msgspec.Struct, frozen=True):
    """Request of the failure detector, never on the wire: the result of a check, for the instance that was probed."""

    service: str
    address: str
    port: int
    epoch: int
    alive: bool
    cause: str


class Attend(msgspec.Struct, frozen=True):
    """Request of the session layer, never on the wire: the services that a host watches, and its update address."""

    host: str
    services: tuple[str, ...]
    update_address: str
    update_port: int


Undecided: TypeAlias = Union[WriteRequest, WeighedReport, Suspect, Incident, Verdict, Attend]  # noqa: UP007
"""Requests that the commit loop accepts."""
