"""Slow readers get no notices until they read again, then all that they missed, and do not delay others (P10)."""

from __future__ import annotations

from typing import Any

import pytest

from compass.agent.replica.replica import Replica
from compass.model.replies import Dependencies, Refusal
from compass.model.requests import Pull, Status
from compass.server.push import publisher
from compass.wire import limits
from compass.wire.messages import Bookmark, Notice, Resync
from tests.server.conftest import Uss
from tests.server.push.test_publisher import register, revisions, watcher
from tests.support.agent_world import view_of
from tests.support.virtual_world import Client


def session_of(world: Uss, host: str) -> Any:
    """Return the server's end of a host's session."""
    return world.servers["gns1"].nameserver.components.publisher.session_of(host)


def taken(client: Client) -> Replica:
    """Return the replica of a host that applied everything it was sent."""
    replica = Replica()
    replica.watching(client.watching, ["portal.web"])
    for message in client.pushed:
        match message:
            case Notice():
                assert replica.notice(message) != "gap"
            case Resync():
                assert replica.resync(message) == "replaced"
            case Bookmark():
                replica.bookmark(message.revision)
    return replica


def equal_to_a_pull(client: Client) -> bool:
    pulled = client.ask(Pull("portal.web"))
    held = view_of(taken(client)).dependencies("portal.web")
    assert isinstance(pulled, Dependencies) and isinstance(held, Dependencies)
    return pulled.categories == held.categories


@pytest.mark.parametrize("seed", range(4))
def test_a_host_that_does_not_read_while_much_happens_ends_equal_to_a_pull(
    worlds: Any, seed: int, monkeypatch: Any
) -> None:
    """The host gets one resync in place of what it missed; meanwhile the server kept at most the limit for it."""
    monkeypatch.setattr(limits, "SEND_QUEUE_MAX", 4096)
    monkeypatch.setattr(publisher, "REPLAY_MAX", 100)
    world = worlds(seed)
    world.wait(world.server().started)
    stuck = watcher(world, "web1", "portal.web", resync=True)
    other = watcher(world, "web2", "portal.web")
    stuck.transport.pause_reading()
    store = world.client(("host", "store1"))
    for epoch in range(1, 1000):
        register(world, store, epoch=epoch)
        session = session_of(world, "web1")
        assert session.queued_octets <= 4096
    world.run(1.0)
    assert session.behind and session.waiting
    assert len(other.pushed) == 999
    stuck.transport.resume_reading()
    world.until(lambda: bool(stuck.pushed) and isinstance(stuck.pushed[-1], Resync))
    assert not session.behind and stuck.ended is None
    assert sum(isinstance(message, Resync) for message in stuck.pushed) == 1
    assert len(stuck.pushed) < 500
    assert equal_to_a_pull(stuck)
    register(world, store, port=7)
    world.until(lambda: isinstance(stuck.pushed[-1], Notice))
    assert equal_to_a_pull(stuck)


def test_a_host_that_missed_little_gets_the_notices(world: Uss, monkeypatch: Any) -> None:
    """No notice is left out and none comes twice, wherever the stream was cut."""
    monkeypatch.setattr(limits, "SEND_QUEUE_MAX", 4096)
    world.network.buffer_octets = 2_000
    world.wait(world.server().started)
    stuck = watcher(world, "web1", "portal.web", resync=True)
    stuck.transport.pause_reading()
    store = world.client(("host", "store1"))
    made = [register(world, store, epoch=epoch).revision for epoch in range(1, 100)]
    assert session_of(world, "web1").behind
    stuck.transport.resume_reading()
    world.until(lambda: len(stuck.pushed) >= 99)
    assert revisions(stuck) == made
    assert equal_to_a_pull(stuck)


def test_a_host_that_does_not_know_resync_is_disconnected_and_resumes(world: Uss, monkeypatch: Any) -> None:
    """P13: an older host gets a goodbye, and a snapshot on its next session."""
    monkeypatch.setattr(limits, "SEND_QUEUE_MAX", 4096)
    monkeypatch.setattr(publisher, "REPLAY_MAX", 100)
    world.wait(world.server().started)
    stuck = watcher(world, "web1", "portal.web")
    stuck.transport.pause_reading()
    store = world.client(("host", "store1"))
    for epoch in range(1, 700):
        register(world, store, epoch=epoch)
    stuck.transport.resume_reading()
    world.until(lambda: stuck.ended is not None)
    assert stuck.ended is not None and "too slowly" in stuck.ended.reason


def test_a_peer_that_never_reads_is_disconnected_in_bounded_time(world: Uss) -> None:
    """The time to acknowledge runs from the last octets that the peer read."""
    world.wait(world.server().started)
    stuck = watcher(world, "web1", "portal.web", resync=True)
    stuck.transport.pause_reading()
    store = world.client(("host", "store1"))
    for epoch in range(1, 700):
        register(world, store, epoch=epoch)
    began = world.clock.seconds()
    world.until(lambda: session_of(world, "web1") is None, 60.0)
    assert world.clock.seconds() - began <= limits.ACKNOWLEDGE_SECONDS + limits.GREETING_SECONDS


def test_a_slow_line_is_not_a_dead_one(world: Uss, monkeypatch: Any) -> None:
    """A peer that continues to read keeps its session, however long it needs for all of it."""
    world.network.buffer_octets = 1_000
    monkeypatch.setattr(limits, "WRITE_OCTETS", 1_000)
    world.wait(world.server().started)
    slow = watcher(world, "web1", "portal.web", resync=True)
    slow.transport.pause_reading()
    store = world.client(("host", "store1"))
    made = [register(world, store, epoch=epoch).revision for epoch in range(1, 200)]
    slow.acknowledging = False
    for _ in range(20):
        world.run(limits.ACKNOWLEDGE_SECONDS * 0.6)
        slow.transport.resume_reading()
        slow.transport.pause_reading()
    assert slow.ended is None and not slow.lost and len(slow.pushed) < len(made)
    slow.transport.resume_reading()
    world.run(0.5)
    slow.connection.acknowledge(made[-1])
    slow.flush()
    world.run(30.0)
    assert revisions(slow) == made
    assert slow.ended is None


def test_a_lagging_host_gets_no_bookmark(world: Uss, monkeypatch: Any) -> None:
    """A bookmark says that everything before it was sent."""
    monkeypatch.setattr(limits, "SEND_QUEUE_MAX", 4096)
    monkeypatch.setattr(publisher, "REPLAY_MAX", 100)
    monkeypatch.setattr(publisher, "BOOKMARK_EVERY", 50)
    world.wait(world.server().started)
    stuck = watcher(world, "web1", "portal.web", resync=True)
    stuck.transport.pause_reading()
    store = world.client(("host", "store1"))
    for epoch in range(1, 700):
        register(world, store, epoch=epoch)
    stuck.transport.resume_reading()
    world.until(lambda: bool(stuck.pushed) and isinstance(stuck.pushed[-1], Resync))
    assert equal_to_a_pull(stuck)
    at = 0
    for message in stuck.pushed:
        if isinstance(message, Notice):
            at = message.change.revision
        elif isinstance(message, Bookmark):
            assert message.revision <= at + 1


def test_the_same_question_again_and_again_does_not_fill_the_memory(world: Uss, monkeypatch: Any) -> None:
    """Unread replies are bounded: beyond the limit the next request of that peer is refused, and of no other."""
    monkeypatch.setattr(limits, "REPLIES_QUEUED_MAX", 5_000)
    world.wait(world.server().started)
    for n in range(40):
        register(world, world.client(("host", "store1")), port=1000 + n)
    greedy, other = world.client(("host", "web1")), world.client(("host", "web2"))
    size = len(str(other.ask(Pull("portal.web"))))
    assert size > 3_000
    greedy.transport.pause_reading()
    numbers = [greedy.send(Pull("portal.web")) for _ in range(100)]
    world.run(0.5)
    assert isinstance(other.ask(Pull("portal.web")), Dependencies)
    greedy.transport.resume_reading()
    world.until(lambda: len(greedy.replies) == 100)
    answers = [greedy.replies[number] for number in numbers]
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    assert refused and all(answer.code == "busy" and answer.retry_after_seconds for answer in refused)
    assert isinstance(answers[0], Dependencies)
    assert isinstance(greedy.ask(Pull("portal.web")), Dependencies)


def test_a_burst_of_large_answers_to_one_that_reads_is_answered(world: Uss, monkeypatch: Any) -> None:
    """Requests that arrive together are not refused while the transport accepts the replies."""
    monkeypatch.setattr(limits, "REPLIES_QUEUED_MAX", 10)
    world.wait(world.server().started)
    client = world.client(("host", "web1"))
    numbers = []
    for _ in range(5):
        numbers.append(client.connection.ask(Pull("portal.web"), world.clock.seconds()))
    client.flush()
    world.until(lambda: len(client.replies) == 5)
    assert all(isinstance(client.replies[number], Dependencies) for number in numbers)
    assert world.admin().ask(Status()).sessions == 2
