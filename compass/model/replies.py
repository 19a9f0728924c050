"""Replies of the name service (opengnsp.md, "Messages"): one reply or one refusal for each request."""

from __future__ import annotations

from typing import Literal, TypeAlias, Union, get_args

import msgspec

from compass.model.rows import Alert, Change, Credential, Listener, LogEntry, Row, Snapshot, State
from compass.model.rows import Invited as Invited

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
    "unknown-authority",
    "exists",
    "in-use",
    "stale-epoch",
    "deregistered",
    "invalid-topology",
    "not-ready",
    "busy",
    "store-unavailable",
    "unreachable",
    "foreign-process",
]
"""Code of a refusal. Every edge (HTTP, exit codes) maps all of them."""
CODES: tuple[str, ...] = get_args(Code)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Problem of a topology: the row, and what is wrong with it."""

    index: int
    code: str
    message: str


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="refusal"):
    """Refusal of a request: nothing changed, except perhaps the security log."""

    code: str
    """Code, one of `Code`; a newer server may use others, and an older client still reads the rest (P13)."""
    message: str
    """Text for people: what was refused, why, and what to do next."""
    retry_after_seconds: float = 0.0
    """Seconds after which the same request may succeed; 0: a retry would not."""
    epoch: int = 0
    """Epoch that the server knows, with stale-epoch and deregistered."""
    host: str = ""
    """Host that registered the known instance, with stale-epoch and deregistered, if it is another one."""
    problems: tuple[Problem, ...] = ()
    """All problems, with invalid-topology."""


class Registered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="registered"):
    """Confirmation that the listener is registered, on disk. `changed` is false if the same row existed before."""

    revision: int
    state: State
    changed: bool = True
    warning: str = ""
    """Text for people: what is doubtful about this registration; empty: nothing."""


class Deregistered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="deregistered"):
    """Confirmation that the listener is out of use, on disk."""

    revision: int
    state: State
    changed: bool = True


class ServiceView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Service with its listeners, except the offline ones."""

    id: str
    listeners: tuple[Listener, ...] = ()


class CategoryView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Dependency category in the reply to a pull."""

    category: str
    services: tuple[ServiceView, ...] = ()
    backup: str = ""
    backup_listeners: tuple[Listener, ...] = ()
    pool: str = "weighted-random"
    pools: dict[str, str] = {}
    locality: str = "none"
    """Locality that orders its listeners, from the category's policy (`rows.Policy`)."""


class Dependencies(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="dependencies"):
    """Reply to function 2.3, true at `revision`."""

    service: str
    revision: int
    categories: tuple[CategoryView, ...] = ()


class Watching(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="watching"):
    """Confirmation of a subscription. With a snapshot, the host replaces its replica of this store by that; without,
    its replica is valid, and the notices after `since` follow."""

    store: str
    revision: int
    snapshot: Snapshot | None = None
    unknown: tuple[str, ...] = ()
    """Services of the request that do not exist (yet)."""
    undialled: str = ""
    """Reason why the server will not connect to the update address of the request; empty: it will, or there is none."""


class Reported(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="reported"):
    """Confirmation of a report, with the listener's current state."""

    revision: int
    state: State


class Done(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="done"):
    """Confirmation that an administrator's changes are committed at `revision`; of a dry run, its changes."""

    revision: int
    changes: tuple[Change, ...] = ()
    more: bool = False
    """True if a purge has left rows for the next one."""


class CredentialIssued(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="credential-issued"):
    """New credential with its token, which no other reply contains."""

    revision: int
    credential: Credential
    token: str


class Certified(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="certified"):
    """New certificate of a host, and the certificate of the authority that signed it, both PEM."""

    certificate: str
    authority: str


class Rows(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="rows"):
    """Requested rows, true at `revision`."""

    revision: int
    rows: tuple[Row, ...]
    total: int
    """Number of rows without the limit."""
    cursor: str = ""
    """Cursor of the next page, if the request was for pages; empty: there is none."""


class Told(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="told"):
    """Impact: the categories that depend on the object, their services, and the hosts that would be notified."""

    name: str
    revision: int
    categories: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    backup_of: tuple[str, ...] = ()


class LogEntries(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="log-entries"):
    """Entries of a log in order. `floor`: the oldest number that is still stored."""

    entries: tuple[LogEntry, ...]
    floor: int = 0
    more: bool = False
    """True if the page ended before all requested entries; the next page is `after` the last one."""


class HostLag(msgspec.Struct, frozen=True, omit_defaults=True):
    """Lag and session of one host."""

    host: str
    session: bool
    acknowledged: int
    """Last revision that it has acknowledged."""
    pending: int
    """Notices sent or due that it has not acknowledged."""
    status: str = "ok"
    """`ok`, `gap` (changes are missing), `lost` (it has lost its session) or `unknown` (no session in this run)."""
    server: str = ""
    """Server that has its session or had it last; empty: unknown."""
    since: float = 0.0
    """Begin or end of its session, UNIX time; 0: unknown."""
    origin: str = ""
    """Address that its session comes from; empty: unknown, as of a host at another server."""
    software: str = ""
    """Software of the host daemon, as it says; empty: unknown, likewise."""


class Lags(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="lags"):
    """Lags of the hosts that this server knows."""

    revision: int
    hosts: tuple[HostLag, ...]
    cursor: str = ""
    """Cursor of the next page, if the request was for pages; empty: there is none."""


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """Evidence about a listener's health: one observation, and its source."""

    kind: str
    """`report` (of a user), `session` (lost by its host), `probe` (of the server), `findings` (of a host)."""
    by: str
    """Name of the host, administrator or server."""
    time: float
    alive: bool = False
    """Result of the probe."""
    detail: str = ""


class CaseFile(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="case-file"):
    """Reply to Examine: a listener, and the evidence about its health since this server started."""

    revision: int
    listener: Listener
    evidence: tuple[Evidence, ...] = ()
    """Newest evidence, in order of time."""
    judgement: str = ""
    """Text of the last judgement."""
    judged_at: float = 0.0
    inquiry: str = ""
    """Kind of the check that is running: `suspicion`, `recovery`, `complaint`, `check`, or empty."""
    failures: int = 0
    """Number of times that it went down within the policy's window."""
    held_until: float = 0.0
    """UNIX time until which it is kept out because it flaps, even if it answers; 0: it is not kept out."""
    doubting: bool = False
    """True if the server distrusts its own probes and condemns no listener by them."""


class KnownServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Server of a store, from the view of the server that replies."""

    server: str
    id: str
    """Identity of this run of the server."""
    software: str
    role: str
    """`keeper`, `bystander` or `silent`: see `compass.model.cluster.Role`."""
    revision: int
    """Revision that the server has applied."""
    lag: int
    """Revisions by which it lags behind the newest known one."""
    sessions: int
    watching: int
    started_at: float
    silent_seconds: float = 0.0
    """Seconds since its last heartbeat."""


class Steered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="steered"):
    """Reply to Steer: the number of hosts that will be redirected."""

    hosts: int
    to: tuple[str, ...] = ()
    """Servers to which they go: those of the request, else the others over the store that run; none: none is known."""


class WayTried(msgspec.Struct, frozen=True, omit_defaults=True):
    """Channel to administrators, and the result of a test message."""

    name: str
    way: str
    """`mail`, `webhook`, `syslog` or `command`."""
    problem: str = ""
    """Reason why it did not arrive; empty: the next hop accepted it."""


class WaysTried(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="ways-tried"):
    """Reply to TryWays: the results."""

    ways: tuple[WayTried, ...]


class WayStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """State of a channel to administrators, since the start of this server."""

    name: str
    way: str
    """`mail`, `webhook`, `syslog` or `command`."""
    tells: bool = False
    """True if this server sends by the channel; of several servers of a store one does."""
    pending: int = 0
    """Incidents that are still to be sent."""
    attempts: int = 0
    """Failed attempts since the last success."""
    told_at: float = 0.0
    """UNIX time of the last success; 0: none yet."""
    failed_at: float = 0.0
    problem: str = ""
    """Problem of the last failed attempt."""


class WayList(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="way-list"):
    """Channels by which this server can notify administrators, in the order of its configuration."""

    ways: tuple[WayStatus, ...]


class ServerStatus(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="server-status"):
    """Status of a server, with the open incidents."""

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
    """Servers of the same store, including this one, by name."""
    away: bool = False
    """True if the server is drained: hosts are redirected."""
    trouble: str = ""
    """Reason for which the store cannot be written, so that the server answers from memory only; empty: it can."""
    more_alerts: int = 0
    """Number of open incidents beyond those in `alerts`."""
    died: int = 0
    """Listeners among those that are offline which failed and did not deregister: their incidents are open."""
    lost_services: int = 0
    """Services of which a listener failed, is down or is suspect, and that have no other one left."""
    trouble_seconds: float = 0.0
    """Time since `trouble` began."""


class CatalogueDigest(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="catalogue-digest"):
    """Digest of all rows of a server at a revision (opengnsp.md, "Digests")."""

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
    Invited,
    Certified,
    Refusal,
]


class Position(msgspec.Struct, frozen=True):
    """Position in the stream: every change after `revision` of this store follows."""

    store: str
    """Id of the store: revisions of different stores cannot be compared."""
    revision: int
    complete: bool
    """False if changes since the requested revision are missing: the client reads everything again."""


FeedEvent: TypeAlias = Position | Change
