"""Settings of development mode: its ports on the loopback, and the files that the daemons and `opengnsadmin` read."""

from __future__ import annotations

import errno
import ipaddress
import socket
from pathlib import Path
from typing import Final

import msgspec

from compass.daemons.config.reader import SOCKET_OCTETS_MAX
from compass.daemons.config.sections import API_PORT, DNS_PORT
from compass.daemons.config.settings import toml
from compass.daemons.development.directory import SERVER_NAME, TLS, DevelopmentProblem
from compass.model.limits import PORT_MAX
from compass.model.names import SERVER_PORT, format_endpoint
from compass.system.development import ADMIN_CONFIG, SOCKET
from compass.system.files import replace_file

HTTPS_PORT: Final = 4864
SERVER_CONFIG: Final = "opengnssd.toml"
HOST_CONFIG: Final = "opengnscd.toml"
LEAST_PORT: Final = 1024 + SERVER_PORT - DNS_PORT
"""Lowest port of the server at which all four ports are free of privileges."""
GREATEST_PORT: Final = PORT_MAX + SERVER_PORT - API_PORT
_HEAD: Final = "# Written at each start of 'opengns dev': changes here are lost.\n"


class Ports(msgspec.Struct, frozen=True):
    """The loopback address and the four ports of development mode, at the distances of the default ports."""

    address: str = "127.0.0.1"
    server: int = SERVER_PORT

    @property
    def https(self) -> int:
        """Port of the console and the HTTPS API."""
        return self.server + HTTPS_PORT - SERVER_PORT

    @property
    def api(self) -> int:
        """Port of the HTTP API for programs."""
        return self.server + API_PORT - SERVER_PORT

    @property
    def dns(self) -> int:
        """Port of DNS."""
        return self.server + DNS_PORT - SERVER_PORT

    def at(self, port: int) -> str:
        """Return one of the ports with the address."""
        return format_endpoint(self.address, port)

    def check(self) -> None:
        """Check that no other program uses the ports. Raises DevelopmentProblem."""
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        kinds = [(port, stream) for port in (self.server, self.https, self.api, self.dns)]
        for port, kind in (*kinds, (self.dns, datagram)):
            self._check_port(port, kind)

    def _check_port(self, port: int, kind: int) -> None:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        try:
            with socket.socket(family, kind) as trial:
                if kind == socket.SOCK_STREAM:
                    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((self.address, port))
                if kind == socket.SOCK_STREAM:
                    trial.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DevelopmentProblem(f"{self.at(port)}: {error.strerror}; name another --address") from None
            other = self.server + 1000 if self.server + 1000 <= GREATEST_PORT else SERVER_PORT
            raise DevelopmentProblem(
                f"{self.at(port)} is in use; end the program that uses it ('ss -lntup' names it), or choose four other "
                f"ports with --port {other}",
                is_temporary=True,
            ) from None


def is_loopback(address: str) -> bool:
    """Return whether a text is a loopback address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def check_socket(directory: Path) -> None:
    """Check that the path of the socket is short enough. Raises DevelopmentProblem."""
    octets = len(bytes(directory / SOCKET))
    if octets > SOCKET_OCTETS_MAX:
        raise DevelopmentProblem(
            f"{directory} is too long: a Unix socket in it would have a path of {octets} octets, and at most "
            f"{SOCKET_OCTETS_MAX} work; name a shorter one with --directory"
        )


def write_settings(directory: Path, ports: Ports) -> None:
    """Write the files of both daemons and of `opengnsadmin`. Raises DevelopmentProblem."""
    files = {SERVER_CONFIG: _server(ports), HOST_CONFIG: _host(ports), ADMIN_CONFIG: _admin(ports)}
    try:
        for name, lines in files.items():
            replace_file(directory / name, (_HEAD + "\n".join(lines) + "\n").encode())
    except OSError as error:
        raise DevelopmentProblem(f"{directory} cannot be written: {error.strerror}; make room in it") from None


def _server(ports: Ports) -> list[str]:
    return [
        "[server]",
        'store = "sqlite:///catalogue.sqlite3"',
        'name = "dev"',
        f"listen = {toml([ports.at(ports.server)])}",
        "development = true",
        "[server.https]",
        f"listen = {toml([ports.at(ports.https)])}",
        *_tls("server"),
    ]


def _host(ports: Ports) -> list[str]:
    return [
        "[host]",
        f"servers = [{{ name = {toml(SERVER_NAME)}, addresses = {toml([ports.at(ports.server)])} }}]",
        'state_directory = "host"',
        f"address = {toml(ports.address)}",
        f"api = {toml(ports.at(ports.api))}",
        f"socket = {toml(SOCKET)}",
        "development = true",
        "[host.dns]",
        f"listen = {toml(ports.at(ports.dns))}",
        *_tls("host"),
    ]


def _tls(role: str) -> list[str]:
    return ["[tls]", *_files(role)]


def _files(role: str) -> list[str]:
    stems = {"certificate": f"{role}.crt", "key": f"{role}.key", "authority": "authority.crt"}
    return [f"{key} = {toml(f'{TLS}/{name}')}" for key, name in stems.items()]


def _admin(ports: Ports) -> list[str]:
    return [f"server = {toml(ports.at(ports.server))}", f"server_name = {toml(SERVER_NAME)}", *_files("admin")]
