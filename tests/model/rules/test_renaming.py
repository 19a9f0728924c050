"""Renaming of categories and services: what goes over, what is refused, and what a host sees of it."""

from __future__ import annotations

from unittest import mock

import msgspec
import pytest

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.octets import LISTENER_OCTETS
from compass.model.limits import LISTENERS_PER_SERVICE_MAX, POOLS_PER_CATEGORY_MAX
from compass.model.replies import Done, Refusal, Registered
from compass.model.requests import (
    Apply,
    Attend,
    Deregister,
    Incident,
    Put,
    Register,
    Remove,
    Rename,
    Report,
    RevokeCredential,
)
from compass.model.rows import Category, Credential, Dependency, Host, Policy, Service
from compass.model.rules import renaming
from compass.model.rules.draft import Principal
from tests.support.catalogue_rows import ADMIN, AT, HOST, SERVER, Follower, World, follow, pulled, store

POLICY = Policy(probe="http:/health", pools={"a": "least-used"}, hosts={"a": (HOST.name,)})


def rich_store() -> World:
    """`store` with a policy, a backup and a dependency on itself; it is the backup of `help`."""
    world = store().add(Dependency("store", "store"), Dependency("store", "help"))
    world.ask(Put(Category("store", "spare.help", POLICY)))
    world.ask(Put(Category("help", "a.store")))
    return world


def registered(world: World, service: str, token: str, epoch: int = 7) -> str:
    """Return `registered`, or the code with which a host's registration is refused."""
    reply = world.ask(Register(service, token, "10.0.0.1", 2028, epoch), HOST)
    assert isinstance(reply, Registered | Refusal)
    return reply.code if isinstance(reply, Refusal) else "registered"


def declared(catalogue: Catalogue) -> list[object]:
    """Return all that is declared, in an order of its own."""
    rows = (row for row in catalogue.all_rows() if isinstance(row, Category | Service | Dependency))
    return sorted(rows, key=repr)


# What goes over.


def test_a_category_is_renamed_with_all_that_is_known_under_its_name() -> None:
    """Policy, backup, services, credentials, dependencies both ways, and whose backup its services are."""
    world = rich_store()
    token = world.token("a.store")
    world.get(Done, Rename("STORE", "Shop"))
    catalogue = world.catalogue
    assert "store" not in catalogue.categories and "store" not in catalogue.services
    assert catalogue.categories["shop"] == Category("shop", "spare.help", POLICY)
    assert catalogue.categories["help"].backup == "a.shop" and catalogue.backed["a.shop"] == {"help"}
    assert sorted(catalogue.services["shop"]) == ["a.shop", "b.shop"]
    assert catalogue.needs["shop"] == {"shop", "help"} and catalogue.needs["web"] == {"shop"}
    assert "store" not in catalogue.needs and "store" not in catalogue.dependants
    assert registered(world, "a.shop", token) == "registered"
    assert registered(world, "a.store", token) == "unknown-category"


def test_a_service_is_renamed_within_its_category() -> None:
    """Credentials, pool policy, hosts that may register it, and whose backup it is; its neighbour stays."""
    world = rich_store()
    token = world.token("a.store")
    world.get(Done, Rename("a.store", "north.store"))
    catalogue = world.catalogue
    assert sorted(catalogue.services["store"]) == ["b.store", "north.store"]
    policy = catalogue.categories["store"].policy
    assert policy == msgspec.structs.replace(POLICY, pools={"north": "least-used"}, hosts={"north": (HOST.name,)})
    assert catalogue.categories["help"].backup == "north.store"
    assert catalogue.needs["web"] == {"store"}
    assert registered(world, "north.store", token) == "registered"
    assert registered(world, "a.store", token) == "unknown-service"


def test_a_backup_within_the_category_goes_over_as_well() -> None:
    """The new category refers to its own service, never to one of the old name."""
    world = store()
    world.ask(Put(Category("store", "b.store")))
    world.get(Done, Rename("store", "shop"))
    assert world.catalogue.categories["shop"].backup == "b.shop" and "b.store" not in world.catalogue.backed
    world.get(Done, Rename("b.shop", "last.shop"))
    assert world.catalogue.categories["shop"].backup == "last.shop"


@pytest.mark.parametrize(("old", "new", "service"), [("store", "shop", "a.shop"), ("a.store", "c.store", "c.store")])
def test_offline_listeners_keep_their_epochs(old: str, new: str, service: str) -> None:
    """P6: a late registration of an old process is refused under the new name too; the cause has the origin."""
    world = store().in_state("offline", epoch=5)
    world.get(Done, Rename(old, new))
    row = world.listener(service)
    assert (row.state, row.epoch, row.changed_at) == ("offline", 5, world.now)
    assert row.cause == "renamed from a.store; deregistered"
    assert "a.store" not in world.catalogue.listeners
    token = world.token(service)
    for epoch in (4, 5):
        assert registered(world, service, token, epoch=epoch) == "deregistered"
    assert registered(world, service, token, epoch=6) == "registered"


def test_the_incident_of_a_listener_that_died_goes_over() -> None:
    """The alert is not overlooked because of a renaming; a registration under the new name closes it."""
    world = store()
    world.up("a.store")
    world.ask(Deregister("a.store", "", "10.0.0.1", 2028, 1, died=True))
    (before,) = world.catalogue.alerts.values()
    world.now += 60.0
    world.get(Done, Rename("store", "shop"))
    (alert,) = world.catalogue.alerts.values()
    assert alert.id == f"failure a.shop {AT}" and alert.opened_at == before.opened_at
    assert alert.text == before.text.replace("a.store", "a.shop") != before.text
    world.up("a.shop", epoch=2)
    assert not world.catalogue.alerts


def test_the_incident_of_a_cap_is_closed_with_its_category() -> None:
    """No listener of the old name could close it any more; one of a row that has moved before goes with the row."""
    world = store()
    world.up("a.store")
    world.ask(Deregister("a.store", "", "10.0.0.1", 2028, 1, died=True))
    world.ask(Incident("failure cap of store", "as many are down as may be"), SERVER)
    world.get(Done, Rename("store", "shop", "begin"))
    world.up("a.shop")
    world.get(Done, Rename("store", "shop", "end"))
    assert not world.catalogue.alerts and world.listener("a.shop").state == "up"


def test_rows_of_hosts_have_the_new_names() -> None:
    """Other services stay, and a host that names none is not touched."""
    world = store()
    world.ask(Attend("h1.example", ("a.store", "www.web"), "10.0.0.9", 4865), SERVER)
    world.ask(Attend("h2.example", ("www.web",), "", 0), SERVER)
    world.get(Done, Rename("store", "shop"))
    assert world.catalogue.hosts["h1.example"] == Host("h1.example", "10.0.0.9", 4865, ("a.shop", "www.web"))
    assert "host-set" in world.operations()
    assert [change for change in world.last.changes if change.row == world.catalogue.hosts["h2.example"]] == []


def test_the_logs_say_where_a_name_came_from() -> None:
    """The additions and removals are one decision; the administration log has both names."""
    world = store()
    before = world.catalogue.revision
    world.get(Done, Rename("a.store", "c.store"))
    changes = [(change.operation, change.row, change.removed) for change in world.last.changes]
    assert changes == [("rename-add", Service("c.store"), False), ("rename-remove", Service("a.store"), True)]
    assert [change.revision for change in world.last.changes] == [before + 1, before + 2]
    entry = world.last.administration
    assert entry is not None and (entry.operation, entry.outcome) == ("rename", "done")
    assert entry.arguments == '{"name":"a.store","to":"c.store"}' and entry.revision == before + 2


def test_no_reply_has_the_digest_of_a_token() -> None:
    """P11: the rows of credentials are in the reply, to be shown, and in the log with what registrations need."""
    world = store()
    world.token("a.store")
    (digest,) = (row.digest for row in world.catalogue.credentials["a.store"].values())
    for request in (Rename("store", "shop", dry_run=True), Rename("store", "shop")):
        reply = world.get(Done, request)
        assert digest not in repr(reply) and sum(isinstance(change.row, Credential) for change in reply.changes) == 2
    assert digest in repr(world.last.changes)


def test_there_and_back_is_what_it_was() -> None:
    """Nothing is lost on the way, and nothing is left."""
    world = rich_store()
    world.token("b.store")
    before, credentials = declared(world.catalogue), world.catalogue.credentials
    for pair in (("store", "shop"), ("a.shop", "z.shop"), ("shop", "store"), ("z.store", "a.store")):
        world.get(Done, Rename(*pair))
    assert declared(world.catalogue) == before and world.catalogue.credentials == credentials


# Two steps.


def test_listeners_and_users_move_between_two_steps() -> None:
    """Both names exist; the same token is good for both; at no moment is there no listener under one of them."""
    world = rich_store()
    token = world.token("a.store")
    assert registered(world, "a.store", token) == "registered"
    world.get(Done, Rename("store", "shop", "begin"))
    needs = world.catalogue.needs
    assert needs["web"] == {"store", "shop"} and needs["store"] == needs["shop"] == {"store", "shop", "help"}
    assert registered(world, "a.shop", token) == "registered"
    assert world.code(Rename("store", "shop", "end")) == "in-use"
    world.get(object, Deregister("a.store", token, "10.0.0.1", 2028, 7), HOST)
    world.get(Done, Rename("store", "shop", "end"))
    assert world.listener("a.shop").state == "up" and world.listener("a.shop").cause == "registered"
    one_step = rich_store()
    one_step.get(Done, Rename("store", "shop"))
    assert declared(world.catalogue) == declared(one_step.catalogue)


def test_the_steps_of_a_service() -> None:
    """The policy has both labels between the steps, and then the new one."""
    world = rich_store()
    world.up("a.store")
    world.get(Done, Rename("a.store", "c.store", "begin"))
    assert sorted(world.catalogue.categories["store"].policy.pools) == ["a", "c"]
    assert world.catalogue.categories["help"].backup == "a.store"
    world.ask(Remove("listener", f"a.store {AT}"))
    world.get(Done, Rename("a.store", "c.store", "end"))
    assert sorted(world.catalogue.categories["store"].policy.pools) == ["c"]
    assert world.catalogue.categories["help"].backup == "c.store"


def test_what_was_revoked_between_the_steps_stays_so() -> None:
    """`end` brings no credential, no dependency and no policy back that an administrator has removed."""
    world = store()
    token = world.token("a.store")
    world.get(Done, Rename("store", "shop", "begin"))
    (id,) = world.catalogue.credentials["a.shop"]
    world.get(Done, RevokeCredential("a.shop", id))
    world.get(Done, Remove("dependency", "web shop"))
    world.get(Done, Put(Category("shop", policy=Policy(slow="notify"))))
    world.get(Done, Rename("store", "shop", "end"))
    assert registered(world, "a.shop", token) == "bad-credential"
    assert "web" not in world.catalogue.needs
    assert world.catalogue.categories["shop"].policy.slow == "notify"


def test_the_second_step_needs_the_first() -> None:
    """Everything that ends has a counterpart; the first step is not made twice."""
    world = store()
    assert world.code(Rename("store", "shop", "end")) == "unknown-category"
    assert world.code(Rename("a.store", "c.store", "end")) == "unknown-service"
    world.get(Done, Rename("store", "shop", "begin"))
    for step in ("", "begin"):
        assert world.code(msgspec.structs.replace(Rename("store", "shop"), step=step)) == "exists"
        assert "rename store shop --end" in refusal(world)
    world.add(Service("new.store"))
    assert world.code(Rename("store", "shop", "end")) == "in-use"
    assert "new.store" in refusal(world)
    world.get(Done, Remove("service", "new.store"))
    world.get(Done, Rename("store", "shop", "end"))


def test_an_instance_of_the_new_name_is_not_replaced_by_an_old_row() -> None:
    """A listener may have moved before its old name ended."""
    world = store().in_state("offline", epoch=9)
    world.get(Done, Rename("store", "shop", "begin"))
    world.up("a.shop", epoch=3)
    world.get(Done, Rename("store", "shop", "end"))
    assert (world.listener("a.shop").state, world.listener("a.shop").epoch) == ("up", 3)


# What is refused.


def refusal(world: World) -> str:
    """Return the text of the last refusal."""
    assert isinstance(world.last.reply, Refusal)
    return world.last.reply.message


@pytest.mark.parametrize(
    ("name", "to", "code", "advice"),
    [
        ("store", "store", "bad-value", "has this name already"),
        ("a.store", "A.store", "bad-value", "has this name already"),
        ("store", "a.shop", "bad-name", "a category stays a category"),
        ("a.store", "shop", "bad-name", "a service is written SERVICE.CATEGORY"),
        ("store", "under_score", "bad-name", "letters, digits"),
        ("a.store", "a.help", "bad-value", "add a.help, register its listeners there, then remove a.store"),
        ("store", "gns-admin", "bad-name", "those of compass"),
        ("gns-viewer", "store", "bad-name", "those of compass"),
        ("store", "help", "exists", "exists already"),
        ("a.store", "b.store", "exists", "exists already"),
        ("nosuch", "shop", "unknown-category", "category list"),
        ("nosuch.store", "c.store", "unknown-service", "an administrator can add it"),
        ("a.nosuch", "c.nosuch", "unknown-category", "an administrator can add it"),
    ],
)
@pytest.mark.parametrize("step", ["", "begin"])
def test_names_that_cannot_be_renamed(name: str, to: str, code: str, advice: str, step: str) -> None:
    """Each refusal says why, and what to do."""
    world = store().add(Category("gns-viewer"))
    assert world.code(msgspec.structs.replace(Rename(name, to), step=step)) == code
    assert advice in refusal(world)


@pytest.mark.parametrize("state", ["up", "slow", "suspect", "down", "draining"])
@pytest.mark.parametrize(("old", "new"), [("store", "shop"), ("a.store", "c.store")])
def test_no_registered_listener_is_lost(state: str, old: str, new: str) -> None:
    """The old name is in use in every state but offline; the refusal says how to go on, also by force."""
    world = store()
    world.up("a.store", "10.0.0.2:1")
    world.in_state(state)  # type: ignore[arg-type]
    for force in (False, True):
        assert world.code(Rename(old, new, force=force)) == "in-use"
        assert AT in refusal(world) and "stop or remove them" in refusal(world) and "--begin" in refusal(world)
    world.get(Done, Rename(old, new, "begin"))


def test_a_refusal_names_a_few_and_counts_the_others() -> None:
    """A category may have a hundred thousand listeners."""
    world = store()
    for port in range(1, renaming._NAMED_MAX + 1):
        world.up("a.store", f"10.0.0.1:{port}")
    world.code(Rename("store", "shop"))
    assert f"10.0.0.1:{renaming._NAMED_MAX}" in refusal(world) and "more" not in refusal(world)
    world.up("b.store", "10.0.0.1:1")
    world.code(Rename("store", "shop"))
    assert "b.store" not in refusal(world) and "and 1 more" in refusal(world)


@pytest.mark.parametrize(
    ("services", "old", "new", "loses"),
    [
        (("www.web",), "web", "portal", True),
        (("www.web", "a.store"), "web", "portal", True),
        (("www.web", "www.portal"), "web", "portal", False),
        (("gone.web",), "web", "portal", True),
        (("a.store",), "web", "portal", False),
        (("www.web",), "www.web", "main.web", True),
        (("www.web", "main.web"), "www.web", "main.web", False),
        (("www.web", "other.web"), "www.web", "main.web", False),
        (("gone.web",), "www.web", "main.web", False),
        # The category depends on nothing, so no host loses anything.
        (("a.store",), "store", "shop", False),
        (("www.web",), "store", "shop", False),
    ],
)
def test_no_host_loses_what_it_gets(services: tuple[str, ...], old: str, new: str, loses: bool) -> None:
    """A host that names only the old name would get nothing any more: refused, unless by force."""
    world = store()
    world.ask(Attend(HOST.name, services, "", 0), SERVER)
    if loses:
        assert world.code(Rename(old, new)) == "in-use"
        assert HOST.name in refusal(world) and "host remove" in refusal(world) and "--force" in refusal(world)
        world.get(Done, Rename(old, new, force=True))
    else:
        world.get(Done, Rename(old, new))


def test_only_administrators_rename() -> None:
    """P11: a host and a viewer are refused, and the security log has it."""
    world = store()
    for asker in (HOST, Principal("viewer", "grafana", ""), SERVER):
        assert world.code(Rename("store", "shop"), asker) == "forbidden"
        assert world.last.security is not None and world.last.security.subject == "store"


def test_a_dry_run_changes_nothing_and_is_not_logged() -> None:
    """The reply is what the renaming then does."""
    world = rich_store()
    before = world.catalogue
    planned = world.get(Done, Rename("store", "shop", dry_run=True))
    assert world.catalogue is before and world.last.changes == () and world.last.administration is None
    assert world.code(Rename("store", "help", dry_run=True)) == "exists"
    assert world.last.administration is None
    assert world.get(Done, Rename("store", "shop")) == planned


# Limits.


def test_a_renaming_is_bounded_in_octets() -> None:
    """P10: at n octets it is done, beyond them refused with what to do; policies and rows of hosts count in full."""
    world = rich_store().in_state("offline", "b.store")
    world.ask(Attend(HOST.name, ("a.store", "spare.help"), "", 0), SERVER)
    changes = world.get(Done, Rename("store", "shop", force=True, dry_run=True)).changes
    octets = sum(map(renaming.octets_of, changes))
    host = next(change for change in changes if isinstance(change.row, Host))
    assert renaming.octets_of(host) == LISTENER_OCTETS + len("a.shopspare.help")
    category = next(change for change in changes if isinstance(change.row, Category))
    assert renaming.octets_of(category) > LISTENER_OCTETS + len(HOST.name)
    with mock.patch.object(renaming, "RENAME_OCTETS_MAX", octets - 1):
        assert world.code(Rename("store", "shop", force=True)) == "too-large"
        assert "purge" in refusal(world) and "--begin" in refusal(world)
    with mock.patch.object(renaming, "RENAME_OCTETS_MAX", octets):
        world.get(Done, Rename("store", "shop", force=True))


@pytest.mark.parametrize("fits", [True, False])
def test_a_service_does_not_get_more_listeners_than_it_may_have(fits: bool) -> None:
    """P10: the offline rows of the old name go over at the end only as far as there is room."""
    assert LISTENERS_PER_SERVICE_MAX > 3
    world = store().in_state("offline", at="10.0.0.1:1").in_state("offline", at="10.0.0.1:2")
    world.get(Done, Rename("store", "shop", "begin"))
    world.up("a.shop", "10.0.0.2:1")
    with mock.patch.object(renaming, "LISTENERS_PER_SERVICE_MAX", 3 if fits else 2):
        if fits:
            world.get(Done, Rename("store", "shop", "end"))
        else:
            assert world.code(Rename("store", "shop", "end")) == "too-large"
            assert "purge offline ones first" in refusal(world)


@pytest.mark.parametrize(("step", "code"), [("begin", "too-large"), ("", "")])
def test_both_names_of_a_service_count_for_the_category(step: str, code: str) -> None:
    """P10: at the limit of pool policies one service may be renamed at once, and not get a second name."""
    pools = {f"s{number}": "least-used" for number in range(POOLS_PER_CATEGORY_MAX - 1)}
    world = store()
    world.get(Done, Put(Category("store", policy=Policy(pools={**pools, "a": "least-used"}))))
    request = msgspec.structs.replace(Rename("a.store", "c.store"), step=step)
    if code:
        assert world.code(request) == code
        del pools["s0"]
        world.get(Done, Put(Category("store", policy=Policy(pools={**pools, "a": "least-used"}))))
    world.get(Done, request)


# What a host sees.


@pytest.mark.parametrize("pair", [("store", "shop"), ("a.store", "c.store"), ("web", "portal"), ("help", "rescue")])
@pytest.mark.parametrize("steps", [("",), ("begin", "end")])
def test_a_host_that_gets_the_notices_ends_as_a_pull_would(pair: tuple[str, str], steps: tuple[str, ...]) -> None:
    """P3, P4, P5: no gap, and the view is that of the server after each step, backups included."""
    world = rich_store().in_state("offline", at="10.0.0.7:1")
    services = ("www.web", "a.store", "spare.help", "main.portal")
    follower = Follower(services, world.catalogue)
    for step in steps:
        before = world.catalogue
        world.get(Done, msgspec.structs.replace(Rename(*pair), step=step))
        assert "gap" not in follow(follower, world.last.changes, before)
        assert follower.pull() == pulled(world.catalogue, services)


def test_no_moment_without_the_listeners_that_stay() -> None:
    """P5: while a category is renamed, no notice takes from a host what it gets from other categories."""
    world = store().add(Category("shared"), Service("one.shared"), Dependency("web", "shared"))
    world.up("one.shared")
    follower = Follower(("www.web",), world.catalogue)
    after = world.catalogue
    world.get(Done, Rename("store", "shop"))
    for change in world.last.changes:
        follow(follower, [change], after)
        after = after.apply(change)
        views = {view.category: view for view in follower.pull()["www.web"]}
        assert "store" in views or "shop" in views
        assert len(views["shared"].services[0].listeners) == 1


def test_a_topology_after_a_renaming() -> None:
    """`apply --prune` of what is exported afterwards changes nothing."""
    world = rich_store()
    world.get(Done, Rename("store", "shop"))
    rows = tuple(row for row in world.catalogue.all_rows() if isinstance(row, Category | Service | Dependency))
    assert world.get(Done, Apply(rows, prune=True)).changes == ()


def test_reports_follow_the_new_name() -> None:
    """A host whose service depends on the category reports listeners of the new name (function 2.5)."""
    world = store()
    world.ask(Attend(HOST.name, ("www.web",), "", 0), SERVER)
    world.get(Done, Rename("store", "shop"))
    world.up("a.shop")
    assert not isinstance(world.ask(Report("a.shop", "10.0.0.1", 2028), HOST), Refusal)
    assert world.listener("a.shop").state == "suspect" and ADMIN.role == "admin"
