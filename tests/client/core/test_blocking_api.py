"""Blocking API: the daemon's address, and the errors of a daemon that cannot be reached."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from pathlib import Path

import pytest

from compass.cli.run.readiness import accepts, endpoints_of
from compass.client.core import api as host_api_calls
from compass.client.core import endpoint
from compass.client.core.blocking_api import ApiEndpoint, ApiProblem, HostApi, InvalidEndpoint, parse_api_endpoint
from compass.system.development import SOCKET, default_directory
from tests.support.fake_api import LittleApi


def test_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket if its directory is there, whether a daemon listens or not; else the port on the loopback."""
    monkeypatch.setattr(endpoint, "DEFAULT_SOCKET", str(tmp_path / "opengns" / "opengnscd.sock"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert str(parse_api_endpoint("")) == "http://127.0.0.1:4866" and parse_api_endpoint("").is_default_port
    (tmp_path / "opengns").mkdir()
    assert str(parse_api_endpoint("")) == f"unix:{tmp_path}/opengns/opengnscd.sock"
    assert not parse_api_endpoint("http://127.0.0.1:4866").is_default_port


def test_development_mode_is_found_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory of an installed daemon has precedence, also while that daemon does not run; a socket that a killed
    development mode has left behind is passed over."""
    monkeypatch.setattr(endpoint, "DEFAULT_SOCKET", str(tmp_path / "run" / "opengnscd.sock"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    own = tmp_path / "opengns" / "dev" / SOCKET
    own.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(own))
        assert parse_api_endpoint("").is_default_port
        listening.listen()
        assert str(parse_api_endpoint("")) == f"unix:{own}"
        (tmp_path / "run").mkdir()
        assert str(parse_api_endpoint("")) == f"unix:{tmp_path}/run/opengnscd.sock"
        (tmp_path / "run").rmdir()
    assert own.is_socket() and parse_api_endpoint("").is_default_port
    # The specification of base directories: a relative path is ignored.
    home = tmp_path / "home"
    assert default_directory({"XDG_STATE_HOME": "state"}, home) == home / ".local" / "state" / "opengns" / "dev"


def test_an_address_can_be_written_in_these_ways() -> None:
    """And shows itself the way it is written."""
    assert parse_api_endpoint("unix:/tmp/a") == ApiEndpoint(path="/tmp/a")
    assert parse_api_endpoint("http://127.0.0.1") == ApiEndpoint(address="127.0.0.1", port=4866)
    assert str(parse_api_endpoint("http://[::1]:5000/")) == "http://[::1]:5000"
    for wrong in ("127.0.0.1:4866", "https://127.0.0.1:4866", "http://127.0.0.1:4866/v1", "unix:", "http://:1"):
        with pytest.raises(InvalidEndpoint):
            parse_api_endpoint(wrong)


def test_a_daemon_on_a_port_is_asked_the_same_way() -> None:
    """HTTP on the loopback, with a Host header that the daemon takes for its own."""
    hosts = []

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b'{"type":"refusal","code":"not-ready","message":"soon","epoch":4}')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        port = server.server_port
        with pytest.raises(ApiProblem) as problem:
            HostApi(parse_api_endpoint(f"http://127.0.0.1:{port}")).status()
        thread.join(5)
    assert (problem.value.code, problem.value.epoch, hosts) == ("not-ready", 4, [f"127.0.0.1:{port}"])


def test_a_daemon_that_does_not_answer_or_breaks_off(tmp_path: Path) -> None:
    """A socket that is never read and one that closes in the middle of an answer have clear errors."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        api = HostApi(parse_api_endpoint(f"unix:{tmp_path}/s"), answer_seconds=0.2)
        with pytest.raises(ApiProblem, match="does not answer") as problem:
            api.status()
        assert problem.value.code == "unreachable"
        listening.accept()[0].close()

        def break_off(answer: bytes) -> None:
            peer = listening.accept()[0]
            peer.recv(1000)
            peer.sendall(answer)
            peer.close()

        for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"):
            thread = threading.Thread(target=break_off, args=(answer,), daemon=True)
            thread.start()
            with pytest.raises(ApiProblem) as problem:
                api.status()
            thread.join(5)
            assert problem.value.code == "unreachable"


def test_an_answer_has_a_limit(api: LittleApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """ANSWER_OCTETS_MAX octets are read, and not one more."""
    said = b'{"name":"a","revision":1,"source":"none","listeners":[]}'
    api.answers["/v1/resolve/a"] = (200, said)
    monkeypatch.setattr(host_api_calls, "ANSWER_OCTETS_MAX", len(said))
    assert HostApi(parse_api_endpoint(api.place)).resolve("a").source == "none"
    monkeypatch.setattr(host_api_calls, "ANSWER_OCTETS_MAX", len(said) - 1)
    with pytest.raises(ApiProblem, match="more than"):
        HostApi(parse_api_endpoint(api.place)).resolve("a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to every socket")
def test_a_socket_that_this_user_may_not_use(api: LittleApi) -> None:
    """The text says so, instead of that the daemon does not run."""
    api.socket.chmod(0)
    with pytest.raises(ApiProblem, match="does not allow this user") as problem:
        HostApi(parse_api_endpoint(api.place)).status()
    assert problem.value.code == "forbidden"


def test_a_command_is_looked_for_where_it_may_listen() -> None:
    """The address that was given and no other; without one, the addresses of this machine."""
    assert endpoints_of("192.0.2.7", 80) == [("192.0.2.7", 80)]
    assert endpoints_of("", 80)[:2] == [("127.0.0.1", 80), ("::1", 80)]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = listening.getsockname()[:2]
        assert accepts(place)
    assert not accepts(place)
