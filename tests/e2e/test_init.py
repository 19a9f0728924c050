"""`opengnsadmin init`: from nothing to a server, an administrator and a host that joins, each by one command."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from pathlib import Path

import pytest

from tests.e2e.deployment import free_port, new_address
from tests.e2e.processes import PATIENCE_SECONDS, Program, environment, eventually, python

ADMIN = "compass.admin.main:main"


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run opengnsadmin as a process."""
    return subprocess.run(
        python(ADMIN, *arguments),
        env=environment() | {"HOME": str(home)},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=PATIENCE_SECONDS,
    )


def tree(directory: Path) -> list[str]:
    """Return all files below a directory."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_three_commands_make_an_installation_and_the_fourth_joins_a_host(tmp_path: Path) -> None:
    """Each command prints the next one, which works, with real daemons."""
    address = new_address()
    port, https = free_port(address), free_port(address)
    gns, home, machine = tmp_path / "gns", tmp_path / "home", tmp_path / "machine"
    home.mkdir()
    made = run(home, "init", "server", "gns1.example.net", "--also", address, "--sign", "--directory", str(gns))
    assert made.returncode == 0, made
    assert made.stdout.splitlines()[-1] == f"Next: opengnssd --config {gns / 'opengnssd.toml'}"
    names = ["authority.crt", "authority.key"]
    tls = ["tls/authority.crt", "tls/server.crt", "tls/server.key"]
    assert tree(gns) == [*(f"authority/{name}" for name in names), "opengnssd.toml", *tls]
    assert all((gns / name).stat().st_mode & 0o777 == 0o600 for name in ("authority/authority.key", "tls/server.key"))
    config = gns / "opengnssd.toml"
    text = config.read_text().replace('"[::]:4864"', f'"{address}:{https}"')
    config.write_text(text.replace("[server]\n", f'[server]\nlisten = ["{address}:{port}"]\n'))
    server = Program("opengnssd", python("compass.daemons.main:server", "--config", str(config)), tmp_path / "log")
    server.start()
    try:
        keys = ["--authority", str(gns / "authority")]
        alice = run(home, "init", "admin", "alice", "--server", f"{address}:{port}", *keys)
        assert alice.returncode == 0 and alice.stdout.splitlines()[-1] == "Next: opengnsadmin doctor"
        eventually(lambda: run(home, "status").returncode == 0, "the administrator can ask")
        token = run(home, "host", "invite", "web1.example.net", "--output", str(tmp_path / "web1.join"))
        assert token.returncode == 0, token
        joined = subprocess.run(
            [
                *python("compass.daemons.main:host", "join", "--token-file", str(tmp_path / "web1.join")),
                *("--config", str(machine / "opengnscd.toml"), "--state-directory", str(machine / "state")),
            ],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert joined.returncode == 0, joined
    finally:
        assert server.stop() == 0


def test_a_host_for_a_server_that_does_not_sign(tmp_path: Path) -> None:
    """The directory is brought to the host; the daemon accepts it as it is."""
    assert run(tmp_path, "init", "server", "gns1", "--directory", str(tmp_path / "gns")).returncode == 0
    assert "authority =" not in (tmp_path / "gns" / "opengnssd.toml").read_text().partition("[tls]")[0]
    keys = str(tmp_path / "gns" / "authority")
    target = tmp_path / "web1"
    made = run(tmp_path, "init", "host", "web1", "--server", "gns1", "--authority", keys, "--directory", str(target))
    assert made.returncode == 0, made
    assert tree(target) == ["opengnscd.toml", "tls/authority.crt", "tls/host.crt", "tls/host.key"]
    for program, file in (("host", target / "opengnscd.toml"), ("server", tmp_path / "gns" / "opengnssd.toml")):
        checked = subprocess.run(
            python(f"compass.daemons.main:{program}", "--config", str(file), "--check"),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert checked.returncode == 0, checked


@pytest.mark.parametrize("taken", ["opengnssd.toml", "tls/server.key", "tls/authority.crt"])
def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path, taken: str) -> None:
    """A file that exists stops all of them."""
    path = tmp_path / "gns" / taken
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    made = run(tmp_path, "init", "server", "gns1", "--directory", str(tmp_path / "gns"))
    assert made.returncode == 5 and f"{path} exists, and nothing is overwritten" in made.stderr
    assert tree(tmp_path / "gns") == [taken] and path.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("init", "host", "web1", "--server", "gns1", "--authority", "nowhere"), 1, "cannot read the authority"),
        (("init", "host", "web1", "--authority", "keys"), 2, "name at least one server"),
        (("init", "server", "not a name"), 6, "is not a valid name"),
        (("init", "server", "gns1", "--directory", "file/below"), 1, "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], status: int, words: str
) -> None:
    """The text says what to do."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    if "--directory" not in arguments:
        arguments = (*arguments, "--directory", str(tmp_path / "new"))
    made = run(tmp_path, *arguments)
    assert made.returncode == status and words in made.stderr, made
    assert tree(tmp_path) == ["file"]


def test_it_asks_on_a_terminal(tmp_path: Path) -> None:
    """The program asks for what no option says; an interruption leaves nothing."""
    arguments = python(ADMIN, "init", "server", "gns1", "--directory", str(tmp_path / "gns"))
    for answers, status in ((["192.0.2.1", "", "y"], 0), (["192.0.2.1", "\x03"], 130)):
        directory = tmp_path / ("gns" if status == 0 else "other")
        pid, terminal = pty.fork()
        if pid == 0:
            own = environment() | {"HOME": str(tmp_path)}
            command = [*arguments[:-1], str(directory)]
            os.execvpe(command[0], command, own)
        shown = b""
        for answer in answers:
            # A prompt is complete when nothing follows it.
            while not shown.rstrip().endswith(b":") or select.select([terminal], [], [], 0.5)[0]:
                shown += os.read(terminal, 1000)
            shown = b""
            os.write(terminal, answer.encode() + (b"" if answer == "\x03" else b"\n"))
        try:
            while os.read(terminal, 1000):
                pass
        except OSError:
            pass
        _, result = os.waitpid(pid, 0)
        os.close(terminal)
        assert os.waitstatus_to_exitcode(result) == status, answers
        assert directory.exists() == (status == 0)
    text = (tmp_path / "gns" / "opengnssd.toml").read_text()
    assert f'authority = "{tmp_path / "gns" / "authority"}"' in text


def test_json_names_the_files_and_the_next_command(tmp_path: Path) -> None:
    """A program gets one document, and nothing is asked."""
    made = run(tmp_path, "init", "server", "gns1", "--directory", str(tmp_path / "gns"), "--json")
    assert '"next": "opengnssd --config' in made.stdout and '"type": "written"' in made.stdout
