"""Secrets, where they are and where they are not: a whole session on real processes, and then a look everywhere."""

from __future__ import annotations

import http.client
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compass.client.core.blocking_api import ApiProblem
from compass.model.host_api import LocalRegister
from compass.model.replies import LogEntries
from compass.model.requests import ReadLog
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import Program, environment, eventually, python

WRONG = "wrong-but-secret-all-the-same-4b1d"
PASSWORD = "database-password-9f3a"
TWO_IN_ONE = "first-secret-77aa second-secret-88bb"
HELD_BY = {"registrations.json", "good.token", "wrong.token", "two.token"}
"""Files that hold a token because that is what they are for; their modes are looked at."""


class Watched:
    """Runs commands of the project and remembers what they said and what others could see of them."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.said: list[str] = []
        self.seen: list[str] = []

    def look(self) -> None:
        """Return the command lines of all processes, as every user of the machine sees them."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.seen.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
            except OSError:
                continue

    def command(self, entry: str, *arguments: str, **more: str) -> str:
        """Return the output of a command, both streams; whatever its status."""
        command = python(entry, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, env=environment() | more, timeout=60)
        self.said.append(done.stdout + done.stderr)
        return self.said[-1]

    def everything(self, leave_out: set[str]) -> dict[str, str]:
        """All that was said, seen and written, by where."""
        found = {f"what command {n} said": text for n, text in enumerate(self.said)}
        found |= {f"command line {n}": text for n, text in enumerate(self.seen)}
        for path in self.deployment.directory.rglob("*"):
            if path.is_file() and path.name not in leave_out and path.suffix != ".key":
                found[str(path)] = path.read_bytes().decode("latin-1")
        return found


def verbose(program: Program) -> None:
    """Log what happens to each session, too."""
    program._command.append("--verbose")


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Start the daemons with the least careful umask."""
    before = os.umask(0)
    yield
    os.umask(before)


def use(deployment: Deployment, watched: Watched) -> tuple[Host, str]:
    """Do what people do to a deployment, right and wrong. Returns the host, and the token that is good."""
    host = deployment.add_host("storage")
    host.in_session()
    host.daemon.stop()
    verbose(host.daemon)
    host.daemon.start()
    host.in_session()
    files = deployment.directory
    token = deployment.token("chinaserver.openuss")
    good = write(files / "good.token", token)
    wrong = write(files / "wrong.token", WRONG)
    two = write(files / "two.token", TWO_IN_ONE)
    place = f"unix:{host.socket}"
    client = "compass.cli.main:main"
    for file in (good, wrong, two):
        port = str(free_port(host.address))
        watched.command(client, "--api", place, "register", "chinaserver.openuss", port, "--credential-file", str(file))
    for secret in (WRONG, TWO_IN_ONE, token + "x"):
        with pytest.raises(ApiProblem) as problem:
            host.api.register(LocalRegister("chinaserver.openuss", 80, secret))
        watched.said.append(str(problem.value))
    with pytest.raises(ApiProblem) as problem:
        host.api.register(LocalRegister("no.such", 80, token))
    watched.said.append(str(problem.value))
    # The secret in a place where it does not belong, as people who are in a hurry put it.
    for body in ({"service": "chinaserver.openuss", "port": token, "credential": 5}, {"token": 1, "service": "a.b"}):
        watched.said.append(raw(host, json.dumps(body)))
    run = deployment.run(host, "chinaserver.openuss")
    watched.look()
    with pytest.raises(ApiProblem) as problem:
        deployment.register(host, "chinaserver.openuss", weight=70_000)
    watched.said.append(str(problem.value))
    os.kill(run.pid, 9)
    eventually(lambda: not run.program.runs, "opengnsc run has ended")
    watched.look()
    return host, token


def raw(host: Host, body: str) -> str:
    """Return what the API answers to a body."""
    connection = http.client.HTTPConnection(host.address, host.port, timeout=10)
    connection.request("POST", "/v1/register", body, {"Content-Type": "application/json"})
    return connection.getresponse().read().decode()


def test_no_secret_in_logs_process_lists_and_error_texts(deploy: Deploy) -> None:
    """Tokens, good and wrong, are in no log, no table, no answer and no command line; nor are private keys."""
    deployment = deploy()
    verbose(deployment.server)
    deployment.start()
    watched = Watched(deployment)
    host, token = use(deployment, watched)
    log = deployment.ask(ReadLog("security", 0, 1000), LogEntries)
    assert sum("not a credential" in entry.reason for entry in log.entries) >= 3  # type: ignore[union-attr]
    watched.said += [repr(log), repr(deployment.ask(ReadLog("administration", 0, 1000), LogEntries))]
    host.daemon.stop()
    deployment.server.stop()
    secrets = [token, WRONG, PASSWORD, *TWO_IN_ONE.split()]
    keys = [path.read_text().splitlines()[1] for path in deployment.directory.glob("*.key")]
    assert len(keys) >= 3
    everything = watched.everything(HELD_BY)
    assert any(path.endswith("store.sqlite") for path in everything)
    for where, text in everything.items():
        for secret in (*secrets, *keys):
            assert secret not in text, f"{secret[:12]}... in {where}"
    # The look is worth something: what every user may read is found in the same places.
    assert any("chinaserver.openuss" in text for text in watched.seen)
    assert any("chinaserver.openuss" in text for where, text in everything.items() if where.endswith("opengnssd.log"))


def test_a_database_password_is_told_to_nobody(deploy: Deploy, tmp_path: Path) -> None:
    """Not when the database does not answer, and not when its URL is wrong."""
    deployment = deploy()
    config = (deployment.directory / "opengnssd.toml").read_text()
    watched = Watched(deployment)
    for url in (f"postgresql://gns:{PASSWORD}@127.0.0.1:1/gns", f"mysql://gns:{PASSWORD}@localhost/x", PASSWORD):
        path = write(tmp_path / "opengnssd.toml", config.replace(deployment.store, url))
        said = watched.command("compass.daemons.main:server", "--config", str(path))
        assert "opengnssd" in said and PASSWORD not in said, said


def test_private_files_are_private_whatever_the_umask(deploy: Deploy, open_umask: None) -> None:
    """Keys, credentials, catalogues and the store are their owner's alone, also when no option asks for it."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("storage")
    host.in_session()
    outcome = deployment.register(host, "chinaserver.openuss")
    assert outcome.state == "up"
    host.saved()
    output = deployment.directory / "new.token"
    deployment.opengnsadmin("credential", "add", "northeast.openuss", "--output", str(output))

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    private = [
        *deployment.directory.glob("*.key"),
        *deployment.directory.glob("store.sqlite*"),
        *(host.directory / "state").iterdir(),
        output,
    ]
    names = {path.name for path in private}
    assert {"store.sqlite", "store.sqlite-wal", "registrations.json", "catalogue.msgpack", "alice.key"} <= names
    assert {path.name: oct(mode(path)) for path in private if mode(path) != 0o600} == {}
    assert mode(host.directory / "state") == 0o700
    # Every user of the machine may ask; what a program may change is its credential's to say.
    assert mode(host.socket) == 0o666


def test_a_crash_leaves_no_memory_behind(deploy: Deploy) -> None:
    """Neither daemon may write a core file or hand its memory to a collector, whatever it was started with."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("storage")
    host.in_session()
    for program in (deployment.server, host.daemon):
        limits = Path(f"/proc/{program.pid}/limits").read_text()
        soft = next(line.split()[4] for line in limits.splitlines() if line.startswith("Max core file size"))
        assert int(soft) <= 1, program.name


def test_a_token_on_the_command_line_is_warned_of() -> None:
    """The option exists, and the help says what it means."""
    said = subprocess.run(
        [sys.executable, "-c", "from compass.cli.main import main; main()", "register", "--help"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    ).stdout
    assert "can see it in the list of processes" in " ".join(said.split())
