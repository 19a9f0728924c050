"""Hosts that hold a later revision of the store than the store has: it went back in time, or these hosts are wrong.

What such a host holds is never replaced by the older state: it is refused, and administrators are alerted. One host
could invent a revision, so the store is marked, and then no longer served, when most of the hosts that watch hold a
later one.
"""

from __future__ import annotations

from twisted.logger import Logger

from compass.model.interfaces import StoreUnavailable
from compass.model.replies import Refusal
from compass.model.requests import Incident
from compass.model.rules.draft import Principal
from compass.server.commit.committer import Committer
from compass.server.commit.request_queue import RETRY_AFTER_SECONDS
from compass.server.commit.store_access import StoreAccess

HOSTS_MIN = 2
"""Hosts with a later revision that prove that the store went back, if it knows more than one host: no single host can
stop the servers."""


class LaterRevisions:
    """The hosts that watch, by whether they hold a later revision than the store."""

    log = Logger()

    def __init__(self, name: str, committer: Committer, access: StoreAccess) -> None:
        self._committer = committer
        self._access = access
        self._principal = Principal("server", name, "")
        self._id = f"failure past of {name}"
        self._later: dict[str, int] = {}
        """Later revision by host."""
        self._others: set[str] = set()
        """Other hosts that have watched: at most those that the catalogue has rows of."""
        self.problem = ""
        """Why no host is answered: the store is known to have gone back; empty: it is not."""

    def start(self) -> None:
        """End the incident of an earlier run: a host that still holds a later revision opens it again."""
        if self._id in self._committer.catalogue.alerts:
            self._committer.submit(Incident(self._id), self._principal)

    def watched(self, host: str) -> None:
        """Note a host that holds nothing later."""
        self._others.add(host)
        self._later.pop(host, None)

    async def claimed(self, host: str, since: int) -> Refusal:
        """Note a host that holds a later revision. Returns its refusal: the host keeps what it knows."""
        revision = self._committer.catalogue.revision
        text = (
            f"host {host} holds revision {since} of this store, which is at revision {revision}: an older state was "
            "restored, or the last changes were lost"
        )
        if host not in self._later:
            self.log.error("{text}; the host is refused and keeps what it knows", text=text)
        self._others.discard(host)
        self._later[host] = since
        advice = "put the newer state back, or run 'opengnsadmin store new-id' while no server runs"
        await self._committer.submit(Incident(self._id, f"{text}; {advice}"), self._principal)
        if not self.problem and self._is_proven():
            await self._stop_serving(f"{text}, and so do most hosts; {advice}")
        return self.refusal() or Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS)

    def refusal(self) -> Refusal | None:
        """Return the refusal of every host, once it is known that the store went back."""
        if not self.problem:
            return None
        return Refusal("store-unavailable", self.problem, retry_after_seconds=RETRY_AFTER_SECONDS)

    def _is_proven(self) -> bool:
        enough = min(HOSTS_MIN, max(1, len(self._committer.catalogue.hosts)))
        return len(self._later) >= max(enough, len(self._others) + 1)

    async def _stop_serving(self, text: str) -> None:
        self.problem = text
        self.log.critical("the store went back in time and is not served any longer: {text}", text=text)
        try:
            await self._access.run(self._access.store.mark_lost, max(self._later.values()))
        except StoreUnavailable as error:
            self.log.error("cannot mark the store: {why}", why=str(error))
