"""Several real `opengnssd` over one store, on either engine; certificates and processes as in `tests/e2e`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from compass.admin.shell.connection import AdminSession, ConnectionFailed, IdentityFiles, Server
from compass.model.replies import Done, Reply, ServerStatus
from compass.model.requests import Put, Request, Status
from compass.model.rows import Category, Dependency, Service
from compass.pki.authority import Credentials, Role, issue, write_credentials
from tests.e2e.deployment import free_port, new_address
from tests.e2e.processes import Program, eventually

ANSWER_SECONDS = 20.0
T = TypeVar("T")


class Several:
    """The whole; a context manager that ends whatever was started."""

    def __init__(self, directory: Path, authority: Credentials, store: str) -> None:
        self.directory = directory
        self.store = store
        self.address = new_address()
        self.servers: dict[str, Program] = {}
        self.ports: dict[str, int] = {}
        self._authority = authority
        (directory / "authority.crt").write_bytes(authority.certificate_pem)
        self.admin = self.certify("admin", "alice")

    def __enter__(self) -> Several:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.servers.values():
            program.clear_away()

    def certify(self, role: Role, name: str, *more: str) -> IdentityFiles:
        """A certificate of this deployment's authority."""
        files = write_credentials(self.directory, name, issue(self._authority, role, name, more, datetime.now(UTC)))
        return IdentityFiles(files.certificate, files.key, self.directory / "authority.crt")

    def add(self, name: str, *, constants: Mapping[str, float] | None = None, settings: str = "") -> Program:
        """Start a server, and wait for it. `constants`: by `module.NAME`, what differs from the program as it is."""
        full_name = f"{name}.example.net"
        self.certify("server", full_name, self.address)
        self.ports[name] = free_port(self.address)
        config = self.directory / f"{name}.toml"
        at = self.directory
        config.write_text(
            f'[server]\nstore = "{self.store}"\nlisten = ["{self.address}:{self.ports[name]}"]\n{settings}\n'
            f'[tls]\ncertificate = "{at / full_name}.crt"\nkey = "{at / full_name}.key"\n'
            f'authority = "{at}/authority.crt"\n'
        )
        changed = [f"import {path.rpartition('.')[0]}; {path} = {value}" for path, value in (constants or {}).items()]
        run = "; ".join([*changed, "from compass.daemons.main import server", "server()"])
        command = [sys.executable, "-c", run, "--config", str(config)]
        self.servers[name] = program = Program(name, command, self.directory / f"{name}.log")
        program.start()
        self.serves(name)
        return program

    def serves(self, name: str) -> None:
        """Wait until a server answers."""

        def there() -> bool:
            assert self.servers[name].runs, f"{name} has ended:\n{self.servers[name].shown_log()}"
            with contextlib.suppress(ConnectionFailed):
                return bool(self.ask(name, Status(), ServerStatus))
            return False

        eventually(there, f"{name} serves")

    def link(self, name: str, identity: IdentityFiles | None = None) -> AdminSession:
        """Open a session with one of the servers: the administrator's, unless another peer is named."""
        return AdminSession.connect([Server(self.address, self.ports[name])], identity or self.admin, ANSWER_SECONDS)

    def ask(self, name: str, request: Request, expected: type[T], identity: IdentityFiles | None = None) -> T:
        """Ask one server one question, in a session of its own."""
        with self.link(name, identity) as link:
            reply: Reply = link.ask(request)
        assert isinstance(reply, expected), reply
        return reply

    def declare(self, name: str) -> None:
        """A small world: `web` depends on `openuss`, which has one service."""
        rows = (
            Category("web"),
            Service("portal.web"),
            Category("openuss"),
            Service("chinaserver.openuss"),
            Dependency("web", "openuss"),
        )
        with self.link(name) as link:
            for row in rows:
                reply = link.ask(Put(row, create=True))
                assert isinstance(reply, Done), reply
