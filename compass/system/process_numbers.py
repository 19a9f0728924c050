"""Process numbers of local programs, translated into those of this process's PID namespace (pid_namespaces(7)).

On a Unix socket the kernel names the program that asks in our own terms (SO_PEERCRED); from there the process that the
program means is found among the processes of its namespace, each of which has its numbers in all namespaces in
/proc/PID/status. Over TCP only what the program says of its namespace can be compared with our own.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from compass.system.machine import PROC, has_own_proc, this_machine

NO_PROCESS = -1
"""Process of a peer over TCP, of which the kernel names only the user."""
INVISIBLE = 0
"""Process of a peer in a PID namespace that is not below ours, as SO_PEERCRED has it."""
SEARCHED_MAX = 128
"""Processes of one container that are searched for a number: more than most have, and a few milliseconds in which the
daemon does nothing else."""
ANCESTORS_MAX = 64
"""Generations of processes that are followed: a container's first process is three or four above its programs."""
ADVICE = (
    "hold the registration by its connection instead (--hold, or hold=True), run the service under 'opengnsc run', or "
    "start opengnscd in the host's PID namespace (--pid host) and ask it at its Unix socket"
)

_CREDENTIALS = struct.Struct("3i")
_SO_PEERPIDFD = 77


class ForeignProcess(Exception):
    """Process number that means another process here, or none, or one of another user."""


class Caller(NamedTuple):
    """Program that asks: what the kernel knows of it, and what it says of its PID namespace."""

    user: int
    process: int = NO_PROCESS
    """Number of the program in our namespace, INVISIBLE or NO_PROCESS."""
    processes: str = ""
    """Set of processes to which its numbers belong, as `Machine.processes`; empty: not said."""


class _Status(NamedTuple):
    """Part of /proc/PID/status."""

    parent: int
    users: tuple[int, ...]
    """Real, effective, saved and file system user."""
    numbers: tuple[int, ...]
    """Numbers of the process in our namespace and in each one below, down to its own."""


def process_of_peer(connection: socket.socket) -> int:
    """Return the process that connected to a Unix socket, INVISIBLE, or NO_PROCESS for any other socket."""
    if connection.family != socket.AF_UNIX:
        return NO_PROCESS
    try:
        octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(octets)[0])
    except (OSError, struct.error):
        return NO_PROCESS


def descriptor_of_peer(connection: socket.socket) -> int | None:
    """Return a pidfd of the process that connected to a Unix socket, or None. The caller closes it.

    Linux 6.5 and later return it whatever the namespace; before that a process needs a number here to be opened.
    """
    if connection.family != socket.AF_UNIX:
        return None
    try:
        octets = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
        return int.from_bytes(octets, sys.byteorder)
    except OSError:
        pass
    try:
        process = process_of_peer(connection)
        return os.pidfd_open(process) if process > 0 else None
    except OSError:
        return None


def local_number(number: int, caller: Caller, proc: Path = PROC) -> int:
    """Return the number here of the process that the caller means by a number of its own. Raises ForeignProcess.

    A number means what it says if the caller is in our namespace, or if nothing is known of the caller.
    """
    found = _translated(number, caller, proc)
    status = _status(found, proc) if has_own_proc(proc) else None
    if status is None or caller.user in (0, *status.users) or caller.user < 0:
        return found
    if caller.process > 0 and caller.process in _ancestors(found, proc):
        return found
    raise ForeignProcess(
        f"process {number} belongs to user {status.users[0]}, and user {caller.user} asks: name a process of that "
        f"user; in a container, {ADVICE}"
    )


def _translated(number: int, caller: Caller, proc: Path) -> int:
    if caller.process == INVISIBLE:
        raise ForeignProcess(
            f"opengnscd runs in a PID namespace that has no process {number} of this program: {ADVICE}"
        )
    status = _status(caller.process, proc) if caller.process > 0 and has_own_proc(proc) else None
    if status is None:
        own = this_machine(proc=proc).processes
        if caller.processes and own and caller.processes != own:
            raise ForeignProcess(f"process {number} is one of another PID namespace than opengnscd's: {ADVICE}")
        return number
    if len(status.numbers) == 1:
        return number
    if number == status.numbers[-1]:
        return caller.process
    for process in _processes_around(caller.process, len(status.numbers), proc):
        found = _status(process, proc)
        if found is not None and len(found.numbers) == len(status.numbers) and found.numbers[-1] == number:
            return process
    raise ForeignProcess(f"opengnscd finds no process {number} in the PID namespace of this program: {ADVICE}")


def _processes_around(process: int, depth: int, proc: Path) -> Iterator[int]:
    """Return the processes of a process's namespace: the descendants of its first process, or of the highest ancestor
    within it. `depth`: namespaces from ours down to that one."""
    top = process
    for ancestor in _ancestors(process, proc):
        status = _status(ancestor, proc)
        if status is None or len(status.numbers) < depth:
            break
        top = ancestor
    waiting, seen = [top], 0
    while waiting and seen < SEARCHED_MAX:
        current = waiting.pop()
        seen += 1
        yield current
        waiting += _children(current, proc)


def _children(process: int, proc: Path) -> list[int]:
    """Return the children of all threads of a process."""
    children: list[int] = []
    try:
        for thread in (proc / str(process) / "task").iterdir():
            children += map(int, (thread / "children").read_text().split())
    except (OSError, ValueError):
        pass
    return children


def _ancestors(process: int, proc: Path) -> Iterator[int]:
    """Return the parent of a process, its parent, and so on."""
    for _ in range(ANCESTORS_MAX):
        status = _status(process, proc)
        if status is None or status.parent <= 0:
            return
        process = status.parent
        yield process


def _status(process: int, proc: Path) -> _Status | None:
    """Return what /proc says of a process; None if it says nothing, as with hidepid."""
    try:
        lines = (proc / str(process) / "status").read_text(errors="replace").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        users = tuple(map(int, fields["Uid"].split()))
        numbers = tuple(map(int, fields.get("NSpid", str(process)).split()))
        return _Status(int(fields["PPid"]), users, numbers)
    except (OSError, ValueError, KeyError):
        return None
