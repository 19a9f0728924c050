"""Vocabulary of the host API: requests of a host's own programs to the agent, and its replies.

It is part of the model because three packages use it and may not import each other: the agent that replies, the
gateway that maps it to HTTP, and the client library that sends requests.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from compass.model.limits import CHECK_MAX, EPOCH_MAX, PORT_MAX, PROBE_PATH_MAX, WEIGHT_MAX, Share, above_zero, between
from compass.model.names import (
    Address,
    CheckText,
    Detail,
    Metadata,
    OptionalAddress,
    OptionalLabel,
    OptionalServiceId,
    ServiceId,
)
from compass.model.replies import Dependencies
from compass.model.rows import IDLE, Change, Listener, State
from compass.model.text import escape_line, is_printable_line

Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""Integer that MessagePack can represent; the host API refuses larger ones, which no request to a server could have."""
LocalPort = Annotated[Integer, between(1, PORT_MAX)]
PROCESSES_HEADER = "OpenGNS-Processes"
"""Header of a request with the boot and the PID namespace in which its process number counts, as
`BOOT-ID/INODE`. It is no field, because daemons before it refuse unknown fields; they ignore it."""

CHECK_INTERVAL_SECONDS_MIN = 0.2
"""Shortest pause between two checks of a host's own listener: five a second are noise of the machine, not health."""
CHECK_INTERVAL_SECONDS_MAX = 3600.0
"""Longest such pause: a check that is made less than once an hour protects no user."""
CHECK_FAILURES_MAX = 100
"""Most failures in a row before a check fails: with the default interval, eight minutes."""
CHECK_TIMEOUT_SECONDS_MAX = 60.0
"""Longest time of one check: a user has given up long before."""
INTERVAL_SECONDS = 5.0
"""Seconds between two checks by default: a hung service is out of use within 20 s."""
FAILURES = 3
"""Failures in a row by default: a pause of the machine or of a garbage collector is shorter than two checks."""
TIMEOUT_SECONDS = 1.0
"""Time limit of one check by default: the way to the host itself has no delay."""

HTTP_PATTERN = rf"^(|/[\u0021-\u007e]{{0,{PROBE_PATH_MAX - 1}}})$"
Interval = Annotated[float, between(CHECK_INTERVAL_SECONDS_MIN, CHECK_INTERVAL_SECONDS_MAX)]
Failures = Annotated[int, between(1, CHECK_FAILURES_MAX)]
TimeLimit = Annotated[float, above_zero(CHECK_TIMEOUT_SECONDS_MAX)]


class OwnCheck(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Check of a listener by its own host, which is repeated."""

    kind: Literal["accept", "http", "reported"] = "accept"
    """accept: the port must accept a connection. http: a GET of `http` must return a status below 400. reported: the
    program makes the check and reports each result; a missing report is a failure."""
    http: Annotated[str, Meta(extra_json_schema={"pattern": HTTP_PATTERN})] = ""
    """Path of the GET; with `http` only."""
    what: CheckText = ""
    """Description of a reported check."""
    interval_seconds: Interval = INTERVAL_SECONDS
    failures: Failures = FAILURES
    timeout_seconds: TimeLimit = TIMEOUT_SECONDS
    """Time limit of one check; with `reported`, time by which a report may be late."""

    @property
    def text(self) -> str:
        """Description for people: what is checked, how often, and when it fails."""
        what = {
            "accept": "accepts connections",
            "http": f"GET {self.http}",
            "reported": self.what or "reported by its program",
        }[self.kind]
        return check_text(what, self.interval_seconds, self.failures)

    def problem(self) -> str:
        """Return why the check cannot be made as it is described; empty: it can."""
        if (self.kind == "http") != bool(self.http):
            return "the kind http needs a path in http, and no other kind has one"
        if self.http and not is_path(self.http):
            return f"http is no path of 1 to {PROBE_PATH_MAX} printable ASCII characters that begins with /"
        if len(self.what) > CHECK_MAX or not is_printable_line(self.what):
            return f"what is no printable line of at most {CHECK_MAX} characters"
        return bounds_problem(self.interval_seconds, self.failures, self.timeout_seconds)


def check_of(given: OwnCheck | str | None) -> OwnCheck | None:
    """Return the check that a program names: itself, or a GET of a path."""
    return OwnCheck("http", given) if isinstance(given, str) else given


def is_path(text: str) -> bool:
    """Return whether `text` can be the path of a GET."""
    return text.startswith("/") and len(text) <= PROBE_PATH_MAX and all("!" <= letter <= "~" for letter in text)


def bounds_problem(interval_seconds: float, failures: int, timeout_seconds: float) -> str:
    """Return which number is out of its bounds, and what they are; empty: none."""
    least, most = CHECK_INTERVAL_SECONDS_MIN, CHECK_INTERVAL_SECONDS_MAX
    if not least <= interval_seconds <= most:
        return f"interval_seconds {interval_seconds:g} is not between {least:g} and {most:g}"
    if not 1 <= failures <= CHECK_FAILURES_MAX:
        return f"failures {failures} is not between 1 and {CHECK_FAILURES_MAX}"
    if not 0 < timeout_seconds <= CHECK_TIMEOUT_SECONDS_MAX:
        return f"timeout_seconds {timeout_seconds:g} is not above 0 and at most {CHECK_TIMEOUT_SECONDS_MAX:g}"
    return ""


def check_text(what: str, interval_seconds: float, failures: int) -> str:
    """Return the description of a check, at most CHECK_MAX characters."""
    numbers = f", every {interval_seconds:g} s, fails after {failures}"
    return escape_line(what, CHECK_MAX - len(numbers)) + numbers


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
    """Process id of the serving program, as the caller sees it; its end deregisters the listener as died. 0: none."""
    hold: bool = False
    """True if the registration ends with the connection of its request."""
    zone: OptionalLabel = ""
    """Empty: the host's own."""
    load: Share = IDLE
    degradation: Share = IDLE
    check: OwnCheck | None = None
    """Check that is repeated while the listener is registered; None: that of the configuration, if there is one."""
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
    """Process that leaves a registration which it shares, as the program that asks sees it; the others keep it. 0: the
    registration ends for all."""


class LocalLoad(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Report of the share of its capacity that a listener of this host has in use, for policies that depend on load."""

    service: ServiceId
    port: LocalPort
    credential: str
    load: Share
    """Load from 0 (idle) to 1 (full)."""
    address: OptionalAddress = ""


class LocalCheckResult(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Result of a check that the program of a listener makes itself (`check.kind` is `reported`)."""

    service: ServiceId
    port: LocalPort
    credential: str
    problem: Detail = ""
    """Problem that was found; empty: the check passed."""
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
    why: str = ""
    """Why it is pending, in a sentence; empty: it is not, or the server has just not answered yet."""


class Resolved(msgspec.Struct, frozen=True):
    """The listeners to use for a service or a category, best first."""

    name: str
    revision: int
    source: str
    """`service`, `backup`, `draining`, `suspect`, or `none`: no usable listener is registered."""
    listeners: tuple[Listener, ...]
    policy: str = ""
    """The pool policy that ordered them."""


class CheckStatus(msgspec.Struct, frozen=True):
    """Check of a listener by its own host, and its last result."""

    what: str
    """Description of the check."""
    failing: str = ""
    """Problem for which the listener is suspect; empty: the check passes."""
    last: str = ""
    """Problem of the last check; empty: it passed, or there was none."""
    failures: int = 0
    """Failures in a row."""
    ago_seconds: float = -1.0
    """Seconds since the last result; negative: there was none."""


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
    unverified: str = ""
    """Reason for which the daemon cannot say whether the instance lives; servers probe it meanwhile."""
    own_check: CheckStatus | None = None


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


CertificateRole: TypeAlias = Literal["leaf", "intermediate", "authority"]
"""leaf: the daemon's own certificate. intermediate: one that is sent with it. authority: one that is trusted."""
Condition: TypeAlias = Literal["valid", "ends-soon", "invalid"]
"""Condition of a certificate. ends-soon: within 30 days. invalid: expired, or not valid yet by the machine's clock."""
WORST_FIRST: tuple[Condition, ...] = ("invalid", "ends-soon", "valid")


class CertificateStatus(msgspec.Struct, frozen=True):
    """Certificate of the agent's own files that its sessions need."""

    role: CertificateRole
    """`leaf`: the agent's own. `intermediate`: sent with it. `authority`: trusted."""
    subject: str
    file: str
    ends_at: float
    """End of its validity, UNIX time."""
    condition: Condition = "valid"
    """`ends-soon`: within 30 days."""
    problem: str = ""
    """Why it is not valid now, or when it ends; empty if it is valid."""


class UnansweredName(msgspec.Struct, frozen=True):
    """Name of a service or a category that is asked for and has no listener."""

    name: str
    seconds: float
    """Time since the first of the lookups that count; 0: a template renders it."""


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
    address: str = ""
    """Address of listeners that are registered without one; empty: unknown."""
    servers: tuple[KnownServer, ...] = ()
    """All known addresses of servers, in the order of preference."""
    view: str = ""
    """Directory in which the view is shared with the programs of the host (shared-view.md); empty: it is not shared."""
    reactions: tuple[ReactionStatus, ...] = ()
    """Hooks, then templates, in the order of the configuration."""
    warnings: tuple[str, ...] = ()
    """Conditions that an administrator of the host should change, such as a file that cannot be read."""
    certificates: tuple[CertificateStatus, ...] = ()
    """Certificates whose end ends the sessions of this host, its own one first."""
    development: bool = False
    """True in development mode (`opengns dev`): programs register services of open categories without a credential."""
    unanswered: tuple[UnansweredName, ...] = ()
    """Services and categories that programs of this host ask for again and again, or that templates render, and that
    have no listener."""
    dns: str = ""
    """Address and port at which the agent answers DNS queries; empty: it answers none."""
    dns_zone: str = ""
    """Zone of these answers."""


class LocalEvent(msgspec.Struct, frozen=True):
    """Event for a watching program: all of its dependencies, or one change of these."""

    kind: Literal["snapshot", "change"]
    revision: int
    data: Dependencies | Change


LocalRequest: TypeAlias = LocalRegister | LocalDeregister | LocalLoad | LocalCheckResult | LocalDrain | LocalReport
