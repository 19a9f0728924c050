"""Requests to the name service (opengnsp.md, "Messages"): functions 2.1, 2.2, 2.3, 2.5 and 2.6.

The `type` tag is the message's name on the wire. Fields may be added with a default; none is ever removed or given
another meaning (P13).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, Union

import msgspec
from msgspec import Meta

from compass.model.limits import (
    EPOCH_MAX,
    FETCH_LIMIT_MAX,
    INSTEAD_MAX,
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
    Detail,
    Metadata,
    ObjectName,
    OptionalLabel,
    OptionalServiceId,
    Port,
    ServerName,
    ServiceId,
)
from compass.model.rows import IDLE, Category, Dependency, Host, Service, State


class Register(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="register"):
    """Function 2.1: a listener comes up. `epoch` orders the instances that use one address and port (P6)."""

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


class Deregister(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="deregister"):
    """Function 2.2: a listener goes away on purpose, or (`died`) its host saw its process end without a word."""

    service: ServiceId
    credential: str
    address: Address
    port: Port
    epoch: Annotated[int, between(1, EPOCH_MAX)]
    died: bool = False


class Drain(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="drain"):
    """A listener takes no new users (`drain`) or takes them again. Services need their credential, admins do not."""

    service: ServiceId
    address: Address
    port: Port
    draining: bool = True
    credential: str = ""


class Pull(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="pull"):
    """Function 2.3: what a service depends on. `seen`, of `store`: the answer must not be older, here as below."""

    service: ServiceId
    store: str = ""
    seen: int = 0


class Watch(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="watch"):
    """A host's subscription on behalf of its services: the pull of them all, then notices (2.4).

    `since` and `store` say what the host holds already; without them, or when the log no longer reaches back so
    far, the answer carries a snapshot. `update_*` is where the server may dial the host while it keeps no session.
    """

    services: tuple[str, ...]
    store: str = ""
    since: int = 0
    update_address: str = ""
    update_port: int = 0
    resync: bool = False
    """The host takes `Resync` for an answer when it has read too slowly; else it is let go and resumes."""
    probes: bool = False
    """The host answers an `inquiry`: it probes a listener that it depends on when the server asks it to."""
    digest: int = 0
    """The version of digests that the host compares with what it holds; 0: none."""
    suspicions: bool = False
    """True if the host accepts `suspicion`: evidence that the server cannot write while its store is unavailable."""


class Report(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="report"):
    """Function 2.5: a user of a listener found it dead or slow. `reporter` is the service that did."""

    service: ServiceId
    address: Address
    port: Port
    state: Literal["unreachable", "slow"] = "unreachable"
    reporter: OptionalServiceId = ""
    detail: Detail = ""


class Findings(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="findings"):
    """Result of a host's probe of a listener on the server's behalf: the answer to the `inquiry` with that id."""

    id: int
    alive: bool
    detail: str = ""


class Put(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="put"):
    """2.6: add a row (`create`) or change one that is there."""

    row: Category | Service | Dependency | Host
    create: bool = False


class Remove(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="remove"):
    """2.6: remove an object that nothing uses. `name`: category, `service.category`, `category on`, host name,
    or `service address:port` for a listener."""

    kind: Literal["category", "service", "dependency", "listener", "host"]
    name: str


class IssueCredential(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="issue-credential"):
    """2.6: a new token for a service; those it has stay good for `overlap_seconds` and then expire."""

    service: ServiceId
    overlap_seconds: Annotated[float, between(0, OVERLAP_SECONDS_MAX)] | None = None
    """None: the older ones stay as they are. 0: they are refused from now on."""


class RevokeCredential(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="revoke-credential"):
    """2.6: a token is refused from now on."""

    service: ServiceId
    id: str


class Apply(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="apply"):
    """2.6: bring the declared objects into the state of a topology, completely or not at all.

    Declared objects are categories, services and dependencies; `prune` removes those that the topology does not name.
    `dry_run` only shows the difference.
    """

    rows: tuple[Category | Service | Dependency, ...]
    prune: bool = False
    dry_run: bool = False


class Purge(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="purge"):
    """2.6: remove the rows of listeners that have been offline or down for longer than `age_seconds`."""

    age_seconds: Annotated[float, Meta(extra_json_schema={"minimum": PURGE_AGE_SECONDS_MIN})]
    state: Literal["offline", "down"] = "offline"


class Fetch(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="fetch"):
    """2.6: rows of one kind, in the order of their keys, those after `after` first, at most `limit`."""

    kind: Literal["category", "service", "dependency", "listener", "credential", "host", "alert"]
    within: str = ""
    """A category or a service id: only what belongs to it. A host name for listeners works too."""
    name: str = ""
    """Exactly this one."""
    state: State | Literal[""] = ""
    limit: Annotated[int, between(1, FETCH_LIMIT_MAX)] = 10_000
    after: int = 0
    """Number of rows to skip."""
    store: str = ""
    seen: int = 0


class Impact(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="impact"):
    """2.6: list who would be notified of a change of this category, service or listener."""

    name: ObjectName
    store: str = ""
    seen: int = 0


class ReadLog(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="read-log"):
    """2.6: read entries of a log after number `after` (for updates: the revision), at most `limit`.

    `wait_seconds`: if there is none yet, wait up to this time for one. `last`: start that number before the end
    instead.
    """

    log: Literal["updates", "security", "administration"]
    after: Annotated[int, between(0, 2**63 - 1)] = 0
    limit: int = 1000
    last: int = 0
    wait_seconds: Annotated[float, between(0, LOG_WAIT_SECONDS_MAX)] = 0.0


class Examine(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="examine"):
    """2.6: what this server knows about a listener's health: the evidence, the judgement, and what keeps it out."""

    service: ServiceId
    address: Address
    port: Port


class Steer(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="steer"):
    """Function 2.6: send this server's hosts elsewhere, or welcome them again."""

    away: bool = True
    instead: Annotated[tuple[ServerName, ...], Meta(extra_json_schema={"maxItems": INSTEAD_MAX})] = ()
    """Servers to go to; none: whichever each host knows."""
    seconds: Annotated[float, between(0, STEER_SECONDS_MAX)] = 30.0
    """Over how long those are sent that are here now."""


class Ways(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="ways"):
    """2.6: list the channels by which this server notifies administrators of incidents, with their state."""


class TryWays(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="try-ways"):
    """2.6: send a test message by each channel by which this server notifies administrators."""

    name: str = ""
    """Only the way, or ways, of this name."""


class Status(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="status"):
    """2.6: this server in figures."""


class Digest(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="digest"):
    """2.6: the digest of all that this server holds, at `revision`, or where it stands now (0)."""

    revision: Annotated[int, Meta(extra_json_schema={"minimum": 0})] = 0


class Lag(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="lag"):
    """2.6: which host holds which revision (P12)."""


WriteRequest: TypeAlias = Union[  # noqa: UP007
    Register, Deregister, Drain, Report, Put, Remove, IssueCredential, RevokeCredential, Apply, Purge
]
"""Requests from outside that may change the catalogue: decided, committed, then answered."""
ReadRequest: TypeAlias = Union[Pull, Fetch, Impact]  # noqa: UP007
"""Answered from the catalogue in memory by a pure function."""
ShellRequest: TypeAlias = Union[Watch, ReadLog, Status, Digest, Lag, Findings, Examine, Steer, Ways, TryWays]  # noqa: UP007
"""Answered by the server's shells: they concern sessions or SQL."""
Request: TypeAlias = Union[WriteRequest, ReadRequest, ShellRequest]  # noqa: UP007


class WeighedReport(Report, frozen=True, omit_defaults=True, tag_field="type", tag="report"):
    """The failure desk's own form of a report: whether the word of its reporter, and of others before, is enough."""

    enough: bool = True


class Suspect(msgspec.Struct, frozen=True):
    """The failure desk's own request, never on the wire: there is evidence against this instance, though no report."""

    service: str
    address: str
    port: int
    epoch: int
    cause: str


class Incident(msgspec.Struct, frozen=True):
    """The failure desk's own request: something that administrators must know has begun, or is over (`text` empty)."""

    id: str
    text: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The failure desk's own request, never on the wire: a probe's outcome for the instance it probed."""

    service: str
    address: str
    port: int
    epoch: int
    alive: bool
    cause: str


class Attend(msgspec.Struct, frozen=True):
    """The session layer's own request: remember what a host watches and where it can be dialled."""

    host: str
    services: tuple[str, ...]
    update_address: str
    update_port: int


Undecided: TypeAlias = Union[WriteRequest, WeighedReport, Suspect, Incident, Verdict, Attend]  # noqa: UP007
"""Requests that the commit loop accepts."""
