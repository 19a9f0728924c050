"""The content of the wheel, and that it works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compass
from tests.packaging.installed import ROOT, built, installed, names
from tests.support.installation import Installation

CONTRIB = ROOT / "contrib"
PROGRAMS = ("opengnssd", "opengnscd", "opengnsc", "opengnsadmin")


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
        assert said(bin_ / program, "--version") == f"{program} {compass.__version__}\n"
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
