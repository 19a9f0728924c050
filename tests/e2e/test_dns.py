"""DNS on a host: unmodified programs find what is there, directly and through the resolvers that people have."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import dns.flags
import dns.rcode
import pytest

from compass import client
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host, free_port, new_address
from tests.e2e.processes import PATIENCE_SECONDS, Program, environment, eventually
from tests.e2e.resolvers import Resolver, dnsmasq, needs_dig, needs_dnsmasq, needs_unbound, unbound

NAME = "chinaserver.openuss.gns"
GENEROUS_SECONDS = 5.0
"""Time limit for some hundredths of a second on an idle machine; the figure is printed."""


class Zone(Resolver):
    """A host's DNS, and the deployment around it."""

    def __init__(self, world: Deployment, host: Host) -> None:
        super().__init__(host.address, host.dns_port)
        self.world = world
        self.host = host
        self.programs: list[Program] = []

    def gives(self, *addresses: str) -> None:
        """Wait until the service has just these addresses."""
        eventually(lambda: sorted(self.addresses(NAME)) == sorted(addresses), f"{NAME} is {addresses}")


@pytest.fixture(scope="module")
def zone(deployment: Deployment) -> Iterator[Zone]:
    """A host whose programs only use DNS, and two hosts that serve."""
    user = deployment.add_host("user", dns=True, services=("portal.web",))
    deployment.add_hosts("one", "two")
    user.in_session()
    made = Zone(deployment, user)
    yield made
    for program in made.programs:
        program.clear_away()


@needs_dig
def test_dig_gets_what_it_asks_for(zone: Zone) -> None:
    """Addresses, services, texts; over UDP and TCP; and three answers for nothing."""
    one, two = zone.world.hosts["one"], zone.world.hosts["two"]
    first = zone.world.register(one, "chinaserver.openuss", weight=3)
    second = zone.world.register(two, "chinaserver.openuss")
    zone.gives(one.address, two.address)
    assert sorted(zone.dig(NAME, "A", "+short").split()) == sorted([one.address, two.address])
    assert sorted(zone.dig("openuss.gns", "A", "+short", "+tcp").split()) == sorted([one.address, two.address])
    services = zone.dig("_chinaserver._tcp.openuss.gns", "SRV", "+short").splitlines()
    assert sorted(services) == sorted(
        f"0 {weight} {o.port} {o.address.replace('.', '-')}.{NAME}." for weight, o in ((3, first), (1, second))
    )
    assert f'"listener={first.address}:{first.port}" "weight=3"' in zone.dig(NAME, "TXT", "+short")
    assert "status: NXDOMAIN" in zone.dig("nosuch.openuss.gns") and "status: NXDOMAIN" in zone.dig("nosuch.gns")
    empty = zone.dig("northwest.openuss.gns")
    assert "status: NOERROR" in empty and "ANSWER: 0" in empty and "AUTHORITY: 1" in empty and " aa" in empty
    assert "status: REFUSED" in zone.dig("example.org") and "WARNING: recursion requested" in zone.dig(NAME)
    assert "user.example.net." in zone.dig("gns", "NS", "+short")
    assert "Transfer failed" in zone.dig("gns", "AXFR")


def test_a_service_without_a_listener_answers_with_the_backups(zone: Zone) -> None:
    """The emergency service is known beforehand; when the service is back, so is its address."""
    world, one, two = zone.world, zone.world.hosts["one"], zone.world.hosts["two"]
    name = "northeast.openuss.gns"
    rescue = world.register(two, "emergency.rescue")
    eventually(lambda: zone.addresses(name) == [two.address], "the backup answers")
    assert f" {rescue.port} " in zone.addresses("_northeast._tcp.openuss.gns", "SRV")[0]
    world.register(one, "northeast.openuss")
    eventually(lambda: zone.addresses(name) == [one.address], "the service answers")


def test_every_kind_of_lookup_has_the_same_order(zone: Zone) -> None:
    """Policy, nearness and backup come from one implementation: DNS, HTTP, opengnsc and the library agree."""
    world, user, one, two = zone.world, zone.host, zone.world.hosts["one"], zone.world.hosts["two"]
    name = "northwest.openuss"
    library = client.Client("portal.web", f"unix:{user.socket}")

    def all_are(*addresses: str) -> None:
        """Ask through the daemon first: a program that asks it has what it has."""
        wanted = list(addresses)
        eventually(lambda: zone.addresses(f"{name}.gns") == wanted, f"DNS has {addresses}")
        records = [record.split()[-1].partition(".")[0] for record in by_rank(zone, f"{name}.gns")]
        assert [label.replace("-", ".") for label in records] == wanted
        assert [peer.address for peer in user.api.resolve(name).listeners] == wanted
        told = world.opengnsc(user, "resolve", name).stdout
        assert [line.split(":")[0] for line in told.split()] == wanted
        eventually(lambda: [peer.address for peer in library.resolve(name).listeners] == wanted, "the library too")

    before = world.listeners("emergency.rescue")
    rescue = next(iter(before.values())) if before else world.register(two, "emergency.rescue")
    all_are(rescue.address)
    world.opengnsadmin("category", "set", "openuss", "--pool", "priority")
    for weight, host in ((1, user), (9, one), (4, two)):
        world.register(host, name, weight=weight)
    all_are(one.address, two.address, user.address)
    world.opengnsadmin("category", "set", "openuss", "--locality", "host")
    all_are(user.address, one.address, two.address)
    world.opengnsadmin("category", "set", "openuss", "--locality", "none", "--pool", "weighted-random")
    library.close()


def by_rank(zone: Zone, name: str) -> list[str]:
    """SRV records in the order of their priorities."""
    return sorted(zone.addresses(name, "SRV"), key=lambda record: int(record.split()[0]))


def measured(zone: Zone, resolver: Resolver, what: str) -> float:
    """Kill a real service; how long the resolver still gave its address, in seconds."""
    world, one = zone.world, zone.world.hosts["one"]
    other = world.register(world.hosts["two"], "account.openuso")
    name = "account.openuso.gns"
    service = world.run(one, "account.openuso")
    eventually(lambda: sorted(resolver.addresses(name)) == sorted([one.address, other.address]), f"{what} has both")
    began = time.monotonic()
    service.signal(signal.SIGKILL)
    eventually(lambda: resolver.addresses(name) == [other.address], f"{what} has one")
    seconds = time.monotonic() - began
    print(f"{what}: right answers {1000 * seconds:.0f} ms after a kill")
    assert seconds < GENEROUS_SECONDS
    return seconds


def test_a_killed_listener_is_not_answered_any_more(zone: Zone) -> None:
    """The TTL is 0, and a change counts for the next lookup."""
    measured(zone, zone, "direct")


@needs_dnsmasq
def test_through_dnsmasq(zone: Zone) -> None:
    """dnsmasq forwards the zone, and keeps nothing beyond its time to live."""
    front = Resolver(new_address(), 0)
    front.port = free_port(front.address)
    zone.programs.append(dnsmasq(zone.world.directory, front, zone))
    measured(zone, front, "through dnsmasq")
    assert front.ask("nosuch.openuss.gns").rcode() == dns.rcode.NXDOMAIN
    assert (front.ask(NAME, "MX").rcode(), front.ask(NAME, "MX").answer) == (dns.rcode.NOERROR, [])


@needs_unbound
def test_through_unbound(zone: Zone) -> None:
    """unbound asks the daemon as the zone's own server, and answers SRV with the additional records."""
    front = Resolver(new_address(), 0)
    front.port = free_port(front.address)
    zone.programs.append(unbound(zone.world.directory, front, zone))
    measured(zone, front, "through unbound")
    assert front.ask("nosuch.openuss.gns").rcode() == dns.rcode.NXDOMAIN
    (target,) = {record.split()[-1] for record in front.addresses("_account._tcp.openuso.gns", "SRV")}
    assert front.addresses(target) == [zone.world.hosts["two"].address]


@needs_dnsmasq
@pytest.mark.skipif(
    not shutil.which("curl") or os.geteuid() != 0, reason="curl and root are needed: names are asked for at port 53"
)
def test_curl_finds_a_service_by_name(zone: Zone) -> None:
    """An unmodified program, the C library's resolver, dnsmasq, and this host's DNS."""
    world, one, two = zone.world, zone.world.hosts["one"], zone.world.hosts["two"]
    port = free_port(one.address)
    services = [world.run(host, "forum.web", port) for host in (one, two)]
    config = world.directory / "resolv.conf"
    front = Resolver(new_address(), 53)
    config.write_text(f"nameserver {front.address}\noptions timeout:2\n")
    space = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run([*space, f"mount --bind {config} /etc/resolv.conf"], capture_output=True).returncode:
        pytest.skip("this machine lets no process have mounts of its own")
    zone.programs.append(dnsmasq(world.directory, front, zone))
    # A category that depends on itself: its services find each other.
    world.opengnsadmin("dependency", "add", "web", "web")

    def reached() -> str:
        curl = f"mount --bind {config} /etc/resolv.conf; curl -sS -m 5 -w '%{{remote_ip}}' http://forum.web.gns:{port}/"
        return subprocess.run([*space, curl], capture_output=True, text=True, timeout=PATIENCE_SECONDS).stdout

    eventually(lambda: reached() in (one.address, two.address), "curl gets an answer")
    services[0].signal(signal.SIGKILL)
    eventually(lambda: zone.addresses("forum.web.gns") == [two.address], "the dead one is gone")
    assert [reached() for _ in range(3)] == [two.address] * 3


def test_queries_over_tcp_are_bounded(zone: Zone) -> None:
    """Many in one connection, in pieces; what is no query ends it; and so does an answer in place of a question."""
    question = bytes.fromhex("1234 0100 0001 0000 0000 0000 03 676e73 00 0006 0001")
    framed = struct.pack("!H", len(question)) + question
    with socket.create_connection((zone.address, zone.port), GENEROUS_SECONDS) as connection:
        connection.sendall(framed * 50 + framed[:7])
        connection.sendall(framed[7:])
        got = b""
        while got.count(b"\x12\x34\x85") < 51:
            got += connection.recv(65536)
        connection.sendall(b"\0\x0c" + b"\x12\x34\x80" + bytes(9))
        assert connection.recv(10) == b""
    for length in (b"\0\0", b"\0\x05"):
        with socket.create_connection((zone.address, zone.port), GENEROUS_SECONDS) as connection:
            connection.sendall(length + b"short"[: length[1]])
            assert connection.recv(10) == b""


def test_nothing_is_answered_before_a_view_is_loaded(deploy: Deploy) -> None:
    """P5, P7: without a server SERVFAIL, then what the disk has, then what the server says."""
    world = deploy()
    world.start()
    provider, user = world.add_hosts("provider")[0], world.add_host("user", dns=True, services=("portal.web",))
    user.in_session()
    zone = Zone(world, user)
    world.register(provider, "chinaserver.openuss")
    zone.gives(provider.address)
    user.saved()
    world.server.kill()
    user.restart()
    assert zone.addresses(NAME) == [provider.address]
    fresh = world.add_host("fresh", dns=True, services=("portal.web",))
    fresh.answers()
    answer = Resolver(fresh.address, fresh.dns_port).ask(NAME)
    assert answer.rcode() == dns.rcode.SERVFAIL and not answer.flags & dns.flags.AA


def test_a_server_answers_for_its_whole_catalogue(deploy: Deploy) -> None:
    """The same gateway, with [server.dns] in its configuration."""
    world = deploy()
    config = world.directory / "opengnssd.toml"
    port = free_port(world.address)
    config.write_text(
        config.read_text() + f'[server.dns]\nlisten = "{world.address}:{port}"\nzone = "all.test."\nttl = 5\n'
    )
    world.start()
    (provider,) = world.add_hosts("provider")
    world.register(provider, "portal.web")
    answer = Resolver(world.address, port).ask("portal.web.all.test")
    assert (str(answer.answer[0][0]), answer.answer[0].ttl) == (provider.address, 5)
    assert Resolver(world.address, port).ask("nosuch.all.test").rcode() == dns.rcode.NXDOMAIN


def test_the_doctor_asks_the_daemon_and_the_resolver_of_the_system(zone: Zone) -> None:
    """`opengnsc doctor`: the daemon answers for its zone, and the machine's resolver does not forward it here."""
    one = zone.world.hosts["one"]
    served = zone.world.register(one, "northwest.openuss")
    eventually(lambda: served.port in zone.host.resolved("northwest.openuss")[1], "the listener is known")
    command = [sys.executable, "-m", "compass.cli.main", "--api", f"unix:{zone.host.socket}", "doctor", "--json"]
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    checks = {check["name"]: check for check in json.loads(found.stdout)["checks"]}
    assert checks["dns"]["ok"] and checks["session"]["ok"] and checks["view"]["ok"] and checks["tls leaf"]["ok"]
    assert f"{zone.host.address}:{zone.host.dns_port} answers for the zone gns" in checks["dns"]["found"]
    assert not checks["forwarding"]["ok"] and "forward the zone gns" in checks["forwarding"]["next"]
    assert found.returncode == 1
