"""Settings of `opengnsadmin`: servers and certificate, from options, environment, a TOML file, or defaults.

The command line has precedence, then the environment, then the file. All functions are pure except `read_settings`,
which opens the file. All problems are reported at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from compass.admin.shell.connection import IdentityFiles, Server
from compass.model.limits import PORT_MAX
from compass.model.text import escape, is_printable_line, unprintable_in
from compass.system.development import ADMIN_CONFIG, default_directory

PORT = 4863
"""OpenGNSP over TLS."""
SERVER_VARIABLE = "OPENGNS_SERVER"
CONFIG_VARIABLE = "OPENGNSADMIN_CONFIG"
SYSTEM_CONFIG = Path("/etc/opengns/admin.toml")
USER_CONFIG = Path(".config/opengns/admin.toml")
"""Path below the home directory, tried before the system's."""
CONFIG_MAX = 64 * 1024
"""Greatest size of a settings file in octets: it has five keys and comments, so a larger file is the wrong one."""
KEYS = ("server", "certificate", "key", "authority", "server_name")
_FILES = ("certificate", "key", "authority")


class SettingsProblem(Exception):
    """Invalid settings. `problems` has one sentence for each problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(map(escape, problems)))
        self.problems = tuple(problems)


class Given(msgspec.Struct, frozen=True):
    """Settings from the command line; empty: not set."""

    servers: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    authority: str = ""
    server_name: str = ""
    config: str = ""
    wait: float = 0.0
    """Seconds to wait for a server that cannot be reached."""


class Settings(msgspec.Struct, frozen=True):
    """Settings in effect: the servers, and the identity of the administrator."""

    servers: tuple[Server, ...]
    identity: IdentityFiles
    config: Path | None = None
    """Path of the settings file; None: there is none."""


def read_settings(given: Given, environment: Mapping[str, str], home: Path) -> Settings:
    """Return the settings in effect. Raises SettingsProblem."""
    path = config_path(given, environment, home)
    problems: list[str] = []
    values = _read_file(path, problems) if path is not None else {}
    return _resolve(given, environment, home, path, values, problems)


def config_path(given: Given, environment: Mapping[str, str], home: Path) -> Path | None:
    """Return the path of the settings file: the named one, which must exist, or the first default that exists."""
    named = given.config or environment.get(CONFIG_VARIABLE, "")
    if named:
        return Path(named).expanduser()
    development = default_directory(environment, home) / ADMIN_CONFIG
    return next((path for path in (home / USER_CONFIG, SYSTEM_CONFIG, development) if path.is_file()), None)


def parse_server(text: str) -> Server:
    """Parse `HOST:PORT` or `HOST`; an IPv6 address is in brackets. Raises ValueError with what would be right."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(PORT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"server {text!r}: write an IPv6 address in brackets, as in [2001:db8::1]:{PORT}")
    if not host or not is_printable_line(host) or " " in host:
        raise ValueError(f"server {text!r} is not of the form HOST:PORT")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= PORT_MAX):
        raise ValueError(f"server {text!r}: the port is not a number between 1 and {PORT_MAX}")
    return Server(host, int(port))


def _read_file(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_MAX + 1)
    except OSError as error:
        problems.append(f"the settings file {path} cannot be read: {error.strerror}")
        return {}
    if len(data) > CONFIG_MAX:
        problems.append(f"the settings file {path} has more than {CONFIG_MAX} octets; is it the right one?")
        return {}
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"the settings file {path} is not TOML: {error}")
        return {}
    for key in values.keys() - set(KEYS):
        problems.append(f"{path}: unknown key {key!r}; valid keys: {', '.join(KEYS)}")
    for key in KEYS:
        value = values.get(key, "")
        if isinstance(value, list) and key == "server" and all(isinstance(one, str) for one in value):
            continue
        if not isinstance(value, str):
            kind = "a string or a list of strings" if key == "server" else "a string"
            problems.append(f"{path}: {key} must be {kind}")
            values[key] = None
        elif found := unprintable_in(value):
            problems.append(f"{path}: {key} contains the character {found}, which cannot be printed")
            values[key] = None
    return values


def _resolve(
    given: Given,
    environment: Mapping[str, str],
    home: Path,
    path: Path | None,
    values: Mapping[str, Any],
    problems: list[str],
) -> Settings:
    # The contents of an unreadable file are unknown, so no setting is reported as missing.
    is_unread = bool(path and problems and not values)
    in_file = values.get("server") or ()
    named = (
        given.servers
        or tuple(environment.get(SERVER_VARIABLE, "").replace(",", " ").split())
        or ((in_file,) if isinstance(in_file, str) else tuple(in_file))
        or (f"127.0.0.1:{PORT}",)
    )
    servers = []
    for text in named:
        try:
            servers.append(parse_server(text))
        except ValueError as problem:
            problems.append(str(problem))
    files: dict[str, Path] = {}
    base = path.parent if path is not None else Path()
    for what in _FILES:
        if option := getattr(given, what):
            files[what] = Path(option).expanduser()
        elif entry := values.get(what):
            # A path in a file is relative to the file, not to the working directory.
            files[what] = base / Path(entry).expanduser()
        elif values.get(what, "") is not None and not is_unread:
            problems.append(_missing(what, path, home))
    if problems:
        raise SettingsProblem(problems)
    server_name = given.server_name or values.get("server_name", "")
    identity = IdentityFiles(files["certificate"], files["key"], files["authority"], server_name)
    return Settings(tuple(servers), identity, path)


def _missing(what: str, path: Path | None, home: Path) -> str:
    where = path or home / USER_CONFIG
    hint = {
        "certificate": "'opengnsadmin tls admin NAME' creates one",
        "key": "it is created with the certificate",
        "authority": "the certificate of the authority that issued the servers' certificates",
    }[what]
    return f'no {what}: use --{what} FILE, or write {what} = "FILE" into {where} ({hint})'
