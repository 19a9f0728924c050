"""Replies of the name service (opengnsp.md, "Messages"): one reply or one refusal to every request."""

from __future__ import annotations

from typing import Literal, TypeAlias, Union, get_args

import msgspec

from compass.model.rows import Alert, Change, Credential, Listener, Row, Snapshot, State

Code = Literal[
    "malformed",
    "unknown-message",
    "unsupported-version",
    "out-of-turn",
    "too-large",
    "forbidden",
    "bad-credential",
    "bad-name",
    "bad-address",
    "bad-value",
    "unknown-category",
    "unknown-service",
    "unknown-dependency",
    "unknown-listener",
    "unknown-credential",
    "unknown-host",
    "unknown-way",
    "exists",
    "in-use",
    "stale-epoch",
    "deregistered",
    "invalid-topology",
    "not-ready",
    "busy",
    "store-unavailable",
    "unreachable",
]
"""Why a request was refused. Every edge (HTTP, exit codes) maps every one of them."""
CODES: tuple[str, ...] = get_args(Code)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Problem of a topology: the row, and what is wrong with it."""

    index: int
    code: str
    message: str


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="refusal"):
    """A request that was not carried out: nothing changed but perhaps the security log."""

    code: str
    """Code, one of `Code`; a newer server may know more, and an older client still reads the rest (P13)."""
    message: str
    """Text for people: what was refused, why, and what to do next."""
    retry_after_seconds: float = 0.0
    """Seconds after which the same request may succeed; 0: it will not."""
    epoch: int = 0
    """Epoch that the server knows, with stale-epoch and deregistered."""
    problems: tuple[Problem, ...] = ()
    """All problems, with invalid-topology."""


class Registered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="registered"):
    """The listener is in the catalogue, on disk. `changed` is false when it was there just so already."""

    revision: int
    state: State
    changed: bool = True


class Deregistered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="deregistered"):
    """The listener is out of use, on disk."""

    revision: int
    state: State
    changed: bool = True


class ServiceView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A service and its listeners, all but the offline ones."""

    id: str
    listeners: tuple[Listener, ...] = ()


class CategoryView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Dependency category as a pull shows it."""

    category: str
    services: tuple[ServiceView, ...] = ()
    backup: str = ""
    backup_listeners: tuple[Listener, ...] = ()
    pool: str = "weighted-random"
    pools: dict[str, str] = {}
    locality: str = "none"
    """Locality by which users order its listeners, from the category's policy (`rows.Policy`)."""


class Dependencies(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="dependencies"):
    """Function 2.3's answer, true at `revision`."""

    service: str
    revision: int
    categories: tuple[CategoryView, ...] = ()


class Watching(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="watching"):
    """The subscription stands. With a snapshot: drop what you held of this store and take this.

    Without one: what you hold is good, the notices after `since` follow.
    """

    store: str
    revision: int
    snapshot: Snapshot | None = None
    unknown: tuple[str, ...] = ()
    """Services of the request that no administrator has created (yet)."""


class Reported(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="reported"):
    """The report is noted; the listener's state now."""

    revision: int
    state: State


class Done(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="done"):
    """An administrator's change is committed at `revision`. `changes`: what it was (or, in a dry run, would be)."""

    revision: int
    changes: tuple[Change, ...] = ()


class CredentialIssued(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="credential-issued"):
    """The only time that the token is seen."""

    revision: int
    credential: Credential
    token: str


class Rows(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="rows"):
    """The rows asked for, true at `revision`."""

    revision: int
    rows: tuple[Row, ...]
    total: int
    """Number of rows without the limit."""


class Told(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="told"):
    """Impact: the categories that depend on the object, their services, and the hosts that would be notified."""

    name: str
    revision: int
    categories: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    backup_of: tuple[str, ...] = ()


class UpdateEntry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="log", tag="update"):
    """A row of the update log: function 2.1's fields, and the change itself."""

    number: int
    time: float
    operation: str
    subject: str
    address: str
    port: int
    state: str
    change: Change


class SecurityEntry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="log", tag="security"):
    """A row of the security log: a credential or a right that was refused."""

    number: int
    time: float
    operation: str
    subject: str
    parameters: str
    """The request without its credential, as JSON."""
    origin: str
    principal: str
    reason: str


class AdministrationEntry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="log", tag="administration"):
    """A row of the administration log: what an administrator asked for, and what came of it."""

    number: int
    time: float
    operation: str
    arguments: str
    origin: str
    principal: str
    outcome: str
    """`done` or the refusal's code."""
    revision: int


LogEntry: TypeAlias = Union[UpdateEntry, SecurityEntry, AdministrationEntry]  # noqa: UP007


class LogEntries(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="log-entries"):
    """Entries of a log in order. `floor`: the oldest number still kept."""

    entries: tuple[LogEntry, ...]
    floor: int = 0


class HostLag(msgspec.Struct, frozen=True, omit_defaults=True):
    """Lag of one host."""

    host: str
    session: bool
    acknowledged: int
    """The last revision it has acknowledged."""
    pending: int
    """Notices sent or due that it has not acknowledged."""
    status: str = "ok"
    """`ok`, `gap` (it said that something is missing), or `unknown`: not heard of since this server started."""
    server: str = ""
    """The server that has its session or had it last; empty: none that is known of."""


class Lags(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="lags"):
    """Which host holds which revision, as this server knows."""

    revision: int
    hosts: tuple[HostLag, ...]


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that was found out about a listener's health, and by whom."""

    kind: str
    """`report` (a user's), `session` (that of the host which registered it was lost), `probe` (the server's own),
    `findings` (a probe by a host that was asked)."""
    by: str
    """The host, administrator or server."""
    time: float
    alive: bool = False
    """Result of the probe."""
    detail: str = ""


class CaseFile(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="case-file"):
    """Examine: a listener and what this server has learnt about its health since it started."""

    revision: int
    listener: Listener
    evidence: tuple[Evidence, ...] = ()
    """The newest, oldest first."""
    judgement: str = ""
    """Last judgement, in words."""
    judged_at: float = 0.0
    inquiry: str = ""
    """Kind of the check that is running: `suspicion`, `recovery`, `complaint`, `check`, or empty."""
    failures: int = 0
    """Number of times that it went down within the policy's window."""
    held_until: float = 0.0
    """UNIX time until which it stays out although it may answer, because it flaps; 0: it is not kept out."""
    doubting: bool = False
    """The server doubts its own probes and condemns nothing by itself."""


class KnownServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Server over a store, as the server that was asked knows it."""

    server: str
    id: str
    """Identity of this run of the server."""
    software: str
    role: str
    """`keeper`, `bystander` or `silent`: see `compass.model.cluster.Role`."""
    revision: int
    """Revision that the server has applied."""
    lag: int
    """Revisions that the server lags behind the newest one known here."""
    sessions: int
    watching: int
    started_at: float
    silent_seconds: float = 0.0
    """Seconds since its last heartbeat."""


class Steered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="steered"):
    """Steer: how many hosts are here that will be sent away."""

    hosts: int


class WayTried(msgspec.Struct, frozen=True, omit_defaults=True):
    """Channel to administrators, and the result of a test message."""

    name: str
    way: str
    """`mail`, `webhook`, `syslog` or `command`."""
    problem: str = ""
    """Reason why it did not arrive; empty: the next hop accepted it."""


class WaysTried(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="ways-tried"):
    """TryWays: what came of it."""

    ways: tuple[WayTried, ...]


class WayStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of a channel to administrators, as far as this server knows since its start."""

    name: str
    way: str
    """`mail`, `webhook`, `syslog` or `command`."""
    tells: bool = False
    """True if this server sends by the channel; of several servers over one store one does."""
    pending: int = 0
    """Incidents that are still to be sent."""
    attempts: int = 0
    """Failed attempts since the last success."""
    told_at: float = 0.0
    """UNIX time of the last success; 0: none yet."""
    failed_at: float = 0.0
    problem: str = ""
    """Why the last attempt that failed did."""


class WayList(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="way-list"):
    """Channels by which this server can notify administrators, in the order of its configuration."""

    ways: tuple[WayStatus, ...]


class ServerStatus(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="server-status"):
    """A server in figures, and the incidents that are open."""

    server: str
    software: str
    store: str
    revision: int
    started_at: float
    sessions: int
    watching: int
    counts: dict[str, int]
    """Rows of each kind."""
    states: dict[str, int]
    """Listeners in each state."""
    alerts: tuple[Alert, ...] = ()
    engine: str = ""
    servers: tuple[KnownServer, ...] = ()
    """All over the same store, this one too, by name."""
    away: bool = False
    """True if the server is drained: hosts are redirected."""
    trouble: str = ""
    """Why the store cannot be written now, and the server answers from memory alone; empty: it can."""


class CatalogueDigest(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="catalogue-digest"):
    """The digest of all rows that a server held at a revision (opengnsp.md, "Digests")."""

    server: str
    store: str
    revision: int
    digest: str


Reply: TypeAlias = Union[  # noqa: UP007
    Registered,
    Deregistered,
    Dependencies,
    Watching,
    Reported,
    Done,
    CredentialIssued,
    Rows,
    Told,
    LogEntries,
    Lags,
    ServerStatus,
    CatalogueDigest,
    CaseFile,
    Steered,
    WayList,
    WaysTried,
    Refusal,
]


class Position(msgspec.Struct, frozen=True):
    """Position in the stream: every change after `revision` of this store follows."""

    store: str
    """Revisions of different stores have nothing to do with each other."""
    revision: int
    complete: bool
    """False: earlier changes are missing, read everything again. True: no change since the revision that was asked for
    is missing, or none was asked for."""


FeedEvent: TypeAlias = Position | Change
