"""The scene of `make run`, played once: all programs as processes, over TLS, with real kills."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

ROOT = Path(__file__).parents[2]


def play(directory: Path) -> subprocess.CompletedProcess[str]:
    """The scene in a directory."""
    command = [sys.executable, "-m", "examples.scene", "--once", "--directory", str(directory)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def processes_of(directory: Path) -> list[str]:
    """The command lines that name the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


@pytest.mark.slow
def test_every_step_of_the_scene_is_seen(tmp_path: Path) -> None:
    """Registration, death, report, loss and backup, recovery, lookups without a server; nothing is left running."""
    played = play(tmp_path / "scene")
    assert played.returncode == 0, played.stdout + played.stderr
    assert "All 9 steps were seen" in played.stdout
    assert processes_of(tmp_path) == []


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    """The scene empties its directory; it must be its own."""
    (tmp_path / "thesis.txt").write_text("three years")
    played = play(tmp_path)
    assert played.returncode == 1
    assert "holds something else" in played.stdout
    assert (tmp_path / "thesis.txt").read_text() == "three years"


@pytest.mark.slow
def test_the_console_of_the_scene(tmp_path: Path) -> None:
    """`make console`: the address and the tokens that are printed open what they say, while things happen."""
    command = [sys.executable, "-u", "-m", "examples.scene", "--console", "--directory", str(tmp_path / "scene")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as scene:
        assert scene.stdout is not None
        said = ""
        while "northwest.openuss starts" not in said:
            line = scene.stdout.readline()
            assert line, said
            said += line
        url = re.findall(r"https://\S+/console/", said)[0]
        context = ssl.create_default_context(cafile=str(tmp_path / "scene/tls/authority.crt"))
        for role, word in (("admin", "administrator"), ("viewer", "only looks")):
            token = re.findall(rf"{word}\s+(\S+)", said)[0]
            asked = Request(url.replace("/console/", "/v1/who"), headers={"Authorization": f"Bearer {token}"})
            with urlopen(asked, context=context, timeout=20) as answer:
                assert json.load(answer)["role"] == role
        with urlopen(url, context=context, timeout=20) as answer:
            assert b"<title>compass</title>" in answer.read()
        scene.send_signal(signal.SIGTERM)
        scene.communicate(timeout=60)
    assert processes_of(tmp_path) == []
