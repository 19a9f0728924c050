"""Configuration files: TOML into settings, every mistake reported at once, every key documented.

The settings classes are the documentation: `--print-config` writes a file with every key, its default and its
description, and that file is read back by a test.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from compass.model.names import NameProblem, parse_address, parse_endpoint, parse_host_name

CONFIG_OCTETS_MAX = 1024 * 1024
"""A configuration file is a page or two; a larger one is something else."""

SERVER_PORT = 4863
API_PORT = 4866


class ConfigProblem(Exception):
    """What is wrong with a configuration file, all of it."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.problems = problems


class TlsSettings(msgspec.Struct, frozen=True):
    """Keys of [tls]: who this daemon is, and whom it believes."""

    certificate: str
    key: str
    authority: str
    admin: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    server: tuple[str, ...] = ()


class ServerSettings(msgspec.Struct, frozen=True):
    """Keys of [server] in the file of opengnssd."""

    store: str
    name: str = ""
    listen: tuple[str, ...] = (f"[::]:{SERVER_PORT}",)
    alert_command: tuple[str, ...] = ()
    keep_updates: Annotated[int, Meta(ge=1000)] = 1_000_000
    keep_others: Annotated[int, Meta(ge=1000)] = 100_000


class HostSettings(msgspec.Struct, frozen=True):
    """Keys of [host] in the file of opengnscd."""

    servers: tuple[str, ...]
    state_directory: str
    address: str
    api: str = f"127.0.0.1:{API_PORT}"
    socket: str = "/run/opengns/opengnscd.sock"
    update: str = ""
    session: Literal["keep", "short"] = "keep"
    refresh_seconds: Annotated[float, Meta(ge=1)] = 300.0


DESCRIPTIONS = {
    "tls.certificate": "Certificate of this daemon, PEM; intermediate certificates may follow in the file.",
    "tls.key": "Its private key, PEM, readable by this daemon only.",
    "tls.authority": "Certificates of the authorities that vouch for the others, PEM.",
    "tls.admin": "Patterns of certificate names with the role admin. Without any of these three lists the role is the "
    "OU of a certificate's subject.",
    "tls.host": "Patterns of certificate names with the role host.",
    "tls.server": "Patterns of certificate names with the role server.",
    "server.store": "Where everything is stored: sqlite:////path/to/file or postgresql+psycopg://user@host/database.",
    "server.name": "The server's name in logs and answers; without it, the one in its certificate.",
    "server.listen": "Addresses and ports for OpenGNSP over TLS.",
    "server.alert_command": "Program and arguments that are run for each alert, with JSON on standard input; without "
    "it alerts are logged only.",
    "server.keep_updates": "Entries kept in the update log; hosts that missed more read everything again.",
    "server.keep_others": "Entries kept in the security and the administration log, each.",
    "host.servers": "Servers as name:port or address:port, the preferred first; their certificates show that name.",
    "host.state_directory": "Where the catalogue and the registrations survive a restart.",
    "host.address": "The address that listeners of this host are registered with unless they name one.",
    "host.api": "Loopback address and port of the HTTP API for programs on this host; empty: Unix socket only.",
    "host.socket": "Path of the Unix socket with the same API; empty: none.",
    "host.update": "Address and port where a server may dial this host, usually port 4865; empty: it is not dialled.",
    "host.session": "keep: one session stays open. short: connect, ask, leave; the server dials `update` to push.",
    "host.refresh_seconds": "With short sessions: how often to look for changes that were missed.",
}
"""What each key means."""


class ServerConfig(msgspec.Struct, frozen=True):
    """The file of opengnssd."""

    server: ServerSettings
    tls: TlsSettings


class HostConfig(msgspec.Struct, frozen=True):
    """The file of opengnscd."""

    host: HostSettings
    tls: TlsSettings


Config = TypeVar("Config", ServerConfig, HostConfig)


class _Reading(Generic[Config]):
    """Collects problems while sections are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []

    def section(self, kind: type[Any], name: str, table: object) -> Any:
        if not isinstance(table, dict):
            self.problems.append(f"[{name}] must be a table")
            return None
        values: dict[str, Any] = {}
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        for key in table:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, 1)
                self.problems.append(f"[{name}] has no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        complete = True
        for key, field in fields.items():
            if key in table:
                try:
                    values[key] = msgspec.convert(table[key], field.type)
                except msgspec.ValidationError as error:
                    self.problems.append(f"[{name}] {key}: {error}")
                    complete = False
            elif field.required:
                self.problems.append(f"[{name}] needs {key}: {DESCRIPTIONS[f'{name}.{key}']}")
                complete = False
        return kind(**values) if complete else None

    def check(self, where: str, parse: Any, text: str) -> None:
        try:
            parse(text)
        except NameProblem as problem:
            self.problems.append(f"{where}: {problem}")


def read_server_config(path: Path) -> ServerConfig:
    """The settings of opengnssd. Raises ConfigProblem with everything that is wrong."""
    reading: _Reading[ServerConfig] = _Reading(path)
    tables = _tables(path, ("server", "tls"), reading.problems)
    server: ServerSettings | None = reading.section(ServerSettings, "server", tables.get("server", {}))
    tls: TlsSettings | None = reading.section(TlsSettings, "tls", tables.get("tls", {}))
    if server is not None:
        for endpoint in server.listen:
            reading.check("[server] listen", parse_listen, endpoint)
        if not server.listen:
            reading.problems.append("[server] listen is empty: the server would serve nobody")
        if server.store.partition(":")[0] not in ("sqlite", "postgresql+psycopg"):
            reading.problems.append("[server] store must begin with sqlite:/// or postgresql+psycopg://")
    if reading.problems or server is None or tls is None:
        raise ConfigProblem(path, reading.problems)
    return ServerConfig(server, tls)


def read_host_config(path: Path) -> HostConfig:
    """The settings of opengnscd. Raises ConfigProblem with everything that is wrong."""
    reading: _Reading[HostConfig] = _Reading(path)
    tables = _tables(path, ("host", "tls"), reading.problems)
    host: HostSettings | None = reading.section(HostSettings, "host", tables.get("host", {}))
    tls: TlsSettings | None = reading.section(TlsSettings, "tls", tables.get("tls", {}))
    if host is not None:
        _check_host(reading, host)
    if reading.problems or host is None or tls is None:
        raise ConfigProblem(path, reading.problems)
    return HostConfig(host, tls)


def _check_host(reading: _Reading[HostConfig], host: HostSettings) -> None:
    if not host.servers:
        reading.problems.append("[host] servers is empty: there is nobody to ask")
    for server in host.servers:
        reading.check("[host] servers", parse_server, server)
    reading.check("[host] address", parse_address, host.address)
    if host.update:
        reading.check("[host] update", parse_endpoint, host.update)
    elif host.session == "short":
        reading.problems.append("[host] session = short needs update: the server must be able to dial this host")
    if host.api:
        try:
            address, _ = parse_endpoint(host.api)
        except NameProblem as problem:
            reading.problems.append(f"[host] api: {problem}")
        else:
            if not (address.startswith("127.") or address == "::1"):
                reading.problems.append(
                    f"[host] api: {address} is not a loopback address; off the loopback nothing is served unencrypted"
                )
    elif not host.socket:
        reading.problems.append("[host] api and socket are both empty: no program could ask")


def parse_listen(text: str) -> tuple[str, int]:
    """`address:port` to listen on; unlike an address to connect to it may be `0.0.0.0` or `[::]`."""
    for wildcard in ("0.0.0.0", "[::]"):
        if text.startswith(wildcard + ":"):
            return wildcard.strip("[]"), parse_endpoint("127.0.0.1" + text[len(wildcard) :])[1]
    return parse_endpoint(text)


def parse_server(text: str) -> tuple[str, int]:
    """`name:port`, `address:port` or a name alone for the default port."""
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text, str(SERVER_PORT)
    try:
        return parse_endpoint(f"{name}:{port}")
    except NameProblem:
        return parse_host_name(name), parse_endpoint(f"127.0.0.1:{port}")[1]


def _tables(path: Path, known: tuple[str, ...], problems: list[str]) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigProblem(path, [f"cannot be read: {error.strerror}"]) from None
    if len(data) > CONFIG_OCTETS_MAX:
        raise ConfigProblem(path, [f"has {len(data)} octets; a configuration file has at most {CONFIG_OCTETS_MAX}"])
    try:
        tables = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigProblem(path, [f"is not TOML: {error}"]) from None
    for name in tables:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            problems.append(f"there is no section [{name}]" + (f"; did you mean [{near[0]}]?" if near else ""))
    return tables


def example(kind: type[Any]) -> str:
    """A configuration file with every key, its default and what it means."""
    lines: list[str] = []
    for section in msgspec.structs.fields(kind):
        lines += [f"[{section.name}]"]
        for field in msgspec.structs.fields(section.type):
            lines.append(f"# {DESCRIPTIONS[f'{section.name}.{field.name}']}")
            if field.required:
                lines.append(f"{field.name} = # required")
            else:
                lines.append(f"# {field.name} = {msgspec.json.encode(field.default).decode()}")
        lines.append("")
    return "\n".join(lines)
