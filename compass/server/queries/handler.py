"""Reads: answered from memory, but never with less than the client has seen elsewhere ("Monotonic reads")."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import Environment
from compass.model.replies import Dependencies, Refusal
from compass.model.requests import Pull, ReadRequest
from compass.model.rules.decide import answer, barred
from compass.model.rules.draft import Principal
from compass.server.commit.committer import Committer
from compass.server.commit.request_queue import RETRY_AFTER_SECONDS
from compass.server.push.publisher import Publisher
from compass.server.queries.pull_cache import PullCache
from compass.wire.messages import Answer


class QueryHandler:
    """Answers pull, fetch and impact."""

    def __init__(self, store: str, environment: Environment, committer: Committer, publisher: Publisher) -> None:
        """`store` is the store's id."""
        self._store = store
        self._now = environment.now
        self._committer = committer
        self._replica = committer.replica
        self._publisher = publisher
        self._pulls = PullCache(publisher)

    def reloaded(self, catalogue: Catalogue) -> None:
        """Drop the kept answers: the log did not lead to this catalogue."""
        self._pulls = PullCache(self._publisher)

    def ask(self, request: ReadRequest, asker: Principal) -> Answer | Deferred[Answer]:
        """Return the answer, at once unless this server has to read first what its client has seen."""
        if request.seen > self._replica.catalogue.revision and request.store == self._store:
            return Deferred.fromCoroutine(self._catch_up_and_answer(request, asker))
        return self._answer(request, asker)

    def _answer(self, request: ReadRequest, asker: Principal) -> Answer:
        catalogue = self._replica.catalogue
        if isinstance(request, Pull) and not barred(catalogue, asker):
            kept = self._pulls.kept(catalogue, request.service)
            if kept is not None:
                return kept
        decision = answer(catalogue, request, asker, self._now())
        if decision.security is not None:
            self._committer.log_security(decision.security)
        reply = decision.reply
        return self._pulls.keep(reply) if isinstance(reply, Dependencies) else reply

    async def _catch_up_and_answer(self, request: ReadRequest, asker: Principal) -> Answer:
        read = await self._committer.catch_up()
        revision = self._replica.catalogue.revision
        if revision >= request.seen:
            return self._answer(request, asker)
        why = f"the store is at {revision}" if read else f"this server is at {revision} and cannot read the store"
        text = f"you have seen revision {request.seen}, and {why}; ask another server, or again later"
        return Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS)
