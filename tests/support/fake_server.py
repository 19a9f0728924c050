"""A small name server for tests of `opengnsadmin`: real TLS, the real `ServerConnection`, the real rules, no SQL.

A thread for each connection and a lock around the catalogue; logs are lists. The server records its requests, and a
test can make it violate the protocol in ways that a client must handle.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from immutables import Map

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.digest import digest_of_rows, to_hex
from compass.model.names import format_endpoint
from compass.model.replies import (
    CaseFile,
    CatalogueDigest,
    Evidence,
    HostLag,
    Invited,
    Lags,
    LogEntries,
    Refusal,
    Reply,
    ServerStatus,
    Steered,
    WayList,
    WayStatus,
    WaysTried,
    WayTried,
)
from compass.model.requests import (
    Digest,
    Examine,
    Fetch,
    Impact,
    Invite,
    Lag,
    Pull,
    ReadLog,
    Request,
    Status,
    Steer,
    TryWays,
    Watch,
    Ways,
)
from compass.model.rows import Change, Listener, LogEntry, UpdateEntry
from compass.model.rules.decide import answer, decide, permit
from compass.model.rules.draft import Decision, Principal
from compass.wire.events import RequestReceived, SessionEnded, SessionOpened
from compass.wire.limits import FRAME_MAX_FROM_ADMIN
from compass.wire.server_connection import ServerConnection

Override = Callable[[Request], Reply | None]


class LittleServer:
    """Listens on a loopback port from construction to `stop`."""

    def __init__(self, certificate: Path, key: Path, authority: Path, frame_max: int = FRAME_MAX_FROM_ADMIN) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_cert_chain(certificate, key)
        self.context.load_verify_locations(authority)
        self.catalogue = Catalogue()
        self.logs: dict[str, list[LogEntry]] = {"updates": [], "security": [], "administration": []}
        self.asked: list[Request] = []
        self.override: Override = lambda request: None
        """Answers in place of the rules, when it answers."""
        self.frame_max = frame_max
        self.changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._start(self._accept)

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.hang_up()
        with self.changed:
            self.changed.notify_all()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def hang_up(self) -> None:
        """Break every session."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def decide(self, request: Any, asker: Principal) -> Reply:
        """Have a request decided, as if it had come over a session."""
        with self.changed:
            decision = decide(self.catalogue, request, asker, time.time(), secrets.token_urlsafe(32))
            return self._commit(decision)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                plain, peer = self._listening.accept()
            except OSError:
                return
            self._start(self._serve, plain, format_endpoint(*peer[:2]))

    def _serve(self, plain: socket.socket, origin: str) -> None:
        self._connections.add(plain)
        secured: ssl.SSLSocket | None = None
        try:
            plain.settimeout(10)
            secured = self.context.wrap_socket(plain, server_side=True)
            self._connections.add(secured)
            self._session(secured, origin)
        except OSError:
            pass
        finally:
            self._connections -= {plain, secured or plain}
            (secured or plain).close()

    def _session(self, secured: ssl.SSLSocket, origin: str) -> None:
        certificate: Any = secured.getpeercert()
        subject = {name: value for part in certificate["subject"] for name, value in part}
        asker = Principal(subject["organizationalUnitName"], subject["commonName"], origin)
        connection = ServerConnection(time.monotonic(), self.frame_max)
        while True:
            data = secured.recv(65536)
            if not data:
                return
            events = connection.receive(data, time.monotonic())
            for event in events:
                match event:
                    case SessionOpened():
                        connection.welcome("little", "store-1", self.catalogue.revision, "little server", 1)
                    case RequestReceived(number=number, request=request):
                        self.asked.append(request)
                        connection.reply(number, self._answer(request, asker), time.monotonic())
            secured.sendall(connection.bytes_to_send())
            if any(isinstance(event, SessionEnded) for event in events):
                return

    def _answer(self, request: Any, asker: Principal) -> Reply:
        overridden = self.override(request)
        if overridden is not None:
            return overridden
        with self.changed:
            match request:
                case Fetch() | Impact() | Pull():
                    return self._commit(answer(self.catalogue, request, asker, time.time()))
                case Status() | Digest() | Lag() | ReadLog() | Watch():
                    refused = permit(self.catalogue, request, asker, time.time())
                    return self._commit(refused) if refused else self._told(request)
                case Steer():
                    return Steered(0)
                case Invite():
                    return Invited(request.name, "secret", "store-1", "ab" * 32, time.time() + request.seconds, 4864)
                case Ways():
                    return WayList((WayStatus("pager", "webhook", True, 2, 3, 900.0, 990.0, "it answers 503"),))
                case TryWays():
                    return WaysTried((WayTried("pager", "webhook"),))
                case Examine():
                    row = self.catalogue.listener(request.service, request.address, request.port)
                    assert row is not None
                    probe = Evidence("probe", "little", time.time(), alive=True)
                    return CaseFile(self.catalogue.revision, row, (probe,), "alive: answered the probe", time.time())
        return self.decide(request, asker)

    def _commit(self, decision: Decision) -> Reply:
        self.catalogue = decision.catalogue
        for change in decision.changes:
            self.logs["updates"].append(_entry(change))
        for log, entry in (("security", decision.security), ("administration", decision.administration)):
            if entry is not None:
                self.logs[log].append(type(entry)(**_numbered(entry, len(self.logs[log]) + 1)))
        self.changed.notify_all()
        return decision.reply

    def _told(self, request: Status | Digest | Lag | ReadLog | Watch) -> Reply:
        catalogue = self.catalogue
        match request:
            case Status():
                kinds = {"category": len(catalogue.categories), "host": len(catalogue.hosts)}
                states: dict[str, int] = {}
                for peers in catalogue.listeners.values():
                    for peer in peers.values():
                        states[peer.state] = states.get(peer.state, 0) + 1
                alerts = tuple(catalogue.alerts.values())
                now = time.time()
                return ServerStatus("little", "test", "store-1", catalogue.revision, now, 1, 0, kinds, states, alerts)
            case Digest():
                digest = to_hex(digest_of_rows(catalogue.all_rows()))
                return CatalogueDigest("little", "store-1", catalogue.revision, digest)
            case Lag():
                return Lags(
                    catalogue.revision,
                    tuple(HostLag(name, False, 0, 0, "unknown") for name in catalogue.hosts),
                )
            case ReadLog():
                return self._log(request)
            case Watch():
                return Refusal("busy", "this server lets no host watch")

    def _log(self, request: ReadLog) -> Reply:
        """Entries, waiting for the first one on the condition that `_commit` notifies."""
        until = time.monotonic() + request.wait_seconds
        while True:
            kept = self.logs[request.log]
            floor = kept[0].number if kept else 1
            found = [entry for entry in kept if entry.number > request.after][: request.limit]
            if request.last:
                found = kept[-request.last :]
            left = until - time.monotonic()
            if found or left <= 0 or self._listening.fileno() < 0:
                return LogEntries(tuple(found), floor)
            self.changed.wait(left)


def _numbered(entry: Any, number: int) -> dict[str, Any]:
    return {field: getattr(entry, field) for field in entry.__struct_fields__} | {"number": number}


def _entry(change: Change) -> UpdateEntry:
    row = change.row
    where = (row.address, row.port, row.state) if isinstance(row, Listener) else ("", 0, "")
    subject = row.service if isinstance(row, Listener) else type(row).__name__.lower()
    return UpdateEntry(change.revision, change.time, change.operation, subject, *where, change)


def declared(catalogue: Catalogue) -> tuple[Any, ...]:
    """The parts of a catalogue that a topology file says."""
    services: Map[str, Any] = catalogue.services
    return catalogue.categories, services, catalogue.needs, catalogue.dependants, catalogue.backed
