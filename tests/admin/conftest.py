"""Fixtures of the tests of `opengnsadmin`: certificates, a small server, the program."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click.testing
import pytest

from compass.admin.main import cli
from compass.admin.shell.context import AdminContext
from compass.pki.authority import Credentials, create_authority, issue, write_credentials
from tests.support.fake_machine import FakeMachine
from tests.support.fake_server import LittleServer


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority, a server, administrators and a host, an expired one, and a stranger's."""
    directory = tmp_path_factory.mktemp("certificates")
    now = datetime.now(UTC)
    past = now - timedelta(days=10)
    ours = create_authority("ours", past)
    strangers = create_authority("strangers", past)

    def write(stem: str, credentials: Credentials) -> None:
        write_credentials(directory, stem, credentials)

    write("authority", ours)
    write("strangers", strangers)
    write("server", issue(ours, "server", "127.0.0.1", ["gns1.example.net"], now))
    write("expired-server", issue(ours, "server", "127.0.0.1", [], past, days=1))
    write("admin", issue(ours, "admin", "alice", [], now))
    write("expired-admin", issue(ours, "admin", "alice", [], past, days=1))
    write("host", issue(ours, "host", "web1.example.net", [], now))
    write("stranger", issue(strangers, "admin", "mallory", [], now))
    return directory


@pytest.fixture
def server(certificates: Path) -> Iterator[LittleServer]:
    """A server with an empty catalogue."""
    server = LittleServer(certificates / "server.crt", certificates / "server.key", certificates / "authority.crt")
    yield server
    server.stop()


class Program:
    """`opengnsadmin` as a person runs it, with the certificate of an administrator."""

    def __init__(self, certificates: Path, port: int, home: Path) -> None:
        self.certificates = certificates
        self.home = home
        self.interactive = False
        self.settings = self.of("admin", port)

    def of(self, stem: str, port: int, authority: str = "authority") -> list[str]:
        """The options for a server on that port, with that certificate."""
        at = self.certificates
        files = [
            f"--certificate={at / stem}.crt",
            f"--key={at / stem}.key",
            f"--authority={at / authority}.crt",
        ]
        return [f"--server=127.0.0.1:{port}", *files]

    def run(self, *arguments: str, stdin: str = "", options: list[str] | None = None) -> click.testing.Result:
        """Run the program once."""
        given = self.settings if options is None else options
        context = AdminContext(FakeMachine(self.home, interactive=self.interactive))
        runner = click.testing.CliRunner()
        return runner.invoke(cli, [*given, *arguments], input=stdin, obj=context, prog_name="opengnsadmin")

    def done(self, *arguments: str, **options: Any) -> str:
        """Run the program, which must succeed. Returns its output."""
        result = self.run(*arguments, **options)
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        return result.stdout


@pytest.fixture
def program(certificates: Path, server: LittleServer, tmp_path: Path) -> Program:
    """The program, set to talk to `server`."""
    return Program(certificates, server.port, tmp_path)
