"""Sections of the configuration files: every key with its type, its limits, its default and its meaning."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

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

    certificate: Annotated[
        str,
        Meta(
            description=(
                "Certificate of this daemon, PEM; intermediate certificates may follow in the file. Relative "
                "paths in this file are relative to its directory."
            ),
            examples=["tls/NAME.crt"],
        ),
    ]
    key: Annotated[
        str, Meta(description="Its private key, PEM, readable by this daemon only.", examples=["tls/NAME.key"])
    ]
    authority: Annotated[
        str,
        Meta(
            description=("Certificates of the authorities that vouch for the others, PEM."),
            examples=["tls/authority.crt"],
        ),
    ]
    admin: Annotated[
        tuple[str, ...],
        Meta(
            description=(
                "Patterns of certificate names with the role admin. Without any of these three lists the role is "
                "the OU of a certificate's subject."
            )
        ),
    ] = ()
    host: Annotated[tuple[str, ...], Meta(description="Patterns of certificate names with the role host.")] = ()
    server: Annotated[tuple[str, ...], Meta(description="Patterns of certificate names with the role server.")] = ()


class ServerSettings(msgspec.Struct, frozen=True):
    """Keys of [server] in the file of opengnssd."""

    store: Annotated[
        str,
        Meta(
            description=(
                "Where everything is stored: sqlite:////path/to/file, sqlite:///file beside this file, or "
                "postgresql://user@host/database."
            ),
            examples=["sqlite:////var/lib/opengns/catalogue.sqlite3"],
        ),
    ]
    name: Annotated[
        str, Meta(description=("The server's name in logs and answers; without it, the one in its certificate."))
    ] = ""
    listen: Annotated[
        tuple[str, ...],
        Meta(
            description=(
                "Addresses and ports for OpenGNSP over TLS. [::] is every address, IPv4 too; on a machine without"
                " IPv6 it stands for 0.0.0.0."
            )
        ),
    ] = (f"[::]:{SERVER_PORT}",)
    announce: Annotated[
        str,
        Meta(
            description=(
                "Multicast group and port, such as 239.255.48.63:4863, to which this server announces itself on "
                "its own network, so that hosts find it (docs/discovery.md); empty: it does not."
            )
        ),
    ] = ""
    workers: Annotated[
        Workers,
        Meta(
            description=(
                "Processes that serve on these addresses, over the one store: as many as cores to be used. Each "
                "is a server of its own with the whole catalogue in memory; one that dies is started again."
            )
        ),
    ] = 1
    alert_command: Annotated[
        tuple[str, ...],
        Meta(
            description=(
                "Program and arguments that are run for each alert, with JSON on standard input: the same as a "
                "[[server.alert]] of that way. Without either, alerts are logged only."
            )
        ),
    ] = ()
    keep_updates: Annotated[
        Entries, Meta(description=("Entries kept in the update log; hosts that missed more read everything again."))
    ] = 1_000_000
    keep_others: Annotated[
        Entries, Meta(description=("Entries kept in the security and the administration log, each."))
    ] = 100_000
    store_wait_seconds: Annotated[
        StoreWaitSeconds,
        Meta(
            description=(
                "How long a change waits for a store that is away before it is refused, to be asked again later; "
                "lookups and pushes go on meanwhile."
            )
        ),
    ] = 3.0


class HttpsSettings(msgspec.Struct, frozen=True):
    """Keys of [server.https] in the file of opengnssd."""

    listen: Annotated[
        tuple[str, ...],
        Meta(
            description=(
                'Addresses and ports for the HTTPS API, usually ["[::]:4864"]: JSON for whatever opengnsadmin can'
                " do, by client certificate or bearer token, /healthz and /readyz; empty: none."
            )
        ),
    ] = ()
    metrics: Annotated[
        Literal["known", "open"],
        Meta(
            description=(
                "Who may read /metrics: known, whoever may ask for the server's status, by certificate or by a "
                "viewer's token; open, everybody who reaches the port (docs/metrics.md)."
            )
        ),
    ] = "known"
    worker_ports: Annotated[
        str,
        Meta(
            description=(
                "With `workers`: address and first of as many ports, such as 127.0.0.1:4871, at which each worker"
                " serves the same API for itself, so that each can be scraped; empty: none."
            )
        ),
    ] = ""


class LogSettings(msgspec.Struct, frozen=True):
    """Keys of [log]: how this daemon writes its log."""

    format: Annotated[
        Literal["text", "json"],
        Meta(
            description=(
                "text: lines for people. json: one object a line, for programs that collect logs (docs/metrics.md)."
            )
        ),
    ] = "text"


class HostSettings(msgspec.Struct, frozen=True):
    """Keys of [host] in the file of opengnscd."""

    servers: Annotated[
        tuple[str | ServerEntry, ...],
        Meta(
            description=(
                "Servers, the preferred first: name:port or address:port, which the certificate must show; one "
                'with several addresses, { name = "gns1.example.org", addresses = ["192.0.2.1", "198.51.100.1"] '
                "}; or an SRV name of DNS, _opengns._tcp.example.org. See docs/discovery.md."
            ),
            examples=[["gns1.example.org:4863", "gns2.example.org:4863"]],
        ),
    ]
    state_directory: Annotated[
        str,
        Meta(
            description=("Where the catalogue and the registrations survive a restart; made when it is missing."),
            examples=["/var/lib/opengns/host"],
        ),
    ]
    address: Annotated[
        str,
        Meta(
            description=(
                "The address that listeners of this host are registered with unless they name one, and at which "
                "servers dial `update`."
            ),
            examples=["192.0.2.10"],
        ),
    ]
    prefer: Annotated[
        Literal["first", "any"],
        Meta(
            description=(
                "first: the order of `servers` is that of preference. any: all are equal, each host takes one by "
                "chance."
            )
        ),
    ] = "first"
    resolver: Annotated[
        str,
        Meta(
            description=(
                "Address and port of the DNS server that is asked for SRV names; empty: those of /etc/resolv.conf."
            )
        ),
    ] = ""
    announcements: Annotated[
        str,
        Meta(
            description=(
                "Multicast group and port, such as 239.255.48.63:4863, on which servers announce themselves; "
                "those that prove to be servers are used after all in `servers`, which may then be empty. Empty: "
                "nothing is heard."
            )
        ),
    ] = ""
    api: Annotated[
        str,
        Meta(
            description=(
                "Loopback address and port of the HTTP API for programs on this host; empty: Unix socket only."
            )
        ),
    ] = f"127.0.0.1:{API_PORT}"
    socket: Annotated[str, Meta(description="Path of the Unix socket with the same API; empty: none.")] = (
        "/run/opengns/opengnscd.sock"
    )
    agent: Annotated[
        str,
        Meta(
            description=(
                "Loopback address and port that answer HAProxy's agent-check, usually 127.0.0.1:4867; empty: "
                'none. Each server line sends its own name: agent-send "SERVICE ADDRESS:PORT\\n".'
            )
        ),
    ] = ""
    view: Annotated[
        str,
        Meta(
            description=(
                "Directory in which the host's view is shared in memory, for lookups that cost no call "
                "(protocols/shared-view.md); empty: `view` beside the socket. none: it is not shared."
            )
        ),
    ] = ""
    view_group: Annotated[
        str, Meta(description=("The only group that may read the shared view; empty: everybody on this host."))
    ] = ""
    update: Annotated[
        str,
        Meta(
            description=(
                "Address and port where a server may dial this host, usually port 4865: `address`, or 0.0.0.0 or "
                "[::] for every address; empty: it is not dialled."
            )
        ),
    ] = ""
    session: Annotated[
        Literal["keep", "short"],
        Meta(
            description=("keep: one session stays open. short: connect, ask, leave; the server dials `update` to push.")
        ),
    ] = "keep"
    refresh_seconds: Annotated[RefreshSeconds, Meta(description="How often to look for changes that were missed.")] = (
        300.0
    )
    zone: Annotated[
        str,
        Meta(
            description=(
                "Where this host is, one label: a data centre, a room. Its listeners are registered with it, and "
                "where a category's locality says so, its programs are given listeners of the same zone first."
            )
        ),
    ] = ""
    services: Annotated[
        tuple[str, ...],
        Meta(
            description=(
                "Services on whose behalf this host is told from the start. Those that register here or ask for "
                "their dependencies need not be named; programs that only use DNS never ask."
            )
        ),
    ] = ()


class DnsSettings(msgspec.Struct, frozen=True):
    """Keys of [host.dns]."""

    listen: Annotated[
        str,
        Meta(
            description=(
                "Loopback address and port of DNS over UDP and TCP, usually port 4853; resolvers of this machine "
                "forward the zone here (docs/dns.md). Empty, or without this section: no DNS."
            )
        ),
    ] = f"127.0.0.1:{DNS_PORT}"
    zone: Annotated[
        str,
        Meta(
            description=(
                "The zone: chinaserver.openuss.gns is the service chinaserver.openuss. What lies outside is refused."
            )
        ),
    ] = "gns"
    ttl: Annotated[
        TtlSeconds,
        Meta(
            description=("Seconds that resolvers may keep an answer. With 0 a change counts for the very next lookup.")
        ),
    ] = 0


class ServerDnsSettings(DnsSettings, frozen=True):
    """Keys of [server.dns]: the same, but nothing is listened to unless it is said where. A host may be beside it."""

    listen: Annotated[
        str,
        Meta(
            description=(
                "Loopback address and port of DNS over UDP and TCP, usually port 4853; resolvers of this machine "
                "forward the zone here (docs/dns.md). Empty, or without this section: no DNS."
            )
        ),
    ] = ""
