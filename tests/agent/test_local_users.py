"""Users of one host: what one of them asks for takes nothing from the others."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from compass.agent import local_users, report_checks
from compass.agent.local_users import LocalUsers
from compass.agent.registration import journal
from compass.agent.replica.replica import Replica
from compass.agent.replica.wanted_services import WANTED_PER_USER_MAX
from compass.agent.reports import CHECK_PATIENCE_SECONDS
from compass.model.host_api import LocalRegister, LocalReport
from compass.model.replies import Dependencies, Refusal
from compass.model.requests import Apply
from compass.model.rows import Listener, Service
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
    """Further users share the count of the unknown user, and return what they took from it."""
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
    """A request of root is sent in any case; an answer makes room."""
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
    """A process that dies while its server is down stays dead, whatever a user registers in its place meanwhile."""
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


# -- reports


def two_listeners(world: Hosts, tokens: dict[str, str]) -> Any:
    """A host that uses the two listeners of a service, which has a backup."""
    user, provider = web(world), world.daemon("provider")
    world.wait(provider.register(wish(tokens["rescue.backup"], "rescue.backup", 99)))
    for port in (1, 2):
        world.wait(provider.register(wish(tokens[CHINA], port=port)))
    world.run(0.05)
    assert ports(user) == ("service", {1, 2})
    return user


def report(port: int) -> LocalReport:
    return LocalReport(CHINA, "10.0.0.1", port)


def test_the_last_usable_listener_is_probed_before_it_is_hidden(world: Hosts, tokens: dict[str, str]) -> None:
    """Also with every server away: no word of a program leaves a service without the listener that serves."""
    user = two_listeners(world, tokens)
    world.fall()
    world.dead.add(("10.0.0.1", 1))
    world.wait(user.report(report(1), ALICE))
    assert ports(user) == ("service", {2})
    answer: list[Any] = []
    user.report(report(2), ALICE).addCallback(answer.append)
    assert ports(user) == ("service", {2})
    world.run(0.1)
    assert answer[0].state == "up" and ports(user) == ("service", {2})
    world.dead.add(("10.0.0.1", 2))
    assert world.wait(user.report(report(2), ALICE)).state == "pending"
    assert ports(user) == ("backup", {99})


def test_after_a_false_report_nothing_is_hidden_on_that_user_s_word(world: Hosts, tokens: dict[str, str]) -> None:
    """A healthy listener is back as soon as this host has probed it; the next report is checked before it counts."""
    user = two_listeners(world, tokens)
    world.fall()
    user.report(report(1), MALLORY)
    assert ports(user) == ("service", {2})
    world.run(0.1)
    assert ports(user) == ("service", {1, 2})
    sent = user.metrics().reports["refuted"]
    for _ in range(20):
        user.report(report(1), MALLORY)
        assert ports(user) == ("service", {1, 2})
        world.run(0.05)
    assert ports(user) == ("service", {1, 2}) and user.metrics().reports["refuted"] == sent + 20
    # Of another user, whose word is good, and of the same one about a listener that does not serve.
    user.report(report(2), ALICE)
    assert ports(user) == ("service", {1})
    world.run(0.1)
    world.dead.add(("10.0.0.1", 2))
    world.wait(user.report(report(2), MALLORY))
    assert ports(user) == ("service", {1})


def test_no_false_report_reaches_a_server(world: Hosts, tokens: dict[str, str]) -> None:
    """A listener that answers this host's own probe is not reported, not even once: the log has no row of a liar."""
    user = two_listeners(world, tokens)
    world.run(1)
    revision = world.catalogue.revision
    for _ in range(50):
        world.wait(user.report(report(1), MALLORY))
        world.wait(user.report(report(2), MALLORY))
    world.run(1)
    assert world.catalogue.revision == revision


@pytest.mark.parametrize("number", [1, 2])
def test_a_listener_that_hangs_is_reported_before_its_probe_ends(
    world: Hosts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A user who is believed waits a moment for the probe, whether it is the last usable listener or not; one who is
    not believed waits until it ends. If the probe finds it alive after all, the suspicion ends."""
    user = two_listeners(world, tokens)
    if number == 1:
        world.dead.add(("10.0.0.1", 2))
        world.wait(user.report(report(2), ALICE))
    probes: list[Deferred[str]] = []
    checks = world.hosts["user"].agent.components.reports._checks

    def probe(*_: object) -> Deferred[str]:
        probes.append(Deferred())
        return probes[-1]

    monkeypatch.setattr(checks, "_probe", probe)
    world.fall()
    answers: list[Any] = []
    user.report(report(1), MALLORY).addCallback(answers.append)
    assert (1 in ports(user)[1]) == (number == 1), "the last one is not hidden before it is probed"
    world.run(CHECK_PATIENCE_SECONDS + 0.001)
    assert answers[0].state == "pending" and 1 not in ports(user)[1]
    probes[0].callback("")
    assert 1 in ports(user)[1]
    user.report(report(1), MALLORY).addCallback(answers.append)
    world.run(1)
    assert len(answers) == 1 and 1 in ports(user)[1]
    probes[1].callback("connection refused")
    assert answers[1].state == "pending" and 1 not in ports(user)[1]


def test_reports_are_bounded_for_each_user(
    world: Hosts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one within the limit is accepted and the next is not; another user's report gets out."""
    monkeypatch.setattr(local_users, "REPORTS_PER_MINUTE_MAX", 3)
    user = two_listeners(world, tokens)
    world.dead.add(("10.0.0.1", 1))
    codes = [getattr(world.wait(user.report(report(9), MALLORY)), "code", "") for _ in range(4)]
    assert codes == ["unknown-listener"] * 3 + ["busy"]
    assert world.wait(user.report(report(1), ALICE)).state == "suspect"


def test_all_reports_of_a_host_are_bounded(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below what a server accepts of one host; what trusted users report gets out in any case."""
    monkeypatch.setattr(local_users, "ALL_REPORTS_PER_MINUTE_MAX", 3)
    users = LocalUsers(clock, frozenset({ROOT}))
    answers = [users.count_report(1000 + number) for number in range(4)]
    assert [answer and answer.code for answer in answers] == [None, None, None, "busy"]
    assert users.count_report(ROOT) is None


def test_a_refused_report_does_not_end_the_suspicion_of_another(world: Hosts, tokens: dict[str, str]) -> None:
    """A user whose report no server accepts brings no dead listener back."""
    user = two_listeners(world, tokens)
    world.fall()
    world.dead.add(("10.0.0.1", 1))
    world.wait(user.report(report(1), ALICE))
    world.serve()
    world.run(0.01)
    user.report(LocalReport(CHINA, "10.0.0.1", 1, detail="x" * 300), MALLORY)
    world.run(0.5)
    assert ports(user) == ("service", {2})


def test_the_probes_for_one_user_s_reports_are_bounded(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener has one probe at a time; beyond its number of probes a user waits, and the others do not."""
    monkeypatch.setattr(report_checks, "CHECKS_PER_USER_MAX", 2)
    monkeypatch.setattr(report_checks, "CHECKS_MAX", 3)
    probes: list[Deferred[str]] = []

    def probe(policy: Any, address: str, port: int) -> Deferred[str]:
        probes.append(Deferred())
        return probes[-1]

    checks, found = report_checks.ReportChecks(Replica(), probe, LocalUsers(clock)), list[Any]()

    def check(user: int, port: int) -> int:
        checks.check(Listener(CHINA, "10.0.0.1", port, "up", 0.0, 1), user).addCallback(found.append)
        return len(probes)

    assert [check(MALLORY, 1), check(MALLORY, 1), check(MALLORY, 2), check(MALLORY, 3)] == [1, 1, 2, 2]
    assert found == [None]
    assert [check(ALICE, 3), check(1001, 4)] == [3, 3] and found == [None, None]
    probes[0].callback("refused")
    assert found == [None, None, "refused", "refused"] and check(MALLORY, 5) == 4


def test_the_programs_of_one_user_that_watch_are_bounded(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one within the limit is accepted and the next is not; others watch, and an end makes room."""
    monkeypatch.setattr(local_users, "WATCHES_PER_USER_MAX", 2)
    monkeypatch.setattr(local_users, "WATCHES_MAX", 3)
    users = LocalUsers(clock, frozenset({ROOT}))
    begun = [users.watch(user, lambda: lambda: None) for user in (MALLORY, MALLORY, MALLORY, ALICE, 1001, ROOT)]
    assert [isinstance(one, Refusal) for one in begun] == [False, False, True, False, True, False]
    assert not isinstance(begun[0], Refusal)
    begun[0]()
    assert not isinstance(users.watch(MALLORY, lambda: lambda: None), Refusal)


# -- what is watched for


def test_names_that_do_not_exist_change_nothing_anywhere(world: Hosts, tokens: dict[str, str]) -> None:
    """No read and no guess of an invented service moves a revision, or what the host watches for."""
    user = web(world)
    world.run(1.5)
    revision = world.catalogue.revision
    for number in range(50):
        for name, code in ((f"x{number}.web", "unknown-service"), (f"x.y{number}", "unknown-category")):
            answer = world.wait(user.dependencies(name, MALLORY))
            assert isinstance(answer, Refusal) and answer.code == code
            watched = world.wait(user.watch(name, None, lambda event: None, MALLORY))
            assert isinstance(watched, Refusal) and watched.code == code
        world.wait(user.register(wish("x", f"x{number}.web"), MALLORY))
    world.run(3)
    assert world.catalogue.revision == revision
    assert user.status().services == ("www.web",) and user.status().registrations == ()


def test_what_a_host_watches_is_committed_at_most_once_a_second(world: Hosts, tokens: dict[str, str]) -> None:
    """The first service at once, those that follow together; each caller has its answer."""
    user = world.daemon("user")
    rows = [Service(f"s{number}.web") for number in range(30)]
    world.administer(Apply(tuple(rows)))
    world.run(1.5)
    revision, answers = world.catalogue.revision, list[Any]()
    for row in rows:
        user.dependencies(row.id, ALICE).addCallback(answers.append)
        world.run(0.05)
    world.run(2)
    assert [type(answer) for answer in answers] == [Dependencies] * 30
    assert world.catalogue.revision - revision <= 3
    assert set(world.catalogue.hosts["user"].services) == {row.id for row in rows}


def test_a_service_is_asked_for_while_no_server_is_there(world: Hosts, tokens: dict[str, str]) -> None:
    """Nothing is known of it yet; a server is asked on the next session, and only what exists is followed."""
    user = world.daemon("user")
    world.fall()
    for service in ("www.web", *(f"x{number}.web" for number in range(WANTED_PER_USER_MAX + 1))):
        answer = world.wait(user.dependencies(service, ALICE if service == "www.web" else MALLORY))
        assert isinstance(answer, Refusal) and answer.code == "not-ready" and answer.retry_after_seconds
    world.serve()
    assert len(world.hosts["user"].agent.components.asked) == 1 + WANTED_PER_USER_MAX
    revision = world.catalogue.revision
    world.run(5)
    assert user.status().services == ("www.web",) and len(world.hosts["user"].agent.components.asked) == 0
    assert [change.operation for change in world.store.changes_after(revision, 100)] == ["host-watch"]
    assert isinstance(world.wait(user.dependencies("www.web", ALICE)), Dependencies)


def test_a_server_that_cannot_say_whether_a_service_exists_is_asked_again(
    world: Hosts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question is repeated on the same session, after a pause."""
    user = world.daemon("user")
    upstream, refusals = world.hosts["user"].upstream, [Refusal("not-ready", "loading")] * 2
    ask = upstream.ask
    monkeypatch.setattr(upstream, "ask", lambda request: succeed(refusals.pop()) if refusals else ask(request))
    assert world.wait(user.dependencies("www.web", ALICE)).code == "not-ready"
    world.run(3)
    assert user.status().services == ("www.web",) and not refusals


def test_a_first_registration_is_one_commit(world: Hosts, tokens: dict[str, str]) -> None:
    """The host's row gains the service with it, and no watch that was sent before the reply takes it away again."""
    provider = world.daemon("provider")
    world.run(1.5)
    revision, answers = world.catalogue.revision, list[Any]()
    for port, service in enumerate((CHINA, "www.web", "one.openuso"), 8001):
        provider.register(wish(tokens[service], service, port)).addCallback(answers.append)
        world.run(0.003)
    world.run(90)
    assert [answer.state for answer in answers] == ["up"] * 3
    operations = [change.operation for change in world.store.changes_after(revision, 100)]
    assert operations == ["register", "host-watch"] * 3
    assert set(world.catalogue.hosts["provider"].services) == {CHINA, "www.web", "one.openuso"}
