"""A DNS server for one zone, `example.net`, as twisted.names serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from twisted.names import common, dns, server
from twisted.names.authority import FileAuthority

from tests.support.reactor_thread import ReactorThread

SERVICE = "_opengns._tcp.example.net"


class Zone(FileAuthority):
    """SRV records of `SERVICE`, and records of names within the zone."""

    def __init__(self, service: Sequence[Any], hosts: Mapping[str, Sequence[Any]]) -> None:
        common.ResolverBase.__init__(self)
        start = dns.Record_SOA(mname=b"ns.example.net", rname=b"root.example.net", serial=1, minimum=60, ttl=60)
        records = {f"{name}.example.net".encode(): list(found) for name, found in hosts.items()}
        within: Any = self
        within.soa = (b"example.net", start)
        within.records = {**records, SERVICE.encode(): list(service), b"example.net": [start]}

    def serve(self, thread: ReactorThread, address: str, port: int = 0) -> Any:
        """Answer there, by UDP; the listening port."""
        factory = server.DNSServerFactory(authorities=[cast(Any, self)])
        return thread.call(thread.reactor.listenUDP, port, dns.DNSDatagramProtocol(factory), address)
