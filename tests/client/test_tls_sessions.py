"""Sessions over TLS on each face: the certificate is that of the name that was asked for."""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.internet import ssl as twisted_ssl
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

import compass.client.asyncio
import compass.client.twisted
from compass import client
from compass.model.rows import Listener
from compass.pki.authority import create_authority, issue, write_credentials
from tests.support.fake_api import LittleApi

NAME = "pictures.example"


class Greeter:
    """Accepts TLS and says hello."""

    def __init__(self, directory: Path) -> None:
        now = datetime.now(UTC)
        authority = create_authority("tests", now)
        self.authority_pem = authority.certificate_pem
        self.trust = directory / "ca.crt"
        self.trust.write_bytes(authority.certificate_pem)
        files = write_credentials(directory, "site", issue(authority, "server", NAME, [], now))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(files.certificate, files.key)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.row = Listener("a.openuss", "127.0.0.1", self._listening.getsockname()[1], "up", 1.0, 1)
        threading.Thread(target=self._greet, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _greet(self) -> None:
        while True:
            try:
                accepted = self._listening.accept()[0]
            except OSError:
                return
            try:
                with self._tls.wrap_socket(accepted, server_side=True) as connection:
                    connection.sendall(b"hello")
                    connection.recv(1)
            except OSError:
                continue


@pytest.fixture
def greeter(api: LittleApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Greeter]:
    """The only listener of openuss."""
    monkeypatch.delenv("OPENGNS_SERVICE", raising=False)
    made = Greeter(tmp_path)
    found = {"name": "openuss", "revision": 5, "source": "service", "listeners": [msgspec.to_builtins(made.row)]}
    api.answers["/v1/resolve/openuss"] = (200, found)
    yield made
    made.close()


def blocking(api: LittleApi, greeter: Greeter, name: str) -> bytes:
    """Answers to a blocking client."""
    tls = ssl.create_default_context(cafile=str(greeter.trust))
    with client.Client(api=api.place).connect("openuss", tls=tls, server_name=name) as session:
        return session.use(lambda stream: stream.recv(5))


def on_asyncio(api: LittleApi, greeter: Greeter, name: str) -> bytes:
    """Answers to an asyncio client."""
    tls = ssl.create_default_context(cafile=str(greeter.trust))

    async def ask() -> bytes:
        async with (
            compass.client.asyncio.Client(api=api.place) as used,
            used.connect("openuss", tls=tls, server_name=name) as session,
        ):
            return await session.use(lambda stream: stream.reader.readexactly(5))

    return asyncio.run(ask())


def on_twisted(api: LittleApi, greeter: Greeter, name: str) -> bytes:
    """Answers to a Twisted client."""
    reactor: Any = EPollReactor()
    done: queue.Queue[Any] = queue.Queue()

    class Listening(Protocol):
        def __init__(self) -> None:
            self.said: Deferred[bytes] = Deferred()

        def dataReceived(self, data: bytes) -> None:
            self.said.callback(data)

        def connectionLost(self, reason: Any = None) -> None:
            if not self.said.called:
                self.said.errback(reason)

    def begin() -> None:
        trust = twisted_ssl.Certificate.loadPEM(greeter.authority_pem)
        tls = twisted_ssl.optionsForClientTLS(name, trust)
        used = compass.client.twisted.Client(reactor, api=api.place)
        factory: Any = Factory.forProtocol(Listening)
        connecting = used.connect("openuss", factory, tls=tls)
        connecting.addCallback(lambda session: session.use(lambda protocol: protocol.said)).addBoth(done.put)

    thread = threading.Thread(target=reactor.run, args=(False,), daemon=True)
    thread.start()
    reactor.callFromThread(begin)
    try:
        said = done.get(timeout=20)
    finally:
        reactor.callFromThread(reactor.stop)
        thread.join(20)
    if isinstance(said, Failure):
        said.raiseException()
    assert isinstance(said, bytes)
    return said


@pytest.mark.parametrize("ask", [blocking, on_asyncio, on_twisted])
def test_the_certificate_is_checked_against_the_name(api: LittleApi, greeter: Greeter, ask: Any) -> None:
    """TLS refuses a certificate for another name, and the listener is not reported."""
    assert ask(api, greeter, NAME) == b"hello"
    with pytest.raises(Exception, match=r"(?i)certificate|mismatch|verif"):
        ask(api, greeter, "other.example")
    assert "/v1/report" not in api.paths()
