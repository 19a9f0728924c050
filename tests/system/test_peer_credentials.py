"""The user at the other end of a local connection, as the kernel knows it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compass.system import peer_credentials
from compass.system.peer_credentials import UNKNOWN_USER, user_of_client, user_of_peer, users_listening
from tests.support.another_user import ANOTHER_USER, another_user_does, needs_root, open_directory

LOOPBACK = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


def connecting(family: socket.AddressFamily, place: object) -> None:
    """Connect, and stay."""
    with socket.socket(family) as client:
        client.connect(place)  # type: ignore[arg-type]
        time.sleep(60)


@needs_root
@pytest.mark.parametrize(("family", "address"), LOOPBACK)
@pytest.mark.parametrize("way", ["sock_diag", "/proc"])
def test_the_user_of_a_tcp_peer(
    family: socket.AddressFamily, address: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is found by the kernel's answer about one socket, and by its tables if there is no answer."""
    if way == "/proc":
        monkeypatch.setattr(peer_credentials, "_diagnosed", lambda client, server: None)
    with socket.socket(family) as listening:
        listening.bind((address, 0))
        listening.listen()
        place = listening.getsockname()[:2]
        with another_user_does(lambda: connecting(family, place)):
            peer, _ = listening.accept()
            assert user_of_peer(peer) == ANOTHER_USER
        # The user's process is gone: an orphaned socket looks like root's.
        assert user_of_peer(peer) == UNKNOWN_USER
        peer.close()
        assert users_listening(*place) == {0} and users_listening(address, 1) == frozenset()


@needs_root
def test_the_user_of_a_peer_on_a_unix_socket() -> None:
    """The user is the one who connected."""
    with open_directory() as directory, socket.socket(socket.AF_UNIX) as listening:
        path = directory / "s"
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o666)
        with another_user_does(lambda: connecting(socket.AF_UNIX, str(path))):
            peer, _ = listening.accept()
            with peer:
                assert user_of_peer(peer) == ANOTHER_USER


def test_a_peer_that_the_kernel_does_not_name() -> None:
    """No socket has these ends; a socket that is not connected has no peer."""
    assert user_of_client(("127.0.0.1", 1), ("127.0.0.1", 2)) == UNKNOWN_USER
    with socket.socket() as lonely:
        assert user_of_peer(lonely) == UNKNOWN_USER


def test_an_ipv4_peer_of_a_dual_socket() -> None:
    """The address is mapped into IPv6 on one side only."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            peer, _ = listening.accept()
            with peer:
                assert user_of_peer(peer) != UNKNOWN_USER
        assert users_listening("127.0.0.1", port)


def test_listening_sockets_are_asked_of_the_kernel_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program asks before each call, so no table of all connections is read; where there is no sock_diag, it is."""
    with socket.create_server(("127.0.0.1", 0)) as own, socket.create_server(("::", 0), family=socket.AF_INET6) as wild:
        port, other = own.getsockname()[1], wild.getsockname()[1]
        expected = frozenset({os.getuid()})
        with monkeypatch.context() as patched:
            patched.setattr(peer_credentials, "PROC_NET", tmp_path)
            assert peer_credentials.users_listening("127.0.0.1", port) == expected
            assert peer_credentials.users_listening("127.0.0.2", port) == frozenset()
            assert peer_credentials.users_listening("::1", other) == expected
            patched.setattr(peer_credentials._kernel, "ask_all", refuse)
            assert peer_credentials.users_listening("127.0.0.1", port) == frozenset()
        monkeypatch.setattr(peer_credentials._kernel, "ask_all", refuse)
        assert peer_credentials.users_listening("127.0.0.1", port) == expected
        assert peer_credentials.users_listening("::1", other) == expected


def refuse(message: bytes) -> Iterator[bytes]:
    """Fail as a kernel without sock_diag does."""
    raise OSError


def test_a_peer_that_has_closed_its_socket_costs_no_search_of_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says that it has no such socket, and is believed once it has described another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            assert user_of_client(client.getsockname(), server.getsockname()) == os.geteuid()
        monkeypatch.setattr(peer_credentials, "_listed", lambda client, server: pytest.fail("the tables are searched"))
        assert user_of_client(("127.0.0.1", 1), server.getsockname()) == UNKNOWN_USER
