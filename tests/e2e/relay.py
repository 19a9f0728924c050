"""A TCP relay that counts what passes: TLS goes through it untouched, so its count is what was on the wire."""

from __future__ import annotations

import contextlib
import socket
import threading

CHUNK = 65536


class Relay:
    """Listens at `address` on a free port and passes every connection on to `target`."""

    def __init__(self, address: str, target: tuple[str, int]) -> None:
        self.octets = 0
        """Octets in both directions."""
        self.connections = 0
        """Made since the beginning."""
        self.flowing = 0
        """Directions of connections that are not closed yet."""
        self._target = target
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server((address, 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End the relay and all its connections."""
        # A thread that is blocked in accept or recv holds the socket; shutting down wakes it.
        for each in [self._listening, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [near, far]
            self.connections += 1
            with self._lock:
                self.flowing += 2
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                with self._lock:
                    self.octets += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self.flowing -= 1
