"""What is in the wheel, and that it works without the checkout."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

import compass
from tests.assembly.installation import Installation
from tests.packaging.installed import ROOT, built, installed, names

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
    """What a command prints, outside of the checkout."""
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
    """They say what the programs say; `make man` writes them anew."""
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "contrib/make_pages.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    pages: dict[str, str] = made.pages()
    for file, text in pages.items():
        path = ROOT / "contrib" / file
        assert path.exists() and path.read_text() == text, f"contrib/{file} is not current: make man"
    here = {
        path.relative_to(ROOT / "contrib").as_posix()
        for folder in ("man", "completions")
        for path in (ROOT / "contrib" / folder).iterdir()
    }
    assert here == set(pages)


def test_bash_completes_the_commands(bin_: Path) -> None:
    """The completion that comes along, in a real bash."""
    file = bin_.parent / "share/bash-completion/completions/opengnsadmin"
    script = f". {file}; COMP_WORDS=(opengnsadmin undr); COMP_CWORD=1; _opengnsadmin_completion opengnsadmin undr ''; "
    path = f"{bin_}:{os.environ['PATH']}"
    assert said("bash", "-c", script + 'echo "${COMPREPLY[@]}"', PATH=path).split() == ["undrain"]
