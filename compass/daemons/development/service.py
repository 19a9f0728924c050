"""Service of development mode: both daemons in one process, and a token for the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from compass.daemons.config.reader import read_host_config, read_server_config
from compass.daemons.development.directory import ADMIN_NAME
from compass.daemons.development.settings import HOST_CONFIG, SERVER_CONFIG
from compass.daemons.process.start import CannotStart
from compass.daemons.services.opengnscd import HostService
from compass.daemons.services.opengnssd import ServerService
from compass.model.replies import CredentialIssued, Refusal
from compass.model.requests import Apply, IssueCredential, Request
from compass.model.rows import Category
from compass.model.rows import Service as ServiceRow
from compass.model.rules.draft import Principal
from compass.model.rules.tokens import ADMIN_TOKENS
from compass.system.files import replace_file

CONSOLE_TOKEN: Final = "console.token"
"""File with the token by which a browser signs in; it is made again if it is removed."""

SESSION_POLL_SECONDS: Final = 0.05
SESSION_POLLS: Final = 200
"""Polls of the host daemon's session before the terminal says that both serve: ten seconds, for a busy machine."""


class DevelopmentService(Service):
    """Service of a server, and of a host daemon that starts once the server answers."""

    def __init__(self, reactor: Any, directory: Path) -> None:
        """Read the settings. Raises ConfigProblem or IdentityError."""
        self._reactor = reactor
        self._server = ServerService(reactor, read_server_config(directory / SERVER_CONFIG))
        self._host = HostService(reactor, read_host_config(directory / HOST_CONFIG))
        self._token = directory / CONSOLE_TOKEN

    def startService(self) -> None:
        """Start both; `started` fails as those of the daemons do."""
        super().startService()
        self.started = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        self._server.startService()
        await self._server.started
        if self.running and not self._token.exists():
            await self._issue_token()
        if self.running:
            self._host.startService()
            await self._host.started
            await self._await_session()

    async def _await_session(self) -> None:
        """Wait until the host daemon follows the server, so that the first lookup is answered."""
        for _ in range(SESSION_POLLS):
            if not self.running or self._host.status().session == "open":
                return
            await deferLater(self._reactor, SESSION_POLL_SECONDS)

    async def _issue_token(self) -> None:
        service = f"{ADMIN_NAME}.{ADMIN_TOKENS}"
        await self._ask(Apply((Category(ADMIN_TOKENS), ServiceRow(service))))
        issued = await self._ask(IssueCredential(service, 0))
        if isinstance(issued, CredentialIssued):
            try:
                replace_file(self._token, issued.token.encode() + b"\n")
            except OSError as error:
                raise CannotStart(f"cannot write {self._token}: {error.strerror}; make room for it") from None

    async def _ask(self, request: Request) -> Any:
        reply = await self._server.ask(Principal("admin", ADMIN_NAME, "opengns dev"), request)
        if isinstance(reply, Refusal):
            raise CannotStart(f"the server refused the console's token: {reply.message}")
        return reply

    async def stop(self) -> None:
        """Stop the host daemon, then the server."""
        for daemon in (self._host, self._server):
            if daemon.running:
                await daemon.stopService()

    def stopService(self) -> Deferred[None]:
        """Stop both. Fires when both have stopped."""
        super().stopService()
        return Deferred.fromCoroutine(self.stop())
