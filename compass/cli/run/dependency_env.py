"""What a command under `opengnsc run` is told of the services that it depends on: variables, and a current file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from compass.client.core.blocking_api import ApiProblem, HostApi
from compass.model.names import format_endpoint
from compass.model.replies import CategoryView, Dependencies
from compass.model.rows import USABLE, Listener
from compass.system.files import replace_file

PREFIX = "OPENGNS_DEPENDENCY_"
RETRY_SECONDS = 5.0
"""After a refusal that may pass, until the dependencies are asked for again."""


def variables_of(dependencies: Dependencies) -> dict[str, str]:
    """One variable a category: the usable listeners as `address:port`, with blanks between; the backup's if none is."""
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
    """As JSON, whole or not at all. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(dependencies), indent=1) + b"\n"
    replace_file(path, text, mode=None, durable=False)


class DependencyEnvironment:
    """Keeps a file in step with what a service depends on, until the program ends."""

    def __init__(self, api: HostApi, service: str, path: Path | None, say: Callable[[str], None]) -> None:
        self._api = api
        self._service = service
        self._path = path
        self._print = say
        self._stopped = threading.Event()

    def variables(self) -> dict[str, str]:
        """For the command's environment, as things are now; none when the daemon cannot tell."""
        try:
            told = self._api.dependencies(self._service)
        except ApiProblem as problem:
            # Without the daemon much else is said; whoever wants the file wants to know.
            if self._path is not None:
                self._print(f"the command starts without its dependencies: {problem.message}")
            return {}
        if self._path is not None:
            self._write(told)
        return variables_of(told) | ({"OPENGNS_DEPENDENCIES": str(self._path.absolute())} if self._path else {})

    def start(self) -> None:
        """Follow in a thread of its own."""
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
            self._print(f"cannot write {self._path}: {error.strerror}")
