"""Notification of administrators over hours, restarts and crashes of servers, on virtual time and a real store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, fail
from twisted.logger import formatEvent, globalLogPublisher

from compass.model.cluster import SILENT_BEATS
from compass.model.limits import ALERT_TEST_SECONDS
from compass.model.replies import Refusal, WayList, WaysTried
from compass.model.requests import Incident, TryWays, Ways
from compass.model.rules.draft import Principal
from compass.server.alerts.notifier import (
    ATTEMPT_SECONDS,
    NOTE_EVERY_SECONDS,
    TAKE_OVER_SECONDS,
    DeliveryFailed,
)
from compass.server.alerts.outbox import PAUSE_SECONDS_MAX, Message
from tests.server.conftest import Uss
from tests.support.virtual_world import SimulatedServer

ALERT = "failure store.disk 192.0.2.1:1"
HOUR = 3600.0
TAKEN_OVER_SECONDS = SILENT_BEATS + 1 + TAKE_OVER_SECONDS + 1
"""Time after which another server sends in the place of one that crashed."""


@contextmanager
def logged() -> Iterator[list[str]]:
    """Level and text of what is logged meanwhile."""
    lines: list[str] = []

    def noted(event: Any) -> None:
        lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    note: Any = noted
    globalLogPublisher.addObserver(note)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(note)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Lines that a test logs."""
    with logged() as lines:
        yield lines


@pytest.fixture
def server(world: Uss) -> SimulatedServer:
    """A server that serves."""
    server = world.server()
    world.admin()
    return server


def incident(world: Uss, id: str = ALERT, text: str = "it is down", server: str = "gns1") -> None:
    """Begin an incident, or end it (no text), as the failure detector does."""
    nameserver = world.servers[server].nameserver
    world.wait(nameserver.commits.submit(Incident(id, text), Principal("server", server, "")))
    # The message leaves in the same moment; its receiver has it a moment later.
    world.run(0.001)


def said(*servers: SimulatedServer) -> list[str]:
    """Return what arrived: the event, and the counts of a digest."""
    news = [msgspec.json.decode(item) for server in servers for item in server.news]
    return [item["event"] + (f" {item['counts']}" if "counts" in item else "") for item in news]


def ids(*servers: SimulatedServer) -> list[str]:
    return [msgspec.json.decode(item)["message"] for server in servers for item in server.news]


def unreachable(message: Message) -> Deferred[None]:
    return fail(DeliveryFailed("nothing listens there"))


def test_an_incident_is_sent_when_it_begins_and_when_it_is_over(
    world: Uss, server: SimulatedServer, log: list[str]
) -> None:
    """The message goes through the configured channel and into the log."""
    incident(world)
    incident(world, text="")
    assert [msgspec.json.decode(item) for item in server.news] == [
        {
            "event": "opened",
            "message": ids(server)[0],
            "server": "gns1",
            "time": pytest.approx(world.now(), abs=1),
            "revision": world.servers["gns1"].nameserver.catalogue.revision - 1,
            "row": "alert",
            "id": ALERT,
            "kind": "failure",
            "opened_at": pytest.approx(world.now(), abs=1),
            "text": "it is down",
        },
        {
            "event": "resolved",
            "message": ids(server)[1],
            "server": "gns1",
            "time": pytest.approx(world.now(), abs=1),
            "revision": world.servers["gns1"].nameserver.catalogue.revision,
            "row": "alert",
            "id": ALERT,
            "kind": "failure",
            "opened_at": pytest.approx(world.now(), abs=1),
            "text": "it is down",
            "resolved_at": pytest.approx(world.now(), abs=1),
        },
    ]
    assert [line for line in log if "alert" in line] == ["warn: alert: it is down", "info: alert over: it is down"]


def test_a_channel_that_is_down_for_hours_is_tried_repeatedly(
    world: Uss, server: SimulatedServer, log: list[str]
) -> None:
    """The channel then gets one message for the incident; the log has each attempt and that the channel works again."""
    world.receiving = unreachable
    incident(world)
    world.run(5 * HOUR)
    status = world.admin().ask(Ways()).ways[0]
    assert (status.pending, status.told_at, status.problem, status.tells) == (1, 0.0, "nothing listens there", True)
    assert 60 < status.attempts < 120
    assert (
        len([line for line in log if line.startswith("warn: command failed: nothing listens there; next attempt in")])
        > 60
    )
    world.receiving = None
    world.run(PAUSE_SECONDS_MAX)
    assert said(server) == ["opened"]
    assert [line for line in log if "works again" in line] == [
        f"info: command works again, after {status.attempts} failed attempts"
    ]
    incident(world, text="")
    assert said(server) == ["opened", "resolved"]


def test_an_incident_that_was_over_before_mail_worked_is_one_message(world: Uss, server: SimulatedServer) -> None:
    """A single message says both; an incident whose beginning was sent has two messages."""
    world.receiving = unreachable
    incident(world)
    world.run(600.0)
    incident(world, text="")
    world.run(600.0)
    world.receiving = None
    world.run(PAUSE_SECONDS_MAX)
    assert said(server) == ["passed"]


def test_a_receiver_that_hangs_is_given_up_and_gets_the_same_again(world: Uss, server: SimulatedServer) -> None:
    """The receiver may have accepted it: the id is the same, and what happened since is a message of its own."""
    seen: list[Message] = []

    def hang(message: Message) -> Deferred[None]:
        seen.append(message)
        return Deferred()

    world.receiving = hang
    incident(world)
    incident(world, text="")
    world.run(ATTEMPT_SECONDS + 3.0)
    assert len(seen) == 2 and seen[0] == seen[1]
    assert f"no answer within {ATTEMPT_SECONDS:g} s" in world.admin().ask(Ways()).ways[0].problem
    world.receiving = None
    world.run(ATTEMPT_SECONDS + PAUSE_SECONDS_MAX)
    assert said(server) == ["opened", "resolved"] and ids(server)[0] == seen[0].id


def test_a_rejected_message_is_logged_and_the_next_one_is_sent(
    world: Uss, server: SimulatedServer, log: list[str]
) -> None:
    """A mailbox that no longer exists does not block the channel for ever."""
    world.receiving = lambda message: fail(DeliveryFailed("550 no such user", final=True))
    incident(world)
    assert "error: command: message dropped, the receiver rejected it: ALERT: it is down (550 no such user)" in log
    world.receiving = None
    incident(world, text="")
    assert said(server) == ["resolved"]


def test_a_defect_of_a_channel_is_contained(world: Uss, server: SimulatedServer, log: list[str]) -> None:
    """The defect is logged with its traceback, and nothing else is affected."""

    def broken(message: Message) -> Deferred[None]:
        raise ZeroDivisionError

    world.receiving = broken
    incident(world)
    assert next(line for line in log if "defect" in line) == "critical: command: a defect prevented a message"
    world.receiving = None
    incident(world, "failure other", "other")
    assert said(server) == ["opened"]


@pytest.mark.parametrize("receiving", [None, unreachable])
def test_ten_thousand_incidents_at_once_are_few_messages(world: Uss, receiving: Any, log: list[str]) -> None:
    """This holds whether the channel works or not; the log says what was sent in one message."""
    world.server()
    world.admin()
    teller = world.servers["gns1"].nameserver.components.alerts._channels[0]
    teller._outbox._per_minute = 10
    world.receiving = receiving
    commits = world.servers["gns1"].nameserver.commits
    done = [commits.submit(Incident(f"failure {n}", f"{n}"), Principal("server", "gns1", "")) for n in range(10_000)]
    for one in done:
        world.wait(one)
    world.run(120.0)
    world.receiving = None
    world.run(PAUSE_SECONDS_MAX)
    news = said(world.servers["gns1"])
    assert len(news) <= 12
    assert any("command: sent in one message" in line for line in log)
    counted = sum(sum(msgspec.json.decode(item).get("counts", {"": 1}).values()) for item in world.servers["gns1"].news)
    assert counted == 10_000


def test_a_restarted_server_sends_what_was_not_sent(world: Uss, server: SimulatedServer) -> None:
    """The server also sends what was over meanwhile, and nothing twice: the log has what followed the progress."""
    incident(world, "failure told", "told")
    world.run(1.0)
    world.receiving = unreachable
    incident(world, "failure open", "open")
    incident(world, "failure passed", "passed")
    incident(world, "failure passed", "")
    incident(world, "failure told", "")
    world.run(60.0)
    world.servers["gns1"].crash()
    world.receiving = None
    again = world.server()
    world.admin()
    world.run(TAKEN_OVER_SECONDS)
    assert said(server) == ["opened"]
    assert said(again) == ["opened", "passed", "resolved"]
    again.crash()
    third = world.server()
    world.admin()
    world.run(10.0)
    assert said(third) == []


def test_a_message_of_a_crashed_server_is_repeated_with_the_same_id(world: Uss, server: SimulatedServer) -> None:
    """Delivery is at least once: a receiver recognizes the repetition by its id."""
    server.beside.hanging = True
    incident(world)
    assert said(server) == ["opened"]
    server.crash()
    again = world.server()
    world.admin()
    world.run(TAKEN_OVER_SECONDS)
    assert ids(again) == ids(server)


def test_a_new_channel_sends_what_is_open(world: Uss, server: SimulatedServer) -> None:
    """An operator who has just configured mail sees at once that it works, and which incidents are open."""
    incident(world, "failure a", "a")
    incident(world, "failure b", "b")
    incident(world, "failure b", "")
    server.crash()
    roster = world.roster()
    world.store._transaction(lambda connection: connection.exec_driver_sql("DELETE FROM told"), writes=True)
    assert roster.alert_progress("command") is None
    again = world.server()
    world.admin()
    world.run(TAKEN_OVER_SECONDS)
    assert said(again) == ["opened"]


def test_when_the_log_is_trimmed_what_is_open_is_sent(world: Uss, server: SimulatedServer, log: list[str]) -> None:
    """Incidents that had passed before are lost, and the log says so."""
    world.receiving = unreachable
    incident(world, "failure a", "a")
    incident(world, "failure passed", "passed")
    incident(world, "failure passed", "")
    server.crash()
    world.store.trim(1, 1)
    world.receiving = None
    again = world.server()
    world.admin()
    world.run(TAKEN_OVER_SECONDS)
    assert said(again) == ["opened"]
    assert any("the update log does not reach back" in line for line in log)


def test_of_several_servers_one_sends_and_another_continues_after_a_crash(world: Uss) -> None:
    """Any server may commit the incident. What was not sent before a crash another server sends some seconds later."""
    servers = {name: world.server(name) for name in ("gns1", "gns2", "gns3")}
    for name in servers:
        world.admin(name)
    world.run(SILENT_BEATS + TAKE_OVER_SECONDS)
    for number, name in enumerate(servers):
        incident(world, f"failure {number}", "x", name)
    world.run(2.0)
    tellers = [name for name, server in servers.items() if server.news]
    assert len(tellers) == 1 and said(*servers.values()) == ["opened"] * 3
    told = [name for name in servers if world.admin(name).ask(Ways()).ways[0].tells]
    assert told == tellers
    world.receiving = unreachable
    others = [name for name in servers if name not in tellers]
    incident(world, "failure late", "late", others[0])
    incident(world, "failure 0", "", others[0])
    world.run(2.0)
    world.servers[tellers[0]].crash()
    world.receiving = None
    world.run(SILENT_BEATS + TAKE_OVER_SECONDS + 5.0)
    rest = [servers[name] for name in others]
    # The silence of the server that crashed is an incident of its own.
    assert sorted(said(*rest)) == ["opened", "opened", "resolved"]
    assert len([server for server in rest if server.news]) == 1


def test_a_server_that_joins_sends_nothing_twice(world: Uss, server: SimulatedServer) -> None:
    """The new server may own the channel from then on; the owner before has recorded what it sent."""
    incident(world)
    world.run(1.0)
    others = [world.server(name) for name in ("gns2", "gns3", "gns4")]
    world.run(20.0)
    incident(world, text="")
    world.run(5.0)
    assert sorted(said(server, *others)) == ["opened", "resolved"]


def test_an_unavailable_store_delays_no_message(world: Uss, server: SimulatedServer) -> None:
    """The progress is recorded later; a server that starts waits until it knows the progress."""
    from compass.model.interfaces import StoreUnavailable

    server.beside.failing = StoreUnavailable("away")
    incident(world)
    assert said(server) == ["opened"]
    incident(world, text="")
    assert said(server) == ["opened", "resolved"]
    server.beside.failing = None
    world.run(NOTE_EVERY_SECONDS)
    server.stop()
    again = world.server()
    world.admin()
    world.run(10.0)
    assert said(again) == []


def test_an_administrator_tests_the_channels(world: Uss, server: SimulatedServer) -> None:
    """`try-ways`: each channel has succeeded or failed when the reply comes, before the client gives up."""
    admin = world.admin()
    tried = admin.ask(TryWays())
    assert isinstance(tried, WaysTried) and [(way.name, way.problem) for way in tried.ways] == [("command", "")]
    assert said(server) == ["test"]
    world.receiving = unreachable
    assert admin.ask(TryWays("command")).ways[0].problem == "nothing listens there"
    world.receiving = lambda message: Deferred()
    began = world.now()
    assert admin.ask(TryWays()).ways[0].problem == f"no answer within {ALERT_TEST_SECONDS:g} s"
    assert world.now() - began < ALERT_TEST_SECONDS + 1


def test_only_one_administrator_tests_them_at_a_time(world: Uss, server: SimulatedServer) -> None:
    """`busy`: a test is a message outside of all limits."""
    world.receiving = lambda message: Deferred()
    first, second = world.admin(), world.admin()
    first.send(TryWays())
    world.run(0.1)
    refused = second.ask(TryWays())
    assert isinstance(refused, Refusal) and refused.code == "busy"


def test_an_unknown_channel_is_refused_with_the_names_of_the_others(world: Uss, server: SimulatedServer) -> None:
    """`unknown-way`."""
    refused = world.admin().ask(TryWays("pager"))
    assert isinstance(refused, Refusal) and refused.code == "unknown-way" and "there are: command" in refused.message
    ways = world.admin().ask(Ways())
    assert isinstance(ways, WayList) and ways.ways[0].way == "command"


def test_only_administrators_may_try_them(world: Uss, server: SimulatedServer) -> None:
    """Hosts may not read the state of the channels either."""
    host = world.client(("host", "web1"))
    assert [host.ask(request).code for request in (TryWays(), Ways())] == ["forbidden", "forbidden"]
