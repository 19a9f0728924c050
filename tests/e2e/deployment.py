"""A deployment on this machine: certificates, one server daemon on SQLite, client daemons, and the two commands.

Every host has a loopback address of its own, and so has the server. The second and third number of these addresses
come from the number of this process, so that free ports found on them stay free: outgoing connections on the
loopback leave from 127.0.0.1, and other test runs use other addresses.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import click.testing

from compass.admin.main import cli as admin_cli
from compass.admin.shell.connection import AdminSession, ConnectionFailed, IdentityFiles, Server
from compass.admin.shell.context import AdminContext
from compass.agent.replica.disk_cache import unpacked
from compass.client.core.blocking_api import ApiEndpoint, ApiProblem, HostApi
from compass.model.host_api import HostStatus, LocalRegister, LocalReport, Outcome
from compass.model.replies import CredentialIssued, HostLag, Lags, LogEntries, Reply, Rows, ServerStatus
from compass.model.requests import Fetch, IssueCredential, Lag, ReadLog, Request, Status
from compass.model.rows import Listener, UpdateEntry
from compass.pki.authority import Credentials, Role, issue, write_credentials
from tests.e2e.processes import PATIENCE_SECONDS, Program, environment, eventually, python
from tests.e2e.relay import Relay
from tests.e2e.watching import Dependant
from tests.support.fake_machine import FakeMachine

ANSWER_SECONDS = 5.0

WORLD = """
[category.web]
depends_on = ["openuso", "openuss"]
services = ["portal", "forum"]

[category.openuso]
services = ["account"]

[category.openuss]
services = ["chinaserver", "northeast", "northwest"]
backup = "emergency.rescue"
probe = "http:/health"
probe_timeout_seconds = 0.3
recovery_seconds = 0.2

[category.rescue]
services = ["emergency"]
"""
"""The example's own world, with a probe that is quicker to judge and to come back."""

HTTP_SERVICE = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Answer).serve_forever()
"""

T = TypeVar("T")
_numbers = count(1)
_ports: set[tuple[str, int]] = set()


def new_address() -> str:
    """Return a loopback address that no other test uses."""
    number, pid = next(_numbers), os.getpid()
    return f"127.{64 + (pid >> 8) % 64}.{pid % 256}.{1 + number % 254}"


def free_port(address: str) -> int:
    """Return a port that is free at the address, and that is given out once."""
    while True:
        with socket.socket() as probe:
            probe.bind((address, 0))
            place: tuple[str, int] = probe.getsockname()
        if place not in _ports:
            _ports.add(place)
            return place[1]


class Host:
    """A client daemon."""

    def __init__(
        self, name: str, address: str, directory: Path, config: str, dns_port: int = 0, agent_port: int = 0
    ) -> None:
        self.name = name
        self.dns_port = dns_port
        self.address = address
        self.directory = directory
        self.port = free_port(address)
        self.agent_port = agent_port
        self.socket = directory / "api.sock"
        self.api = HostApi(ApiEndpoint(path=str(self.socket)), ANSWER_SECONDS)
        directory.mkdir()
        path = directory / "opengnscd.toml"
        listens = f'address = "{address}"\napi = "{address}:{self.port}"\nsocket = "{self.socket}"\n'
        if agent_port:
            listens += f'agent = "{address}:{self.agent_port}"\n'
        path.write_text(config.replace("[host]\n", f'[host]\nstate_directory = "{directory / "state"}"\n{listens}', 1))
        command = python("compass.daemons.main:host", "--config", str(path))
        self.daemon = Program(name, command, directory / "log")

    @property
    def url(self) -> str:
        """The HTTP API's address, for --api."""
        return f"http://{self.address}:{self.port}"

    def status(self) -> HostStatus | None:
        """Return the daemon's status, or None while the daemon does not answer."""
        assert self.daemon.runs, f"{self.name} has ended:\n{self.daemon.shown_log()}"
        try:
            return self.api.status()
        except ApiProblem:
            return None

    def answers(self) -> None:
        """Wait until its API does."""
        eventually(self.status, f"{self.name} answers")

    def in_session(self) -> None:
        """Wait until it is in session with a server, and in step with it."""

        def there() -> bool:
            status = self.status()
            return status is not None and status.session == "open" and status.loaded and not status.problem

        eventually(there, f"{self.name} is in session")

    def saved(self) -> None:
        """Wait until its disk has all that it holds: it writes a fraction of a second after a change."""

        def written() -> bool:
            status = self.status()
            try:
                cached = unpacked((self.directory / "state" / "catalogue.msgpack").read_bytes())
            except FileNotFoundError:
                return False
            held = status is not None and cached.held.revision == status.revision
            return held and status is not None and set(status.services) <= set(cached.wanted)

        eventually(written, f"{self.name} has its view on disk")

    def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the daemon by that signal and start it again, until it answers."""
        self.daemon.kill() if number == signal.SIGKILL else self.daemon.stop()
        self.daemon.start()
        self.answers()

    def resolves(self, name: str, source: str, ports: list[int]) -> None:
        """Wait until a lookup gives just these, from there."""
        eventually(lambda: self.resolved(name) == (source, sorted(ports)), f"{self.name}: {name} is {source} {ports}")

    def resolved(self, name: str) -> tuple[str, list[int]]:
        """Return where the listeners are from (`service`, `backup`, …) and their ports in order."""
        answer = self.api.resolve(name)
        return answer.source, sorted(peer.port for peer in answer.listeners)


class Deployment:
    """The whole; a context manager that ends whatever was started."""

    def __init__(
        self,
        directory: Path,
        authority: Credentials,
        alert_command: list[str] | None = None,
        store: str = "",
        settings: str = "",
    ) -> None:
        """`store`: a database's URL; without it, a SQLite file here. `settings`: further lines for [server]."""
        self.directory = directory
        self.address = new_address()
        self.port = free_port(self.address)
        self.https_port = free_port(self.address)
        self.hosts: dict[str, Host] = {}
        self.programs: list[Program] = []
        self.store = store or f"sqlite:///{directory / 'store.sqlite'}"
        self._authority = authority
        self._tokens: dict[str, str] = {}
        self._relays: list[Relay] = []
        (directory / "authority.crt").write_bytes(authority.certificate_pem)
        self.certify("server", "gns1.example.net", self.address)
        self.admin = self.certify("admin", "alice")
        alerts = f"alert_command = {alert_command!r}\n" if alert_command else ""
        place = self.address, self.port
        https = f'[server.https]\nlisten = ["{self.address}:{self.https_port}"]\n'
        self.server = self._server("opengnssd", "gns1.example.net", place, alerts + settings + https)

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self.programs):
            program.clear_away()
        for relay in self._relays:
            relay.close()

    # Building it --------------------------------------------------------------------------------------------

    def start(self, topology: str = WORLD) -> None:
        """Start the server and apply the topology."""
        self.server.start()
        self.serves()
        if topology:
            self.apply(topology)

    def add_server(self, name: str) -> tuple[Program, str, int]:
        """Start another server over the same store; the program and where it listens. It is not waited for."""
        address = new_address()
        port = free_port(address)
        self.certify("server", name, address)
        program = self._server(name, name, (address, port))
        program.start()
        return program, address, port

    def _server(self, program: str, name: str, place: tuple[str, int], settings: str = "") -> Program:
        config = self.directory / f"{program}.toml"
        config.write_text(
            f'[server]\nstore = "{self.store}"\nlisten = ["{place[0]}:{place[1]}"]\n{settings}' + self._tls(name)
        )
        command = python("compass.daemons.main:server", "--config", str(config))
        self.programs.append(Program(program, command, self.directory / f"{program}.log"))
        return self.programs[-1]

    def apply(self, topology: str, *options: str) -> None:
        """`opengnsadmin apply`."""
        path = self.directory / "topology.toml"
        path.write_text(topology)
        self.opengnsadmin("apply", str(path), "--yes", *options)

    def certify(self, role: Role, name: str, *more: str, authority: Credentials | None = None) -> IdentityFiles:
        """Issue a certificate of this deployment's authority, or of another one that no daemon here trusts."""
        files = write_credentials(
            self.directory, name, issue(authority or self._authority, role, name, more, datetime.now(UTC))
        )
        return IdentityFiles(files.certificate, files.key, self.directory / "authority.crt")

    def identity_of(self, host: Host) -> IdentityFiles:
        """The files of a host's daemon."""
        at = self.directory / host.name
        return IdentityFiles(
            at.with_name(f"{at.name}.crt"), at.with_name(f"{at.name}.key"), at.with_name("authority.crt")
        )

    def relay(self) -> Relay:
        """A counting way to the server."""
        relay = Relay(self.address, (self.address, self.port))
        self._relays.append(relay)
        return relay

    def add_host(
        self,
        name: str,
        *,
        port: int = 0,
        short: bool = False,
        refresh_seconds: float = 300.0,
        agent: bool = False,
        services: tuple[str, ...] = (),
        dns: bool = False,
        servers: str = "",
        settings: str = "",
        sections: str = "",
    ) -> Host:
        """Start a client daemon; `port` is a relay's. It is not waited for, so that several start together.

        `servers`: the entries in the configuration, in place of the one server; `settings`: further lines of it;
        `sections`: further sections.
        """
        full_name = f"{name}.example.net"
        address = new_address()
        self.certify("host", full_name, address)
        known = servers or f'["{self.address}:{port or self.port}"]'
        config = f"[host]\nservers = {known}\nrefresh_seconds = {refresh_seconds}\n{settings}"
        if short:
            config += f'session = "short"\nupdate = "{address}:{free_port(address)}"\n'
        if services:
            config += f"services = {list(services)!r}\n"
        dns_port = free_port(address) if dns else 0
        if dns:
            config += f'[host.dns]\nlisten = "{address}:{dns_port}"\n'
        config += sections
        agent_port = free_port(address) if agent else 0
        host = Host(full_name, address, self.directory / name, config + self._tls(full_name), dns_port, agent_port)
        self.hosts[name] = host
        self.programs.append(host.daemon)
        host.daemon.start()
        return host

    def add_hosts(self, *names: str) -> list[Host]:
        """Several at once, waited for."""
        hosts = [self.add_host(name) for name in names]
        for host in hosts:
            host.in_session()
        return hosts

    def _tls(self, name: str) -> str:
        at = self.directory
        return f'[tls]\ncertificate = "{at / name}.crt"\nkey = "{at / name}.key"\nauthority = "{at}/authority.crt"\n'

    # Asking it ----------------------------------------------------------------------------------------------

    def serves(self) -> None:
        """Wait until the server answers."""

        def there() -> bool:
            assert self.server.runs, f"opengnssd has ended:\n{self.server.shown_log()}"
            with contextlib.suppress(ConnectionFailed):
                return bool(self.ask(Status(), ServerStatus))
            return False

        eventually(there, "opengnssd serves")

    def link(self, identity: IdentityFiles | None = None) -> AdminSession:
        """Open a session with the server, as the administrator or as another peer."""
        return AdminSession.connect([Server(self.address, self.port)], identity or self.admin, ANSWER_SECONDS)

    def ask(self, request: Request, expected: type[T], identity: IdentityFiles | None = None) -> T:
        """Ask one question in a session of its own."""
        with self.link(identity) as link:
            reply: Reply = link.ask(request)
        assert isinstance(reply, expected), reply
        return reply

    @property
    def https(self) -> str:
        """The server's HTTPS API."""
        return f"https://{self.address}:{self.https_port}"

    @property
    def revision(self) -> int:
        """Return the revision of the catalogue."""
        return self.ask(Status(), ServerStatus).revision

    def listeners(self, within: str = "") -> dict[tuple[str, int], Listener]:
        """All rows of listeners by service and port, offline ones included."""
        rows = self.ask(Fetch("listener", within=within), Rows).rows
        return {(row.service, row.port): row for row in rows if isinstance(row, Listener)}

    def updates(self, after: int = 0) -> list[UpdateEntry]:
        """The update log after a revision."""
        entries = self.ask(ReadLog("updates", after, 10_000), LogEntries).entries
        return [entry for entry in entries if isinstance(entry, UpdateEntry)]

    def lags(self) -> dict[str, HostLag]:
        """Which host holds which revision."""
        return {lag.host: lag for lag in self.ask(Lag(), Lags).hosts}

    def holds(self, host: Host, revision: int) -> HostLag:
        """Wait until a host has acknowledged a revision; how far it is then."""

        def there() -> HostLag | None:
            lag = self.lags()[host.name]
            return lag if lag.acknowledged >= revision else None

        return eventually(there, f"{host.name} has acknowledged revision {revision}")

    def quiet(self, host: Host) -> None:
        """Wait until nothing is on the way between a host and the server: what it holds it has acknowledged."""

        def all_said() -> bool:
            lag, status = self.lags()[host.name], host.status()
            return status is not None and lag.pending == 0 and lag.acknowledged == status.revision

        eventually(all_said, f"{host.name} is quiet")

    def token(self, service: str) -> str:
        """A credential of the service."""
        if service not in self._tokens:
            self._tokens[service] = self.ask(IssueCredential(service), CredentialIssued).token
        return self._tokens[service]

    def register(self, host: Host, service: str, port: int = 0, *, pid: int = 0, weight: int = 1) -> Outcome:
        """Register through a host's daemon; without a port at one without a process."""
        port = port or free_port(host.address)
        return host.api.register(LocalRegister(service, port, self.token(service), pid=pid, weight=weight))

    def report(self, host: Host, outcome: Outcome, reporter: str = "portal.web") -> Outcome:
        """Report a listener as unreachable through a host's daemon."""
        return host.api.report(LocalReport(outcome.service, outcome.address, outcome.port, reporter=reporter))

    def watch(self, host: Host, service: str = "portal.web") -> Dependant:
        """Start a program on a host that receives changes of what the service depends on."""
        return Dependant(host.api, service)

    # Running things -----------------------------------------------------------------------------------------

    def opengnsadmin(self, *arguments: str, status: int = 0, identity: IdentityFiles | None = None) -> str:
        """Return what one run of the program prints; it must end with that status."""
        who = identity or self.admin
        options = [f"--server={self.address}:{self.port}", f"--certificate={who.certificate}", f"--key={who.key}"]
        options.append(f"--authority={who.authority}")
        runner = click.testing.CliRunner()
        context = AdminContext(FakeMachine(self.directory))
        result = runner.invoke(admin_cli, [*options, *arguments], obj=context, prog_name="opengnsadmin")
        assert result.exit_code == status, (arguments, result.output, result.exception)
        return result.output if status else result.stdout

    def opengnsc(self, host: Host, *arguments: str, more: dict[str, str] | None = None) -> Any:
        """Run the program as a process once. Returns the result."""
        return subprocess.run(
            python("compass.cli.main:main", *arguments),
            env=environment() | {"OPENGNS_API": host.url} | (more or {}),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def run(self, host: Host, service: str, port: int = 0, given: tuple[str, ...] = ()) -> Service:
        """A real HTTP service under `opengnsc run`; waits until it is registered."""
        port = port or free_port(host.address)
        own = [sys.executable, "-c", HTTP_SERVICE, host.address, str(port)]
        options = ["--port", str(port), "--address", host.address, *given]
        command = python("compass.cli.main:main", "run", service, *options, "--", *own)
        secrets = {"OPENGNS_API": f"unix:{host.socket}", "OPENGNS_CREDENTIAL": self.token(service)}
        log = self.directory / f"{service}-{port}.log"
        program = Program(f"opengnsc run {service}", command, log, secrets)
        self.programs.append(program)
        program.start()

        def registered() -> int:
            assert program.runs, f"opengnsc run has ended:\n{program.shown_log()}"
            status = host.status()
            own = status.registrations if status else ()
            return next((r.pid for r in own if r.port == port and r.state == "registered"), 0)

        return Service(host, service, port, program, eventually(registered, f"{service} is registered"))


class Service:
    """Command that `opengnsc run` runs; `pid` is the service's own process."""

    def __init__(self, host: Host, name: str, port: int, program: Program, pid: int) -> None:
        self.host = host
        self.name = name
        self.port = port
        self.program = program
        self.pid = pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the service itself, not to `opengnsc`."""
        os.kill(self.pid, number)
