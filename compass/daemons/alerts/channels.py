"""The ways to administrators, made from [[server.alert]] and `alert_command`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from compass.daemons.alerts.command import command_way
from compass.daemons.alerts.smtp import Relay, mailbox
from compass.daemons.alerts.syslog import syslog
from compass.daemons.alerts.webhook import webhook
from compass.daemons.config.alerts import AlertSettings, parse_name_and_port
from compass.server.alerts.notifier import Channel
from compass.server.alerts.outbox import Message

COMMAND_PER_MINUTE = 600
"""Of `alert_command`, which was there before there was a limit: ten a second."""


def alert_channels(
    reactor: Any, command: tuple[str, ...], alerts: tuple[AlertSettings, ...], server: str
) -> tuple[Channel, ...]:
    """What the configuration comes to; `server` is this server's name, which messages tell."""
    ways: list[Channel] = []
    if command:
        deliver = command_way(reactor, command, server)
        ways.append(Channel("alert_command", "command", deliver, per_minute=COMMAND_PER_MINUTE))
    for settings in alerts:
        name = settings.name or settings.way
        for suffix, deliver in _delivering(reactor, settings, server):
            ways.append(Channel(name + suffix, settings.way, deliver, settings.kinds, settings.per_minute))
    return tuple(ways)


def _delivering(
    reactor: Any, settings: AlertSettings, server: str
) -> list[tuple[str, Callable[[Message], Deferred[None]]]]:
    match settings.way:
        case "mail":
            login = settings.user, settings.password_file
            place = parse_name_and_port(settings.relay)
            relay = Relay(reactor, place, settings.security, settings.authority, login, settings.sender)
            boxes = dict.fromkeys(settings.to)
            return [(f" to {to}", mailbox(relay, settings.sender, to, server)) for to in boxes]
        case "webhook":
            hook = webhook(reactor, settings.url, settings.secret_file, settings.authority, time.time, server)
            return [("", hook)]
        case "syslog":
            return [("", syslog(reactor, settings.target, settings.facility, settings.authority, server))]
        case "command":
            return [("", command_way(reactor, settings.command, server))]
