"""A zone to ask, and dnspython to ask it with: what is answered is read by the strictest parser there is."""

from __future__ import annotations

from random import Random
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype
from twisted.internet.task import Clock

from compass.gateway.dns.server import DnsServer
from compass.gateway.dns.zone import Zone
from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.requests import Put
from compass.model.rows import Category, Policy
from compass.model.selection.policies import Location
from compass.model.selection.selector import Selector
from tests.support.catalogue_rows import World, store

NAMESERVER = "web1.example"
STRICT: dict[str, Any] = {"ignore_trailing": False, "raise_on_truncation": False, "continue_on_error": False}


class Source:
    """Source of DNS answers with a catalogue that the test sets."""

    def __init__(self, catalogue: Catalogue | None, place: Location | None = None) -> None:
        self.pools = Selector(Random(1).random, place)
        self.none: list[str] = []
        """Names that were found to have no listener."""
        self.known = LookupScope(catalogue) if catalogue is not None else None

    def sight(self) -> LookupScope | None:
        """Return the scope of lookups."""
        return self.known

    def found_none(self, name: str) -> None:
        """Note a name without a listener."""
        self.none.append(name)


class Asked:
    """A DNS server in front of a source."""

    def __init__(self, source: Source, zone: str = "gns", ttl: int = 0, addresses_max: int = 0) -> None:
        self.server = DnsServer(Zone(source, zone, NAMESERVER, ttl, addresses_max), Clock())

    def raw(self, octets: bytes, over_tcp: bool = False) -> bytes | None:
        """The answer's octets."""
        return self.server.answered(octets, over_tcp)

    def ask(self, name: str, kind: str = "A", over_tcp: bool = False, **more: Any) -> dns.message.Message:
        """The answer, which must be one to just this question."""
        query = dns.message.make_query(name, kind, **more)
        octets = self.raw(query.to_wire(), over_tcp)
        assert octets is not None
        answer = dns.message.from_wire(octets, **STRICT)
        assert query.is_response(answer)
        assert answer.question == query.question and str(answer.question[0].name) == str(query.question[0].name)
        return answer

    def records(self, name: str, kind: str = "A", **more: Any) -> list[str]:
        """The data of the records that answer, as text, in their order."""
        answer = self.ask(name, kind, **more)
        assert answer.rcode() == 0, answer
        return [str(record) for rrset in answer.answer for record in rrset]


def world(policy: Policy | None = None, backup: str = "spare.help") -> World:
    """`store` with a backup; `a.store` with two listeners and one of IPv6, `b.store` with one."""
    made = store()
    made.ask(Put(Category("store", backup, policy or Policy())))
    made.up("a.store", "192.0.2.1:2028", metadata={"rack": "b7"}, weight=2)
    made.up("a.store", "192.0.2.2:2028")
    made.up("a.store", "[2001:db8::1]:2029")
    made.up("b.store", "192.0.2.9:80")
    made.up("spare.help", "192.0.2.77:99")
    return made
