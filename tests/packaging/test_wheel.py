"""The content of the wheel, and that it works without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import dns.message
import dns.query
import pytest

import compass
from tests.e2e.processes import Program, eventually
from tests.packaging.installed import ROOT, built, installed, names
from tests.support.installation import Installation, free_base, free_port

CONTRIB = ROOT / "contrib"
PROGRAMS = ("opengns", "opengnssd", "opengnscd", "opengnsc", "opengnsadmin")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout."""
    return built(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def bin_(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel."""
    return installed(wheel, tmp_path_factory.mktemp("installed"))


def said(*command: str | Path, **environment: str) -> str:
    """Return what a command prints, outside of the checkout."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run([str(word) for word in command], cwd="/", env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_that_programs_need_is_in_the_wheel(wheel: Path) -> None:
    """Every module, template and migration of the checkout; pages, completions and units as data; nothing of tests."""
    there = names(wheel)
    for path in (ROOT / "compass").rglob("*"):
        if path.suffix in {".py", ".j2", ".typed", ".html", ".css", ".js", ".svg"}:
            assert path.relative_to(ROOT).as_posix() in there
    assert "twisted/plugins/opengns_plugin.py" in there
    data = {name.partition(".data/data/")[2] for name in there}
    assert {f"share/man/man1/{program}.1" for program in PROGRAMS} <= data
    assert {f"share/opengns/systemd/{unit.name}" for unit in (ROOT / "contrib/systemd").iterdir()} <= data
    tops = {name.split("/")[0].partition("-")[0] for name in there}
    assert tops == {"compass", "twisted", "opengns_compass"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_run_without_the_checkout(bin_: Path, program: str) -> None:
    """Each is there, and is that of the wheel."""
    assert program in said(bin_ / program, "--help")
    if program != "opengnsadmin":
        assert said(bin_ / program, "--version").startswith(f"{program} {compass.__version__}\nwith Python 3.")
    where = said(bin_ / "python", "-c", "import compass; print(compass.__file__)")
    assert where.startswith(str(bin_.parent))


@pytest.mark.parametrize("name", ["opengnssd", "opengnscd"])
def test_twistd_knows_the_daemons(bin_: Path, tmp_path: Path, name: str) -> None:
    """`twistd opengnssd --config FILE` and `twistd opengnscd --config FILE` serve, and say what is wrong."""
    installation = Installation(tmp_path)
    config = installation.server_config() if name == "opengnssd" else installation.host_config()
    twistd = [str(bin_ / "python"), "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
    try:
        daemon = installation.start([*twistd, name, "--config", str(config)], PYTHONPATH="")
        daemon.wait_for(f"{name} listens on")
        daemon.end()
        assert f"{name} has stopped" in daemon.log
        wrong = installation.start([*twistd, name, "--config", str(tmp_path / "no.toml")], PYTHONPATH="")
        assert wrong.status() == 1
        assert f"no.toml: cannot be read: No such file or directory\n{name}: name the file with --config" in wrong.log
        assert "Traceback" not in wrong.log
    finally:
        installation.stop()


def test_pages_and_completions_are_current(tmp_path: Path) -> None:
    """The pages say what the programs say; `make man` writes the pages again."""
    # In a process of its own: Click keeps with each command what its help was first asked for with.
    subprocess.run([sys.executable, CONTRIB / "make_pages.py", tmp_path], check=True)
    folders = ("man", "completions")
    made, here = (
        {path.relative_to(top) for name in folders for path in (top / name).iterdir()} for top in (tmp_path, CONTRIB)
    )
    assert made == here
    for file in made:
        current = (tmp_path / file).read_text()
        assert (CONTRIB / file).read_text() == current, f"contrib/{file} is not current: make man"


def test_bash_completes_the_commands(bin_: Path) -> None:
    """The completion that comes along, in a real bash."""
    file = bin_.parent / "share/bash-completion/completions/opengnsadmin"
    script = f". {file}; COMP_WORDS=(opengnsadmin undr); COMP_CWORD=1; _opengnsadmin_completion opengnsadmin undr ''; "
    path = f"{bin_}:{os.environ['PATH']}"
    assert said("bash", "-c", script + 'echo "${COMPREPLY[@]}"', PATH=path).split() == ["undrain"]


FIRST_SECONDS = 60.0
"""Time from an empty environment to the first service of one's own that is found in three ways."""


def test_first_own_service_in_three_commands(wheel: Path, tmp_path: Path) -> None:
    """After `pip install`: development mode, the service, the lookup; no file is written by the person who types.

    The time includes the installation of the wheel into an empty environment, without the download of its libraries.
    """
    typed: list[str] = []
    began = time.monotonic()
    bin_ = installed(wheel, tmp_path)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OPENGNS", "PYTHONPATH"))}
    own |= {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "PATH": f"{bin_}:{os.environ['PATH']}"}
    base, port = free_base(), free_port()
    running: list[Program] = []

    def type_(command: str) -> Program:
        typed.append(command)
        # As a terminal does: each command in a shell, which is replaced by the program.
        program = Program(command, ["bash", "-c", f"unset PYTHONPATH; exec {command}"], tmp_path / str(len(typed)), own)
        running.append(program)
        program.start()
        return program

    try:
        first = type_(f"opengns dev --port {base}")
        eventually(lambda: "Try this in another terminal" in first.log.read_text(), "development mode serves")
        type_(f"opengnsc run hello.web --port {port} -- python3 -m http.server {port} --bind 127.0.0.1")
        eventually(lambda: "hello.web" in _api(base), "the service is registered")
        found = type_("opengnsc resolve hello.web")
        assert (found.ended(), found.log.read_text()) == (0, f"127.0.0.1:{port}\n")
        assert len(typed) <= 3
        with urllib.request.urlopen(f"http://127.0.0.1:{base + 3}/v1/resolve/hello.web") as answer:
            assert [peer["port"] for peer in json.load(answer)["listeners"]] == [port]
        query = dns.message.make_query("hello.web.gns.", "SRV")
        assert f" {port} " in dns.query.udp(query, "127.0.0.1", 5, base - 10).answer[0].to_text()
        assert time.monotonic() - began < FIRST_SECONDS
        assert {path.name for path in tmp_path.iterdir()} == {"venv", "state", "1", "2", "3"}
    finally:
        for program in reversed(running):
            program.clear_away()


def _api(base: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{base + 3}/v1/status") as answer:
        shown = json.load(answer)
    return str([one["service"] for one in shown["registrations"] if one["state"] == "registered"])
