"""Rows of the tables of the name service (opengnsp.md, "Objects").

A row is a frozen value. The same struct is decided on, written to SQL, logged, pushed and kept by hosts. The catalogue
is a set of rows; every committed change sets one row or removes one (`Change`).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, Union

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
"""State of a listener. up: in use. slow: in use, users complain. suspect: reported or lost, verdict pending. down:
failed. draining: no new users. offline: deregistered on purpose; kept as a row so that its epoch is known."""

USABLE: frozenset[str] = frozenset({"up", "slow"})
"""States in which a listener is given to new users."""
FAILING: frozenset[str] = frozenset({"suspect", "down"})
"""States that evidence of a failure leads to."""


IDLE = 0.0
"""The load of what has reported none. msgspec leaves a default out of a frame only if it is this very object."""


PROBE_PATTERN = rf"^(tcp|http:/[\u0021-\u007e]{{0,{PROBE_PATH_MAX - 1}}})$"
"""Pattern of `Policy.probe` in JSON Schema."""


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """Policy of a category: how its listeners are judged (opengnsp.md, "Failure reports") and selected ("Pools").

    Unknown fields are skipped as everywhere: a policy of a newer server must not end an older host's session (P13).
    """

    probe: Annotated[str, Meta(extra_json_schema={"pattern": PROBE_PATTERN})] = "tcp"
    """`tcp`: a connection is accepted. `http:/path`: a GET of the path answers below 500."""
    probe_timeout_seconds: Annotated[float, above_zero(PROBE_TIMEOUT_SECONDS_MAX)] = 1.0
    probe_attempts: Annotated[int, between(1, PROBE_ATTEMPTS_MAX)] = 2
    slow: Literal["alert", "notify"] = "alert"
    """Effect of a report `slow`: notify the administrators only, or also change the state for all dependants."""
    recovery_seconds: Annotated[float, above_zero(RECOVERY_SECONDS_MAX)] = 2.0
    """Pause before a listener that is down is probed again; doubles up to `RECOVERY_SECONDS_MAX`."""
    reporters: Annotated[int, between(1, REPORTERS_NEEDED_MAX)] = 1
    """Independent reporters (hosts) whose word makes a listener suspect before any probe."""
    witnesses: Annotated[int, between(0, WITNESSES_MAX)] = 2
    """Other dependant hosts that are asked to probe, too, before a listener is found dead."""
    cap: Annotated[float, above_zero(1)] = 0.8
    """Share of the category's listeners that reports and probes may have `down` at once. See `failure.may_condemn`."""
    grace_seconds: Annotated[float, between(0, GRACE_SECONDS_MAX)] = 5.0
    """Seconds that a host's session may be lost before its listeners are probed."""
    flaps: Annotated[int, between(1, FLAPS_MAX)] = 3
    """Number of times that a listener may go down within `flap_seconds` before it stays out longer."""
    flap_seconds: Annotated[float, between(0, FLAP_SECONDS_MAX)] = 600.0
    hold_seconds: Annotated[float, between(0, FLAP_SECONDS_MAX)] = 60.0
    """Seconds that it then stays out; doubled with each further failure."""
    pool: str = "weighted-random"
    """Which of the listeners a user is given first: one of `policies.POLICIES`."""
    pools: dict[str, str] = {}
    """The same for single services of the category: label of the service -> pool policy."""
    locality: str = "none"
    """Which of them are near and come first: one of `policies.LOCALITIES`."""


class Category(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="category"):
    """A kind of service. `backup` is the id of the service to go to when one of its services has none left."""

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
    """The name in the certificate of the host that registered it."""
    weight: int = 1
    metadata: dict[str, str] = {}
    cause: str = ""
    """Why it is in this state, in words."""
    draining: bool = False
    """True if it accepts no new users, whatever its health: after `suspect` or `down` it is `draining` again, not `up`.
    """
    zone: str = ""
    """Zone as a label: a data centre, a room. Empty: unknown."""
    load: float = IDLE
    """Share of its capacity in use, as it last reported."""
    degradation: float = IDLE
    """Load that one more user adds, as the listener reported it."""


class Dependency(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="dependency"):
    """Dependency of `category` on `on`: hosts with services of `category` receive changes of the services of `on`."""

    category: Label
    on: Label


class Credential(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="credential"):
    """Credential by which a service authenticates itself. The token itself is shown once and never stored."""

    id: str
    service: str
    digest: str
    """SHA-256 of the token, hexadecimal. The token has 256 random bits, so no salt and no slow hash are needed."""
    created_at: float
    expires_at: float = 0.0
    """UNIX time in seconds from which it is refused; 0: never. A rotation sets it on the older ones."""


class Host(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="host"):
    """A machine running the client daemon; `name` is the one in its certificate."""

    name: HostName
    update_address: OptionalAddress = ""
    update_port: Annotated[int, between(0, PORT_MAX)] = 0
    """Port that the server dials to push when the host keeps no session open; 0: none."""
    services: Annotated[tuple[ServiceId, ...], Meta(extra_json_schema={"maxItems": HOST_SERVICES_MAX})] = ()
    """Service ids on whose behalf the host receives changes, sorted."""
    barred: bool = False
    """Refused whatever it asks, until an administrator lifts it."""


class Alert(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="row", tag="alert"):
    """Open incident of which administrators were notified once; removed when it is over."""

    id: str
    kind: Literal["failure", "slow"]
    opened_at: float
    text: str


Row: TypeAlias = Union[Category, Service, Listener, Dependency, Credential, Host, Alert]  # noqa: UP007
ListenerKey: TypeAlias = tuple[str, str, int]
"""service id, address, port."""
Key: TypeAlias = str | tuple[str, str] | ListenerKey
"""Key that identifies a row within its table."""


def key_of(row: Row) -> Key:
    """The primary key of `row`, as in the SQL tables."""
    match row:
        case Listener():
            return (row.service, row.address, row.port)
        case Dependency():
            return (row.category, row.on)
        case Service() | Credential() | Alert():
            return row.id
        case Category() | Host():
            return row.name


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """Committed change: one revision, one row of the update log, one notice (P2, P3)."""

    revision: int
    previous: int
    """Revision of the change before this one on the same topic, by which a receiver detects gaps (P4)."""
    time: float
    operation: str
    row: Row
    removed: bool = False


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """Part of the catalogue as it was at a revision: complete for the topics it lists (P5)."""

    revision: int
    topics: dict[str, int]
    """Each topic it covers, with the revision of the last change on it. A topic without rows is empty, and says so."""
    rows: list[Row]
