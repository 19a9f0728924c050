"""A blocking session with a name server, for programs that ask a few things and leave.

`Link.connect` tries the servers in order and greets the first that can be used; `ask` sends one request and waits
for its reply. Both ends prove who they are (TLS 1.3, mutual); OpenSSL checks the server's name. A refusal is a
value that `ask` returns; a session that cannot be had, or breaks, is a `ConnectionFailed` that says what to do next.

In TLS 1.3 the client's handshake is over before the server has judged the client's certificate. So a server that
refuses ours is heard of at the first read, and `_read` explains its alert as a part of connecting.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, NoReturn

import msgspec

from compass.model.names import format_endpoint
from compass.model.replies import Refusal, Reply
from compass.model.requests import Request
from compass.wire.client_connection import ClientConnection
from compass.wire.events import Event, ReplyReceived, SessionEnded, SessionOpened
from compass.wire.messages import Welcome, encode

READ_SIZE = 64 * 1024
"""Octets taken from the socket at once: a few TLS records, so that a large reply needs few turns."""

Kind = Literal["files", "unavailable", "untrusted", "protocol"]
"""files: our own key or certificates cannot be used. unavailable: no server answers now. untrusted: one end does
not accept the other's certificate. protocol: what answers does not speak OpenGNSP as we do."""
_SEVERITY: tuple[Kind, ...] = ("unavailable", "protocol", "untrusted")
"""When several servers failed in several ways, the whole is called after what a person has to repair."""

_HOSTNAME_MISMATCH, _ADDRESS_MISMATCH = 62, 64
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's X509_V_ERR_* numbers (x509_vfy.h), which Python passes on as `verify_code`."""

_OUR_CERTIFICATE = {
    "UNKNOWN_CA": "it comes from an authority that the server does not trust; use one made by the server's authority",
    "CERTIFICATE_EXPIRED": "it has expired; have a new one made ('opengnsadmin tls admin NAME')",
    "CERTIFICATE_REQUIRED": "the server asks for one and none was sent",
    "BAD_CERTIFICATE": "the server cannot accept it; look at it with 'opengnsadmin tls show FILE'",
    "CERTIFICATE_UNKNOWN": "the server cannot accept it; look at it with 'opengnsadmin tls show FILE'",
    "CERTIFICATE_REVOKED": "it has been revoked; have a new one made",
    "UNSUPPORTED_CERTIFICATE": "it is of a kind, or for a purpose, that the server does not accept from clients",
    "ACCESS_DENIED": "its holder may not connect here",
}
"""TLS alerts (RFC 8446 section 6.2) as they end OpenSSL's reason names, and what they say of our certificate."""


class ConnectionFailed(Exception):
    """A session that cannot be had or has broken; the text says why and what to do next."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Server(msgspec.Struct, frozen=True):
    """Where a server listens: a DNS name or an address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_endpoint(self.host, self.port)


class IdentityFiles(msgspec.Struct, frozen=True):
    """The PEM files we prove ourselves with, and the authority whose servers we trust."""

    certificate: Path
    key: Path
    authority: Path
    server_name: str = ""
    """The name the server must prove; empty: the one that is dialled."""


def context_of(identity: IdentityFiles) -> ssl.SSLContext:
    """The TLS context of a calling end. Raises ConnectionFailed (files) with everything that is wrong with the files.

    A key with a passphrase makes OpenSSL ask for it on the terminal.
    """
    problems = [
        _unreadable(path, what)
        for path, what in (
            (identity.certificate, "certificate"),
            (identity.key, "key"),
            (identity.authority, "authority's certificate"),
        )
    ]
    if any(problems):
        raise ConnectionFailed("files", "; ".join(filter(None, problems)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False
    try:
        context.load_verify_locations(identity.authority)
    except ssl.SSLError:
        raise ConnectionFailed("files", f"{identity.authority} holds no certificate in PEM form") from None
    try:
        context.load_cert_chain(identity.certificate, identity.key)
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in (error.reason or ""):
            mismatch = f"{identity.key} is not the key of the certificate in {identity.certificate}"
            raise ConnectionFailed("files", mismatch) from None
        raise ConnectionFailed(
            "files",
            f"{identity.certificate} and {identity.key} are not a certificate and its key in PEM form",
        ) from None
    return context


def connect_tcp(server: Server, timeout_seconds: float) -> socket.socket:
    """A TCP connection. Raises ConnectionFailed."""
    try:
        return socket.create_connection((server.host, server.port), timeout_seconds)
    except socket.gaierror as error:
        why = f"the name {server.host!r} cannot be resolved ({error.strerror}); check its spelling and the DNS"
    except UnicodeError:
        why = f"{server.host!r} is not a host name"
    except ConnectionRefusedError:
        why = "nothing listens there; is opengnssd running, and on this port?"
    except TimeoutError:
        why = f"no answer within {timeout_seconds:g} s; is the host up, and does a firewall let this port through?"
    except OSError as error:
        why = f"{error.strerror or error}; check the network"
    raise ConnectionFailed("unavailable", f"cannot connect to {server}: {why}")


def start_tls(plain: socket.socket, context: ssl.SSLContext, server: Server, server_name: str) -> ssl.SSLSocket:
    """TLS over a connection of `connect_tcp`; afterwards `server_name` is proven. Raises ConnectionFailed."""
    try:
        return context.wrap_socket(plain, server_hostname=server_name)
    except ssl.SSLCertVerificationError as error:
        kind: Kind = "untrusted"
        why = _not_verified(error, server_name)
    except ssl.SSLEOFError:
        kind, why = "unavailable", "it closed the connection during the TLS handshake; its log may say why"
    except ssl.SSLError as error:
        kind, why = (
            "protocol",
            f"no TLS 1.3 there ({error.reason or error}); is this the OpenGNSP port, 4863 by default?",
        )
    except TimeoutError:
        kind, why = (
            "unavailable",
            "no answer to the TLS handshake; is this the OpenGNSP port, 4863 by default?",
        )
    except ValueError:
        kind, why = "untrusted", f"{server_name!r} is not a name that a server can prove; check --server-name"
    except OSError as error:
        kind, why = "unavailable", f"the connection broke during the TLS handshake: {error.strerror or error}"
    plain.close()
    raise ConnectionFailed(kind, f"{server}: {why}")


class AdminSession:
    """One session. Not for several threads; use it as a context manager."""

    def __init__(
        self,
        secured: ssl.SSLSocket,
        server: Server,
        software: str,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Greet the server at the other end of `secured`, within `timeout_seconds`. Raises ConnectionFailed."""
        self.server = server
        self._socket = secured
        self._clock = clock
        self._end_reason = ""
        self._connection = ClientConnection(clock(), software)
        self._open_until: float | None = clock() + timeout_seconds
        try:
            self.welcome = self._greet()
        except BaseException:
            self.close()
            raise
        self._open_until = None

    @classmethod
    def connect(
        cls,
        servers: Sequence[Server],
        identity: IdentityFiles,
        timeout_seconds: float,
        software: str = "compass client",
        clock: Callable[[], float] = time.monotonic,
    ) -> AdminSession:
        """A session with the first of `servers` that can be used; `timeout_seconds` for each step with each.

        Raises ConnectionFailed; with several servers it tells what was wrong with each.
        """
        if not servers:
            raise ValueError("no server to connect to")
        context = context_of(identity)
        problems: list[ConnectionFailed] = []
        for server in servers:
            try:
                plain = connect_tcp(server, timeout_seconds)
                secured = start_tls(plain, context, server, identity.server_name or server.host)
                return cls(secured, server, software, timeout_seconds, clock)
            except ConnectionFailed as problem:
                problems.append(problem)
        if len(problems) == 1:
            raise problems[0]
        gravest = max((problem.kind for problem in problems), key=_SEVERITY.index)
        told = "".join(f"\n  {problem}" for problem in problems)
        raise ConnectionFailed(gravest, f"none of the {len(problems)} servers can be used:{told}")

    def ask(self, request: Request) -> Reply:
        """The reply to `request`, a refusal included. Raises ConnectionFailed when the session ends before it is there.

        Whether a change was committed is then not known.
        """
        size = len(encode(request))
        if size > self.welcome.frame_max:
            limit = self.welcome.frame_max
            return Refusal("too-large", f"the request has {size} octets, the server takes {limit}; send less at once")
        if self._end_reason:
            raise ConnectionFailed("unavailable", self._end_reason)
        number = self._connection.ask(request, self._clock())
        self._write()
        reply: Reply | None = None
        while reply is None:
            # All of what came in one piece is looked at: a goodbye may follow the reply.
            for event in self._read():
                if isinstance(event, ReplyReceived) and event.number == number:
                    reply = event.reply
                elif isinstance(event, SessionEnded):
                    self._end_reason = f"{self.server} ended the session: {event.reason}"
                    if reply is None:
                        raise self._ended(event)
        return reply

    def close(self) -> None:
        """Leave; saying so does not wait for the server."""
        self._end_reason = "the session is closed"
        self._socket.settimeout(0)
        try:
            self._socket.unwrap()
        except (OSError, ValueError):
            pass
        finally:
            self._socket.close()

    def __enter__(self) -> AdminSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _greet(self) -> Welcome:
        self._write()
        while True:
            for event in self._read():
                if isinstance(event, SessionOpened) and isinstance(event.peer, Welcome):
                    return event.peer
                if isinstance(event, SessionEnded):
                    raise self._ended(event)

    def _ended(self, event: SessionEnded) -> ConnectionFailed:
        if event.violation:
            return ConnectionFailed(
                "protocol", f"{self.server}: {event.reason}; is it an opengnssd, and of which version?"
            )
        again = event.retry_after_seconds
        hint = f"; try again in {again:g} s" if again else ""
        return ConnectionFailed("unavailable", f"{self.server} ended the session: {event.reason}{hint}")

    def _write(self) -> None:
        data = self._connection.bytes_to_send()
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(data)
        except OSError as error:
            # What the server said before it closed explains more than the broken pipe does.
            if not isinstance(error, TimeoutError):
                self._read()
            self._raise_broken(error)

    def _read(self) -> list[Event]:
        """The events of the next bytes, none when it was too early to give up. Raises ConnectionFailed."""
        try:
            self._socket.settimeout(self._left())
            data = self._socket.recv(READ_SIZE)
        except TimeoutError:
            now = self._clock()
            if self._open_until is not None and now >= self._open_until:
                self._fail("unavailable", "connected, but no greeting came; is this the OpenGNSP port?")
            return self._connection.expire(now)
        except OSError as error:
            self._raise_broken(error)
        if not data:
            self._fail("unavailable", "the server closed the connection; its log may say why")
        return self._connection.receive(data, self._clock())

    def _left(self) -> float:
        """Seconds until this read or write has taken too long; never 0, which would mean not to block at all."""
        ends = [end for end in (self._connection.deadline(), self._open_until) if end is not None]
        return max(min(ends) - self._clock(), 0.001)

    def _raise_broken(self, error: OSError) -> NoReturn:
        if isinstance(error, TimeoutError):
            self._fail("unavailable", "the server does not take what is sent to it")
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            for alert, meaning in _OUR_CERTIFICATE.items():
                if (error.reason or "").endswith(alert):
                    self._fail("untrusted", f"the server refuses our certificate: {meaning}")
            self._fail("protocol", f"the server ended TLS: {error.reason}")
        self._fail("unavailable", f"the connection broke: {error.strerror or error}")

    def _fail(self, kind: Kind, why: str) -> NoReturn:
        self._end_reason = why
        raise ConnectionFailed(kind, f"{self.server}: {why}")


def _unreadable(path: Path, what: str) -> str:
    try:
        path.read_bytes()
    except OSError as error:
        return f"the {what} {path} cannot be read: {error.strerror}"
    return ""


def _not_verified(error: ssl.SSLCertVerificationError, server_name: str) -> str:
    code = error.verify_code
    if code in (_HOSTNAME_MISMATCH, _ADDRESS_MISMATCH):
        return (
            f"its certificate is not for {server_name!r}; dial it by a name in its certificate, "
            "or give that name with --server-name"
        )
    if code in _UNKNOWN_AUTHORITY:
        return "its certificate comes from an authority that we do not trust; is --authority the one that made it?"
    if code == _EXPIRED:
        return "its certificate has expired; have a new one made ('opengnsadmin tls server NAME')"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet; is this machine's clock right?"
    return f"its certificate is not accepted: {error.verify_message}"
