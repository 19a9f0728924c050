"""An installation in a directory: an authority, certificates, configuration files, and daemons that really run."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from compass.admin.shell.connection import AdminSession, IdentityFiles, Server
from compass.pki.authority import Credentials, create_authority, issue, write_credentials

ROOT = Path(__file__).parents[2]
NOW = datetime.now(UTC)
AUTHORITY = create_authority("authority", NOW - timedelta(days=40))
PATIENCE_SECONDS = 40.0


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_base() -> int:
    """Return a port of a server whose three neighbours are free, too."""
    for _ in range(100):
        base = free_port()
        try:
            for port in (base + 1, base + 3, base - 10):
                with socket.socket() as trial:
                    trial.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        return base
    raise AssertionError("no free ports")


class Daemon:
    """A process whose log is read."""

    def __init__(self, command: list[str], directory: Path, environment: dict[str, str]) -> None:
        self._log = directory / f"log-{len(list(directory.glob('log-*')))}"
        with self._log.open("wb") as log:
            own = {"PYTHONPATH": str(ROOT), **environment}
            self.process = subprocess.Popen(
                command, cwd=directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **own}
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the log has a line that matches. Returns the match."""
        until = time.monotonic() + PATIENCE_SECONDS
        while (found := re.search(pattern, self.log)) is None:
            ended = self.process.poll()
            assert ended is None and time.monotonic() < until, f"no {pattern!r} (status {ended}) in:\n{self.log}"
            time.sleep(0.01)
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal. Returns the exit status."""
        self.process.send_signal(number)
        return self.status()

    def status(self) -> int:
        """Wait for the end of the process. Returns the exit status."""
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it runs on:\n{self.log}") from None


class Installation:
    """Installation in a directory; `stop` ends every daemon that still runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._daemons: list[Daemon] = []
        write_credentials(directory, "authority", AUTHORITY)
        self.certify("server", "gns1", ["127.0.0.1"])
        self.certify("host", "web1", ["127.0.0.1"])
        self.certify("admin", "root")

    def certify(self, role: Any, name: str, also: list[str] | None = None, **more: Any) -> IdentityFiles:
        """A certificate `NAME.crt` with its key."""
        authority: Credentials = more.pop("authority", AUTHORITY)
        made = issue(authority, role, name, also or [], more.pop("now", NOW), **more)
        files = write_credentials(self.directory, name, made)
        return IdentityFiles(files.certificate, files.key, self.directory / "authority.crt")

    def write(self, file: str, section: str, identity: str, **settings: Any) -> Path:
        """A configuration file."""
        tls = {"certificate": f"{identity}.crt", "key": f"{identity}.key", "authority": "authority.crt"}
        lines = []
        for name, values in ((section, settings), ("tls", tls)):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        path = self.directory / file
        path.write_text("\n".join(lines))
        return path

    def server_config(self, identity: str = "gns1", **settings: Any) -> Path:
        defaults = {"store": "sqlite:///gns.sqlite3", "listen": [f"127.0.0.1:{self.port}"]}
        return self.write("opengnssd.toml", "server", identity, **(defaults | settings))

    def host_config(self, identity: str = "web1", **settings: Any) -> Path:
        defaults = {
            "servers": [f"127.0.0.1:{self.port}"],
            "state_directory": "state",
            "address": "127.0.0.1",
            "api": "",
            "socket": "gns.sock",
        }
        return self.write("opengnscd.toml", "host", identity, **(defaults | settings))

    def server(self, config: Path, *options: str) -> Daemon:
        """opengnssd."""
        return self._program("server", "--config", str(config), *options)

    def host(self, config: Path, *options: str) -> Daemon:
        """opengnscd."""
        return self._program("host", "--config", str(config), *options)

    def start(self, command: list[str], **environment: str) -> Daemon:
        """Any command."""
        daemon = Daemon(command, self.directory, environment)
        self._daemons.append(daemon)
        return daemon

    def link(self, identity: IdentityFiles | None = None) -> AdminSession:
        """Return a session with the server, as the administrator or with another identity."""
        crt, key, authority = (self.directory / name for name in ("root.crt", "root.key", "authority.crt"))
        own = identity or IdentityFiles(crt, key, authority)
        return AdminSession.connect([Server("127.0.0.1", self.port)], own, PATIENCE_SECONDS)

    def stop(self) -> None:
        for daemon in self._daemons:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()

    def _program(self, entry: str, *arguments: str) -> Daemon:
        program = f"from compass.daemons.main import {entry}; {entry}()"
        return self.start([sys.executable, "-c", program, *arguments])
