"""Reader of configuration files: TOML to settings, with all mistakes reported at once.

The settings are ready for use: relative paths in a file are relative to its directory, whatever the working directory
of the daemon is.
"""

from __future__ import annotations

import grp
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compass.agent.hooks.hook import HookSettings
from compass.agent.hooks.template import TemplateSettings
from compass.agent.registration.own_checks import CheckSettings
from compass.daemons.config import sections
from compass.daemons.config.alerts import AlertSettings, check_alerts, read_alert
from compass.daemons.config.bounds import NETWORKS_MAX
from compass.daemons.config.checks import read_checks
from compass.daemons.config.file import ConfigFile
from compass.daemons.config.hooks import check_together, read_hook, read_template
from compass.daemons.config.server_list import ENTRIES_MAX, addresses_of, is_service, parse_service
from compass.daemons.config.settings import HostConfig, ServerConfig, repeated_of, sections_of
from compass.model.limits import HOST_SERVICES_MAX, PORT_MAX
from compass.model.names import (
    parse_address,
    parse_endpoint,
    parse_group,
    parse_host_name,
    parse_label,
    parse_network,
    parse_port_text,
    parse_service_id,
)

SOCKET_OCTETS_MAX = 107
"""Longest path of a Unix socket: Linux has room for 108 octets, the last of which is zero (unix(7))."""
WILDCARDS = {"0.0.0.0": "0.0.0.0", "[::]": "::"}
"""Wildcard addresses, as written and as listened to; the second one accepts IPv4, too."""


def read_server_config(path: Path) -> ServerConfig:
    """Return the settings of opengnssd. Raises ConfigProblem with all problems of the file."""
    reader = ConfigFile(path, sections_of(ServerConfig) | repeated_of(ServerConfig))
    dns = _dns(reader, "server.dns")
    https = _https(reader)
    log = reader.section("log")
    alerts = [read_alert(reader, values) for values in reader.each("server.alert")]
    server, tls = reader.section("server"), reader.section("tls")
    _check_server(reader, server)
    check_alerts(reader, alerts, server.get("alert_command", ()))
    if server.get("development"):
        _check_development(reader, "[server] listen", server.get("listen", sections.SERVER_LISTEN))
        _check_development(reader, "[server.https] listen", https.get("listen", ()))
        _check_development(reader, "[server.https] worker_ports", [https.get("worker_ports", "")])
    reader.finish()
    return ServerConfig(
        sections.ServerSettings(**server),
        _tls(reader, tls),
        sections.ServerDnsSettings(**dns) if dns is not None else None,
        sections.HttpsSettings(**https),
        sections.LogSettings(**log),
        tuple(AlertSettings(**values) for values in alerts),
    )


def read_host_config(path: Path) -> HostConfig:
    """Return the settings of opengnscd. Raises ConfigProblem with all problems of the file."""
    reader = ConfigFile(path, sections_of(HostConfig) | repeated_of(HostConfig))
    dns = _dns(reader, "host.dns")
    hooks = [read_hook(reader, values) for values in reader.each("host.hook")]
    templates = [read_template(reader, values) for values in reader.each("host.template")]
    checks = read_checks(reader)
    log, host, tls = reader.section("log"), reader.section("host"), reader.section("tls")
    _check_host(reader, host)
    if host.get("development"):
        address = host.get("address", sections.AUTO_ADDRESS)
        if not _is_loopback(address):
            reader.problems.append(f"[host] address: {address!r} is not a loopback address, as `development` needs")
        _check_development(reader, "[host] update", [host.get("update", "")])
    check_together(reader, hooks, templates)
    reader.finish()
    return HostConfig(
        sections.HostSettings(**host),
        _tls(reader, tls),
        sections.DnsSettings(**dns) if dns is not None else None,
        tuple(HookSettings(**values) for values in hooks),
        tuple(TemplateSettings(**values) for values in templates),
        tuple(CheckSettings(**values) for values in checks),
        sections.LogSettings(**log),
    )


def parse_listen(text: str) -> tuple[str, int]:
    """Parse `address:port` to listen on; unlike an address to connect to, it may be `0.0.0.0` or `[::]`."""
    address, _, port = text.rpartition(":")
    if address in WILDCARDS:
        return WILDCARDS[address], parse_port_text(text, port)
    return parse_endpoint(text)


def _https(reader: ConfigFile) -> dict[str, Any]:
    """Return the values of [server.https]; without the section no port is opened."""
    values = reader.section("server.https")
    _check_listen(reader, "[server.https] listen", values.get("listen", ()))
    where, text = "[server.https] worker_ports", values.get("worker_ports")
    first = reader.parsed(where, parse_listen, text) if text else None
    if first and first[1] + sections.WORKERS_MAX - 1 > PORT_MAX:
        last = PORT_MAX - sections.WORKERS_MAX + 1
        reader.problems.append(f"{where}: port {first[1]} leaves too few ports for workers; at most {last}")
    return values


def _dns(reader: ConfigFile, name: str) -> dict[str, Any] | None:
    """Return the values of [host.dns] or [server.dns]; None if the file has no such section."""
    if name not in reader:
        return None
    values = reader.section(name)
    if values.get("listen"):
        endpoint = reader.parsed(f"[{name}] listen", parse_listen, values["listen"])
        if endpoint is not None and not _is_loopback(endpoint[0]):
            reader.problems.append(
                f"[{name}] listen: {endpoint[0]} is not a loopback address, and DNS is unencrypted: put a resolver "
                "of yours in front of it (docs/reference/dns.md)"
            )
    if "zone" in values:
        values["zone"] = reader.parsed(f"[{name}] zone", parse_host_name, values["zone"].removesuffix("."))
    return values


def _tls(reader: ConfigFile, values: dict[str, Any]) -> sections.TlsSettings:
    """Return [tls] with absolute paths."""
    return sections.TlsSettings(
        **values | {name: reader.absolute(values[name]) for name in ("certificate", "key", "authority")}
    )


def _check_server(reader: ConfigFile, server: dict[str, Any]) -> None:
    listen = server.get("listen")
    if listen is not None and not listen:
        reader.problems.append("[server] listen is empty: no host could connect")
    _check_listen(reader, "[server] listen", listen or ())
    _check_networks(reader, "server", server)
    for text in server.get("balancers", ()):
        reader.parsed("[server] balancers", parse_network, text)
    if server.get("announce"):
        reader.parsed("[server] announce", parse_group, server["announce"])
    if command := server.get("alert_command"):
        server["alert_command"] = reader.command("[server] alert_command", command)
    if server.get("authority"):
        server["authority"] = reader.absolute(server["authority"])
    if "store" in server:
        server["store"] = _store(reader, server["store"])


def _check_networks(reader: ConfigFile, section: str, values: dict[str, Any]) -> None:
    for key in ("probe_networks", "probe_networks_denied"):
        networks = values.get(key, ())
        if len(networks) > NETWORKS_MAX:
            reader.problems.append(f"[{section}] {key} has {len(networks)} networks; at most {NETWORKS_MAX}")
        for text in networks:
            reader.parsed(f"[{section}] {key}", parse_network, text)


def _check_listen(reader: ConfigFile, where: str, listen: tuple[str, ...]) -> None:
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


def _store(reader: ConfigFile, text: str) -> str:
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


def _check_host(reader: ConfigFile, host: dict[str, Any]) -> None:
    _check_networks(reader, "host", host)
    _check_servers(reader, host)
    address = host.get("address", sections.AUTO_ADDRESS)
    address = None if address == sections.AUTO_ADDRESS else reader.parsed("[host] address", parse_address, address)
    if update := host.get("update"):
        endpoint = reader.parsed("[host] update", parse_listen, update)
        if endpoint is not None and address is not None and endpoint[0] not in (address, *WILDCARDS.values()):
            reader.problems.append(
                f"[host] update: servers would connect to {address}, not to {endpoint[0]}; "
                "listen on the same address, or on 0.0.0.0 or [::]"
            )
        is_auto = host.get("address", sections.AUTO_ADDRESS) == sections.AUTO_ADDRESS
        if is_auto and endpoint is not None and endpoint[0] not in WILDCARDS.values():
            reader.problems.append("[host] update: with address = auto listen on 0.0.0.0 or [::]")
    elif update == "" and host.get("session") == "short":
        reader.problems.append("[host] session = short needs update: servers must be able to connect to this host")
    services = [reader.parsed("[host] services", parse_service_id, text) for text in host.get("services", ())]
    host["services"] = tuple(id for id in services if id is not None)
    if len(services) > HOST_SERVICES_MAX:
        reader.problems.append(f"[host] services names {len(services)}; at most {HOST_SERVICES_MAX}")
    if zone := host.get("zone"):
        host["zone"] = reader.parsed("[host] zone", lambda text: parse_label(text, "zone"), zone)
    _check_local(reader, host)


def _check_servers(reader: ConfigFile, host: dict[str, Any]) -> None:
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


def _check_local(reader: ConfigFile, host: dict[str, Any]) -> None:
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
    if host.get("view") not in (None, "", sections.NOT_SHARED):
        host["view"] = reader.absolute(host["view"])
    if group := host.get("view_group"):
        try:
            grp.getgrnam(group)
        except KeyError:
            reader.problems.append(f"[host] view_group: there is no group {group!r} on this host")


def _check_development(reader: ConfigFile, where: str, endpoints: Iterable[str]) -> None:
    """Check that development mode, where registrations need no credential, serves this machine only."""
    for text in filter(None, endpoints):
        if not _is_loopback(text.rpartition(":")[0].strip("[]")):
            reader.problems.append(
                f"{where}: {text} is not on a loopback address, and `development` serves this machine only: "
                "name 127.0.0.1 or [::1], or leave `development` out"
            )


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
