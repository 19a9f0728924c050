"""Initial content of a campaign's store: sixty services in ten categories that depend in rings."""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import Any, cast

from compass.model.catalogue.catalogue import catalogue_of
from compass.model.replies import CredentialIssued, Refusal
from compass.model.requests import Apply, IssueCredential
from compass.model.rows import Category, Change, Dependency, Policy, Service
from compass.model.rules.decide import decide
from compass.store.store import Store
from tests.simulation.plan import CATEGORIES, service_names
from tests.support.virtual_world import ADMIN, EPOCH

POLICY = Policy(recovery_seconds=1.0)


@cache
def _template() -> tuple[sqlite3.Connection, Store, dict[str, str]]:
    """Return a store with the topology, made once; each run gets a fresh copy of its content."""
    store = Store.open("sqlite://")
    names = service_names()
    rows: list[Any] = [
        Category(f"c{one}", f"s{(one + 5) % CATEGORIES}.c{(one + 5) % CATEGORIES}" if one % 2 else "", POLICY)
        for one in range(CATEGORIES)
    ]
    rows += map(Service, names)
    rows += [Dependency(f"c{one}", f"c{(one + step) % CATEGORIES}") for one in range(CATEGORIES) for step in (1, 3)]
    requests: list[Any] = [Apply(tuple(rows)), *map(IssueCredential, names)]
    changes: list[Change] = []
    catalogue, tokens = catalogue_of([], {}, 0), {}
    for number, request in enumerate(requests):
        decision = decide(catalogue, request, ADMIN, EPOCH, f"token-{number}")
        assert not isinstance(decision.reply, Refusal), decision.reply
        changes += decision.changes
        catalogue = decision.catalogue
        if isinstance(request, IssueCredential) and isinstance(decision.reply, CredentialIssued):
            tokens[request.service] = decision.reply.token
    store.commit(0, changes, [], [])
    kept = sqlite3.connect(":memory:", check_same_thread=False)
    connection_of(store).backup(kept)
    return kept, store, tokens


def fresh_store() -> tuple[Store, dict[str, str]]:
    """The one store of this process, as it was in the beginning."""
    kept, store, tokens = _template()
    kept.backup(connection_of(store))
    return store, dict(tokens)


def connection_of(store: Store) -> sqlite3.Connection:
    """Return the driver's connection of a store in memory."""
    raw: Any = store._engine.raw_connection()
    return cast(sqlite3.Connection, raw.driver_connection)
