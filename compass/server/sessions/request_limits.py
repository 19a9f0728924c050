"""Request limits: the reports and changes of one peer that are accepted in a time (P10).

Wrong credentials have no such limit. A token has 256 random bits, so nothing is won by not checking one, and a limit
would refuse the right one, too; what is bounded is the rows that refusals cost (`ConnectionLimits.should_log`).
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import msgspec
from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import Clock
from compass.model.limits import SUBJECT_MAX
from compass.model.names import InvalidName, parse_service_id
from compass.model.replies import Deregistered, Refusal, Registered, Reply
from compass.model.requests import Deregister, Drain, Register, Report, Watch
from compass.model.rows import Host
from compass.model.rules.draft import Principal, Refused
from compass.model.rules.validation import parse_host, saw_it_die
from compass.server.sessions.rate_limit import (
    REPORTS_PER_MINUTE_MAX,
    WATCH_CHANGES_BURST_MAX,
    WATCH_CHANGES_PER_SECOND_MAX,
    ChangeRates,
    Rate,
    RateLimiter,
    TokenBuckets,
)


class RequestLimit(Protocol):
    """A limit on requests of one or several types."""

    def exceeded(self, request: Any, asker: Principal) -> Refusal | None:
        """Return the refusal of a request beyond the limit."""

    def answered(self, reply: Any, request: Any, asker: Principal) -> Reply:
        """Note the reply to a request within the limit, and return that reply."""


class ReportLimit:
    """A number of reports of one host in a minute."""

    def __init__(self, clock: Clock) -> None:
        self._reports = RateLimiter(clock, REPORTS_PER_MINUTE_MAX)

    def exceeded(self, request: Report, asker: Principal) -> Refusal | None:
        """Count a report of a host. Returns its refusal beyond the limit."""
        if asker.role != "host" or self._reports.count(asker.name):
            return None
        text = f"{REPORTS_PER_MINUTE_MAX} reports of host {asker.name!r} within a minute are too many"
        return Refusal("busy", text, self._reports.wait(asker.name))

    def answered(self, reply: Reply, request: Report, asker: Principal) -> Reply:
        """Return the reply: every report was counted before."""
        return reply


class CatalogueHolder(Protocol):
    """Replica of the catalogue."""

    @property
    def catalogue(self) -> Catalogue:
        """Catalogue as committed."""


class ChangeLimit:
    """The rates of the listeners' changes: register, deregister and drain."""

    log = Logger()

    def __init__(self, clock: Clock, rates: ChangeRates, replica: CatalogueHolder) -> None:
        self._replica = replica
        self._credentials = TokenBuckets(clock, rates.credential)
        self._hosts = TokenBuckets(clock, rates.host)
        self._logged = RateLimiter(clock, 1)

    def exceeded(self, request: Register | Deregister | Drain, asker: Principal) -> Refusal | None:
        """Take the tokens for a request. Returns its refusal if one is missing.

        A death that the host of the listener saw is never refused (P9); its registration was counted.
        """
        is_death = isinstance(request, Deregister) and request.died and self._is_seen_death(request, asker)
        # No token is stored.
        key = hashlib.sha256(request.credential.encode("utf-8", "surrogatepass")).digest()
        wait = self._credentials.take(key, overdraw=is_death) if request.credential else 0.0
        if wait:
            return self._refuse(f"one credential of {request.service[:SUBJECT_MAX]}", self._credentials.rate, wait)
        wait = self._hosts.take(asker.name, overdraw=is_death) if asker.role == "host" else 0.0
        if wait:
            if request.credential:
                self._credentials.put_back(key)
            return self._refuse(str(asker), self._hosts.rate, wait)
        return None

    def answered(self, reply: Reply, request: Register | Deregister | Drain, asker: Principal) -> Reply:
        """Put the tokens of a request back that was refused or has changed nothing, and return the reply."""
        if isinstance(reply, Refusal) or (isinstance(reply, Registered | Deregistered) and not reply.changed):
            if request.credential:
                key = hashlib.sha256(request.credential.encode("utf-8", "surrogatepass")).digest()
                self._credentials.put_back(key)
            if asker.role == "host":
                self._hosts.put_back(asker.name)
        return reply

    def _is_seen_death(self, request: Deregister, asker: Principal) -> bool:
        try:
            return saw_it_die(self._replica.catalogue, asker, parse_service_id(request.service), request)
        except InvalidName:
            return False

    def _refuse(self, whose: str, rate: Rate, wait: float) -> Refusal:
        text = f"{whose} may change {rate.burst} listeners at once and then {rate.per_second:g} in a second"
        if self._logged.count(whose):
            self.log.warn("{text}: more are refused; further refusals within a minute are not logged", text=text)
        return Refusal("busy", f"{text}: send this again in {wait:.2g} s", retry_after_seconds=wait)


class WatchLimit:
    """The rate of changes of what a host watches."""

    def __init__(self, clock: Clock, replica: CatalogueHolder) -> None:
        self._replica = replica
        self._rows = TokenBuckets(clock, Rate(WATCH_CHANGES_PER_SECOND_MAX, WATCH_CHANGES_BURST_MAX))

    def exceeded(self, request: Watch, asker: Principal) -> Refusal | None:
        """Take a token for a watch that changes the host's row. Returns its refusal if there is none."""
        known = self._replica.catalogue.hosts.get(asker.name)
        try:
            row = parse_host(Host(asker.name, request.update_address, request.update_port, request.services))
        except (Refused, InvalidName):
            return None
        if known is not None and msgspec.structs.replace(known, barred=row.barred) == row:
            return None
        wait = self._rows.take(asker.name)
        if not wait:
            return None
        text = f"{asker} changes what it watches more than {self._rows.rate.burst} times at once"
        return Refusal("busy", f"{text}: watch again in {wait:.2g} s", retry_after_seconds=wait)

    def answered(self, reply: Any, request: Watch, asker: Principal) -> Any:
        """Return the reply: what the watch costs is counted before."""
        return reply
