"""A TCP relay that counts what passes: TLS goes through it untouched, so its count is what was on the wire."""

from __future__ import annotations

import socket
import threading

CHUNK = 65536


class Relay:
    """Listens at `address` on a free port and passes every connection on to `target`."""

    def __init__(self, address: str, target: tuple[str, int]) -> None:
        self.octets_down = 0
        """From the target to whoever connected here."""
        self.octets_up = 0
        self.connections = 0
        self._target = target
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listening = socket.create_server((address, 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def octets(self) -> int:
        """In both directions."""
        with self._lock:
            return self.octets_down + self.octets_up

    def close(self) -> None:
        """End the relay and all its connections."""
        # A thread that is blocked in accept or recv holds the socket; shutting down wakes it.
        for each in [self._listening, *self._sockets]:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
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
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while data := source.recv(CHUNK):
                with self._lock:
                    if up:
                        self.octets_up += len(data)
                    else:
                        self.octets_down += len(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
