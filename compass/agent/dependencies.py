"""Dependencies of an agent, which the assembly of the daemon or of a test makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from compass.agent.hooks.runner import HookRunner
from compass.agent.local_users import CONNECTIONS_MAX
from compass.agent.registration.entries import RegistrarDependencies
from compass.agent.registration.own_checks import CheckMeans
from compass.agent.registration.probe_responder import Probe
from compass.agent.upstream.connector import Mode
from compass.model.rules.certificates import OwnCertificate
from compass.system.machine import UNKNOWN_MACHINE, Machine

SOFTWARE = "opengnscd"
REFRESH_SECONDS: dict[Mode, float] = {"keep": 3600.0, "short": 300.0}
"""Pause between watches; a change of which a host got no notice is seen after this time."""


class AgentDependencies(RegistrarDependencies, frozen=True, kw_only=True):
    """Dependencies of an agent, which the daemon's assembly hands in."""

    state_directory: Path
    host_name: str
    machine: Machine = UNKNOWN_MACHINE
    """Machine on which the agent runs, recorded with each registration."""
    update_port: int = 0
    """Port at which servers dial this host; 0: they cannot."""
    refresh_seconds: float | None = None
    """Pause between watches; None: as the mode needs it."""
    software: str = SOFTWARE
    instance: str = ""
    """Text that no other run of a daemon has."""
    probe: Probe | None = None
    """Probe of a listener; without it the host answers no inquiries."""
    checks: CheckMeans = CheckMeans()
    """Means for the checks of this host's own listeners."""
    services: Sequence[str] = ()
    """Services to watch for from the start, whether programs register or ask for them or not."""
    view: Path | None = None
    """Directory in which the view is shared."""
    view_group: int | None = None
    """Group that may read the shared view; None: every user may."""
    reactions: HookRunner | None = None
    """Hooks and templates."""
    trusted_users: frozenset[int] = frozenset()
    """Users of this machine without limits of their own: root, and the daemon's."""
    connections_max: int = CONNECTIONS_MAX
    """Connections of local programs at once."""
    own_probe: Probe | None = None
    """Probe of the listeners that are registered here; without it they are not tried."""
    development: bool = False
    """True in development mode: programs are let know that they need no credential."""
    dns: str = ""
    """Address and port at which DNS queries are answered; empty: none are."""
    dns_zone: str = ""
    """Zone of these answers."""
    certificates: Callable[[], Sequence[OwnCertificate]] = tuple
    """Function that returns the certificates whose end ends this host's sessions."""
