"""Reader of proc(5): descendants of a process, and the processes that hold a listening port."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
LISTEN, ESTABLISHED, UNCONNECTED = "0A", "01", "07"
"""States of a socket in /proc/net/tcp and udp, as the kernel writes them; the last one is of UDP."""


class Socket(NamedTuple):
    """Line of /proc/net/tcp, tcp6, udp or udp6."""

    local: tuple[str, int]
    remote: tuple[str, int]
    state: str
    inode: int
    """Number of the socket; 0: no process has accepted the connection yet."""


def children_of(pid: int) -> set[int]:
    """Return the children of a process, ended ones included."""
    found: set[int] = set()
    tasks = list((PROC / str(pid) / "task").glob("*/children"))
    for task in tasks:
        with contextlib.suppress(OSError):
            found.update(map(int, task.read_text().split()))
    return found if tasks else {child for child, parent in _parents() if parent == pid}


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each process and its parent, for kernels without the lists of children."""
    for stat in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            yield int(stat.parent.name), int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])


def tree_of(roots: Iterable[int]) -> list[int]:
    """Return processes and all of their descendants, parents first."""
    found: dict[int, None] = {}
    left = sorted(roots)
    while left:
        pid = left.pop(0)
        if pid not in found:
            found[pid] = None
            left += sorted(children_of(pid))
    return list(found)


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or ended and not yet waited for."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "ZX"
    except (OSError, IndexError):
        return True


def sockets_of(pid: int | str = "self", protocol: str = "tcp") -> Iterator[Socket]:
    """Yield the sockets of a process's network namespace. Raises OSError if they cannot be read."""
    for name in (protocol, f"{protocol}6"):
        try:
            lines = (PROC / str(pid) / "net" / name).read_text().splitlines()[1:]
        except FileNotFoundError:
            # A kernel without IPv6.
            if name == protocol:
                raise
            continue
        for line in lines:
            fields = line.split()
            yield Socket(_endpoint(fields[1]), _endpoint(fields[2]), fields[3], int(fields[9]))


def _endpoint(text: str) -> tuple[str, int]:
    """Return address and port from the kernel's hexadecimal form: words of 32 bits in the machine's order."""
    address, _, port = text.partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    parsed = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(parsed), int(port, 16)


class PortHolders(NamedTuple):
    """Processes that hold a listening port."""

    listens: bool
    """True if a socket listens there at all."""
    holders: tuple[int, ...]
    """Given processes that hold such a socket."""
    unreadable: str = ""
    """Why this cannot be said; empty: it can."""


def port_holders(address: str, port: int, pids: Iterable[int], protocol: str = "tcp") -> PortHolders:
    """Return which of some processes hold a socket that listens at an address and port, or at all addresses.

    A socket of UDP listens if it is bound there and to no peer."""
    pids = list(pids)
    try:
        inodes = _listening(address, port, "self", protocol)
        for namespace in _other_networks(pids):
            inodes |= _listening(address, port, namespace, protocol)
    except (OSError, ValueError, IndexError) as error:
        return PortHolders(False, (), f"the sockets in /proc/net cannot be read ({error})")
    holders, hidden = [], ""
    for pid in pids:
        try:
            if inodes & _held_sockets(pid):
                holders.append(pid)
        except PermissionError as error:
            hidden = f"the files of process {pid} are not shown to this user ({error.strerror})"
        except OSError:
            continue
    return PortHolders(bool(inodes), tuple(holders), "" if holders else hidden)


def _listening(address: str, port: int, pid: int | str, protocol: str) -> set[int]:
    places = {address, "0.0.0.0", "::"}
    state = LISTEN if protocol == "tcp" else UNCONNECTED
    return {
        one.inode
        for one in sockets_of(pid, protocol)
        if one.state == state and one.local[1] == port and one.local[0] in places
    }


def _other_networks(pids: Iterable[int]) -> list[int]:
    """Return one process of each network namespace other than ours."""
    known = {_network("self")}
    found = []
    for pid in pids:
        network = _network(pid)
        if network and network not in known:
            known.add(network)
            found.append(pid)
    return found


def _network(pid: int | str) -> str:
    try:
        return str((PROC / str(pid) / "ns" / "net").readlink())
    except OSError:
        return ""


def _held_sockets(pid: int) -> set[int]:
    found = set()
    for descriptor in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                found.add(int(target[len("socket:[") : -1]))
    return found


def waits_for_accept(connection: socket.socket) -> bool:
    """Return whether the listener of this machine has not accepted a connection yet: the kernel alone has answered."""
    own, peer = connection.getsockname()[:2], connection.getpeername()[:2]
    try:
        for one in sockets_of():
            if one.remote == own and one.local == peer:
                return one.state == ESTABLISHED and one.inode == 0
    except (OSError, ValueError, IndexError):
        pass
    # Accepted and closed already, or in another network namespace.
    return False
