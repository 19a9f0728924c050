"""Expired means expired: no session outlives the certificate of its peer, and none is resumed, on both ports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import time
from datetime import UTC, datetime

import pytest

from compass.admin.shell.connection import ConnectionFailed, IdentityFiles
from compass.model.replies import ServerStatus
from compass.model.requests import Status
from compass.pki.authority import Credentials, Role, issue
from compass.wire.client_connection import ClientConnection
from compass.wire.events import SessionEnded
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment
from tests.e2e.processes import eventually
from tests.support.certificates import changed

SECONDS = 4.0
"""Life of a certificate here."""
REPLACED_SECONDS = 20.0
"""Life of a certificate that is replaced in time."""


def short(deployment: Deployment, authority: Credentials, role: Role, name: str) -> IdentityFiles:
    """Return the files of an identity whose certificate ends soon."""
    whole = issue(authority, role, name, [], datetime.now(UTC))
    made = changed(authority, whole, seconds=SECONDS)
    paths = [deployment.directory / f"short-{name}{suffix}" for suffix in (".crt", ".key")]
    for path, content in zip(paths, (made.certificate_pem, made.key_pem), strict=True):
        path.write_bytes(content)
    return IdentityFiles(paths[0], paths[1], deployment.directory / "authority.crt")


class Client:
    """A TLS connection whose session can be resumed."""

    def __init__(
        self, deployment: Deployment, context: ssl.SSLContext, port: int, session: ssl.SSLSession | None = None
    ) -> None:
        plain = socket.create_connection((deployment.address, port), 10)
        self.socket = context.wrap_socket(plain, server_hostname=deployment.address, session=session)
        self.opengnsp = ClientConnection(time.monotonic(), "test")

    def hello(self) -> bytes:
        """Greet over OpenGNSP. Returns the first octets of the answer; none if the connection has ended."""
        self.socket.sendall(self.opengnsp.bytes_to_send())
        return self.received()

    def health(self) -> bytes:
        """Ask who we are over HTTPS."""
        self.socket.sendall(b"GET /v1/who HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}") and (part := self.received()):
            answer += part
        return answer

    def received(self) -> bytes:
        """Return what arrives next; nothing at the end."""
        try:
            return self.socket.recv(65536)
        except (ConnectionError, ssl.SSLError):
            return b""


def context_of(identity: IdentityFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.load_cert_chain(identity.certificate, identity.key)
    return context


def test_sessions_end_with_the_certificate_and_are_not_resumed(deploy: Deploy, authority: Credentials) -> None:
    """Open sessions of both ports end when the certificate does, OpenGNSP with the reason; a ticket is
    good until then and not any longer."""
    deployment = deploy()
    deployment.start("")
    context = context_of(short(deployment, authority, "admin", "carol"))
    began = time.monotonic()
    opengnsp = Client(deployment, context, deployment.port)
    https = Client(deployment, context, deployment.https_port)
    assert opengnsp.hello() and b'"name":"carol"' in https.health()
    for port, client in ((deployment.port, opengnsp), (deployment.https_port, https)):
        again = Client(deployment, context, port, client.socket.session)
        assert again.socket.session_reused
        assert again.hello() if port == deployment.port else again.health()
    events = opengnsp.opengnsp.receive(opengnsp.received(), time.monotonic())
    assert SECONDS - 1.5 < time.monotonic() - began < SECONDS + 1.5
    ended = [event for event in events if isinstance(event, SessionEnded)]
    assert ended and "CN=carol,OU=admin' expired on" in ended[0].reason
    assert https.received() == b""
    time.sleep(max(0.0, began + SECONDS + 0.2 - time.monotonic()))
    for port, client in ((deployment.port, opengnsp), (deployment.https_port, https)):
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            late = Client(deployment, context, port, client.socket.session)
            assert not (late.hello() if port == deployment.port else late.health())


def test_an_event_stream_ends_with_the_certificate(deploy: Deploy, authority: Credentials) -> None:
    """A stream that never ends by itself is a session, too."""
    deployment = deploy()
    deployment.start("")
    client = Client(deployment, context_of(short(deployment, authority, "admin", "dave")), deployment.https_port)
    began = time.monotonic()
    client.socket.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while client.received():
        pass
    assert SECONDS - 1.5 < time.monotonic() - began < SECONDS + 1.5


def test_an_administrator_leaves_a_server_whose_certificate_has_expired(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that follows a log has one session for hours; it asks nothing more after the server's end."""
    deployment = deploy()
    deployment.start("")
    with deployment.link() as link:
        assert isinstance(link.ask(Status()), ServerStatus)
        monkeypatch.setattr("compass.admin.shell.connection.time.time", lambda: 4e9)
        with pytest.raises(ConnectionFailed, match="its certificate has expired") as problem:
            link.ask(Status())
    assert problem.value.kind == "untrusted"


def test_certificates_that_are_replaced_in_time_cost_no_flap(deploy: Deploy, authority: Credentials) -> None:
    """Daemons read new certificates at SIGHUP; the end of the old ones is then no event for any listener."""
    deployment = deploy()
    end = time.monotonic() + REPLACED_SECONDS
    names: tuple[tuple[Role, str], ...] = ("server", "gns1.example.net"), ("host", "storage.example.net")
    whole = issue(authority, "server", "gns1.example.net", [deployment.address], datetime.now(UTC))
    put(deployment, "gns1.example.net", changed(authority, whole, seconds=end - time.monotonic()))
    deployment.start()
    host = deployment.add_host("storage")
    host.in_session()
    deployment.register(host, "chinaserver.openuss")
    changes = changes_of_listeners(deployment)
    for role, name in names:
        put(deployment, name, issue(authority, role, name, [deployment.address], datetime.now(UTC)))
    for program in (deployment.server, host.daemon):
        os.kill(program.pid, signal.SIGHUP)
    eventually(lambda: host.daemon.log.read_text().count("session with server") > 1, "there is a new session")
    host.in_session()
    assert time.monotonic() < end, "this machine is too slow for the test"
    opened = host.daemon.log.read_text().count("session with server")
    time.sleep(max(0.0, end + 0.3 - time.monotonic()))
    assert host.daemon.log.read_text().count("session with server") == opened
    assert changes_of_listeners(deployment) == changes


def changes_of_listeners(deployment: Deployment) -> int:
    """Return the number of changes without the incidents about certificates that end soon."""
    return sum(entry.operation not in ("alert", "alert-over") for entry in deployment.updates())


def put(deployment: Deployment, name: str, credentials: Credentials) -> None:
    """Write the files of a daemon's identity."""
    for suffix, content in ((".key", credentials.key_pem), (".crt", credentials.certificate_pem)):
        (deployment.directory / (name + suffix)).write_bytes(content)
