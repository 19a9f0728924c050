"""Readiness of a command: its port accepts connections, and an optional HTTP or command check passes."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
from collections.abc import Sequence

import msgspec

from compass.model.names import format_endpoint

ANSWER_SECONDS = 1.0
"""Seconds for a connection on this machine to be accepted, and by default for one check to pass."""
OUTPUT_MAX = 200
"""Characters of a failed check's output that are shown."""


spawning = threading.Lock()
"""Lock held while a check's process is started, and while orphans are reaped."""
running_checks: set[int] = set()
"""Numbers of the check processes that this module waits for."""


class ReadinessCheck(msgspec.Struct, frozen=True):
    """Checks that must pass before a command is registered, in addition to accepting connections."""

    http_path: str = ""
    """Path whose GET must be answered with a status below 400; empty: no such check."""
    command: tuple[str, ...] = ()
    """Command that must end with status 0; empty: no such check."""
    seconds: float = ANSWER_SECONDS
    """Time limit of each check."""


def readiness_problem(endpoints: Sequence[tuple[str, int]], check: ReadinessCheck) -> str:
    """Return what is missing until the command serves; empty if it is ready."""
    endpoint = next((endpoint for endpoint in endpoints if accepts(endpoint)), None)
    if endpoint is None:
        return f"accepts no connections at {' or '.join(format_endpoint(*endpoint) for endpoint in endpoints)}"
    if check.http_path and (problem := _http_problem(endpoint, check)):
        return f"does not answer GET {check.http_path} at {format_endpoint(*endpoint)}: {problem}"
    if check.command and (problem := _command_problem(check)):
        return f"does not pass {' '.join(check.command)}: {problem}"
    return ""


def accepts(endpoint: tuple[str, int]) -> bool:
    """Return whether a TCP connection is accepted there."""
    try:
        with socket.create_connection(endpoint, ANSWER_SECONDS):
            return True
    except OSError:
        return False


def _http_problem(endpoint: tuple[str, int], check: ReadinessCheck) -> str:
    connection = http.client.HTTPConnection(*endpoint, timeout=check.seconds)
    try:
        connection.request("GET", check.http_path, headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"nothing within {check.seconds:g} s" if isinstance(error, TimeoutError) else str(error) or repr(error)
    finally:
        connection.close()
    return "" if status < 400 else f"status {status}"


def _command_problem(check: ReadinessCheck) -> str:
    try:
        with spawning:
            process = subprocess.Popen(check.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            running_checks.add(process.pid)
    except OSError as error:
        return str(error.strerror)
    try:
        output, _ = process.communicate(timeout=check.seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"not ended within {check.seconds:g} s"
    finally:
        running_checks.discard(process.pid)
    shown = output.decode("utf-8", "replace").strip()[:OUTPUT_MAX]
    return "" if process.returncode == 0 else f"status {process.returncode} {shown}".strip()


def endpoints_of(address: str, port: int) -> list[tuple[str, int]]:
    """Return where a command that serves `address` may accept connections; without one, anywhere on this machine."""
    if address:
        return [(address, port)]
    return [(own, port) for own in dict.fromkeys(["127.0.0.1", "::1", *_own_addresses()])]


def _own_addresses() -> list[str]:
    """Return the source addresses of this machine's connections to other machines, without sending anything."""
    found = []
    # Documentation addresses (RFC 5737, RFC 3849) belong to no host, so the default route decides.
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as unsent:
                unsent.connect((elsewhere, 9))
                found.append(str(unsent.getsockname()[0]))
        except OSError:
            continue
    return found
