"""A client in another language, written from `protocols/` alone, does its round with a server over TLS."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from compass.admin.authority import Role, create_authority, issue, write_credentials
from compass.model.replies import CredentialIssued, Registered
from compass.model.requests import Apply, IssueCredential, Register
from compass.model.rows import Category, Dependency, Service
from tests.interop.little_server import LittleServer

CLIENT = Path(__file__).with_name("client.mjs")
LINES_MAX = 150
NODE = shutil.which("node")
TIMEOUT_SECONDS = 20.0

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


class Server(Protocol):
    """What the test needs of a server, whichever it is."""

    port: int
    acknowledged: list[int]


class World(NamedTuple):
    """A server with a topology, a credential, and somebody else who can register."""

    server: Server
    files: dict[str, Path]
    credential: str

    def register_another(self) -> int:
        """Somebody else registers a listener of the same service; its revision."""
        assert isinstance(self.server, LittleServer)
        registered = self.server.ask(Register("chinaserver.openuss", "", "192.0.2.17", 2028, 7))
        assert isinstance(registered, Registered)
        return registered.revision


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The seed's own world in small.

    To test the real server: start `opengnssd` on a free port here instead of LittleServer, apply the same topology
    and issue the credential with an admin certificate; let `register_another` be a second client, and read
    `acknowledged` from the reply to `lag`. Nothing below this fixture and `World` changes.
    """
    files = certificates(tmp_path)
    with LittleServer(files["authority"], files["server.crt"], files["server.key"]) as server:
        topology = (
            Category("web"),
            Category("openuss"),
            Service("portal.web"),
            Service("chinaserver.openuss"),
            Dependency("web", "openuss"),
        )
        server.ask(Apply(topology))
        issued = server.ask(IssueCredential("chinaserver.openuss"))
        assert isinstance(issued, CredentialIssued)
        yield World(server, files, issued.token)


def certificates(directory: Path) -> dict[str, Path]:
    """An authority, a server and a host, in PEM files."""
    now = datetime.now(UTC)
    authority = create_authority("test-authority", now)
    files = {"authority": write_credentials(directory, "authority", authority).certificate}
    holders: list[tuple[str, Role, str]] = [("server", "server", "localhost"), ("host", "host", "web1.example")]
    for stem, role, name in holders:
        names = ["127.0.0.1"] if role == "server" else []
        written = write_credentials(directory, stem, issue(authority, role, name, names, now))
        files |= {f"{stem}.crt": written.certificate, f"{stem}.key": written.key}
    return files


def started(world: World, credential: str) -> subprocess.Popen[str]:
    """The client, with its steps on standard output."""
    assert NODE is not None
    arguments = {
        "server": f"127.0.0.1:{world.server.port}",
        "ca": world.files["authority"],
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
    """Watch, register, pull, a notice of somebody else's registration, acknowledged, deregister."""
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
    assert revision in world.server.acknowledged


def test_a_client_in_another_language_is_refused_a_wrong_credential(world: World) -> None:
    """It ends with status 1 and says what the server said."""
    with started(world, "wrong") as client:
        _, errors = client.communicate(timeout=TIMEOUT_SECONDS)
        assert client.returncode == 1
        assert "bad-credential: register chinaserver.openuss" in errors


def test_the_client_in_another_language_is_short() -> None:
    """OpenGNSP is small enough for a client of under 150 lines, MessagePack included."""
    assert len(CLIENT.read_text().splitlines()) < LINES_MAX
