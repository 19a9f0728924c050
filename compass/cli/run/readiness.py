"""Whether a command serves: its port accepts, and what more was asked of it (an HTTP answer, a command of its own)."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
from collections.abc import Sequence

import msgspec

from compass.model.names import format_endpoint

ANSWER_SECONDS = 1.0
"""For one connection on this machine to be accepted, and by default for one check to pass."""
OUTPUT_MAX = 200
"""Characters of what a failed check said that are repeated."""


spawning = threading.Lock()
"""Held while a check's process is made, and by whoever lets go of processes that are nobody's."""
running_checks: set[int] = set()
"""Check processes that are waited for here."""


class ReadinessCheck(msgspec.Struct, frozen=True):
    """What has to pass before a command is registered, beside that it accepts connections."""

    http_path: str = ""
    """GET of this path must be answered with a status below 400."""
    command: tuple[str, ...] = ()
    """Must end with status 0."""
    seconds: float = ANSWER_SECONDS
    """For each of both."""


def readiness_problem(places: Sequence[tuple[str, int]], check: ReadinessCheck) -> str:
    """What is missing until it serves; empty: nothing."""
    place = next((place for place in places if accepts(place)), None)
    if place is None:
        return f"accepts no connections at {' or '.join(format_endpoint(*place) for place in places)}"
    if check.http_path and (problem := _http_problem(place, check)):
        return f"does not answer GET {check.http_path} at {format_endpoint(*place)}: {problem}"
    if check.command and (problem := _command_problem(check)):
        return f"does not pass {' '.join(check.command)}: {problem}"
    return ""


def accepts(place: tuple[str, int]) -> bool:
    """Whether a TCP connection is accepted there."""
    try:
        with socket.create_connection(place, ANSWER_SECONDS):
            return True
    except OSError:
        return False


def _http_problem(place: tuple[str, int], check: ReadinessCheck) -> str:
    asking = http.client.HTTPConnection(*place, timeout=check.seconds)
    try:
        asking.request("GET", check.http_path, headers={"Connection": "close"})
        status = asking.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"nothing within {check.seconds:g} s" if isinstance(error, TimeoutError) else str(error) or repr(error)
    finally:
        asking.close()
    return "" if status < 400 else f"status {status}"


def _command_problem(check: ReadinessCheck) -> str:
    try:
        with spawning:
            process = subprocess.Popen(check.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            running_checks.add(process.pid)
    except OSError as error:
        return str(error.strerror)
    try:
        told, _ = process.communicate(timeout=check.seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"not ended within {check.seconds:g} s"
    finally:
        running_checks.discard(process.pid)
    said = told.decode("utf-8", "replace").strip()[:OUTPUT_MAX]
    return "" if process.returncode == 0 else f"status {process.returncode} {said}".strip()
