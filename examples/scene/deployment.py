"""A private deployment below one directory: an authority, a server, hosts on loopback addresses, and services.

DIRECTORY/tls/      the authority, and a certificate for the server, each host, and the administrator
DIRECTORY/*.toml    the configuration of each daemon, and of opengnsadmin
DIRECTORY/tokens/   the credential of each service
DIRECTORY/logs/     what each process says
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TypeVar

from compass.client.core.blocking_api import ApiProblem, HostApi, parse_api_endpoint
from compass.model.names import format_endpoint
from compass.pki.authority import Credentials, Role, create_authority, issue, write_credentials

SERVER = ("gns1", "127.0.0.10", 4863)
"""The server's name, address, and the port it gets when that is free."""
HTTPS_PORT = 4864
"""Port of the server's console, if the port is free."""
API_PORT = 4866
SERVICE_PORT = 8001
START_SECONDS = 20.0
"""Time limit for the start of a daemon: generous, because the machine may be busy."""
STOP_SECONDS = 5.0
"""Time limit for the end of a process after SIGTERM; then the process is killed."""
LISTENER = Path(__file__).with_name("listener.py")
PROGRAMS = {
    "opengnssd": "from compass.daemons.main import server as main",
    "opengnscd": "from compass.daemons.main import host as main",
    "opengnsc": "from compass.cli.main import main",
    "opengnsadmin": "from compass.admin.main import main",
}

T = TypeVar("T")


class SceneProblem(Exception):
    """The scene cannot go on; the text says why, and where to look."""


def program(name: str) -> list[str]:
    """The command line of one of the programs: the installed script, or the same from this checkout."""
    script = Path(sys.executable).with_name(name)
    return [str(script)] if script.exists() else [sys.executable, "-c", f"{PROGRAMS[name]}; main()"]


def until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """The condition's value as soon as it is true. Raises SceneProblem when it does not become so."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise SceneProblem(f"{what}: not seen within {seconds:g} s")
        time.sleep(0.005)
    return value


class Host:
    """A machine of the scene: a loopback address with a daemon of its own."""

    def __init__(self, name: str, address: str, api_port: int) -> None:
        self.name = name
        self.address = address
        self.url = f"http://{address}:{api_port}"
        self.api = HostApi(parse_api_endpoint(self.url))
        self.process: subprocess.Popen[bytes] | None = None


class Serving:
    """A service's listener: a real HTTP server under `opengnsc run`."""

    def __init__(self, service: str, host: Host, port: int, process: subprocess.Popen[bytes]) -> None:
        self.service = service
        self.host = host
        self.port = port
        self.process = process
        self.pid = 0
        """Process id of the program that serves; 0: not registered yet."""

    @property
    def endpoint(self) -> str:
        return format_endpoint(self.host.address, self.port)

    def registered(self) -> bool:
        """Return whether the host's daemon has the registration; store the id of the process that serves."""
        for own in self.host.api.status().registrations:
            if (own.service, own.port, own.state) == (self.service, self.port, "registered"):
                self.pid = own.pid
        return self.pid != 0


class Deployment:
    """Everything that the scene starts, and ends again by process number."""

    def __init__(self, directory: Path, topology: Path) -> None:
        self.directory = directory.absolute()
        self.topology = topology
        self.hosts: dict[str, Host] = {}
        self.serving: list[Serving] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.server_endpoint = ""
        self.https_endpoint = ""
        self._tcp_ports: set[tuple[str, int]] = set()
        self._started: list[subprocess.Popen[bytes]] = []
        self._lock = self._take_directory()

    def build(self, hosts: dict[str, str]) -> None:
        """Certificates and configuration for the server and for hosts (name -> address)."""
        now = datetime.now(UTC)
        authority = create_authority("scene", now)
        write_credentials(self.directory / "tls", "authority", authority)
        name, address, port = SERVER
        self.server_endpoint = format_endpoint(address, self.free_port(address, port))
        self._certify(authority, "server", name, [address], now)
        self._certify(authority, "admin", "admin", [], now)
        store = f"sqlite:///{self.directory}/catalogue.sqlite3"
        settings: dict[str, object] = {"name": name, "store": store, "listen": [self.server_endpoint]}
        self.https_endpoint = format_endpoint(address, self.free_port(address, HTTPS_PORT))
        https: dict[str, object] = {"listen": [self.https_endpoint]}
        self._write("opengnssd", {"server": settings, "server.https": https, "tls": {**self._identity(name)}})
        admin = {"server": self.server_endpoint, **self._identity("admin")}
        self._file("opengnsadmin").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in admin.items()))
        for name, address in hosts.items():
            host = Host(name, address, self.free_port(address, API_PORT))
            self.hosts[name] = host
            self._certify(authority, "host", name, [address], now)
            state = self.directory / "state" / name
            state.mkdir(parents=True, mode=0o700)
            settings = {"servers": [self.server_endpoint], "state_directory": str(state), "address": address}
            settings |= {"api": host.url.removeprefix("http://"), "socket": ""}
            self._write(name, {"host": settings, "tls": {**self._identity(name)}})

    def start_server(self) -> None:
        """Start opengnssd and wait until it listens."""
        self.server = self._start("opengnssd", [*program("opengnssd"), "--config", str(self._file("opengnssd"))])
        address, _, port = self.server_endpoint.rpartition(":")
        self._await(self.server, "opengnssd", lambda: _accepts(address, int(port)))

    def stop_server(self) -> None:
        """kill -9: the server has no chance to say goodbye."""
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def start_hosts(self, names: Iterable[str]) -> None:
        """Start daemons side by side, and wait until each answers."""
        for name in names:
            command = [*program("opengnscd"), "--config", str(self._file(name))]
            self.hosts[name].process = self._start(name, command)
        for name in names:
            process = self.hosts[name].process
            assert process is not None
            self._await(process, name, lambda name=name: _answers(self.hosts[name].api))  # type: ignore[misc]

    def stop_host(self, name: str) -> None:
        """End a daemon as an upgrade would."""
        process = self.hosts[name].process
        assert process is not None
        process.terminate()
        process.wait(STOP_SECONDS)

    def in_session(self) -> bool:
        """Return whether every host has a session with the server."""
        return all(host.api.status().session == "open" for host in self.hosts.values())

    def administer(self, *arguments: str) -> str:
        """An opengnsadmin command; its output."""
        command = [*program("opengnsadmin"), "--config", str(self._file("opengnsadmin")), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SceneProblem(f"opengnsadmin {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def issue_credentials(self, services: Iterable[str]) -> None:
        """A credential for each service, side by side."""
        (self.directory / "tokens").mkdir(mode=0o700)
        base = [*program("opengnsadmin"), "--config", str(self._file("opengnsadmin")), "credential", "add"]
        asked = [
            self._start("opengnsadmin", [*base, service, "--output", str(self.token(service))]) for service in services
        ]
        if any(process.wait() for process in asked):
            raise SceneProblem(f"a credential was not made; see {self.directory}/logs/opengnsadmin.log")

    def bearer(self, name: str, role: str) -> str:
        """A token for the server's HTTPS port: it is shown once, so here is where it is seen."""
        return self.administer("token", "add", name, "--role", role).split()[-1]

    def token(self, service: str) -> Path:
        """The file with a service's credential."""
        return self.directory / "tokens" / service

    def serve(self, service: str, name: str, port: int | None = None) -> Serving:
        """Start a listener of a service on a host, under `opengnsc run`."""
        host = self.hosts[name]
        port = port or self.free_port(host.address, SERVICE_PORT)
        options = ["--port", str(port), "--address", host.address, "--credential-file", str(self.token(service))]
        command = [*program("opengnsc"), "--api", host.url, "run", service, *options]
        process = self._start(f"{service}-{host.address}-{port}", [*command, "--", sys.executable, str(LISTENER)])
        serving = Serving(service, host, port, process)
        self.serving.append(serving)
        return serving

    def free_port(self, address: str, preferred: int) -> int:
        """The preferred port, the next ones, or any that is free there."""
        for port in (*range(preferred, preferred + 20), 0):
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
                found = int(probe.getsockname()[1])
                if (address, found) not in self._tcp_ports:
                    self._tcp_ports.add((address, found))
                    return found
        raise SceneProblem(f"no port is free at {address}; the scene needs the loopback network 127.0.0.0/8 of Linux")

    def close(self) -> None:
        """End what was started, services first; whatever does not end is killed."""
        for serving in self.serving:
            # A service that was stopped in the scene could not end otherwise.
            with contextlib.suppress(ProcessLookupError):
                if serving.pid and serving.process.poll() is None:
                    os.kill(serving.pid, signal.SIGCONT)
        ours = [serving.process for serving in self.serving]
        for group in (ours, [process for process in self._started if process not in ours]):
            for process in group:
                if process.poll() is None:
                    process.terminate()
            for process in group:
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._lock.close()

    def _take_directory(self) -> IO[str]:
        """Make the directory ours and empty. Raises SceneProblem when it is in use, or holds what is not ours."""
        lock = self.directory / "scene.lock"
        if self.directory.exists() and not lock.exists() and any(self.directory.iterdir()):
            raise SceneProblem(f"{self.directory} holds something else; name another --directory")
        self.directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        held = lock.open("w")
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SceneProblem(
                f"a scene plays in {self.directory} already; end it, or name another --directory"
            ) from None
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != lock:
                path.unlink()
        (self.directory / "logs").mkdir()
        return held

    def _certify(self, authority: Credentials, role: Role, name: str, also: list[str], now: datetime) -> None:
        write_credentials(self.directory / "tls", name, issue(authority, role, name, also, now))

    def _identity(self, name: str) -> dict[str, str]:
        tls = self.directory / "tls"
        files = {"certificate": f"{name}.crt", "key": f"{name}.key", "authority": "authority.crt"}
        return {key: str(tls / file) for key, file in files.items()}

    def _file(self, name: str) -> Path:
        return self.directory / f"{name}.toml"

    def _write(self, name: str, sections: dict[str, dict[str, object]]) -> None:
        """A configuration file; a JSON string or list is a TOML one as well."""
        lines = []
        for section, settings in sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items()), ""]
        self._file(name).write_text("\n".join(lines))

    def _start(self, log: str, command: list[str]) -> subprocess.Popen[bytes]:
        """A process in a session of its own, so that Ctrl-C is ours to pass on in order."""
        with (self.directory / "logs" / f"{log}.log").open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._started.append(process)
        return process

    def _await(self, process: subprocess.Popen[bytes], name: str, there: Callable[[], bool]) -> None:
        log = self.directory / "logs" / f"{name}.log"

        def ended_or_there() -> bool:
            if process.poll() is not None:
                raise SceneProblem(f"{name} ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
            return there()

        until(ended_or_there, START_SECONDS, f"{name} answers (its log is {log})")


def _accepts(address: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), 1).close()
        return True
    return False


def _answers(api: HostApi) -> bool:
    with contextlib.suppress(ApiProblem):
        api.status()
        return True
    return False
