"""View that lookups on this host are answered from: the replica, with the listeners under suspicion as suspect.

A name that is not covered, a name that does not exist and a service without listeners are three different answers (P5).
Every answer comes from memory, at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from compass.agent.replica.replica import Replica, categories_of
from compass.agent.replica.suspicions import Suspicions
from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import category_view, dependencies_of, listed, snapshot
from compass.model.catalogue.lookup_scope import LookupScope, parse_name, scope_of
from compass.model.host_api import Resolved, UnansweredName
from compass.model.interfaces import Clock
from compass.model.names import InvalidName, category_of, parse_label
from compass.model.replies import CategoryView, Dependencies, Refusal, ServiceView
from compass.model.selection.selector import Selector
from compass.model.selection.unanswered import UnansweredLookups, is_without_listener
from compass.wire.shared_view import Shared


class View:
    """The one thing that lookups ask: over HTTP, over DNS, from hooks and from shared memory."""

    def __init__(self, clock: Clock, replica: Replica, suspicions: Suspicions, pools: Selector) -> None:
        """`pools` remembers which listener is next in each pool, for every kind of lookup on this host."""
        self._clock = clock
        self.replica = replica
        self.suspicions = suspicions
        self.pools = pools
        self.lookups = Counter[str]()
        """Lookups by source of the listeners, or `refused`."""
        self._unanswered = UnansweredLookups()
        self._scope: tuple[frozenset[str], LookupScope] | None = None
        self._shared: tuple[LookupScope, frozenset[str], Shared] | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue that answers come from; the replica's own if nothing is suspected."""
        return self.suspicions.apply_to(self.replica.catalogue, self._clock.seconds())

    def dependencies(self, service: str) -> Dependencies | Refusal:
        """Function 2.3; `not-ready` if the service's category is not covered. `service` is parsed."""
        category, held = category_of(service), self.replica.catalogue
        if not self.replica.covers(category):
            return Refusal(
                "not-ready",
                f"what {service} depends on has not been loaded from a server yet; try again when one is reachable",
                retry_after_seconds=1.0,
            )
        if category not in held.categories:
            return Refusal("unknown-category", f"there is no category {category!r}; an administrator can add it")
        if held.service(service) is None:
            return Refusal("unknown-service", f"there is no service {service!r}; an administrator can add it")
        return dependencies_of(self.catalogue, service)

    def sight(self) -> LookupScope | None:
        """Return what lookups may use, the same object until something changes. None: nothing is loaded yet."""
        replica = self.replica
        if not replica.loaded:
            return None
        catalogue = self.catalogue
        if self._scope is None or self._scope[0] is not replica.services or self._scope[1].catalogue is not catalogue:
            self._scope = (replica.services, scope_of(catalogue, categories_of(replica.services)))
        return self._scope[1]

    def resolve(self, text: str) -> Resolved | Refusal:
        """Return the listeners to use for a service or category that this host's services depend on, best first."""
        found = self._resolve(text)
        source = "refused" if isinstance(found, Refusal) else found.source
        self.lookups[source] += 1
        if isinstance(found, Resolved) and source == "none":
            self.found_none(found.name)
        return found

    def found_none(self, name: str) -> None:
        """Note that a lookup of an existing service or category has found no listener."""
        self._unanswered.asked(name, self._clock.seconds())

    def unanswered(self, rendered: Iterable[str] = ()) -> list[UnansweredName]:
        """Return the names that programs ask for again and again, or that templates render, and that have no listener.
        Nothing is known about names while nothing is loaded (P5)."""
        scope = self.sight()
        if scope is None:
            return []
        catalogue, problem = scope.catalogue, scope.problem

        def has_none(name: str) -> bool:
            return problem(name) is None and is_without_listener(catalogue, name)

        return self._unanswered.names(self._clock.seconds(), has_none, rendered)

    def category(self, text: str) -> CategoryView | Refusal:
        """Return all registered listeners of a category, whatever their state."""
        try:
            name = parse_label(text, "category")
        except InvalidName as problem:
            return Refusal(problem.code, str(problem))
        seen = self._seen(name)
        return seen if isinstance(seen, Refusal) else category_view(seen, name)

    def service(self, id: str) -> ServiceView | Refusal:
        """Return all registered listeners of a service, whatever their state. The id is parsed."""
        seen = self._seen(id)
        return seen if isinstance(seen, Refusal) else ServiceView(id, listed(seen, id))

    def shared(self) -> Shared | None:
        """Return the content of the shared view, the same object until something changes. None: nothing is loaded."""
        scope, services = self.sight(), self.replica.services
        if scope is None:
            return None
        last = self._shared
        if last is None or last[0] is not scope or last[1] is not services:
            held = snapshot(scope.catalogue, scope.catalogue.topics)
            held = msgspec.structs.replace(held, revision=self.replica.catalogue.revision)
            place = self.pools.place
            shared = Shared(place.host, place.zone, self.replica.store, tuple(sorted(services)), held)
            self._shared = last = scope, services, shared
        return last[2]

    def _resolve(self, text: str) -> Resolved | Refusal:
        name = parse_name(text)
        if isinstance(name, Refusal):
            return name
        seen = self._seen(name)
        if isinstance(seen, Refusal):
            return seen
        chosen = self.pools.choose(seen, name)
        return Resolved(name, self.replica.catalogue.revision, chosen.source, chosen.listeners, chosen.policy)

    def _seen(self, name: str) -> Catalogue | Refusal:
        """Return the catalogue to look a parsed name up in, or why nothing can be said about it (P5)."""
        scope = self.sight()
        if scope is None:
            return Refusal("not-ready", f"{name}: no view has been loaded from a server yet", retry_after_seconds=1.0)
        return scope.problem(name) or scope.catalogue
