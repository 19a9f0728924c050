"""A server that is left: nothing that it pushed behind the answer for which it was left is taken."""

from __future__ import annotations

from pathlib import Path

import msgspec

from compass.model.host_api import LocalRegister
from compass.model.replies import Watching
from compass.model.rows import Change, Snapshot
from compass.wire.messages import Bookmark, Notice
from tests.support.agent_world import Hosts

CHINA = "chinaserver.openuss"


def test_what_came_with_the_answer_for_which_a_server_was_left_is_not_taken(disk: Path) -> None:
    """P5: another store that knows nothing of what is held is left, and a notice of that store, in the same octets as
    its answer, changes nothing; nor is its digest compared with what is held."""
    world = Hosts(1, disk)
    world.serve()
    tokens = world.uss()
    users, store = world.daemon("h1"), world.daemon("h2")
    replica, sync = world.hosts["h1"].replica, world.hosts["h1"].agent.components.sync
    users.dependencies("www.web")
    store.register(LocalRegister(CHINA, 2028, tokens[CHINA], pid=1))
    world.until(lambda: CHINA in replica.catalogue.listeners)
    held = replica.catalogue
    [row] = held.listeners[CHINA].values()
    at = held.topics[CHINA]
    other = msgspec.structs.replace(row, weight=9)
    sync._answered(Watching("other", 1, Snapshot(1, {}, [])), users.status().services)
    sync.session_pushed([Notice(Change(at + 1, at, 1.0, "register", other)), Bookmark(at + 2, "0" * 64)])
    assert replica.catalogue == held
    world.run(5.0)
    assert replica.catalogue.listeners == held.listeners
    assert users.status().session == "open"
