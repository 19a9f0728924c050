"""The Containerfile, as far as it goes without an image: what it says, that what it names exists, and its RUN steps."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

from tests.packaging.installed import ROOT

FILE = ROOT / "contrib/container/Containerfile"
KNOWN = {
    *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME"),
    *("STOPSIGNAL", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"),
}


def instructions() -> list[tuple[str, str, str]]:
    """Stage, instruction and the rest, in order."""
    found, stage = [], ""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", FILE.read_text()))
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            image, _, stage = rest.partition(" AS ")
            assert image and stage, line
        found.append((stage, word, rest))
    return found


def test_each_stage_is_known_and_ends_as_somebody_without_rights() -> None:
    """Stages are made of images with a tag or of stages before; daemons run as a number, not as root."""
    stages: list[str] = []
    for stage, word, rest in instructions():
        assert word in KNOWN, word
        if word == "FROM":
            image = rest.partition(" AS ")[0]
            assert image in stages or re.fullmatch(r"[\w./-]+:[\w.-]+", image)
            stages.append(stage)
        if word == "COPY" and (source := re.search(r"--from=(\S+)", rest)):
            assert source[1] in stages
    users = [rest for stage, word, rest in instructions() if word == "USER" and stage == "base"]
    assert users == ["4863:4863"]
    assert stages[-2:] == ["opengnssd", "opengnscd"]


def test_what_is_copied_is_there_and_is_all_that_a_build_needs() -> None:
    """Every path of a COPY from the checkout exists, and setup.cfg names nothing that is not copied."""
    copied = []
    for _, word, rest in instructions():
        if word == "COPY" and "--from" not in rest:
            copied += shlex.split(rest)[:-1]
    assert all((ROOT / path).exists() for path in copied)
    for named in re.findall(r"(?:contrib|examples)/[\w./*-]+|README.md|LICENSE", (ROOT / "setup.cfg").read_text()):
        assert any(named.startswith(path) for path in copied), f"{named} is not copied"


def test_what_is_run_in_a_container_can_be_read() -> None:
    """Commands are lists, programs are ours, the Python among them compiles, and the shell lines have a good syntax."""
    for stage, word, rest in instructions():
        if word == "ENTRYPOINT":
            assert json.loads(rest) == [stage]
        if word == "HEALTHCHECK":
            options, _, command = rest.partition(" CMD ")
            assert {option.partition("=")[0] for option in options.split()} >= {"--interval", "--timeout"}
            program, *arguments = json.loads(command)
            if program == "python":
                ast.parse(arguments[1])
            else:
                assert [program, *arguments] == ["opengnsc", "status"]
        if word == "RUN":
            assert shlex.split(rest)


def test_its_steps_make_a_wheel(tmp_path: Path) -> None:
    """The wheel stage, played on this machine: what it copies is enough for the RUN step that builds."""
    import shutil
    import subprocess
    import sys

    source, made = tmp_path / "src", tmp_path / "dist"
    source.mkdir()
    steps = [(word, rest) for stage, word, rest in instructions() if stage == "wheel"]
    for word, rest in steps:
        if word == "COPY":
            *paths, target = shlex.split(rest)
            for path in paths:
                to = source / target / path if target.endswith("/") else source / target
                to.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / path).is_dir():
                    shutil.copytree(ROOT / path, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / path, to)
    (build,) = (rest for word, rest in steps if word == "RUN" and "pip wheel" in rest)
    command = shlex.split(build.replace("python", sys.executable, 1).replace("/dist", str(made)))
    subprocess.run([*command, "--no-build-isolation", "--quiet"], cwd=source, check=True)
    assert [path.suffix for path in made.iterdir()] == [".whl"]
