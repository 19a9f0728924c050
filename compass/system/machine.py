"""Identity of this machine for what is written about processes (a run of a kernel, a PID namespace), and its address.

A process number means something within one PID namespace of one boot only. What is written down about processes is
therefore kept together with the machine on which it was true.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
MACHINE_ID = Path("/etc/machine-id")
MACHINE_ID_OCTETS_MAX = 64
"""Octets read of the machine's id, which has 32 hexadecimal digits (machine-id(5))."""
ANYWHERE = ("192.0.2.1", "2001:db8::1")
"""Addresses that no machine has (RFC 5737, RFC 3849): the way to them is that of the default route."""
DISCARD_PORT = 9
"""Port of the connected UDP socket, to which nothing is sent."""


class Machine(NamedTuple):
    """Machine, boot, PID namespace and host name under which something was written down; empty: not known."""

    boot: str = ""
    """Id of the boot: each start of a kernel has another one."""
    namespace: str = ""
    """Number of the PID namespace's inode."""
    id: str = ""
    """Id of the installation (machine-id(5)); copies of an image may share it."""
    host: str = ""
    """Name of the host, as its certificate has it."""

    @property
    def processes(self) -> str:
        """Name of the set of processes in which a number means one process; empty if it is not known."""
        return f"{self.boot}/{self.namespace}" if self.boot and self.namespace else ""

    def has_processes_of(self, other: Machine) -> bool:
        """Return whether a process number of the other one means the same process here."""
        return bool(self.processes) and self.processes == other.processes

    def difference(self, other: Machine) -> str:
        """Return in words where the other one was, for a text such as "it was registered ..."."""
        if not other.processes:
            return "by an older version of this daemon, which did not record on which machine"
        if other.boot == self.boot:
            return "in another PID namespace"
        if other.id and self.id and other.id != self.id:
            return "on another machine"
        return "before this machine was started again, or on another machine"


UNKNOWN_MACHINE = Machine()
"""Machine of which nothing is known; it is no other one's, not even its own."""


def this_machine(host: str = "", proc: Path = PROC) -> Machine:
    """Return the identity of this machine, with what of it can be read."""
    try:
        namespace = str((proc / "self/ns/pid").readlink()).partition("[")[2].rstrip("]")
    except OSError:
        namespace = ""
    boot = _text_of(proc / "sys/kernel/random/boot_id")
    return Machine(boot, namespace, _text_of(MACHINE_ID), host)


def has_own_proc(proc: Path = PROC) -> bool:
    """Return whether /proc shows the processes of this process's own PID namespace."""
    try:
        return str((proc / "self").readlink()) == str(os.getpid())
    except OSError:
        return False


def problem_of_proc(proc: Path = PROC) -> str:
    """Return why this process cannot see all processes of its PID namespace, and what to do; empty if it can."""
    if not has_own_proc(proc):
        return (
            f"{proc} does not show the processes of this daemon's PID namespace, so registered processes are watched "
            f"but cannot be recognised after a restart of the daemon: mount a proc file system of that namespace there"
        )
    if not (proc / "1/stat").exists():
        return (
            f"{proc} hides the processes of other users from this daemon (hidepid), so they are watched but cannot be "
            f"recognised after a restart of the daemon: mount {proc} without hidepid, or with gid= and a group of the "
            f"daemon's user; in a unit of systemd, remove ProtectProc="
        )
    return ""


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MACHINE_ID_OCTETS_MAX).decode("ascii", "replace").strip()
    except OSError:
        return ""


def find_address(targets: Iterable[str]) -> str:
    """Return the source address on the way to the first target that has a route; empty: there is no network.

    Targets that are names are left out: a lookup could block. Link-local addresses are of no use to other hosts.
    """
    for target in (*targets, *ANYWHERE):
        try:
            version = ipaddress.ip_address(target).version
            with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.connect((target, DISCARD_PORT))
                found = str(asking.getsockname()[0])
        except (OSError, ValueError):
            continue
        address = ipaddress.ip_address(found)
        if not (address.is_link_local or address.is_unspecified):
            return found
    return ""
