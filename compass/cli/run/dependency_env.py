"""Dependencies of a command under `opengnsc run`: environment variables, and a file that is kept up to date."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import msgspec

from compass.client.core.blocking_api import ApiProblem, HostApi
from compass.model.names import format_endpoint
from compass.model.replies import CategoryView, Dependencies
from compass.model.rows import USABLE, Listener
from compass.system.files import replace_file

PREFIX = "OPENGNS_DEPENDENCY_"
RETRY_SECONDS = 5.0
"""Seconds until the dependencies are fetched again after a temporary refusal."""


def variables_of(dependencies: Dependencies) -> dict[str, str]:
    """Return one variable per category: its usable listeners, else its backup's, as `address:port` with blanks."""
    return {
        PREFIX + view.category.upper().replace("-", "_"): " ".join(
            format_endpoint(p.address, p.port) for p in _usable(view)
        )
        for view in dependencies.categories
    }


def _usable(view: CategoryView) -> list[Listener]:
    own = [peer for service in view.services for peer in service.listeners if peer.state in USABLE]
    return own or [peer for peer in view.backup_listeners if peer.state in USABLE]


def write_dependencies(path: Path, dependencies: Dependencies) -> None:
    """Replace the file by the dependencies as JSON. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(dependencies), indent=1) + b"\n"
    replace_file(path, text, mode=None, durable=False)


class Notes(Protocol):
    """Output for people."""

    def print_note(self, text: str) -> None:
        """Print a line."""


class DependencyEnvironment:
    """Dependencies of one service, for the environment and the file of a command."""

    def __init__(self, api: HostApi, service: str, path: Path | None, notes: Notes) -> None:
        self._api = api
        self._service = service
        self._path = path
        self._notes = notes
        self._stopped = threading.Event()

    def variables(self) -> dict[str, str]:
        """Return the variables for the command's environment; none if the daemon does not answer."""
        try:
            dependencies = self._api.dependencies(self._service)
        except ApiProblem as problem:
            # Other code already warns that the daemon is unreachable; warn here only if a file was asked for.
            if self._path is not None:
                self._notes.print_note(f"the command starts without its dependencies: {problem.message}")
            return {}
        if self._path is not None:
            self._write(dependencies)
        return variables_of(dependencies) | ({"OPENGNS_DEPENDENCIES": str(self._path.absolute())} if self._path else {})

    def start(self) -> None:
        """Start a thread that keeps the file up to date until the program ends."""
        if self._path is not None:
            threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                for _ in self._api.follow(self._service, None, lambda text: None):
                    self._write(self._api.dependencies(self._service))
            except ApiProblem:
                self._stopped.wait(RETRY_SECONDS)

    def _write(self, dependencies: Dependencies) -> None:
        assert self._path is not None
        try:
            write_dependencies(self._path, dependencies)
        except OSError as error:
            self._notes.print_note(f"cannot write {self._path}: {error.strerror}")
