"""Configuration files: TOML into settings, every mistake reported at once, every key documented.

The settings classes are the documentation: `--print-config` writes a file with every key, its default and its
description, and that file is read back by a test. What is returned is ready for use: relative paths in the file are
relative to the directory of the file, wherever the daemon is started from.
"""

from __future__ import annotations

import difflib
import grp
import shutil
import textwrap
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta

from compass.assembly.alerting import ALERT_DESCRIPTIONS, ALERT_EXAMPLES, AlertSettings, alert, check_alerts
from compass.assembly.reacting import REACTION_DESCRIPTIONS, REACTION_EXAMPLES, check_reactions, hook, template
from compass.assembly.servers import ENTRIES_MAX, ServerEntry, is_service, parse_service, ways_of
from compass.host.hooks import HookSettings
from compass.host.templates import TemplateSettings
from compass.model.administration import HOST_SERVICES_MAX
from compass.model.names import (
    PORT_MAX,
    SERVER_PORT,
    NameProblem,
    parse_address,
    parse_endpoint,
    parse_group,
    parse_host_name,
    parse_label,
    parse_port_text,
    parse_service_id,
)

CONFIG_OCTETS_MAX = 1024 * 1024
"""A configuration file is a page or two; a larger one is something else."""
SOCKET_OCTETS_MAX = 107
"""Longest path of a Unix socket: Linux has room for 108 octets, the last of which is zero (unix(7))."""
KEEP_MIN = 1_000
"""A shorter update log sends everybody who was away for a moment back to a full reading."""
KEEP_MAX = 1_000_000_000
"""More log entries than a disk has room for are a slip of the hand."""
STORE_WAIT_SECONDS_MIN = 0.1
"""A shorter wait would refuse what a busy disk takes anyway."""
STORE_WAIT_SECONDS_MAX = 20.0
"""Whoever asks gives up after 30 s (opengnsp.md, "Timers") and must hear the refusal before."""
WORKERS_MAX = 64
"""Each keeps the whole catalogue in memory and follows the others' log: more than a machine has cores are a slip."""
REFRESH_SECONDS_MIN = 1.0
"""Asking more often than this is what a kept session is for."""
REFRESH_SECONDS_MAX = 86_400.0
"""A host that looks less often than daily has no use for a name service."""

API_PORT = 4866
NOT_SHARED = "none"
"""In place of a directory: the view is not shared."""
DNS_PORT = 4853
WILDCARDS = {"0.0.0.0": "0.0.0.0", "[::]": "::"}
"""Every address of the machine, as written and as listened to; the second takes IPv4, too."""

Text = TypeVar("Text")
Parsed = TypeVar("Parsed")
TTL_SECONDS_MAX = 3600
"""Longest time that resolvers may keep an answer: for so long they send users to a dead listener."""
TtlSeconds = Annotated[int, Meta(ge=0, le=TTL_SECONDS_MAX)]
Entries = Annotated[int, Meta(ge=KEEP_MIN, le=KEEP_MAX)]
StoreWaitSeconds = Annotated[float, Meta(ge=STORE_WAIT_SECONDS_MIN, le=STORE_WAIT_SECONDS_MAX)]
Workers = Annotated[int, Meta(ge=1, le=WORKERS_MAX)]
RefreshSeconds = Annotated[float, Meta(ge=REFRESH_SECONDS_MIN, le=REFRESH_SECONDS_MAX)]


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
    announce: str = ""
    workers: Workers = 1
    alert_command: tuple[str, ...] = ()
    keep_updates: Entries = 1_000_000
    keep_others: Entries = 100_000
    store_wait_seconds: StoreWaitSeconds = 3.0


class HttpsSettings(msgspec.Struct, frozen=True):
    """Keys of [server.https] in the file of opengnssd."""

    listen: tuple[str, ...] = ()
    metrics: Literal["known", "open"] = "known"
    worker_ports: str = ""


class LogSettings(msgspec.Struct, frozen=True):
    """Keys of [log]: how this daemon writes its log."""

    format: Literal["text", "json"] = "text"


class HostSettings(msgspec.Struct, frozen=True):
    """Keys of [host] in the file of opengnscd."""

    servers: tuple[str | ServerEntry, ...]
    state_directory: str
    address: str
    prefer: Literal["first", "any"] = "first"
    resolver: str = ""
    announcements: str = ""
    api: str = f"127.0.0.1:{API_PORT}"
    socket: str = "/run/opengns/opengnscd.sock"
    agent: str = ""
    view: str = ""
    view_group: str = ""
    update: str = ""
    session: Literal["keep", "short"] = "keep"
    refresh_seconds: RefreshSeconds = 300.0
    zone: str = ""
    services: tuple[str, ...] = ()


class DnsSettings(msgspec.Struct, frozen=True):
    """Keys of [host.dns]."""

    listen: str = f"127.0.0.1:{DNS_PORT}"
    zone: str = "gns"
    ttl: TtlSeconds = 0


class ServerDnsSettings(DnsSettings, frozen=True):
    """Keys of [server.dns]: the same, but nothing is listened to unless it is said where. A host may be beside it."""

    listen: str = ""


_REPEATED = REACTION_DESCRIPTIONS | ALERT_DESCRIPTIONS
DESCRIPTIONS = _REPEATED | {
    "tls.certificate": "Certificate of this daemon, PEM; intermediate certificates may follow in the file. Relative "
    "paths in this file are relative to its directory.",
    "tls.key": "Its private key, PEM, readable by this daemon only.",
    "tls.authority": "Certificates of the authorities that vouch for the others, PEM.",
    "tls.admin": "Patterns of certificate names with the role admin. Without any of these three lists the role is the "
    "OU of a certificate's subject.",
    "tls.host": "Patterns of certificate names with the role host.",
    "tls.server": "Patterns of certificate names with the role server.",
    "server.store": "Where everything is stored: sqlite:////path/to/file, sqlite:///file beside this file, or "
    "postgresql://user@host/database.",
    "server.name": "The server's name in logs and answers; without it, the one in its certificate.",
    "server.listen": "Addresses and ports for OpenGNSP over TLS. [::] is every address, IPv4 too; on a machine "
    "without IPv6 it stands for 0.0.0.0.",
    "server.announce": "Multicast group and port, such as 239.255.48.63:4863, to which this server announces itself "
    "on its own network, so that hosts find it (docs/discovery.md); empty: it does not.",
    "server.workers": "Processes that serve on these addresses, over the one store: as many as cores to be used. Each "
    "is a server of its own with the whole catalogue in memory; one that dies is started again.",
    "server.alert_command": "Program and arguments that are run for each alert, with JSON on standard input: the "
    "same as a [[server.alert]] of that way. Without either, alerts are logged only.",
    "server.keep_updates": "Entries kept in the update log; hosts that missed more read everything again.",
    "server.keep_others": "Entries kept in the security and the administration log, each.",
    "server.store_wait_seconds": "How long a change waits for a store that is away before it is refused, to be asked "
    "again later; lookups and pushes go on meanwhile.",
    "https.listen": 'Addresses and ports for the HTTPS API, usually ["[::]:4864"]: JSON for whatever '
    "opengnsadmin can do, by client certificate or bearer token, /healthz and /readyz; empty: none.",
    "https.metrics": "Who may read /metrics: known, whoever may ask for the server's status, by certificate or by a "
    "viewer's token; open, everybody who reaches the port (docs/metrics.md).",
    "https.worker_ports": "With `workers`: address and first of as many ports, such as 127.0.0.1:4871, at which each "
    "worker serves the same API for itself, so that each can be scraped; empty: none.",
    "log.format": "text: lines for people. json: one object a line, for programs that collect logs (docs/metrics.md).",
    "dns.listen": "Loopback address and port of DNS over UDP and TCP, usually port 4853; resolvers of this machine "
    "forward the zone here (docs/dns.md). Empty, or without this section: no DNS.",
    "dns.zone": "The zone: chinaserver.openuss.gns is the service chinaserver.openuss. What lies outside is refused.",
    "dns.ttl": "Seconds that resolvers may keep an answer. With 0 a change counts for the very next lookup.",
    "host.servers": "Servers, the preferred first: name:port or address:port, which the certificate must show; one "
    'with several addresses, { name = "gns1.example.org", addresses = ["192.0.2.1", "198.51.100.1"] }; or an SRV name '
    "of DNS, _opengns._tcp.example.org. See docs/discovery.md.",
    "host.prefer": "first: the order of `servers` is that of preference. any: all are equal, each host takes one by "
    "chance.",
    "host.resolver": "Address and port of the DNS server that is asked for SRV names; empty: those of "
    "/etc/resolv.conf.",
    "host.announcements": "Multicast group and port, such as 239.255.48.63:4863, on which servers announce themselves; "
    "those that prove to be servers are used after all in `servers`, which may then be empty. Empty: nothing is heard.",
    "host.state_directory": "Where the catalogue and the registrations survive a restart; made when it is missing.",
    "host.address": "The address that listeners of this host are registered with unless they name one, and at which "
    "servers dial `update`.",
    "host.api": "Loopback address and port of the HTTP API for programs on this host; empty: Unix socket only.",
    "host.view": "Directory in which the host's view is shared in memory, for lookups that cost no call "
    "(protocols/shared-view.md); empty: `view` beside the socket. none: it is not shared.",
    "host.view_group": "The only group that may read the shared view; empty: everybody on this host.",
    "host.socket": "Path of the Unix socket with the same API; empty: none.",
    "host.agent": "Loopback address and port that answer HAProxy's agent-check, usually 127.0.0.1:4867; empty: none. "
    'Each server line sends its own name: agent-send "SERVICE ADDRESS:PORT\\n".',
    "host.update": "Address and port where a server may dial this host, usually port 4865: `address`, or 0.0.0.0 or "
    "[::] for every address; empty: it is not dialled.",
    "host.session": "keep: one session stays open. short: connect, ask, leave; the server dials `update` to push.",
    "host.refresh_seconds": "How often to look for changes that were missed.",
    "host.services": "Services on whose behalf this host is told from the start. Those that register here or ask for "
    "their dependencies need not be named; programs that only use DNS never ask.",
    "host.zone": "Where this host is, one label: a data centre, a room. Its listeners are registered with it, and "
    "where a category's locality says so, its programs are given listeners of the same zone first.",
}
"""What each key means."""

EXAMPLES: dict[str, str | list[str]] = (
    ALERT_EXAMPLES
    | REACTION_EXAMPLES
    | {
        "tls.certificate": "tls/NAME.crt",
        "tls.key": "tls/NAME.key",
        "tls.authority": "tls/authority.crt",
        "server.store": "sqlite:////var/lib/opengns/catalogue.sqlite3",
        "host.servers": [f"gns1.example.org:{SERVER_PORT}", f"gns2.example.org:{SERVER_PORT}"],
        "host.state_directory": "/var/lib/opengns/host",
        "host.address": "192.0.2.10",
    }
)
"""What the required keys look like."""


class ServerConfig(msgspec.Struct, frozen=True):
    """The file of opengnssd."""

    server: ServerSettings
    tls: TlsSettings
    dns: ServerDnsSettings | None = None
    """[server.dns]. None: there is no such section, and no DNS."""
    https: HttpsSettings = HttpsSettings()
    """[server.https]."""
    log: LogSettings = LogSettings()
    alerts: tuple[AlertSettings, ...] = ()
    """Each [[server.alert]]."""


class HostConfig(msgspec.Struct, frozen=True):
    """The file of opengnscd."""

    host: HostSettings
    tls: TlsSettings
    dns: DnsSettings | None = None
    """[host.dns]. None: there is no such section, and no DNS."""
    hooks: tuple[HookSettings, ...] = ()
    """Each [[host.hook]]."""
    templates: tuple[TemplateSettings, ...] = ()
    """Each [[host.template]]."""
    log: LogSettings = LogSettings()


def read_server_config(path: Path) -> ServerConfig:
    """The settings of opengnssd. Raises ConfigProblem with everything that is wrong."""
    reading = _Reading(path)
    tables = reading.tables(("server", "tls", "log"))
    dns = reading.dns(ServerDnsSettings, "server", tables)
    https = reading.https("server", tables)
    log = reading.section(LogSettings, "log", tables)
    alerts = [alert(reading, values) for values in reading.each(AlertSettings, "alert", tables, "server")]
    server = reading.section(ServerSettings, "server", tables)
    tls = reading.section(TlsSettings, "tls", tables)
    _check_server(reading, server)
    check_alerts(reading, alerts, server.get("alert_command", ()))
    reading.finish()
    return ServerConfig(
        ServerSettings(**server),
        TlsSettings(**reading.tls(tls)),
        ServerDnsSettings(**dns) if dns is not None else None,
        https,
        LogSettings(**log),
        tuple(AlertSettings(**values) for values in alerts),
    )


def read_host_config(path: Path) -> HostConfig:
    """The settings of opengnscd. Raises ConfigProblem with everything that is wrong."""
    reading = _Reading(path)
    tables = reading.tables(("host", "tls", "log"))
    dns = reading.dns(DnsSettings, "host", tables)
    hooks = [hook(reading, values) for values in reading.each(HookSettings, "hook", tables)]
    templates = [template(reading, values) for values in reading.each(TemplateSettings, "template", tables)]
    log = reading.section(LogSettings, "log", tables)
    host = reading.section(HostSettings, "host", tables)
    tls = reading.section(TlsSettings, "tls", tables)
    _check_host(reading, host)
    check_reactions(reading, hooks, templates)
    reading.finish()
    return HostConfig(
        HostSettings(**host),
        TlsSettings(**reading.tls(tls)),
        DnsSettings(**dns) if dns is not None else None,
        tuple(HookSettings(**values) for values in hooks),
        tuple(TemplateSettings(**values) for values in templates),
        LogSettings(**log),
    )


def parse_listen(text: str) -> tuple[str, int]:
    """`address:port` to listen on; unlike an address to connect to it may be `0.0.0.0` or `[::]`."""
    address, _, port = text.rpartition(":")
    if address in WILDCARDS:
        return WILDCARDS[address], parse_port_text(text, port)
    return parse_endpoint(text)


def sections_of(kind: type[ServerConfig | HostConfig]) -> dict[str, type[Any]]:
    """The sections of a file, as they are written, with the class of their keys."""
    if kind is ServerConfig:
        return {
            "server": ServerSettings,
            "tls": TlsSettings,
            "server.dns": ServerDnsSettings,
            "server.https": HttpsSettings,
            "log": LogSettings,
        }
    return {"host": HostSettings, "tls": TlsSettings, "host.dns": DnsSettings, "log": LogSettings}


def repeated_of(kind: type[ServerConfig | HostConfig]) -> dict[str, type[Any]]:
    """The sections of which there may be several, or none."""
    if kind is ServerConfig:
        return {"server.alert": AlertSettings}
    return {"host.hook": HookSettings, "host.template": TemplateSettings}


def example(kind: type[ServerConfig | HostConfig]) -> str:
    """A configuration file with every key, its default and what it means; it can be read as it is."""
    lines: list[str] = []
    for name, settings in sections_of(kind).items():
        lines.append(f"[{name}]")
        for field in msgspec.structs.fields(settings):
            key = f"{name.rpartition('.')[2]}.{field.name}"
            lines += textwrap.wrap(DESCRIPTIONS[key], 100, initial_indent="# ", subsequent_indent="# ")
            shown = msgspec.json.encode(EXAMPLES[key] if field.required else field.default).decode()
            lines += [f"{'' if field.required else '# '}{field.name} = {shown}", ""]
    for name, settings in repeated_of(kind).items():
        # All of it is a comment: two characters taken away from each line make a section of it.
        lines.append(f"# [[{name}]]")
        for field in msgspec.structs.fields(settings):
            key = f"{name.rpartition('.')[2]}.{field.name}"
            lines += textwrap.wrap(DESCRIPTIONS[key], 100, initial_indent="#   # ", subsequent_indent="#   # ")
            default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            shown = msgspec.json.encode(EXAMPLES[key] if field.required else default).decode()
            lines.append(f"#   {'' if field.required else '# '}{field.name} = {shown}")
        lines.append("")
    return "\n".join(lines).rstrip("\n")


class _Reading:
    """One file being read; collects what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = path.absolute().parent
        self.problems: list[str] = []

    def tables(self, known: tuple[str, ...]) -> dict[str, Any]:
        """The file's sections; what is no TOML has no other mistakes worth telling."""
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
        """The values of a section's keys, defaults included, without those that are missing or wrong."""
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
                described = DESCRIPTIONS.get(f"{name}.{key}") or DESCRIPTIONS[f"{name.rpartition('.')[2]}.{key}"]
                self.problems.append(f"[{name}] needs {key}: {described}")
            elif field.default is not msgspec.NODEFAULT:
                values[key] = field.default
        return values

    def https(self, within: str, tables: dict[str, Any]) -> HttpsSettings:
        """[server.https], taken out of its table; nothing listens when the file has no such section."""
        name = f"{within}.https"
        values = self.section(HttpsSettings, name, self.inner(within, "https", tables))
        _check_listen(self, f"[{name}] listen", values.get("listen", ()))
        first = values.get("worker_ports") and self.parsed(
            f"[{name}] worker_ports", parse_listen, values["worker_ports"]
        )
        if first and first[1] + WORKERS_MAX - 1 > PORT_MAX:
            last = PORT_MAX - WORKERS_MAX + 1
            self.problems.append(f"[{name}] worker_ports: from port {first[1]} there may be too few; at most {last}")
        return HttpsSettings(**values)

    def inner(self, within: str, name: str, tables: dict[str, Any]) -> dict[str, Any]:
        """A section that stands within another, taken out of it, by its whole name; empty when there is none."""
        outer = tables.get(within)
        if not isinstance(outer, dict) or name not in outer:
            return {}
        tables[within] = {key: value for key, value in outer.items() if key != name}
        return {f"{within}.{name}": outer[name]}

    def dns(self, kind: type[DnsSettings], within: str, tables: dict[str, Any]) -> dict[str, Any] | None:
        """[host.dns] or [server.dns], taken out of its table; None when the file has no such section."""
        name = f"{within}.dns"
        inner = self.inner(within, "dns", tables)
        if not inner:
            return None
        values = self.section(kind, name, inner)
        if values.get("listen"):
            endpoint = self.parsed(f"[{name}] listen", parse_listen, values["listen"])
            if endpoint is not None and not _is_loopback(endpoint[0]):
                self.problems.append(
                    f"[{name}] listen: {endpoint[0]} is not a loopback address; off the loopback nothing is served "
                    "unencrypted: put a resolver of yours in front of it (docs/dns.md)"
                )
        if "zone" in values:
            values["zone"] = self.parsed(f"[{name}] zone", parse_host_name, values["zone"].removesuffix("."))
        return values

    def each(self, kind: type[Any], name: str, tables: dict[str, Any], within: str = "host") -> list[dict[str, Any]]:
        """The values of each [[host.NAME]], taken out of the table of [host]; or of `within` in its place."""
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
        """What `parse` makes of it, or None when it is wrong."""
        try:
            return parse(text)
        except NameProblem as problem:
            self.problems.append(f"{where}: {problem}")
            return None

    def near(self, name: str, known: Any, form: str) -> str:
        """The one that was probably meant, for the end of a sentence."""
        return _near(name, known, form)

    def absolute(self, text: str) -> str:
        """A path that does not depend on where the daemon was started."""
        return str(self.directory / text)

    def tls(self, values: dict[str, Any]) -> dict[str, Any]:
        """[tls] with absolute paths."""
        return {**values, **{name: self.absolute(values[name]) for name in ("certificate", "key", "authority")}}

    def finish(self) -> None:
        """Raises ConfigProblem when anything was wrong."""
        if self.problems:
            raise ConfigProblem(self.path, self.problems)


def _check_server(reading: _Reading, server: dict[str, Any]) -> None:
    listen = server.get("listen")
    if listen is not None and not listen:
        reading.problems.append("[server] listen is empty: the server would serve nobody")
    _check_listen(reading, "[server] listen", listen or ())
    if server.get("announce"):
        reading.parsed("[server] announce", parse_group, server["announce"])
    if command := server.get("alert_command"):
        program = reading.absolute(command[0]) if "/" in command[0] else command[0]
        if shutil.which(program) is None:
            reading.problems.append(f"[server] alert_command: there is no program {program!r}, or it may not be run")
        server["alert_command"] = (program, *command[1:])
    if "store" in server:
        server["store"] = _store(reading, server["store"])


def _check_listen(reading: _Reading, where: str, listen: tuple[str, ...]) -> None:
    """Addresses to listen on, none of which takes what another one wants."""
    parsed = [reading.parsed(where, parse_listen, text) for text in listen]
    endpoints = Counter(endpoint for endpoint in parsed if endpoint is not None)
    for (address, port), times in endpoints.items():
        others = [other for other, at in endpoints if at == port and other != address]
        if times > 1:
            reading.problems.append(f"{where} names port {port} of {address} twice")
        if address == "::" and others:
            reading.problems.append(f"{where}: [::]:{port} takes {', '.join(others)} too; leave that out")
        if address == "0.0.0.0" and any("." in other for other in others):
            reading.problems.append(f"{where}: 0.0.0.0:{port} takes every IPv4 address; leave the others out")


def _store(reading: _Reading, text: str) -> str:
    """The store's URL with an absolute path."""
    # Only here, because it takes its time and opengnscd has no store.
    from compass.store.connect import file_of, located
    from compass.store.errors import StoreUnusable

    try:
        url = located(text, reading.directory)
    except StoreUnusable as problem:
        reading.problems.append(f"[server] store: {problem}")
        return text
    if url.drivername == "sqlite" and file_of(url) is None:
        reading.problems.append("[server] store is in memory and would be lost; name a file: sqlite:////path")
    return url.render_as_string(hide_password=False)


def _check_host(reading: _Reading, host: dict[str, Any]) -> None:
    if host.get("servers") == () and not host.get("announcements"):
        reading.problems.append("[host] servers is empty: there is nobody to ask")
    if len(host.get("servers", ())) > ENTRIES_MAX:
        reading.problems.append(f"[host] servers has more than {ENTRIES_MAX} entries; make one SRV name of them")
    for server in host.get("servers", ()):
        if isinstance(server, str) and is_service(server):
            reading.parsed("[host] servers", parse_service, server)
        else:
            reading.parsed("[host] servers", ways_of, server)
    if host.get("resolver"):
        reading.parsed("[host] resolver", parse_endpoint, host["resolver"])
    if host.get("announcements"):
        reading.parsed("[host] announcements", parse_group, host["announcements"])
    address = reading.parsed("[host] address", parse_address, host["address"]) if "address" in host else None
    if update := host.get("update"):
        endpoint = reading.parsed("[host] update", parse_listen, update)
        if endpoint is not None and address is not None and endpoint[0] not in (address, *WILDCARDS.values()):
            reading.problems.append(
                f"[host] update: servers would dial address {address}, not {endpoint[0]}; "
                "listen on the same one, or on 0.0.0.0 or [::]"
            )
    elif update == "" and host.get("session") == "short":
        reading.problems.append("[host] session = short needs update: the server must be able to dial this host")
    services = [reading.parsed("[host] services", parse_service_id, text) for text in host.get("services", ())]
    host["services"] = tuple(id for id in services if id is not None)
    if len(services) > HOST_SERVICES_MAX:
        reading.problems.append(f"[host] services names {len(services)}; at most {HOST_SERVICES_MAX}")
    if zone := host.get("zone"):
        host["zone"] = reading.parsed("[host] zone", lambda text: parse_label(text, "zone"), zone)
    _check_local(reading, host)


def _check_local(reading: _Reading, host: dict[str, Any]) -> None:
    for key in ("api", "agent"):
        endpoint = reading.parsed(f"[host] {key}", parse_listen, host[key]) if host.get(key) else None
        if endpoint is not None and not _is_loopback(endpoint[0]):
            reading.problems.append(
                f"[host] {key}: {endpoint[0]} is not a loopback address; off the loopback nothing is served unencrypted"
            )
    if host.get("api") == host.get("socket") == "":
        reading.problems.append("[host] api and socket are both empty: no program could ask")
    if host.get("socket"):
        host["socket"] = socket = reading.absolute(host["socket"])
        octets = len(socket.encode())
        if octets > SOCKET_OCTETS_MAX:
            reading.problems.append(f"[host] socket: {socket} has {octets} octets; at most {SOCKET_OCTETS_MAX} work")
    if "state_directory" in host:
        host["state_directory"] = reading.absolute(host["state_directory"])
    if host.get("view") not in (None, "", NOT_SHARED):
        host["view"] = reading.absolute(host["view"])
    if group := host.get("view_group"):
        try:
            grp.getgrnam(group)
        except KeyError:
            reading.problems.append(f"[host] view_group: there is no group {group!r} on this host")


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _converted(value: object, kind: Any) -> Any:
    """`value` as what the key must be; ValueError says what would be right."""
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices and value not in choices:
        raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
    converted = msgspec.convert(value, kind)
    texts = converted if isinstance(converted, tuple) else (converted,)
    if any(isinstance(text, str) and "\0" in text for text in texts):
        raise ValueError("there is a NUL character in it")
    return converted


def _near(name: str, known: Any, form: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {form.format(near[0])}?" if near else ""
