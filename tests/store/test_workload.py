"""The tables and the log say the same, whatever happened."""

from __future__ import annotations

import msgspec
import pytest

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.rows import AdministrationEntry, Change, LogEntry, SecurityEntry
from compass.store.statements import Log
from compass.store.store import Store
from tests.store.workload import Workload


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_log_has_no_gap_and_replaying_it_gives_the_tables(store: Store, seed: int) -> None:
    """After hundreds of decided requests, committed in batches: N changes are the revisions 1 to N, and applying
    them to nothing gives what is loaded; the other logs have what was decided for them, in order (P2)."""
    workload = Workload(seed)
    changes: list[Change] = []
    security: list[SecurityEntry] = []
    administration: list[AdministrationEntry] = []
    for batch in workload.batches(1000, 40):
        new = [change for decision in batch for change in decision.changes]
        refused = [decision.security for decision in batch if decision.security]
        administered = [decision.administration for decision in batch if decision.administration]
        store.commit(len(changes), new, refused, administered)
        changes += new
        security += refused
        administration += administered
    loaded = store.load()
    assert (loaded.revision, loaded.floor) == (len(changes), 1)
    assert catalogue_of(loaded.rows, loaded.topics, loaded.revision) == workload.catalogue
    logged = store.changes_after(0, len(changes) + 1)
    assert logged == changes
    replayed = Catalogue()
    for change in logged:
        replayed = replayed.apply(change)
    assert replayed == workload.catalogue
    assert len(changes) > 300 and len(security) > 10 and len(administration) > 100
    assert [msgspec.structs.replace(entry, number=0) for entry in _whole(store, "security")] == security
    assert [msgspec.structs.replace(entry, number=0) for entry in _whole(store, "administration")] == administration


def _whole(store: Store, log: Log) -> list[LogEntry]:
    entries, floor = store.read_log(log, 0, 2000, 0)
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    assert floor == 1
    return entries
