"""Comparison of the journal with what servers have recorded for this host (opengnsp, "Rows and books").

Each watch has the digest of the instances that this host holds. A server that has others sends them: those that are not
in the journal are disowned, and an instance that another host has replaced is registered again, so that the answer says
whether it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from twisted.logger import Logger

from compass.agent.registration import states
from compass.agent.registration.journal import Registration, RegistrationJournal, format_key
from compass.agent.registration.registrar import Registrar
from compass.agent.upstream.refusals import TRANSIENT
from compass.agent.upstream.upstream import Upstream
from compass.model.catalogue.digest import instance_digest, to_hex
from compass.model.limits import DETAIL_MAX
from compass.model.names import format_endpoint
from compass.model.replies import Refusal, Reply
from compass.model.requests import Disown
from compass.model.rows import Instance
from compass.model.text import escape_line
from compass.wire.messages import Pushed, Recorded, Welcome

TROUBLES_SHOWN_MAX = 8
"""Problems of registrations in the status of the daemon; others of the same kind follow from the same mistake."""


class Comparison:
    """Follower of the session that compares; the book of the watch."""

    _log = Logger()

    def __init__(self, host: str, journal: RegistrationJournal, server: Upstream, registrar: Registrar) -> None:
        self._host = host
        self._journal = journal
        self._server = server
        self._registrar = registrar
        self._told: set[str] = set()
        self._has_session = False
        server.follow(self)

    # The book of a watch ----------------------------------------------------------------------------------

    def holds(self) -> str:
        """Return the digest of what this host holds; empty: that is unknown, or changes now."""
        entries = self._journal.all()
        is_busy = self._registrar.verifying or any(not entry.is_settled for entry in entries)
        if self._journal.is_blocked or (self._has_session and is_busy):
            return ""
        return to_hex(sum(instance_digest(*entry.instance) for entry in entries if is_recorded(entry)))

    def trouble(self) -> str:
        """Return what administrators should know; empty: nothing."""
        shared = _shared_endpoints(self._journal.all())
        for warning in set(shared) - self._told:
            self._log.warn("{warning}", warning=warning)
        self._told = set(shared)
        return escape_line("; ".join(self.warnings()), DETAIL_MAX)

    def warnings(self) -> tuple[str, ...]:
        """Return the problems of this host: of the journal, and endpoints that several services share."""
        shared = _shared_endpoints(self._journal.all())
        return tuple(text for text in (self._journal.problem, *shared) if text)[:TROUBLES_SHOWN_MAX]

    # The follower of the session --------------------------------------------------------------------------

    def session_opened(self, welcome: Welcome) -> None:
        """Note it: on a new session no server is asked for anything before the watch."""
        self._has_session = True

    def session_ended(self) -> None:
        """Note it: the next session compares again."""
        self._has_session = False

    def session_pushed(self, messages: Sequence[Pushed]) -> None:
        """Compare what is recorded with the journal."""
        for message in messages:
            if isinstance(message, Recorded) and not self._journal.is_blocked:
                self._compare(message.instances)

    def _compare(self, instances: Sequence[Instance]) -> None:
        unheld = []
        for instance in instances:
            key = instance.service, instance.address, instance.port
            entry = self._journal.get(key)
            if instance.host not in ("", self._host):
                if entry is not None and entry.state != "leaving":
                    self._registrar.register_again(key)
            elif (entry is None or entry.epoch < instance.epoch) and key not in self._registrar.verifying:
                unheld.append(instance)
        if unheld:
            names = ", ".join(format_key((one.service, one.address, one.port)) for one in unheld[:TROUBLES_SHOWN_MAX])
            self._log.warn(
                "{n} listeners are recorded for this host and unknown here: {names}; a server probes them",
                n=len(unheld),
                names=names,
            )
            asked = self._server.ask(Disown(tuple(unheld), escape_line(self._journal.problem, DETAIL_MAX)))
            asked.addCallback(self._answered)

    def _answered(self, reply: Reply) -> None:
        if isinstance(reply, Refusal) and reply.code not in TRANSIENT:
            self._log.warn("the server does not accept which listeners are unknown here: {why}", why=reply.message)


def is_recorded(entry: Registration) -> bool:
    """Return whether a server should have the entry as this host's."""
    return entry.state == "registered" or (entry.state == "refused" and not states.is_displaced(entry))


def _shared_endpoints(entries: Sequence[Registration]) -> list[str]:
    """Return a sentence for each two services at one endpoint that are not known to be one process. A port of TCP and
    the same port of UDP are two endpoints."""
    places: dict[tuple[str, int, str], list[Registration]] = {}
    for entry in entries:
        if entry.lives:
            place = entry.address, entry.port, entry.metadata.get("protocol", "tcp")
            places.setdefault(place, []).append(entry)
    return [
        f"{one.service} and {other.service} are both registered at {format_endpoint(*place[:2])}, and nothing shows "
        "that one process serves both; if none does, deregister the wrong one"
        for place, sharing in places.items()
        for one, other in combinations(sharing, 2)
        if not (one.pid and (one.pid, one.started) == (other.pid, other.started))
    ][:TROUBLES_SHOWN_MAX]
