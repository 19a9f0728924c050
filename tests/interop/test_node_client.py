"""A client in another language, written from `protocols/` alone, does its round with a server over TLS."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from compass.admin.shell.connection import AdminSession, IdentityFiles, Server
from compass.model.replies import CredentialIssued, Done, Lags, Registered
from compass.model.requests import Apply, IssueCredential, Lag, Register
from compass.model.rows import Category, Dependency, Service
from compass.pki.authority import Role, create_authority, issue, write_credentials
from tests.interop.administrator import administrator_of_new_server

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("client.mjs")
LINES_MAX = 150
NODE = shutil.which("node")
TIMEOUT_SECONDS = 20.0

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


class World(NamedTuple):
    """A running `opengnssd` with a topology, a credential, and an administrator."""

    port: int
    files: dict[str, Path]
    credential: str
    administrator: AdminSession

    def register_another(self) -> int:
        """Register a listener of the same service as another peer. Returns the revision."""
        registered = self.administrator.ask(Register("chinaserver.openuss", "", "192.0.2.17", 2028, 7))
        assert isinstance(registered, Registered)
        return registered.revision

    def acknowledged(self) -> int:
        """The last revision that the server knows the client to hold."""
        lags = self.administrator.ask(Lag())
        assert isinstance(lags, Lags)
        (lag,) = lags.hosts
        return lag.acknowledged


TOPOLOGY = (
    Category("web"),
    Category("openuss"),
    Service("portal.web"),
    Service("chinaserver.openuss"),
    Dependency("web", "openuss"),
)
CONFIGURATION = """
[server]
store = "sqlite:///{directory}/store.sqlite3"
name = "gns1.example"
listen = ["127.0.0.1:{port}"]

[tls]
certificate = "{directory}/server.crt"
key = "{directory}/server.key"
authority = "{directory}/authority.crt"
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The seed's own world in small, served by a real daemon on a real file."""
    files = certificates(tmp_path)
    port = free_port()
    configuration = tmp_path / "opengnssd.toml"
    configuration.write_text(CONFIGURATION.format(directory=tmp_path, port=port))
    run = "from compass.daemons.main import server; server()"
    daemon = subprocess.Popen([sys.executable, "-c", run, "--config", str(configuration)], cwd=ROOT)
    try:
        identity = IdentityFiles(files["admin.crt"], files["admin.key"], files["authority.crt"])
        with administrator_of_new_server(Server("127.0.0.1", port), identity) as administrator:
            assert isinstance(administrator.ask(Apply(TOPOLOGY)), Done)
            issued = administrator.ask(IssueCredential("chinaserver.openuss"))
            assert isinstance(issued, CredentialIssued)
            yield World(port, files, issued.token, administrator)
    finally:
        daemon.terminate()
        daemon.wait(TIMEOUT_SECONDS)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def certificates(directory: Path) -> dict[str, Path]:
    """An authority, a server, a host and an administrator, in PEM files named after what is in them."""
    now = datetime.now(UTC)
    authority = create_authority("test-authority", now)
    made = {"authority": authority}
    holders: list[tuple[Role, str, list[str]]] = [
        ("server", "gns1.example", ["127.0.0.1"]),
        ("host", "web1.example", []),
        ("admin", "alice", []),
    ]
    made |= {role: issue(authority, role, name, names, now) for role, name, names in holders}
    files: dict[str, Path] = {}
    for stem, credentials in made.items():
        written = write_credentials(directory, stem, credentials)
        files |= {f"{stem}.crt": written.certificate, f"{stem}.key": written.key}
    return files


def started(world: World, credential: str) -> subprocess.Popen[str]:
    """The client, with its steps on standard output."""
    assert NODE is not None
    arguments = {
        "server": f"127.0.0.1:{world.port}",
        "ca": world.files["authority.crt"],
        "cert": world.files["host.crt"],
        "key": world.files["host.key"],
        "service": "chinaserver.openuss",
        "credential": credential,
        "watch": "portal.web",
        "address": "127.0.0.1",
        "port": 2029,
    }
    command = [NODE, str(CLIENT), *(str(part) for name, value in arguments.items() for part in (f"--{name}", value))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def next_step(client: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of the client, which must be there."""
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        _, errors = client.communicate(timeout=TIMEOUT_SECONDS)
        pytest.fail(f"the client ended: {errors}")
    step: dict[str, Any] = json.loads(line)
    return step


def test_a_client_in_another_language_registers_pulls_and_is_told(world: World) -> None:
    """Watch, register, pull, a notice of another peer's registration, acknowledged, deregister."""
    with started(world, world.credential) as client:
        try:
            welcome, watching = next_step(client), next_step(client)
            assert (welcome["step"], welcome["version"], welcome["tls"]) == ("welcome", 1, "TLSv1.3")
            assert set(watching["topics"]) == {"web", "openuss", "chinaserver.openuss"}
            registered, pulled = next_step(client), next_step(client)
            assert (registered["step"], registered["state"]) == ("registered", "up")
            (category,) = pulled["categories"]
            assert category["category"] == "openuss"
            ((listener,),) = [service["listeners"] for service in category["services"]]
            assert (listener["address"], listener["port"], listener["state"]) == ("127.0.0.1", 2029, "up")
            assert listener["metadata"] == {"by": "client.mjs"}
            revision = world.register_another()
            notice, acknowledged = next_step(client), next_step(client)
            assert (notice["step"], notice["revision"], notice["operation"]) == ("notice", revision, "register")
            assert (notice["row"]["address"], notice["row"]["epoch"]) == ("192.0.2.17", 7)
            assert acknowledged == {"step": "acknowledged", "revision": revision}
            deregistered = next_step(client)
            assert (deregistered["step"], deregistered["state"]) == ("deregistered", "offline")
            assert client.wait(TIMEOUT_SECONDS) == 0
        finally:
            client.kill()
    assert world.acknowledged() >= revision


def test_a_client_in_another_language_is_refused_a_wrong_credential(world: World) -> None:
    """The client ends with status 1 and prints what the server said."""
    with started(world, "wrong") as client:
        _, errors = client.communicate(timeout=TIMEOUT_SECONDS)
        assert client.returncode == 1
        assert "bad-credential: register chinaserver.openuss" in errors


def test_the_client_in_another_language_is_short() -> None:
    """OpenGNSP is small enough for a client of under 150 lines, MessagePack included."""
    assert len(CLIENT.read_text().splitlines()) < LINES_MAX
