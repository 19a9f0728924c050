"""Readiness of a command: its port accepts connections, and an optional HTTP or command check passes."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Sequence

import msgspec

from compass.cli.run.spawn import run_check
from compass.model.host_api import check_text
from compass.model.names import format_endpoint
from compass.system.proc import waits_for_accept

ANSWER_SECONDS = 1.0
"""Seconds for a connection on this machine to be accepted, and by default for one check to pass."""
ACCEPT_POLL_SECONDS = 0.02
"""Seconds between two looks whether the command has accepted a connection of its check."""


class ReadinessCheck(msgspec.Struct, frozen=True):
    """Checks that must pass before a command is registered, in addition to accepting connections."""

    http_path: str = ""
    """Path whose GET must be answered with a status below 400; empty: no such check."""
    command: tuple[str, ...] = ()
    """Command that must end with status 0; empty: no such check."""
    seconds: float = ANSWER_SECONDS
    """Time limit of each check."""
    accepts: bool = True
    """True: the port must accept connections; False for UDP, whose ports accept none."""

    def text(self, watchdog_seconds: float, interval_seconds: float, failures: int) -> str:
        """Return the description of the check as it is repeated."""
        found = ["accepts connections"] if self.accepts and not self.http_path else []
        found += [f"GET {self.http_path}"] if self.http_path else []
        found += [" ".join(self.command)] if self.command else []
        found += [f"watchdog of {watchdog_seconds:g} s"] if watchdog_seconds else []
        return check_text(", ".join(found), interval_seconds, failures)


Endpoint = tuple[str, int]
Held = Callable[[Endpoint], str]
"""Function that says why an endpoint is not held by the command; empty: it is."""


def readiness_problem(endpoints: Sequence[Endpoint], check: ReadinessCheck, held: Held = lambda _: "") -> str:
    """Return what is missing until the command serves; empty if it is ready."""
    endpoint = next((endpoint for endpoint in endpoints if accepts(endpoint)), None) if check.accepts else endpoints[0]
    if endpoint is None:
        return _unheard(endpoints)
    if problem := held(endpoint):
        return problem
    if check.http_path and (problem := _http_problem(endpoint, check)):
        return f"does not answer GET {check.http_path} at {format_endpoint(*endpoint)}: {problem}"
    if check.command and (problem := run_check(check.command, check.seconds)):
        return f"does not pass {' '.join(check.command)}: {problem}"
    return ""


def accepts(endpoint: tuple[str, int]) -> bool:
    """Return whether a TCP connection is accepted there."""
    try:
        with socket.create_connection(endpoint, ANSWER_SECONDS):
            return True
    except OSError:
        return False


def _unheard(endpoints: Sequence[Endpoint]) -> str:
    """Return where nothing accepts connections, and where on this machine something does instead."""
    text = f"accepts no connections at {' or '.join(format_endpoint(*endpoint) for endpoint in endpoints)}"
    elsewhere = [one for one in endpoints_of("", endpoints[0][1]) if one not in endpoints and accepts(one)]
    if len(endpoints) > 1 or not elsewhere:
        return text
    return f"{text}, the address that would be registered, but at {format_endpoint(*elsewhere[0])}"


def acceptance_problem(endpoint: Endpoint, seconds: float) -> str:
    """Return why the command does not accept a connection within the time; empty: it does.

    A listening port answers for a process that hangs, until its queue is full: the kernel does. So the connection must
    also have been accepted by a process.
    """
    until = time.monotonic() + seconds
    where = format_endpoint(*endpoint)
    try:
        with socket.create_connection(endpoint, seconds) as connection:
            while waits_for_accept(connection):
                if time.monotonic() > until:
                    return f"does not accept the connections that wait at {where}"
                time.sleep(ACCEPT_POLL_SECONDS)
    except TimeoutError:
        return f"does not accept connections at {where} within {seconds:g} s"
    except OSError as error:
        return f"does not accept connections at {where}: {error.strerror or error}"
    return ""


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
