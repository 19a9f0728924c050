"""Channels to administrators, made from [[server.alert]] and `alert_command`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from compass.daemons.alerts.command import command_channel
from compass.daemons.alerts.smtp import Relay, mail_channel
from compass.daemons.alerts.syslog import syslog_channel
from compass.daemons.alerts.webhook import webhook_channel
from compass.daemons.config.alerts import AlertSettings, parse_name_and_port
from compass.server.alerts.notifier import Channel
from compass.server.alerts.outbox import Message

COMMAND_PER_MINUTE = 600
"""Limit of `alert_command`, which had none at first: ten per second."""


def alert_channels(
    reactor: Any, command: tuple[str, ...], alerts: tuple[AlertSettings, ...], server: str
) -> tuple[Channel, ...]:
    """Return the channels of the configuration; messages contain `server`, this server's name."""
    channels: list[Channel] = []
    if command:
        deliver = command_channel(reactor, command, server)
        channels.append(Channel("alert_command", "command", deliver, per_minute=COMMAND_PER_MINUTE))
    for settings in alerts:
        name = settings.name or settings.way
        for suffix, deliver in _deliveries(reactor, settings, server):
            channels.append(Channel(name + suffix, settings.way, deliver, settings.kinds, settings.per_minute))
    return tuple(channels)


def _deliveries(
    reactor: Any, settings: AlertSettings, server: str
) -> list[tuple[str, Callable[[Message], Deferred[None]]]]:
    match settings.way:
        case "mail":
            login = settings.user, settings.password_file
            address = parse_name_and_port(settings.relay)
            relay = Relay(reactor, address, settings.security, settings.authority, login, settings.sender)
            recipients = dict.fromkeys(settings.to)
            return [(f" to {to}", mail_channel(relay, settings.sender, to, server)) for to in recipients]
        case "webhook":
            deliver = webhook_channel(
                reactor, settings.url, settings.secret_file, settings.authority, time.time, server
            )
            return [("", deliver)]
        case "syslog":
            return [("", syslog_channel(reactor, settings.target, settings.facility, settings.authority, server))]
        case "command":
            return [("", command_channel(reactor, settings.command, server))]
