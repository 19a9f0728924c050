"""Users at the other end of local connections: SO_PEERCRED on a Unix socket, the owner of the socket on the loopback.

The kernel knows the user of a local peer; what a peer says of itself is not read. For TCP the kernel is asked for the
one socket at the other end (sock_diag(7)), so that the answer costs the same however many sockets there are; where this
is not available, /proc/net/tcp is searched.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

UNKNOWN_USER = -1
"""User of a peer that the kernel does not name: a peer of another machine, or one that has closed its socket."""
PROC_NET = Path("/proc/net")
TABLE_OCTETS_MAX = 1024 * 1024
"""Octets read of one table of /proc/net: some 7,000 sockets. A peer beyond that is of no user in particular, because
reading more would let any program slow the reader by opening sockets."""
DIAG_SECONDS = 1.0
"""Time limit for the kernel's answer, which it gives within the call."""

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_NLMSG_DONE = 3
_LISTEN = 10
_CREDENTIALS = struct.Struct("3i")
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBBBI")
_PORTS = struct.Struct("!HH")
_REST_OF_ID = struct.Struct("=III")
_ANSWER = struct.Struct("=BBBB48xIIIII")
_ANY_COOKIE = 0xFFFFFFFF
_ADDRESS_AT = 8
"""Octets before the local address in an answer."""
_ANSWER_OCTETS_MAX = 8192
DUMP_OCTETS_MAX = 65_536
"""Octets of one of the kernel's datagrams with several answers, which is a page or eight."""

_Socket = socket.socket
Address = tuple[str, int]
"""IP address and port."""


class _Row(NamedTuple):
    """Socket of the kernel's tables."""

    local: Address
    remote: Address
    state: int
    user: int
    inode: int


def user_of_peer(connection: socket.socket) -> int:
    """Return the user at the other end of a connected socket, or UNKNOWN_USER.

    On a Unix socket it is the user who connected, or who began to listen.
    """
    try:
        if connection.family == socket.AF_UNIX:
            octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return int(_CREDENTIALS.unpack(octets)[1])
        return user_of_client(connection.getpeername()[:2], connection.getsockname()[:2])
    except (OSError, struct.error):
        return UNKNOWN_USER


def user_of_client(client: Address, server: Address) -> int:
    """Return the user of the socket at `client` that is connected to `server`, or UNKNOWN_USER.

    A socket without an inode is closed or not accepted yet: the kernel shows root as its owner, which says nothing.
    """
    client, server = _plain(client), _plain(server)
    row = _diagnosed(client, server)
    if row is None:
        row = _listed(client, server)
    return row.user if row is not None and row.inode else UNKNOWN_USER


def users_listening(address: str, port: int) -> frozenset[int]:
    """Return the users of all sockets that listen at this address and port, wildcards included."""
    wanted = _plain((address, port))[0]
    wildcards = (wanted, "0.0.0.0", "::")
    rows = _diagnosed_listening(port)
    if rows is None:
        rows = [row for name in ("tcp", "tcp6") for row in _rows(name, port) if row.state == _LISTEN]
    return frozenset(row.user for row in rows if row.local[0] in wildcards)


def _plain(place: Address) -> Address:
    """Return the address as the kernel's tables have it: an IPv4 address mapped into IPv6 as IPv4."""
    address = ipaddress.ip_address(place[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), place[1]


class _Kernel(threading.local):
    """Netlink socket of a thread, on which the kernel is asked."""

    socket: socket.socket | None = None
    process = 0
    asked = 0
    answers = False
    """The kernel has described a socket before: one that cannot describe any answers as if there were none."""

    def ask(self, message: bytes) -> bytes:
        """Return the answer to a message without its header. Raises OSError."""
        kernel = self._send(message, _NLM_F_REQUEST)
        while True:
            answer = kernel.recv(_ANSWER_OCTETS_MAX)
            _, kind, _, number, _ = _HEADER.unpack_from(answer)
            if number == self.asked:
                self.answers = self.answers or kind == _SOCK_DIAG_BY_FAMILY
                return answer[_HEADER.size :] if kind == _SOCK_DIAG_BY_FAMILY else b""

    def ask_all(self, message: bytes) -> Iterator[bytes]:
        """Yield all answers to a message without their headers. Raises OSError."""
        kernel = self._send(message, _NLM_F_REQUEST | _NLM_F_DUMP)
        while True:
            answers, at = kernel.recv(DUMP_OCTETS_MAX), 0
            while at + _HEADER.size <= len(answers):
                size, kind, _, number, _ = _HEADER.unpack_from(answers, at)
                if number == self.asked and kind != _SOCK_DIAG_BY_FAMILY:
                    if kind != _NLMSG_DONE:
                        raise OSError("the kernel does not list sockets")
                    return
                if number == self.asked:
                    yield answers[at + _HEADER.size : at + size]
                at += max(_HEADER.size, (size + 3) & ~3)

    def _send(self, message: bytes, flags: int) -> _Socket:
        if self.socket is None or self.process != os.getpid():
            # A fork has a copy of the socket, and would read the answers of its parent.
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
            self.socket.settimeout(DIAG_SECONDS)
            self.process = os.getpid()
        self.asked = (self.asked + 1) % _ANY_COOKIE
        size = _HEADER.size + len(message)
        self.socket.sendto(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, flags, self.asked, 0) + message, (0, 0))
        return self.socket


_kernel = _Kernel()


def _diagnosed(client: Address, server: Address) -> _Row | None:
    """Ask the kernel for one socket. Returns one without an inode if the kernel has none, and None if the kernel cannot
    be asked.

    A program that closes its socket at once must not have the tables searched, which takes a hundred times as long.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        if family == socket.AF_INET and ":" in client[0]:
            continue
        mapped = "::ffff:" if family == socket.AF_INET6 and ":" not in client[0] else ""
        ends = [socket.inet_pton(family, mapped + place[0]).ljust(16, b"\0") for place in (client, server)]
        id = _PORTS.pack(client[1], server[1]) + b"".join(ends) + _REST_OF_ID.pack(0, _ANY_COOKIE, _ANY_COOKIE)
        try:
            answer = _kernel.ask(_ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + id)
        except (OSError, struct.error):
            return None
        if len(answer) >= _ANSWER.size:
            _, state, _, _, _, _, _, user, inode = _ANSWER.unpack_from(answer)
            return _Row(client, server, state, user, inode)
    return _Row(client, server, 0, UNKNOWN_USER, 0) if _kernel.answers else None


def _diagnosed_listening(port: int) -> list[_Row] | None:
    """Ask the kernel for the sockets that listen at a port. Returns None if it cannot be asked.

    The kernel walks its table of listening sockets only; to read /proc/net/tcp it walks those of all connections, which
    takes milliseconds on a machine without any.
    """
    rows: list[_Row] = []
    id = _PORTS.pack(port, 0) + bytes(32) + _REST_OF_ID.pack(0, _ANY_COOKIE, _ANY_COOKIE)
    try:
        for family, length in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
            for answer in _kernel.ask_all(_ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN) + id):
                _, state, _, _, _, _, _, user, inode = _ANSWER.unpack_from(answer)
                local = _plain((socket.inet_ntop(family, answer[_ADDRESS_AT : _ADDRESS_AT + length]), port))
                if _PORTS.unpack_from(answer, 4)[0] == port:
                    rows.append(_Row(local, ("", 0), state, user, inode))
    except (OSError, struct.error):
        return None
    return rows


def _listed(client: Address, server: Address) -> _Row | None:
    """Search the tables of /proc/net for one socket."""
    for name in ("tcp", "tcp6"):
        for row in _rows(name, client[1]):
            if row.local == client and row.remote == server:
                return row
    return None


def _rows(name: str, port: int) -> Iterator[_Row]:
    """Return the rows of a table of /proc/net (proc(5)) with a local port; none if it cannot be read."""
    ending = b":%04X" % port
    try:
        with (PROC_NET / name).open("rb") as table:
            lines = table.read(TABLE_OCTETS_MAX).splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[1].endswith(ending):
            local, remote = (_address_of(field.decode("ascii")) for field in fields[1:3])
            yield _Row(local, remote, int(fields[3], 16), int(fields[7]), int(fields[9]))


def _address_of(field: str) -> Address:
    """Return the address of a field such as `0100007F:1302`: 32-bit words in the order of this machine."""
    words, _, port = field.partition(":")
    octets = bytes.fromhex(words)
    if sys.byteorder == "little":
        octets = b"".join(octets[at : at + 4][::-1] for at in range(0, len(octets), 4))
    return _plain((str(ipaddress.ip_address(octets)), int(port, 16)))
