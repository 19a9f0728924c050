"""Addresses at which a command must accept connections: those that are registered, not any others of this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from compass.cli.run.readiness import Endpoint, accepts, endpoints_of
from compass.client.core.blocking_api import ApiProblem, HostApi
from compass.model.host_api import LocalRegister
from compass.model.names import format_endpoint

ASK_SECONDS = 1.0
"""Seconds between two questions to the daemon for its address, while it does not answer; also their time limit."""


class RegisteredAddress:
    """Address of each registration: its own, else the one that the daemon of this host is configured with.

    Until the daemon answers, a command is accepted at any address of this machine, and the registration waits.
    """

    def __init__(self, api: HostApi, registrations: Sequence[LocalRegister]) -> None:
        self._api = HostApi(api.endpoint, ASK_SECONDS)
        self._registrations = registrations
        self._default = ""
        self._ask_at = 0.0

    def endpoints(self) -> list[list[Endpoint]]:
        """Return for each registration where the command must accept connections: at one of these."""
        self._ask()
        return [endpoints_of(one.address or self._default, one.port) for one in self._registrations]

    def problem(self) -> str:
        """Return why the daemon's address, which may be known only now, cannot be registered; empty: it can."""
        if all(one.address for one in self._registrations):
            return ""
        self._ask_at = 0.0
        self._ask()
        for one in self._registrations:
            if self._default and not one.address and not accepts((self._default, one.port)):
                where = format_endpoint(self._default, one.port)
                return (
                    f"the command accepts no connections at {where}, the address of this host; "
                    "let it listen there, or name another address with --address"
                )
        return ""

    def _ask(self) -> None:
        if self._default or all(one.address for one in self._registrations) or time.monotonic() < self._ask_at:
            return
        with contextlib.suppress(ApiProblem):
            self._default = self._api.status().address
        self._ask_at = time.monotonic() + ASK_SECONDS
