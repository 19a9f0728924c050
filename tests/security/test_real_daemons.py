"""Hostile octets at real daemons: what the fuzzers do in memory, once through real sockets, TLS included."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from random import Random

from compass.admin.shell.connection import IdentityFiles
from compass.model.replies import ServerStatus
from compass.model.requests import Status
from compass.server.sessions.rate_limit import CONNECTIONS_FAILED_PER_MINUTE_MAX
from compass.wire.frames import frame
from compass.wire.messages import Hello, encode
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host, new_address
from tests.e2e.processes import Program
from tests.fuzz.frames import Sender
from tests.fuzz.http_requests import Maker

REQUESTS = 500
FRAMES = 1_200
GROWTH_MAX = 32
"""MiB that a daemon may grow meanwhile, its first ones included."""


def resident(program: Program) -> int:
    """Resident memory of a running program in MiB."""
    pages = int(Path(f"/proc/{program.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def read_what_comes(connection: socket.socket, seconds: float) -> bytes:
    """Read until the other end is silent, or closes the connection."""
    found = b""
    connection.settimeout(seconds)
    with contextlib.suppress(OSError):
        while part := connection.recv(65536):
            found += part
            if len(found) > 2**20:
                break
            connection.settimeout(0.002)
    return found


def test_a_real_host_daemon_under_fuzzed_requests(deploy: Deploy) -> None:
    """Check that the daemon goes on answering, logs no failure and does not grow."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("storage")
    host.in_session()
    before = resident(host.daemon)
    maker = Maker(Random(11), {"portal.web": deployment.token("portal.web"), "store.disk": "wrong"})
    places: list[tuple[socket.AddressFamily, str | tuple[str, int]]] = [
        (socket.AF_INET, (host.address, host.port)),
        (socket.AF_UNIX, str(host.socket)),
    ]
    answers = 0
    for number in range(REQUESTS):
        family, place = places[number % 2]
        with socket.socket(family) as client:
            client.settimeout(5)
            client.connect(place)
            octets, _ = maker.request()
            with contextlib.suppress(ConnectionError):
                client.sendall(octets)
            said = read_what_comes(client, 0.02)
            answers += said.startswith(b"HTTP/1.")
            assert not said or said.startswith(b"HTTP/1."), (octets, said)
            assert b" 500 " not in said[:20], (octets, said)
    assert answers > REQUESTS / 2
    assert host.status() is not None
    assert resident(host.daemon) < before + GROWTH_MAX
    # What is logged is looked at by the fixture; Twisted's own word for an exception that was not handled:
    assert "Unhandled" not in host.daemon.log.read_text(errors="replace")


def test_real_servers_under_fuzzed_frames(deploy: Deploy) -> None:
    """Strangers, hosts and administrators with something else than OpenGNSP; all others are served meanwhile."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("storage", short=True)
    host.answers()
    before = resident(deployment.server)
    strangers(deployment)
    senders = {name: Sender(Random(5), "client") for name in ("host", "admin")}
    identities = {"host": deployment.certify("host", "rogue.example.net"), "admin": deployment.admin}
    for number in range(FRAMES // 40):
        name = ("host", "admin")[number % 2]
        with dialled(deployment, identities[name]) as session:
            with contextlib.suppress(OSError):
                session.sendall(frame(encode(Hello((1,)))) + senders[name].stream(40, list(range(40, 0, -1))))
            read_what_comes(session, 0.05)
    assert deployment.ask(Status(), ServerStatus).server
    assert resident(deployment.server) < before + GROWTH_MAX
    update_listener(host)
    assert host.status() is not None
    for program in (deployment.server, host.daemon):
        assert "Unhandled" not in program.log.read_text(errors="replace")


def from_elsewhere(deployment: Deployment) -> socket.socket:
    """Connect to the server from an address that no other test uses: what comes of it is not held against others."""
    return socket.create_connection((deployment.address, deployment.port), 5, source_address=(new_address(), 0))


def strangers(deployment: Deployment) -> None:
    """A peer without a certificate of this installation learns nothing."""
    random = Random(3)
    for _ in range(30):
        with from_elsewhere(deployment) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(random.choice((b"", b"\x16\x03\x01", b"GET / HTTP/1.0\r\n\r\n")) + random.randbytes(200))
            said = read_what_comes(client, 0.02)
            assert b"gns1" not in said and len(said) < 100
    with from_elsewhere(deployment) as client:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with contextlib.suppress(ssl.SSLError, ConnectionError), context.wrap_socket(client) as session:
            session.sendall(frame(encode(Hello((1,)))))
            assert read_what_comes(session, 0.5) == b""


@contextlib.contextmanager
def dialled(deployment: Deployment, identity: IdentityFiles) -> Iterator[ssl.SSLSocket]:
    """Open a TLS session as a peer that the server knows."""
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.load_cert_chain(identity.certificate, identity.key)
    with (
        from_elsewhere(deployment) as client,
        context.wrap_socket(client, server_hostname=deployment.address) as session,
    ):
        yield session


def test_connections_that_a_server_refuses_are_closed_and_no_failure(deploy: Deploy) -> None:
    """Connections without TLS are closed without a word and without a traceback; a peer that proves itself is not."""
    deployment = deploy()
    deployment.start()
    origin = new_address()
    for _ in range(CONNECTIONS_FAILED_PER_MINUTE_MAX + 40):
        with (
            socket.create_connection((deployment.address, deployment.port), 5, source_address=(origin, 0)) as client,
            contextlib.suppress(ConnectionError),
        ):
            client.sendall(b"no TLS")
            assert read_what_comes(client, 1.0) == b""
    assert deployment.ask(Status(), ServerStatus)
    text = deployment.server.log.read_text(errors="replace")
    assert "Unhandled" not in text and len(text) < 10_000


def update_listener(host: Host) -> None:
    """The port that servers dial takes no stranger either."""
    config = (host.directory / "opengnscd.toml").read_text()
    port = int(config.partition('update = "')[2].partition('"')[0].rpartition(":")[2])
    for octets in (b"", b"\xff" * 100, b"\x16\x03\x01\x02\x00" + b"\x01" * 600):
        # It may be closed before the connection is even made.
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection((host.address, port), 5) as client,
        ):
            with contextlib.suppress(ConnectionError):
                client.sendall(octets)
            assert len(read_what_comes(client, 0.05)) < 100


def test_a_web_page_cannot_use_the_api(deploy: Deploy) -> None:
    """A browser on the machine says where its page came from, or whom it believes to talk to."""
    deployment = deploy()
    host = deployment.add_host("storage")
    host.answers()
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Host": f"evil.example:{host.port}"}):
        connection = http.client.HTTPConnection(host.address, host.port, timeout=5)
        connection.request("GET", "/v1/status", headers=headers)
        assert connection.getresponse().status == 403
