"""Draft of a decision: the catalogue with the changes decided so far, and the texts of requests and logs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NoReturn

import msgspec

from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.limits import PARAMETERS_MAX
from compass.model.names import InvalidName, format_endpoint, parse_endpoint
from compass.model.replies import Code, Problem, Refusal, Reply
from compass.model.rows import AdministrationEntry, Alert, Change, Listener, ListenerKey, Row, SecurityEntry, shown
from compass.model.text import escape_line, unprintable_in

Role = Literal["host", "admin", "viewer", "server"]
"""Role of a principal. A viewer may read what an administrator may read, and change nothing; only bearer tokens have
this role."""


_PLACE_MAX = 100
"""Characters of the place of an unprintable character in a refusal: the name of a field and a key of metadata."""

is_odd = re.compile(r"[^ -\[\]-~]").search
"""Search for more than ASCII without escapes in the representation of a message: only then its texts are examined."""


class Principal(msgspec.Struct, frozen=True):
    """Principal of a request: role and name from the certificate or the token, and the origin of the connection.

    A host's name is a DNS name and stored in lower case, like the rows of hosts: a bar applies to every spelling.
    """

    role: Role
    name: str
    origin: str

    def __post_init__(self) -> None:
        if self.role == "host":
            msgspec.structs.force_setattr(self, "name", self.name.lower())

    def __str__(self) -> str:
        return f"{self.role} {self.name!r}"


class Decision(msgspec.Struct, frozen=True):
    """Decision of a request: the changes to commit, the reply that is true once they are, the log entries."""

    catalogue: Catalogue
    """Catalogue with the changes applied."""
    changes: tuple[Change, ...]
    reply: Reply
    security: SecurityEntry | None = None
    administration: AdministrationEntry | None = None


class Refused(Exception):
    """Exception that ends a decision with a refusal; it never leaves `decide`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def refuse(code: Code, message: str, *, epoch: int = 0, host: str = "", problems: tuple[Problem, ...] = ()) -> NoReturn:
    """End the decision without a change; the principal gets the reason. Raises Refused."""
    raise Refused(Refusal(code, message, epoch=epoch, host=host, problems=problems))


class Draft:
    """Draft that collects and numbers the changes of one decision; mutable, and dropped after the decision."""

    def __init__(
        self, catalogue: Catalogue, principal: Principal, now: float, token: str = "", in_development: bool = False
    ) -> None:
        """`token`: 256 fresh random bits as text, used if a credential is to be issued. `in_development`: registrations
        declare services in open categories."""
        self.catalogue = catalogue
        self.principal = principal
        self.now = now
        self.token = token
        self.in_development = in_development
        self.declared = ""
        """Service that the request has declared by registering it."""
        self.changes: list[Change] = []

    def set(self, operation: str, row: Row) -> None:
        """Add `row`, or replace the row with the same key."""
        self._change(operation, row, removed=False)

    def remove(self, operation: str, row: Row) -> None:
        """Remove the row with the key of `row`."""
        self._change(operation, row, removed=True)

    def shown_changes(self) -> tuple[Change, ...]:
        """Return the changes as a reply has them."""
        return tuple(map(shown, self.changes))

    def _change(self, operation: str, row: Row, *, removed: bool) -> None:
        topic = topic_of(row)
        change = Change(
            revision=self.catalogue.revision + 1,
            previous=self.catalogue.topics.get(topic, 0) if topic else 0,
            time=self.now,
            operation=operation,
            row=row,
            removed=removed,
        )
        self.catalogue = self.catalogue.apply(change)
        self.changes.append(change)

    def open_alert(self, kind: Literal["failure", "slow"], listener: Listener, text: str) -> None:
        """Open an alert unless this incident is open already: one alert per incident, not per report."""
        id = alert_id(kind, listener)
        if id not in self.catalogue.alerts:
            self.set("alert", Alert(id, kind, self.now, text))

    def open_incident(self, id: str, text: str) -> None:
        """Open an alert that does not belong to one listener, unless it is open already."""
        if id not in self.catalogue.alerts:
            self.set("alert", Alert(id, "failure", self.now, text))

    def close_incident(self, id: str) -> bool:
        """Close an incident. Returns whether it was open."""
        alert = self.catalogue.alerts.get(id)
        if alert is not None:
            self.remove("alert-over", alert)
        return alert is not None

    def close_alerts(self, listener: Listener) -> None:
        """Close the incidents of a listener."""
        if self.catalogue.alerts:
            for id in (alert_id("failure", listener), alert_id("slow", listener), unheld_id(listener)):
                self.close_incident(id)


def alert_id(kind: str, listener: Listener) -> str:
    """Return the id of an incident: its kind and the listener."""
    return f"{kind} {listener.service} {format_endpoint(listener.address, listener.port)}"


def unheld_id(listener: Listener) -> str:
    """Return the id of the incident that a listener's host does not hold it."""
    return f"failure unheld {listener.service} {format_endpoint(listener.address, listener.port)}"


def listener_of(alert: Alert) -> ListenerKey | None:
    """Return the key of the listener that an incident is about; None for an incident of anything else."""
    service, _, endpoint = alert.id.removeprefix(f"{alert.kind} ").partition(" ")
    try:
        return (service, *parse_endpoint(endpoint))
    except InvalidName:
        return None


def parameters_of(request: Any) -> str:
    """Return a request as JSON for a log: without its type and its credential, cut at `PARAMETERS_MAX`."""
    fields = msgspec.to_builtins(request)
    fields.pop("credential", None)
    fields.pop("type", None)
    return escape_line(json.dumps(fields, ensure_ascii=False, separators=(",", ":")), PARAMETERS_MAX)


def text_problem(message: msgspec.Struct) -> str:
    """Return why a message is refused for a text in it that is not one printable line; empty if there is none.

    A credential is exempt: it is compared and never shown, and its refusal belongs into the security log.
    """
    if not is_odd(repr(message)):
        return ""
    for place, text in _texts(message, ""):
        if found := unprintable_in(text):
            return (
                f"{escape_line(place, _PLACE_MAX)} has the character {found}, which cannot be printed: "
                "control characters, line ends and invisible characters are refused"
            )
    return ""


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield each text in a message, keys included, with its place."""
    match value:
        case str():
            yield place, value
        case dict():
            for key, part in value.items():
                yield from _texts(key, f"the name of an entry of {place}")
                yield from _texts(part, f"{place} {key!r}")
        case list() | tuple():
            for part in value:
                yield from _texts(part, place)
        case msgspec.Struct():
            for name in value.__struct_fields__:
                if name != "credential":
                    yield from _texts(getattr(value, name), name)
