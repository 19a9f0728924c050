"""Failures before a command is answered: settings, names, certificates, servers; and `doctor`, which finds them."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from compass.admin.shell.config import CONFIG_MAX, Given, SettingsProblem, parse_server, read_settings
from compass.admin.shell.connection import EXIT_OF_KIND, AdminSession, ConnectionFailed, IdentityFiles, Server
from compass.model.exit_codes import EXIT_OF_CODE, MEANINGS, ExitCode
from compass.model.replies import CODES, Refusal, ServerStatus
from compass.model.requests import Remove, Status
from compass.pki.authority import Credentials, issue, write_credentials
from compass.wire.frames import frame
from compass.wire.messages import Goodbye, Welcome, encode
from tests.admin.conftest import Program
from tests.support.fake_server import LittleServer


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def answering(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where each connection is handed to `serve`, for servers that are none."""
    listening = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    serve(connection)
                except OSError:
                    continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def identity(certificates: Path, stem: str = "admin", server_name: str = "") -> IdentityFiles:
    at = certificates
    return IdentityFiles(at / f"{stem}.crt", at / f"{stem}.key", at / "authority.crt", server_name)


def over_tls(certificates: Path, *bodies: bytes) -> Callable[[socket.socket], None]:
    """A server that greets with these bodies, whatever is said to it, and waits for the end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.sendall(b"".join(bodies))
            while secured.recv(1024):
                pass

    return serve


def test_every_refusal_and_every_problem_has_a_documented_status(program: Program) -> None:
    """The tables are complete, none is taken for success, and --help shows each status."""
    assert set(EXIT_OF_CODE) == set(CODES)
    meanings = {status: texts["opengnsadmin"] for status, texts in MEANINGS.items() if "opengnsadmin" in texts}
    assert {*EXIT_OF_CODE.values(), *EXIT_OF_KIND.values()} <= set(meanings)
    assert not {ExitCode.DONE, ExitCode.USAGE, ExitCode.CHANGES} & {*EXIT_OF_CODE.values(), *EXIT_OF_KIND.values()}
    text = program.done("--help", options=[])
    for status, meaning in meanings.items():
        assert f"{status.value:>3}  {meaning}" in text


def test_no_server_is_said_to_be_none(program: Program) -> None:
    """A refused connection names the server and what to look at; with several, each."""
    first, second = closed_port(), closed_port()
    result = program.run("status", options=program.of("admin", first))
    assert result.exit_code == ExitCode.UNAVAILABLE and "is opengnssd running" in result.stderr
    result = program.run("status", options=[*program.of("admin", first), f"--server=127.0.0.1:{second}"])
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert f"127.0.0.1:{first}" in result.stderr and f"127.0.0.1:{second}" in result.stderr
    told = json.loads(program.run("status", "--json", options=program.of("admin", first)).stderr)
    assert told["kind"] == "unavailable"


def test_the_next_server_is_tried(program: Program, server: LittleServer) -> None:
    """An unavailable server does not matter if another one is available."""
    assert program.done("status", options=[*program.of("admin", closed_port()), f"--server=127.0.0.1:{server.port}"])


def test_names_that_cannot_be_resolved_or_dialled(program: Program) -> None:
    """The error quotes the name, so that its spelling can be checked."""
    for name in ("no-such-host.invalid:1", "a..b:1", f"{'x' * 64}.invalid:1"):
        result = program.run("status", options=[*program.of("admin", 1)[1:], f"--server={name}"])
        assert result.exit_code == ExitCode.UNAVAILABLE and name.partition(":")[0] in result.stderr, result.output


def test_a_server_that_proves_another_name_is_not_trusted(program: Program, server: LittleServer) -> None:
    """The name is that of the address or of --server-name, and the error names the remedy."""
    result = program.run("--server-name", "gns9.example.net", "status")
    assert result.exit_code == ExitCode.NOT_ALLOWED and "not for 'gns9.example.net'" in result.stderr
    assert program.done("--server-name", "gns1.example.net", "status")
    result = program.run("status", options=[*program.of("admin", 1)[1:], f"--server=localhost:{server.port}"])
    assert result.exit_code == ExitCode.NOT_ALLOWED and "--server-name" in result.stderr
    assert program.run("--server-name", ".", "status").exit_code == ExitCode.NOT_ALLOWED


def test_a_certificate_of_another_authority_is_refused_by_either_end(program: Program, server: LittleServer) -> None:
    """We do not trust a stranger's server, and a server's refusal of ours is explained although it comes late."""
    result = program.run("status", options=program.of("admin", server.port, authority="strangers"))
    assert result.exit_code == ExitCode.NOT_ALLOWED and "--authority" in result.stderr
    result = program.run("status", options=program.of("stranger", server.port))
    assert result.exit_code == ExitCode.NOT_ALLOWED and "refuses our certificate" in result.stderr
    assert "not trusted by the server" in result.stderr


def test_expired_certificates_have_their_own_errors(program: Program, server: LittleServer, certificates: Path) -> None:
    """Ours and the server's: who has to have a new one made is said."""
    result = program.run("status", options=program.of("expired-admin", server.port))
    assert result.exit_code == ExitCode.NOT_ALLOWED and "it has expired" in result.stderr
    at = certificates
    old = LittleServer(at / "expired-server.crt", at / "expired-server.key", at / "authority.crt")
    try:
        result = program.run("status", options=program.of("admin", old.port))
        assert result.exit_code == ExitCode.NOT_ALLOWED and "its certificate has expired" in result.stderr
    finally:
        old.stop()


def test_files_that_are_no_identity_are_reported(certificates: Path, program: Program, tmp_path: Path) -> None:
    """Missing files all at once; a key of another certificate; files that are no PEM."""
    junk = tmp_path / "junk"
    junk.write_text("junk")
    at = certificates
    for files, expected in (
        (IdentityFiles(tmp_path / "a", tmp_path / "b", tmp_path / "c"), ("/a", "/b", "/c")),
        (IdentityFiles(at / "admin.crt", at / "host.key", at / "authority.crt"), ("is not the key",)),
        (IdentityFiles(at / "admin.crt", at / "admin.key", junk), ("holds no certificate",)),
        (IdentityFiles(junk, junk, at / "authority.crt"), ("not a certificate and its key",)),
    ):
        with pytest.raises(ConnectionFailed) as caught:
            AdminSession.connect([Server("127.0.0.1", 1)], files, 1.0)
        assert caught.value.kind == "files" and all(one in str(caught.value) for one in expected)
    mixed = [
        f"--certificate={at / 'admin.crt'}",
        f"--key={at / 'host.key'}",
        f"--authority={at / 'authority.crt'}",
    ]
    assert program.run("status", options=mixed).exit_code == ExitCode.FAILED


def test_what_is_no_name_server_is_not_taken_for_one(certificates: Path) -> None:
    """Plain text, silence, a closed door, another protocol over TLS: each ends with its own sentence."""
    silent = threading.Event()

    def garbage(connection: socket.socket) -> None:
        connection.sendall(b"220 mail.example.net ESMTP\r\n" * 10)
        connection.recv(65536)

    def abrupt(connection: socket.socket) -> None:
        connection.recv(1)

    def silence(connection: socket.socket) -> None:
        silent.wait(0.6)

    cases: tuple[tuple[Callable[[socket.socket], None], str, str], ...] = (
        (garbage, "protocol", "OpenGNSP port"),
        (abrupt, "unavailable", "handshake"),
        (silence, "unavailable", "no answer to the TLS handshake"),
        (over_tls(certificates), "unavailable", "sent no greeting"),
        (over_tls(certificates, b"HTTP/1.1 400 Bad Request\r\n"), "protocol", "broke the protocol"),
        (over_tls(certificates, frame(encode(Refusal("not-ready", "not yet")))), "unavailable", "not yet"),
        (over_tls(certificates, frame(encode(Goodbye("full", 3.0)))), "unavailable", "try again in 3 s"),
    )
    for serve, kind, expected in cases:
        with answering(serve) as port, pytest.raises(ConnectionFailed) as caught:
            AdminSession.connect([Server("127.0.0.1", port)], identity(certificates), 0.3)
        assert caught.value.kind == kind and expected in str(caught.value), caught.value


def test_a_server_that_never_answers_is_given_up(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply has a deadline, and so has a session that goes away."""
    monkeypatch.setattr("compass.wire.limits.REPLY_SECONDS", 0.2)
    welcome = frame(encode(Welcome(1, "mute", "store", 1, 4096)))
    serve = over_tls(certificates, welcome)
    with (
        answering(serve) as port,
        AdminSession.connect([Server("127.0.0.1", port)], identity(certificates), 2.0) as link,
    ):
        with pytest.raises(ConnectionFailed, match="no reply within"):
            link.ask(Status())
        with pytest.raises(ConnectionFailed):
            link.ask(Status())


def test_a_reply_before_a_goodbye_is_not_lost(certificates: Path) -> None:
    """All events of one read are processed; the next request finds the session closed."""
    status = ServerStatus("s", "t", "store", 1, 0.0, 0, 0, {}, {})
    pieces = (
        frame(encode(Welcome(1, "brief", "store", 1, 4096))),
        frame(encode(status), 1) + frame(encode(Goodbye("closing"))),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            for piece in pieces:
                secured.recv(1024)
                secured.sendall(piece)
            secured.recv(1024)

    with (
        answering(serve) as port,
        AdminSession.connect([Server("127.0.0.1", port)], identity(certificates), 2.0) as link,
    ):
        assert link.ask(Status()) == status
        with pytest.raises(ConnectionFailed, match="closing"):
            link.ask(Status())


def test_an_address_that_no_server_listens_on_in_time(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dropped packet and a missing network have other errors than a refused connection."""
    for error, expected in (
        (TimeoutError(), "firewall"),
        (OSError(101, "Network is unreachable"), "check the network"),
    ):

        def fail(*arguments: object, error: OSError = error) -> socket.socket:
            raise error

        monkeypatch.setattr(socket, "create_connection", fail)
        with pytest.raises(ConnectionFailed, match=expected):
            AdminSession.connect([Server("192.0.2.1", 1)], identity(certificates), 0.1)


def test_a_certificate_from_the_future_points_at_the_clock(certificates: Path, tmp_path: Path) -> None:
    """A server's certificate that is not valid yet."""
    at = certificates
    authority = Credentials((at / "authority.key").read_bytes(), (at / "authority.crt").read_bytes())
    late = issue(authority, "server", "127.0.0.1", [], datetime.now(UTC) + timedelta(days=5))
    write_credentials(tmp_path, "late", late)
    server = LittleServer(tmp_path / "late.crt", tmp_path / "late.key", at / "authority.crt")
    try:
        with pytest.raises(ConnectionFailed, match="check this machine's clock"):
            AdminSession.connect([Server("127.0.0.1", server.port)], identity(certificates), 2.0)
    finally:
        server.stop()


def test_a_session_that_breaks_is_reported(server: LittleServer, certificates: Path) -> None:
    """Closed by the server while idle: the next question says so, and no answer is made up."""
    with AdminSession.connect([Server("127.0.0.1", server.port)], identity(certificates), 2.0) as link:
        assert isinstance(link.ask(Status()), ServerStatus)
        server.hang_up()
        with pytest.raises(ConnectionFailed) as caught:
            link.ask(Status())
        assert caught.value.kind == "unavailable"


def test_a_request_of_exactly_the_servers_limit_is_sent(certificates: Path) -> None:
    """n octets are sent, n + 1 are refused here."""
    request = Remove("category", "x" * 200)
    size = len(encode(request))
    at = certificates
    for limit, code in ((size, "bad-name"), (size - 1, "too-large")):
        server = LittleServer(at / "server.crt", at / "server.key", at / "authority.crt", frame_max=limit)
        try:
            with AdminSession.connect([Server("127.0.0.1", server.port)], identity(certificates), 2.0) as link:
                reply = link.ask(request)
                assert isinstance(reply, Refusal) and reply.code == code
        finally:
            server.stop()


def test_somebody_to_connect_to_must_be_given(certificates: Path) -> None:
    """No server at all is the caller's mistake."""
    with pytest.raises(ValueError, match="no server"):
        AdminSession.connect([], identity(certificates), 1.0)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("gns1.example.net:4999", "gns1.example.net", 4999),
        ("gns1.example.net", "gns1.example.net", 4863),
        ("[2001:db8::1]:1", "2001:db8::1", 1),
        ("[2001:db8::1]", "2001:db8::1", 4863),
        ("h:65535", "h", 65535),
    ],
)
def test_servers_are_written_as_host_and_port(text: str, host: str, port: int) -> None:
    """The port may be left out; IPv6 stands in brackets."""
    assert parse_server(text) == Server(host, port)


@pytest.mark.parametrize("text", ["", ":1", "h:0", "h:65536", "h:x", "2001:db8::1", "a b:1", "h:"])
def test_what_is_no_server_is_refused(text: str) -> None:
    """Each with what would be right."""
    with pytest.raises(ValueError, match="server"):
        parse_server(text)


FILES = Given(certificate="c", key="k", authority="a")


def test_the_command_line_wins_then_the_environment_then_the_file(tmp_path: Path) -> None:
    """Each setting is looked for in this order; paths in a file are relative to it."""
    config = tmp_path / ".config/opengns/admin.toml"
    config.parent.mkdir(parents=True)
    config.write_text('server = ["in-file:1"]\ncertificate = "c.crt"\nkey = "/k.key"\nauthority = "a.crt"\n')
    settings = read_settings(Given(), {}, tmp_path)
    assert settings.servers == (Server("in-file", 1),) and settings.config == config
    assert settings.identity == IdentityFiles(config.parent / "c.crt", Path("/k.key"), config.parent / "a.crt")
    settings = read_settings(Given(certificate="mine"), {"OPENGNS_SERVER": "in-env:2, more:3"}, tmp_path)
    assert settings.servers == (
        Server("in-env", 2),
        Server("more", 3),
    ) and settings.identity.certificate == Path("mine")
    assert read_settings(Given(servers=("x:4",)), {"OPENGNS_SERVER": "y:5"}, tmp_path).servers == (Server("x", 4),)
    other = tmp_path / "other.toml"
    other.write_text('server = "one"\nserver_name = "n"\n')
    settings = read_settings(FILES, {"OPENGNSADMIN_CONFIG": str(other)}, tmp_path)
    assert settings.servers == (Server("one", 4863),) and settings.identity.server_name == "n"
    assert read_settings(FILES, {}, tmp_path / "nobody").servers == (Server("127.0.0.1", 4863),)


def test_all_problems_of_the_settings_are_reported_at_once(tmp_path: Path) -> None:
    """Unknown keys, wrong types, bad servers in one go; a file that cannot be read or is none."""
    config = tmp_path / "admin.toml"
    config.write_text('server = 3\ncertificate = 4\ncolour = "red"\nkey = "k"\nauthority = ["a"]\n')
    with pytest.raises(SettingsProblem) as caught:
        read_settings(Given(config=str(config), servers=("bad:port",)), {}, tmp_path)
    assert len(caught.value.problems) == 5
    with pytest.raises(SettingsProblem) as caught:
        read_settings(Given(), {}, tmp_path)
    assert len(caught.value.problems) == 3 and "tls admin NAME" in str(caught.value)
    config.write_text('colour = "red"\n')
    with pytest.raises(SettingsProblem) as caught:
        read_settings(Given(config=str(config), servers=("bad:port",)), {}, tmp_path)
    assert len(caught.value.problems) == 5
    config.write_text('certificate = ""\n')
    with pytest.raises(SettingsProblem) as caught:
        read_settings(Given(config=str(config)), {}, tmp_path)
    assert len(caught.value.problems) == 3
    config.write_text("server = ")
    with pytest.raises(SettingsProblem, match="not TOML"):
        read_settings(Given(config=str(config)), {}, tmp_path)
    with pytest.raises(SettingsProblem, match="cannot be read"):
        read_settings(Given(config=str(tmp_path / "none.toml")), {}, tmp_path)
    config.write_text("#" * CONFIG_MAX)
    assert read_settings(Given((), "c", "k", "a", "", str(config)), {}, tmp_path)
    config.write_text("#" * (CONFIG_MAX + 1))
    with pytest.raises(SettingsProblem, match="octets"):
        read_settings(Given(config=str(config)), {}, tmp_path)


def test_missing_settings_end_with_a_way_out(program: Program) -> None:
    """Without a certificate the program says how to get one, and what needs no server still works."""
    result = program.run("status", options=[])
    assert result.exit_code == ExitCode.FAILED and "tls admin NAME" in result.stderr
    assert json.loads(program.run("status", "--json", options=[]).stderr)["kind"] == "settings"
    assert "complete" in program.done("completion", "bash", options=[])


def checks(program: Program, options: list[str]) -> dict[str, tuple[bool, str]]:
    result = program.run("doctor", "--json", options=options)
    found = json.loads(result.stdout)["checks"]
    assert (result.exit_code == 0) == all(one["ok"] for one in found)
    return {one["name"].split()[-1]: (one["ok"], f"{one['found']} {one['next']}") for one in found}


def test_doctor_finds_a_good_installation_good(program: Program, server: LittleServer) -> None:
    """Every check is ok, in words for people too."""
    found = checks(program, program.settings)
    assert [*found] == [
        "settings",
        "certificate",
        "role",
        "authority",
        "key",
        "name",
        "TCP",
        "TLS",
        "hello",
        "status",
    ]
    assert all(ok for ok, _ in found.values())
    shown = program.done("doctor")
    assert "failed" not in shown and "TLSv1.3" in shown


def test_doctor_says_what_is_wrong_and_what_to_do(
    program: Program, server: LittleServer, certificates: Path, tmp_path: Path
) -> None:
    """Each thing that can be wrong fails its own check, with a next step."""
    port = server.port
    for options, failing, expected in (
        ([], "settings", "no authority"),
        (program.of("host", port), "role", "tls admin NAME"),
        (program.of("host", port), "status", "role admin"),
        (program.of("expired-admin", port), "certificate", "expired"),
        (program.of("stranger", port), "hello", "not trusted by the server"),
        (program.of("admin", closed_port()), "TCP", "is opengnssd running"),
        ([*program.of("admin", port)[1:], "--server=none.invalid:1"], "name", "DNS"),
        ([*program.settings, "--server-name=other"], "TLS", "not for 'other'"),
        ([*program.settings, f"--key={certificates / 'host.key'}"], "key", "copy both files"),
        ([*program.settings, f"--authority={certificates / 'admin.key'}"], "authority", "PEM"),
        ([*program.settings, f"--certificate={tmp_path / 'none'}"], "certificate", "permissions"),
    ):
        ok, told = checks(program, options)[failing]
        assert not ok and expected in told, (failing, told)
    assert "failed" in program.run("doctor", options=program.of("admin", closed_port())).stdout


def test_the_program_starts_from_a_checkout() -> None:
    """`python opengnsadmin.py --help` works without installing anything."""
    root = Path(__file__).parents[3]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(root / "opengnsadmin.py"), "--help"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0 and "Exit status:" in done.stdout
