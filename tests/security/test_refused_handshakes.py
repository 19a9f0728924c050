"""Each refused handshake is in the security log with address, subject and reason, and is counted, on both ports."""

from __future__ import annotations

import contextlib
import socket
import ssl
from datetime import UTC, datetime, timedelta

from compass.model.replies import LogEntries
from compass.model.requests import ReadLog
from compass.model.rows import SecurityEntry
from compass.pki.authority import Credentials, create_authority, issue
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment
from tests.e2e.processes import eventually
from tests.e2e.scraping import samples_of
from tests.e2e.test_https import client, token
from tests.support.certificates import changed


def knock(deployment: Deployment, port: int, credentials: Credentials | None, name: str) -> None:
    """Begin TLS with a certificate, or without one, until the server ends it."""
    context = ssl.create_default_context(cafile=str(deployment.directory / "authority.crt"))
    if credentials is not None:
        paths = [deployment.directory / f"{name}.{kind}" for kind in ("crt", "key")]
        for path, content in zip(paths, (credentials.certificate_pem, credentials.key_pem), strict=True):
            path.write_bytes(content)
        context.load_cert_chain(paths[0], paths[1])
    place = (deployment.address, port)
    with (
        contextlib.suppress(OSError),
        socket.create_connection(place, 10) as plain,
        context.wrap_socket(plain, server_hostname=place[0]) as secured,
    ):
        secured.sendall(b"x")
        while secured.recv(1000):
            pass


def entries(deployment: Deployment) -> list[SecurityEntry]:
    """The entries of the security log about handshakes."""
    found = deployment.ask(ReadLog("security", last=1000), LogEntries).entries
    return [one for one in found if isinstance(one, SecurityEntry) and one.operation == "handshake"]


def test_a_refused_handshake_is_logged_and_counted(deploy: Deploy, authority: Credentials) -> None:
    """Expired, of another authority, none at all; and what is no TLS is none of them."""
    deployment = deploy()
    deployment.start("")
    now = datetime.now(UTC)
    expired = changed(authority, issue(authority, "host", "old.example.net", [], now), seconds=-60.0, begins=-3600.0)
    other = issue(create_authority("other", now - timedelta(days=1)), "host", "strange.example.net", [], now)
    knock(deployment, deployment.port, expired, "old")
    knock(deployment, deployment.https_port, other, "strange")
    knock(deployment, deployment.port, None, "none")
    plain_text = socket.create_connection((deployment.address, deployment.port), 10)
    with contextlib.suppress(ConnectionResetError), plain_text as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while plain.recv(100):
            pass
    eventually(lambda: len(entries(deployment)) == 3, "three refusals are in the log")
    first, second, third = entries(deployment)
    assert all(one.origin == "127.0.0.1" and one.principal == "" for one in (first, second, third))
    assert "CN=old.example.net" in first.subject and "expired on" in first.reason
    assert "CN=strange.example.net" in second.subject and "was issued by" in second.reason
    assert third.subject == "" and "did not return a certificate" in third.reason
    with client(deployment, token=token(deployment, "prometheus")) as scraper:
        samples = samples_of(scraper.get("/metrics").text)
    assert [one.value for one in samples if one.name == "opengns_server_handshakes_refused_total"] == [3.0]


def test_a_flood_of_them_has_a_bounded_number_of_entries(deploy: Deploy) -> None:
    """An address writes at most 60 entries in a minute; the counter has all of them (P10)."""
    deployment = deploy()
    deployment.start("")
    for _ in range(FAILURES_PER_MINUTE_MAX + 1):
        knock(deployment, deployment.port, None, "none")
    with client(deployment, token=token(deployment, "prometheus")) as scraper:

        def counted() -> list[float]:
            samples = samples_of(scraper.get("/metrics").text)
            return [one.value for one in samples if one.name == "opengns_server_handshakes_refused_total"]

        eventually(lambda: counted() == [FAILURES_PER_MINUTE_MAX + 1], "all are counted")
    eventually(lambda: len(entries(deployment)) == FAILURES_PER_MINUTE_MAX, "the log has as many as the limit")
