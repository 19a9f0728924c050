"""Strangers at a real server's ports: they keep out no peer that can prove itself, and cost a bounded amount."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from compass.daemons.net.connection_table import HTTPS
from compass.model.replies import LogEntries, ServerStatus
from compass.model.requests import ReadLog, Status
from compass.server.sessions.rate_limit import CONNECTIONS_FAILED_PER_MINUTE_MAX, FAILURES_PER_MINUTE_MAX
from tests.daemons.net.test_proxy_protocol import header
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, new_address
from tests.security.test_real_daemons import resident

BEGUN = b"\x16\x03\x01\x02\x00\x01"
"""The beginning of a TLS handshake, the rest of which never comes."""
BROKEN = b"\x16\x03\x01\x00\x05hello"
"""A TLS record that is no handshake."""


@pytest.fixture
def served(deploy: Deploy) -> Deployment:
    """A server with an empty catalogue."""
    deployment = deploy()
    deployment.start("")
    return deployment


@contextlib.contextmanager
def crowd(place: tuple[str, int], sizes: list[int], octets: bytes) -> Iterator[None]:
    """Keep a number of connections from each of several addresses open."""
    with contextlib.ExitStack() as stack:
        for size in sizes:
            origin = new_address()
            for _ in range(size):
                one = stack.enter_context(socket.create_connection(place, 10, source_address=(origin, 0)))
                with contextlib.suppress(ConnectionError):
                    one.sendall(octets)
        yield


def ask(deployment: Deployment, path: str, token: str = "", origin: str = "", before: bytes = b"") -> bytes:
    """Return the whole answer over HTTPS; `before`: what a balancer sends first."""
    context = ssl.create_default_context(cafile=str(deployment.directory / "authority.crt"))
    source = (origin, 0) if origin else None
    with socket.create_connection((deployment.address, deployment.https_port), 10, source_address=source) as plain:
        plain.sendall(before)
        with context.wrap_socket(plain, server_hostname=deployment.address) as session:
            shown = f"Authorization: Bearer {token}\r\n" if token else ""
            session.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{shown}Connection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: session.recv(65536), b""))


def test_health_is_answered_while_strangers_hold_all_they_can(served: Deployment) -> None:
    """W1: more connections than the port has room for, each with the beginning of a handshake."""
    sizes = [HTTPS.unproven_of_origin + 10] * (HTTPS.unproven // HTTPS.unproven_of_origin + 1)
    with crowd((served.address, served.https_port), sizes, BEGUN):
        for _ in range(3):
            assert ask(served, "/healthz").startswith(b"HTTP/1.1 200")
    assert "Traceback" not in served.server.log.read_text()


def test_connections_that_wait_cost_next_to_nothing(served: Deployment) -> None:
    """W10: a connection whose peer sends nothing has no TLS objects; each had 46 kB, and now has less than 8."""
    before = resident(served.server)
    with crowd((served.address, served.port), [700, 700], b""):
        assert served.ask(Status(), ServerStatus).server
        assert resident(served.server) - before < 1_400 * 8 // 1024


def test_a_right_certificate_is_accepted_whatever_its_address_has_sent(served: Deployment) -> None:
    """W6: hundreds of failed handshakes, and then a session and a request at once, from the same address."""
    for port in (served.port, served.https_port):
        for _ in range(CONNECTIONS_FAILED_PER_MINUTE_MAX + 20):
            with socket.create_connection((served.address, port), 10, source_address=("127.0.0.1", 0)) as one:
                one.sendall(BROKEN)
    assert served.ask(Status(), ServerStatus).server
    assert ask(served, "/healthz").startswith(b"HTTP/1.1 200")
    assert served.server.log.read_text().count("no session with a peer") <= FAILURES_PER_MINUTE_MAX


def test_a_right_token_is_accepted_whatever_its_address_has_sent(served: Deployment) -> None:
    """W6: tokens are guessed from an address, and the right one of the same address is right at once."""
    good = served.opengnsadmin("token", "add", "patient", "--role", "viewer").split()[-1]
    for _ in range(FAILURES_PER_MINUTE_MAX + 2):
        refused = ask(served, "/v1/status", "guess")
    assert refused.startswith(b"HTTP/1.1 503") and b"this token is unknown" in refused
    assert ask(served, "/v1/status", good).startswith(b"HTTP/1.1 200")


def test_a_balancer_says_for_whom_it_connects(deploy: Deploy) -> None:
    """PROXY protocol: the security log has the client's address. A balancer's connection without the header ends; a
    header of any other peer is no TLS."""
    balancer = new_address()
    deployment = deploy(settings=f'balancers = ["{balancer}/32"]\n')
    deployment.start("")
    for client in ("192.0.2.7", "2001:db8::7"):
        assert ask(deployment, "/v1/status", "guess", balancer, header(client)).startswith(b"HTTP/1.1 401")
        last = deployment.ask(ReadLog("security", last=1), LogEntries).entries[0]
        assert getattr(last, "origin", "") == client
    assert ask(deployment, "/healthz", origin=balancer, before=header("192.0.2.7", command=0x20))
    for origin, before in ((balancer, b""), (new_address(), header("192.0.2.7"))):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            ask(deployment, "/healthz", origin=origin, before=before)
    assert deployment.server.log.read_text().count("without a PROXY header") == 1
