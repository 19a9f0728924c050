"""The stand-in daemon, and the program as a process."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_api import CREDENTIAL, LittleApi, Start, serving


@pytest.fixture
def api(tmp_path: Path) -> Iterator[LittleApi]:
    """A daemon at a socket of its own."""
    with serving(tmp_path / "api.sock") as served:
        yield served


@pytest.fixture
def port() -> int:
    """An unused port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def start(api: LittleApi) -> Iterator[Start]:
    """Start opengnsc as a process of its own; what is left of it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **more: Any) -> "subprocess.Popen[str]":
        environment = os.environ | {"OPENGNS_API": api.place, "OPENGNS_CREDENTIAL": CREDENTIAL} | more.pop("env", {})
        process = subprocess.Popen(
            [sys.executable, "-m", "compass.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            **more,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            # With what it runs: that has the same pipes, and would be waited for.
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
            process.kill()
        process.communicate()
