"""Resolvers in front of a service with many listeners: what does not fit into an answer does not cost the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dns.reversename
import pytest

from compass.gateway.dns.server import DnsServer
from compass.gateway.dns.zone import Zone
from tests.e2e.deployment import free_port, new_address
from tests.e2e.resolvers import Resolver, dnsmasq, needs_dnsmasq, needs_unbound, unbound
from tests.support.dns_world import Source, world
from tests.support.reactor_thread import ReactorThread

COUNT = 1_800
"""Listeners of a.store: more than fit into an answer over TCP."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Resolver]:
    """The daemon's DNS server at real ports, in front of a catalogue."""
    made = world()
    for number in range(COUNT):
        made.up("a.store", f"10.0.{number // 250}.{number % 250 + 1}:80")
    thread = ReactorThread()
    address = new_address()
    port = free_port(address)
    server = DnsServer(Zone(Source(made.catalogue), "gns", "web1.example"), thread.reactor)
    thread.call(lambda: thread.reactor.listenTCP(port, server.factory(), interface=address) and None)
    thread.call(lambda: thread.reactor.listenUDP(port, server.datagrams(), interface=address) and None)
    yield Resolver(address, port)
    thread.stop()


def another() -> Resolver:
    address = new_address()
    return Resolver(address, free_port(address))


@needs_unbound
def test_unbound_passes_on_as_many_as_fit(upstream: Resolver, tmp_path: Path) -> None:
    """An answer over TCP with the flag TC was SERVFAIL there. Addresses have names through it, too."""
    through = another()
    program = unbound(tmp_path, through, upstream, "2.0.192.in-addr.arpa")
    try:
        for kind, least in (("SRV", 1_000), ("TXT", 1_000), ("A", COUNT)):
            name = "_a._tcp.store.gns" if kind == "SRV" else "a.store.gns"
            assert len(through.addresses(name, kind)) >= least, kind
        pointer = str(dns.reversename.from_address("192.0.2.9"))
        assert through.addresses(pointer, "PTR") == ["192-0-2-9.b.store.gns."]
    finally:
        program.clear_away()


@needs_dnsmasq
def test_dnsmasq_passes_on_as_many_as_fit(upstream: Resolver, tmp_path: Path) -> None:
    """Such an answer was empty there."""
    through = another()
    program = dnsmasq(tmp_path, through, upstream)
    try:
        for kind in ("SRV", "TXT", "A"):
            assert len(through.addresses("a.store.gns", kind)) >= 1_000, kind
    finally:
        program.clear_away()
