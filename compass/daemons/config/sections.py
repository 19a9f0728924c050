"""Sections of the configuration files: every key with its type, its limits, its default and its meaning."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from compass.daemons.config.bounds import (
    CredentialChangesBurst,
    CredentialChangesPerSecond,
    HostChangesBurst,
    HostChangesPerSecond,
    HostDevelopment,
    KeepOthersOctets,
    KeepUpdatesOctets,
    ProbeNetworksDenied,
    ProbeNetworksKey,
    ServerDevelopment,
)
from compass.daemons.config.fields import about
from compass.daemons.config.server_list import ServerEntry
from compass.model.limits import STORE_WAIT_SECONDS_MAX as STORE_WAIT_SECONDS_MAX
from compass.model.names import SERVER_PORT
from compass.server.commit.log_trimmer import LogBounds
from compass.server.sessions.rate_limit import (
    CREDENTIAL_CHANGES_BURST_MAX,
    CREDENTIAL_CHANGES_PER_SECOND_MAX,
    HOST_CHANGES_BURST_MAX,
    HOST_CHANGES_PER_SECOND_MAX,
)

KEEP_MIN = 1_000
"""A shorter update log would force each host that was disconnected for a moment to read everything again."""
KEEP_MAX = 1_000_000_000
"""More log entries than a disk has room for are a slip of the hand."""
STORE_WAIT_SECONDS_MIN = 0.1
"""A shorter wait would refuse what a busy disk accepts a moment later."""

WORKERS_MAX = 64
"""Each worker keeps the whole catalogue in memory and follows the others' log: more than a machine has cores are a
slip."""
REFRESH_SECONDS_MIN = 1.0
"""A shorter interval is the purpose of a kept session."""
REFRESH_SECONDS_MAX = 86_400.0
"""A host that polls less often than daily has no use for a name service."""

SERVER_LISTEN = (f"[::]:{SERVER_PORT}",)
API_PORT = 4866
AUTO_ADDRESS = "auto"
"""Value of `address` for the address that this machine has now."""
NOT_SHARED = "none"
"""Value in place of a directory: the view is not shared."""
DNS_PORT = 4853

CERTIFICATE_SECONDS = 365 * 86_400.0
"""Lifetime of a certificate that renews itself: a machine that was switched off for four months still has a valid one,
and a stolen key is worth nothing a year later."""
CERTIFICATE_SECONDS_MIN = 5.0
"""Shortest lifetime of a certificate: for exercises; a renewal takes less than a second."""
CERTIFICATE_SECONDS_MAX = 825 * 86_400.0
"""Longest life of a leaf certificate that every common TLS library accepts."""
TTL_SECONDS_MAX = 3600
"""Longest time that resolvers may keep an answer: during it they send users to a dead listener."""
TtlSeconds = Annotated[int, Meta(ge=0, le=TTL_SECONDS_MAX)]
ADDRESSES_MAX = 4000
"""Greatest limit of address records: about as many A records as fit into an answer over TCP, so more has no effect."""
AddressesMax = Annotated[int, Meta(ge=0, le=ADDRESSES_MAX)]
Entries = Annotated[int, Meta(ge=KEEP_MIN, le=KEEP_MAX)]
StoreWaitSeconds = Annotated[float, Meta(ge=STORE_WAIT_SECONDS_MIN, le=STORE_WAIT_SECONDS_MAX)]
Workers = Annotated[int, Meta(ge=1, le=WORKERS_MAX)]
CertificateSeconds = Annotated[float, Meta(ge=CERTIFICATE_SECONDS_MIN, le=CERTIFICATE_SECONDS_MAX)]
RefreshSeconds = Annotated[float, Meta(ge=REFRESH_SECONDS_MIN, le=REFRESH_SECONDS_MAX)]


class TlsSettings(msgspec.Struct, frozen=True):
    """Keys of [tls]: the daemon's own identity, and the certificates that it accepts."""

    certificate: Annotated[
        str,
        about(
            "Certificate of this daemon, PEM; intermediate certificates may follow in the file. Relative "
            "paths in this file are relative to its directory.",
            "tls/NAME.crt",
        ),
    ]
    key: Annotated[
        str,
        about("Private key of the certificate, PEM, readable by this daemon only.", "tls/NAME.key"),
    ]
    authority: Annotated[
        str,
        about(
            "Certificates of the authorities that sign the certificates of all peers, PEM.",
            "tls/authority.crt",
        ),
    ]
    admin: Annotated[
        tuple[str, ...],
        about(
            "Patterns of certificate names with the role admin. If all three lists of patterns are empty, "
            "the role is the OU of a certificate's subject."
        ),
    ] = ()
    host: Annotated[tuple[str, ...], about("Patterns of certificate names with the role host.")] = ()
    server: Annotated[tuple[str, ...], about("Patterns of certificate names with the role server.")] = ()
    renew: Annotated[
        bool,
        about(
            "true: a certificate of the private authority is renewed when a third of its lifetime is left, by a server "
            "that holds the authority's key; certificate and key are then replaced. Certificates of other authorities "
            "are never touched. false: replace the files yourself."
        ),
    ] = True


class ServerSettings(msgspec.Struct, frozen=True):
    """Keys of [server] in the file of opengnssd."""

    store: Annotated[
        str,
        about(
            "URL of the store: sqlite:////path/to/file, sqlite:///file relative to this file, or "
            "postgresql://user@host/database.",
            "sqlite:////var/lib/opengns/catalogue.sqlite3",
        ),
    ]
    name: Annotated[str, about("Name of this server in logs and answers; empty: the name in its certificate.")] = ""
    listen: Annotated[
        tuple[str, ...],
        about(
            "Addresses and ports for OpenGNSP over TLS. [::] is every address, IPv4 too; on a machine "
            "without IPv6 it stands for 0.0.0.0."
        ),
    ] = SERVER_LISTEN
    balancers: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses or networks of balancers that send the header of the PROXY protocol, version 2, on "
            "each connection to this server, OpenGNSP and HTTPS: limits then count, and logs name, the client in place "
            "of the balancer. Every connection from these addresses must begin with it."
        ),
    ] = ()
    announce: Annotated[
        str,
        about(
            "Multicast group and port, such as 239.255.48.63:4863, to which this server announces itself "
            "on its own network, so that hosts find it (docs/explanation/discovery.md); empty: no announcements."
        ),
    ] = ""
    authority: Annotated[
        str,
        about(
            "Directory of the private authority (opengnsadmin tls init) whose key this server may use to sign "
            "certificates of hosts that join or renew, and its own; empty: it signs nothing. A person who controls "
            "this server can then make certificates of every role (docs/explanation/security.md)."
        ),
    ] = ""
    certificate_seconds: Annotated[
        CertificateSeconds,
        about("With `authority`: lifetime of the certificates that this server signs; hosts renew theirs in time."),
    ] = CERTIFICATE_SECONDS
    workers: Annotated[
        Workers,
        about(
            "Number of processes that serve on these addresses, over the one store: one for each core "
            "that may be used. Each is a server of its own with the whole catalogue in memory; one that dies is "
            "restarted."
        ),
    ] = 1
    alert_command: Annotated[
        tuple[str, ...],
        about(
            "Program and arguments that run for each alert, with JSON on standard input: the same as a "
            '[[server.alert]] with way = "command". Without either, alerts are only logged.'
        ),
    ] = ()
    keep_updates: Annotated[
        Entries,
        about("Entries kept in the update log; a host that missed more reads everything again."),
    ] = 1_000_000
    keep_others: Annotated[
        Entries, about("Entries kept in the security log, and as many in the administration log.")
    ] = 100_000
    keep_updates_octets: KeepUpdatesOctets = LogBounds().updates_octets
    keep_others_octets: KeepOthersOctets = LogBounds().others_octets
    credential_changes_per_second: CredentialChangesPerSecond = CREDENTIAL_CHANGES_PER_SECOND_MAX
    credential_changes_burst: CredentialChangesBurst = CREDENTIAL_CHANGES_BURST_MAX
    host_changes_per_second: HostChangesPerSecond = HOST_CHANGES_PER_SECOND_MAX
    host_changes_burst: HostChangesBurst = HOST_CHANGES_BURST_MAX
    probe_networks: ProbeNetworksKey = ()
    probe_networks_denied: ProbeNetworksDenied = ()
    store_wait_seconds: Annotated[
        StoreWaitSeconds,
        about(
            "Seconds that a change waits for an unavailable store before it is refused with the advice to "
            "retry; lookups and pushes continue meanwhile."
        ),
    ] = 3.0
    development: ServerDevelopment = False


class HttpsSettings(msgspec.Struct, frozen=True):
    """Keys of [server.https] in the file of opengnssd."""

    listen: Annotated[
        tuple[str, ...],
        about(
            'Addresses and ports for the HTTPS API, usually ["[::]:4864"]: JSON for everything that '
            "opengnsadmin can do, by client certificate or bearer token, /healthz and /readyz; empty: none."
        ),
    ] = ()
    names: Annotated[
        tuple[str, ...],
        Meta(
            description="Further DNS names by which clients reach this port, such as that of a balancer, where the "
            "server's certificate does not have them; requests for other names are refused, because a page of another "
            "site may have caused them."
        ),
    ] = ()
    metrics: Annotated[
        Literal["known", "open"],
        about(
            "Access to /metrics. known: callers that may read the server's status, by certificate or by a "
            "viewer's token; open: every caller that reaches the port (docs/reference/metrics.md)."
        ),
    ] = "known"
    worker_ports: Annotated[
        str,
        about(
            "With `workers`: address and port, such as 127.0.0.1:4871, of the first worker; each worker "
            "serves the same API on its own port from there on, so that each can be scraped; empty: none."
        ),
    ] = ""


class LogSettings(msgspec.Struct, frozen=True):
    """Keys of [log]: the form of this daemon's log."""

    format: Annotated[
        Literal["text", "json"],
        about("text: lines for people. json: one object per line, for log collectors (docs/reference/metrics.md)."),
    ] = "text"


class HostSettings(msgspec.Struct, frozen=True):
    """Keys of [host] in the file of opengnscd."""

    servers: Annotated[
        tuple[str | ServerEntry, ...],
        about(
            "Servers in the order of preference: name:port or address:port, which the certificate must "
            'show; one with several addresses, { name = "gns1.example.org", addresses = ["192.0.2.1", '
            '"198.51.100.1"] }; or an SRV name of DNS, _opengns._tcp.example.org. See docs/explanation/discovery.md.',
            [f"gns1.example.org:{SERVER_PORT}", f"gns2.example.org:{SERVER_PORT}"],
        ),
    ]
    state_directory: Annotated[
        str,
        about(
            "Directory that keeps the catalogue and the registrations over a restart; created if missing.",
            "/var/lib/opengns/host",
        ),
    ]
    address: Annotated[
        str,
        about(
            "Address of this host: listeners are registered with it unless they name another, and servers "
            "connect to it for `update`. auto: the address from which this machine reaches its servers, also when it "
            "changes (DHCP, another network): registrations without an address of their own follow it."
        ),
    ] = AUTO_ADDRESS
    prefer: Annotated[
        Literal["first", "any"],
        about(
            "first: the order of `servers` is that of preference. any: all are equal, and each host "
            "chooses one at random."
        ),
    ] = "first"
    resolver: Annotated[
        str,
        about("Address and port of the DNS server that resolves SRV names; empty: those of /etc/resolv.conf."),
    ] = ""
    announcements: Annotated[
        str,
        about(
            "Multicast group and port, such as 239.255.48.63:4863, on which servers announce themselves. "
            "Announced servers that prove their role are used after all in `servers`, which may then be empty. Empty: "
            "announcements are not received."
        ),
    ] = ""
    api: Annotated[
        str,
        about("Loopback address and port of the HTTP API for programs on this host; empty: Unix socket only."),
    ] = f"127.0.0.1:{API_PORT}"
    socket: Annotated[str, about("Path of the Unix socket with the same API; empty: none.")] = (
        "/run/opengns/opengnscd.sock"
    )
    agent: Annotated[
        str,
        about(
            "Loopback address and port for HAProxy's agent-check, usually 127.0.0.1:4867; empty: none. "
            'Each server line sends its own name: agent-send "SERVICE ADDRESS:PORT\\n".'
        ),
    ] = ""
    view: Annotated[
        str,
        about(
            "Directory in which the host's view is shared in memory, for lookups without a call "
            "(protocols/shared-view.md); empty: `view` in the directory of the socket. none: it is not shared."
        ),
    ] = ""
    view_group: Annotated[
        str, about("The only group that may read the shared view; empty: every user of this host.")
    ] = ""
    update: Annotated[
        str,
        about(
            "Address and port on which servers may connect to this host, usually port 4865: `address`, or "
            "0.0.0.0 or [::] for every address; empty: servers do not connect to this host."
        ),
    ] = ""
    session: Annotated[
        Literal["keep", "short"],
        about("keep: one session stays open. short: connect, ask, disconnect; servers connect to `update` to push."),
    ] = "keep"
    probe_networks: ProbeNetworksKey = ()
    probe_networks_denied: ProbeNetworksDenied = ()
    refresh_seconds: Annotated[
        RefreshSeconds | Literal["auto"],
        about(
            "Seconds between checks for missed changes; auto: 3600 with `session` keep, which is sent every "
            "change, and 300 with short."
        ),
    ] = "auto"
    zone: Annotated[
        str,
        about(
            "Location of this host, one label: a data centre, a room. Its listeners are registered with "
            "it, and where a category's locality says so, its programs get listeners of the same zone first."
        ),
    ] = ""
    services: Annotated[
        tuple[str, ...],
        about(
            "Services for which this host subscribes from the start. Services that register here or ask "
            "for their dependencies need not be named; programs that only use DNS never ask."
        ),
    ] = ()
    development: HostDevelopment = False


_DNS_LISTEN = about(
    "Loopback address and port of DNS over UDP and TCP, usually port 4853; resolvers of this machine "
    "forward the zone here (docs/reference/dns.md). Empty, or without this section: no DNS."
)


class DnsSettings(msgspec.Struct, frozen=True):
    """Keys of [host.dns]."""

    listen: Annotated[str, _DNS_LISTEN] = f"127.0.0.1:{DNS_PORT}"
    zone: Annotated[
        str,
        about("DNS zone: chinaserver.openuss.gns is the service chinaserver.openuss. Queries outside are refused."),
    ] = "gns"
    ttl: Annotated[
        TtlSeconds,
        about("Seconds that resolvers may keep an answer. With 0 a change is effective for the next lookup."),
    ] = 0
    addresses_max: Annotated[
        AddressesMax,
        about(
            "Most A records, and most AAAA records, in one answer; 0: as many as fit. For resolvers and programs that "
            "ask over UDP only (musl behind dnsmasq): 20 fit into 512 octets. The same listeners are in each answer "
            "while nothing changes."
        ),
    ] = 0


class ServerDnsSettings(DnsSettings, frozen=True):
    """Keys of [server.dns]: as for a host, but without a default address, which a host on the same machine may use."""

    listen: Annotated[str, _DNS_LISTEN] = ""
