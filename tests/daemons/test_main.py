"""opengnssd and opengnscd as real processes: start, messages about failures, and end."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sqlite3
import stat
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import compass
from compass.admin.shell.connection import ConnectionFailed
from compass.daemons import main
from compass.daemons.process import start
from compass.model.replies import LogEntries, ServerStatus
from compass.model.requests import ReadLog, Status
from compass.pki.authority import create_authority
from tests.support.installation import AUTHORITY, NOW, ROOT, Installation, free_port

PROGRAMS: dict[str, Any] = {"opengnssd": main.server, "opengnscd": main.host}
LISTENS = "listens on"


def ask(path: Path) -> dict[str, Any]:
    """Return the status of a client daemon over its Unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    with closing(connection):
        connection.sock.connect(str(path))
        connection.request("GET", "/v1/status")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_teaches(name: str) -> None:
    """The help names the purpose, the places of the configuration, the first steps, and the exit statuses."""
    text = CliRunner().invoke(PROGRAMS[name], ["--help"], prog_name=name).output
    for words in (f"{name.upper()}_CONFIG", f"/etc/opengns/{name}.toml", f"{name} --print-config", "Exit status: 0"):
        assert words in text
    version = CliRunner().invoke(PROGRAMS[name], ["--version"], prog_name=name)
    assert version.output.startswith(f"{name} {compass.__version__}\nwith Python 3.")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_configuration_is_printed_and_checked(installation: Installation, name: str) -> None:
    """The printed file passes the check except for its missing files; with certificates it is good."""
    check = PROGRAMS[name], ["--check"]
    printed = CliRunner().invoke(PROGRAMS[name], ["--print-config"])
    file = installation.directory / "printed.toml"
    file.write_text(printed.output)
    told = CliRunner(env={f"{name.upper()}_CONFIG": str(file)}).invoke(*check)
    assert told.exit_code == start.EXIT_CONFIG
    assert f"{name}: {installation.directory}/tls/NAME.key does not exist" in told.output
    path = installation.server_config() if name == "opengnssd" else installation.host_config()
    (installation.directory / "gns1.key").chmod(0o640)
    good = CliRunner().invoke(PROGRAMS[name], ["--check", "--config", str(path)])
    assert (good.exit_code, f"{path} is good" in good.output) == (0, True)
    assert ("opengnssd: warning: " in good.output) == (name == "opengnssd")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_check_tells_all_mistakes(installation: Installation, name: str, tmp_path: Path) -> None:
    """The check also reports a missing file, with advice, and a certificate of the wrong role."""
    missing = CliRunner().invoke(PROGRAMS[name], ["--check", "--config", str(tmp_path / "no.toml")])
    assert missing.exit_code == start.EXIT_CONFIG
    assert f"{tmp_path}/no.toml: cannot be read: No such file" in missing.output
    assert f"name the file with --config or in {name.upper()}_CONFIG; '{name} --print-config' writes" in missing.output
    wrong = installation.server_config("web1") if name == "opengnssd" else installation.host_config("gns1")
    told = CliRunner().invoke(PROGRAMS[name], ["--check", "--config", str(wrong)])
    assert told.exit_code == start.EXIT_CONFIG
    assert "; this daemon needs one with the role" in told.output


def test_a_server_from_start_to_end(installation: Installation) -> None:
    """The server logs what and where it serves, and ends at SIGTERM after a goodbye to open sessions."""
    config = installation.server_config()
    daemon = installation.server(config)
    daemon.wait_for(rf"gns1 serves store [0-9a-f]+ at revision 0\n.*opengnssd listens on 127.0.0.1:{installation.port}")
    assert stat.S_IMODE((installation.directory / "gns.sqlite3").stat().st_mode) == 0o600
    with installation.link() as link:
        assert isinstance(link.ask(Status()), ServerStatus)
        began = time.monotonic()
        assert daemon.end() == 0
        assert time.monotonic() - began < 3.0
        with pytest.raises(ConnectionFailed, match="the server stops"):
            link.ask(Status())
    said = [line.partition("] ")[2] for line in daemon.log.splitlines()]
    assert said[2:] == ["Received SIGTERM, shutting down.", "opengnssd has stopped", "Main loop terminated."]


def test_who_is_refused_is_logged_and_the_server_goes_on(installation: Installation) -> None:
    """P11: another authority, an expired certificate, no TLS, and a role without rights are refused."""
    (installation.directory / "gns1.key").chmod(0o640)
    daemon = installation.server(installation.server_config())
    daemon.wait_for(LISTENS)
    assert "gns1.key is readable by other users" in daemon.log
    foreign = installation.certify("admin", "mallory", authority=create_authority("authority", NOW))
    expired = installation.certify("host", "web9", now=NOW - timedelta(days=30), days=10)
    for identity, problem in ((foreign, "the certificate 'CN=mallory"), (expired, "the certificate 'CN=web9")):
        before = daemon.log.count(problem)
        with pytest.raises(ConnectionFailed):
            installation.link(identity)
        daemon.wait_for(rf"(?s)(no session with a peer at 127.0.0.1: {problem}.*){{{before + 1}}}")
    with socket.create_connection(("127.0.0.1", installation.port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        daemon.wait_for("no session with a peer at 127.0.0.1: it does not begin TLS")
    other = installation.certify("server", "gns2")
    with pytest.raises(ConnectionFailed, match="has the role server; host or admin is needed"):
        installation.link(other)
    with installation.link() as link:
        reply = link.ask(ReadLog("security"))
        assert isinstance(reply, LogEntries)
        # The two refused handshakes have no known principal.
        assert [entry.principal for entry in reply.entries] == ["", "", "gns2"]  # type: ignore[union-attr]
    assert daemon.end() == 0
    assert "Traceback" not in daemon.log


def test_a_port_in_use_is_told_by_its_address(installation: Installation) -> None:
    """A second server on the same port ends with a sentence; the first one goes on."""
    config = installation.server_config()
    first = installation.server(config)
    first.wait_for(LISTENS)
    second = installation.server(config)
    assert second.status() == start.EXIT_START
    assert (
        f"opengnssd could not start: cannot listen on 127.0.0.1:{installation.port}: Address already in use"
        in second.log
    )
    assert "Traceback" not in second.log
    with installation.link() as link:
        assert isinstance(link.ask(Status()), ServerStatus)


def _too_new(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE schema_version (version_num TEXT)")
        database.execute("INSERT INTO schema_version VALUES ('9999')")
        database.commit()


def _no_database(path: Path) -> None:
    path.write_text("Dear diary, " * 100)


@pytest.mark.parametrize(
    ("store", "prepare", "told"),
    [
        ("sqlite:///none/gns.sqlite3", None, "there is no directory .*/none; create it"),
        ("sqlite:////proc/gns.sqlite3", None, "/proc/gns.sqlite3: "),
        ("sqlite:///gns.sqlite3", _too_new, "gns.sqlite3 has schema 9999, this program knows [0-9]+"),
        ("sqlite:///gns.sqlite3", _no_database, "gns.sqlite3: file is not a database"),
        ("postgresql://gns@127.0.0.1:1/gns", None, "postgresql"),
    ],
    ids=["missing", "unwritable", "newer", "other", "away"],
)
def test_a_store_that_cannot_be_used(installation: Installation, store: str, prepare: Any, told: str) -> None:
    """Each problem has its own sentence with the store's name, and leaves no partial changes."""
    if prepare is not None:
        prepare(installation.directory / "gns.sqlite3")
    daemon = installation.server(installation.server_config(store=store))
    assert daemon.status() == start.EXIT_START
    daemon.wait_for(f"opengnssd could not start: .*{told}")
    assert "Traceback" not in daemon.log


def test_a_wrong_role_stops_a_daemon(installation: Installation) -> None:
    """A host's certificate does not start a server, and the status forbids a restart."""
    daemon = installation.server(installation.server_config("web1"))
    assert daemon.status() == start.EXIT_CONFIG
    assert "web1.crt has the role host; this daemon needs one with the role server" in daemon.log


def test_a_client_daemon_from_start_to_end(installation: Installation) -> None:
    """The daemon answers without a server, finds a starting one, and ends at SIGINT; all users may use its socket."""
    port, update = free_port(), free_port()
    path = installation.directory / "gns.sock"
    config = installation.host_config(api=f"127.0.0.1:{port}", update=f"127.0.0.1:{update}")
    daemon = installation.host(config, "-v")
    for where in (path, f"127.0.0.1:{port}", f"127.0.0.1:{update}"):
        daemon.wait_for(f"opengnscd listens on {where}\n")
    assert ask(path)["host"] == "web1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    server = installation.server(installation.server_config())
    daemon.wait_for("session with server gns1")
    assert ask(path)["session"] == "open"
    assert daemon.end(signal.SIGINT) == 0
    assert not path.exists()
    assert "opengnscd has stopped" in daemon.log
    assert server.end() == 0


def test_a_killed_daemons_socket_is_replaced_and_a_living_ones_is_not(installation: Installation) -> None:
    """P7: after kill -9 the next start needs no cleanup; two daemons do not share a socket."""
    config = installation.host_config(state_directory="/proc/none")
    first = installation.host(config)
    first.wait_for(LISTENS)
    first.wait_for("cannot make /proc/none")
    second = installation.host(config)
    assert second.status() == start.EXIT_START
    path = installation.directory / "gns.sock"
    assert f"could not start: cannot listen on {path}: a daemon already listens on it" in second.log
    assert ask(path)["host"] == "web1"
    first.end(signal.SIGKILL)
    assert path.is_socket()
    third = installation.host(config)
    third.wait_for(LISTENS)
    assert ask(path)["host"] == "web1"
    assert third.end() == 0


@pytest.mark.parametrize(("where", "told"), [("none/gns.sock", "No such file"), ("authority.crt", "already in use")])
def test_a_socket_that_cannot_be_made(installation: Installation, where: str, told: str) -> None:
    """A missing directory is reported; a file that is not a socket is left alone."""
    daemon = installation.host(installation.host_config(socket=where))
    assert daemon.status() == start.EXIT_START
    daemon.wait_for(f"opengnscd could not start: cannot listen on {installation.directory / where}: .*{told}")
    assert (installation.directory / "authority.crt").read_bytes() == AUTHORITY.certificate_pem


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_tac_files_serve(installation: Installation, name: str) -> None:
    """twistd starts the same daemon, with the configuration that the environment names."""
    config = installation.server_config() if name == "opengnssd" else installation.host_config()
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    command += ["-ny", str(ROOT / f"{name}.tac"), "--pidfile="]
    daemon = installation.start(command, **{f"{name.upper()}_CONFIG": str(config)})
    daemon.wait_for(f"{name} listens on")
    # twistd opens the ports before its reactor runs, and only then the signal is handled.
    daemon.wait_for("serves store" if name == "opengnssd" else "session with")
    # The process is twistd's, and so is what to do with it.
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for(f"SIGHUP changes nothing: start {name} again")
    # twistd ends in order, and then by the signal that ended it.
    assert daemon.end() == -signal.SIGTERM
    assert f"{name} has stopped" in daemon.log
    missing = installation.start(command, **{f"{name.upper()}_CONFIG": str(config.with_name("no.toml"))})
    assert missing.status() == 1
    assert "no.toml: cannot be read: No such file or directory" in missing.log
    assert f"{name.upper()}_CONFIG; '{name} --print-config' writes one" in missing.log
    assert "Traceback" not in missing.log


def test_opengnsadmin_teaches_from_a_checkout(installation: Installation) -> None:
    """`python opengnsadmin.py --help` works without an installation."""
    program = installation.start([sys.executable, str(ROOT / "opengnsadmin.py"), "--help"])
    assert program.status() == 0
    assert "Usage: opengnsadmin" in program.log and "topology" in program.log
