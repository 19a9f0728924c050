"""Telling administrators over hours, restarts and deaths of servers, on virtual time and a real store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, fail
from twisted.logger import formatEvent, globalLogPublisher

from compass.model.cluster import SILENT_BEATS
from compass.model.replies import Refusal, WayList, WaysTried
from compass.model.requests import Incident, TryWays, Ways
from compass.model.rules.draft import Principal
from compass.server.alerts.notifier import (
    ATTEMPT_SECONDS,
    NOTE_EVERY_SECONDS,
    TAKE_OVER_SECONDS,
    TRY_SECONDS,
    DeliveryFailed,
)
from compass.server.alerts.outbox import PAUSE_SECONDS_MAX, Message
from tests.server.conftest import Uss
from tests.support.virtual_world import SimulatedServer

ALERT = "failure store.disk 192.0.2.1:1"
HOUR = 3600.0
TAKEN_OVER_SECONDS = SILENT_BEATS + 1 + TAKE_OVER_SECONDS + 1
"""After which another server tells in the place of one that died."""


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
    """What a test logs."""
    with logged() as lines:
        yield lines


@pytest.fixture
def server(world: Uss) -> SimulatedServer:
    """One server that serves."""
    server = world.server()
    world.admin()
    return server


def incident(world: Uss, id: str = ALERT, text: str = "it is down", server: str = "gns1") -> None:
    """One begins, or is over (no text), as the failure desk has it."""
    nameserver = world.servers[server].nameserver
    world.wait(nameserver.commits.submit(Incident(id, text), Principal("server", server, "")))
    # The message leaves in the same moment; its receiver has it a moment later.
    world.run(0.001)


def said(*servers: SimulatedServer) -> list[str]:
    """What arrived: event, and of a digest the counts."""
    news = [msgspec.json.decode(item) for server in servers for item in server.news]
    return [item["event"] + (f" {item['counts']}" if "counts" in item else "") for item in news]


def ids(*servers: SimulatedServer) -> list[str]:
    return [msgspec.json.decode(item)["message"] for server in servers for item in server.news]


def unreachable(message: Message) -> Deferred[None]:
    return fail(DeliveryFailed("nobody listens there"))


def test_an_incident_is_told_when_it_begins_and_when_it_is_over(
    world: Uss, server: SimulatedServer, log: list[str]
) -> None:
    """By the way that is configured, and in the log."""
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


def test_a_way_that_is_down_for_hours_is_tried_again_and_again(
    world: Uss, server: SimulatedServer, log: list[str]
) -> None:
    """Then it gets one message for the incident, and the log has told each attempt and that it works again."""
    world.receiving = unreachable
    incident(world)
    world.run(5 * HOUR)
    status = world.admin().ask(Ways()).ways[0]
    assert (status.pending, status.told_at, status.problem, status.tells) == (1, 0.0, "nobody listens there", True)
    assert 60 < status.attempts < 120
    assert (
        len([line for line in log if line.startswith("warn: command failed: nobody listens there; next attempt in")])
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


def test_an_incident_that_was_over_before_mail_worked_is_told_as_both(world: Uss, server: SimulatedServer) -> None:
    """Once; one that ends after its beginning was told is told twice."""
    world.receiving = unreachable
    incident(world)
    world.run(600.0)
    incident(world, text="")
    world.run(600.0)
    world.receiving = None
    world.run(PAUSE_SECONDS_MAX)
    assert said(server) == ["passed"]


def test_a_receiver_that_hangs_is_given_up_and_gets_the_same_again(world: Uss, server: SimulatedServer) -> None:
    """It may have taken it: the id is the same, and what happened since comes in a message of its own."""
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


def test_a_message_that_is_refused_is_told_in_the_log_and_the_next_one_goes(
    world: Uss, server: SimulatedServer, log: list[str]
) -> None:
    """So one mailbox that is gone does not hold up anything for ever."""
    world.receiving = lambda message: fail(DeliveryFailed("550 no such user", final=True))
    incident(world)
    assert "error: command: message dropped, the receiver rejected it: ALERT: it is down (550 no such user)" in log
    world.receiving = None
    incident(world, text="")
    assert said(server) == ["resolved"]


def test_a_defect_of_a_way_is_contained(world: Uss, server: SimulatedServer, log: list[str]) -> None:
    """It is told with its traceback, and nothing else is affected."""

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
    """Whether the way works or not; the log says what was told in one message."""
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


def test_a_server_that_is_started_again_tells_what_was_not_told(world: Uss, server: SimulatedServer) -> None:
    """Also what was over meanwhile, and never what was told: the log says what happened after the last that was."""
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


def test_what_was_told_when_its_server_died_comes_again_with_the_same_id(world: Uss, server: SimulatedServer) -> None:
    """At least once: whoever receives it tells the repetition by its id."""
    server.beside.hanging = True
    incident(world)
    assert said(server) == ["opened"]
    server.crash()
    again = world.server()
    world.admin()
    world.run(TAKEN_OVER_SECONDS)
    assert ids(again) == ids(server)


def test_a_way_that_is_new_tells_what_is_open(world: Uss, server: SimulatedServer) -> None:
    """Nothing is known of it: an operator who has just configured mail sees at once that it works, and why."""
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


def test_when_the_log_is_trimmed_what_is_open_is_told(world: Uss, server: SimulatedServer, log: list[str]) -> None:
    """What had passed before is lost, and the log says so."""
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


def test_of_several_servers_one_tells_and_another_goes_on_when_it_dies(world: Uss) -> None:
    """Whichever committed it. What was not told when it died is told by another one some seconds later."""
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
    assert sorted(said(*rest)) == ["opened", "resolved"]
    assert len([server for server in rest if server.news]) == 1


def test_a_server_that_joins_tells_nothing_twice(world: Uss, server: SimulatedServer) -> None:
    """It may be the one that tells from then on; the one before has written down what it told."""
    incident(world)
    world.run(1.0)
    others = [world.server(name) for name in ("gns2", "gns3", "gns4")]
    world.run(20.0)
    incident(world, text="")
    world.run(5.0)
    assert sorted(said(server, *others)) == ["opened", "resolved"]


def test_a_store_that_is_away_holds_nothing_up_for_long(world: Uss, server: SimulatedServer) -> None:
    """What was told is written down later; a server that starts waits until it knows what was told."""
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


def test_an_administrator_tries_the_ways(world: Uss, server: SimulatedServer) -> None:
    """`try-ways`: each has succeeded or failed when the reply comes, before whoever asked gives up."""
    admin = world.admin()
    tried = admin.ask(TryWays())
    assert isinstance(tried, WaysTried) and [(way.name, way.problem) for way in tried.ways] == [("command", "")]
    assert said(server) == ["test"]
    world.receiving = unreachable
    assert admin.ask(TryWays("command")).ways[0].problem == "nobody listens there"
    world.receiving = lambda message: Deferred()
    began = world.now()
    assert admin.ask(TryWays()).ways[0].problem == f"no answer within {TRY_SECONDS:g} s"
    assert world.now() - began < TRY_SECONDS + 1


def test_only_one_administrator_tries_them_at_a_time(world: Uss, server: SimulatedServer) -> None:
    """`busy`: a test is a message outside of all limits."""
    world.receiving = lambda message: Deferred()
    first, second = world.admin(), world.admin()
    first.send(TryWays())
    world.run(0.1)
    refused = second.ask(TryWays())
    assert isinstance(refused, Refusal) and refused.code == "busy"


def test_a_way_that_is_not_there_is_refused_with_those_that_are(world: Uss, server: SimulatedServer) -> None:
    """`unknown-way`."""
    refused = world.admin().ask(TryWays("pager"))
    assert isinstance(refused, Refusal) and refused.code == "unknown-way" and "there are: command" in refused.message
    ways = world.admin().ask(Ways())
    assert isinstance(ways, WayList) and ways.ways[0].way == "command"


def test_only_administrators_may_try_them(world: Uss, server: SimulatedServer) -> None:
    """And hosts may not even look."""
    host = world.client(("host", "web1"))
    assert [host.ask(request).code for request in (TryWays(), Ways())] == ["forbidden", "forbidden"]
