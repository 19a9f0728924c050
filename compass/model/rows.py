"""Rows of the tables and entries of the logs of the name service (opengnsp.md, "Objects").

A row is a frozen value. Rules, SQL tables, logs, notices and the replicas of hosts use the same struct. The catalogue
is a set of rows; every committed change sets one row or removes one (`Change`).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar, Union

import msgspec
from msgspec import Meta

from compass.model.limits import (
    FLAP_SECONDS_MAX,
    FLAPS_MAX,
    GRACE_SECONDS_MAX,
    HOST_SERVICES_MAX,
    PORT_MAX,
    PROBE_ATTEMPTS_MAX,
    PROBE_PATH_MAX,
    PROBE_TIMEOUT_SECONDS_MAX,
    RECOVERY_SECONDS_MAX,
    REPORTERS_NEEDED_MAX,
    WITNESSES_MAX,
    above_zero,
    between,
)
from compass.model.names import HostName, Label, OptionalAddress, OptionalServiceId, ServiceId

State = Literal["up", "slow", "suspect", "down", "draining", "offline"]
"""State of a listener. up: in use. slow: in use, but reported as slow. suspect: reported or lost, verdict pending.
down: failed. draining: no new users. offline: deregistered on purpose; its row stays so that its epoch is known."""

USABLE: frozenset[str] = frozenset({"up", "slow"})
"""States in which new users get a listener."""
FAILING: frozenset[str] = frozenset({"suspect", "down"})
"""States that result from evidence of a failure."""


IDLE = 0.0
"""Load of a listener that has reported none. msgspec omits a default from a frame only if it is this very object."""


ANY_HOST = "*"
"""Name in place of a list of hosts, in a request: every host."""
PROBE_PATTERN = rf"^(none|tcp|http:/[\u0021-\u007e]{{0,{PROBE_PATH_MAX - 1}}})$"
"""Pattern of `Policy.probe` in JSON Schema."""


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Policy of a category: how its listeners are judged (opengnsp.md, "Failure detection") and selected ("Pools").

    Unknown fields are skipped: a policy of a newer server must not end the session of an older host (P13).
    """

    probe: Annotated[str, Meta(extra_json_schema={"pattern": PROBE_PATTERN})] = "tcp"
    """Kind of the probe. `tcp`: connect. `http:/path`: a GET of the path must return a status below 500.
    `none`: no probe, for services that a connection says nothing about, such as those over UDP."""
    probe_timeout_seconds: Annotated[float, above_zero(PROBE_TIMEOUT_SECONDS_MAX)] = 1.0
    probe_attempts: Annotated[int, between(1, PROBE_ATTEMPTS_MAX)] = 2
    slow: Literal["alert", "notify"] = "alert"
    """Effect of a report `slow`: notify only the administrators, or also change the state for all dependants."""
    recovery_seconds: Annotated[float, above_zero(RECOVERY_SECONDS_MAX)] = 2.0
    """Pause before the next probe of a listener that is down; doubles up to `RECOVERY_SECONDS_MAX`."""
    reporters: Annotated[int, between(1, REPORTERS_NEEDED_MAX)] = 1
    """Independent reporters (hosts) whose reports make a listener suspect before any probe."""
    witnesses: Annotated[int, between(0, WITNESSES_MAX)] = 2
    """Dependant hosts that also probe a listener before the verdict that it is down."""
    cap: Annotated[float, above_zero(1)] = 0.8
    """Share of the category's listeners that reports and probes may have `down` at once. See `failure.may_condemn`."""
    grace_seconds: Annotated[float, between(0, GRACE_SECONDS_MAX)] = 5.0
    """Seconds from the loss of a host's session to the probes of its listeners."""
    flaps: Annotated[int, between(1, FLAPS_MAX)] = 3
    """Number of times that a listener may go down within `flap_seconds` before it is kept out."""
    flap_seconds: Annotated[float, between(0, FLAP_SECONDS_MAX)] = 600.0
    hold_seconds: Annotated[float, between(0, FLAP_SECONDS_MAX)] = 60.0
    """Seconds for which it is then kept out; doubled with each further failure."""
    pool: str = "weighted-random"
    """Policy that orders the listeners for a user: one of `policies.POLICIES`."""
    pools: dict[str, str] = {}
    """Policies of single services of the category: label of the service -> pool policy."""
    locality: str = "none"
    """Locality, by which near listeners come first: one of `policies.LOCALITIES`."""
    hosts: dict[str, tuple[str, ...]] = {}
    """Hosts that may register single services of the category: label of the service -> names, sorted. A service without
    a list can be registered by every host that has its credential.

    In a request, a service that is left out keeps its list, and (`ANY_HOST`,) removes the list: a program of an earlier
    version, which does not know the field, must not remove a list."""
    open: bool = False
    """Flag of development mode: hosts register services of the category without a credential, and a registration
    declares its service. A server that is not in development mode ignores the flag."""


class Category(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="category"):
    """Category: a kind of service. `backup` is the id of the service that replaces one without usable listeners."""

    name: Label
    backup: OptionalServiceId = ""
    policy: Policy = Policy()


class Service(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="service"):
    """Service: one content-bearing part of a category; `id` is `service.category`."""

    id: ServiceId


class Listener(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="listener"):
    """Listener: one `address:port` that serves a service. `epoch` is the instance that last registered it."""

    service: str
    address: str
    port: int
    state: State
    changed_at: float
    """UNIX time in seconds of the last change of state."""
    epoch: int
    host: str = ""
    """Name in the certificate of the host that registered it."""
    weight: int = 1
    metadata: dict[str, str] = {}
    cause: str = ""
    """Text with the cause of its state."""
    draining: bool = False
    """True if it accepts no new users, whatever its health: after `suspect` or `down` it is `draining` again, not `up`.
    """
    zone: str = ""
    """Zone as a label: a data centre, a room. Empty: unknown."""
    load: float = IDLE
    """Share of its capacity in use, from its last report."""
    degradation: float = IDLE
    """Load that one more user adds, as the listener reported it."""
    check: str = ""
    """Check that the listener's own host makes of it, in words; empty: none."""
    failing: str = ""
    """Problem that this check found; empty: it passes. While it fails, no probe of a server brings the listener back.
    """
    checked_at: float = 0.0
    """UNIX time in seconds at which the result of this check changed last; 0: there is no check."""


class Dependency(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="dependency"):
    """Dependency of `category` on `on`: hosts with services of `category` receive changes of the services of `on`."""

    category: Label
    on: Label


class Credential(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="credential"):
    """Credential by which a service authenticates itself. The token is shown once and never stored."""

    id: str
    service: str
    digest: str
    """SHA-256 of the token, hexadecimal. The token has 256 random bits, so no salt and no slow hash are needed."""
    created_at: float
    expires_at: float = 0.0
    """UNIX time in seconds from which it is refused; 0: never. A rotation sets this for the older credentials."""


class Host(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="host"):
    """Host: a machine that runs the agent; `name` is the name in its certificate."""

    name: HostName
    update_address: OptionalAddress = ""
    update_port: Annotated[int, between(0, PORT_MAX)] = 0
    """Port that the server dials to push when the host keeps no session open; 0: none."""
    services: Annotated[tuple[ServiceId, ...], Meta(extra_json_schema={"maxItems": HOST_SERVICES_MAX})] = ()
    """Service ids on whose behalf the host receives changes, sorted."""
    barred: bool = False
    """True if every request of the host is refused until an administrator lifts the bar."""


class Alert(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="alert"):
    """Open incident of which administrators are notified once; removed when the incident ends."""

    id: str
    kind: Literal["failure", "slow"]
    opened_at: float
    text: str


class Instance(msgspec.Struct, frozen=True, omit_defaults=True):
    """Instance of a listener, as server and host compare what each of them has."""

    service: str
    address: str
    port: int
    epoch: int
    host: str = ""
    """Host for which the store has it; empty: the host that is party to the session."""


Row: TypeAlias = Union[Category, Service, Listener, Dependency, Credential, Host, Alert]  # noqa: UP007
AnyRow = TypeVar("AnyRow", bound=Row)
ListenerKey: TypeAlias = tuple[str, str, int]
"""Key of a listener: service id, address, port."""
Key: TypeAlias = str | tuple[str, str] | ListenerKey
"""Key that identifies a row within its table."""


def key_of(row: Row) -> Key:
    """Return the primary key of `row`, as in the SQL tables."""
    match row:
        case Listener():
            return (row.service, row.address, row.port)
        case Dependency():
            return (row.category, row.on)
        case Service() | Credential() | Alert():
            return row.id
        case Category() | Host():
            return row.name


def without_secret(row: AnyRow) -> AnyRow:
    """Return a row as a server sends it: a credential without its digest (P11)."""
    return msgspec.structs.replace(row, digest="") if isinstance(row, Credential) else row


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """Committed change: one revision, one row of the update log, one notice (P2, P3)."""

    revision: int
    previous: int
    """Revision of the change before this one on the same topic, by which a receiver detects gaps (P4)."""
    time: float
    operation: str
    row: Row
    removed: bool = False


def shown(change: Change) -> Change:
    """Return a change as a server sends it: a credential without its digest (P11)."""
    if not isinstance(change.row, Credential):
        return change
    return msgspec.structs.replace(change, row=without_secret(change.row))


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """Part of the catalogue at a revision: complete for the topics that it lists (P5)."""

    revision: int
    topics: dict[str, int]
    """Revision of the last change by topic. A listed topic without rows is known to be empty."""
    rows: list[Row]


class UpdateEntry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="log", tag="update"):
    """Entry of the update log: the fields of function 2.1, and the change itself."""

    number: int
    time: float
    operation: str
    subject: str
    address: str
    port: int
    state: str
    change: Change


class SecurityEntry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="log", tag="security"):
    """Entry of the security log: a refused credential or right."""

    number: int
    time: float
    operation: str
    subject: str
    parameters: str
    """Request without its credential, as JSON."""
    origin: str
    principal: str
    reason: str


class AdministrationEntry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="log", tag="administration"):
    """Entry of the administration log: a request of an administrator, and its outcome."""

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


class Invitation(msgspec.Struct, frozen=True):
    """Join token as the store has it. It is no part of the catalogue: hosts and other servers do not get it."""

    id: str
    """Prefix of the digest."""
    digest: str
    """SHA-256 of the secret, hexadecimal; the secret is not stored."""
    host: str
    also: tuple[str, ...]
    """Further names and addresses of the host."""
    created_at: float
    created_by: str
    """Name of the administrator."""
    expires_at: float
    used_at: float = 0.0
    """Time of its use; 0: it was not used."""
    used_from: str = ""
    """Address that used it."""


class AuthorityInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Authority that signs for joining hosts, which verify it by its fingerprint before they send anything."""

    authority: str
    """Certificate, PEM."""
    store: str
    time: float
    """UNIX time of the server."""


class Invited(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="invited"):
    """New join token in parts, the secret one of which no other reply contains."""

    name: str
    secret: str
    store: str
    authority: str
    """SHA-256 of the authority's certificate, 64 hexadecimal digits."""
    expires_at: float
    https_port: int
    """Port of the HTTPS API of the server that made it; 0: it has none, and no host can join."""
