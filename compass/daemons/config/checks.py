"""Sections [[host.check]]: the checks of their values."""

from __future__ import annotations

from collections import Counter
from typing import Any

from compass.agent.registration.own_checks import CONFIGURED_CHECKS_MAX
from compass.daemons.config.file import ConfigFile
from compass.model.host_api import bounds_problem, is_path
from compass.model.limits import PROBE_PATH_MAX
from compass.model.names import parse_address, parse_service_id

NUMBERS = ("interval_seconds", "failures", "timeout_seconds")
"""Keys with bounds."""


def read_checks(reader: ConfigFile) -> list[dict[str, Any]]:
    """Check the values of all [[host.check]]. Returns them with names in canonical form."""
    checks = reader.each("host.check")
    if len(checks) > CONFIGURED_CHECKS_MAX:
        reader.problems.append(f"{len(checks)} sections [[host.check]]; at most {CONFIGURED_CHECKS_MAX}")
    for values in checks:
        _read_check(reader, values)
    listeners = Counter((values.get("service"), values.get("port"), values.get("address")) for values in checks)
    for (service, port, address), times in listeners.items():
        if times > 1:
            at = f"port {port}" + (f" of {address}" if address else "")
            reader.problems.append(f"[host.check] service: {times} checks of {service} at {at}; one command can do all")
    return checks


def _read_check(reader: ConfigFile, values: dict[str, Any]) -> None:
    where = "[host.check]"
    if "service" in values:
        values["service"] = reader.parsed(f"{where} service", parse_service_id, values["service"])
    if values.get("address"):
        values["address"] = reader.parsed(f"{where} address", parse_address, values["address"])
    path, command = values.get("http", ""), values.get("command", ())
    if path and command:
        reader.problems.append(f"{where} http and command exclude each other")
    if path and not is_path(path):
        reader.problems.append(f"{where} http: {path!r} is no path of 1 to {PROBE_PATH_MAX} characters such as /health")
    if command:
        values["command"] = reader.command(f"{where} command", command)
    numbers = tuple(values[name] for name in NUMBERS if name in values)
    problem = bounds_problem(*numbers) if len(numbers) == len(NUMBERS) else ""
    if problem:
        reader.problems.append(f"{where} {problem}")
