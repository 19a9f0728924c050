"""Reads: answered from memory, but never with less than the client has seen elsewhere ("Never back in time")."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred, succeed

from compass.model.decide import answer
from compass.model.draft import Asker
from compass.model.replies import Refusal, Reply
from compass.model.requests import ReadRequest
from compass.server.commits import Commits
from compass.server.queue import RETRY_AFTER_SECONDS


class Reading:
    """Answers pull, fetch and impact."""

    def __init__(self, store: str, commits: Commits, now: Callable[[], float]) -> None:
        self._store = store
        self._commits = commits
        self._now = now

    def ask(self, request: ReadRequest, asker: Asker) -> Deferred[Reply | bytes]:
        """The answer, at once unless this server has to read first what its client has seen."""
        if request.store == self._store and request.seen > self._commits.catalogue.revision:
            return cast(Deferred[Reply | bytes], Deferred.fromCoroutine(self._read_on(request, asker)))
        return succeed(self._answer(request, asker))

    def _answer(self, request: ReadRequest, asker: Asker) -> Reply:
        decision = answer(self._commits.catalogue, request, asker, self._now())
        if decision.security is not None:
            self._commits.note(decision.security)
        return decision.reply

    async def _read_on(self, request: ReadRequest, asker: Asker) -> Reply:
        looked = await self._commits.look()
        stands = self._commits.catalogue.revision
        if stands >= request.seen:
            return self._answer(request, asker)
        why = f"the store stands at {stands}" if looked else f"this server stands at {stands} and cannot read the store"
        text = f"you have seen revision {request.seen}, and {why}; ask another server, or again later"
        return Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS)
