"""The server's HTTPS API on a real server: real TLS, real clients (httpx and curl), and the same rules as OpenGNSP."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from compass.admin.shell.connection import IdentityFiles
from compass.gateway.http.request import BODY_MAX
from compass.gateway.server_api.operations import ASKED
from compass.gateway.server_api.routes import TOPOLOGY_MAX
from compass.model.replies import Done, LogEntries, Refusal
from compass.model.requests import Put, ReadLog
from compass.model.rows import Category, Host
from compass.pki.authority import create_authority
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, new_address
from tests.e2e.processes import eventually

SECONDS = 30.0


def client(
    deployment: Deployment, identity: IdentityFiles | None = None, token: str = "", origin: str = "127.0.0.1"
) -> httpx.Client:
    """A client with a certificate, with a token, or with neither."""
    context = ssl.create_default_context(cafile=str(deployment.directory / "authority.crt"))
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    transport = httpx.HTTPTransport(verify=context, local_address=origin)
    return httpx.Client(base_url=deployment.https, headers=headers, transport=transport, timeout=SECONDS)


def token(deployment: Deployment, name: str, role: str = "viewer") -> str:
    """A token as an administrator makes it."""
    return deployment.opengnsadmin("token", "add", name, "--role", role).split()[-1]


def test_a_stranger_learns_that_the_server_lives_and_nothing_else(deployment: Deployment) -> None:
    """Health and the document are open; whatever else is asked needs a certificate or a token."""
    with client(deployment) as stranger:
        assert stranger.get("/healthz").json() == {"status": "running", "store": "available"}
        assert stranger.get("/readyz").json() == {"status": "ready", "store": "available"}
        assert stranger.get("/openapi.json").json()["openapi"] == "3.1.0"
        for path in ("/v1/status", "/v1/listeners", "/v1/events", "/v1/prometheus/openuss"):
            refused = stranger.get(path)
            assert refused.status_code == 401 and refused.headers["WWW-Authenticate"].startswith("Bearer")
            assert "Authorization: Bearer TOKEN" in refused.json()["message"]
        assert stranger.post("/v1/put", json={"row": {"row": "category", "name": "x"}}).status_code == 401
        assert stranger.get("/nothing").status_code == 404
        assert stranger.request("BREW", "/v1/status").status_code == 405


def test_what_administrators_do_over_opengnsp_they_do_here(deployment: Deployment) -> None:
    """The same messages with the same answers, by certificate and by token, each in the log under its name."""
    with (
        client(deployment, deployment.admin) as alice,
        client(deployment, token=token(deployment, "ci", "admin")) as ci,
    ):
        assert alice.get("/v1/status").json()["server"] == "gns1.example.net"
        done = alice.post("/v1/put", json={"row": {"row": "category", "name": "Extra"}, "create": True})
        assert msgspec.json.decode(done.content, type=Done).changes[0].row == Category("extra")
        rows = ci.get("/v1/categories", params={"name": "extra"}).json()
        assert rows["total"] == 1 and rows["rows"][0]["name"] == "extra"
        assert ci.post("/v1/remove", json={"kind": "category", "name": "extra"}).status_code == 200
        entries = ci.get("/v1/logs/administration", params={"last": 2}).json()["entries"]
        assert [(entry["operation"], entry["principal"]) for entry in entries] == [
            ("put", "alice"),
            ("remove", "ci.gns-admin"),
        ]


REFUSED: tuple[tuple[str, dict[str, Any], int, str], ...] = (
    ("put", {"row": {"row": "category", "name": "openuss"}, "create": True}, 409, "exists"),
    ("put", {"row": {"row": "category", "name": "a b"}, "create": True}, 400, "bad-name"),
    ("put", {"row": {"row": "service", "id": "a.nowhere"}, "create": True}, 404, "unknown-category"),
    ("remove", {"kind": "category", "name": "openuss"}, 409, "in-use"),
    ("purge", {"age_seconds": 1}, 400, "bad-value"),
    ("register", {"service": "a.no", "credential": "", "address": "192.0.2.1", "port": 1, "epoch": 1}, 404, "unknown"),
    ("apply", {"rows": [{"row": "dependency", "category": "web", "on": "no"}]}, 422, "invalid-topology"),
)


@pytest.mark.parametrize(("message", "fields", "status", "code"), REFUSED)
def test_refusals_are_those_of_opengnsp(
    deployment: Deployment, message: str, fields: dict[str, Any], status: int, code: str
) -> None:
    """P11: the same request is refused in the same words, whichever way it came."""
    kind: Any = next(one.asks for one in ASKED if one.path == f"/v1/{message}")
    over_opengnsp = deployment.ask(msgspec.convert(fields, kind), Refusal)
    with client(deployment, deployment.admin) as alice:
        answer = alice.post(f"/v1/{message}", json=fields)
    assert answer.status_code == status and over_opengnsp.code.startswith(code)
    assert msgspec.json.decode(answer.content, type=Refusal) == over_opengnsp


def test_a_viewer_looks_and_changes_nothing(deployment: Deployment) -> None:
    """The refusal names who asked and the role that is missing, and the security log has it."""
    with client(deployment, token=token(deployment, "grafana")) as viewer:
        for path in ("/v1/status", "/v1/lag", "/v1/hosts", "/v1/impact?name=openuss", "/v1/logs/security"):
            assert viewer.get(path).status_code == 200, path
        refused = viewer.post("/v1/issue-credential", json={"service": "deploy.gns-admin"})
        assert refused.status_code == 403 and "needs the role admin" in refused.json()["message"]
    last = deployment.ask(ReadLog("security", last=1), LogEntries).entries[0]
    assert getattr(last, "principal", "") == "grafana.gns-viewer"


def test_certificates_open_what_they_open_elsewhere(deployment: Deployment) -> None:
    """A host's looks up and registers with a credential; a server's opens nothing; a stranger's ends the handshake."""
    with client(deployment, deployment.certify("host", "web7.example.net")) as host:
        assert host.get("/v1/dependencies/portal.web").json()["service"] == "portal.web"
        fields = {"service": "northeast.openuss", "address": "192.0.2.7", "port": 2028, "epoch": 1}
        assert host.post("/v1/register", json={**fields, "credential": "wrong"}).status_code == 403
        credential = deployment.token("northeast.openuss")
        assert host.post("/v1/register", json={**fields, "credential": credential}).json()["state"] == "up"
        assert host.get("/v1/listeners").status_code == 403
        deployment.ask(Put(Host("web7.example.net", barred=True), create=True), Done)
        barred = host.get("/v1/dependencies/portal.web")
        assert barred.status_code == 403 and "barred" in barred.json()["message"]
    with client(deployment, deployment.certify("server", "gns9.example.net")) as server:
        refused = server.get("/v1/status")
        assert refused.status_code == 403 and "has the role server" in refused.json()["message"]
    mallory = deployment.certify("admin", "mallory", authority=create_authority("strangers", datetime.now(UTC)))
    with client(deployment, mallory) as stranger, pytest.raises(httpx.TransportError):
        stranger.get("/healthz")


def test_wrong_tokens_are_logged_up_to_a_limit(deployment: Deployment) -> None:
    """P10: beyond a number of them in a minute from one address none is logged; a right one is right at once."""
    good = token(deployment, "patient")
    with client(deployment, token="guess", origin=new_address()) as guesser:
        for _ in range(FAILURES_PER_MINUTE_MAX):
            refused = guesser.get("/v1/status")
            assert refused.status_code == 401 and refused.json()["code"] == "bad-credential"
        refused = guesser.get("/v1/status")
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
        assert guesser.get("/v1/status", headers={"Authorization": f"Bearer {good}"}).status_code == 200
        assert guesser.get("/healthz").status_code == 200
    with client(deployment, token=good) as patient:
        assert patient.get("/v1/status").status_code == 200
        assert patient.get("/v1/status", headers={"Authorization": "Basic YTpi"}).status_code == 401
    entries = deployment.ask(ReadLog("security", last=200), LogEntries).entries
    assert sum(getattr(entry, "operation", "") == "authenticate" for entry in entries) == FAILURES_PER_MINUTE_MAX


def answer_to_head(deployment: Deployment, headers: str, identity: IdentityFiles | None = None) -> bytes:
    """Return the answer to a request for /v1/apply whose body of 4 MiB never comes."""
    context = ssl.create_default_context(cafile=str(deployment.directory / "authority.crt"))
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    with (
        socket.create_connection((deployment.address, deployment.https_port), SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=deployment.address) as session,
    ):
        head = f"POST /v1/apply HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
        session.sendall(f"{head}Content-Length: {TOPOLOGY_MAX}\r\n\r\n".encode())
        session.settimeout(1.0)
        try:
            return session.recv(65536)
        except TimeoutError:
            return b""


def test_the_right_is_checked_before_a_long_body(deployment: Deployment) -> None:
    """W3: a viewer's token and a host's certificate are refused by their right, in the log, before a body comes; an
    administrator's body is awaited. A short body is not parsed either."""
    viewer, admin = token(deployment, "reader"), token(deployment, "writer", "admin")
    host = deployment.certify("host", "web8.example.net")
    for headers, identity, name in (
        (f"Authorization: Bearer {viewer}\r\n", None, "reader.gns-viewer"),
        ("", host, "web8.example.net"),
    ):
        answer = answer_to_head(deployment, headers, identity)
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n") and b"may not apply" in answer
        last = deployment.ask(ReadLog("security", last=1), LogEntries).entries[0]
        assert (getattr(last, "operation", ""), getattr(last, "principal", "")) == ("apply", name)
    assert answer_to_head(deployment, f"Authorization: Bearer {admin}\r\n") == b""
    assert answer_to_head(deployment, "Authorization: Bearer guess\r\n").startswith(b"HTTP/1.1 401")
    with client(deployment, token=viewer) as reader:
        assert reader.post("/v1/apply", content="no JSON", headers={"Content-Type": "text/plain"}).status_code == 403


def test_a_removed_token_is_refused_at_once(deployment: Deployment) -> None:
    """A removed token is refused by every server, in the moment that its removal is committed."""
    with client(deployment, token=token(deployment, "leaver")) as leaver:
        assert leaver.get("/v1/status").status_code == 200
        deployment.opengnsadmin("token", "remove", "leaver")
        assert leaver.get("/v1/status").status_code == 401


def test_no_token_is_logged(deployment: Deployment) -> None:
    """Neither a right one nor a wrong one, wherever it was put; not in the security log either."""
    good = token(deployment, "discreet")
    with client(deployment, token=good) as discreet:
        assert discreet.get("/v1/status").status_code == 200
        assert discreet.get("/v1/status", params={"token": good}).status_code == 400
        assert discreet.get("/v1/status", headers={"Authorization": f"Bearer x{good}"}).status_code == 401
    entries = deployment.ask(ReadLog("security", last=5), LogEntries).entries
    assert good not in repr(entries) and good not in deployment.server.log.read_text()


def test_the_longest_bodies(deployment: Deployment) -> None:
    """A stranger gets 64 KiB, who says who he is a topology; one octet more is refused."""
    ci = token(deployment, "bulk", "admin")
    for headers, limit, status in (({}, BODY_MAX, 401), ({"Authorization": f"Bearer {ci}"}, TOPOLOGY_MAX, 200)):
        for size, expected in ((limit, status), (limit + 1, 413)):
            body = b'{"rows": [], "dry_run": true}'
            content = body + b" " * (size - len(body))
            with client(deployment) as sender:
                answer = sender.post(
                    "/v1/apply", content=content, headers={"Content-Type": "application/json", **headers}
                )
            assert answer.status_code == expected


def test_pages_of_other_sites_are_kept_out(deployment: Deployment) -> None:
    """A browser that has a certificate says where its page came from; only pages of this very port may ask."""
    with client(deployment, deployment.admin) as browser:
        assert browser.get("/v1/status", headers={"Origin": "https://evil.example"}).status_code == 403
        assert browser.get("/v1/status", headers={"Origin": "null"}).status_code == 403
        assert browser.get("/v1/status", headers={"Origin": deployment.https}).status_code == 200
        sent = {"Content-Type": "text/plain"}
        assert browser.post("/v1/purge", content=b'{"age_seconds": 3600}', headers=sent).status_code == 415


def test_prometheus_finds_its_targets(deployment: Deployment) -> None:
    """The shape of http_sd_configs; an unknown category takes nothing away."""
    with client(deployment, token=token(deployment, "prometheus")) as prometheus:
        assert prometheus.get("/v1/prometheus/rescue").json() == []
        assert prometheus.get("/v1/prometheus/nothing").status_code == 404
        credential = deployment.token("emergency.rescue")
        fields = {"service": "emergency.rescue", "address": "192.0.2.9", "port": 2028, "epoch": 1}
        with client(deployment, deployment.admin) as alice:
            assert alice.post("/v1/register", json={**fields, "credential": credential}).status_code == 200
        [group] = prometheus.get("/v1/prometheus/rescue").json()
        assert group["targets"] == ["192.0.2.9:2028"]
        assert group["labels"]["__meta_opengns_service"] == "emergency.rescue"


@contextmanager
def following(follower: httpx.Client, **more: Any) -> Iterator[Iterator[dict[str, str]]]:
    """The events of /v1/events."""

    def events(response: httpx.Response) -> Iterator[dict[str, str]]:
        event: dict[str, str] = {}
        for line in response.iter_lines():
            if line.startswith(":"):
                continue
            if not line and event:
                yield event
                event = {}
            elif line:
                name, _, value = line.partition(": ")
                event[name] = value

    with follower.stream("GET", "/v1/events", **more) as response:
        assert response.status_code == 200 and response.headers["Content-Type"] == "text/event-stream"
        yield events(response)


def test_every_change_is_told_and_resumed_across_a_restart(deploy: Deploy) -> None:
    """P3: after a restart of the server, with a new certificate, a follower goes on after its last id; nothing is
    missing or sent twice."""
    deployment = deploy()
    deployment.start()
    viewer = token(deployment, "console")
    begun = deployment.revision
    with client(deployment, token=viewer) as console:
        with following(console) as events:
            position = next(events)
            assert (position["event"], position["id"]) == ("position", str(begun))
            deployment.ask(Put(Category("one"), create=True), Done)
            told = next(events)
            assert (told["event"], told["id"]) == ("change", str(begun + 1))
            assert json.loads(told["data"])["row"]["name"] == "one"
        deployment.ask(Put(Category("two"), create=True), Done)
        before = ssl.get_server_certificate((deployment.address, deployment.https_port))
        deployment.server.stop()
        for old in deployment.directory.glob("gns1.example.net.*"):
            old.unlink()
        deployment.certify("server", "gns1.example.net", deployment.address)
        deployment.server.start()
        deployment.serves()
        eventually(lambda: console.get("/readyz").status_code == 200, "the server is ready")
        assert ssl.get_server_certificate((deployment.address, deployment.https_port)) != before
        with following(console, headers={"Last-Event-ID": told["id"]}) as events:
            position = next(events)
            assert json.loads(position["data"])["complete"] is True
            assert json.loads(next(events)["data"])["row"]["name"] == "two"
        for since in (0, begun + 1000):
            with following(console, params={"since": since}) as events:
                assert json.loads(next(events)["data"])["complete"] is (since == 0)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (Debian: curl)")
def test_curl(deployment: Deployment) -> None:
    """The lines of docs/reference/http.md, with the certificate of an administrator and with a token."""
    at = deployment.directory
    trusting = ["curl", "--silent", "--show-error", "--max-time", "30", "--cacert", str(at / "authority.crt")]
    certificate = ["--cert", str(deployment.admin.certificate), "--key", str(deployment.admin.key)]
    bearer = ["--oauth2-bearer", token(deployment, "curl")]
    for proof in (certificate, bearer):
        command = [*trusting, *proof, f"{deployment.https}/v1/services?within=web"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert [row["id"] for row in json.loads(said.stdout)["rows"]] == ["forum.web", "portal.web"], said.stderr
