"""A real server for clients in other languages, and what happens to its catalogue while one of them watches."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from compass.admin.shell.connection import AdminSession
from compass.model.replies import Done, Lags, Registered
from compass.model.requests import Lag, Put, Register
from compass.model.rows import Category, Dependency, Policy, Service
from compass.pki.authority import Role, create_authority, issue, write_credentials
from tests.storm.large import Pipeline

SERVICE, WATCHED = "chinaserver.openuss", "portal.web"
LARGE_COUNT = 480
"""Listeners with full metadata: more than the 4 MiB (STREAMED_OCTETS_MIN) from which a reply is sent in parts."""
LARGE_METADATA = {f"k{number:02}": "v" * 255 for number in range(32)}
EPOCH = 7

TOPOLOGY = (
    Category("web"),
    Category("openuss", "spare.emergency", Policy(probe_timeout_seconds=0.5, probe_attempts=1)),
    Category("emergency"),
    Category("bulk"),
    Service(WATCHED),
    Service(SERVICE),
    Service("spare.emergency"),
    Service("other.emergency"),
    Service("store.bulk"),
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


class World(NamedTuple):
    """A running `opengnssd` with a topology, a credential, and an administrator."""

    port: int
    files: dict[str, Path]
    credential: str
    administrator: AdminSession

    def register_another(self) -> int:
        """Register a listener of the same service that no process serves. Returns the revision."""
        registered = self.administrator.ask(Register(SERVICE, "", "127.0.0.1", free_port(), EPOCH))
        assert isinstance(registered, Registered)
        return registered.revision

    def register_many(self) -> None:
        """Register more listeners of the category `bulk` than a frame holds."""
        places = [(f"127.1.{n // 250}.{n % 250 + 1}", 80) for n in range(LARGE_COUNT)]
        asked = [Register("store.bulk", "", *place, 1, metadata=LARGE_METADATA) for place in places]
        assert all(isinstance(reply, Registered) for reply in Pipeline(self.administrator).ask_all(asked))

    def depend_on_many(self) -> int:
        """Let the watched service depend on the category `bulk`. Returns the revision."""
        done = self.administrator.ask(Put(Dependency("web", "bulk"), True))
        assert isinstance(done, Done)
        return done.revision

    def acknowledged(self) -> int:
        """Return the last revision that the server knows the client to hold."""
        lags = self.administrator.ask(Lag())
        assert isinstance(lags, Lags)
        (lag,) = lags.hosts
        return lag.acknowledged


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def certificates(directory: Path) -> dict[str, Path]:
    """Make an authority, a server, a host and an administrator. Returns their PEM files by name."""
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
