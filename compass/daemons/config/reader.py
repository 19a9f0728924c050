"""Reader of configuration files: TOML to settings, with all mistakes reported at once.

The settings are ready for use: relative paths in a file are relative to its directory, whatever the working directory
of the daemon is.
"""

from __future__ import annotations

import difflib
import grp
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from compass.agent.hooks.hook import HookSettings
from compass.agent.hooks.template import TemplateSettings
from compass.daemons.config.alerts import AlertSettings, check_alerts, read_alert
from compass.daemons.config.fields import description_of
from compass.daemons.config.hooks import check_together, read_hook, read_template
from compass.daemons.config.sections import (
    NOT_SHARED,
    WORKERS_MAX,
    DnsSettings,
    HostSettings,
    HttpsSettings,
    LogSettings,
    ServerDnsSettings,
    ServerSettings,
    TlsSettings,
)
from compass.daemons.config.server_list import ENTRIES_MAX, addresses_of, is_service, parse_service
from compass.daemons.config.settings import HostConfig, ServerConfig
from compass.model.limits import HOST_SERVICES_MAX, PORT_MAX
from compass.model.names import (
    InvalidName,
    parse_address,
    parse_endpoint,
    parse_group,
    parse_host_name,
    parse_label,
    parse_port_text,
    parse_service_id,
)

CONFIG_OCTETS_MAX = 1024 * 1024
"""Longest configuration file: a page or two is usual; a larger file is something else."""
SOCKET_OCTETS_MAX = 107
"""Longest path of a Unix socket: Linux has room for 108 octets, the last of which is zero (unix(7))."""
WILDCARDS = {"0.0.0.0": "0.0.0.0", "[::]": "::"}
"""Wildcard addresses, as written and as listened to; the second one accepts IPv4, too."""
Text = TypeVar("Text")
Parsed = TypeVar("Parsed")


class ConfigProblem(Exception):
    """All problems of one configuration file."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.problems = problems


def read_server_config(path: Path) -> ServerConfig:
    """Return the settings of opengnssd. Raises ConfigProblem with all problems of the file."""
    reader = _FileReader(path)
    tables = reader.tables(("server", "tls", "log"))
    dns = reader.dns(ServerDnsSettings, "server", tables)
    https = reader.https("server", tables)
    log = reader.section(LogSettings, "log", tables)
    alerts = [read_alert(reader, values) for values in reader.each(AlertSettings, "alert", tables, "server")]
    server = reader.section(ServerSettings, "server", tables)
    tls = reader.section(TlsSettings, "tls", tables)
    _check_server(reader, server)
    check_alerts(reader, alerts, server.get("alert_command", ()))
    reader.finish()
    return ServerConfig(
        ServerSettings(**server),
        TlsSettings(**reader.tls(tls)),
        ServerDnsSettings(**dns) if dns is not None else None,
        https,
        LogSettings(**log),
        tuple(AlertSettings(**values) for values in alerts),
    )


def read_host_config(path: Path) -> HostConfig:
    """Return the settings of opengnscd. Raises ConfigProblem with all problems of the file."""
    reader = _FileReader(path)
    tables = reader.tables(("host", "tls", "log"))
    dns = reader.dns(DnsSettings, "host", tables)
    hooks = [read_hook(reader, values) for values in reader.each(HookSettings, "hook", tables)]
    templates = [read_template(reader, values) for values in reader.each(TemplateSettings, "template", tables)]
    log = reader.section(LogSettings, "log", tables)
    host = reader.section(HostSettings, "host", tables)
    tls = reader.section(TlsSettings, "tls", tables)
    _check_host(reader, host)
    check_together(reader, hooks, templates)
    reader.finish()
    return HostConfig(
        HostSettings(**host),
        TlsSettings(**reader.tls(tls)),
        DnsSettings(**dns) if dns is not None else None,
        tuple(HookSettings(**values) for values in hooks),
        tuple(TemplateSettings(**values) for values in templates),
        LogSettings(**log),
    )


def parse_listen(text: str) -> tuple[str, int]:
    """Parse `address:port` to listen on; unlike an address to connect to, it may be `0.0.0.0` or `[::]`."""
    address, _, port = text.rpartition(":")
    if address in WILDCARDS:
        return WILDCARDS[address], parse_port_text(text, port)
    return parse_endpoint(text)


class _FileReader:
    """Reader of one file; collects its problems."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = path.absolute().parent
        self.problems: list[str] = []

    def tables(self, known: tuple[str, ...]) -> dict[str, Any]:
        """Return the file's sections. Raises ConfigProblem at once if the file is not TOML."""
        try:
            with self.path.open("rb") as file:
                data = file.read(CONFIG_OCTETS_MAX + 1)
        except OSError as error:
            raise ConfigProblem(self.path, [f"cannot be read: {error.strerror}"]) from None
        if len(data) > CONFIG_OCTETS_MAX:
            raise ConfigProblem(self.path, [f"has more than {CONFIG_OCTETS_MAX} octets; is it the right file?"])
        try:
            tables = tomllib.loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ConfigProblem(self.path, [f"is not TOML: {error}"]) from None
        for name in [name for name in tables if name not in known]:
            self.problems.append(f"there is no section [{name}]{_near(name, known, '[{}]')}")
        return tables

    def section(self, kind: type[Any], name: str, tables: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a section's keys, defaults included, without those that are missing or wrong."""
        table = tables.get(name, {})
        if not isinstance(table, dict):
            self.problems.append(f"{name} is a value; it must be a section [{name}]")
            return {}
        values: dict[str, Any] = {}
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        for key in [key for key in table if key not in fields]:
            self.problems.append(f"[{name}] has no key {key!r}{_near(key, fields, '{!r}')}")
        for key, field in fields.items():
            if key in table:
                try:
                    values[key] = _converted(table[key], field.type)
                except ValueError as error:
                    self.problems.append(f"[{name}] {key}: {error}")
            elif field.required:
                self.problems.append(f"[{name}] needs {key}: {description_of(kind, key)}")
            elif field.default is not msgspec.NODEFAULT:
                values[key] = field.default
        return values

    def https(self, within: str, tables: dict[str, Any]) -> HttpsSettings:
        """Return [server.https] and remove it from its table; without the section no port is opened."""
        name = f"{within}.https"
        values = self.section(HttpsSettings, name, self.inner(within, "https", tables))
        _check_listen(self, f"[{name}] listen", values.get("listen", ()))
        first = values.get("worker_ports") and self.parsed(
            f"[{name}] worker_ports", parse_listen, values["worker_ports"]
        )
        if first and first[1] + WORKERS_MAX - 1 > PORT_MAX:
            last = PORT_MAX - WORKERS_MAX + 1
            self.problems.append(
                f"[{name}] worker_ports: port {first[1]} leaves too few ports for workers; at most {last}"
            )
        return HttpsSettings(**values)

    def inner(self, within: str, name: str, tables: dict[str, Any]) -> dict[str, Any]:
        """Remove a section from the section that contains it. Returns it by its full name; empty if there is none."""
        outer = tables.get(within)
        if not isinstance(outer, dict) or name not in outer:
            return {}
        tables[within] = {key: value for key, value in outer.items() if key != name}
        return {f"{within}.{name}": outer[name]}

    def dns(self, kind: type[DnsSettings], within: str, tables: dict[str, Any]) -> dict[str, Any] | None:
        """Return [host.dns] or [server.dns] and remove it from its table; None if the file has no such section."""
        name = f"{within}.dns"
        inner = self.inner(within, "dns", tables)
        if not inner:
            return None
        values = self.section(kind, name, inner)
        if values.get("listen"):
            endpoint = self.parsed(f"[{name}] listen", parse_listen, values["listen"])
            if endpoint is not None and not _is_loopback(endpoint[0]):
                self.problems.append(
                    f"[{name}] listen: {endpoint[0]} is not a loopback address, and DNS is unencrypted: put a resolver "
                    "of yours in front of it (docs/reference/dns.md)"
                )
        if "zone" in values:
            values["zone"] = self.parsed(f"[{name}] zone", parse_host_name, values["zone"].removesuffix("."))
        return values

    def each(self, kind: type[Any], name: str, tables: dict[str, Any], within: str = "host") -> list[dict[str, Any]]:
        """Return the values of each [[within.name]] and remove them from their table."""
        outer = tables.get(within)
        if not isinstance(outer, dict) or name not in outer:
            return []
        tables[within] = {key: value for key, value in outer.items() if key != name}
        found = outer[name]
        if not isinstance(found, list):
            self.problems.append(f"[{within}.{name}] must be written [[{within}.{name}]]: there may be several")
            return []
        whole = f"{within}.{name}"
        return [self.section(kind, whole, {whole: table}) for table in found]

    def parsed(self, where: str, parse: Callable[[Text], Parsed], text: Text) -> Parsed | None:
        """Return the result of `parse`, or None if the text is wrong."""
        try:
            return parse(text)
        except InvalidName as problem:
            self.problems.append(f"{where}: {problem}")
            return None

    def near(self, name: str, known: Any, form: str) -> str:
        """Return a suggestion of the nearest known name for the end of a sentence; empty if none is near."""
        return _near(name, known, form)

    def absolute(self, text: str) -> str:
        """Return a path relative to the directory of the file as an absolute path."""
        return str(self.directory / text)

    def command(self, where: str, command: tuple[str, ...]) -> tuple[str, ...]:
        """Check that the program of a command can be run. Returns the command with an absolute path, if it has one."""
        program = self.absolute(command[0]) if "/" in command[0] else command[0]
        if shutil.which(program) is None:
            self.problems.append(f"{where}: there is no program {program!r}, or it is not executable")
        return (program, *command[1:])

    def tls(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return [tls] with absolute paths."""
        return {**values, **{name: self.absolute(values[name]) for name in ("certificate", "key", "authority")}}

    def finish(self) -> None:
        """Raise ConfigProblem if there are problems."""
        if self.problems:
            raise ConfigProblem(self.path, self.problems)


def _check_server(reader: _FileReader, server: dict[str, Any]) -> None:
    listen = server.get("listen")
    if listen is not None and not listen:
        reader.problems.append("[server] listen is empty: no host could connect")
    _check_listen(reader, "[server] listen", listen or ())
    if server.get("announce"):
        reader.parsed("[server] announce", parse_group, server["announce"])
    if command := server.get("alert_command"):
        server["alert_command"] = reader.command("[server] alert_command", command)
    if "store" in server:
        server["store"] = _store(reader, server["store"])


def _check_listen(reader: _FileReader, where: str, listen: tuple[str, ...]) -> None:
    """Check addresses to listen on: no two may overlap."""
    parsed = [reader.parsed(where, parse_listen, text) for text in listen]
    endpoints = Counter(endpoint for endpoint in parsed if endpoint is not None)
    for (address, port), times in endpoints.items():
        others = [other for other, at in endpoints if at == port and other != address]
        if times > 1:
            reader.problems.append(f"{where} names port {port} of {address} twice")
        if address == "::" and others:
            reader.problems.append(f"{where}: [::]:{port} includes {', '.join(others)}; leave that out")
        if address == "0.0.0.0" and any("." in other for other in others):
            reader.problems.append(f"{where}: 0.0.0.0:{port} includes every IPv4 address; leave the others out")


def _store(reader: _FileReader, text: str) -> str:
    """Return the store's URL with an absolute path."""
    # Imported here, because the import is slow and opengnscd has no store.
    from compass.store.engine import file_of, resolve_url
    from compass.store.errors import StoreUnusable

    try:
        url = resolve_url(text, reader.directory)
    except StoreUnusable as problem:
        reader.problems.append(f"[server] store: {problem}")
        return text
    if url.drivername == "sqlite" and file_of(url) is None:
        reader.problems.append("[server] store is in memory and would be lost; name a file: sqlite:////path")
    return url.render_as_string(hide_password=False)


def _check_host(reader: _FileReader, host: dict[str, Any]) -> None:
    _check_servers(reader, host)
    address = reader.parsed("[host] address", parse_address, host["address"]) if "address" in host else None
    if update := host.get("update"):
        endpoint = reader.parsed("[host] update", parse_listen, update)
        if endpoint is not None and address is not None and endpoint[0] not in (address, *WILDCARDS.values()):
            reader.problems.append(
                f"[host] update: servers would connect to {address}, not to {endpoint[0]}; "
                "listen on the same address, or on 0.0.0.0 or [::]"
            )
    elif update == "" and host.get("session") == "short":
        reader.problems.append("[host] session = short needs update: servers must be able to connect to this host")
    services = [reader.parsed("[host] services", parse_service_id, text) for text in host.get("services", ())]
    host["services"] = tuple(id for id in services if id is not None)
    if len(services) > HOST_SERVICES_MAX:
        reader.problems.append(f"[host] services names {len(services)}; at most {HOST_SERVICES_MAX}")
    if zone := host.get("zone"):
        host["zone"] = reader.parsed("[host] zone", lambda text: parse_label(text, "zone"), zone)
    _check_local(reader, host)


def _check_servers(reader: _FileReader, host: dict[str, Any]) -> None:
    if host.get("servers") == () and not host.get("announcements"):
        reader.problems.append("[host] servers is empty: there is no server to connect to")
    if len(host.get("servers", ())) > ENTRIES_MAX:
        reader.problems.append(f"[host] servers has more than {ENTRIES_MAX} entries; make one SRV name of them")
    for server in host.get("servers", ()):
        if isinstance(server, str) and is_service(server):
            reader.parsed("[host] servers", parse_service, server)
        else:
            reader.parsed("[host] servers", addresses_of, server)
    if host.get("resolver"):
        reader.parsed("[host] resolver", parse_endpoint, host["resolver"])
    if host.get("announcements"):
        reader.parsed("[host] announcements", parse_group, host["announcements"])


def _check_local(reader: _FileReader, host: dict[str, Any]) -> None:
    for key in ("api", "agent"):
        endpoint = reader.parsed(f"[host] {key}", parse_listen, host[key]) if host.get(key) else None
        if endpoint is not None and not _is_loopback(endpoint[0]):
            reader.problems.append(
                f"[host] {key}: {endpoint[0]} is not a loopback address, and this port is unencrypted"
            )
    if host.get("api") == host.get("socket") == "":
        reader.problems.append("[host] api and socket are both empty: no program could ask")
    if host.get("socket"):
        host["socket"] = socket = reader.absolute(host["socket"])
        octets = len(socket.encode())
        if octets > SOCKET_OCTETS_MAX:
            reader.problems.append(f"[host] socket: {socket} has {octets} octets; at most {SOCKET_OCTETS_MAX} work")
    if "state_directory" in host:
        host["state_directory"] = reader.absolute(host["state_directory"])
    if host.get("view") not in (None, "", NOT_SHARED):
        host["view"] = reader.absolute(host["view"])
    if group := host.get("view_group"):
        try:
            grp.getgrnam(group)
        except KeyError:
            reader.problems.append(f"[host] view_group: there is no group {group!r} on this host")


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _converted(value: object, kind: Any) -> Any:
    """Return `value` as the type of a key. Raises ValueError, which says what is allowed."""
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    choices = get_args(plain) if get_origin(plain) is Literal else ()
    if choices and value not in choices:
        raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
    converted = msgspec.convert(value, kind)
    texts = converted if isinstance(converted, tuple) else (converted,)
    if any(isinstance(text, str) and "\0" in text for text in texts):
        raise ValueError("contains a NUL character")
    return converted


def _near(name: str, known: Any, form: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {form.format(near[0])}?" if near else ""
