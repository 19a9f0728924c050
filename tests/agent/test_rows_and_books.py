"""Rows and books: what the store has for a host, and what the host holds, agree from each session on (P6, P9)."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred

from compass.agent.registration.journal import FILE_NAME, Process, Registration, RegistrationJournal
from compass.agent.registration.sharing import SHARERS_MAX, SharedRegistrations
from compass.model.host_api import LocalDeregister, LocalRegister
from compass.model.replies import Refusal, Registered, Watching
from compass.model.requests import Disown, Register, RevokeCredential, Watch
from compass.model.rows import Instance, Listener
from compass.server.failure.holdings import CLAIM_SECONDS, CONTESTED, TROUBLE
from compass.wire.messages import Recorded
from tests.support.agent_world import ADDRESS, Hosts
from tests.support.virtual_world import SimulatedProcesses

CHINA = "chinaserver.openuss"
UNHELD = f"failure unheld {CHINA} {ADDRESS}:2028"
OVER_SECONDS = 3.0
"""Longer than a suspicion takes here until its verdict."""


@pytest.fixture
def tokens(world: Hosts) -> dict[str, str]:
    return world.uss()


def wish(tokens: dict[str, str], port: int = 2028, **more: Any) -> LocalRegister:
    return LocalRegister(CHINA, port, tokens[CHINA], **more)


def row(world: Hosts, port: int = 2028, service: str = CHINA) -> Listener:
    found = world.catalogue.listener(service, ADDRESS, port)
    assert found is not None
    return found


def lose_book(world: Hosts, name: str) -> None:
    """The daemon is killed, and its disk is lost."""
    world.hosts[name].crash()
    shutil.rmtree(world.directory / name)


def revision(world: Hosts) -> int:
    return world.catalogue.revision


def test_nothing_is_sent_or_committed_where_they_agree(world: Hosts, tokens: dict[str, str]) -> None:
    """The ordinary session compares one number."""
    provider = world.daemon("provider")
    for port in (2028, 2029):
        world.wait(provider.register(wish(tokens, port)))
    world.run(1.0)
    before = revision(world)
    world.fall()
    world.serve()
    world.run(5.0)
    world.daemon("provider")
    world.run(5.0)
    assert revision(world) == before
    assert row(world).state == "up" and not world.catalogue.alerts


@pytest.mark.parametrize("serves", [False, True], ids=["dead", "a stranger listens there"])
def test_a_row_that_its_host_does_not_hold_is_probed_and_marked(
    world: Hosts, tokens: dict[str, str], serves: bool
) -> None:
    """P9: within grace seconds, too, and although something answers at the old address and port."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens)))
    lose_book(world, "provider")
    if not serves:
        world.dead.add((ADDRESS, 2028))
    world.daemon("provider")
    world.run(OVER_SECONDS)
    found = row(world)
    assert found.state == ("suspect" if serves else "down")
    assert found.cause.startswith("its host does not hold it")
    assert "does not hold it" in world.catalogue.alerts[UNHELD].text
    world.run(600.0)
    assert row(world).state == found.state, "an answered probe does not bless it"


def test_a_stranger_that_ends_is_down(world: Hosts, tokens: dict[str, str]) -> None:
    """The server continues to probe what answers at the address of such a row."""
    world.wait(world.daemon("provider").register(wish(tokens)))
    lose_book(world, "provider")
    world.daemon("provider")
    world.run(OVER_SECONDS)
    assert row(world).state == "suspect"
    world.dead.add((ADDRESS, 2028))
    world.run(120.0)
    assert row(world).state == "down"


@pytest.mark.parametrize("serves", [False, True])
def test_it_counts_again_once_it_is_registered_again(world: Hosts, tokens: dict[str, str], serves: bool) -> None:
    world.wait(world.daemon("provider").register(wish(tokens)))
    lose_book(world, "provider")
    if not serves:
        world.dead.add((ADDRESS, 2028))
    provider = world.daemon("provider")
    world.run(OVER_SECONDS)
    world.dead.clear()
    world.wait(provider.register(wish(tokens)))
    world.run(OVER_SECONDS)
    assert row(world).state == "up" and UNHELD not in world.catalogue.alerts


def test_the_same_instance_counts_again_when_its_host_holds_it(world: Hosts, tokens: dict[str, str]) -> None:
    """A book that was set back by mistake and is the right one again."""
    world.wait(world.daemon("provider").register(wish(tokens, pid=1)))
    world.hosts["provider"].crash()
    book = world.directory / "provider"
    shutil.move(book, world.directory / "kept")
    world.daemon("provider")
    world.run(OVER_SECONDS)
    assert row(world).state == "suspect"
    world.hosts["provider"].crash()
    shutil.rmtree(book)
    shutil.move(world.directory / "kept", book)
    world.daemon("provider")
    world.run(OVER_SECONDS)
    assert row(world).state == "up" and not world.catalogue.alerts


def test_an_end_that_is_refused_leaves_no_row_that_looks_well(world: Hosts, tokens: dict[str, str]) -> None:
    """P9: a service deregisters, and its credential was revoked meanwhile: nothing holds the row from then on."""
    provider = world.daemon("provider")
    epoch = world.wait(provider.register(wish(tokens))).epoch
    (credential,) = world.catalogue.credentials[CHINA].values()
    world.administer(RevokeCredential(CHINA, credential.id))
    world.dead.add((ADDRESS, 2028))
    gone = world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA], epoch=epoch)))
    assert isinstance(gone, Refusal) and gone.code == "bad-credential"
    world.run(OVER_SECONDS)
    assert row(world).state == "down" and UNHELD in world.catalogue.alerts


def test_a_refused_end_is_compared_also_while_a_watch_is_under_way(
    world: Hosts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch that was sent before says that the host holds the row: another one follows it."""
    provider = world.daemon("provider")
    epoch = world.wait(provider.register(wish(tokens))).epoch
    upstream = world.hosts["provider"].upstream
    ask: Any = upstream.ask
    held: list[tuple[Watch, Deferred[Any]]] = []

    def hold_watches(request: Any) -> Any:
        if not isinstance(request, Watch):
            return ask(request)
        held.append((request, Deferred()))
        return held[-1][1]

    monkeypatch.setattr(upstream, "ask", hold_watches)
    world.wait(provider.register(LocalRegister("one.openuso", 2029, tokens["one.openuso"])))
    world.run(2.0)
    ((watch, answer),) = held
    (credential,) = world.catalogue.credentials[CHINA].values()
    world.administer(RevokeCredential(CHINA, credential.id))
    world.dead.add((ADDRESS, 2028))
    gone = world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA], epoch=epoch)))
    assert isinstance(gone, Refusal) and gone.code == "bad-credential"
    monkeypatch.setattr(upstream, "ask", ask)
    ask(watch).addCallback(answer.callback)
    world.run(OVER_SECONDS)
    assert row(world).state == "down" and UNHELD in world.catalogue.alerts


def test_an_end_closes_the_incident(world: Hosts, tokens: dict[str, str]) -> None:
    world.wait(world.daemon("provider").register(wish(tokens)))
    epoch = row(world).epoch
    lose_book(world, "provider")
    provider = world.daemon("provider")
    world.run(OVER_SECONDS)
    world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA], epoch=epoch)))
    assert row(world).state == "offline" and UNHELD not in world.catalogue.alerts


def test_only_the_host_of_a_row_disowns_it_and_only_that_instance(world: Hosts, tokens: dict[str, str]) -> None:
    """P11: neither another host nor an old message takes a listener out of use."""
    world.wait(world.daemon("provider").register(wish(tokens)))
    epoch = row(world).epoch
    for host, instance in (("other", epoch), ("provider", epoch - 1), ("provider", epoch + 1)):
        client = world.client(("host", host))
        client.ask(Disown((Instance(CHINA, ADDRESS, 2028, instance),)))
        assert row(world).state == "up" and not world.catalogue.alerts
    client.ask(Disown((Instance(CHINA, ADDRESS, 2028, epoch),), "lost"))
    assert row(world).state == "suspect" and "lost" in row(world).cause


def test_a_session_with_an_older_server_or_host_is_as_before(world: Hosts, tokens: dict[str, str]) -> None:
    """P13: a host that sends no digest gets nothing new, and keeps its rows."""
    client = world.client(("host", "old"))
    assert isinstance(client.ask(Register(CHINA, tokens[CHINA], ADDRESS, 2028, 1)), Registered)
    assert isinstance(client.ask(Watch((CHINA,))), Watching)
    assert isinstance(world.client(("host", "new")).ask(Register(CHINA, tokens[CHINA], ADDRESS, 2028, 2)), Registered)
    world.run(1.0)
    assert not [told for told in client.pushed if isinstance(told, Recorded)]
    refusal = client.ask(Register(CHINA, tokens[CHINA], ADDRESS, 2028, 1))
    assert isinstance(refusal, Refusal) and refusal.code == "stale-epoch"
    assert not world.catalogue.alerts, "it has no claim"


# A book that cannot be used.


def test_a_damaged_book_is_set_aside_and_told(world: Hosts, tokens: dict[str, str]) -> None:
    """The rows are marked, the status and an incident say why, and the daemon runs."""
    world.wait(world.daemon("provider").register(wish(tokens, pid=1)))
    world.hosts["provider"].crash()
    path = world.directory / "provider" / FILE_NAME
    damaged = path.read_bytes()[:-7]
    path.write_bytes(damaged)
    provider = world.daemon("provider")
    world.run(OVER_SECONDS)
    assert (path.parent / "registrations.corrupt-1").read_bytes() == damaged
    (warning,) = provider.status().warnings
    assert "registrations.corrupt-1" in warning
    assert "registrations.corrupt-1" in world.catalogue.alerts[f"{TROUBLE}provider"].text
    assert row(world).state == "suspect" and "registrations.json was unusable" in row(world).cause
    world.wait(provider.register(wish(tokens, pid=1)))
    assert row(world).state == "up"
    world.daemon("provider")
    world.run(OVER_SECONDS)
    assert not world.catalogue.alerts and provider is not None


def test_a_book_that_cannot_be_read_is_left_alone(world: Hosts, tokens: dict[str, str]) -> None:
    """F9: nothing is disowned, nothing is overwritten, registrations are refused with what to do."""
    world.wait(world.daemon("provider").register(wish(tokens, pid=1)))
    world.hosts["provider"].crash()
    path = world.directory / "provider" / FILE_NAME
    path.rename(path.with_name("moved"))
    path.mkdir()
    provider = world.daemon("provider")
    world.run(OVER_SECONDS)
    refusal = world.wait(provider.register(wish(tokens, 2029, pid=1)))
    assert isinstance(refusal, Refusal) and refusal.code == "store-unavailable"
    assert "cannot read" in refusal.message and "own the file" in refusal.message
    assert row(world).state == "up"
    assert f"{TROUBLE}provider" in world.catalogue.alerts and provider.status().warnings
    assert path.is_dir()
    path.rmdir()
    path.with_name("moved").rename(path)
    world.daemon("provider")
    world.run(OVER_SECONDS)
    assert not world.catalogue.alerts and row(world).state == "up"


# Two of what must be one.


def test_two_hosts_with_one_address_and_port(world: Hosts, tokens: dict[str, str]) -> None:
    """F6: the newer one counts, both daemons and the administrators know, and the older one counts again after it."""
    first, second = world.daemon("first"), world.daemon("second")
    world.wait(first.register(wish(tokens)))
    world.wait(second.register(wish(tokens)))
    world.run(1.0)
    assert row(world).host == "second"
    (entry,) = first.status().registrations
    assert entry.state == "refused" and "host second has registered" in entry.problem
    (other,) = second.status().registrations
    assert other.state == "registered" and "host first" in other.problem
    incident = f"{CONTESTED}{CHINA} {ADDRESS}:2028"
    assert "second, which counts" in world.catalogue.alerts[incident].text
    before = revision(world)
    world.run(1_000.0)
    assert revision(world) == before, "no loop"
    world.fall()
    world.serve()
    world.run(CLAIM_SECONDS * 3)
    assert row(world).host == "second" and incident in world.catalogue.alerts
    world.wait(second.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA])))
    world.run(1.0)
    assert (row(world).host, row(world).state) == ("first", "up")
    assert [entry.state for entry in first.status().registrations] == ["registered"]
    assert incident not in world.catalogue.alerts
    before = revision(world)
    world.run(1_000.0)
    assert revision(world) == before


def test_the_older_one_counts_again_when_the_newer_host_is_lost(world: Hosts, tokens: dict[str, str]) -> None:
    """The newer row is down by the probes, its host without a session."""
    first, second = world.daemon("first"), world.daemon("second")
    world.wait(first.register(wish(tokens)))
    world.wait(second.register(wish(tokens)))
    world.run(1.0)
    world.hosts["second"].crash()
    world.dead.add((ADDRESS, 2028))
    world.until(lambda: row(world).host == "first", 60.0)
    world.dead.clear()
    world.run(30.0)
    assert row(world).state == "up"


def test_the_older_one_counts_again_when_its_end_was_missed(world: Hosts, tokens: dict[str, str]) -> None:
    """The newer one ended while the older one's host had no session."""
    first, second = world.daemon("first"), world.daemon("second")
    world.wait(first.register(wish(tokens)))
    world.wait(second.register(wish(tokens)))
    world.run(1.0)
    world.hosts["first"].stop()
    world.run(1.0)
    world.wait(second.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA])))
    world.daemon("first")
    world.run(1.0)
    assert (row(world).host, row(world).state) == ("first", "up")


def test_the_end_of_the_older_one_leaves_the_newer_one(world: Hosts, tokens: dict[str, str]) -> None:
    first, second = world.daemon("first"), world.daemon("second")
    world.wait(first.register(wish(tokens, pid=1)))
    world.wait(second.register(wish(tokens, pid=1)))
    world.run(1.0)
    world.processes["first"].kill(1)
    world.run(1.0)
    assert (row(world).host, row(world).state) == ("second", "up")
    assert first.status().registrations == () and not world.catalogue.alerts


def test_one_endpoint_under_two_services(world: Hosts, tokens: dict[str, str]) -> None:
    """The status and an incident say so, unless one process serves both; over when one of them ends."""
    provider = world.daemon("provider")
    world.processes["provider"].start(2)
    for service, pid in ((CHINA, 1), ("one.openuso", 1)):
        world.wait(provider.register(LocalRegister(service, 2028, tokens[service], pid=pid)))
    world.run(1.0)
    assert not provider.status().warnings and not world.catalogue.alerts
    world.wait(provider.register(LocalRegister("one.openuso", 2028, tokens["one.openuso"], pid=2)))
    world.run(1.0)
    (warning,) = provider.status().warnings
    assert CHINA in warning and "one.openuso" in warning and "10.0.0.1:2028" in warning
    assert "one.openuso" in world.catalogue.alerts[f"{TROUBLE}provider"].text
    world.processes["provider"].kill(2)
    world.run(1.0)
    assert not provider.status().warnings and f"{TROUBLE}provider" not in world.catalogue.alerts


def test_a_loopback_address_with_dependants_elsewhere_is_told(world: Hosts, tokens: dict[str, str]) -> None:
    user, provider = world.daemon("user"), world.daemon("provider")
    world.wait(provider.register(wish(tokens, address="127.0.0.1")))
    assert not provider.status().registrations[0].problem
    world.wait(user.dependencies("www.web"))
    world.wait(provider.register(wish(tokens, 2029, address="127.0.0.1")))
    problems = [entry.problem for entry in provider.status().registrations]
    assert "loopback" in problems[1] and "user" in problems[1]


# Several processes of one server.


def start_processes(world: Hosts, *pids: int) -> None:
    for pid in pids:
        world.processes["provider"].start(pid)


def test_workers_share_one_registration(world: Hosts, tokens: dict[str, str]) -> None:
    """Programs 12: one that leaves or dies changes nothing at a server; the end of the last one is the service's."""
    provider = world.daemon("provider")
    start_processes(world, 2, 3)
    first = world.wait(provider.register(wish(tokens, pid=1, shared=True)))
    before = revision(world)
    for pid in (2, 3):
        other = world.wait(provider.register(wish(tokens, pid=pid, shared=True)))
        assert (other.epoch, other.state) == (first.epoch, "up")
    leaving = LocalDeregister(CHINA, 2028, tokens[CHINA], epoch=first.epoch)
    kept = world.wait(provider.deregister(msgspec.structs.replace(leaving, pid=1)))
    assert kept.state == "up" and row(world).state == "up"
    world.processes["provider"].kill(2)
    world.run(1.0)
    assert row(world).state == "up" and revision(world) == before
    assert [entry.pid for entry in provider.status().registrations] == [3]
    world.processes["provider"].kill(3)
    world.run(1.0)
    assert row(world).state == "offline" and "process ended" in row(world).cause


def test_the_last_worker_that_leaves_deregisters(world: Hosts, tokens: dict[str, str]) -> None:
    provider = world.daemon("provider")
    start_processes(world, 2)
    for pid in (1, 2, 1):
        outcome = world.wait(provider.register(wish(tokens, pid=pid, shared=True)))
    for pid in (2, 1):
        world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA], epoch=outcome.epoch, pid=pid)))
    assert row(world).state == "offline" and row(world).cause == "deregistered"


def test_workers_still_share_after_a_restart_of_the_daemon(world: Hosts, tokens: dict[str, str]) -> None:
    """The end of one meanwhile is no end of the others."""
    provider = world.daemon("provider")
    start_processes(world, 2, 3)
    for pid in (1, 2, 3):
        world.wait(provider.register(wish(tokens, pid=pid, shared=True)))
    world.hosts["provider"].crash()
    world.processes["provider"].kill(1)
    provider = world.daemon("provider")
    world.run(1.0)
    assert row(world).state == "up"
    assert [entry.pid for entry in provider.status().registrations] == [2]
    world.processes["provider"].kill(3)
    world.run(1.0)
    assert row(world).state == "up"
    world.processes["provider"].kill(2)
    world.run(1.0)
    assert row(world).state == "offline"


def test_processes_that_do_not_share_are_told(
    world: Hosts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer one counts, as before, and the log says what workers do."""
    logged: list[str] = []
    log = SimpleNamespace(warn=lambda text, **more: logged.append(text))
    monkeypatch.setattr(SharedRegistrations, "_log", log)
    provider = world.daemon("provider")
    start_processes(world, 2)
    world.wait(provider.register(wish(tokens, pid=1)))
    world.wait(provider.register(wish(tokens, pid=2, shared=True)))
    assert len(logged) == 1 and "shared=true" in logged[0]
    world.processes["provider"].kill(2)
    world.run(1.0)
    assert row(world).state == "offline"


@pytest.mark.parametrize("number", [SHARERS_MAX, SHARERS_MAX + 1])
def test_the_processes_of_one_registration_are_bounded(number: int) -> None:
    """P10: one more registers as a new instance."""
    journal, processes = RegistrationJournal(Path("unused")), SimulatedProcesses()
    processes.living.update(range(1, SHARERS_MAX + 3))
    sharing = SharedRegistrations(journal, processes)
    others = tuple(Process(pid, f"start of {pid}") for pid in range(2, number + 1))
    old = Registration(
        CHINA, ADDRESS, 1, 5, "token", "registered", pid=1, started="start of 1", shared=True, others=others
    )
    new = Process(SHARERS_MAX + 2, f"start of {SHARERS_MAX + 2}")
    wanted = LocalRegister(CHINA, 1, "token", pid=new.pid, shared=True)
    assert sharing.processes_of(old, wanted, new) == ((*old.processes, new) if number <= SHARERS_MAX else (new,))
