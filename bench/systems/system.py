"""Interface of every measured system: start, stop, and a plan of load for each workload that it supports."""

from __future__ import annotations

from pathlib import Path

from bench.generator import Load, Plan
from bench.systems.running import Running

LISTENERS = 3
"""Listeners of each service of a list."""
SERVICES = 10
"""Services of the list that is pulled."""
RECORD_OCTETS = 150
"""Octets that the other systems store of a listener: the size of a row of compass."""


class System:
    """Measured system. The plan of a workload without an equivalent is None."""

    name = ""
    version = ""
    tls = False
    running: Running

    @property
    def label(self) -> str:
        """The name for files and short tables."""
        return f"{self.name}{'-tls' if self.tls else ''}".replace(" ", "-")

    def __init__(self, directory: Path) -> None:
        """`directory`: for its data, and gone with it."""
        directory.mkdir(parents=True)
        self.directory = directory

    def start(self) -> None:
        """Start it and put in what the workloads read. Raises NotInstalled."""
        raise NotImplementedError

    def loaded(self, plan: Plan) -> None:
        """Run the setups of a plan, which put data in."""
        plan.mode, plan.settings["pause"] = "hold", 0
        with Load(plan, self.directory / "filling") as load:
            load.ready()

    def stop(self) -> None:
        """End its processes."""
        self.running.stop()

    def registrations(self, clients: int) -> Plan | None:
        """B1: each client changes its own record, durably, one request at a time."""
        raise NotImplementedError

    def fan_out(self, watchers: int) -> Plan | None:
        """B2: send one change to all watchers; they acknowledge, or read again, as the system's own clients do."""
        raise NotImplementedError

    def lists(self, clients: int) -> Plan | None:
        """B3: each client reads a list of 10 services with 3 listeners each, one request at a time."""
        raise NotImplementedError

    def cold_start(self, clients: int, *, resumed: bool) -> Plan | None:
        """B4: connect a number of clients at once; each reads the list."""
        return None
