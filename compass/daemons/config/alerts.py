"""Sections [[server.alert]]: their keys, and the checks of their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from compass.daemons.config.fields import about, description_of
from compass.daemons.config.file import ConfigFile
from compass.daemons.config.secrets import SECRET_OCTETS_MIN, SecretProblem, check_authority, read_secret
from compass.model.names import InvalidName, parse_server
from compass.server.alerts.outbox import PER_MINUTE, PER_MINUTE_MAX

ALERTS_MAX = 16
"""Most sections: more than an installation has teams."""
RECIPIENTS_MAX = 16
"""Most recipients of one section: each is a channel of its own; for more there are mailing lists."""
ADDRESS_MAX = 254
"""Longest mail address in octets (RFC 5321, 4.5.3.1.3, without the brackets)."""
ChannelKind = Literal["mail", "webhook", "syslog", "command"]
Kind = Literal["failure", "slow"]
Security = Literal["starttls", "tls", "none"]
FACILITIES = ("user", "daemon", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7")
PerMinute = Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)]


class AlertSettings(msgspec.Struct, frozen=True):
    """Keys of a [[server.alert]]."""

    way: Annotated[
        ChannelKind,
        about(
            "Kind of the channel that notifies administrators of incidents: mail, webhook, syslog or "
            "command (docs/reference/alerts.md).",
            "syslog",
        ),
    ]
    name: Annotated[
        str,
        about(
            "Name in `opengnsadmin alert ways` and in the log; empty: the kind. The servers over one store "
            "should have the same channels with the same names: one of the servers sends."
        ),
    ] = ""
    kinds: Annotated[
        tuple[Kind, ...],
        about('Incidents to send: "failure" (a listener, a cap, a doubt, a difference), "slow"; empty: all.'),
    ] = ()
    per_minute: Annotated[
        PerMinute,
        about("Most messages within a minute; if more incidents are waiting, all become one message."),
    ] = PER_MINUTE
    to: Annotated[tuple[str, ...], about("Mail: the recipients. Each gets a separate mail.")] = ()
    sender: Annotated[str, about("Mail: address of the sender.")] = ""
    relay: Annotated[str, about("Mail: name and port of the server that accepts the mail.")] = "localhost:25"
    security: Annotated[
        Security,
        about(
            "Mail: starttls (usually port 587) or tls (465), both with the relay's certificate checked; "
            "none only on this machine."
        ),
    ] = "none"
    user: Annotated[str, about("Mail: user name at the relay; empty: no login.")] = ""
    password_file: Annotated[
        str,
        about("Mail: file with the password, readable by this daemon only. It is read again for each mail."),
    ] = ""
    url: Annotated[str, about("Webhook: URL to which the JSON is posted. https, or http on this machine.")] = ""
    secret_file: Annotated[
        str,
        about("Webhook: file with the secret that signs messages, at least 16 octets: openssl rand -hex 32."),
    ] = ""
    authority: Annotated[
        str,
        about(
            "Mail, webhook, syslog: certificates of the authorities that sign the peer's certificate, PEM; "
            "empty: the authorities that this machine trusts."
        ),
    ] = ""
    target: Annotated[
        str,
        about("Syslog: unix:PATH, udp:ADDRESS:PORT or tcp:ADDRESS:PORT on this machine, or tls:NAME:PORT."),
    ] = "unix:/dev/log"
    facility: Annotated[str, about("Syslog: user, daemon, or local0 to local7.")] = "daemon"
    command: Annotated[
        tuple[str, ...],
        about("Command: program and arguments, run with JSON on standard input. Status 75: try again later."),
    ] = ()


_OWN = {
    "mail": ("to", "sender", "relay", "security", "user", "password_file", "authority"),
    "webhook": ("url", "secret_file", "authority"),
    "syslog": ("target", "facility", "authority"),
    "command": ("command",),
}
"""Keys that only channels of one kind have."""
_COMMON = {"way", "name", "kinds", "per_minute"}
_NEEDED = {"mail": ("to", "sender"), "webhook": ("url",), "syslog": (), "command": ("command",)}
_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(AlertSettings)}
_WHERE = "[[server.alert]]"


def read_alert(reader: ConfigFile, values: dict[str, Any]) -> dict[str, Any]:
    """Check the values of a [[server.alert]]. Returns the values with absolute paths."""
    kind = values.get("way")
    if kind is None:
        return values
    where = f"{_WHERE} {values.get('name') or kind}"
    for key, value in values.items():
        if key not in _COMMON and key not in _OWN[kind] and value != _DEFAULTS[key]:
            others = [other for other, keys in _OWN.items() if key in keys]
            reader.problems.append(f"{where}: {key} has no effect here; it is a key of {' and '.join(others)}")
    for key in _NEEDED[kind]:
        if not values.get(key):
            reader.problems.append(f"{where} needs {key}: {description_of(AlertSettings, key)}")
    name = values.get("name", "")
    if " " in name or not name.isprintable():
        reader.problems.append(f"{where}: name has a space or a character that cannot be printed; use one word")
    if values.get("authority"):
        values["authority"] = reader.absolute(values["authority"])
        if problem := check_authority(values["authority"]):
            reader.problems.append(f"{where} authority: {problem}")
    _CHECKS[kind](reader, where, values)
    return values


def _check_mail(reader: ConfigFile, where: str, values: dict[str, Any]) -> None:
    recipients = values.get("to", ())
    if len(recipients) > RECIPIENTS_MAX:
        reader.problems.append(f"{where} to: {len(recipients)} recipients; at most {RECIPIENTS_MAX}")
    for address in (*recipients, values.get("sender", "")):
        if address and not _is_address(address):
            reader.problems.append(f"{where}: {address!r} is not a mail address, such as ops@example.org")
    endpoint = reader.parsed(f"{where} relay", parse_name_and_port, values.get("relay", ""))
    if endpoint is not None and values.get("security") == "none" and not _is_local(endpoint[0]):
        reader.problems.append(_unencrypted(f"{where} security", endpoint[0], "starttls or tls"))
    if bool(values.get("user")) != bool(values.get("password_file")):
        reader.problems.append(f"{where}: user and password_file are needed together")
    _check_secret(reader, where, values, "password_file", 1)


def _check_webhook(reader: ConfigFile, where: str, values: dict[str, Any]) -> None:
    url = values.get("url", "")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if url and (parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable()):
        reader.problems.append(f"{where} url is not of the form https://name/path")
    elif parts.username is not None:
        reader.problems.append(f"{where} url holds a password; sign with secret_file instead")
    elif url and parts.scheme == "http" and not _is_local(host):
        reader.problems.append(_unencrypted(f"{where} url", host, "https"))
    if values.get("url") and not values.get("secret_file"):
        reader.problems.append(f"{where} needs secret_file: {description_of(AlertSettings, 'secret_file')}")
    _check_secret(reader, where, values, "secret_file", SECRET_OCTETS_MIN)


def _check_syslog(reader: ConfigFile, where: str, values: dict[str, Any]) -> None:
    transport, _, address = values.get("target", "").partition(":")
    if transport not in ("unix", "udp", "tcp", "tls") or not address:
        reader.problems.append(f"{where} target must be unix:PATH, or udp:, tcp: or tls: with NAME:PORT")
    elif transport != "unix":
        endpoint = reader.parsed(f"{where} target", parse_name_and_port, address)
        if endpoint is not None and transport != "tls" and not _is_local(endpoint[0]):
            reader.problems.append(_unencrypted(f"{where} target", endpoint[0], "tls"))
        if endpoint is not None and transport == "udp" and endpoint[0] == "localhost":
            reader.problems.append(f"{where} target: udp needs an address, such as 127.0.0.1")
    if values.get("facility") not in FACILITIES:
        reader.problems.append(f"{where} facility must be one of {', '.join(FACILITIES)}")


def _check_command(reader: ConfigFile, where: str, values: dict[str, Any]) -> None:
    if command := values.get("command"):
        values["command"] = reader.command(f"{where} command", command)


_CHECKS: dict[str, Callable[[ConfigFile, str, dict[str, Any]], None]] = {
    "mail": _check_mail,
    "webhook": _check_webhook,
    "syslog": _check_syslog,
    "command": _check_command,
}


def check_alerts(reader: ConfigFile, alerts: list[dict[str, Any]], command: tuple[str, ...]) -> None:
    """Check all [[server.alert]] together: their number, their names, their recipients."""
    if len(alerts) > ALERTS_MAX:
        reader.problems.append(f"{len(alerts)} sections {_WHERE}; at most {ALERTS_MAX}")
    names = [values.get("name") or values.get("way") for values in alerts] + (["alert_command"] if command else [])
    for name, times in Counter(names).items():
        if name and times > 1:
            reader.problems.append(f"{_WHERE}: {times} channels have the name {name!r}; names must differ")
    for address, times in Counter(to for values in alerts for to in set(values.get("to", ()))).items():
        if times > 1 and not any(values.get("kinds") for values in alerts):
            reader.problems.append(f"{_WHERE} to: {address} would get each message {times} times")


def _check_secret(reader: ConfigFile, where: str, values: dict[str, Any], key: str, octets_min: int) -> None:
    if not values.get(key):
        return
    values[key] = reader.absolute(values[key])
    try:
        read_secret(values[key], octets_min)
    except SecretProblem as problem:
        reader.problems.append(f"{where} {key}: {problem}")


def _is_address(text: str) -> bool:
    name, at, domain = text.rpartition("@")
    plain = text.isascii() and text.isprintable() and not any(one in text for one in ' <>,;:"()[]\\')
    return bool(name and at and domain) and plain and len(text) <= ADDRESS_MAX


def _unencrypted(where: str, host: str, remedy: str) -> str:
    return f"{where}: {host} is not this machine, and unencrypted messages must not leave this machine: use {remedy}"


def parse_name_and_port(text: str) -> tuple[str, int]:
    """Parse `name:port`, with its port. Raises InvalidName."""
    if not text.rpartition(":")[2].isdigit():
        raise InvalidName(f"{text[:80]!r} is not of the form name:port")
    return parse_server(text)


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


assert set(_CHECKS) == set(get_args(ChannelKind))
