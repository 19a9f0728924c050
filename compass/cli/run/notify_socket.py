"""Watchdog of a command: the signs of life that it sends by sd_notify(3), as to a service manager."""

from __future__ import annotations

import os
import secrets
import socket
import struct
import threading
import time

from compass.cli.run.process_tree import ProcessTree

MESSAGE_OCTETS_MAX = 4096
"""Longest message: a state and a few words."""
SIGN, ALARM = "WATCHDOG=1", "WATCHDOG=trigger"
"""Lines of sd_notify(3): a sign of life, and the program's own word that it has failed."""


class NotifySocket:
    """Socket to which the command sends signs of life every `seconds`."""

    def __init__(self, seconds: float, tree: ProcessTree) -> None:
        self.seconds = seconds
        self._tree = tree
        self._name = f"opengnsc-{os.getpid()}-{secrets.token_hex(8)}"
        # An abstract name: no file stays behind, and the command needs no right to a directory.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{self._name}")
        self._last = time.monotonic()
        self._alarm = False

    def start(self) -> None:
        """Begin to receive, in a thread that has the signals blocked as its caller has."""
        threading.Thread(target=self._receive, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the command."""
        return {"NOTIFY_SOCKET": f"@{self._name}", "WATCHDOG_USEC": str(int(self.seconds * 1e6))}

    def started(self) -> None:
        """Count the start of the command as a sign of life."""
        self._last, self._alarm = time.monotonic(), False

    def problem(self) -> str:
        """Return why the command seems to hang; empty: it has shown that it lives."""
        if self._alarm:
            return "reported a failure to its watchdog"
        if time.monotonic() - self._last > self.seconds:
            return f"sent no sign of life to its watchdog within {self.seconds:g} s"
        return ""

    def _receive(self) -> None:
        space = socket.CMSG_SPACE(struct.calcsize("3i"))
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(MESSAGE_OCTETS_MAX, space)
            if not any(self._is_ours(*struct.unpack("3i", found)) for _, _, found in ancillary):
                continue
            lines = data.decode("utf-8", "replace").split("\n")
            if SIGN in lines:
                self._last, self._alarm = time.monotonic(), False
            if ALARM in lines:
                self._alarm = True

    def _is_ours(self, pid: int, user: int, _group: int) -> bool:
        """Return whether a sender may speak for the command: our user, root, or one of its processes."""
        return user in (0, os.getuid()) or pid in self._tree.all()
