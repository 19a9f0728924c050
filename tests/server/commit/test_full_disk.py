"""A disk that is full, under a whole server: the real file, the real SQL, a file system of a megabyte."""

from __future__ import annotations

from pathlib import Path

import pytest

from compass.model.host_api import LocalRegister, LocalReport, Outcome
from compass.model.replies import Refusal, Registered
from compass.model.requests import Register, Status
from compass.store.store import Store
from tests.server.conftest import USS, Uss
from tests.server.failure.test_pending_suspicions import dependant, in_use, suspicions
from tests.server.push.test_publisher import CHINA
from tests.store.test_errors import small_disk

__all__ = ["small_disk"]
WHERE = ("10.0.0.1", 2028)


class OnSmallDisk(Uss):
    """The seed's world over a file that has no room to grow; `ballast` is what fills its disk."""

    def __init__(self, place: Path, directory: Path) -> None:
        super().__init__(1, directory)
        self.store.close()
        self.store = Store.open(f"sqlite:///{place}/opengnss.db")
        self.tokens = self.declare(USS, {"openuss": "emergency.rescue"})
        self.ballast = place / "ballast"

    def fill(self) -> None:
        """Not an octet is left."""
        with self.ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass


@pytest.fixture
def world(small_disk: Path, disk: Path) -> OnSmallDisk:
    return OnSmallDisk(small_disk, disk)


def test_a_full_disk_costs_no_lookup_and_loses_nothing_that_was_asked_for(world: OnSmallDisk) -> None:
    """ "Full disk likewise": writes are refused with the reason and what to do about it, a dead listener is suspect at
    its dependants within a second, and with room again the log has everything."""
    world.wait(world.server().started)
    storage, web = world.host("store1").daemon, world.host("web1").daemon
    web.dependencies("portal.web")
    outcomes: list[Outcome | Refusal] = []
    for port in (2028, 2029):
        storage.register(LocalRegister(CHINA, port, world.tokens[CHINA])).addCallback(outcomes.append)
    world.until(lambda: len(outcomes) == 2)
    other = dependant(world, "web2")
    world.until(lambda: in_use(world, "web1") == ("service", [2028, 2029]))
    world.fill()
    store = world.client(("host", "store9"))
    port = 0
    while True:
        # What SQLite has set aside takes some more.
        port += 1
        reply = store.ask(Register(CHINA, world.tokens[CHINA], "192.168.2.9", port, 1, metadata={"what": "x" * 250}))
        if not isinstance(reply, Registered):
            break
    assert isinstance(reply, Refusal) and reply.code == "store-unavailable"
    assert "full; free some space" in reply.message
    assert "full" in world.admin().ask(Status()).trouble
    world.dead.add(WHERE)
    web.report(LocalReport(CHINA, *WHERE))
    assert world.until(lambda: bool(suspicions(other))) < 1.0
    storage.register(LocalRegister(CHINA, 2030, world.tokens[CHINA])).addCallback(outcomes.append)
    world.run(30.0)
    assert [outcome.state for outcome in outcomes if isinstance(outcome, Outcome)] == ["up", "up", "pending"]
    assert 2028 not in in_use(world, "web1")[1] and 2029 in in_use(world, "web1")[1]
    world.ballast.unlink()

    def all_there() -> bool:
        rows = world.servers["gns1"].nameserver.catalogue.listeners[CHINA]
        states = {row.port: row.state for row in rows.values() if row.address == "10.0.0.1"}
        return states == {2028: "down", 2029: "up", 2030: "up"}

    assert world.until(all_there, 30.0) < 15.0
    assert not world.admin().ask(Status()).trouble
