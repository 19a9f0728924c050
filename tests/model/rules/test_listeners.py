"""Listeners: registered, deregistered, drained, reported, probed, purged (functions 2.1, 2.2, 2.5)."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import pytest

from compass.model.limits import (
    DETAIL_MAX,
    EPOCH_AHEAD_SECONDS_MAX,
    EPOCH_MAX,
    EPOCHS_PER_SECOND,
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    PURGE_AGE_SECONDS_MIN,
    WEIGHT_MAX,
)
from compass.model.replies import Deregistered, Done, Refusal, Registered, Reported
from compass.model.requests import Attend, Deregister, Drain, Purge, Put, Register, Remove, Report, Verdict
from compass.model.rows import Category, Listener, Policy, Service, State
from compass.model.rules.draft import Principal
from compass.model.rules.listeners import is_draining
from tests.support.catalogue_rows import ADMIN, AT, HOST, NOW, SERVER, World, drain, store

REGISTER = Register("a.store", "", "10.0.0.1", 2028, 5)
DEREGISTER = Deregister("a.store", "", "10.0.0.1", 2028, 5)
REPORT = Report("a.store", "10.0.0.1", 2028)
VERDICT = Verdict("a.store", "10.0.0.1", 2028, 5, True, "it answered")
OLDER, SAME, NEWER = 4, 5, 6


R = TypeVar("R", Register, Deregister)


def at_epoch(request: R, epoch: int) -> R:
    """The same request of another instance."""
    return msgspec.structs.replace(request, epoch=epoch)


def test_a_new_listener_is_up() -> None:
    """2.1: all fields are kept, the change is logged, the reply has its revision."""
    world = store()
    token = world.token("a.store")
    request = Register("A.Store", token, "::FFFF:10.0.0.1", 2028, 7, 3, {"rack": "4"})
    reply = world.get(Registered, request, HOST)
    assert reply == Registered(world.catalogue.revision, "up")
    assert world.operations() == ["register"]
    assert world.listener("a.store") == Listener(
        "a.store", "10.0.0.1", 2028, "up", NOW, 7, HOST.name, 3, {"rack": "4"}, "registered"
    )
    assert world.last.security is None and world.last.administration is None


@pytest.mark.parametrize(
    ("state", "epoch", "outcome"),
    [
        *[(state, OLDER, "stale-epoch") for state in ("up", "slow", "suspect", "down", "draining", "offline")],
        ("up", SAME, "up"),
        ("slow", SAME, "slow"),
        ("suspect", SAME, "suspect"),
        ("down", SAME, "down"),
        ("draining", SAME, "draining"),
        ("offline", SAME, "deregistered"),
        *[(state, NEWER, "up") for state in ("up", "slow", "suspect", "down", "draining", "offline")],
    ],
)
def test_registering_again(state: State, epoch: int, outcome: str) -> None:
    """P6: an older instance is refused, the same one keeps its state (no flap), a newer one starts as up."""
    world = store().in_state(state)
    before = world.catalogue
    world.now += 10
    request = at_epoch(REGISTER, epoch)
    reply = world.ask(request)
    if isinstance(reply, Refusal):
        assert (reply.code, reply.epoch) == (outcome, SAME)
        assert world.catalogue == before
        return
    row = world.listener("a.store")
    assert (row.state, row.epoch) == (outcome, epoch)
    assert isinstance(reply, Registered)
    assert reply == Registered(world.catalogue.revision, row.state, changed=(epoch, state) not in unchanged())
    if row.state == "up" and state != "up":
        assert row.changed_at == world.now and not world.catalogue.alerts


def unchanged() -> set[tuple[int, str]]:
    return {(SAME, state) for state in ("up", "slow", "suspect", "down", "draining")}


def test_the_same_instance_may_change_its_weight_without_a_change_of_state() -> None:
    """The row is new, its time and cause of state are not."""
    world = store().in_state("suspect")
    before = world.listener("a.store")
    world.now += 10
    assert world.get(Registered, msgspec.structs.replace(REGISTER, weight=9)).changed
    assert world.listener("a.store") == msgspec.structs.replace(before, weight=9)


def test_a_death_is_believed_from_the_host_that_registered_although_the_credential_is_gone() -> None:
    """P9: a process that died after its credential was revoked is deregistered."""
    world = store()
    world.get(Registered, msgspec.structs.replace(REGISTER, credential=world.token("a.store")), HOST)
    died = msgspec.structs.replace(at_epoch(DEREGISTER, SAME), credential="revoked", died=True)
    other = msgspec.structs.replace(HOST, name="mallory")
    assert world.code(died, other) == "bad-credential"
    assert world.code(msgspec.structs.replace(died, died=False), HOST) == "bad-credential"
    assert world.code(msgspec.structs.replace(died, epoch=NEWER), HOST) == "bad-credential"
    assert world.get(Deregistered, died, HOST).state == "offline"


@pytest.mark.parametrize("before", ["up", "draining", "slow", "suspect"])
@pytest.mark.parametrize("why", ["another host", "the host itself"])
def test_a_death_that_a_host_cannot_have_observed_changes_nothing(before: State, why: str) -> None:
    """A copy of the host's journal says it, or a daemon that does not see the process: a probe decides."""
    world = store().in_state(before)
    row = world.listener("a.store")
    died = msgspec.structs.replace(at_epoch(DEREGISTER, SAME), credential=world.token("a.store"), died=True)
    if why == "another host":
        reply = world.get(Deregistered, died, msgspec.structs.replace(HOST, name="copy"))
    else:
        reply = world.get(Deregistered, msgspec.structs.replace(died, unverified=True), HOST)
    assert (reply.state, reply.changed) == (before, False) and world.listener("a.store") == row


def test_a_doubtful_death_of_what_is_down_settles_it() -> None:
    """Probes have found the same, within the category's cap."""
    world = store().in_state("down")
    died = msgspec.structs.replace(at_epoch(DEREGISTER, SAME), credential=world.token("a.store"), died=True)
    assert world.get(Deregistered, msgspec.structs.replace(died, unverified=True), HOST).state == "offline"


@pytest.mark.parametrize("before", ["up", "suspect", "down", "offline"])
def test_a_doubtful_death_of_what_was_never_registered_says_nothing_of_an_older_instance(before: State) -> None:
    """The older instance is neither probed nor ended for it, and the host forgets its own."""
    world = store().in_state(before)
    row = world.listener("a.store")
    died = msgspec.structs.replace(at_epoch(DEREGISTER, NEWER), credential=world.token("a.store"), died=True)
    assert world.code(msgspec.structs.replace(died, unverified=True), HOST) == "unknown-listener"
    assert world.listener("a.store") == row


def test_a_newer_instance_of_another_host_ends_as_it_says() -> None:
    """The registration may be delayed, and must not count when it arrives."""
    world = store().in_state("up")
    died = msgspec.structs.replace(at_epoch(DEREGISTER, NEWER), credential=world.token("a.store"), died=True)
    assert world.get(Deregistered, died, msgspec.structs.replace(HOST, name="other")).state == "offline"


def test_an_administrator_need_not_know_epochs() -> None:
    """Epoch 0 is the next one, also after a removal; from a host it is none."""
    world = store()
    zero = at_epoch(REGISTER, 0)
    world.get(Registered, zero)
    assert world.listener("a.store").epoch == 1
    world.ask(Remove("listener", f"a.store {AT}"))
    world.get(Registered, zero)
    assert (world.listener("a.store").epoch, world.listener("a.store").state) == (2, "up")
    assert world.code(msgspec.structs.replace(zero, credential=world.token("a.store")), HOST) == "bad-value"


DAY_AHEAD = int((NOW + EPOCH_AHEAD_SECONDS_MAX) * EPOCHS_PER_SECOND)
"""The largest epoch that a server whose clock stands at NOW accepts."""


def test_an_epoch_is_at_most_a_day_ahead_of_the_server_s_clock() -> None:
    """A larger epoch would block its listener for longer: it is refused from a host and from an administrator."""
    world = store().in_state("up")
    for epoch in (-1, DAY_AHEAD + 1, EPOCH_MAX, EPOCH_MAX + 1):
        assert world.code(at_epoch(REGISTER, epoch)) == "bad-value"
        assert world.code(at_epoch(DEREGISTER, epoch)) == "bad-value"
    refusal = world.get(Refusal, at_epoch(REGISTER, EPOCH_MAX))
    assert "days ahead of the clock of this server; at most 1:" in refusal.message
    token = world.token("a.store")
    assert world.code(msgspec.structs.replace(REGISTER, credential=token, epoch=DAY_AHEAD + 1), HOST) == "bad-value"
    assert world.code(at_epoch(DEREGISTER, 0)) == "bad-value"
    world.get(Registered, at_epoch(REGISTER, DAY_AHEAD))
    world.get(Deregistered, at_epoch(DEREGISTER, DAY_AHEAD))


def test_the_successor_of_an_epoch_of_an_older_server_is_valid() -> None:
    """An older server stored any epoch: its instance registers again, ends, and has one successor at a time."""
    world = store()
    world.now += 1e9
    far = int(world.now * EPOCHS_PER_SECOND)
    world.get(Registered, at_epoch(REGISTER, far))
    world.now -= 1e9
    assert not world.get(Registered, at_epoch(REGISTER, far)).changed
    world.get(Deregistered, at_epoch(DEREGISTER, far))
    assert world.code(at_epoch(REGISTER, far + 2)) == "bad-value"
    world.get(Registered, at_epoch(REGISTER, far + 1))


@pytest.mark.parametrize(
    "good, bad",
    [
        ({"weight": 0}, {"weight": -1}),
        ({"weight": WEIGHT_MAX}, {"weight": WEIGHT_MAX + 1}),
        (
            {"metadata": {str(n): "" for n in range(METADATA_ENTRIES_MAX)}},
            {"metadata": {str(n): "" for n in range(METADATA_ENTRIES_MAX + 1)}},
        ),
        ({"metadata": {"k": ""}}, {"metadata": {"": ""}}),
        ({"metadata": {"k" * METADATA_KEY_MAX: ""}}, {"metadata": {"k" * (METADATA_KEY_MAX + 1): ""}}),
        ({"metadata": {"k": "v" * METADATA_VALUE_MAX}}, {"metadata": {"k": "v" * (METADATA_VALUE_MAX + 1)}}),
        ({"metadata": {"k": "机房 a"}}, {"metadata": {"k": "a\0"}}),
        ({"metadata": {"键": ""}}, {"metadata": {"a\x1b[2J": ""}}),
        ({"metadata": {"k": "\u00a0"}}, {"metadata": {"k": "\x9f"}}),
        ({"metadata": {"k": "\U0001f600"}}, {"metadata": {"k": "\ud83d"}}),
    ],
)
def test_parameters_at_their_limits(good: dict[str, object], bad: dict[str, object]) -> None:
    """Each limit is taken at n and refused at n + 1; control characters and lone surrogates are refused."""
    world = store()
    assert world.code(msgspec.structs.replace(REGISTER, **bad)) == "bad-value"
    world.get(Registered, msgspec.structs.replace(REGISTER, **good))


def test_a_service_has_so_many_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener beyond the limit is refused, a known one is not, and purging makes room."""
    monkeypatch.setattr("compass.model.rules.listeners.LISTENERS_PER_SERVICE_MAX", 2)
    world = store()
    world.up("a.store", "10.0.0.1:1")
    world.up("a.store", "10.0.0.1:2")
    assert world.code(Register("a.store", "", "10.0.0.1", 3, 1)) == "too-large"
    assert isinstance(world.up("a.store", "10.0.0.1:2", 2), Registered)
    world.ask(Deregister("a.store", "", "10.0.0.1", 2, 2))
    world.now += 100
    world.ask(Purge(100))
    assert isinstance(world.up("a.store", "10.0.0.1:3"), Registered)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"service": "a"}, "bad-name"),
        ({"service": "a.none"}, "unknown-category"),
        ({"service": "none.store"}, "unknown-service"),
        ({"address": "localhost"}, "bad-address"),
        ({"port": 0}, "bad-address"),
        ({"address": "10.0.0.9"}, "unknown-listener"),
    ],
)
def test_what_is_not_there_is_named(change: dict[str, object], code: str) -> None:
    """P5: no such category, service and listener are different answers, to every request about a listener."""
    world = store().in_state("up")
    for request in (REGISTER, DEREGISTER, REPORT, Drain("a.store", "10.0.0.1", 2028)):
        if code == "unknown-listener" and request is REGISTER:
            continue
        assert world.code(msgspec.structs.replace(request, **change)) == code


@pytest.mark.parametrize("state", ["up", "slow", "suspect", "down", "draining"])
@pytest.mark.parametrize("died", [False, True])
def test_deregistering_takes_a_listener_out_of_use(state: State, died: bool) -> None:
    """2.2, P6: an older instance leaves the newer one alone; the same or a newer one takes it offline."""
    world = store().in_state(state)
    assert world.code(msgspec.structs.replace(DEREGISTER, epoch=OLDER, died=died)) == "stale-epoch"
    for epoch in (SAME, NEWER):
        world = store().in_state(state)
        world.now += 1
        reply = world.get(Deregistered, msgspec.structs.replace(DEREGISTER, epoch=epoch, died=died))
        row = world.listener("a.store")
        assert reply.changed and (row.state, row.epoch, row.changed_at) == ("offline", epoch, world.now)
        assert world.operations()[0] == ("died" if died else "deregister")
        kinds = {alert.kind for alert in world.catalogue.alerts.values()}
        assert ("failure" in kinds) if died else not kinds


def test_deregistering_what_is_offline() -> None:
    """The same instance: no change. An older one: refused. A newer one: its registration is late (P6)."""
    world = store().in_state("offline")
    assert world.get(Deregistered, DEREGISTER) == Deregistered(world.catalogue.revision, "offline", changed=False)
    assert world.operations() == []
    assert world.code(at_epoch(DEREGISTER, OLDER)) == "stale-epoch"
    assert world.get(Deregistered, at_epoch(DEREGISTER, NEWER)).changed
    refusal = world.get(Refusal, at_epoch(REGISTER, NEWER))
    assert (refusal.code, refusal.epoch) == ("deregistered", NEWER)


def test_a_death_is_an_incident_until_the_next_registration() -> None:
    """P9, G14: administrators are notified once, with host and listener."""
    world = store().in_state("up")
    world.ask(msgspec.structs.replace(DEREGISTER, died=True))
    assert world.operations() == ["died", "alert"]
    (alert,) = world.catalogue.alerts.values()
    assert alert.id == f"failure a.store {AT}" and "a.store at 10.0.0.1:2028 on host alice ended" in alert.text
    world.ask(at_epoch(REGISTER, NEWER))
    assert world.operations() == ["register", "alert-over"] and not world.catalogue.alerts


@pytest.mark.parametrize(
    ("state", "draining", "outcome"),
    [
        ("up", True, "draining"),
        ("slow", True, "draining"),
        ("suspect", True, "suspect"),
        ("draining", True, "draining"),
        ("down", True, "bad-value"),
        ("offline", True, "bad-value"),
        ("up", False, "up"),
        ("draining", False, "up"),
        ("slow", False, "bad-value"),
        ("suspect", False, "bad-value"),
        ("down", False, "bad-value"),
        ("offline", False, "bad-value"),
    ],
)
def test_draining(state: State, draining: bool, outcome: str) -> None:
    """A working listener can be drained and undrained; one that does not work cannot."""
    world = store().in_state(state)
    if outcome == "bad-value":
        assert world.code(drain("a.store", AT, draining)) == outcome
        return
    before = world.listener("a.store")
    assert world.get(Reported, drain("a.store", AT, draining)).state == outcome == world.listener("a.store").state
    assert is_draining(world.listener("a.store")) == draining
    assert bool(world.operations()) == (is_draining(before) != draining)


def a_user(world: World, *services: str) -> World:
    """The host of HOST has these services."""
    world.ask(Attend(HOST.name, services or ("www.web",), "", 0), SERVER)
    return world


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("up", "suspect"),
        ("slow", "suspect"),
        ("suspect", "suspect"),
        ("down", "down"),
        ("draining", "suspect"),
        ("offline", "unknown-listener"),
    ],
)
def test_a_report_makes_a_listener_suspect(state: State, outcome: str) -> None:
    """2.5: at once, with who said so; a second report of the same changes nothing."""
    world = a_user(store().in_state(state))
    if state == "offline":
        assert world.code(REPORT, HOST) == outcome
        return
    request = msgspec.structs.replace(REPORT, reporter="WWW.web", detail="timed out")
    assert world.get(Reported, request, HOST).state == outcome == world.listener("a.store").state
    if outcome != state:
        assert world.operations() == ["report"] and not world.catalogue.alerts.get(f"failure a.store {AT}")
        assert world.listener("a.store").cause == "reported unreachable by www.web on web1.example: timed out"
    revision = world.catalogue.revision
    assert world.get(Reported, request, HOST) == Reported(revision, world.listener("a.store").state)


def test_only_a_user_may_report() -> None:
    """P8: the host's services must depend on the category or on one that the service backs."""
    world = store()
    world.up("a.store")
    world.up("spare.help")
    spare = msgspec.structs.replace(REPORT, service="spare.help")
    assert world.code(REPORT, HOST) == "forbidden"
    assert world.last.security is not None and "none of its services depends on" in world.last.security.reason
    a_user(world, "key.auth")
    assert world.code(REPORT, HOST) == "forbidden"
    a_user(world)
    assert world.code(spare, HOST) == "forbidden"
    world.ask(Put(Category("store", "spare.help")))
    assert world.get(Reported, spare, HOST).state == "suspect"
    assert world.get(Reported, REPORT, Principal("host", HOST.name.upper(), "")).state == "suspect"
    assert world.get(Reported, REPORT).state == "suspect"


def test_what_a_reporter_says_is_bounded() -> None:
    """The detail is limited to n characters without control characters; the reporter is a service id or empty."""
    world = store().in_state("up")
    for detail in ("x" * (DETAIL_MAX + 1), "a\0b", "a\nb", "\ud800"):
        assert world.code(msgspec.structs.replace(REPORT, detail=detail)) == "bad-value"
    for reporter in ("nobody", "x" * 500):
        assert world.code(msgspec.structs.replace(REPORT, reporter=reporter)) == "bad-name"
    assert world.code(msgspec.structs.replace(REPORT, reporter="a\0.store")) == "bad-value"
    world.get(Reported, msgspec.structs.replace(REPORT, detail="x" * DETAIL_MAX))
    assert world.listener("a.store").cause == f"reported unreachable by alice on alice: {'x' * DETAIL_MAX}"


@pytest.mark.parametrize("policy", ["alert", "notify"])
def test_slow_is_for_administrators(policy: str) -> None:
    """G13: one alert and no notice; with the policy `notify` a change of state as well."""
    world = store().in_state("up")
    world.ask(Put(Category("store", policy=msgspec.convert({"slow": policy}, Policy))))
    slow = msgspec.structs.replace(REPORT, state="slow", reporter="www.web", detail="9 s")
    state = "slow" if policy == "notify" else "up"
    assert world.get(Reported, slow).state == state == world.listener("a.store").state
    assert world.operations() == (["alert", "slow"] if policy == "notify" else ["alert"])
    assert world.catalogue.alerts[f"slow a.store {AT}"].text == f"a.store at {AT} reported slow by www.web: 9 s"
    assert world.get(Reported, slow).state == state
    assert world.operations() == []


@pytest.mark.parametrize(
    ("state", "alive", "outcome", "operations"),
    [
        ("up", True, "up", []),
        ("up", False, "up", []),
        ("slow", True, "up", ["recover", "alert-over"]),
        ("slow", False, "slow", []),
        ("suspect", True, "up", ["retract"]),
        ("suspect", False, "down", ["confirm", "alert"]),
        ("down", True, "up", ["recover", "alert-over"]),
        ("down", False, "down", []),
        ("draining", True, "draining", []),
        ("draining", False, "draining", []),
        ("offline", True, "offline", []),
        ("offline", False, "offline", []),
    ],
)
@pytest.mark.parametrize("epoch", [OLDER, SAME, NEWER])
def test_a_verdict(state: State, alive: bool, outcome: str, operations: list[str], epoch: int) -> None:
    """P8: a probe counts for the instance it probed alone, and a dead one only against what was reported."""
    world = store().in_state(state)
    verdict = msgspec.structs.replace(VERDICT, alive=alive, epoch=epoch)
    counts = epoch == SAME
    assert world.get(Reported, verdict, SERVER).state == (outcome if counts else state)
    assert world.operations() == (operations if counts else [])
    assert world.listener("a.store").state == (outcome if counts else state)


def test_a_verdict_on_a_listener_that_was_purged_meanwhile() -> None:
    """A verdict about an ended instance changes nothing."""
    world = store()
    assert world.get(Reported, VERDICT, SERVER) == Reported(world.catalogue.revision, "offline")


def test_the_cause_of_a_verdict_is_one_bounded_line() -> None:
    """A cause may contain the reply of a probed program."""
    world = store().in_state("suspect")
    world.ask(msgspec.structs.replace(VERDICT, alive=False, cause="\x1b]0;" + "x" * 1000), SERVER)
    cause = world.listener("a.store").cause
    assert cause.startswith("\\u001b]0;xxx") and len(cause) == DETAIL_MAX


def test_administrators_are_told_once_of_an_incident() -> None:
    """G14: reports and verdicts of one failure are one alert; the next failure is a new one."""
    world = store().in_state("up")
    for _ in range(3):
        world.ask(REPORT)
        world.ask(msgspec.structs.replace(VERDICT, alive=False), SERVER)
    assert [change.operation for change in world.changes].count("alert") == 1
    world.ask(VERDICT, SERVER)
    assert not world.catalogue.alerts
    world.ask(REPORT)
    world.ask(msgspec.structs.replace(VERDICT, alive=False), SERVER)
    assert [change.operation for change in world.changes].count("alert") == 2


@pytest.mark.parametrize("state", ["up", "slow", "suspect", "down", "draining", "offline"])
@pytest.mark.parametrize("purged", ["offline", "down"])
def test_purging(state: State, purged: str) -> None:
    """P9: rows that have been gone for the age, with their incidents; nothing younger and nothing in use."""
    world = store().in_state(state)
    purge = msgspec.structs.replace(Purge(100), state=purged)
    world.now = NOW + 99.9
    assert world.get(Done, purge).changes == ()
    world.now = NOW + 100
    changes = world.get(Done, purge).changes
    if state == purged:
        assert [change.operation for change in changes][-1] == "purge"
        assert world.catalogue.listener("a.store", "10.0.0.1", 2028) is None and not world.catalogue.alerts
    else:
        assert changes == () and world.listener("a.store").state == state


def test_nothing_young_is_purged() -> None:
    """P6: the epoch of a row guards for a minute; an age that is no number is refused."""
    world = store()
    for age in (PURGE_AGE_SECONDS_MIN - 0.001, 0.0, -1.0, float("nan")):
        assert world.code(Purge(age)) == "bad-value"
    world.get(Done, Purge(PURGE_AGE_SECONDS_MIN))
    world.get(Done, Purge(float("inf")))


def test_a_purged_incident_is_over() -> None:
    """The purge of a dead listener closes its incident."""
    world = store().in_state("up")
    world.ask(msgspec.structs.replace(DEREGISTER, died=True))
    world.now += 100
    world.ask(Purge(100))
    assert world.operations() == ["alert-over", "purge"]


def test_a_listener_that_moves_keeps_its_service() -> None:
    """G25: the id is the identity; another address is another row of the same service."""
    world = store().add(Service("c.store"))
    world.up("c.store", "10.0.0.1:1")
    world.up("c.store", "[2001:db8::1]:1")
    assert set(world.catalogue.listeners["c.store"]) == {("10.0.0.1", 1), ("2001:db8::1", 1)}
    assert world.listener("c.store", "[2001:db8::1]:1").host == ADMIN.name


ALLOWED, OTHER = HOST, Principal("host", "web2.example", "192.0.2.2")


def listed() -> tuple[World, Register, Deregister]:
    """A service with a list of hosts, and right requests for a listener of the host that is in it."""
    world = store()
    world.get(Done, Put(Category("store", policy=Policy(hosts={"a": ("WEB1.example",)}))))
    token = world.token("a.store")
    register = msgspec.structs.replace(REGISTER, credential=token)
    world.get(Registered, register, ALLOWED)
    return world, register, msgspec.structs.replace(DEREGISTER, credential=token)


def test_only_the_hosts_of_a_service_register_it() -> None:
    """W9: the credential on another host neither registers the service nor changes a listener of the right host."""
    world, register, deregister = listed()
    for request in (
        at_epoch(register, NEWER),
        msgspec.structs.replace(register, port=1),
        at_epoch(deregister, NEWER),
        deregister,
        Drain("a.store", "10.0.0.1", 2028, True, register.credential),
    ):
        assert world.code(request, OTHER) == "forbidden"
        assert world.last.security is not None and "service set a.store --hosts" in world.last.security.reason
    # The credential is looked at first: a wrong one does not learn of the list.
    assert world.code(msgspec.structs.replace(register, credential="wrong"), OTHER) == "bad-credential"
    # Another service of the category has no list; administrators need not be in one.
    world.get(Registered, Register("b.store", world.token("b.store"), "10.0.0.2", 1, 5), OTHER)
    world.get(Registered, at_epoch(msgspec.structs.replace(REGISTER, port=7), 5))
    world.get(Deregistered, deregister, ALLOWED)


def test_a_host_that_is_taken_off_the_list_may_end_what_it_registered() -> None:
    """A listener does not stay for ever because its host left the list: an end is accepted, a beginning is not."""
    world, register, deregister = listed()
    world.get(Done, Put(Category("store", policy=Policy(hosts={"a": (OTHER.name,)}))))
    assert world.code(at_epoch(register, NEWER), ALLOWED) == "forbidden"
    world.get(Reported, Drain("a.store", "10.0.0.1", 2028, True, register.credential), ALLOWED)
    world.get(Deregistered, msgspec.structs.replace(deregister, died=True, credential=""), ALLOWED)
    world.get(Registered, at_epoch(register, NEWER), OTHER)
    assert world.code(at_epoch(deregister, NEWER), ALLOWED) == "forbidden"
