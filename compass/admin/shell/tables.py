"""Tables for people and JSON for programs, made from replies. Pure: the time and the time zone are arguments.

JSON is the reply as in the protocol, with every field, also those with default values. A table is a `TableView`: text
in rows and columns; `compass.admin.shell.context` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from compass.admin.shell.formats import TimeFormat, format_duration, format_time
from compass.model import replies
from compass.model.names import category_of, format_endpoint
from compass.model.rows import (
    AdministrationEntry,
    Alert,
    Category,
    Change,
    Credential,
    Dependency,
    Host,
    Listener,
    LogEntry,
    Policy,
    Row,
    SecurityEntry,
    Service,
    UpdateEntry,
)
from compass.model.rules.tokens import TOKEN_ROLES


class TableView(msgspec.Struct, frozen=True):
    """A table. `empty_text` is printed if it has no lines."""

    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    empty_text: str = "None."


def row_name(row: Row) -> str:
    """Return the name of a row on the command line."""
    match row:
        case Category() | Host():
            return row.name
        case Service() | Alert():
            return row.id
        case Dependency():
            return f"{row.category} {row.on}"
        case Listener():
            return f"{row.service} {format_endpoint(row.address, row.port)}"
        case Credential():
            return f"{row.service} {row.id}"


def row_kind(row: Row) -> str:
    """Return the kind of a row: `category`, `listener`, and so on."""
    return type(row).__name__.lower()


_COLUMNS: dict[str, tuple[str, ...]] = {
    "category": ("category", "backup", "probe", "timeout", "attempts", "slow", "recovery"),
    "service": ("service", "category"),
    "dependency": ("category", "depends on"),
    "listener": ("service", "listener", "state", "since", "weight", "host", "cause"),
    "credential": ("service", "id", "created", "expires"),
    "host": ("host", "barred", "update address", "services"),
    "alert": ("kind", "opened", "text"),
}


def table_of_rows(kind: str, rows: Iterable[Row], clock: TimeFormat) -> TableView:
    """Make the table of rows of one kind."""
    lines = tuple(_line(row, clock) for row in rows)
    empty_text = {"alert": "No open incidents.", "listener": "No matching listeners."}.get(kind, f"No {kind} found.")
    return TableView(_COLUMNS[kind], lines, empty_text)


def _line(row: Row, clock: TimeFormat) -> tuple[str, ...]:
    match row:
        case Category(policy=policy):
            return (
                row.name,
                row.backup or "-",
                policy.probe,
                f"{policy.probe_timeout_seconds:g} s",
                str(policy.probe_attempts),
                policy.slow,
                f"{policy.recovery_seconds:g} s",
            )
        case Service():
            return (row.id, category_of(row.id))
        case Dependency():
            return (row.category, row.on)
        case Listener():
            endpoint = format_endpoint(row.address, row.port)
            since = format_time(row.changed_at, clock)
            return (row.service, endpoint, row.state, since, str(row.weight), row.host or "-", row.cause)
        case Credential():
            expires = format_time(row.expires_at, clock) if row.expires_at else "never"
            return (row.service, row.id, format_time(row.created_at, clock), expires)
        case Host():
            dialled = format_endpoint(row.update_address, row.update_port) if row.update_port else "-"
            return (row.name, "yes" if row.barred else "no", dialled, " ".join(row.services) or "-")
        case Alert():
            return (row.kind, format_time(row.opened_at, clock), row.text)


def table_of_tokens(rows: Iterable[Credential], clock: TimeFormat) -> TableView:
    """Make the table of bearer tokens, by name and role."""
    lines = []
    for row in rows:
        name, _, category = row.service.partition(".")
        lines.append((name, TOKEN_ROLES[category], *_line(row, clock)[1:]))
    return TableView(("name", "role", "id", "created", "expires"), tuple(lines), "No tokens.")


def fields(pairs: Iterable[tuple[str, str]]) -> TableView:
    """Make the table of one object, with one line per field."""
    return TableView(("", ""), tuple((name, value or "-") for name, value in pairs))


def table_of_listener(
    row: Listener, clock: TimeFormat, case: replies.CaseFile | None, history: Sequence[UpdateEntry]
) -> TableView:
    """Make the table of one listener: its row, the evidence about its health, its last changes."""
    return fields(
        [
            *zip(_COLUMNS["listener"], _line(row, clock), strict=True),
            ("draining", "yes" if row.draining or row.state == "draining" else "no"),
            ("epoch", str(row.epoch)),
            ("zone", row.zone),
            ("load", f"{row.load:g}, and {row.degradation:g} more with each user"),
            *((f"metadata {key}", value) for key, value in sorted(row.metadata.items())),
            *_own_check(row, clock),
            *(_health(case, clock) if case is not None else [("evidence", "unknown, this server is older")]),
            *(("change", _history_line(entry, clock)) for entry in history),
        ]
    )


def _own_check(row: Listener, clock: TimeFormat) -> list[tuple[str, str]]:
    """Return the check of a listener by its own host, its last result and since when that stands."""
    if not row.check:
        return [("own check", "none")]
    result = f"fails: {row.failing}" if row.failing else "passes"
    return [("own check", row.check), ("its result", f"{result}, since {format_time(row.checked_at, clock)}")]


def _health(case: replies.CaseFile, clock: TimeFormat) -> list[tuple[str, str]]:
    decision = (
        f"{case.judgement}, {format_time(case.judged_at, clock)}" if case.judgement else "none since the server started"
    )
    lines = [("evidence", _evidence_line(one, clock)) for one in case.evidence] or [("evidence", "none")]
    lines += [("last decision", decision), ("running check", case.inquiry or "none")]
    lines += [("recent failures", str(case.failures)), ("kept out until", format_time(case.held_until, clock))]
    return [*lines, ("the server", "distrusts its own probes")] if case.doubting else lines


def _evidence_line(one: replies.Evidence, clock: TimeFormat) -> str:
    sources = {
        "report": "reported by",
        "session": "session lost by",
        "probe": "probed by",
        "findings": "probed indirectly by",
    }
    found = "alive" if one.alive else one.detail or "not reached"
    return f"{format_time(one.time, clock)}: {sources.get(one.kind, one.kind)} {one.by}: {found}"


def _history_line(entry: UpdateEntry, clock: TimeFormat) -> str:
    row = entry.change.row
    cause = f": {row.cause}" if isinstance(row, Listener) and row.cause else ""
    return f"revision {entry.number}, {format_time(entry.time, clock)}: {entry.operation}, {entry.state}{cause}"


def policy_fields(policy: Policy) -> list[tuple[str, str]]:
    """Return the fields of a category's policy for selection of listeners and for evidence."""
    return [
        ("pool", policy.pool),
        *((f"pool of {label}", pool) for label, pool in sorted(policy.pools.items())),
        *((f"hosts of {label}", " ".join(names)) for label, names in sorted(policy.hosts.items())),
        ("locality", policy.locality),
        ("reporters required", str(policy.reporters)),
        ("witnesses required", str(policy.witnesses)),
        ("cap", f"{100 * policy.cap:g} % may be down at once"),
        ("grace", f"{policy.grace_seconds:g} s for a lost host"),
        (
            "flaps",
            f"{policy.flaps} in {policy.flap_seconds:g} s, then kept out for {policy.hold_seconds:g} s or longer",
        ),
        *([("open", "in development mode, services register without a credential")] if policy.open else ()),
    ]


def table_of_row(row: Row, clock: TimeFormat, more: Sequence[tuple[str, str]] = ()) -> TableView:
    """Make the table of one row, with one line per column, and further fields."""
    return fields([*zip(_COLUMNS[row_kind(row)], _line(row, clock), strict=True), *more])


_LOG_COLUMNS: dict[str, tuple[str, ...]] = {
    "updates": ("revision", "time", "operation", "subject", "listener", "state"),
    "security": ("number", "time", "operation", "subject", "origin", "principal", "reason"),
    "administration": ("number", "time", "operation", "principal", "origin", "outcome", "revision", "arguments"),
}


def table_of_log(log: str, entries: Iterable[LogEntry], clock: TimeFormat) -> TableView:
    """Make the table of entries of one log."""
    lines = tuple(log_line(entry, clock) for entry in entries)
    return TableView(_LOG_COLUMNS[log], lines, "No entries.")


def log_line(entry: LogEntry, clock: TimeFormat) -> tuple[str, ...]:
    """Return the cells of one entry of a log."""
    first = (str(entry.number), format_time(entry.time, clock), entry.operation)
    match entry:
        case UpdateEntry():
            endpoint = format_endpoint(entry.address, entry.port) if entry.port else "-"
            return (*first, entry.subject, endpoint, entry.state or "-")
        case SecurityEntry():
            return (*first, entry.subject, entry.origin, entry.principal, entry.reason)
        case AdministrationEntry():
            # The arguments are the last column, because they may be long.
            return (*first, entry.principal, entry.origin, entry.outcome, str(entry.revision), entry.arguments)


def table_of_impact(reply: replies.Told) -> TableView:
    """Make the table of those who would be notified of a change."""
    return fields(
        [
            ("change of", reply.name),
            ("notified categories", " ".join(reply.categories)),
            ("their services", " ".join(reply.services)),
            ("their hosts", " ".join(reply.hosts)),
            ("backup of", " ".join(reply.backup_of)),
            ("at revision", str(reply.revision)),
        ]
    )


def table_of_lags(reply: replies.Lags) -> TableView:
    """Make the table of the revision that each host holds. `behind` counts changes that concern the host: a host that
    has all of those holds everything, however far the server's revision has moved on."""
    lines = tuple(
        (
            lag.host,
            lag.server or "-",
            "open" if lag.session else "none",
            str(lag.acknowledged),
            str(lag.pending),
            lag.status,
        )
        for lag in reply.hosts
    )
    columns = ("host", "server", "session", "revision", "behind", "status")
    return TableView(columns, lines, f"No host has watched yet; the server is at revision {reply.revision}.")


def table_of_hosts(rows: Iterable[Host], sessions: Mapping[str, replies.HostLag], clock: TimeFormat) -> TableView:
    """Make the table of hosts with their sessions."""
    lines = []
    for row in rows:
        lag = sessions.get(row.name)
        session = ("none", "-", "-", "-")
        if lag is not None:
            since = format_time(lag.since, clock) if lag.since else "-"
            session = ("open" if lag.session else "none", lag.server or "-", since, lag.software or "-")
        name, *more = _line(row, clock)
        lines.append((name, *session, *more))
    columns = ("host", "session", "server", "since", "software", *_COLUMNS["host"][1:])
    return TableView(columns, tuple(lines), "No host found.")


def table_of_status(reply: replies.ServerStatus, clock: TimeFormat) -> TableView:
    """Make the table of a server's figures."""
    return fields(
        [
            ("server", reply.server),
            ("software", reply.software),
            ("store", f"{reply.store} ({reply.engine})" if reply.engine else reply.store),
            *([("store unavailable", _trouble(reply))] if reply.trouble else []),
            ("revision", str(reply.revision)),
            ("started", format_time(reply.started_at, clock)),
            ("sessions", f"{reply.sessions}, {reply.watching} of them watching"),
            *([("drained", "hosts are sent to other servers")] if reply.away else []),
            *((f"{kind} rows", str(count)) for kind, count in sorted(reply.counts.items())),
            ("listeners", _listeners(reply)),
            *([("services without a listener", str(reply.lost_services))] if reply.lost_services else []),
            ("open incidents", str(len(reply.alerts) + reply.more_alerts)),
        ]
    )


def _trouble(reply: replies.ServerStatus) -> str:
    since = f" (for {format_duration(reply.trouble_seconds)})" if reply.trouble_seconds else ""
    return f"{reply.trouble}{since}; nothing can be registered until it is back"


def _listeners(reply: replies.ServerStatus) -> str:
    """Return the listeners in each state; those that died before those that were deregistered."""
    states = reply.states | {"offline": reply.states.get("offline", 0) - reply.died}
    parts = [f"{count} {state}" for state, count in sorted(states.items()) if count > 0]
    return ", ".join([f"{reply.died} died", *parts] if reply.died else parts)


def table_of_servers(reply: replies.ServerStatus, clock: TimeFormat) -> TableView:
    """Make the table of all servers over the store. An old server lists only itself."""
    lines = tuple(
        (
            one.server,
            one.role,
            str(one.revision),
            str(one.lag),
            f"{one.sessions}, {one.watching} watching",
            one.software,
            format_time(one.started_at, clock),
            f"{format_duration(one.silent_seconds)} ago",
        )
        for one in reply.servers
    )
    columns = ("server", "role", "revision", "lag", "sessions", "software", "started", "last heartbeat")
    return TableView(columns, lines, "This server does not list others over its store.")


def table_of_channels(reply: replies.WayList, clock: TimeFormat) -> TableView:
    """Make the table of the channels to administrators, as one server knows them."""
    lines = tuple(
        (
            one.name,
            one.way,
            "yes" if one.tells else "no",
            str(one.pending),
            format_time(one.told_at, clock),
            format_time(one.failed_at, clock),
            one.problem or "-",
        )
        for one in reply.ways
    )
    columns = ("name", "channel", "active", "pending", "last success", "last failure", "problem")
    return TableView(columns, lines, "No channels: this server only logs incidents; see docs/reference/alerts.md.")


def table_of_tried_channels(reply: replies.WaysTried) -> TableView:
    """Make the table of the results of a test message by channel."""
    lines = tuple((one.name, one.way, one.problem or "ok") for one in reply.ways)
    return TableView(("name", "channel", "outcome"), lines, "No channel was tried.")


def sentences(
    reply: replies.Done | replies.Registered | replies.Deregistered | replies.Reported | replies.CredentialIssued,
) -> list[str]:
    """Describe the result of a change for people."""
    match reply:
        case replies.Done(changes=()):
            return [f"Done; revision {reply.revision}."]
        case replies.Done():
            return [change_sentence(change) for change in reply.changes]
        case replies.CredentialIssued():
            return [f"revision {reply.revision}: credential {reply.credential.id} of {reply.credential.service}"]
        case replies.Registered(changed=False) | replies.Deregistered(changed=False):
            return [f"Already {reply.state}; revision {reply.revision}."]
        case _:
            return [f"revision {reply.revision}: {reply.state}"]


def change_sentence(change: Change) -> str:
    """Describe one committed change."""
    row = change.row
    state = f" {row.state}" if isinstance(row, Listener) and not change.removed else ""
    return f"revision {change.revision}: {change.operation} {row_kind(row)} {row_name(row)}{state}"
