"""Holdings: what each host holds, compared with what the store has for it (opengnsp, "Rows and books").

A host sends the digest of the instances that it holds with each watch. If the store has others for it, it gets them and
disowns those that it does not hold. A host whose instance another host has replaced gets that one, registers its own
again and learns from the refusal that it does not count; it is remembered here as a claimant, administrators have an
incident, and it gets the row again when the newer instance is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from twisted.internet.defer import Deferred

from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import Clock
from compass.model.limits import DETAIL_MAX, INSTANCES_PER_MESSAGE_MAX
from compass.model.names import InvalidName, format_endpoint, parse_address, parse_port, parse_service_id
from compass.model.replies import Deregistered, Refusal, Registered, Reply
from compass.model.requests import Deregister, Incident, Register
from compass.model.rows import Change, Instance, Listener, ListenerKey
from compass.model.rules.draft import Principal
from compass.model.rules.instances import is_unheld
from compass.model.text import escape_line
from compass.server.commit.committer import Committer
from compass.server.failure.listener_index import ListenerIndex
from compass.server.push.publisher import Publisher
from compass.server.sessions.session import Session
from compass.system.timers import Timers
from compass.wire.frames import frame
from compass.wire.messages import Recorded, encode

RECORDED_MAX = 4096
"""Instances sent to one host after one watch: all that its book can hold. Others follow after the next watch."""
CLAIMS_MAX = 10_000
"""Instances that wait for a newer one to end; beyond that the first one is forgotten, which its next session renews."""
CLAIM_SECONDS = 300.0
"""Time for which a claim outlives the session of its host, and an incident of an earlier run its claim."""
CONTESTED = "failure two hosts "
"""Beginning of the id of an incident about one address and port of two hosts; service, address and port follow."""
TROUBLE = "failure trouble of host "
"""Beginning of the id of an incident that a host asks for; the name of the host follows."""


class Presence(Protocol):
    """Presence of the hosts."""

    def is_present(self, host: str) -> bool:
        """Return whether a host has a session at any server."""


class Holdings:
    """Comparison of rows and books, and the claims of instances that were replaced by those of another host."""

    def __init__(
        self,
        clock: Clock,
        committer: Committer,
        publisher: Publisher,
        principal: Principal,
        index: ListenerIndex,
        presence: Presence,
    ) -> None:
        self._committer = committer
        self._publisher = publisher
        self._principal = principal
        self._index = index
        self._presence = presence
        self._claims: dict[ListenerKey, dict[str, int]] = {}
        """Epochs of instances that wait, by listener and host."""
        self._timers = Timers(clock)

    def start(self) -> None:
        """Let incidents of an earlier run end, unless the claims come again."""
        for id in self._committer.catalogue.alerts:
            if id.startswith(CONTESTED):
                self._timers.start(id, CLAIM_SECONDS, self._close_unclaimed, id)

    def stop(self) -> None:
        """Stop all timers."""
        self._timers.cancel_all()

    # Rows and books.

    def differ(self, host: str, digest: str) -> bool:
        """Return whether the store has other instances for a host than the host holds; an empty digest is no claim."""
        return bool(digest) and digest != self._index.digest(host)

    def send_recorded(self, session: Session) -> None:
        """Send a host the instances that the store has for it, except those that it has disowned."""
        catalogue = self._committer.catalogue
        rows = (catalogue.listener(*key) for key in self._index.of(session.host))
        known = [row for row in rows if row is not None and not is_unheld(catalogue, row)][:RECORDED_MAX]
        for first in range(0, len(known), INSTANCES_PER_MESSAGE_MAX):
            _send(session, known[first : first + INSTANCES_PER_MESSAGE_MAX])

    def note_trouble(self, host: str, text: str) -> None:
        """Open or close the incident about a host that the host itself asks for."""
        id = TROUBLE + host
        if bool(text) != (id in self._committer.catalogue.alerts):
            told = escape_line(f"host {host}: {text}", DETAIL_MAX) if text else ""
            self._committer.submit(Incident(id, told), self._principal)

    # Claims.

    def submit(self, request: Register | Deregister, principal: Principal) -> Deferred[Reply]:
        """Have a registration or deregistration decided, and note whether its host has a claim."""
        answer = self._committer.submit(request, principal)
        if principal.role == "host":
            answer.addCallback(self._decided, request, principal.name)
        return answer

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Send a row to the host whose instance it replaced, and to those with a claim once its instance is over.

        The index is the one before this change.
        """
        row = change.row
        if not isinstance(row, Listener):
            return
        key = row.service, row.address, row.port
        before = self._index.host_of(key)
        if before and before != row.host:
            self._send_to(before, row)
        claims = self._claims.get(key)
        if claims and (change.removed or self._is_over(catalogue, row)):
            for host in list(claims):
                self._send_to(host, row)

    def _is_over(self, catalogue: Catalogue, row: Listener) -> bool:
        """Return whether an instance is over: a failed one, too, if its host is lost. Otherwise two hosts that no
        probe reaches would replace each other without an end."""
        is_lost = row.state == "down" and not self._presence.is_present(row.host)
        return row.state == "offline" or is_lost or is_unheld(catalogue, row)

    def _send_to(self, host: str, row: Listener) -> None:
        session = self._publisher.session_of(host)
        if session is not None and session.takes_recorded:
            _send(session, [row])

    def _decided(self, reply: Reply, request: Register | Deregister, host: str) -> Reply:
        is_refused = isinstance(reply, Refusal)
        if not is_refused and not self._claims:
            return reply
        try:
            key = parse_service_id(request.service), parse_address(request.address), parse_port(request.port)
        except InvalidName:
            return reply
        if isinstance(request, Register) and isinstance(reply, Refusal) and reply.code == "stale-epoch" and reply.host:
            self._claim(key, host, request.epoch, reply.host)
        elif isinstance(reply, Registered) or (isinstance(request, Deregister) and not _may_live(reply)):
            self._drop(key, host, request.epoch)
        return reply

    def _claim(self, key: ListenerKey, host: str, epoch: int, other: str) -> None:
        session = self._publisher.session_of(host)
        if session is None or not session.takes_recorded:
            return
        self._claims.setdefault(key, {})[host] = epoch
        if len(self._claims) > CLAIMS_MAX:
            self._forget(next(iter(self._claims)))
        self._timers.start(_name(key, host), CLAIM_SECONDS, self._renew, key, host)
        id = _incident(key)
        if id not in self._committer.catalogue.alerts:
            text = (
                f"{key[0]} at {format_endpoint(key[1], key[2])} is registered by two hosts: {other}, which counts, and "
                f"{host}, which counts again when that one ends; give each its own address or port"
            )
            self._committer.submit(Incident(id, escape_line(text, DETAIL_MAX)), self._principal)

    def _renew(self, key: ListenerKey, host: str) -> None:
        """Keep the claim of a host with a session here."""
        if self._publisher.session_of(host) is None:
            self._drop(key, host, self._claims.get(key, {}).get(host, 0))
        else:
            self._timers.start(_name(key, host), CLAIM_SECONDS, self._renew, key, host)

    def _drop(self, key: ListenerKey, host: str, epoch: int) -> None:
        claims = self._claims.get(key, {})
        if host in claims and claims[host] <= epoch:
            del claims[host]
            self._timers.cancel(_name(key, host))
            if not claims:
                self._forget(key)

    def _forget(self, key: ListenerKey) -> None:
        for host in self._claims.pop(key, {}):
            self._timers.cancel(_name(key, host))
        self._close_unclaimed(_incident(key))

    def _close_unclaimed(self, id: str) -> None:
        claimed = any(_incident(key) == id for key in self._claims)
        if not claimed and id in self._committer.catalogue.alerts:
            self._committer.submit(Incident(id), self._principal)


def _send(session: Session, rows: Iterable[Listener]) -> None:
    """Send rows as instances; those of the session's own host name no host."""
    instances = tuple(
        Instance(row.service, row.address, row.port, row.epoch, row.host if row.host != session.host else "")
        for row in rows
    )
    session.send_unacknowledged(frame(encode(Recorded(instances))))


def _may_live(reply: Reply) -> bool:
    """Return whether a deregistration was doubtful, and left the instance as it is."""
    return isinstance(reply, Deregistered) and reply.state != "offline"


def _incident(key: ListenerKey) -> str:
    return f"{CONTESTED}{key[0]} {format_endpoint(key[1], key[2])}"


def _name(key: ListenerKey, host: str) -> str:
    return f"{_incident(key)} {host}"
