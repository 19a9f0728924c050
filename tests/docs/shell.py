"""A shell that types what a page says, and the comparison of what comes back.

What is different each time counts as the same: times, durations, ids, digests, process numbers and widths of columns.
`...` in a page stands for anything within a line, and on a line of its own for any lines.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.docs.pages import Block, Command

PATIENCE_SECONDS = 60.0
"""For a command that comes back, and for one that is repeated until it is right."""
LOOK_SECONDS = 0.1
HOME = "/home/alice"
"""Where the pages say that their directories are."""
LOOPBACK = "127.0.0."
"""The addresses of the pages. A test may have others in their place, so that several can run beside each other."""

JOB_ENDED = re.compile(r"(.*: line \d+: +\d+ (Killed|Terminated)\s|\[\d+\][ +-]+ (Killed|Terminated|Done|Exit)\s)")
"""bash tells of a background job that has ended, at another moment than a terminal shows it."""

ALIKE = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?", "TIME"),
    (r"\b\d{4}-\d\d-\d\d\b", "DAY"),
    (r"\b\d\d:\d\d:\d\d(\.\d+)?Z?\b", "TIME"),
    (r"\b([0-9A-F]{2}:){8,}[0-9A-F]{2}\b", "PRINT"),
    (r"\b[0-9a-f]{12,}\b", "ID"),
    (r"\b[0-9]{15,}\b", "ID"),
    (r"\b(pid|epoch|process) \d+", r"\1 N"),
    (r"\b\d+(\.\d+)? ?(ms|us|s|min|h|d)\b", "SPAN"),
    (r"SPAN( SPAN)+", "SPAN"),
    (r"\b\d+(\.\d+)?( octets| kB| MB)", "SIZE"),
)


def alike(line: str) -> str:
    """A line without what is different each time."""
    for pattern, name in ALIKE:
        line = re.sub(pattern, name, line)
    return " ".join(line.split())


def matches(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Whether output is what a page says."""
    wanted = [line.strip() if line.strip() == "..." else alike(line) for line in expected]
    lines = [alike(line) for line in actual]
    pattern = "".join(
        r"(?:[^\n]*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", "[^\n]*") + "\n" for line in wanted
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


class Shell:
    """One bash for a whole page, in a home of its own; a context manager that ends all that was started."""

    def __init__(self, home: Path, path: str, network: str = LOOPBACK) -> None:
        """`path`: its PATH; `network`: what stands for LOOPBACK."""
        self.home = home
        self._network = network
        self._said = home.parent / f"{home.name}.output"
        self._said.touch()
        environment = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "COLUMNS": "110", "TERM": "dumb"}
        for name in ("SSL_CERT_FILE", "PIP_CERT", "PIP_CONFIG_FILE"):
            if name in os.environ:
                environment[name] = os.environ[name]
        self._out = self._said.open("ab")
        self._read = 0
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=self._out,
            cwd=home,
            env=environment,
            start_new_session=True,
        )
        # Jobs have numbers and aliases count, as in a terminal.
        self._write("set -m; shopt -s expand_aliases")

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        # Each job is a group of processes: what it started goes with it.
        self._write("for job in $(jobs -p); do kill -9 -$job; done 2>/dev/null; exit")
        try:
            self._shell.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()
        self._out.close()

    def write_file(self, name: str, text: str) -> None:
        """What a reader does with an editor, where the shell is now."""
        where = Path(self.typed("pwd")[0].replace(HOME, str(self.home)))
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(self._theirs(text))

    def typed(self, command: str) -> list[str]:
        """The lines that come back of one command."""
        mark = secrets.token_hex(8)
        self._write(f"{self._theirs(command)}\nprintf '%s\\n' {mark}")
        until = time.monotonic() + PATIENCE_SECONDS * 5
        while True:
            data = self._said.read_bytes()[self._read :].decode(errors="replace")
            if f"{mark}\n" in data:
                self._read += len(data.encode())
                lines = data.partition(mark)[0].splitlines()
                return [self._ours(line).rstrip() for line in lines if not JOB_ENDED.match(line)]
            assert self._shell.poll() is None, f"the shell has ended at: {command}\n{data}"
            assert time.monotonic() < until, f"it does not come back: {command}\n{data}"
            time.sleep(0.005)

    def _write(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(text.encode() + b"\n")
        self._shell.stdin.flush()

    def _theirs(self, text: str) -> str:
        return text.replace(LOOPBACK, self._network).replace(HOME, str(self.home))

    def _ours(self, text: str) -> str:
        return text.replace(str(self.home), HOME).replace(self._network, LOOPBACK)


def play(shell: Shell, block: Block, again: bool = False) -> list[Command]:
    """Type a block's commands; each with what came back. With `again` until it is what the page says."""
    played = []
    for command in block.commands:
        until = time.monotonic() + PATIENCE_SECONDS
        output = shell.typed(command.text)
        while again and not matches(command.output, output) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            output = shell.typed(command.text)
        played.append(Command(command.text, output))
    return played
