"""Two machines with the certificate of one host (W11)."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.replies import Refusal, Watching
from compass.model.requests import Fetch, Status, Watch
from compass.server.push import rivals
from compass.server.push.rivals import REPLACED_FREE_MAX, REPLACED_SECONDS, RIVAL_QUIET_SECONDS, RIVAL_SECONDS_MAX
from tests.server.alerts.test_notifier import logged
from tests.server.conftest import Uss
from tests.support.virtual_world import Client


@pytest.fixture
def served(world: Uss) -> Uss:
    world.wait(world.server().started)
    return world


def come(world: Uss, instance: str) -> tuple[Client, Any]:
    """Connect and watch as a daemon of host web2; return the session and the reply."""
    client = world.client(("host", "web2"))
    return client, client.ask(Watch(("portal.web",), instance=instance))


def pause_of(world: Uss, client: Client) -> float:
    """Return the pause that the goodbye to a daemon that is put out asks for."""
    world.until(lambda: client.ended is not None)
    assert client.ended is not None and "replaced by a newer session" in client.ended.reason
    return client.ended.retry_after_seconds


def alerts(world: Uss) -> list[str]:
    return [alert.text for alert in world.admin().ask(Fetch("alert")).rows]


def revision(world: Uss) -> int:
    revision: int = world.admin().ask(Status()).revision
    return revision


def fight(world: Uss, instances: tuple[str, str] = ("one", "two")) -> Client:
    """Let two daemons replace each other until one more pair would have to wait; return the last session."""
    last, _ = come(world, instances[0])
    for n in range(REPLACED_FREE_MAX):
        new, reply = come(world, instances[1 - n % 2])
        assert isinstance(reply, Watching) and pause_of(world, last) == 0.0
        last = new
    return last


@pytest.mark.parametrize("instances", [("one", "two"), ("", "")], ids=["new", "old"])
def test_rivals_are_slowed_down_and_alerted(served: Uss, instances: tuple[str, str]) -> None:
    """The third replacement within a minute opens one incident; then pauses grow, and a refused rival commits nothing.
    Daemons of earlier versions do not name their runs."""
    world = served
    last = fight(world, instances)
    assert not alerts(world)
    with logged() as lines:
        third, reply = come(world, instances[1 - REPLACED_FREE_MAX % 2])
    assert isinstance(reply, Watching) and pause_of(world, last) == 1.0
    (alert,) = alerts(world)
    assert alert.startswith("two machines are web2: ") and sum(alert in line for line in lines) == 1
    before = revision(world)
    for _ in range(5):
        refused, reply = come(world, instances[0])
        assert isinstance(reply, Refusal | None)
        world.until(lambda refused=refused: refused.ended is not None)  # type: ignore[misc]
        assert refused.ended is not None and 0 < refused.ended.retry_after_seconds <= 1.0
        assert "two machines are web2" in refused.ended.reason
    assert third.ended is None and revision(world) == before
    pauses, last = [], third
    for n in range(8):
        world.run(RIVAL_SECONDS_MAX)
        new, reply = come(world, f"{instances[0]}{n}" if instances[0] else "")
        assert isinstance(reply, Watching)
        pauses.append(pause_of(world, last))
        last = new
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, RIVAL_SECONDS_MAX, RIVAL_SECONDS_MAX, RIVAL_SECONDS_MAX]
    assert alerts(world) == [alert]
    world.run(RIVAL_QUIET_SECONDS + 1.0)
    assert not alerts(world)
    assert isinstance(come(world, "three")[1], Watching)


def test_a_daemon_is_no_rival_of_itself(served: Uss) -> None:
    """A daemon whose connections are lost without a word comes back at once, however often."""
    last, _ = come(served, "one")
    for _ in range(3 * REPLACED_FREE_MAX):
        new, reply = come(served, "one")
        assert isinstance(reply, Watching) and pause_of(served, last) == 0.0
        last = new
    assert not alerts(served)


def test_the_same_daemon_may_come_back_while_a_rival_waits(served: Uss) -> None:
    """The pause is that of the other daemon."""
    fight(served)
    third, _ = come(served, "holder")
    again, reply = come(served, "holder")
    assert isinstance(reply, Watching) and pause_of(served, third) == 0.0
    assert again.ended is None


def test_replacements_are_forgotten_after_a_minute(served: Uss) -> None:
    """A machine that is moved now and then is no rival."""
    fight(served)
    served.run(REPLACED_SECONDS + 1.0)
    assert isinstance(come(served, "moved")[1], Watching)
    assert not alerts(served)


def test_an_incident_of_an_earlier_run_ends(served: Uss) -> None:
    """The server that opened it was restarted since."""
    fight(served)
    come(served, "third")
    served.run(0.5)
    served.servers["gns1"].crash()
    served.wait(served.server().started)
    assert len(alerts(served)) == 1
    served.run(RIVAL_QUIET_SECONDS + 1.0)
    assert [text.partition(":")[0] for text in alerts(served)] == ["host web2 has no session with a server"]


def test_the_hosts_that_are_counted_are_bounded(served: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the host that was counted first is forgotten."""
    monkeypatch.setattr(rivals, "HOSTS_COUNTED_MAX", 2)
    counted = served.servers["gns1"].nameserver.components.subscriptions.rivals
    for host in ("a", "b", "a", "c"):
        assert counted.replaced(host, "", "") == 0.0
    assert [counted.replaced(host, "", "") for host in ("b", "c", "b")] == [0.0, 0.0, 1.0]
