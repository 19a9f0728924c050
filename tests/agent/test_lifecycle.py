"""Life of a host with real servers: registration, notices, loss of all servers, return."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.logger import capturedLogs

from compass.agent.local_api import LocalApi
from compass.agent.registration import journal
from compass.agent.registration.registrar import HOLD_GRACE_SECONDS
from compass.agent.registration.states import UNVERIFIED_AGAIN_SECONDS
from compass.agent.replica.suspicions import EVIDENCE_SECONDS
from compass.model.backoff import RETRY_SECONDS_MAX
from compass.model.host_api import LocalDeregister, LocalEvent, LocalRegister, LocalReport, Outcome, Resolved
from compass.model.interfaces import StoreUnavailable
from compass.model.replies import Dependencies, Refusal
from compass.model.requests import Apply, Purge, Put, Register, Remove, RevokeCredential
from compass.model.rows import Category, Dependency, Service, UpdateEntry
from compass.model.rules.draft import Principal
from tests.support.agent_world import Hosts
from tests.support.virtual_world import SimulatedProcesses

CHINA = "chinaserver.openuss"


def wish(credential: str, service: str = CHINA, port: int = 2028, **more: Any) -> LocalRegister:
    return LocalRegister(service, port, credential, **more)


def refused(daemon: LocalApi, name: str) -> str:
    """The code that a lookup is refused with."""
    found = daemon.resolve(name)
    assert isinstance(found, Refusal), found
    return found.code


def ports(daemon: LocalApi, name: str = CHINA) -> tuple[str, set[int]]:
    """Return the source and the ports of a lookup."""
    found = daemon.resolve(name)
    assert isinstance(found, Resolved), found
    return found.source, {listener.port for listener in found.listeners}


def state_of(world: Hosts, port: int = 2028, service: str = CHINA, address: str = "10.0.0.1") -> str:
    """A listener's state as the server has it."""
    row = world.catalogue.listener(service, address, port)
    return row.state if row else "none"


@pytest.fixture
def tokens(world: Hosts) -> dict[str, str]:
    return world.uss()


def web(world: Hosts, name: str = "user", **options: Any) -> LocalApi:
    """A host with a web service, which depends on openuss."""
    daemon = world.daemon(name, **options)
    assert isinstance(world.wait(daemon.dependencies("www.web")), Dependencies)
    return daemon


def test_a_registration_reaches_a_dependant_host(world: Hosts, tokens: dict[str, str]) -> None:
    """Functions 2.1 and 2.4: a service comes up on one host, a lookup on another gives it."""
    user, provider = web(world), world.daemon("provider")
    outcome = world.wait(provider.register(wish(tokens[CHINA])))
    assert outcome.state == "up" and outcome.revision > 0
    world.run(0.05)
    assert ports(user) == ("service", {2028})


def test_a_first_registration_does_not_wait_for_a_watch(world: Hosts, tokens: dict[str, str]) -> None:
    """The registration is the next change in the log; the watch on behalf of the service follows."""
    provider = world.daemon("provider")
    revision = world.catalogue.revision
    outcome = world.wait(provider.register(wish(tokens[CHINA])))
    assert outcome.revision == revision + 1
    world.run(0.1)
    assert world.catalogue.hosts["provider"].services == (CHINA,)


def test_a_pull_shows_what_the_service_depends_on(world: Hosts, tokens: dict[str, str]) -> None:
    """Function 2.3: categories, services, listeners, and the backup known beforehand."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    world.wait(provider.register(wish(tokens["rescue.backup"], "rescue.backup", 99)))
    pulled = world.wait(web(world).dependencies("www.web"))
    (view,) = pulled.categories
    assert view.category == "openuss" and view.backup == "rescue.backup"
    assert [service.id for service in view.services] == [CHINA, "northeast.openuss"]
    assert [listener.port for listener in view.services[0].listeners] == [2028]
    assert [listener.port for listener in view.backup_listeners] == [99]


def test_three_answers_for_nothing(world: Hosts, tokens: dict[str, str]) -> None:
    """P5: the answers differ for an unknown name, a service without listeners, a view that is not loaded, and a service
    on which no service of the host depends."""
    user = web(world)
    assert ports(user) == ("none", set())
    assert refused(user, "nowhere.openuss") == "unknown-service"
    assert refused(user, "one.openuso") == "unknown-dependency"
    assert refused(user, "no label") == "bad-name"
    assert world.wait(user.dependencies("gone.web")).code == "unknown-service"
    assert world.wait(user.dependencies("any.missing")).code == "unknown-category"
    assert world.wait(user.dependencies("web")).code == "bad-name"
    world.fall()
    stranger = world.daemon("stranger")
    assert refused(stranger, CHINA) == "not-ready"
    refusal = world.wait(stranger.dependencies("www.web"))
    assert refusal.code == "not-ready" and "refused" in refusal.message


def test_a_name_that_nobody_made_does_not_stay_on_the_list(world: Hosts, tokens: dict[str, str]) -> None:
    """Asking for services that do not exist does not use up the host's places."""
    user = web(world)
    world.wait(user.dependencies("any.missing"))
    assert user.status().services == ("www.web",)


def test_a_service_made_after_it_was_asked_for(world: Hosts, tokens: dict[str, str]) -> None:
    """A registration before its service exists is refused by name, and works once an administrator made it."""
    provider = world.daemon("provider")
    assert world.wait(provider.register(wish("t", "late.openuss"))).code == "unknown-service"
    world.administer(Put(Service("late.openuss"), create=True))
    token = world.credential("late.openuss")
    assert world.wait(provider.register(wish(token, "late.openuss"))).state == "up"


def test_a_deregistration_empties_the_list(world: Hosts, tokens: dict[str, str]) -> None:
    """Function 2.2: a numbered statement that there is none, and the backup takes over."""
    user, provider = web(world), world.daemon("provider")
    world.wait(provider.register(wish(tokens["rescue.backup"], "rescue.backup", 99)))
    world.wait(provider.register(wish(tokens[CHINA])))
    assert world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA]))).state == "offline"
    world.run(0.05)
    assert ports(user) == ("backup", {99})
    assert provider.status().registrations[0].service == "rescue.backup"


def test_a_dead_process_is_told_to_all(world: Hosts, tokens: dict[str, str]) -> None:
    """G16: a process that ends without a word is offline for every dependant."""
    user, provider = web(world), world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    world.run(0.05)
    assert ports(user) == ("service", {2028})
    world.processes["provider"].kill(1)
    world.run(0.05)
    assert ports(user) == ("none", set())
    assert state_of(world) == "offline" and provider.status().registrations == ()


def test_the_death_of_a_process_while_no_server_is_there(world: Hosts, tokens: dict[str, str]) -> None:
    """Nothing is lost with every server down: the death is delivered when one returns, also after a restart."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    world.fall()
    world.processes["provider"].kill(1)
    assert provider.status().registrations[0].state == "leaving"
    world.daemon("provider")
    world.serve()
    world.run(5)
    assert state_of(world) == "offline"
    assert world.hosts["provider"].daemon.status().registrations == ()


def test_a_process_that_died_while_the_daemon_was_down(world: Hosts, tokens: dict[str, str]) -> None:
    """After the daemon's own restart, what died meanwhile is reported."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    world.hosts["provider"].stop()
    world.run(0.05)
    world.processes["provider"].kill(1)
    world.daemon("provider")
    assert state_of(world) == "offline"


@pytest.mark.parametrize("where", ["namespace", "boot"])
def test_a_journal_of_another_namespace_or_boot_proves_no_death(
    world: Hosts, tokens: dict[str, str], where: str
) -> None:
    """The server probes: what answers stays, is shown as not verified, and is verified once the process is seen."""
    provider = world.daemon("provider")
    first = world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    revision, processes = world.catalogue.revision, world.processes["provider"]
    before = getattr(processes, where)
    setattr(processes, where, "another one")
    processes.living.clear()
    again = world.daemon("provider")
    world.run(60)
    (entry,) = again.status().registrations
    assert (entry.state, entry.epoch) == ("registered", first.epoch) and "registered" in entry.unverified
    assert state_of(world) == "up" and world.catalogue.revision == revision
    setattr(processes, where, before)
    processes.start(1)
    assert not world.daemon("provider").status().registrations[0].unverified
    processes.kill(1)
    world.run(0.5)
    assert state_of(world) == "offline"


def test_what_is_not_verified_and_answers_no_probe_ends(world: Hosts, tokens: dict[str, str]) -> None:
    """A reboot is an example: services ended with it, or were started again before the daemon."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    world.hosts["provider"].stop()
    world.processes["provider"].boot = "boot 2"
    world.dead.add(("10.0.0.1", 2028))
    again = world.daemon("provider")
    world.run(1)
    assert state_of(world) in ("suspect", "down")
    world.run(30)
    assert state_of(world) == "offline" and again.status().registrations == ()


def test_a_stranger_at_the_address_of_what_is_not_verified_keeps_the_row_only_as_long_as_it_answers(
    world: Hosts, tokens: dict[str, str]
) -> None:
    """The service died with the machine; another program answered the first probes, and ends on the same session."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    world.hosts["provider"].stop()
    world.processes["provider"].boot = "boot 2"
    again = world.daemon("provider")
    world.run(2 * UNVERIFIED_AGAIN_SECONDS)
    assert state_of(world) == "up" and again.status().registrations[0].unverified
    world.dead.add(("10.0.0.1", 2028))
    world.run(2 * UNVERIFIED_AGAIN_SECONDS + 30)
    assert state_of(world) == "offline" and again.status().registrations == ()


def test_a_held_registration_of_another_namespace_is_doubted_and_not_ended(
    world: Hosts, tokens: dict[str, str]
) -> None:
    """The program may hold its connection to the daemon from which this journal was copied."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA], hold=True)))
    world.processes["provider"].boot = "boot 2"
    again = world.daemon("provider")
    world.run(HOLD_GRACE_SECONDS + 1)
    assert state_of(world) == "up" and again.status().registrations[0].unverified
    assert world.wait(again.register(wish(tokens[CHINA], hold=True))).state == "up"
    assert not again.status().registrations[0].unverified


def test_a_journal_of_another_host_is_set_aside(world: Hosts, tokens: dict[str, str]) -> None:
    """Nothing of it is registered, deregistered or held here, and the file is kept for its owner."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    world.wait(provider.register(wish(tokens[CHINA], port=2029)))
    rows = world.catalogue.listeners
    (world.directory / "copy").mkdir(parents=True)
    text = (world.directory / "provider" / journal.FILE_NAME).read_bytes()
    (world.directory / "copy" / journal.FILE_NAME).write_bytes(text)
    world.processes["copy"] = SimulatedProcesses()
    copy = world.daemon("copy")
    world.run(60)
    assert copy.status().registrations == () and "host provider" in copy.status().warnings[0]
    assert (world.directory / "copy" / "registrations.foreign-1").read_bytes() == text
    assert world.catalogue.listeners == rows


def test_the_daemons_restart_loses_nothing(world: Hosts, tokens: dict[str, str]) -> None:
    """G21: services stay registered, and no dependant is notified."""
    provider = world.daemon("provider")
    first = world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    world.run(0.1)
    revision = world.catalogue.revision
    again = world.daemon("provider")
    world.run(1)
    assert state_of(world) == "up" and again.status().registrations[0].epoch == first.epoch
    assert world.catalogue.revision == revision
    world.processes["provider"].kill(1)
    world.run(0.05)
    assert state_of(world) == "offline"


def test_the_servers_restart_is_no_flap(world: Hosts, tokens: dict[str, str]) -> None:
    """A registration is re-established with the epoch it had: no revision is spent on it."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    world.run(0.1)
    revision = world.catalogue.revision
    world.fall()
    world.serve()
    world.run(3)
    assert provider.status().session == "open"
    assert world.catalogue.revision == revision and state_of(world) == "up"


def test_registering_while_no_server_is_there(world: Hosts, tokens: dict[str, str]) -> None:
    """P7: it is pending, on disk, and established when a server returns, also after the daemon's restart."""
    provider = world.daemon("provider")
    world.fall()
    outcome = world.wait(provider.register(wish(tokens[CHINA])))
    assert outcome.state == "pending" and outcome.epoch > 0
    world.daemon("provider")
    world.serve()
    world.run(5)
    assert state_of(world) == "up"
    assert world.hosts["provider"].daemon.status().registrations[0].state == "registered"


def test_deregistering_while_no_server_is_there(world: Hosts, tokens: dict[str, str]) -> None:
    """The wish to go is kept and delivered."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    world.fall()
    assert world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA]))).state == "pending"
    world.serve()
    world.run(5)
    assert state_of(world) == "offline"


def test_lookups_go_on_without_servers(world: Hosts, tokens: dict[str, str]) -> None:
    """P7: from memory, and from disk after the daemon's restart."""
    user, provider = web(world), world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    world.run(1)
    world.fall()
    assert ports(user) == ("service", {2028})
    user = world.daemon("user")
    assert ports(user) == ("service", {2028})
    assert isinstance(world.wait(user.dependencies("www.web")), Dependencies)


def test_a_report_counts_here_at_once(world: Hosts, tokens: dict[str, str]) -> None:
    """G12 with every server down: what was reported is not given out, and the backup takes over."""
    user, provider = web(world), world.daemon("provider")
    world.wait(provider.register(wish(tokens["rescue.backup"], "rescue.backup", 99)))
    world.wait(provider.register(wish(tokens[CHINA])))
    world.run(0.05)
    world.fall()
    world.dead.add(("10.0.0.1", 2028))
    outcome = world.wait(user.report(LocalReport(CHINA, "10.0.0.1", 2028)))
    assert outcome.state == "pending"
    assert ports(user) == ("backup", {99})
    world.run(EVIDENCE_SECONDS)
    assert ports(user) == ("service", {2028})


def test_a_report_made_without_servers_is_delivered(world: Hosts, tokens: dict[str, str]) -> None:
    """The server hears of it when it returns, probes, and its verdict replaces the local suspicion."""
    user, provider = web(world), world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    world.run(0.05)
    world.fall()
    world.dead.add(("10.0.0.1", 2028))
    world.wait(user.report(LocalReport(CHINA, "10.0.0.1", 2028)))
    world.serve()
    world.run(3)
    entries, _ = world.store.read_log("updates", 0, 100, 0)
    told = [entry.operation for entry in entries if isinstance(entry, UpdateEntry)]
    assert told.index("report") < told.index("confirm")


def test_a_false_report_is_retracted(world: Hosts, tokens: dict[str, str]) -> None:
    """P8: the server's probe finds it alive, and this host gives it out again at once."""
    user, provider = web(world), world.daemon("provider")
    for port in (2028, 2029):
        world.wait(provider.register(wish(tokens[CHINA], port=port)))
    world.run(0.05)
    world.apart.add(("user", "10.0.0.1"))
    assert world.wait(user.report(LocalReport(CHINA, "10.0.0.1", 2028))).state == "suspect"
    world.run(1)
    assert ports(user) == ("service", {2028, 2029})


def test_reports_that_are_refused(world: Hosts, tokens: dict[str, str]) -> None:
    """A report of nothing, of a bad address, or on what no service here uses changes nothing here either."""
    user, provider = web(world), world.daemon("provider")
    assert world.wait(user.report(LocalReport(CHINA, "10.0.0.1", 2028))).code == "unknown-listener"
    assert world.wait(user.report(LocalReport(CHINA, "nobody", 2028))).code == "bad-address"
    for port in (2028, 2029):
        world.wait(provider.register(wish(tokens[CHINA], port=port)))
    world.run(0.05)
    world.dead.add(("10.0.0.1", 2028))
    assert world.wait(user.report(LocalReport(CHINA, "10.0.0.1", 2028, detail="x" * 300))).code == "bad-value"
    assert ports(user) == ("service", {2028, 2029})
    world.fall()
    for detail in ("x" * 256, "line1\nline2"):
        # Without a server, too: such a report would wait for one and be refused there without anyone to notice.
        with capturedLogs() as logs:
            assert world.wait(user.report(LocalReport(CHINA, "10.0.0.1", 2028, detail=detail))).code == "bad-value"
        assert [log["log_format"] for log in logs] == ["a report of {service} is refused: {problem}"]
        assert ports(user) == ("service", {2028, 2029})
    assert world.wait(user.report(LocalReport(CHINA, "10.0.0.1", 2028, state="slow"))).code == "unreachable"


def test_a_late_deregistration_leaves_the_new_instance_alone(world: Hosts, tokens: dict[str, str]) -> None:
    """P6: the old instance's epoch is refused, with the one that is known."""
    provider = world.daemon("provider")
    old = world.wait(provider.register(wish(tokens[CHINA])))
    new = world.wait(provider.register(wish(tokens[CHINA])))
    assert new.epoch > old.epoch
    late = world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA], epoch=old.epoch)))
    assert (late.code, late.epoch) == ("stale-epoch", new.epoch)
    assert state_of(world) == "up"


def test_the_same_process_asking_twice_is_one_instance(world: Hosts, tokens: dict[str, str]) -> None:
    """A retry does not replace the instance; another process does."""
    provider = world.daemon("provider")
    first = world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    assert world.wait(provider.register(wish(tokens[CHINA], pid=1))).epoch == first.epoch


def test_a_wrong_credential(world: Hosts, tokens: dict[str, str]) -> None:
    """The registration is refused without a trace; the existing instance stays unchanged."""
    provider = world.daemon("provider")
    refusal = world.wait(provider.register(wish("wrong")))
    assert refusal.code == "bad-credential" and CHINA in refusal.message
    assert provider.status().registrations == ()
    first = world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    assert world.wait(provider.register(wish("wrong"))).code == "bad-credential"
    assert world.wait(provider.deregister(LocalDeregister(CHINA, 2028, "wrong"))).code == "bad-credential"
    assert provider.status().registrations[0].epoch == first.epoch
    world.processes["provider"].kill(1)
    world.run(0.05)
    assert state_of(world) == "offline"


def test_nobody_pushes_a_living_instance_aside_unseen(world: Hosts, tokens: dict[str, str]) -> None:
    """The agent cannot check another credential while every server is down, so it replaces nothing."""
    provider = world.daemon("provider")
    first = world.wait(provider.register(wish(tokens[CHINA])))
    world.fall()
    assert world.wait(provider.register(wish("other"))).code == "unreachable"
    assert world.wait(provider.deregister(LocalDeregister(CHINA, 2028, "other"))).code == "unreachable"
    assert provider.status().registrations[0].epoch == first.epoch


def test_a_rotated_credential_takes_the_place_over(world: Hosts, tokens: dict[str, str]) -> None:
    """A new instance with another good credential replaces the old one, and may leave with it."""
    provider = world.daemon("provider")
    old = world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    other = world.credential(CHINA)
    new = world.wait(provider.register(wish(other, pid=1)))
    assert new.epoch > old.epoch and provider.status().registrations[0].state == "registered"
    gone = world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA])))
    assert gone.state == "offline" and provider.status().registrations == ()


def test_a_removed_listener_does_not_come_back(world: Hosts, tokens: dict[str, str]) -> None:
    """P6: an administrator's removal is not undone by re-establishing; only a new instance registers."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    world.administer(Remove("listener", f"{CHINA} 10.0.0.1:2028"))
    world.fall()
    world.serve()
    world.run(3)
    assert state_of(world) == "offline" and provider.status().registrations == ()
    world.wait(provider.register(wish(tokens[CHINA])))
    assert state_of(world) == "up"


def test_a_process_asks_again_after_its_listener_was_removed(world: Hosts, tokens: dict[str, str]) -> None:
    """The same process may register again: it becomes a newer instance."""
    provider = world.daemon("provider")
    first = world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    world.administer(Remove("listener", f"{CHINA} 10.0.0.1:2028"))
    again = world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    assert again.epoch > first.epoch and again.state == "up"


def test_a_clock_that_went_back(world: Hosts, tokens: dict[str, str]) -> None:
    """A living process whose epoch is behind what the server knows takes the next one."""
    provider = world.daemon("provider")
    ahead = world.wait(provider.register(wish(tokens[CHINA]))).epoch
    book = world.directory / "provider" / "registrations.json"
    world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA])))
    world.hosts["provider"].stop()
    book.unlink()
    world.now = lambda: 1000.0  # type: ignore[method-assign]
    again = world.wait(world.daemon("provider").register(wish(tokens[CHINA])))
    assert again.epoch == ahead + 1 and state_of(world) == "up"


def test_a_newer_instance_elsewhere(world: Hosts, tokens: dict[str, str]) -> None:
    """An address that another host registered meanwhile is not fought for, and shown."""
    first, second = world.daemon("first"), world.daemon("second")
    world.wait(first.register(wish(tokens[CHINA])))
    world.wait(second.register(wish(tokens[CHINA])))
    world.fall()
    world.serve()
    world.run(3)
    assert [entry.state for entry in first.status().registrations] == ["refused"]
    assert [entry.state for entry in second.status().registrations] == ["registered"]


def test_a_revoked_credential_is_shown(world: Hosts, tokens: dict[str, str]) -> None:
    """Re-establishing with it is refused once, kept in the book to be seen, and not tried again."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    credential = next(iter(world.catalogue.credentials[CHINA]))
    world.administer(RevokeCredential(CHINA, credential))
    for _ in range(2):
        world.fall()
        world.serve()
        world.run(3)
    (entry,) = provider.status().registrations
    assert entry.state == "refused" and "credential" in entry.problem
    entries, _ = world.store.read_log("security", 0, 100, 0)
    assert len(entries) == 1


def test_a_holding_connection(world: Hosts, tokens: dict[str, str]) -> None:
    """A registration with `hold` is over when its connection is."""
    provider = world.daemon("provider")
    outcome = world.wait(provider.register(wish(tokens[CHINA], hold=True)))
    provider.released(outcome)
    world.run(0.05)
    assert state_of(world) == "offline"
    provider.released(outcome)


def test_a_holding_program_comes_back_after_the_daemons_restart(world: Hosts, tokens: dict[str, str]) -> None:
    """A service that returns in time is the same instance; otherwise it counts as dead."""
    provider = world.daemon("provider")
    first = world.wait(provider.register(wish(tokens[CHINA], hold=True)))
    world.wait(provider.register(wish(tokens[CHINA], port=2029, hold=True)))
    again = world.daemon("provider")
    assert world.wait(again.register(wish(tokens[CHINA], hold=True))).epoch == first.epoch
    world.run(HOLD_GRACE_SECONDS + 1)
    assert state_of(world) == "up" and state_of(world, 2029) == "offline"


def test_what_cannot_be_registered(world: Hosts, tokens: dict[str, str]) -> None:
    """Names, addresses, processes and values that cannot be used are refused with a reason, nothing stays."""
    provider = world.daemon("provider")
    for request, code in (
        (wish("t", "openuss"), "bad-name"),
        (wish("t", address="localhost"), "bad-address"),
        (wish("t", port=0), "bad-address"),
        (wish(tokens[CHINA], pid=2**22 + 5), "bad-value"),
        (wish(tokens[CHINA], weight=-1), "bad-value"),
        (wish(tokens[CHINA], metadata={"k": "x" * 70_000}), "too-large"),
    ):
        refusal = world.wait(provider.register(request))
        assert isinstance(refusal, Refusal) and refusal.code == code, refusal
    assert provider.status().registrations == ()
    assert world.wait(provider.deregister(LocalDeregister("x", 1, ""))).code == "bad-name"
    assert world.wait(provider.deregister(LocalDeregister(CHINA, 1, ""))).code == "unknown-listener"


def test_an_unwritable_directory(world: Hosts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A registration that cannot be stored is refused; lookups continue from memory."""
    (world.directory / "user").write_text("a file where the directory should be")
    user = web(world)
    refusal = world.wait(user.register(wish(tokens[CHINA])))
    assert refusal.code == "store-unavailable" and "user" in refusal.message
    world.run(1)
    assert ports(user) == ("none", set())


def test_the_book_is_private(world: Hosts, tokens: dict[str, str]) -> None:
    """Credentials are readable by the daemon's user only."""
    world.wait(world.daemon("provider").register(wish(tokens[CHINA])))
    book = world.directory / "provider" / "registrations.json"
    assert book.stat().st_mode & 0o777 == 0o600
    assert json.loads(book.read_text())["registrations"][0]["credential"] == tokens[CHINA]


def test_a_damaged_book(world: Hosts, tokens: dict[str, str]) -> None:
    """A damaged file is set aside, and the daemon starts."""
    (world.directory / "provider").mkdir()
    (world.directory / "provider" / "registrations.json").write_text("{")
    assert world.wait(world.daemon("provider").register(wish(tokens[CHINA]))).state == "up"
    assert (world.directory / "provider" / "registrations.corrupt-1").exists()


def test_dependencies_that_change(world: Hosts, tokens: dict[str, str]) -> None:
    """A new dependency brings its listeners along, a removed one takes them away; a moved backup is followed."""
    user, provider = web(world), world.daemon("provider")
    world.wait(provider.register(wish(tokens["one.openuso"], "one.openuso", 77)))
    world.wait(provider.register(wish(tokens["rescue.backup"], "rescue.backup", 99)))
    world.administer(Put(Dependency("web", "openuso"), create=True))
    world.run(0.05)
    assert ports(user, "openuso") == ("service", {77})
    world.administer(Put(Category("openuso", "rescue.backup")))
    world.wait(provider.deregister(LocalDeregister("one.openuso", 77, tokens["one.openuso"])))
    world.run(0.05)
    assert ports(user, "openuso") == ("backup", {99})
    world.administer(Remove("dependency", "web openuso"))
    world.run(0.05)
    assert refused(user, "openuso") == "unknown-dependency"
    assert isinstance(user.resolve("rescue.backup"), Resolved)


def test_a_topology_that_is_taken_away(world: Hosts, tokens: dict[str, str]) -> None:
    """Services and categories that are removed are removed here, numbered."""
    user = web(world)
    world.administer(Apply((Category("web"), Service("www.web")), prune=True))
    world.run(0.05)
    pulled = world.wait(user.dependencies("www.web"))
    assert pulled.categories == ()
    world.run(1000)
    world.administer(Purge(60.0))


def test_a_service_of_the_configuration_may_be_declared_later(world: Hosts, tokens: dict[str, str]) -> None:
    """`[host] services` may name a service that does not exist yet: the host gets it when an administrator adds it."""
    user = world.daemon("user", services=("front.shop",))
    world.run(5)
    assert refused(user, CHINA) == "unknown-dependency"
    world.administer(Put(Category("shop"), create=True))
    world.administer(Put(Service("front.shop"), create=True))
    world.administer(Put(Dependency("shop", "openuss"), create=True))
    world.run(1)
    assert ports(user) == ("none", set())
    assert "front.shop" in user.status().services


def test_short_sessions(world: Hosts, tokens: dict[str, str]) -> None:
    """G18: an idle host keeps no session; it connects to ask, servers connect to push, and it polls at intervals."""
    user = web(world, mode="short", update_port=4865, refresh_seconds=300.0)
    world.run(3)
    assert user.status().session == "waiting" and not world.servers["gns1"].nameserver.connections.sessions
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    world.run(2)
    assert ports(user) == ("service", {2028})
    world.run(10)
    assert user.status().session == "waiting"
    before = len([host for _, host, _ in world.network.dialled if host == "user"])
    world.run(300)
    assert len([host for _, host, _ in world.network.dialled if host == "user"]) == before + 1
    assert world.wait(user.register(wish(tokens["www.web"], "www.web", 80))).state == "up"
    world.run(5)
    assert user.status().session == "waiting"


def test_what_a_host_without_a_session_owes_is_delivered_once_the_store_is_back(
    world: Hosts, tokens: dict[str, str]
) -> None:
    """P1: a registration that the store did not take is asked for again, also by a host that has left since."""
    user = web(world, mode="short", update_port=4865, refresh_seconds=3600.0)
    world.run(3)
    server = world.servers["gns1"]
    server.thread.failing = StoreUnavailable("no space left on device")
    registered = user.register(wish(tokens["www.web"], "www.web", 80))
    assert world.wait(registered).state == "pending"
    world.run(20)
    server.thread.failing = None
    world.run(RETRY_SECONDS_MAX * 2)
    assert [entry.state for entry in user.status().registrations] == ["registered"]
    assert server.nameserver.catalogue.listener("www.web", "10.0.0.1", 80) is not None
    world.run(5)
    assert user.status().session == "waiting"


def test_another_server_takes_over(world: Hosts, tokens: dict[str, str]) -> None:
    """The loss of one of two servers over one store costs only a fraction of a second."""
    world.serve("gns2")
    user = web(world, servers=("gns1", "gns2"))
    assert user.status().server == "gns1"
    world.fall("gns1")
    world.run(1)
    assert user.status().server == "gns2" and user.status().problem == ""


def test_hosts_do_not_hurry_a_server_that_is_down(world: Hosts) -> None:
    """Back-off: at most a few attempts a minute after a while."""
    world.fall()
    world.daemon("lonely")
    world.run(300)
    late = [at for at, _, _ in world.network.dialled if at > 200]
    assert 3 <= len(late) <= 8


def test_a_server_on_a_new_empty_store_empties_nobody(world: Hosts, tokens: dict[str, str]) -> None:
    """P5: a store that knows nothing of this host empties nothing; what is held stays in use until it does."""
    user, provider = web(world), world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    world.run(0.05)
    world.fall()
    full, world.store = world.store, type(world.store).open("sqlite://")
    world.serve()
    world.run(10)
    assert ports(user) == ("service", {2028})
    assert "another store" in user.status().problem
    full.close()
    world.uss()
    world.run(40)
    assert ports(user) == ("none", set()) and user.status().problem == ""


def test_another_store_replaces_the_view(world: Hosts, tokens: dict[str, str]) -> None:
    """Revisions of another store have no meaning: the host reads everything again."""
    user = web(world)
    world.fall()
    world.store.close()
    world.store = type(world.store).open("sqlite://")
    world.serve()
    world.uss()
    provider = world.daemon("provider")
    world.wait(provider.register(wish(world.credential(CHINA), port=3000)))
    world.run(5)
    assert ports(user) == ("service", {3000})


def test_a_registration_is_answered_when_a_server_is_just_coming(world: Hosts, tokens: dict[str, str]) -> None:
    """A program that starts together with the daemon need not see `pending`."""
    provider = world.daemon("provider")
    world.hosts["provider"].stop()
    world.run(0.1)
    provider = world.daemon("other")
    outcome = world.wait(provider.register(wish(tokens[CHINA])))
    assert isinstance(outcome, Outcome) and outcome.state == "up"


def test_watching_from_the_daemon(world: Hosts, tokens: dict[str, str]) -> None:
    """A local program sees a snapshot and then what happens; an unknown service is refused."""
    user, provider = web(world), world.daemon("provider")
    events: list[LocalEvent] = []
    stop = world.wait(user.watch("www.web", None, events.append))
    world.wait(provider.register(wish(tokens[CHINA])))
    world.run(0.05)
    assert [event.kind for event in events] == ["snapshot", "change"]
    stop()
    assert world.wait(user.watch("x.web", None, events.append)).code == "unknown-service"


def test_a_held_registration_that_had_to_take_a_newer_epoch(world: Hosts, tokens: dict[str, str]) -> None:
    """The connection knows the epoch of its first answer; its end counts all the same."""
    other, provider = world.daemon("other"), world.daemon("provider")
    world.fall()
    early = world.wait(provider.register(wish(tokens[CHINA], hold=True)))
    assert early.state == "pending"
    server = world.serve()
    epoch = early.epoch + 10**9
    register = Register(CHINA, tokens[CHINA], "10.0.0.1", 2028, epoch)
    world.wait(server.commits.submit(register, Principal("host", "other", "")))
    world.run(5)
    assert provider.status().registrations[0].epoch == epoch + 1
    provider.released(early)
    world.run(0.1)
    assert state_of(world) == "offline" and other.status().registrations == ()


def test_the_book_is_bounded(world: Hosts, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance above the limit is refused; an existing one may register again."""
    monkeypatch.setattr(journal, "REGISTRATIONS_MAX", 2)
    provider = world.daemon("provider")
    for port in (1, 2, 2):
        assert world.wait(provider.register(wish(tokens[CHINA], port=port))).state == "up"
    assert world.wait(provider.register(wish(tokens[CHINA], port=3))).code == "too-large"


def test_processes_that_cannot_be_watched(world: Hosts, tokens: dict[str, str]) -> None:
    """Without a way to see its end a process is not registered; one that was goes on being so."""
    provider = world.daemon("provider")
    world.processes["provider"].scarce = True
    assert world.wait(provider.register(wish(tokens[CHINA], pid=1))).code == "busy"
    world.processes["provider"].scarce = False
    world.wait(provider.register(wish(tokens[CHINA], pid=1)))
    world.processes["provider"].scarce = True
    assert len(world.daemon("provider").status().registrations) == 1 and state_of(world) == "up"


def test_leaving_with_a_credential_that_was_revoked(world: Hosts, tokens: dict[str, str]) -> None:
    """The server's no is final; the wish does not stay in the book for ever."""
    provider = world.daemon("provider")
    world.wait(provider.register(wish(tokens[CHINA])))
    world.administer(RevokeCredential(CHINA, next(iter(world.catalogue.credentials[CHINA]))))
    assert world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA]))).code == "bad-credential"
    assert provider.status().registrations == ()


def test_leaving_what_is_not_there_any_more(world: Hosts, tokens: dict[str, str]) -> None:
    """A deregistration of a service that was removed meanwhile is done; and one of another host's listener by epoch."""
    provider, other = world.daemon("provider"), world.daemon("other")
    world.fall()
    world.wait(provider.register(wish(tokens[CHINA])))
    world.wait(provider.deregister(LocalDeregister(CHINA, 2028, tokens[CHINA])))
    world.serve()
    world.run(5)
    assert provider.status().registrations == ()
    outcome = world.wait(provider.register(wish(tokens[CHINA])))
    gone = LocalDeregister(CHINA, 2028, tokens[CHINA], "10.0.0.1", outcome.epoch)
    assert world.wait(other.deregister(gone)).state == "offline"
