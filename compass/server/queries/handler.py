"""Reads: answered from memory, but never with less than the client has seen elsewhere ("Never back in time")."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from compass.model.replies import Dependencies, Refusal
from compass.model.requests import Pull, ReadRequest
from compass.model.rules.decide import answer, barred
from compass.model.rules.draft import Principal
from compass.server.commit.committer import Committer
from compass.server.commit.request_queue import RETRY_AFTER_SECONDS
from compass.server.queries.pull_cache import PullCache
from compass.server.sessions.session import Answer


class QueryHandler:
    """Answers pull, fetch and impact."""

    def __init__(
        self, store: str, commits: Committer, now: Callable[[], float], last_told: Callable[[frozenset[str]], int]
    ) -> None:
        """`store` is the store's id, `last_told` as for `Pulls`."""
        self._store = store
        self._commits = commits
        self._now = now
        self._last_told = last_told
        self._pulls = PullCache(last_told)

    def forget(self) -> None:
        """What was kept is good no more."""
        self._pulls = PullCache(self._last_told)

    def ask(self, request: ReadRequest, asker: Principal) -> Answer | Deferred[Answer]:
        """The answer, at once unless this server has to read first what its client has seen."""
        if request.seen > self._commits.catalogue.revision and request.store == self._store:
            return Deferred.fromCoroutine(self._read_on(request, asker))
        return self._answer(request, asker)

    def _answer(self, request: ReadRequest, asker: Principal) -> Answer:
        catalogue = self._commits.catalogue
        if isinstance(request, Pull) and not barred(catalogue, asker):
            kept = self._pulls.kept(catalogue, request.service)
            if kept is not None:
                return kept
        decision = answer(catalogue, request, asker, self._now())
        if decision.security is not None:
            self._commits.log_security(decision.security)
        reply = decision.reply
        return self._pulls.keep(reply) if isinstance(reply, Dependencies) else reply

    async def _read_on(self, request: ReadRequest, asker: Principal) -> Answer:
        looked = await self._commits.catch_up()
        stands = self._commits.catalogue.revision
        if stands >= request.seen:
            return self._answer(request, asker)
        why = f"the store stands at {stands}" if looked else f"this server stands at {stands} and cannot read the store"
        text = f"you have seen revision {request.seen}, and {why}; ask another server, or again later"
        return Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS)
