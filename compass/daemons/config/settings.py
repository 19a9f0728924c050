"""The settings of both daemons: every key of their configuration files with its default, its limits and its meaning.

The classes are the documentation: `--print-config` writes a file with every key, its default and its description, and
that file is read back by a test.
"""

from __future__ import annotations

import textwrap
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from compass.agent.hooks.hook import HookSettings
from compass.agent.hooks.template import TemplateSettings
from compass.daemons.config.alerts import ALERT_DESCRIPTIONS, ALERT_EXAMPLES, AlertSettings
from compass.daemons.config.hooks import REACTION_DESCRIPTIONS, REACTION_EXAMPLES
from compass.daemons.config.server_list import ServerEntry
from compass.model.names import SERVER_PORT

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

TTL_SECONDS_MAX = 3600
"""Longest time that resolvers may keep an answer: for so long they send users to a dead listener."""
TtlSeconds = Annotated[int, Meta(ge=0, le=TTL_SECONDS_MAX)]
Entries = Annotated[int, Meta(ge=KEEP_MIN, le=KEEP_MAX)]
StoreWaitSeconds = Annotated[float, Meta(ge=STORE_WAIT_SECONDS_MIN, le=STORE_WAIT_SECONDS_MAX)]
Workers = Annotated[int, Meta(ge=1, le=WORKERS_MAX)]
RefreshSeconds = Annotated[float, Meta(ge=REFRESH_SECONDS_MIN, le=REFRESH_SECONDS_MAX)]


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
    "on its own network, so that hosts find it (docs/explanation/discovery.md); empty: it does not.",
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
    "viewer's token; open, everybody who reaches the port (docs/reference/metrics.md).",
    "https.worker_ports": "With `workers`: address and first of as many ports, such as 127.0.0.1:4871, at which each "
    "worker serves the same API for itself, so that each can be scraped; empty: none.",
    "log.format": "text: lines for people. json: one object a line, for programs that collect logs "
    "(docs/reference/metrics.md).",
    "dns.listen": "Loopback address and port of DNS over UDP and TCP, usually port 4853; resolvers of this machine "
    "forward the zone here (docs/reference/dns.md). Empty, or without this section: no DNS.",
    "dns.zone": "The zone: chinaserver.openuss.gns is the service chinaserver.openuss. What lies outside is refused.",
    "dns.ttl": "Seconds that resolvers may keep an answer. With 0 a change counts for the very next lookup.",
    "host.servers": "Servers, the preferred first: name:port or address:port, which the certificate must show; one "
    'with several addresses, { name = "gns1.example.org", addresses = ["192.0.2.1", "198.51.100.1"] }; or an SRV name '
    "of DNS, _opengns._tcp.example.org. See docs/explanation/discovery.md.",
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
