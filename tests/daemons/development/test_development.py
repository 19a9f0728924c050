"""`opengns dev` as a real process: the first service, the end and the next start, and what it refuses."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import pytest

from compass.daemons.development.directory import FORMAT, MARKER
from compass.daemons.process.start import EXIT_CONFIG, EXIT_START
from compass.system.development import SOCKET
from tests.e2e.processes import Program, environment, eventually, python
from tests.support.installation import free_base, free_port

DEV = python("compass.daemons.development.command:main", "dev")
STRANGER = "daemon"
"""Name of another user, which each machine has."""
SERVES = "Try this in another terminal:"


class Development:
    """Development mode of a user of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.base = free_base()
        self.directory = home / "state" / "opengns" / "dev"
        self.variables = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
        self.program = self.another()

    def another(self, *options: str, port: int = 0) -> Program:
        """Return another process of the same user."""
        command = [*DEV, "--port", str(port or self.base), *options]
        return Program("opengns dev", command, self.home / f"dev{len(options)}{port}.log", self.variables)

    def start(self) -> str:
        """Start it. Returns what it prints."""
        self.program.log.unlink(missing_ok=True)
        self.program.start()

        def shown() -> str:
            text = self.program.log.read_text()
            assert self.program.runs, text
            return text if SERVES in text else ""

        return eventually(shown, "development mode serves")

    def run(self, *command: str, entry: str = "compass.cli.main:main") -> subprocess.CompletedProcess[str]:
        """Run another program of the same user to its end."""
        own = environment() | self.variables
        return subprocess.run(python(entry, *command), env=own, capture_output=True, text=True, timeout=60)

    def resolve(self, name: str) -> str:
        """Return the endpoints that opengnsc prints, or its error."""
        done = self.run("resolve", name)
        return done.stdout.strip() or done.stderr.strip()

    def refused(self, *options: str, port: int = 0) -> tuple[int, str]:
        """Start another one, which ends by itself. Returns its exit status and what it prints."""
        other = self.another(*options, port=port)
        other.log.unlink(missing_ok=True)
        other.start()
        return other.ended(), other.log.read_text()


@pytest.fixture
def development(tmp_path: Path) -> Iterator[Development]:
    """Development mode, not started yet."""
    mode = Development(tmp_path)
    yield mode
    mode.program.clear_away()


def test_first_service_to_the_next_start(development: Development) -> None:
    """A service is registered without a file or a flag, found in three ways, and again after each kind of end."""
    text = development.start()
    assert str(development.directory) in text
    port = free_port()
    command = python("compass.cli.main:main", "run", "hello.web", "--port", str(port), "--", "python3", "-m")
    serving = [*command, "http.server", str(port), "--bind", "127.0.0.1"]
    service = Program("hello.web", serving, development.home / "service.log", development.variables)
    service.start()
    try:
        at = f"127.0.0.1:{port}"
        eventually(lambda: development.resolve("hello.web") == at, "the service is found")
        with urllib.request.urlopen(f"http://127.0.0.1:{development.base + 3}/v1/resolve/hello.web") as answer:
            assert [peer["port"] for peer in json.load(answer)["listeners"]] == [port]
        query = dns.message.make_query("hello.web.gns.", "SRV")
        found = dns.query.udp(query, "127.0.0.1", 5, development.base - 10)
        assert f" {port} " in found.answer[0].to_text()
        shown = development.run("log", "admin", "--json", entry="compass.admin.main:main")
        declared = [entry for entry in json.loads(shown.stdout)["entries"] if entry["operation"] == "declare"]
        assert len(declared) == 1 and "hello.web" in declared[0]["arguments"]
        # Ctrl-C, then again: what was registered is there. Then a kill, which leaves the socket behind.
        assert development.program._end(signal.SIGINT) == 0
        assert not (development.directory / SOCKET).exists()
        development.start()
        eventually(lambda: development.resolve("hello.web") == at, "found after a restart")
        development.program.kill()
        development.start()
        eventually(lambda: development.resolve("hello.web") == at, "found after a kill")
        assert service.stop() in (0, 128 + signal.SIGTERM)
        eventually(lambda: "no usable listener" in development.resolve("hello.web"), "its end is known")
    finally:
        service.clear_away()
    assert development.program.stop() == 0


LIBRARY = """from compass import client
with client.register("own.lib", port=9):
    print(client.resolve("own.lib").listeners[0].port)
"""


def test_the_client_library_needs_no_credential(development: Development) -> None:
    """Three lines of Python register and look up, as with `opengnsc`; elsewhere the library asks for a credential."""
    own = environment() | development.variables
    command = [sys.executable, "-c", LIBRARY]
    without = subprocess.run(command, env=own, capture_output=True, text=True)
    assert "CredentialProblem" in without.stderr or "NoCredential: a credential is required" in without.stderr
    development.start()
    done = subprocess.run(command, env=own, capture_output=True, text=True)
    assert done.stdout == "9\n", done.stderr


def test_a_closed_category_needs_a_credential(development: Development) -> None:
    """A category that an administrator has declared is not open, and a flag closes one that a registration declared."""
    development.start()
    admin = "compass.admin.main:main"
    for words in (("category", "add", "shop"), ("service", "add", "cart.shop")):
        assert development.run(*words, entry=admin).returncode == 0
    refused = development.run("register", "cart.shop", "9")
    assert "a credential of cart.shop is needed" in refused.stderr
    assert development.run("register", "a.open", "9").returncode == 0
    assert development.run("category", "set", "open", "--closed", entry=admin).returncode == 0
    assert "a credential of a.open is needed" in development.run("register", "a.open", "8").stderr
    assert "there is no service 'b.open'" in development.run("register", "b.open", "9").stderr


def test_what_it_refuses(development: Development, tmp_path: Path) -> None:
    """Each wrong start is one sentence that says what to do, with its exit status, and leaves nothing behind."""
    development.start()
    second = development.refused(port=free_base())
    assert second[0] == EXIT_START and "is used by another 'opengns dev' that runs; end that one, or" in second[1]
    new = tmp_path / "new"
    in_use = development.refused("--directory", str(new))
    assert in_use[0] == EXIT_START and f"127.0.0.1:{development.base} is in use; end the program" in in_use[1]
    assert not new.exists() and not list(tmp_path.glob(".new*"))
    foreign, old, plain = tmp_path / "foreign", tmp_path / "old", tmp_path / "plain"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("mine")
    old.mkdir()
    (old / MARKER).write_text(json.dumps({"format": FORMAT + 1}))
    plain.write_text("a file")
    free = free_base()
    wrong = {
        str(foreign): "has files, but not those of development mode; name an empty or a new directory",
        str(old): f"was made by another version of compass (format {FORMAT + 1}, and this is {FORMAT}); start that",
        str(tmp_path / ("long" * 30)): "is too long: a Unix socket in it would have a path of",
        "/proc/none": "make room or set the permissions, or name another directory with --directory",
    }
    for directory, words in wrong.items():
        status, text = development.refused("--directory", directory, port=free)
        assert (status, words in text, text.count("\n")) == (EXIT_CONFIG, True, 1), text
    assert [path.name for path in foreign.iterdir()] == ["letter.txt"]
    status, text = development.refused("--directory", str(plain), port=free)
    assert status == 2 and "is a file" in text
    for address in ("0.0.0.0", "192.0.2.1", "::", "localhost.example"):
        status, text = development.refused("--address", address, port=free)
        assert status == 2 and "is not a loopback address, and development mode serves no other machine" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user")
def test_directory_of_another_user(development: Development) -> None:
    """The directory is refused and left unchanged: its owner could not use what root writes into it."""
    development.directory.mkdir(parents=True)
    os.chown(development.directory, pwd.getpwnam(STRANGER).pw_uid, -1)
    status, text = development.refused()
    assert status == EXIT_CONFIG and f"belongs to user {STRANGER}, and user root runs this program; run it as" in text
    assert list(development.directory.iterdir()) == []


def test_what_a_kill_left_half_written(development: Development) -> None:
    """A directory that was being made is made again; certificates that are damaged or missing are replaced."""
    half = development.directory.with_name(".dev.new")
    (half / "tls").mkdir(parents=True)
    (half / "tls" / "authority.key").write_text("half a key")
    development.start()
    assert not half.exists()
    before = (development.directory / "tls" / "authority.crt").read_bytes()
    development.program.kill()
    (development.directory / "tls" / "server.crt").write_bytes(before[:100])
    (development.directory / "tls.new").mkdir()
    development.start()
    assert (development.directory / "tls" / "authority.crt").read_bytes() != before
    development.program.kill()
    shutil.rmtree(development.directory / "tls")
    development.start()
    assert development.resolve("hello.web").startswith("opengnsc: ")


def test_a_pipe_that_closes(development: Development) -> None:
    """Development mode whose output is not read any more continues to serve, and ends with status 0."""
    own = environment() | development.variables
    command = [*DEV, "--port", str(development.base)]
    with subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        eventually(lambda: "[unreachable]" not in development.resolve("a.b"), "it serves")
        process.send_signal(signal.SIGHUP)
        assert process.wait(40) == 0
        assert process.stderr.read() == b""


REGISTER = """import sys, urllib.request, urllib.error
request = urllib.request.Request(sys.argv[1], b'{"service": "a.b", "port": 9, "credential": ""}')
request.add_header("Content-Type", "application/json")
try:
    print(urllib.request.urlopen(request).read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a program as another user")
def test_another_user_registers_nothing(development: Development) -> None:
    """Any user reaches a loopback port; without a credential only the user of development mode and root register."""
    development.start()
    url = f"http://127.0.0.1:{development.base + 3}/v1/register"
    python3 = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    command = [python3, "-c", REGISTER, url]
    stranger = pwd.getpwnam(STRANGER).pw_uid
    refused = subprocess.run(command, user=stranger, cwd="/", env={}, capture_output=True, text=True)
    assert (
        refused.stdout.startswith("403") and "only programs of the user that runs 'opengns dev' may" in refused.stdout
    )
    assert '"a.b"' in subprocess.run(command, cwd="/", env={}, capture_output=True, text=True).stdout
    assert list(development.directory.parent.iterdir()) == [development.directory]
    assert development.directory.stat().st_mode & 0o777 == 0o700
