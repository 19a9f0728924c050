"""A small supervisor that reads a unit file and does with a daemon what systemd does, as far as this goes without it.

It follows ExecStart=, ExecReload=, Environment=, Type=notify, WatchdogSec=, Restart=, RestartSec=,
RestartPreventExitStatus=, CapabilityBoundingSet= and NoNewPrivileges=. It changes no user, hands out no credentials,
makes no directories and no sandbox.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

from tests.e2e.processes import PATIENCE_SECONDS, eventually

UNITS = Path(__file__).resolve().parents[2] / "contrib" / "systemd"
INSTALLED = "/opt/opengns/bin/"
"""Directory in which the units find the programs."""
PASS_ON = """
import fcntl, os, sys
numbers = sys.argv[1 : sys.argv.index("--")]
copies = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in numbers]
for at, copy in enumerate(copies):
    os.dup2(copy, 3 + at)
os.environ |= {"LISTEN_FDS": str(len(copies)), "LISTEN_PID": str(os.getpid())}
command = sys.argv[sys.argv.index("--") + 1 :]
os.execvp(command[0], command)
"""
SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "min": 60.0}


def unit(path: Path) -> dict[str, list[str]]:
    """The settings of a unit, whatever section; an empty value clears what was there (systemd.syntax(7))."""
    settings: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            settings[key] = [*settings[key], value] if value else []
    return settings


def seconds(text: str) -> float:
    """systemd.time(7), of one part."""
    found = re.fullmatch(r"(\d+)(ms|s|min|)", text)
    assert found, text
    return int(found[1]) * SECONDS[found[2]]


class Supervised:
    """A daemon under its unit; a context manager."""

    sockets: tuple[socket.socket, ...] = ()
    """Sockets that a socket unit holds, and that every start gets."""

    def __init__(self, path: Path, directory: Path, command: list[str], **more: str) -> None:
        """`command` stands for ExecStart='s program; `more` for what a drop-in would say of Environment=."""
        self.unit = unit(path)
        self.name = path.stem
        self.starts = 0
        self.statuses: list[int] = []
        self._directory = directory
        self._log = directory / f"{self.name}.log"
        self._environment = dict(more)
        self._wanted = True
        self._ready = threading.Event()
        self._alive = 0.0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / f"{self.name}.notify"))
        self._socket.settimeout(0.05)
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, daemon=True)

    def __enter__(self) -> Supervised:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wanted = False
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        self._thread.join(PATIENCE_SECONDS)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._socket.close()

    @property
    def log(self) -> str:
        """Return the output of the program."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """MAINPID."""
        assert self._process is not None
        return self._process.pid

    @property
    def over(self) -> bool:
        """Return whether the supervisor has given the program up."""
        return not self._thread.is_alive()

    def ready(self) -> None:
        """Wait for READY=1 of what runs now."""
        assert self._ready.wait(PATIENCE_SECONDS), f"{self.name} is not ready:\n{self.log}"

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Something ends it; it comes back."""
        starts = self.starts
        self._ready.clear()
        os.kill(self.pid, number)
        eventually(lambda: self.starts > starts, f"{self.name} is started again")
        self.ready()

    def reload(self) -> None:
        """systemctl reload: ExecReload=, and wait until it is ready again."""
        (command,) = self.unit["ExecReload"]
        self._ready.clear()
        subprocess.run([word.replace("$MAINPID", str(self.pid)) for word in shlex.split(command)], check=True)
        self.ready()

    def restart(self, command: list[str]) -> None:
        """systemctl restart with another program in the place of the old one: an upgrade."""
        self._command = command
        self.kill(signal.SIGTERM)

    def _supervise(self) -> None:
        (again,) = self.unit["Restart"]
        assert (again, self.unit["Type"]) == ("always", ["notify"])
        prevented = [int(status) for text in self.unit["RestartPreventExitStatus"] for status in text.split()]
        while self._wanted:
            self._start()
            self.statuses.append(self._watch())
            if self.statuses[-1] in prevented:
                return
            time.sleep(seconds(self.unit["RestartSec"][0]) if self._wanted else 0.0)

    def _start(self) -> None:
        environment = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(self._directory / f"{self.name}.notify")}
        environment |= dict(text.split("=", 1) for text in self.unit["Environment"]) | self._environment
        environment["WATCHDOG_USEC"] = str(int(seconds(self.unit["WatchdogSec"][0]) * 1e6))
        program, *arguments = shlex.split(self.unit["ExecStart"][0])
        assert program == INSTALLED + self.name, program
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._rights() + self._passing() + self._command + arguments,
                pass_fds=[one.fileno() for one in self.sockets],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self._alive = time.monotonic()
        self.starts += 1

    def _rights(self) -> list[str]:
        """CapabilityBoundingSet= and NoNewPrivileges=: without its capabilities root is a user like any other."""
        assert not self.unit["CapabilityBoundingSet"] and self.unit["NoNewPrivileges"] == ["yes"]
        setpriv = shutil.which("setpriv")
        return [setpriv, "--bounding-set=-all", "--no-new-privs"] if setpriv and os.geteuid() == 0 else []

    def _passing(self) -> list[str]:
        """Put the sockets where sd_listen_fds(3) says, and become the daemon."""
        if not self.sockets:
            return []
        return [sys.executable, "-c", PASS_ON, *(str(one.fileno()) for one in self.sockets), "--"]

    def _watch(self) -> int:
        """Wait until the program ends. Returns the exit status."""
        process, limit = self._process, seconds(self.unit["WatchdogSec"][0])
        assert process is not None
        while process.poll() is None:
            try:
                said = self._socket.recv(1000).decode().splitlines()
            except TimeoutError:
                said = []
            if "READY=1" in said:
                self._ready.set()
            if "READY=1" in said or "WATCHDOG=1" in said:
                self._alive = time.monotonic()
            if self._ready.is_set() and time.monotonic() - self._alive > limit:
                process.send_signal(signal.SIGABRT)
        return process.returncode
