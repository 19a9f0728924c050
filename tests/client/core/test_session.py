"""Which listener is used and what becomes of the others, decided without a network."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import requests
from twisted.internet.error import ConnectError, ConnectionLost

from compass.client.core.errors import NoneAnswers, NoneRegistered, NotLoaded
from compass.client.core.session import COOKIE_OCTETS_MAX, TRIES_MAX, Failures, Session, attempt, classify_failure
from compass.client.core.threads import run_sync
from compass.model.host_api import Resolved
from compass.model.rows import Listener


def peer(port: int) -> Listener:
    """A listener."""
    return Listener("a.store", "192.0.2.1", port, "up", 1.0, 1)


class Street:
    """Source of listeners in a fixed order, which records reports; `refusing` listeners accept no connection."""

    failures: Failures = (OSError, EOFError)
    timeouts: Failures = (TimeoutError,)

    def __init__(self, *ports: int) -> None:
        self.ports = list(ports)
        self.refusing: set[int] = set()
        self.blamed: list[tuple[int, str]] = []
        self.praised: list[int] = []
        self.open_doors: list[int] = []
        self.left: set[int] = set()
        """Ports of the connections that were closed."""

    async def resolve(self, name: str) -> Resolved:
        if not self.ports:
            raise NoneRegistered(name)
        return Resolved(name, 1, "service", tuple(peer(port) for port in self.ports))

    def report_failure(self, peer: Listener, detail: str) -> None:
        self.blamed.append((peer.port, detail))

    def mark_healthy(self, peer: Listener) -> None:
        self.praised.append(peer.port)

    async def open(self, peer: Listener) -> int:
        if peer.port in self.refusing:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        self.open_doors.append(peer.port)
        return peer.port

    def is_closed(self, stream: int) -> bool:
        return stream in self.left

    def close(self, stream: int) -> None:
        self.open_doors.remove(stream)


def begun(street: Street, resume: Callable[[int, bytes], object] | None = None) -> Session[int]:
    """A session that has a connection."""

    async def resumed(stream: int, cookie: bytes) -> None:
        if resume is not None:
            resume(stream, cookie)

    session = Session(street, "a.store", street, resumed)
    run_sync(session.open())
    return session


def used(session: Session[int], *outcomes: BaseException | None) -> list[int]:
    """The streams on which an exchange was tried that comes out in these ways, one after the other."""
    tried: list[int] = []
    left = list(outcomes)

    async def exchange(stream: int) -> None:
        tried.append(stream)
        outcome = left.pop(0)
        if outcome is not None:
            raise outcome

    run_sync(session.use(exchange))
    return tried


def test_the_next_one_is_tried_and_the_dead_one_reported() -> None:
    """Listeners are tried in the order of the resolution; the first that accepts is used."""
    street = Street(1, 2, 3)
    street.refusing = {1, 2}
    assert begun(street).peer.port == 3
    assert street.blamed == [(1, "[Errno 111] refused"), (2, "[Errno 111] refused")]
    assert street.praised == [3]


def test_none_registered_and_none_answers_are_two_problems() -> None:
    """NoneAnswers has the failure of each endpoint; a problem of the resolution is neither."""
    with pytest.raises(NoneRegistered):
        begun(Street())
    street = Street(1, 2)
    street.refusing = {1, 2}
    with pytest.raises(NoneAnswers) as nobody:
        begun(street)
    assert nobody.value.tried == dict.fromkeys(["192.0.2.1:1", "192.0.2.1:2"], "[Errno 111] refused")

    class Early(Street):
        async def resolve(self, name: str) -> Resolved:
            raise NotLoaded("not-ready", "soon")

    with pytest.raises(NotLoaded):
        begun(Early(1))


def test_a_bounded_number_of_listeners_is_tried() -> None:
    """TRIES_MAX listeners are tried; the last may still answer, the next is not tried."""
    street = Street(*range(1, TRIES_MAX + 2))
    street.refusing = set(range(1, TRIES_MAX))
    assert begun(street).peer.port == TRIES_MAX
    street.refusing.add(TRIES_MAX)
    with pytest.raises(NoneAnswers) as nobody:
        begun(street)
    assert len(nobody.value.tried) == TRIES_MAX


def test_a_connection_that_was_idle_is_made_once_more() -> None:
    """A listener that has served may close an idle connection without a report. Twice in a row is a failure."""
    street = Street(1, 2)
    session = begun(street)
    assert used(session, None) == [1]
    assert used(session, EOFError("closed"), None) == [1, 1]
    assert street.blamed == []
    assert used(session, EOFError("closed"), ConnectionResetError("again"), None) == [1, 1, 2]
    assert street.blamed == [(1, "again")]
    assert street.open_doors == [2]
    session.close()
    session.close()
    assert street.open_doors == []
    assert used(session, None) == [1]


def test_a_connection_that_is_known_to_be_closed_is_not_used() -> None:
    """Nothing is written to it; one that served is connected to once more, and left when it is closed again."""
    street = Street(1, 2)
    session = begun(street)
    used(session, None)
    street.left = {1}
    assert used(session, None) == [2]
    assert street.blamed == [(1, "the listener has closed the connection")]


def test_a_listener_that_keeps_us_waiting_or_never_served_gets_no_second_chance() -> None:
    """A timeout has cost enough; and a first exchange that fails says enough."""
    street = Street(1, 2)
    session = begun(street)
    used(session, None)
    assert used(session, TimeoutError("slow"), None) == [1, 2]
    fresh = begun(Street(1, 2))
    assert used(fresh, ConnectionResetError(), None) == [1, 2]


def test_the_cookie_goes_to_every_new_connection() -> None:
    """Not to the first, which has nothing to go on from; and one that cannot take it is no good."""
    street = Street(1, 2, 3)
    handed: list[tuple[int, bytes]] = []

    def resume(stream: int, cookie: bytes) -> None:
        if stream == 2:
            raise ConnectionResetError("does not know it")
        handed.append((stream, cookie))

    session = begun(street, resume)
    session.cookie = b"41"
    assert handed == []
    assert used(session, ConnectionResetError("gone"), None) == [1, 3]
    assert (handed, session.peer.port) == ([(3, b"41")], 3)
    assert street.blamed == [(1, "gone"), (2, "does not know it")]
    assert street.open_doors == [3]


def test_a_cookie_has_a_limit() -> None:
    """COOKIE_OCTETS_MAX octets, and not one more."""
    session = begun(Street(1))
    session.cookie = b"x" * COOKIE_OCTETS_MAX
    with pytest.raises(ValueError, match="at most 65531"):
        session.cookie = b"x" * (COOKIE_OCTETS_MAX + 1)
    assert len(session.cookie) == COOKIE_OCTETS_MAX


def test_a_local_failure_is_raised_and_no_listener_is_reported() -> None:
    """A full table of files, a missing file, and a mistake in the exchange say nothing about a listener."""
    for trouble in (OSError(errno.EMFILE, "too many open files"), FileNotFoundError(errno.ENOENT, "no such file")):
        street = Street(1, 2)
        with pytest.raises(OSError, match=str(trouble.strerror)):
            used(begun(street), trouble)
        assert street.blamed == []

        async def once(peer: Listener, trouble: OSError = trouble) -> None:
            raise trouble

        with pytest.raises(OSError, match=str(trouble.strerror)):
            run_sync(attempt(street, "a.store", once, (OSError,)))
        assert street.blamed == []
    with pytest.raises(ZeroDivisionError):
        used(begun(Street(1)), ZeroDivisionError())


def test_whose_failure_it_is() -> None:
    """However a library wraps it."""
    refused, full = ConnectionRefusedError(errno.ECONNREFUSED, "no"), OSError(errno.EMFILE, "full")

    def wrapped(outer: BaseException, inner: BaseException) -> BaseException:
        outer.__cause__ = inner
        return outer

    theirs = [
        refused,
        TimeoutError(),
        EOFError(),
        OSError(errno.EHOSTUNREACH, "no route"),
        OSError("several addresses failed"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        wrapped(httpx.ConnectError("no"), refused),
        wrapped(requests.ConnectionError("no"), refused),
        ConnectError(osError=errno.ECONNREFUSED),
        ConnectionLost(),
    ]
    ours = [
        full,
        PermissionError(errno.EACCES, "firewall"),
        FileNotFoundError(errno.ENOENT, Path("x").name),
        ssl.SSLCertVerificationError(1, "certificate has expired"),
        wrapped(httpx.ConnectError("no"), full),
        wrapped(requests.ConnectionError("no"), wrapped(RuntimeError(), full)),
        ConnectError(osError=errno.EMFILE),
    ]
    no_way = [
        OSError(errno.ENETUNREACH, "network is unreachable"),
        wrapped(httpx.ConnectError("no"), OSError(errno.EAFNOSUPPORT, "no IPv6")),
        ConnectError(osError=errno.ENETUNREACH),
    ]
    assert {classify_failure(failure) for failure in theirs} == {"listener"}
    assert {classify_failure(failure) for failure in ours} == {"local"}
    assert {classify_failure(failure) for failure in no_way} == {"unreachable"}


def test_a_listener_to_which_there_is_no_way_is_passed_by_without_blame() -> None:
    """This machine has no IPv6, say: that is nothing to report, and the next one may do."""
    street = Street(1, 2)

    async def once(peer: Listener) -> int:
        if peer.port == 1:
            raise OSError(errno.ENETUNREACH, "network is unreachable")
        return peer.port

    assert run_sync(attempt(street, "a.store", once, (OSError,))) == 2
    assert street.blamed == []
