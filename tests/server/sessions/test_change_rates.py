"""Change rates: what one credential and one host may have committed in a second (P10)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from compass.agent.registration.journal import REGISTRATIONS_MAX
from compass.model.limits import HOST_SERVICES_MAX, LISTENERS_PER_SERVICE_MAX
from compass.model.replies import Deregistered, Refusal, Registered, Reported, Watching
from compass.model.requests import Deregister, Drain, Register, Watch
from compass.server.sessions import rate_limit, request_limits
from compass.server.sessions.rate_limit import (
    CREDENTIAL_CHANGES_BURST_MAX,
    HOST_CHANGES_BURST_MAX,
    WATCH_CHANGES_BURST_MAX,
    ChangeRates,
    Rate,
    TokenBuckets,
)
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, register
from tests.support.virtual_world import Client

ACCOUNT = "account.openuso"


FEW, MANY = Rate(1, 5), Rate(1, 1000)


def served(world: Uss, *, credential: Rate = FEW, host: Rate = MANY) -> Client:
    """Start a server of these rates; return a host's session."""
    world.wait(world.server(change_rates=ChangeRates(credential, host)).started)
    return world.client(("host", "web1"))


def changes(world: Uss, client: Client, epochs: range, service: str = CHINA) -> list[Any]:
    """Register a listener once for each epoch, all sent at once; return the replies."""
    numbers = [client.send(Register(service, world.tokens[service], "192.168.2.1", 2028, n)) for n in epochs]
    world.until(lambda: all(number in client.replies for number in numbers))
    return [client.replies[number] for number in numbers]


def test_a_bucket_has_a_burst_and_a_rate() -> None:
    """The last token of the burst is there, the next one is not before its time; one may be overdrawn."""
    clock: Any = Clock()
    buckets = TokenBuckets(clock, Rate(2.0, 3))
    assert [buckets.take("one") for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 0.5]
    assert buckets.take("other") == 0.0
    clock.advance(0.25)
    assert buckets.take("one") == 0.25
    buckets.put_back("one")
    assert [buckets.take("one"), buckets.take("one")] == [0.0, 0.25]
    assert buckets.take("one", overdraw=True) == 0.0
    assert buckets.take("one") == 0.75
    clock.advance(100)
    buckets.take("two")
    assert len(buckets) == 1


def test_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the bucket that was used the longest time ago is dropped; a full bucket needs no room."""
    monkeypatch.setattr(rate_limit, "BUCKETS_MAX", 3)
    clock: Any = Clock()
    buckets = TokenBuckets(clock, Rate(1.0, 2))
    for name in ("a", "b", "a", "c", "d"):
        assert buckets.take(name) == 0.0
    assert len(buckets) == 3 and buckets.take("a") == 1.0
    buckets.put_back("d")
    assert len(buckets) == 2


def test_one_credential_has_a_burst_and_then_a_rate(world: Uss) -> None:
    """W5: the burst is committed, one more is refused with the time to wait; after it the same request is accepted."""
    client = served(world)
    replies = changes(world, client, range(1, 8))
    assert [type(reply) for reply in replies[:5]] == [Registered] * 5
    assert [reply.code for reply in replies[5:]] == ["busy"] * 2
    assert 0 < replies[5].retry_after_seconds <= 1.0
    assert CHINA in replies[5].message and "5 listeners at once" in replies[5].message
    # The credential counts from whichever host, and another credential is not affected.
    assert register(world, world.client(("host", "web2")), epoch=9).code == "busy"
    assert isinstance(register(world, client, ACCOUNT, port=1), Registered)
    world.run(replies[5].retry_after_seconds)
    assert isinstance(register(world, client, epoch=9), Registered)


def test_one_host_has_a_rate_for_all_its_credentials(world: Uss) -> None:
    """Two services share what their host may do; a service on another host does not."""
    client = served(world, credential=Rate(1, 1000), host=Rate(1, 4))
    assert isinstance(changes(world, client, range(1, 4))[-1], Registered)
    assert isinstance(register(world, client, ACCOUNT, port=1), Registered)
    refusal = register(world, client, ACCOUNT, port=2)
    assert refusal.code == "busy" and "host 'web1'" in refusal.message
    assert isinstance(register(world, world.client(("host", "web2")), ACCOUNT, port=2), Registered)


def test_what_changes_nothing_costs_nothing(world: Uss) -> None:
    """Repeated registrations, wrong credentials and refused requests use up nothing of the rate."""
    client = served(world, host=Rate(1, 5))
    for _ in range(20):
        register(world, client)
        client.ask(Register(CHINA, "wrong", "192.168.2.1", 2028, 5))
        client.ask(Register(CHINA, world.tokens[CHINA], "192.168.2.1", 0, 5))
    assert [type(reply) for reply in changes(world, client, range(2, 6))] == [Registered] * 4
    assert isinstance(changes(world, client, range(6, 7))[0], Refusal)


def test_drains_count_too(world: Uss) -> None:
    """A listener cannot be drained and undrained without end."""
    client = served(world)
    register(world, client)
    drain = Drain(CHINA, "192.168.2.1", 2028, True, world.tokens[CHINA])
    undrain = Drain(CHINA, "192.168.2.1", 2028, False, world.tokens[CHINA])
    replies = [client.ask(request) for request in (drain, undrain, drain, undrain, drain)]
    assert [type(reply) for reply in replies] == [Reported] * 4 + [Refusal]


def test_a_death_that_its_host_saw_is_never_refused(world: Uss) -> None:
    """P9: with all tokens used up; a death that its host did not register waits like every change."""
    client = served(world)
    assert isinstance(changes(world, client, range(1, 8))[-1], Refusal)
    died = Deregister(CHINA, world.tokens[CHINA], "192.168.2.1", 2028, 5, True)
    assert world.client(("host", "web2")).ask(died).code == "busy"
    assert client.ask(Deregister(CHINA, world.tokens[CHINA], "192.168.2.1", 2028, 6, True)).code == "busy"
    assert isinstance(client.ask(died), Deregistered)


def test_a_registration_cannot_pay_for_itself_with_a_death(world: Uss) -> None:
    """Deaths of replaced instances return no token that was not taken."""
    client = served(world)
    token = world.tokens[CHINA]
    sent = []
    for n in range(1, 30):
        sent.append(client.send(Register(CHINA, token, "192.168.2.1", 2028, n)))
        sent.append(client.send(Deregister(CHINA, token, "192.168.2.1", 2028, n, True)))
    world.until(lambda: all(number in client.replies for number in sent))
    accepted = [number for number in sent if isinstance(client.replies[number], Registered)]
    assert len(accepted) <= 5


def test_changes_of_what_a_host_watches_have_a_rate(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that changes the host's row needs a token; one that does not is answered without any."""
    monkeypatch.setattr(request_limits, "WATCH_CHANGES_BURST_MAX", 5)
    client = served(world)
    assert [type(client.ask(Watch((f"s{n}.web",)))) for n in range(5)] == [Watching] * 5
    refusal = client.ask(Watch(("s5.web",)))
    assert refusal.code == "busy" and 0 < refusal.retry_after_seconds <= 1.0
    assert isinstance(client.ask(Watch(("s4.web",))), Watching)
    world.run(refusal.retry_after_seconds)
    assert isinstance(client.ask(Watch(("s5.web",))), Watching)


def test_a_start_of_a_large_host_is_within_the_rates() -> None:
    """An agent may register all its listeners after two restarts in a row, and watch again for each service."""
    assert 2 * REGISTRATIONS_MAX <= HOST_CHANGES_BURST_MAX
    assert LISTENERS_PER_SERVICE_MAX <= CREDENTIAL_CHANGES_BURST_MAX
    assert HOST_SERVICES_MAX <= WATCH_CHANGES_BURST_MAX
