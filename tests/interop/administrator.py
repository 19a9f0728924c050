"""An administrator who asks over one blocking session: standard library sockets around the real wire."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

from compass.model.replies import Reply
from compass.model.requests import Request
from compass.wire.connection import ClientConnection, Ended, Opened, Replied

TIMEOUT_SECONDS = 10.0


class SessionEnded(Exception):
    """The server is not there, not ready, or has said goodbye."""


class Administrator:
    """One session; closed with the context."""

    def __init__(self, port: int, authority: Path, certificate: Path, key: Path) -> None:
        """Connects and greets. Raises OSError or SessionEnded while the server is not ready."""
        tls = ssl.create_default_context(cafile=str(authority))
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_cert_chain(certificate, key)
        plain = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self._socket = tls.wrap_socket(plain, server_hostname="127.0.0.1")
        self._connection = ClientConnection(time.monotonic(), "test")
        self._until(Opened)

    def __enter__(self) -> Administrator:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: Request) -> Reply:
        """The reply to a request."""
        self._connection.ask(request, time.monotonic())
        replied = self._until(Replied)
        assert isinstance(replied, Replied)
        return replied.reply

    def _until(self, kind: type[Opened] | type[Replied]) -> Opened | Replied:
        self._socket.sendall(self._connection.bytes_to_send())
        while data := self._socket.recv(65536):
            for event in self._connection.receive(data, time.monotonic()):
                if isinstance(event, kind):
                    return event
                if isinstance(event, Ended):
                    raise SessionEnded(event.reason)
        raise SessionEnded("the server closed the connection")


def administrator_of_new_server(port: int, authority: Path, certificate: Path, key: Path) -> Administrator:
    """A session with a server that is just starting: tried until it is ready."""
    patience = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            return Administrator(port, authority, certificate, key)
        except (OSError, SessionEnded):
            if time.monotonic() > patience:
                raise
            time.sleep(0.05)
