"""A program for tests: commits batches of registrations to the store at a URL, and says each time how far it is."""

from __future__ import annotations

import sys

from compass.store.store import Store
from tests.store.workload import registrations

store = Store.open(sys.argv[1])
revision = store.load().revision
while True:
    changes = registrations(7, revision=revision)
    store.commit(revision, changes, [], [])
    revision += len(changes)
    print(revision, flush=True)
