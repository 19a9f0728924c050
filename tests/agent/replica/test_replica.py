"""Replica alone: changes in order make it equal to a pull; it detects missing and repeated ones."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from compass.agent.replica.replica import Replica
from compass.agent.replica.suspicions import EVIDENCE_MAX, EVIDENCE_SECONDS, UNSHARED_SECONDS, Suspicions
from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import added_topics, audience, interest, snapshot
from compass.model.host_api import LocalReport, Resolved
from compass.model.names import category_of
from compass.model.replies import CategoryView, Refusal, ServiceView, Watching
from compass.model.rows import Category, Change, Dependency, Listener, Row, Service, Snapshot, State, key_of
from compass.model.rules.draft import Draft, Principal
from compass.wire.messages import Notice
from tests.support.agent_world import view_of

CATEGORIES = ["a", "b", "c", "d"]
SERVICES = [f"s{n}.{category}" for category in CATEGORIES for n in range(2)]


class Source:
    """A catalogue that random changes are made to, and the notices that a host with these services gets."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.catalogue = Catalogue()
        for category in CATEGORIES:
            self.change(Category(category))

    def change(self, row: Row, *, removed: bool = False) -> Change:
        draft = Draft(self.catalogue, Principal("admin", "x", ""), 1.0)
        (draft.remove if removed else draft.set)("test", row)
        self.catalogue = draft.catalogue
        return draft.changes[0]

    def any_change(self) -> Change:
        """A change such as administrators and services make; backups name services that exist."""
        pick = self.random.choice
        known = [id for ids in self.catalogue.services.values() for id in ids]
        kind = self.random.random()
        if kind < 0.6 and known:
            states: list[State] = ["up", "suspect", "down", "offline", "up"]
            state = pick(states)
            return self.change(Listener(pick(known), "10.0.0.1", pick([1, 2, 3]), state, 1.0, 1))
        if kind < 0.75:
            service = pick(SERVICES)
            if service in known:
                peers = self.catalogue.listeners.get(service)
                if peers:
                    return self.change(next(iter(peers.values())), removed=True)
                if not self.catalogue.backed.get(service):
                    return self.change(Service(service), removed=True)
            else:
                return self.change(Service(service))
        if kind < 0.85 and known:
            return self.change(Category(pick(CATEGORIES), pick([*known, ""])))
        edge = Dependency(pick(CATEGORIES), pick(CATEGORIES))
        there = edge.on in self.catalogue.needs.get(edge.category, frozenset())
        return self.change(edge, removed=there)

    def notice(self, change: Change, services: list[str]) -> Notice | None:
        told = audience(self.catalogue, change.row)
        members = {category_of(service) for service in services}
        if not told & members:
            return None
        topics, widened = added_topics(self.catalogue, change) or (set(), frozenset())
        return Notice(change, snapshot(self.catalogue, topics) if widened & members else None)

    def pull(self, services: list[str]) -> Watching:
        part = snapshot(self.catalogue, interest(self.catalogue, services))
        return Watching("store", self.catalogue.revision, part)


def held(catalogue: Catalogue, services: list[str]) -> tuple[set[tuple[type, object]], dict[str, int]]:
    """Return the rows that a host with these services needs, in a form that can be compared."""
    part = snapshot(catalogue, interest(catalogue, services))
    return {(type(row), key_of(row)) for row in part.rows}, {t: at for t, at in part.topics.items() if at}


@pytest.mark.parametrize("seed", range(40))
def test_notices_make_it_equal_to_a_pull(seed: int) -> None:
    """P3 and G11: after any history the host holds exactly the rows that a fresh pull would return."""
    source = Source(seed)
    services = source.random.sample(SERVICES, 2)
    replica = Replica()
    replica.watching(source.pull(services), services)
    for _ in range(150):
        notice = source.notice(source.any_change(), services)
        if notice is not None:
            assert replica.notice(notice) == "applied"
            assert replica.notice(notice) == "duplicate"
        assert held(replica.catalogue, services) == held(source.catalogue, services)
    fresh = Replica()
    fresh.watching(source.pull(services), services)
    ours, theirs = (snapshot(each.catalogue, each.catalogue.topics) for each in (replica, fresh))
    assert {(type(row), key_of(row)) for row in ours.rows} == {(type(row), key_of(row)) for row in theirs.rows}
    assert set(ours.topics) <= set(theirs.topics)


@pytest.mark.parametrize("seed", range(20))
def test_a_lost_notice_is_noticed(seed: int) -> None:
    """P4: after a notice is lost, the next one on its topic shows it, and a new snapshot mends it."""
    source = Source(seed)
    source.change(Service("s0.a"))
    source.change(Dependency("b", "a"))
    replica = Replica()
    replica.watching(source.pull(["s0.b"]), ["s0.b"])
    source.change(Listener("s0.a", "10.0.0.1", 1, "up", 1.0, 1))
    second = source.notice(source.change(Listener("s0.a", "10.0.0.1", 2, "up", 1.0, 1)), ["s0.b"])
    assert second is not None and replica.notice(second) == "gap"
    assert not replica.catalogue.listeners
    assert replica.watching(source.pull(["s0.b"]), ["s0.b"]) == "replaced"
    assert len(replica.catalogue.listeners["s0.a"]) == 2
    assert replica.notice(second) == "duplicate"


def test_where_to_resume() -> None:
    """Only a view that is complete for the same categories can be resumed; the request names the store."""
    source = Source(1)
    replica = Replica()
    assert replica.resume_point(["s0.a"]) == ("", 0)
    replica.watching(source.pull(["s0.a"]), ["s0.a"])
    assert replica.resume_point(["s0.a", "s1.a"]) == ("store", source.catalogue.revision)
    assert replica.resume_point(["s0.a", "s0.b"]) == ("store", 0)
    replica.bookmark(99)
    replica.bookmark(98)
    assert replica.resume_point(["s0.a"]) == ("store", 99)
    assert replica.watching(Watching("store", 120), ["s0.a", "s1.a"]) == "kept"
    assert replica.catalogue.revision == 99 and replica.services == {"s0.a", "s1.a"}


def test_a_widening_of_later_date_does_not_skip_what_is_still_to_come() -> None:
    """A partial view is not complete for the other topics, so the host does not resume from its revision."""
    source = Source(1)
    replica = Replica()
    replica.watching(source.pull(["s0.b"]), ["s0.b"])
    change = source.change(Dependency("b", "a"))
    late = Snapshot(change.revision + 50, {"a": 1}, [Category("a")])
    assert replica.notice(Notice(change, late)) == "applied"
    assert replica.catalogue.revision == change.revision


def test_a_duplicate_moves_the_revision_of_the_host_and_nothing_else() -> None:
    """A snapshot of a later revision holds what the next notices bring: "its own revision becomes `change.revision` if
    that is larger", so that the host may acknowledge them."""
    source = Source(1)
    replica = Replica()
    replica.watching(source.pull(["s0.b"]), ["s0.b"])
    widening, held = source.change(Dependency("b", "a")), source.change(Service("s0.a"))
    replica.notice(Notice(widening, snapshot(source.catalogue, {"a", "s0.a"})))
    before = replica.catalogue
    assert before.revision == widening.revision
    assert replica.notice(Notice(held)) == "duplicate"
    assert replica.catalogue == msgspec.structs.replace(before, revision=held.revision)
    assert replica.notice(Notice(widening)) == "duplicate"
    assert replica.catalogue.revision == held.revision


def test_only_a_statement_about_the_same_store_empties_a_view() -> None:
    """P5: with a number it does, from another store that knows nothing of this host it does not."""
    source = Source(1)
    source.change(Dependency("b", "a"))
    replica = Replica()
    replica.watching(source.pull(["s0.b"]), ["s0.b"])
    nothing = Snapshot(1, {"b": 0}, [])
    assert replica.watching(Watching("other", 1, nothing), ["s0.b"]) == "held-back"
    assert replica.watching(Watching("store", 0, Snapshot(0, {}, [])), ["s0.b"]) == "held-back"
    assert "b" in replica.catalogue.categories
    assert replica.watching(Watching("store", 9, Snapshot(9, {"b": 0}, [])), ["s0.b"]) == "replaced"
    assert not replica.catalogue.categories


def test_the_backup_alone_is_known_but_not_its_category() -> None:
    """A host gets the backup service itself and no others of its category."""
    source = Source(1)
    for row in (Service("s0.a"), Service("s0.c"), Service("s1.c"), Category("a", "s0.c"), Dependency("b", "a")):
        source.change(row)
    replica = Replica()
    replica.watching(source.pull(["s0.b"]), ["s0.b"])
    view = view_of(replica)
    assert isinstance(view.resolve("s0.c"), Resolved)
    for name in ("s1.c", "c"):
        refusal = view.resolve(name)
        assert isinstance(refusal, Refusal) and refusal.code == "unknown-dependency"


def test_a_whole_category_or_service_whatever_the_state_of_its_listeners() -> None:
    """P5: for Prometheus and HAProxy, too, "not loaded yet", "no such name" and "none registered" are three answers."""
    replica = Replica()
    view = view_of(replica)
    for early in (view.category("a"), view.service("s0.a")):
        assert isinstance(early, Refusal) and early.code == "not-ready"
    source = Source(1)
    rows: tuple[Row, ...] = (Service("s0.a"), Service("s0.c"), Category("a", "s0.c"), Dependency("b", "a"))
    for one in rows:
        source.change(one)
    replica.watching(source.pull(["s0.b"]), ["s0.b"])
    for unknown in (view.category("c"), view.category("A b"), view.service("s1.a"), view.service("s0.d")):
        assert isinstance(unknown, Refusal) and unknown.code in ("unknown-dependency", "unknown-service", "bad-name")
    assert view.service("s0.a") == ServiceView("s0.a") and view.service("s0.c") == ServiceView("s0.c")
    down = Listener("s0.a", "10.0.0.1", 1, "down", 1.0, 1)
    for peer in (down, Listener("s0.a", "10.0.0.1", 2, "offline", 1.0, 1)):
        replica.notice(Notice(source.change(peer)))
    assert view.service("s0.a") == ServiceView("s0.a", (down,))
    whole = view.category("A")
    assert isinstance(whole, CategoryView) and whole.services == (ServiceView("s0.a", (down,)),)


def row(port: int = 1) -> Listener:
    return Listener("s0.a", "10.0.0.1", port, "up", 1.0, 1)


def test_evidence_ends_with_time_and_with_the_servers_word() -> None:
    """A local finding holds until a minute is over, or the row is another one."""
    evidence, catalogue = Suspicions(), Catalogue().with_row(row())
    report = LocalReport("s0.a", "10.0.0.1", 1)

    def state(now: float, of: Catalogue = catalogue) -> str:
        listener = evidence.apply_to(of, now).listener("s0.a", "10.0.0.1", 1)
        return listener.state if listener else "none"

    evidence.add(report, row(), 0.0)
    assert evidence.undelivered(catalogue, 1.0) == [report]
    evidence.delivered(("s0.a", "10.0.0.1", 1), "suspect", 1.0)
    assert evidence.undelivered(catalogue, 1.0) == []
    assert state(EVIDENCE_SECONDS - 0.1) == "suspect"
    assert state(EVIDENCE_SECONDS) == "up" and state(0.0) == "up"
    evidence.add(report, row(), 0.0)
    assert state(0.0, catalogue.with_row(msgspec.structs.replace(row(), changed_at=2.0))) == "up"
    evidence.add(report, row(), 0.0)
    evidence.dismiss(("s0.a", "10.0.0.1", 1))
    assert state(0.0) == "up"
    evidence.add(report, row(), 0.0)
    evidence.delivered(("s0.a", "10.0.0.1", 1), "up", 1.0)
    assert state(UNSHARED_SECONDS + 0.9) == "suspect" and state(UNSHARED_SECONDS + 1.0) == "up"


def test_evidence_is_bounded() -> None:
    """A finding above the limit replaces the oldest."""
    evidence, catalogue = Suspicions(), Catalogue()
    for port in range(1, EVIDENCE_MAX + 2):
        catalogue = catalogue.with_row(row(port))
        evidence.add(LocalReport("s0.a", "10.0.0.1", port), row(port), 0.0)
        if port >= EVIDENCE_MAX:
            assert len(evidence.undelivered(catalogue, 1.0)) == EVIDENCE_MAX
