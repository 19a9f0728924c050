"""A shell that types the commands of a page, and the comparison of output with the page.

Values that differ in each run count as equal: times, durations, ids, digests, process numbers and widths of columns.
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
"""Time limit of a command, and of its repetitions until the output is right."""
LOOK_SECONDS = 0.1
HOME = "/home/alice"
"""Home directory in the pages."""
LOOPBACK = "127.0.0."
"""Network of the addresses in the pages. A test replaces it, so that several tests can run at the same time."""

JOB_ENDED = re.compile(r"(.*: line \d+: +\d+ (Killed|Terminated)\s|\[\d+\][ +-]+ (Killed|Terminated|Done|Exit)\s)")
"""Line in which bash reports the end of a background job, at another moment than in a terminal."""

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
    """Return a line with the values that differ in each run replaced by their names."""
    for pattern, name in ALIKE:
        line = re.sub(pattern, name, line)
    return " ".join(line.split())


def matches(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Return whether output agrees with a page."""
    wanted = [line.strip() if line.strip() == "..." else alike(line) for line in expected]
    lines = [alike(line) for line in actual]
    pattern = "".join(
        r"(?:[^\n]*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", "[^\n]*") + "\n" for line in wanted
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


class Shell:
    """A bash for a whole page, in a home of its own; as a context manager it ends all processes that it started."""

    def __init__(self, home: Path, path: str, network: str = LOOPBACK) -> None:
        """Start bash with this PATH; `network` replaces LOOPBACK."""
        self.home = home
        self._network = network
        self._said = home.parent / f"{home.name}.output"
        self._said.touch()
        environment = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "COLUMNS": "110", "TERM": "dumb"}
        if network != LOOPBACK:
            environment["OPENGNS_DEV_ADDRESS"] = f"{network}1"
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
        # Each job is a group of processes: the signal reaches all processes of it.
        self._write("for job in $(jobs -p); do kill -9 -$job; done 2>/dev/null; exit")
        try:
            self._shell.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()
        self._out.close()

    def write_file(self, name: str, text: str) -> None:
        """Write a file into the current directory of the shell, as a reader does with an editor."""
        where = Path(self.typed("pwd")[0].replace(HOME, str(self.home)))
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(self._theirs(text))

    def typed(self, command: str) -> list[str]:
        """Type a command and return its output, line by line."""
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
    """Type a block's commands, with `again` until the output is that of the page. Returns them with real output."""
    played = []
    for command in block.commands:
        until = time.monotonic() + PATIENCE_SECONDS
        output = shell.typed(command.text)
        while again and not matches(command.output, output) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
            output = shell.typed(command.text)
        played.append(Command(command.text, output))
    return played
