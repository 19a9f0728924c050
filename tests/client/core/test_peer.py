"""A program of another user where the daemon should be: nothing is sent to it, and nothing of it is believed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compass.client.core import endpoint
from compass.client.core.endpoint import ApiEndpoint, parse_api_endpoint
from compass.client.core.errors import NotAllowed
from compass.client.core.threads import ThreadRuntime, run_sync
from tests.e2e.client_variants import FACES
from tests.e2e.processes import environment
from tests.support.another_user import ANOTHER_USER, another_user_does, needs_root, open_directory

CREDENTIAL = "jBd_GAWT-a-credential-that-is-secret"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
BODY = b'{"name":"openuss","revision":1,"source":"service","listeners":[{"service":"a.openuss","address":"6.6.6.6",\
"port":2028,"state":"up","changed_at":1.0,"epoch":1}]}'
pytestmark = needs_root


def squat(family: socket.AddressFamily, place: Any, heard: Path) -> None:
    """Listen in place of the daemon, write down what arrives, and answer everything."""
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen()
        (heard.parent / "listens").touch()
        while True:
            client, _ = listening.accept()
            with client, heard.open("ab") as file, contextlib.suppress(OSError):
                client.settimeout(1)
                file.write(client.recv(65536))
                file.flush()
                client.sendall(ANSWER % (len(BODY), BODY))


@contextlib.contextmanager
def squatter(family: socket.AddressFamily) -> Iterator[tuple[ApiEndpoint, Path]]:
    """A program of another user at a place of the API: where it is, and the file of what it has heard."""
    with open_directory() as directory:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        path, heard = directory / "api.sock", directory / "heard"
        place = str(path) if family == socket.AF_UNIX else ("127.0.0.1", port)
        with another_user_does(lambda: squat(family, place, heard)):
            until = time.monotonic() + 20
            while not (directory / "listens").exists():
                assert time.monotonic() < until
                time.sleep(0.01)
            at = (
                ApiEndpoint(path=str(path)) if family == socket.AF_UNIX else ApiEndpoint(address="127.0.0.1", port=port)
            )
            yield at, heard


def octets(heard: Path) -> bytes:
    """Return the octets that the other user has received."""
    return heard.read_bytes() if heard.exists() else b""


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_no_face_sends_anything_to_another_user(face: str, family: socket.AddressFamily) -> None:
    """Not a credential, and not a question: its answer would be believed. The text says what to do."""
    with squatter(family) as (at, heard):
        used: Any = FACES[face](at, "portal.web")
        try:
            calls: list[Callable[[], Any]] = [
                lambda: used.resolve("openuss"),
                lambda: used.dependencies("portal.web"),
                lambda: used.register("portal.web", 80, credential=CREDENTIAL).__enter__(),
            ]
            for call in calls:
                with pytest.raises(NotAllowed, match=rf"belongs to user {ANOTHER_USER}.*OPENGNS_API_USER"):
                    call()
        finally:
            used.close()
        assert octets(heard) == b""


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_the_command_sends_nothing_to_another_user(family: socket.AddressFamily, tmp_path: Path) -> None:
    """`opengnsc` ends with the refusal; named as the daemon's, the other user is asked."""
    with squatter(family) as (at, heard):
        (tmp_path / "token").write_text(CREDENTIAL)
        command = [sys.executable, "-m", "compass.cli.main", "--api", str(at)]

        def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, *arguments], env=environment() | more, capture_output=True, text=True, timeout=60
            )

        done = run("register", "portal.web", "80", "--credential-file", str(tmp_path / "token"))
        assert done.returncode and f"belongs to user {ANOTHER_USER}" in done.stderr and octets(heard) == b""
        assert run("resolve", "openuss", OPENGNS_API_USER=str(ANOTHER_USER)).stdout.startswith("6.6.6.6")


def test_a_credential_is_sent_over_tcp_only_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the socket's directory the default port answers lookups of a trusted daemon, and gets no credential."""
    monkeypatch.setattr(endpoint, "DEFAULT_SOCKET", str(tmp_path / "none" / "opengnscd.sock"))
    by_default, asked_for = parse_api_endpoint(""), parse_api_endpoint("http://127.0.0.1:4866")
    with pytest.raises(NotAllowed, match=r"--api http://127\.0\.0\.1:4866"):
        endpoint.check_before_connecting(by_default, True)
    endpoint.check_before_connecting(by_default, False)
    endpoint.check_before_connecting(asked_for, True)


def test_a_connection_that_outlives_its_listening_socket_is_not_the_daemon_s() -> None:
    """A user accepts, stops listening, the daemon takes the port: the connection is still the other user's."""
    with open_directory() as directory:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = free.getsockname()

        def accept_once() -> None:
            with socket.socket() as listening:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(place)
                listening.listen()
                (directory / "listens").touch()
                client, _ = listening.accept()
            (directory / "accepted").touch()
            time.sleep(60)
            client.close()

        with another_user_does(accept_once):
            for name in ("listens", "accepted"):
                if name == "accepted":
                    connected = run_sync(ThreadRuntime().open(ApiEndpoint(address=place[0], port=place[1]), 10.0))
                until = time.monotonic() + 20
                while not (directory / name).exists():
                    assert time.monotonic() < until
                    time.sleep(0.01)
            with socket.socket() as daemon:
                daemon.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                daemon.bind(place)
                daemon.listen()
                with pytest.raises(NotAllowed, match=str(ANOTHER_USER)):
                    endpoint.check_peer(connected.socket, ApiEndpoint(address=place[0], port=place[1]), True)
            connected.close()


def test_a_peer_without_a_name_gets_no_credential() -> None:
    """A peer in another network namespace, or on another machine, is asked if the program names it, and only that."""
    elsewhere = ApiEndpoint(address="192.0.2.1")

    class Connected:
        def getpeername(self) -> tuple[str, int]:
            return "192.0.2.1", 4866

        def getsockname(self) -> tuple[str, int]:
            return "192.0.2.2", 1

    endpoint.check_peer(Connected(), elsewhere, False)
    with pytest.raises(NotAllowed, match="does not name"):
        endpoint.check_peer(Connected(), elsewhere, True)
    with pytest.raises(NotAllowed):
        endpoint.check_peer(Connected(), ApiEndpoint(address="192.0.2.1", is_default_port=True), False)


def test_the_users_of_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, this process's own, and the one that the environment names."""
    monkeypatch.setenv(endpoint.USER_VARIABLE, "4863")
    assert endpoint.daemon_users() == {0, os.geteuid(), 4863}
    monkeypatch.setenv(endpoint.USER_VARIABLE, "daemon")
    assert 1 in endpoint.daemon_users()
