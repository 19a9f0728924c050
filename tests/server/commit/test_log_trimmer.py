"""Logs are bounded in octets as well as in entries, by whichever is reached first (P10)."""

from __future__ import annotations

from compass.model.interfaces import LogPart
from compass.model.replies import Registered
from compass.model.requests import Register, Status
from compass.server.commit.log_trimmer import MEASURE_EVERY_SECONDS, PART_ENTRIES, LogBounds, LogSize
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA

METADATA = {f"k{n:02}": "v" * 255 for n in range(32)}
"""Metadata of the largest listener."""


def rewrite(world: Uss, times: int, first: int = 1, identity: tuple[str, str] = ("host", "web1")) -> None:
    """Register one listener with full metadata for several instances."""
    client, token = world.client(identity), world.tokens[CHINA]
    for begin in range(first, first + times, 128):
        epochs = range(begin, min(begin + 128, first + times))
        requests = [Register(CHINA, token, "192.168.2.1", 2028, epoch, metadata=METADATA) for epoch in epochs]
        numbers = [client.send(request) for request in requests]
        world.until(lambda numbers=numbers: all(number in client.replies for number in numbers))  # type: ignore[misc]
        assert isinstance(client.replies[numbers[-1]], Registered)


def octets(world: Uss) -> int:
    return world.store.measure("updates", 0, 100_000).octets


def test_the_update_log_is_cut_at_its_octets(world: Uss) -> None:
    """W5: one listener that is rewritten does not fill the disk; the newest entries and the tables stay."""
    bound = 3_000_000
    server = world.server(keep=LogBounds(updates_octets=bound))
    world.wait(server.started)
    rewrite(world, 2 * PART_ENTRIES)
    assert octets(world) > bound
    world.run(MEASURE_EVERY_SECONDS + 1)
    part = octets(world)
    assert part <= bound
    loaded = world.store.load()
    assert PART_ENTRIES < loaded.floor <= loaded.revision - 100
    assert server.nameserver.catalogue.listener(CHINA, "192.168.2.1", 2028) is not None
    # A log within its bound is left alone, and one that grows again is cut again.
    world.run(3 * MEASURE_EVERY_SECONDS)
    assert world.store.load().floor == loaded.floor
    rewrite(world, 2 * PART_ENTRIES, first=10_000)
    world.run(2 * MEASURE_EVERY_SECONDS + 1)
    assert octets(world) <= bound and world.store.load().floor > loaded.floor


def test_the_other_logs_have_a_bound_of_their_own(world: Uss) -> None:
    """Requests of administrators are logged with their arguments; the update log is not touched."""
    server = world.server(keep=LogBounds(others_octets=1_200_000))
    world.wait(server.started)
    before = world.store.load().floor
    rewrite(world, 2 * PART_ENTRIES, identity=("admin", "root"))
    world.run(MEASURE_EVERY_SECONDS + 1)
    kept = world.store.measure("administration", 0, 100_000)
    assert kept.octets <= 1_200_000 and kept.entries >= 256
    assert kept.floor > 1 and world.store.load().floor == before


def test_a_store_that_fails_is_measured_later(world: Uss) -> None:
    """A measurement that fails ends nothing."""
    server = world.server(keep=LogBounds(updates_octets=100_000))
    world.wait(server.started)
    rewrite(world, PART_ENTRIES)
    server.thread.failing = OSError("no disk")
    world.run(MEASURE_EVERY_SECONDS + 1)
    server.thread.failing = None
    assert world.store.load().floor == 1
    world.run(2 * MEASURE_EVERY_SECONDS)
    assert world.store.load().floor > PART_ENTRIES
    assert world.admin().ask(Status())


def test_what_another_server_has_trimmed_does_not_count() -> None:
    """Parts before the floor are forgotten, all of them when the log is empty."""
    size = LogSize()
    assert size.add(LogPart(PART_ENTRIES, PART_ENTRIES, 1000, 1))
    assert size.add(LogPart(PART_ENTRIES, 2 * PART_ENTRIES, 1000, 1))
    assert not size.add(LogPart(3, 2 * PART_ENTRIES + 3, 10, PART_ENTRIES + 1))
    assert size.cut(1010) == 0
    assert size.cut(1009) == 2 * PART_ENTRIES
    assert size.measured == 0
    assert size.add(LogPart(PART_ENTRIES, 900, 1000, 700))
    assert not size.add(LogPart(0, 900, 0, 0))
    assert size.measured == 0 and size.cut(1) == 0
