"""The agent, opengnscd: built from its components, started and stopped. One per machine."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.agent.components import Components
from compass.agent.dependencies import AgentDependencies
from compass.agent.local_api import LocalApi


class Agent:
    """Lifecycle of the components. Lookups are answered from memory, requests go into the journal and to a server."""

    _log = Logger()

    def __init__(self, dependencies: AgentDependencies) -> None:
        self._dependencies = dependencies
        self.components = Components(dependencies)
        self.api = LocalApi(self.components)
        """Interface for local programs."""

    def start(self) -> None:
        """Answer from what is on disk, and connect to a server."""
        parts, its = self._dependencies, self.components
        try:
            parts.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self._log.warn("cannot make {path}: {error}", path=parts.state_directory, error=error)
        cached = its.cache.load()
        its.journal.load()
        vouched_at = None
        if cached is not None and cached.loaded:
            its.replica.restore(cached.store, cached.services, cached.held)
            vouched_at = parts.clock.seconds() - its.cache.age_seconds(parts.now())
            its.feed.replaced()
        its.wanted.restore(cached.wanted if cached else ())
        its.sync.start(vouched_at)
        its.shared_view.start()
        if parts.reactions is not None:
            parts.reactions.start(its.view)
        its.address.start()
        its.registrar.start()
        its.upstream.start()

    def stop(self) -> Deferred[None]:
        """Leave the server, keep everything: services stay registered, and the next run continues from the disk.

        Returns what fires when the session is closed.
        """
        its = self.components
        its.address.stop()
        its.own_probes.stop()
        its.registrar.stop()
        its.sync.stop()
        its.asked.stop()
        its.shared_view.stop()
        if self._dependencies.reactions is not None:
            self._dependencies.reactions.stop()
        its.reports.stop()
        its.changes.stop()
        stopped = its.upstream.stop()
        its.cache.close()
        return stopped
