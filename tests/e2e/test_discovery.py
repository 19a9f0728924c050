"""Ways to servers, on real processes: dead networks, DNS, multicast, and servers that send their hosts elsewhere."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.names import dns

from compass.model.host_api import KnownServer
from compass.wire import limits
from compass.wire.announcement import Announcement, encode
from compass.wire.events import RequestReceived, SessionOpened
from compass.wire.server_connection import ServerConnection
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host, free_port, new_address
from tests.e2e.processes import eventually
from tests.e2e.zone import SERVICE, Zone
from tests.support.reactor_thread import ReactorThread

NAME = "gns1.example.net"
SERVED = "chinaserver.openuss"
GROUP = "239.255.48.63"


def known(host: Host) -> dict[str, KnownServer]:
    """The ways that a host knows, by where they lead."""
    status = host.status()
    return {server.endpoint: server for server in status.servers} if status else {}


def through(host: Host, endpoint: str) -> None:
    """Wait until the host's session is on that way."""
    eventually(lambda: endpoint in known(host) and known(host)[endpoint].state == "open", f"{host.name} by {endpoint}")


def entry(*endpoints: str) -> str:
    """Start a server with several addresses."""
    return f'[{{ name = "{NAME}", addresses = {json.dumps(endpoints)} }}]'


@contextlib.contextmanager
def silent(address: str) -> Iterator[str]:
    """A socket that listens and never accepts: the kernel accepts the connection, no program greets."""
    with socket.create_server((address, 0)) as listening:
        yield f"{address}:{listening.getsockname()[1]}"


@contextlib.contextmanager
def dropping(address: str) -> Iterator[str]:
    """A place whose kernel answers nothing: the queue of its listening socket is full, so it drops what comes."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((address, 0))
        listening.listen(0)
        while True:
            filling = stack.enter_context(socket.socket())
            filling.settimeout(0.3)
            try:
                filling.connect(listening.getsockname())
            except TimeoutError:
                break
        yield f"{address}:{listening.getsockname()[1]}"


@pytest.mark.parametrize("dead", [silent, dropping])
def test_a_network_that_swallows_everything(deployment: Deployment, dead: Any) -> None:
    """The first address of a server is dead without a word: the host comes in by the second, and shows both."""
    good = f"{deployment.address}:{deployment.port}"
    with dead(new_address()) as bad:
        host = deployment.add_host(f"by-{dead.__name__}", servers=entry(bad, good))
        host.in_session()
        through(host, good)
        assert known(host)[bad].state != "open"
        shown = deployment.opengnsc(host, "status").stdout
        assert re.search(rf"{bad} +configured +", shown) and re.search(rf"{good} +configured +open", shown), shown
        host.daemon.stop()


def test_the_other_network_takes_over(deployment: Deployment) -> None:
    """A network fails under an open session: the host goes on by the other one, lookups never fail, nothing flaps."""
    relay = deployment.relay()
    first, second = f"{deployment.address}:{relay.port}", f"{deployment.address}:{deployment.port}"
    host = deployment.add_host("two-networks", servers=entry(first, second))
    host.in_session()
    through(host, first)
    host.api.dependencies("portal.web")
    own = deployment.register(host, SERVED)
    host.resolves(SERVED, "service", [own.port])
    before = deployment.revision
    relay.close()

    def moved() -> bool:
        assert host.resolved(SERVED) == ("service", [own.port])
        return second in known(host) and known(host)[second].state == "open"

    eventually(moved, "the host is there by its second network")
    host.in_session()
    assert known(host)[first].problem
    assert [update.operation for update in deployment.updates(before) if update.subject == SERVED] == []
    host.daemon.stop()


def test_servers_by_an_srv_name(deployment: Deployment) -> None:
    """A host that knows nothing but an SRV name waits for a DNS server that is late, then finds its name server."""
    resolver = new_address()
    port = free_port(resolver)
    host = deployment.add_host("by-dns", servers=f'["{SERVICE}"]', settings=f'resolver = "{resolver}:{port}"\n')
    host.answers()
    assert known(host) == {}
    zone = Zone(
        [
            dns.Record_SRV(0, 1, free_port(new_address()), b"gns0.example.net"),
            dns.Record_SRV(5, 1, deployment.port, NAME.encode()),
        ],
        {"gns0": [dns.Record_A(new_address())], "gns1": [dns.Record_A(deployment.address)]},
    )
    thread = ReactorThread()
    listening = zone.serve(thread, resolver, port)
    good = f"{deployment.address}:{deployment.port}"
    through(host, good)
    host.in_session()
    ways = known(host)
    assert [(way.name, way.source) for way in ways.values()] == [("gns0.example.net", "srv"), (NAME, "srv")]
    assert "refused" in next(iter(ways.values())).problem
    assert re.search(rf"{good} +srv +open", deployment.opengnsc(host, "status").stdout)
    # DNS may go away again: what is known is known.
    thread.call(listening.stopListening)
    thread.stop()
    host.daemon.stop()


def free_udp_port(address: str) -> int:
    """Return options for a multicast group of one test's own."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class Imposter(threading.Thread):
    """A machine with a genuine certificate of a *host*, which announces itself and behaves like a server."""

    def __init__(self, deployment: Deployment, name: str, group: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        files = deployment.certify("host", name)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.certificate, files.key)
        self._context.load_verify_locations(files.authority)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self.address = new_address()
        self._listening = socket.create_server((self.address, 0))
        self.port: int = self._listening.getsockname()[1]
        self._group = group
        self._name = name
        self.greeted = 0
        self.asked: list[object] = []
        self.start()

    def announce(self) -> None:
        """Send announcements as often as a sender must that wants to be believed."""
        with socket.socket(type=socket.SOCK_DGRAM) as sending:
            sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self.address))
            sending.sendto(encode(Announcement(self._name, self.port, (self.address,))), self._group)

    def run(self) -> None:
        while True:
            stream, _ = self._listening.accept()
            with contextlib.suppress(OSError), self._context.wrap_socket(stream, server_side=True) as secured:
                secured.settimeout(5)
                end = ServerConnection(time.monotonic(), limits.FRAME_MAX_FROM_HOST)
                while data := secured.recv(65536):
                    for event in end.receive(data, time.monotonic()):
                        if isinstance(event, SessionOpened):
                            self.greeted += 1
                            end.welcome("imposter", "store", 10**9, "", 1)
                        elif isinstance(event, RequestReceived):
                            self.asked.append(event.request)
                    secured.sendall(end.bytes_to_send())


def test_servers_that_announce_themselves(deploy: Deploy) -> None:
    """A host without a list of servers finds one by real multicast; who is no server is asked nothing."""
    port = free_udp_port("127.0.0.1")
    deployment = deploy(settings=f'announce = "{GROUP}:{port}"\n')
    imposter = Imposter(deployment, "web9.example.net", (GROUP, port))
    host = deployment.add_host("listening", servers="[]", settings=f'announcements = "{GROUP}:{port}"\n')
    host.answers()

    def tried() -> bool:
        imposter.announce()
        ways = known(host)
        return bool(ways) and "has the role host" in ways[f"{imposter.address}:{imposter.port}"].problem

    eventually(tried, "the imposter is dialled and found out")
    assert imposter.greeted and imposter.asked == []
    deployment.start()
    good = f"{deployment.address}:{deployment.port}"
    through(host, good)
    host.in_session()
    assert known(host)[good].source == "announced" and known(host)[good].name == NAME
    assert imposter.asked == []


def test_a_server_that_is_drained(deploy: Deploy) -> None:
    """`opengnsadmin server drain`: its hosts go where it sends them, nothing changes in the log, none comes back."""
    deployment = deploy()
    deployment.start()
    _, address, port = deployment.add_server("gns2.example.net")
    servers = f'["{deployment.address}:{deployment.port}", "{new_address()}:4863", "{address}:{port}"]'
    hosts = [deployment.add_host(f"h{number}", servers=servers) for number in range(2)]
    for host in hosts:
        host.in_session()
        through(host, f"{deployment.address}:{deployment.port}")
    deployment.register(hosts[0], SERVED)
    before = deployment.revision
    told = deployment.opengnsadmin("server", "drain", "--to", f"{address}:{port}", "--over", "1s")
    assert told.startswith("2 hosts will be sent away")
    for host in hosts:
        through(host, f"{address}:{port}")
        host.in_session()
        assert known(host)[f"{address}:{port}"].steered
        assert known(host)[f"{deployment.address}:{deployment.port}"].state == "asked-to-wait"
    assert "drained" in deployment.opengnsadmin("status")
    assert [update.operation for update in deployment.updates(before) if update.subject == SERVED] == []
    # A host that comes only now is turned away at the door.
    hosts[0].restart()
    hosts[0].in_session()
    through(hosts[0], f"{address}:{port}")
    assert deployment.opengnsadmin("server", "undrain") == "Hosts are admitted again.\n"
    assert "drained" not in deployment.opengnsadmin("status")
    hosts[1].restart()
    hosts[1].in_session()
    through(hosts[1], f"{deployment.address}:{deployment.port}")
