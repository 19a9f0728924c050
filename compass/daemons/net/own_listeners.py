"""Checks of listeners on this very host: connections to its own addresses, and commands of the configuration."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from compass.agent.hooks.subprocesses import CommandRunner
from compass.agent.registration.own_checks import CheckMeans, CheckSettings
from compass.model.names import parse_network
from compass.model.rules.networks import ProbeNetworks
from compass.server.failure.probes import Prober

FAILING_STATUS = 400
"""Lowest status of HTTP that is a failure of a host's own check: its path is made for the check, so 404 is one, too."""
OUTPUT_OCTETS_MAX = 4096
"""Most octets of output of a check's command: only the end of it is shown."""


def check_means(reactor: Any, software: str, configured: tuple[CheckSettings, ...]) -> CheckMeans:
    """Return the means to check listeners of this host."""
    everywhere = ProbeNetworks((parse_network("0.0.0.0/0"), parse_network("::/0")))
    commands = CommandRunner(reactor)

    def run(command: Sequence[str], seconds: float, names: dict[str, str]) -> Deferred[str]:
        return commands.run(command, b"", seconds, names, OUTPUT_OCTETS_MAX).addCallback(lambda result: result.problem)

    probe = Prober(reactor, software, everywhere, FAILING_STATUS).probe
    return CheckMeans(probe=probe, run=run, is_own=is_own_address, configured=configured)


def is_own_address(address: str) -> bool:
    """Return whether an address belongs to this machine: a socket can be bound to it."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as unused:
            unused.bind((address, 0))
        return True
    except OSError:
        return False
