"""Properties of the catalogue and of what hosts make of it, over random sequences of requests."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from immutables import Map

from compass.model.catalogue.catalogue import Catalogue, OutOfOrder, catalogue_of, topic_of
from compass.model.catalogue.interest import audience, snapshot
from compass.model.names import category_of
from compass.model.replies import Refusal
from compass.model.requests import (
    Apply,
    Attend,
    Deregister,
    Drain,
    Fetch,
    Impact,
    IssueCredential,
    Pull,
    Purge,
    Put,
    Register,
    Remove,
    Rename,
    Report,
    RevokeCredential,
    Verdict,
)
from compass.model.rows import (
    Alert,
    Category,
    Change,
    Credential,
    Dependency,
    Host,
    Listener,
    Policy,
    Row,
    Service,
)
from compass.model.rules.decide import answer, decide
from compass.model.rules.draft import Principal
from compass.model.text import is_printable_line
from tests.support.catalogue_rows import ADMIN, NOW, SERVER, Follower, World, follow, pulled, store

CATEGORIES = ("web", "store", "auth")
SERVICES = ("www.web", "a.store", "b.store", "key.auth")
PORTS = (1, 2)
HOSTS: tuple[tuple[str, ...], ...] = (
    ("www.web",),
    ("a.store",),
    ("key.auth",),
    ("www.web", "key.auth"),
    ("gone.web", "b.store"),
)
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

category = st.sampled_from(CATEGORIES)
service = st.sampled_from(SERVICES)
address = st.just("10.0.0.1")
port = st.sampled_from(PORTS)
epoch = st.integers(1, 3)
row = st.one_of(
    st.builds(Category, category, st.sampled_from(("", "", *SERVICES)), st.just(Policy(slow="notify"))),
    st.builds(Service, service),
    st.builds(Dependency, category, category),
)
existing = st.one_of(
    st.builds(Register, service, st.just(""), address, port, epoch, st.integers(0, 2)),
    st.builds(Deregister, service, st.just(""), address, port, epoch, st.booleans()),
    st.builds(Drain, service, address, port, st.booleans()),
    st.builds(Report, service, address, port, st.sampled_from(("unreachable", "slow"))),
    st.builds(Verdict, service, address, port, epoch, st.booleans(), st.just("probed")),
)
request = st.one_of(
    existing,
    existing,
    st.builds(Put, row, st.just(True)),
    st.builds(Put, row),
    st.builds(Remove, st.just("category"), category),
    st.builds(Remove, st.just("service"), service),
    st.builds(Remove, st.just("dependency"), st.builds("{} {}".format, category, category)),
    st.builds(Remove, st.just("listener"), st.builds("{} 10.0.0.1:{}".format, service, port)),
    st.builds(Rename, category, category, st.sampled_from(("", "begin", "end")), st.booleans()),
    st.builds(Rename, service, service, st.sampled_from(("", "begin", "end")), st.booleans()),
    st.builds(Purge, st.just(100.0), st.sampled_from(("offline", "down"))),
    st.builds(IssueCredential, service, st.sampled_from((None, 0.0, 50.0))),
    st.builds(Attend, st.sampled_from(("h1", "h2")), st.just(("www.web",)), st.just(""), st.just(0)),
    st.builds(Apply, st.lists(row, max_size=8).map(tuple), st.booleans()),
)
requests = st.lists(st.tuples(request, st.sampled_from((0.0, 1.0, 200.0))), min_size=25, max_size=60)
"""Long enough for objects to come, go and come again."""
Asked = list[tuple[Any, float]]


def played(asked: Asked) -> World:
    """A world with everything there is, in which all of this was asked."""
    world = World().add(*map(Category, CATEGORIES)).add(*map(Service, SERVICES))
    world.add(Dependency("web", "store"), Dependency("web", "auth"), Dependency("auth", "auth"))
    for one, later in asked:
        world.now += later
        world.ask(one, SERVER if isinstance(one, Verdict | Attend) else ADMIN)
    return world


def as_set(rows: Any) -> set[str]:
    return {repr(one) for one in rows}


@QUICK
@given(requests)
def test_the_log_has_no_gaps_and_replaying_it_gives_the_catalogue(asked: Asked) -> None:
    """P2: one revision for each change; a replica from the log, and one from the tables, equal the first."""
    world = played(asked)
    assert [change.revision for change in world.changes] == list(range(1, world.catalogue.revision + 1))
    replayed = Catalogue()
    for change in world.changes:
        topic = topic_of(change.row)
        assert change.previous == (replayed.topics.get(topic, 0) if topic else 0)
        replayed = replayed.apply(change)
    assert replayed == world.catalogue
    rows = list(world.catalogue.all_rows())
    assert catalogue_of(rows, dict(world.catalogue.topics), world.catalogue.revision) == world.catalogue


@QUICK
@given(requests)
def test_the_indexes_say_what_the_rows_say(asked: Asked) -> None:
    """Recomputed from the rows alone, every index is the same, and no reference dangles."""
    catalogue = played(asked).catalogue
    rows = list(catalogue.all_rows())
    needs = {(one.category, one.on) for one in rows if isinstance(one, Dependency)}
    assert {(own, on) for own, all_on in catalogue.needs.items() for on in all_on} == needs
    assert {(own, on) for on, all_own in catalogue.dependants.items() for own in all_own} == needs
    backups = {(one.backup, one.name) for one in rows if isinstance(one, Category) and one.backup}
    assert {(id, name) for id, names in catalogue.backed.items() for name in names} == backups
    services = {one.id for one in rows if isinstance(one, Service)}
    categories = {one.name for one in rows if isinstance(one, Category)}
    assert {category_of(id) for id in services} <= categories
    assert {name for pair in needs for name in pair} <= categories
    assert {backup for backup, _ in backups} <= services
    assert {one.service for one in rows if isinstance(one, Listener | Credential)} <= services
    assert set(catalogue.topics) == services | categories
    for index in (catalogue.services, catalogue.listeners, catalogue.needs, catalogue.credentials):
        assert all(index.values()), "an empty entry stayed behind"


@QUICK
@given(requests)
def test_an_alert_is_open_only_while_its_incident_is(asked: Asked) -> None:
    """A failure is over when the listener is up again or gone for good."""
    catalogue = played(asked).catalogue
    there = {
        f"{one.service} {one.address}:{one.port}": one.state
        for one in catalogue.all_rows()
        if isinstance(one, Listener)
    }
    for alert in catalogue.alerts.values():
        assert alert.id.removeprefix(f"{alert.kind} ") in there
        if alert.kind == "failure":
            assert there[alert.id.removeprefix("failure ")] != "up"


@QUICK
@given(requests, st.sampled_from(HOSTS), st.data())
def test_a_host_that_is_told_its_part_ends_as_a_pull_would(
    asked: Asked, services: tuple[str, ...], data: st.DataObject
) -> None:
    """P3, G11: a snapshot at any revision and the notices after it end as a pull; no gap is seen."""
    world = played(asked)
    start = data.draw(st.integers(0, len(world.changes)), label="start")
    before = Catalogue()
    for change in world.changes[:start]:
        before = before.apply(change)
    host = Follower(services, before)
    assert host.pull() == pulled(before, services)
    assert set(follow(host, world.changes[start:], before)) <= {"applied"}
    assert host.pull() == pulled(world.catalogue, services)


@QUICK
@given(requests, st.sampled_from(HOSTS))
def test_what_a_host_is_not_told_does_not_concern_it(asked: Asked, services: tuple[str, ...]) -> None:
    """P3, G8: a change outside of a category's audience leaves the pulls of its services as they were."""
    world = played(asked)
    before = Catalogue()
    for change in world.changes:
        after = before.apply(change)
        told = audience(after, change.row)
        for own in services:
            if category_of(own) not in told:
                assert pulled(after, [own]) == pulled(before, [own])
        before = after


@QUICK
@given(requests, st.sampled_from(HOSTS), st.data())
def test_a_lost_notice_is_seen_with_the_next_on_its_topic(
    asked: Asked, services: tuple[str, ...], data: st.DataObject
) -> None:
    """P4: `previous` shows it, unless the topic ended with its category or a widening healed it."""
    world = played(asked)
    host = Follower(services, Catalogue())
    sent = []
    after = Catalogue()
    for change in world.changes:
        after = after.apply(change)
        if host.is_told(change, after):
            sent.append((change, host.widened(change, after)))
    if not sent:
        return
    lost = data.draw(st.integers(0, len(sent) - 1), label="lost")
    for change, more in sent[:lost]:
        assert host.receive(change, more) == "applied"
    dropped = sent[lost][0]
    topic = topic_of(dropped.row)
    if isinstance(dropped.row, Category) and dropped.removed:
        return
    for change, more in sent[lost + 1 :]:
        said = host.receive(change, more)
        if topic_of(change.row) == topic:
            assert said == "gap"
            return
        if more is not None and topic in more.topics:
            return


@QUICK
@given(requests, st.sampled_from(HOSTS))
def test_a_notice_that_comes_twice_changes_nothing(asked: Asked, services: tuple[str, ...]) -> None:
    """G11: the second is a duplicate, unless it was the end of its topic, and the pull stays."""
    world = played(asked)
    host = Follower(services, Catalogue())
    after = Catalogue()
    for change in world.changes:
        after = after.apply(change)
        if host.is_told(change, after):
            more = host.widened(change, after)
            host.receive(change, more)
            before = host.pull()
            again = host.receive(change, more)
            assert again == "duplicate" or (change.removed and isinstance(change.row, Category))
            assert host.pull() == before


def test_a_host_that_was_not_told_for_a_while_gets_no_dead_listener_back() -> None:
    """P5, P6: what was removed while the host did not depend on it is not there when it does so again."""
    world = store()
    world.up("a.store")
    host = Follower(["www.web"], world.catalogue)
    start, before = len(world.changes), world.catalogue
    assert host.pull()["www.web"][0].services[0].listeners
    world.ask(Remove("dependency", "web store"))
    world.ask(Remove("listener", "a.store 10.0.0.1:2028"))
    world.ask(Remove("service", "a.store"))
    world.add(Dependency("web", "store"), Service("a.store"))
    assert set(follow(host, world.changes[start:], before)) == {"applied"}
    assert host.pull() == pulled(world.catalogue, ["www.web"])
    assert not host.pull()["www.web"][0].services[0].listeners


def test_a_change_out_of_order_is_a_defect() -> None:
    """A full replica takes only the next change of the log."""
    for revision in (0, 2):
        with pytest.raises(OutOfOrder):
            Catalogue().apply(Change(revision, 0, NOW, "category-add", Category("web")))


def test_a_snapshot_replaces_what_it_is_newer_than_and_nothing_else() -> None:
    """Merging an older snapshot changes nothing; merging one without rows empties the topic (P5)."""
    world = store()
    old = snapshot(world.catalogue, ["store", "a.store"])
    world.up("a.store")
    host = Follower(["www.web"], world.catalogue)
    assert host.catalogue.merge(old).listeners == host.catalogue.listeners
    empty = msgspec.structs.replace(snapshot(Catalogue(), []), revision=99, topics={"a.store": 99})
    assert "a.store" not in host.catalogue.merge(empty).listeners
    assert host.catalogue.merge(empty).revision == 99


def test_removing_what_is_not_there_changes_nothing() -> None:
    """A host accepts the removal of a row that it never had."""
    rows: list[Row] = [
        Category("c"),
        Service("s.c"),
        Listener("s.c", "10.0.0.1", 1, "up", NOW, 1),
        Dependency("c", "c"),
        Credential("1", "s.c", "", NOW),
        Host("h"),
        Alert("a", "slow", NOW, ""),
    ]
    for one in rows:
        assert Catalogue().without(one) == Catalogue()
        assert Catalogue().with_row(one).without(one) == Catalogue()
        assert as_set(Catalogue().with_row(one).all_rows()) == as_set([one])


def test_an_older_program_reads_a_policy_with_a_field_it_does_not_know() -> None:
    """P13: fields are added; a host that does not know one skips it."""
    encoded = msgspec.msgpack.encode({"row": "category", "name": "web", "policy": {"colour": 0.5, "probe_attempts": 3}})
    assert msgspec.msgpack.decode(encoded, type=Row) == Category("web", policy=Policy(probe_attempts=3))


weird_text = st.one_of(
    st.sampled_from((*CATEGORIES, *SERVICES, "web store", "a.store 10.0.0.1:1", "10.0.0.1", "::1", "h1", "")),
    st.sampled_from(("\0", "\ud800", "a\nb", "\x7f", "x" * 5000, "10.0.0.1:" + "9" * 5000, "a.store ")),
    st.text(st.characters(exclude_categories=[]), max_size=20),
)
weird_int = st.one_of(st.integers(-2, 3), st.sampled_from((2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**300)))
weird_float = st.one_of(st.floats(), st.sampled_from((0.0, 60.0)))
weird_policy = st.builds(Policy, weird_text, weird_float, weird_int, st.sampled_from(("alert", "notify")), weird_float)
weird_row = st.one_of(
    st.builds(Category, weird_text, weird_text, weird_policy),
    st.builds(Service, weird_text),
    st.builds(Dependency, weird_text, weird_text),
)
weird_host = st.builds(Host, weird_text, weird_text, weird_int, st.lists(weird_text).map(tuple), st.booleans())
weird_metadata = st.dictionaries(weird_text, weird_text, max_size=3)
a_listener = (weird_text, weird_text, weird_int)
weird_request = st.one_of(
    st.builds(Register, weird_text, weird_text, *a_listener[1:], weird_int, weird_int, weird_metadata),
    st.builds(Register, service, st.just(""), address, port, weird_int, st.just(1), weird_metadata),
    st.builds(Deregister, weird_text, weird_text, *a_listener[1:], weird_int, st.booleans()),
    st.builds(Deregister, service, st.just(""), address, port, weird_int, st.booleans()),
    st.builds(Drain, *a_listener, st.booleans(), weird_text),
    st.builds(Report, *a_listener, st.sampled_from(("unreachable", "slow")), weird_text, weird_text),
    st.builds(Report, service, address, port, st.sampled_from(("unreachable", "slow")), service, weird_text),
    st.builds(Verdict, service, address, port, epoch, st.booleans(), weird_text),
    st.builds(Put, st.one_of(weird_row, weird_host), st.booleans()),
    st.builds(Remove, st.sampled_from(("category", "service", "dependency", "listener", "host")), weird_text),
    st.builds(Rename, weird_text, weird_text, st.sampled_from(("", "begin", "end")), st.booleans()),
    st.builds(IssueCredential, weird_text, st.one_of(st.none(), weird_float)),
    st.builds(IssueCredential, service, st.one_of(st.none(), weird_float)),
    st.builds(RevokeCredential, weird_text, weird_text),
    st.builds(Apply, st.lists(weird_row, max_size=5).map(tuple), st.booleans(), st.booleans()),
    st.builds(Purge, weird_float, st.sampled_from(("offline", "down"))),
    st.builds(Attend, weird_text, st.lists(weird_text).map(tuple), weird_text, weird_int),
    st.builds(Pull, weird_text),
    st.builds(Impact, weird_text),
    st.builds(
        Fetch,
        st.sampled_from(("category", "listener", "host")),
        weird_text,
        weird_text,
        limit=weird_int,
        after=weird_int,
    ),
)
weird_asker = st.sampled_from((ADMIN, ADMIN, SERVER, SERVER, Principal("host", "H1", "192.0.2.1")))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(weird_request, weird_asker), min_size=1, max_size=20))
def test_whatever_is_asked_is_answered_and_can_be_stored(asked: list[tuple[Any, Principal]]) -> None:
    """P10: no value raises; what goes into tables and logs is text that SQL can hold; refusals are short."""
    catalogue = played([(Register("a.store", "", "10.0.0.1", 1, 1), 0.0)]).catalogue
    for one, asker in asked:
        if isinstance(one, Pull | Fetch | Impact):
            decision = answer(catalogue, one, asker, NOW)
        else:
            decision = decide(catalogue, one, asker, NOW, "token")
        catalogue = decision.catalogue
        msgspec.msgpack.encode(decision.changes)
        msgspec.msgpack.encode(decision.reply)
        for entry in (
            decision.security,
            decision.administration,
            *(change.row for change in decision.changes),
        ):
            assert entry is None or all(map(is_printable_line, texts(msgspec.to_builtins(entry))))
        if isinstance(decision.reply, Refusal):
            assert is_printable_line(decision.reply.message) and len(decision.reply.message) < 1000


def texts(value: Any) -> list[str]:
    """Every text within."""
    match value:
        case str():
            return [value]
        case dict():
            return [text for pair in value.items() for part in pair for text in texts(part)]
        case list() | tuple():
            return [text for part in value for text in texts(part)]
    return []


def test_the_empty_catalogue_is_made_of_nothing() -> None:
    """A server's first start."""
    assert catalogue_of([], {}, 0) == Catalogue() and Catalogue().topics == Map()
