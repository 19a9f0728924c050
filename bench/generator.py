"""The load generator `load.c` from Python: templates of what to send, plans, and a running load.

The generator knows framings and no messages: a template is octets with the places where it writes a number of its own
(which connection, how many-th request). So one program in C loads every system, and costs less than any of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(__file__).with_name("load.c")
PROGRAM = ROOT / "build" / "bench" / "load"
PATIENCE_SECONDS = 240.0
"""Time limit for a load to be ready or done: on a slow machine 10,000 full handshakes take a Python server tens of
seconds."""

Of = Literal["index", "count", "total"]


class LoadFailed(Exception):
    """The generator ended, and what it said."""


@dataclass
class Template:
    """Octets to send, and where numbers are written into them."""

    octets: bytes
    patches: list[str] = field(default_factory=list)

    def number(self, mark: bytes, of: Of, start: int = 0, step: int = 1, *, decimal: bool = False) -> Template:
        """Write `start + step * of` over the one place where `mark` stands: in network order, or as digits."""
        at = self.octets.index(mark)
        assert self.octets.count(mark) == 1, f"{mark!r} stands {self.octets.count(mark)} times in {self.octets!r}"
        self.patches.append(f"patch {at} {len(mark)} {'dec' if decimal else 'be'} {of} {start} {step}")
        return self

    def at(self, offset: int, width: int, of: Of, start: int = 0, step: int = 1) -> Template:
        """Write a number at an offset."""
        self.patches.append(f"patch {offset} {width} be {of} {start} {step}")
        return self

    def copied(self, source: int, offset: int, width: int) -> Template:
        """Copy octets of the push that this reacts to."""
        self.patches.append(f"copy {source} {offset} {width}")
        return self


@dataclass
class Step:
    """A template, and how many units of the framing answer it."""

    template: Template
    expect: int = 1


@dataclass
class Tls:
    """A key and the certificates made for it, one a connection; key "-": the client shows none."""

    key: str
    certificates: str
    name: str = ""


@dataclass
class Plan:
    """Plan of one run of the generator; see `load.c`."""

    framing: str
    address: tuple[str, int]
    connections: int
    mode: str = "closed"
    tls: Tls | None = None
    setups: list[Step] = field(default_factory=list)
    request: Step | None = None
    writer_setups: list[Step] = field(default_factory=list)
    writer_request: Step | None = None
    reaction: Step | None = None
    heartbeat: Step | None = None
    """Octets that a session sends each `beat_seconds` of the settings while nothing is measured."""
    settings: dict[str, Any] = field(default_factory=dict)

    def write(self, directory: Path) -> Path:
        """Write the plan as files for the generator. Returns the path of the plan."""
        directory.mkdir(parents=True, exist_ok=True)
        host, port = self.address
        lines = [f"mode {self.mode}", f"framing {self.framing}", f"address {host} {port}"]
        lines.append(f"connections {self.connections}")
        lines += [f"{name} {value}" for name, value in self.settings.items()]
        if self.tls:
            lines.append(f"tls {self.tls.key} {self.tls.certificates} {self.tls.name}")
        steps = [("setup", step) for step in self.setups] + [("writer_setup", step) for step in self.writer_setups]
        single = {"request": self.request, "writer_request": self.writer_request, "reaction": self.reaction}
        single["heartbeat"] = self.heartbeat
        steps += [(name, step) for name, step in single.items() if step]
        for number, (name, step) in enumerate(steps):
            path = directory / f"{number}.octets"
            path.write_bytes(step.template.octets)
            lines += [f"{name} {path} {step.expect}", *step.template.patches]
        plan = directory / "plan"
        plan.write_text("\n".join(lines) + "\n")
        return plan


def missing() -> list[str]:
    """Return Debian's names of the packages that the generator needs and that this machine does not have."""
    needed = [] if shutil.which("cc") else ["gcc", "libc6-dev"]
    if not any(Path(place, "openssl/ssl.h").exists() for place in ("/usr/include", "/usr/local/include")):
        needed.append("libssl-dev")
    return needed


def build() -> None:
    """Compile the generator, when it is older than its source."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= SOURCE.stat().st_mtime:
        return
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", "-o", str(PROGRAM), str(SOURCE), "-lssl", "-lcrypto"], check=True)


class Load:
    """A running generator: `ready`, then `go`, then `result`; a context manager that ends it."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        file = plan.write(directory)
        self._name = directory.name
        self._errors = (directory / "errors").open("w+")
        self._process = subprocess.Popen(
            [str(PROGRAM), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ready(self) -> dict[str, Any]:
        """Wait until every connection is set up."""
        return self._line()

    def go(self) -> None:
        """Begin with what is measured. Raises LoadFailed with the generator's words when it has ended since."""
        assert self._process.stdin
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._line()

    def result(self) -> dict[str, Any]:
        """Return the measured figures."""
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            self._process.wait()
            self._errors.seek(0)
            why = self._errors.read().strip() or f"the generator ended with {self._process.returncode}"
            raise LoadFailed(f"{self._name}: {why}")
        result: dict[str, Any] = json.loads(line)
        return result
