"""Users of one host: what one of them asks for takes nothing from the others."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from compass.agent import local_users
from compass.agent.local_users import LocalUsers
from compass.agent.registration import journal
from compass.model.host_api import LocalRegister
from compass.model.replies import Refusal
from compass.system.peer_credentials import UNKNOWN_USER
from tests.agent.test_lifecycle import CHINA, ports, state_of, web, wish
from tests.support.agent_world import Hosts

MALLORY, ALICE, ROOT = 12345, 1000, 0


@pytest.fixture
def tokens(world: Hosts) -> dict[str, str]:
    return world.uss()


@pytest.fixture
def clock() -> Any:
    return Clock()


# -- limits


def test_the_connections_of_one_user_are_bounded(clock: Any) -> None:
    """The last one within the limit is accepted and the next is not; other users, and root, are not affected."""
    users = LocalUsers(clock, frozenset({ROOT}), connections_max=40, connections_per_user_max=2)
    assert [users.connect(MALLORY) for _ in range(3)] == [MALLORY, MALLORY, None]
    assert users.connect(ALICE) == ALICE
    users.disconnect(MALLORY)
    assert users.connect(MALLORY) == MALLORY
    assert [users.connect(ROOT) for _ in range(3)] == [ROOT] * 3


def test_the_last_connections_are_kept_for_root(clock: Any) -> None:
    """However many users there are, an eighth of all connections is root's."""
    users = LocalUsers(clock, frozenset({ROOT}), connections_max=16, connections_per_user_max=2)
    accepted = [users.connect(user) for user in range(1000, 1020)]
    assert accepted.count(None) == 6
    assert [users.connect(ROOT) for _ in range(3)] == [ROOT, ROOT, None]


def test_users_beyond_the_number_that_is_counted_are_one(clock: Any, monkeypatch: Any) -> None:
    """They share the count of the unknown user, and give back what they took from it."""
    monkeypatch.setattr(local_users, "USERS_MAX", 2)
    users = LocalUsers(clock, connections_max=40, connections_per_user_max=2)
    assert [users.connect(user) for user in (1, 2, 3, 4, 5)] == [1, 2, UNKNOWN_USER, UNKNOWN_USER, None]
    for user in (1, 2, UNKNOWN_USER, UNKNOWN_USER):
        users.disconnect(user)
    clock.advance(61)
    assert users.connect(6) == 6


def test_requests_beyond_a_user_s_share_wait_for_their_turn(clock: Any) -> None:
    """A burst is answered at once, later requests at the rate, and what would wait too long gets no turn."""
    users = LocalUsers(clock, frozenset({ROOT}))
    waits = [users.turn(MALLORY, 1) for _ in range(local_users.REQUESTS_BURST_MAX + 1)]
    assert waits[:-1] == [0.0] * local_users.REQUESTS_BURST_MAX
    assert waits[-1] == pytest.approx(1 / local_users.REQUESTS_PER_SECOND_MAX)
    most = int(local_users.REQUESTS_BEHIND_SECONDS_MAX * local_users.REQUESTS_PER_SECOND_MAX)
    assert users.turn(MALLORY, most) is None
    assert users.turn(MALLORY, most - 1) == pytest.approx(local_users.REQUESTS_BEHIND_SECONDS_MAX)
    assert users.turn(ALICE, 1) == users.turn(ROOT, 10**6) == 0.0
    clock.advance(60)
    assert users.turn(MALLORY, 1) == 0.0


def test_waiting_is_bounded_for_each_user_and_for_all(clock: Any, monkeypatch: Any) -> None:
    """What root asks is sent in any case; an answer makes room."""
    monkeypatch.setattr(local_users, "WAITING_PER_USER_MAX", 2)
    monkeypatch.setattr(local_users, "WAITING_MAX", 3)
    users, answers = LocalUsers(clock, frozenset({ROOT})), list[Deferred[Any]]()

    def ask(user: int) -> Any:
        def request(guesses: bool) -> Deferred[Any]:
            answers.append(Deferred())
            return answers[-1]

        found: list[Any] = []
        users.ask(user, request).addCallback(found.append)
        return found[0].code if found else "waits"

    assert [ask(user) for user in (MALLORY, MALLORY, MALLORY, ALICE, 1001, ROOT, ROOT)] == [
        *("waits", "waits", "busy", "waits", "busy", "waits", "waits")
    ]
    answers[0].callback(Refusal("bad-credential", "no"))
    assert ask(MALLORY) == "waits"


# -- registrations


def test_a_user_who_has_guessed_writes_nothing_to_disk(
    world: Hosts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a wrong credential a registration is in the journal only once a server has accepted it."""
    provider, written = world.daemon("provider"), list[str]()
    keep = journal.RegistrationJournal._write
    monkeypatch.setattr(
        journal.RegistrationJournal,
        "_write",
        lambda self, entries: written.append("") or keep(self, entries),  # type: ignore[func-returns-value]
    )
    assert world.wait(provider.register(wish("x"), MALLORY)).code == "bad-credential"
    written.clear()
    for number in range(5):
        assert world.wait(provider.register(wish(f"x{number}", port=1 + number), MALLORY)).code == "bad-credential"
    assert not written
    assert world.wait(provider.register(wish(tokens[CHINA], pid=1), MALLORY)).state == "up" and written
    world.processes["provider"].kill(1)
    world.run(0.1)
    assert state_of(world) == "offline"


def test_no_guess_takes_the_place_of_a_death_that_no_server_has_heard_of(world: Hosts, tokens: dict[str, str]) -> None:
    """A process that dies while its server is away stays dead, whatever a user registers in its place meanwhile."""
    user, provider = web(world), world.daemon("provider")
    world.processes["provider"].start(7)
    world.wait(provider.register(wish(tokens[CHINA], pid=7)))
    world.fall()
    world.processes["provider"].kill(7)
    assert world.wait(provider.register(wish("wrong"), MALLORY)).code == "unreachable"
    world.serve()
    world.run(5)
    assert state_of(world) == "offline" and provider.status().registrations == ()
    assert ports(user)[0] == "none"


def test_a_user_without_a_credential_fills_no_journal(
    world: Hosts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no server can be asked, others register after one user has registered all that one user may."""
    monkeypatch.setattr(journal, "PENDING_PER_USER_MAX", 3)
    provider = world.daemon("provider")
    world.fall()

    def register(user: int, port: int) -> str:
        answer = world.wait(provider.register(LocalRegister(CHINA, port, tokens[CHINA]), user))
        return str(answer.code if isinstance(answer, Refusal) else answer.state)

    assert [register(MALLORY, 1 + n) for n in range(4)] == ["pending"] * 3 + ["busy"]
    assert register(ALICE, 80) == "pending"
    world.serve()
    world.run(5)
    assert register(MALLORY, 4) == "up"
