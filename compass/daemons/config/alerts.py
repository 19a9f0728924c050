"""The sections [[server.alert]]: what their keys mean, what can be wrong with them, and what is right."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from compass.daemons.config.fields import description_of
from compass.daemons.config.hooks import ConfigReader
from compass.daemons.config.secrets import SECRET_OCTETS_MIN, SecretProblem, check_authority, read_secret
from compass.model.names import InvalidName, parse_server
from compass.server.alerts.outbox import PER_MINUTE, PER_MINUTE_MAX

ALERTS_MAX = 16
"""Sections: more than an installation has teams."""
RECIPIENTS_MAX = 16
"""Of one section: each is a way of its own; for more there are mailing lists."""
ADDRESS_MAX = 254
"""Octets of a mail address (RFC 5321, 4.5.3.1.3, without the brackets)."""
WayKind = Literal["mail", "webhook", "syslog", "command"]
Kind = Literal["failure", "slow"]
Security = Literal["starttls", "tls", "none"]
PerMinute = Annotated[int, Meta(ge=1, le=PER_MINUTE_MAX)]


class AlertSettings(msgspec.Struct, frozen=True):
    """Keys of a [[server.alert]]."""

    way: Annotated[
        WayKind,
        Meta(
            description=(
                "How administrators are told of incidents: mail, webhook, syslog or command (docs/alerts.md)."
            ),
            examples=["syslog"],
        ),
    ]
    name: Annotated[
        str,
        Meta(
            description=(
                "What it is called in `opengnsadmin alert ways` and in the log; empty: like the way. The servers "
                "over one store should have the same ways under the same names: one of them tells."
            )
        ),
    ] = ""
    kinds: Annotated[
        tuple[Kind, ...],
        Meta(
            description=(
                'Incidents to be told: "failure" (a listener, a cap, a doubt, a difference), "slow"; empty: all.'
            )
        ),
    ] = ()
    per_minute: Annotated[
        PerMinute,
        Meta(description=("Messages within a minute; when more incidents are waiting, all become one message.")),
    ] = PER_MINUTE
    to: Annotated[tuple[str, ...], Meta(description="Mail: the recipients. Each gets a mail of its own.")] = ()
    sender: Annotated[str, Meta(description="Mail: the address of the sender.")] = ""
    relay: Annotated[str, Meta(description="Mail: name and port of the server that takes it.")] = "localhost:25"
    security: Annotated[
        Security,
        Meta(
            description=(
                "Mail: starttls (usually port 587) or tls (465), both with the relay's certificate checked; none "
                "only on this machine."
            )
        ),
    ] = "none"
    user: Annotated[str, Meta(description="Mail: who logs in at the relay; empty: nobody.")] = ""
    password_file: Annotated[
        str,
        Meta(
            description=(
                "Mail: the file that holds the password, readable by this daemon only. It is read anew for each mail."
            )
        ),
    ] = ""
    url: Annotated[str, Meta(description=("Webhook: where the JSON is posted to. https, or http on this machine."))] = (
        ""
    )
    secret_file: Annotated[
        str,
        Meta(
            description=("Webhook: the file with the secret that signs it, at least 16 octets: openssl rand -hex 32.")
        ),
    ] = ""
    authority: Annotated[
        str,
        Meta(
            description=(
                "Mail, webhook, syslog: certificates of the authorities that vouch for the other side, PEM; "
                "empty: those that this machine trusts."
            )
        ),
    ] = ""
    target: Annotated[
        str,
        Meta(
            description=("Syslog: unix:PATH, udp:ADDRESS:PORT or tcp:ADDRESS:PORT on this machine, or tls:NAME:PORT.")
        ),
    ] = "unix:/dev/log"
    facility: Annotated[str, Meta(description="Syslog: user, daemon, or local0 to local7.")] = "daemon"
    command: Annotated[
        tuple[str, ...],
        Meta(
            description=("Command: program and arguments, run with JSON on standard input. Status 75: try again later.")
        ),
    ] = ()


_OWN = {
    "mail": ("to", "sender", "relay", "security", "user", "password_file", "authority"),
    "webhook": ("url", "secret_file", "authority"),
    "syslog": ("target", "facility", "authority"),
    "command": ("command",),
}
"""The keys that mean something for each way, besides those that mean something for all."""
_NEEDED = {"mail": ("to", "sender"), "webhook": ("url",), "syslog": (), "command": ("command",)}
_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(AlertSettings)}
_WHERE = "[[server.alert]]"


def alert(reading: ConfigReader, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a [[server.alert]], with what is wrong with them told."""
    way = values.get("way")
    if way is None:
        return values
    where = f"{_WHERE} {values.get('name') or way}"
    common = {"way", "name", "kinds", "per_minute"}
    for key, value in values.items():
        if key not in common and key not in _OWN[way] and value != _DEFAULTS[key]:
            others = [other for other, keys in _OWN.items() if key in keys]
            reading.problems.append(f"{where}: {key} means nothing here; it belongs to {' and '.join(others)}")
    for key in _NEEDED[way]:
        if not values.get(key):
            reading.problems.append(f"{where} needs {key}: {description_of(AlertSettings, key)}")
    if any(" " in one or not one.isprintable() for one in (values.get("name", ""),)):
        reading.problems.append(f"{where}: name has a space or worse in it; use one word")
    if values.get("authority"):
        values["authority"] = reading.absolute(values["authority"])
        if problem := check_authority(values["authority"]):
            reading.problems.append(f"{where} authority: {problem}")
    _CHECKS[way](reading, where, values)
    return values


def _check_mail(reading: ConfigReader, where: str, values: dict[str, Any]) -> None:
    recipients = values.get("to", ())
    if len(recipients) > RECIPIENTS_MAX:
        reading.problems.append(f"{where} to: {len(recipients)} recipients; at most {RECIPIENTS_MAX}")
    for address in (*recipients, values.get("sender", "")):
        if address and not _is_address(address):
            reading.problems.append(f"{where}: {address!r} is no mail address, such as ops@example.org")
    place = reading.parsed(f"{where} relay", parse_place, values.get("relay", ""))
    if place is not None and values.get("security") == "none" and not _is_here(place[0]):
        reading.problems.append(
            f"{where} security: {place[0]} is not this machine, and off it nothing is sent unencrypted: starttls or tls"
        )
    if bool(values.get("user")) != bool(values.get("password_file")):
        reading.problems.append(f"{where}: user and password_file belong together")
    _secret(reading, where, values, "password_file", 1)


def _check_webhook(reading: ConfigReader, where: str, values: dict[str, Any]) -> None:
    url = values.get("url", "")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if url and (parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable()):
        reading.problems.append(f"{where} url is not of the form https://name/path")
    elif parts.username is not None:
        reading.problems.append(f"{where} url holds a password; sign with secret_file instead")
    elif url and parts.scheme == "http" and not _is_here(host):
        reading.problems.append(
            f"{where} url: {host} is not this machine, and off it nothing is sent unencrypted: https"
        )
    if values.get("url") and not values.get("secret_file"):
        reading.problems.append(f"{where} needs secret_file: {description_of(AlertSettings, 'secret_file')}")
    _secret(reading, where, values, "secret_file", SECRET_OCTETS_MIN)


def _check_syslog(reading: ConfigReader, where: str, values: dict[str, Any]) -> None:
    kind, _, place = values.get("target", "").partition(":")
    if kind not in ("unix", "udp", "tcp", "tls") or not place:
        reading.problems.append(f"{where} target is none of unix:PATH, udp:, tcp: or tls: with NAME:PORT")
    elif kind != "unix":
        found = reading.parsed(f"{where} target", parse_place, place)
        if found is not None and kind != "tls" and not _is_here(found[0]):
            reading.problems.append(
                f"{where} target: {found[0]} is not this machine, and off it nothing is sent unencrypted: tls"
            )
        if found is not None and kind == "udp" and found[0] == "localhost":
            reading.problems.append(f"{where} target: write an address for udp, such as 127.0.0.1")
    if values.get("facility") not in FACILITIES:
        reading.problems.append(f"{where} facility is none of {', '.join(FACILITIES)}")


def _check_command(reading: ConfigReader, where: str, values: dict[str, Any]) -> None:
    if command := values.get("command"):
        program = reading.absolute(command[0]) if "/" in command[0] else command[0]
        if shutil.which(program) is None:
            reading.problems.append(f"{where} command: there is no program {program!r}, or it may not be run")
        values["command"] = (program, *command[1:])


_CHECKS: dict[str, Callable[[ConfigReader, str, dict[str, Any]], None]] = {
    "mail": _check_mail,
    "webhook": _check_webhook,
    "syslog": _check_syslog,
    "command": _check_command,
}


def check_alerts(reading: ConfigReader, alerts: list[dict[str, Any]], command: tuple[str, ...]) -> None:
    """What can be wrong with all of them together."""
    if len(alerts) > ALERTS_MAX:
        reading.problems.append(f"{len(alerts)} sections {_WHERE}; at most {ALERTS_MAX}")
    names = [values.get("name") or values.get("way") for values in alerts] + (["alert_command"] if command else [])
    for name, times in Counter(names).items():
        if name and times > 1:
            reading.problems.append(f"{_WHERE}: {times} ways are called {name!r}; give each a name of its own")
    for address, times in Counter(to for values in alerts for to in set(values.get("to", ()))).items():
        if times > 1 and not any(values.get("kinds") for values in alerts):
            reading.problems.append(f"{_WHERE} to: {address} would be told {times} times")


def _secret(reading: ConfigReader, where: str, values: dict[str, Any], key: str, octets_min: int) -> None:
    if not values.get(key):
        return
    values[key] = reading.absolute(values[key])
    try:
        read_secret(values[key], octets_min)
    except SecretProblem as problem:
        reading.problems.append(f"{where} {key}: {problem}")


def _is_address(text: str) -> bool:
    name, at, domain = text.rpartition("@")
    plain = text.isascii() and text.isprintable() and not any(one in text for one in ' <>,;:"()[]\\')
    return bool(name and at and domain) and plain and len(text) <= ADDRESS_MAX


def parse_place(text: str) -> tuple[str, int]:
    """`name:port`, with its port. Raises InvalidName."""
    if not text.rpartition(":")[2].isdigit():
        raise InvalidName(f"{text[:80]!r} is not of the form name:port")
    return parse_server(text)


def _is_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


assert set(_CHECKS) == set(get_args(WayKind))


FACILITIES = ("user", "daemon", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7")
