"""Socket options of sessions (opengnsp.md, "Timers")."""

from __future__ import annotations

import ctypes
import errno
import socket
import time
from collections.abc import Iterator

import pytest

from compass.daemons.net import transport
from compass.daemons.net.transport import KEEPALIVE_IDLE_SECONDS, tune

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
NOTHING = ctypes.create_string_buffer(b"\x06\x00\x00\x00\x00\x00\x00\x00", 8)
"""A program of one instruction for the kernel's packet filter: keep nothing."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _deaf(peer: socket.socket) -> None:
    """Drop arriving packets before TCP, as on a broken line."""
    program = _Program(1, ctypes.addressof(NOTHING))
    peer.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return a tuned end that probes after 1, 2 and 3 s of silence, and its peer."""
    monkeypatch.setattr(transport, "KEEPALIVE_IDLE_SECONDS", range(1, 2))
    monkeypatch.setattr(transport, "KEEPALIVE_INTERVAL_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        own, _ = listening.accept()
        with own, peer:
            own.settimeout(8.0)
            peer.settimeout(8.0)
            tune(own)
            yield own, peer


def test_two_questions_may_be_lost(ends: tuple[socket.socket, socket.socket]) -> None:
    """ "give up 4 s after the third question without an answer": two lost packets do not end the session."""
    own, peer = ends
    _deaf(peer)
    time.sleep(2.5)
    peer.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    time.sleep(2.5)
    own.sendall(b"still here")
    assert peer.recv(100) == b"still here"


def test_after_three_the_session_is_lost(ends: tuple[socket.socket, socket.socket]) -> None:
    """A peer that answers no probe is lost."""
    own, peer = ends
    began = time.monotonic()
    _deaf(peer)
    with pytest.raises(OSError, match="timed out") as lost:
        own.recv(100)
    assert lost.value.errno == errno.ETIMEDOUT
    assert 3.5 < time.monotonic() - began < 6.5


def test_sessions_are_asked_at_different_times() -> None:
    """Quote: "each session after another time ... missed after 30 s at the latest"."""
    made = [socket.socket() for _ in range(3 * len(KEEPALIVE_IDLE_SECONDS))]
    asked = set()
    for one in made:
        tune(one)
        idle, interval, questions, lost = (
            one.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        )
        assert lost == (idle + questions * interval) * 1000 < 30_000
        asked.add(idle)
        one.close()
    assert len(asked) > 1
