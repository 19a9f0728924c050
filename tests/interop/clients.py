"""The clients in other languages: programs that print one line of JSON for each step of a session."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.interop.world import SERVICE, WATCHED, World

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
TIMEOUT_SECONDS = 20.0
PORT = 2029


def missing(interpreter: str, *libraries: str) -> str:
    """Return why a client cannot run here; "": it can. `libraries` are arguments with which the interpreter loads
    them."""
    found = shutil.which(interpreter)
    if found is None:
        return f"{interpreter} is not installed"
    if libraries and subprocess.run([found, *libraries, "-e1"], capture_output=True).returncode:
        return f"{interpreter} lacks {', '.join(libraries)}"
    return ""


class Language(NamedTuple):
    """A client: its interpreter, its files, and what must be there for it."""

    interpreter: str
    program: str
    modules: tuple[str, ...] = ()
    """Files of the client in addition to the program, relative to this folder."""
    libraries: tuple[str, ...] = ()
    """Arguments with which the interpreter loads the libraries that the client needs."""
    lines_max: int = 0
    """Lines of code in all files."""
    compares_digests: bool = False
    """True: the client compares its view with the digests of bookmarks."""

    def start(self, world: World, credential: str = "") -> Client:
        """Start a session of the client."""
        arguments = {
            "server": f"127.0.0.1:{world.port}",
            "ca": world.files["authority.crt"],
            "cert": world.files["host.crt"],
            "key": world.files["host.key"],
            "service": SERVICE,
            "credential": credential or world.credential,
            "watch": WATCHED,
            "address": "127.0.0.1",
            "port": PORT,
        }
        options = [str(part) for name, value in arguments.items() for part in (f"--{name}", value)]
        command = [self.interpreter, str(FOLDER / self.program), *options]
        return Client(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


PERL_MODULES = ("Announcement", "Digest", "End", "MessagePack", "Protocol", "Session", "Vectors", "View")
LANGUAGES = {
    "node": Language("node", "client.mjs", lines_max=250),
    "perl": Language(
        "perl",
        "client.pl",
        modules=tuple(f"OpenGNSP/{name}.pm" for name in PERL_MODULES),
        libraries=("-MJSON::PP", "-MIO::Socket::SSL"),
        lines_max=900,
        compares_digests=True,
    ),
}


class Client:
    """A running client."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def step(self, name: str) -> dict[str, Any]:
        """Return the next step, which must have that name."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate(timeout=TIMEOUT_SECONDS)
            pytest.fail(f"the client ended before {name}: {errors}")
        step: dict[str, Any] = json.loads(line)
        assert step.pop("step") == name, (name, step)
        return step

    def notice(self) -> dict[str, Any]:
        """Return the next notice, which the client must acknowledge."""
        notice = self.step("notice")
        assert self.step("acknowledged") == {"revision": notice["revision"]}
        return notice

    def end(self) -> tuple[int, str]:
        """Return the exit status and the errors."""
        _, errors = self.process.communicate(timeout=TIMEOUT_SECONDS)
        return self.process.returncode, errors
