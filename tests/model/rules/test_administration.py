"""Administration (function 2.6): objects, credentials, topologies, hosts, and what the logs say of it all."""

from __future__ import annotations

import hmac
import json
from unittest import mock

import msgspec
import pytest

from compass.model import limits
from compass.model.limits import (
    ALLOWED_HOSTS_MAX,
    CREDENTIALS_PER_SERVICE_MAX,
    FLAP_SECONDS_MAX,
    FLAPS_MAX,
    GRACE_SECONDS_MAX,
    HOST_SERVICES_MAX,
    PARAMETERS_MAX,
    PROBE_ATTEMPTS_MAX,
    PROBE_PATH_MAX,
    PROBE_TIMEOUT_SECONDS_MAX,
    PROBLEMS_MAX,
    RECOVERY_SECONDS_MAX,
    REPORTERS_NEEDED_MAX,
    SUBJECT_MAX,
    WITNESSES_MAX,
)
from compass.model.replies import CredentialIssued, Done, Refusal, Registered
from compass.model.requests import (
    Apply,
    Attend,
    Deregister,
    Digest,
    Disown,
    Drain,
    Examine,
    Fetch,
    Findings,
    Impact,
    Incident,
    Invite,
    IssueCredential,
    Lag,
    Pull,
    Purge,
    Put,
    ReadLog,
    Register,
    Remove,
    Rename,
    Renew,
    Report,
    RevokeCredential,
    Status,
    Steer,
    Suspect,
    TryWays,
    Verdict,
    Watch,
    Ways,
    WeighedReport,
)
from compass.model.rows import (
    AdministrationEntry,
    Category,
    Credential,
    Dependency,
    Host,
    Policy,
    SecurityEntry,
    Service,
)
from compass.model.rules.decide import ROLES, permit
from compass.model.rules.draft import Principal, parameters_of
from compass.model.rules.listeners import digest_of
from tests.support.catalogue_rows import ADMIN, AT, HOST, NOW, SERVER, World, store

REGISTER = Register("a.store", "", "10.0.0.1", 2028, 5)
TEN_YEARS = 10 * 365 * 86400.0


def register(world: World, token: str) -> str:
    """The code of what a host with this token gets."""
    reply = world.ask(msgspec.structs.replace(REGISTER, credential=token), HOST)
    return reply.code if isinstance(reply, Refusal) else "registered"


def test_a_credential_is_shown_once_and_kept_as_a_digest() -> None:
    """The reply has the token, the rows have its SHA-256."""
    world = store()
    issued = world.get(CredentialIssued, IssueCredential("A.store"))
    (row,) = world.catalogue.credentials["a.store"].values()
    assert row.digest == digest_of(issued.token) and row.id == row.digest[:12] == issued.credential.id
    assert issued.credential.digest == "" and row.created_at == NOW and row.expires_at == 0
    assert issued.token not in repr(world.changes)
    assert register(world, issued.token) == "registered"


def test_only_a_credential_of_the_service_counts() -> None:
    """None, a wrong one, another service's, a digest: refused, to register, to deregister and to drain."""
    world = store()
    token, other = world.token("a.store"), world.token("b.store")
    assert register(world, token) == "registered"
    for wrong in ("", "x", other, digest_of(token), token + " ", "\ud800"):
        for request in (
            REGISTER,
            Deregister("a.store", "", "10.0.0.1", 2028, 5),
            Drain("a.store", "10.0.0.1", 2028),
            Drain("a.store", "10.0.0.1", 2028, False),
        ):
            assert world.code(msgspec.structs.replace(request, credential=wrong), HOST) == "bad-credential"
            assert world.code(msgspec.structs.replace(request, credential=wrong or "x")) == "bad-credential"


def test_credentials_are_compared_in_constant_time() -> None:
    """Every credential of the service is compared in full, whichever holds."""
    world = store()
    tokens = [world.token("a.store") for _ in range(3)]
    for token in (*tokens, "wrong"):
        with mock.patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compared:
            register(world, token)
        assert compared.call_count == 3


def test_credentials_that_end_together_have_revisions_in_the_order_of_their_ids() -> None:
    """The same history has the same revisions, whatever the order in which a map holds its rows."""
    world = store()
    for _ in range(5):
        world.token("a.store")
    world.get(CredentialIssued, IssueCredential("a.store", 0.0))
    ended = [change.row.id for change in world.changes if isinstance(change.row, Credential) and change.removed]
    assert len(ended) == 5 and ended == sorted(ended)


def test_a_rotation_with_an_overlap() -> None:
    """The older token is good until the overlap is over, and not at that very time; then its row goes."""
    world = store()
    old = world.token("a.store")
    new = world.get(CredentialIssued, IssueCredential("a.store", 60.0)).token
    assert world.operations() == ["credential-rotate", "credential-issue"]
    world.now += 59.9
    assert register(world, old) == "registered" == register(world, new)
    world.now = NOW + 60
    assert register(world, old) == "bad-credential"
    world.get(CredentialIssued, IssueCredential("a.store"))
    assert world.operations() == ["credential-expire", "credential-issue"]
    assert len(world.catalogue.credentials["a.store"]) == 2


def test_an_overlap_never_makes_a_token_live_longer() -> None:
    """A second rotation with a longer overlap leaves the first one's end."""
    world = store()
    world.token("a.store")
    world.ask(IssueCredential("a.store", 10.0))
    world.ask(IssueCredential("a.store", 100.0))
    assert sorted(row.expires_at for row in world.catalogue.credentials["a.store"].values()) == [
        0.0,
        NOW + 10,
        NOW + 100,
    ]


def test_a_rotation_without_overlap_takes_the_older_ones_at_once() -> None:
    """Also when there are as many as there can be, and at any time on the clock."""
    world = store()
    world.now = 0.0
    tokens = [world.token("a.store") for _ in range(CREDENTIALS_PER_SERVICE_MAX)]
    assert world.code(IssueCredential("a.store")) == "in-use"
    issued = world.get(CredentialIssued, IssueCredential("a.store", 0.0))
    assert {register(world, token) for token in tokens} == {"bad-credential"}
    assert register(world, issued.token) == "registered"


def test_an_overlap_at_its_limits() -> None:
    """0 to ten years."""
    world = store()
    for overlap in (-0.001, TEN_YEARS + 1, float("nan"), float("inf")):
        assert world.code(IssueCredential("a.store", overlap)) == "bad-value"
    for overlap in (0.0, TEN_YEARS):
        world.get(CredentialIssued, IssueCredential("a.store", overlap))


def test_a_revoked_credential_is_refused() -> None:
    """A revoked token is refused from then on; its registrations stay."""
    world = store()
    token = world.token("a.store")
    register(world, token)
    assert world.code(RevokeCredential("a.store", "x" * 1000)) == "unknown-credential"
    world.get(Done, RevokeCredential("a.store", digest_of(token)[:12]))
    assert register(world, token) == "bad-credential" and world.listener("a.store").state == "up"
    assert "a.store" not in world.catalogue.credentials


def test_the_security_log_names_who_what_and_where_from() -> None:
    """Seen when 7: service, action, parameters without the credential, origin; nothing else changes."""
    world = store()
    request = msgspec.structs.replace(REGISTER, credential="secret-token", metadata={"rack": "机房"})
    refusal = world.get(Refusal, request, HOST)
    assert refusal.code == "bad-credential" and "register a.store" in refusal.message
    entry = world.last.security
    assert isinstance(entry, SecurityEntry) and "secret-token" not in repr(entry)
    assert entry == SecurityEntry(
        0, NOW, "register", "a.store", entry.parameters, HOST.origin, HOST.name, refusal.message
    )
    assert json.loads(entry.parameters) == {
        "service": "a.store",
        "address": "10.0.0.1",
        "port": 2028,
        "epoch": 5,
        "metadata": {"rack": "机房"},
    }
    assert world.last.changes == () and world.last.administration is None


def test_what_a_log_keeps_of_a_request_is_bounded() -> None:
    """PARAMETERS_MAX and SUBJECT_MAX characters, and none that SQL or a terminal minds."""
    empty = len(parameters_of(Remove("category", "")))
    assert len(parameters_of(Remove("category", "x" * (PARAMETERS_MAX - empty)))) == PARAMETERS_MAX
    longer = parameters_of(Remove("category", "x" * (PARAMETERS_MAX - empty + 1)))
    assert len(longer) == PARAMETERS_MAX and longer.endswith("...")
    world = store()
    for name, subject in (
        ("x" * SUBJECT_MAX, "x" * SUBJECT_MAX),
        ("x" * (SUBJECT_MAX + 1), "x" * (SUBJECT_MAX - 3) + "..."),
        ("a\0\ud800\x7f", "a\\u0000\\ud800\\u007f"),
    ):
        assert world.code(Remove("category", name), HOST) == "forbidden"
        assert world.last.security is not None and world.last.security.subject == subject


EVERY_REQUEST = (
    REGISTER,
    Deregister("a.store", "", "10.0.0.1", 1, 1),
    Drain("a.store", "10.0.0.1", 1),
    Report("a.store", "10.0.0.1", 1),
    Pull("a.store"),
    Watch(("a.store",)),
    Put(Category("x")),
    Remove("category", "x"),
    Rename("store", "shop"),
    IssueCredential("a.store"),
    RevokeCredential("a.store", "x"),
    Apply(()),
    Purge(60),
    Fetch("host"),
    Impact("store"),
    ReadLog("updates"),
    Status(),
    Digest(),
    Lag(),
    WeighedReport("a.store", "10.0.0.1", 1),
    Findings(1, True),
    Disown(()),
    Examine("a.store", "10.0.0.1", 1),
    Steer(),
    Ways(),
    TryWays(),
    Invite("h"),
    Renew(b""),
    Suspect("a.store", "10.0.0.1", 1, 1, ""),
    Incident("x", "y"),
    Verdict("a.store", "10.0.0.1", 1, 1, True, ""),
    Attend("h", (), "", 0),
)


def test_who_may_ask_for_what() -> None:
    """P11, G20: every request has its roles; any other is refused with the name of the missing right, and logged."""
    assert {type(request) for request in EVERY_REQUEST} == set(ROLES)
    world = store()
    for request in EVERY_REQUEST:
        for asker in (HOST, ADMIN, SERVER):
            refused = permit(world.catalogue, request, asker, NOW)
            assert (refused is None) == (asker.role in ROLES[type(request)])
            if refused is not None:
                assert isinstance(refused.reply, Refusal) and refused.reply.code == "forbidden"
                assert all(role in refused.reply.message for role in ROLES[type(request)])
                assert refused.security is not None and refused.security.origin == asker.origin
                assert refused.changes == () and refused.catalogue is world.catalogue


def test_a_barred_host_is_refused_whatever_it_asks() -> None:
    """Under every spelling of its name, until an administrator lifts it."""
    world = store()
    world.ask(Put(Host(HOST.name, barred=True), create=True))
    for request in EVERY_REQUEST:
        if "host" in ROLES[type(request)]:
            for name in (HOST.name, HOST.name.upper()):
                refused = permit(world.catalogue, request, Principal("host", name, ""), NOW)
                assert refused is not None and refused.security is not None
    assert world.code(Pull("www.web"), HOST) == "forbidden"
    world.ask(Attend(HOST.name, ("www.web",), "", 0), SERVER)
    assert world.catalogue.hosts[HOST.name].barred
    world.get(Done, Put(Host(HOST.name, services=("www.web",))))
    assert permit(world.catalogue, Watch(()), HOST, NOW) is None


def test_the_administration_log_has_what_was_asked_and_what_came_of_it() -> None:
    """Done or the refusal's code, with the revision; reading and trying leave no entry."""
    world = store()
    world.ask(Put(Category("x"), create=True))
    entry = world.last.administration
    arguments = '{"row":{"row":"category","name":"x"},"create":true}'
    assert entry == AdministrationEntry(
        0, NOW, "put", arguments, ADMIN.origin, ADMIN.name, "done", world.catalogue.revision
    )
    world.ask(Put(Category("x"), create=True))
    assert world.last.administration is not None and world.last.administration.outcome == "exists"
    for request in (
        Apply((Category("y"),), dry_run=True),
        Apply((Category("_"),), dry_run=True),
        Fetch("host"),
    ):
        world.ask(request)
        assert world.last.administration is None


@pytest.mark.parametrize(
    "row",
    [Category("new"), Service("new.store"), Dependency("store", "web"), Host("new", services=("a.store",))],
)
def test_an_object_is_added_once(row: Category | Service | Dependency | Host) -> None:
    """Adding what is there and setting what is not are refused; setting it just so changes nothing."""
    world = store()
    assert world.code(Put(row)) == f"unknown-{type(row).__name__.lower()}"
    (change,) = world.get(Done, Put(row, create=True)).changes
    assert change.row == row and change.operation == f"{type(row).__name__.lower()}-add"
    assert world.code(Put(row, create=True)) == "exists"
    assert world.get(Done, Put(row)) == Done(world.catalogue.revision)


def test_names_are_kept_in_canonical_form() -> None:
    """Whatever was added is found under its one name."""
    world = store()
    world.ask(Put(Category("NEW", "A.Store"), create=True))
    assert world.catalogue.categories["new"].backup == "a.store"
    world.ask(Put(Host("H1", "2001:DB8:0::1", 4865, ("B.store", "a.Store", "b.store")), create=True))
    assert world.catalogue.hosts["h1"] == Host("h1", "2001:db8::1", 4865, ("a.store", "b.store"))


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (Category("a_b"), "bad-name"),
        (Category("x", "nowhere"), "bad-name"),
        (Category("x", "none.store"), "unknown-service"),
        (Service("x"), "bad-name"),
        (Service("x.none"), "unknown-category"),
        (Dependency("web", "none"), "unknown-category"),
        (Dependency("none", "web"), "unknown-category"),
        (Dependency("web", ""), "bad-name"),
        (Host("a..b"), "bad-name"),
        (Host("h", "localhost", 1), "bad-address"),
        (Host("h", "10.0.0.1", 65536), "bad-address"),
        (Host("h", services=("x",)), "bad-name"),
        (Host("h", services=("a.store",) * (HOST_SERVICES_MAX + 1)), "too-large"),
    ],
)
def test_what_cannot_be_an_object_is_refused(row: Category | Service | Dependency | Host, code: str) -> None:
    """A name that is no DNS label, a dependency on nothing, a backup that is not there."""
    assert store().code(Put(row, create=True)) == code


def test_a_host_has_so_many_services() -> None:
    """256, by hand and as watched."""
    world = store()
    most = tuple(f"s{n}.store" for n in range(HOST_SERVICES_MAX))
    world.get(Done, Put(Host("h", services=most), create=True))
    world.get(Done, Attend("h", most, "", 0), SERVER)
    assert world.code(Attend("h", (*most, "one.more"), "", 0), SERVER) == "too-large"


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"probe": "http:/" + "p" * (PROBE_PATH_MAX - 1)}, {"probe": "http:/" + "p" * PROBE_PATH_MAX}),
        ({"probe": "tcp"}, {"probe": "tcp:/x"}),
        ({"probe": "http:/a?b=c"}, {"probe": "http:/a b"}),
        ({"probe": "http:/"}, {"probe": "http"}),
        ({"probe": "tcp"}, {"probe": "icmp"}),
        ({"probe": "http:/%20"}, {"probe": "http:/\r\n"}),
        ({"probe_timeout_seconds": PROBE_TIMEOUT_SECONDS_MAX}, {"probe_timeout_seconds": 30.001}),
        ({"probe_timeout_seconds": 0.001}, {"probe_timeout_seconds": 0.0}),
        ({"probe_attempts": 1}, {"probe_attempts": 0}),
        ({"probe_attempts": PROBE_ATTEMPTS_MAX}, {"probe_attempts": PROBE_ATTEMPTS_MAX + 1}),
        ({"recovery_seconds": RECOVERY_SECONDS_MAX}, {"recovery_seconds": 60.001}),
        ({"recovery_seconds": 0.1}, {"recovery_seconds": float("nan")}),
        ({"cap": 1.0}, {"cap": 1.001}),
        ({"cap": 0.01}, {"cap": 0.0}),
        ({"cap": 0.5}, {"cap": float("nan")}),
        ({"reporters": 1}, {"reporters": 0}),
        ({"reporters": REPORTERS_NEEDED_MAX}, {"reporters": REPORTERS_NEEDED_MAX + 1}),
        ({"witnesses": 0}, {"witnesses": -1}),
        ({"witnesses": WITNESSES_MAX}, {"witnesses": WITNESSES_MAX + 1}),
        ({"grace_seconds": 0.0}, {"grace_seconds": -0.001}),
        ({"grace_seconds": GRACE_SECONDS_MAX}, {"grace_seconds": 600.001}),
        ({"flaps": 1}, {"flaps": 0}),
        ({"flaps": FLAPS_MAX}, {"flaps": FLAPS_MAX + 1}),
        ({"flap_seconds": FLAP_SECONDS_MAX}, {"flap_seconds": float("inf")}),
        ({"hold_seconds": FLAP_SECONDS_MAX}, {"hold_seconds": float("nan")}),
    ],
)
def test_a_policy_at_its_limits(good: dict[str, object], bad: dict[str, object]) -> None:
    """Each value is taken at n and refused beyond."""
    world = store()
    assert world.code(Put(Category("store", policy=msgspec.structs.replace(Policy(), **bad)))) == "bad-value"
    world.get(Done, Put(Category("store", policy=msgspec.structs.replace(Policy(), **good))))


def test_nothing_in_use_is_removed() -> None:
    """Category with services or dependants, service with listeners or as a backup; then each in its order."""
    world = store()
    world.ask(Put(Category("store", "spare.help")))
    world.up("a.store")
    assert world.code(Remove("category", "store")) == "in-use"
    assert world.code(Remove("service", "a.store")) == "in-use"
    assert world.code(Remove("service", "spare.help")) == "in-use"
    world.ask(Remove("listener", f"a.store {AT}"))
    world.token("a.store")
    for name in ("a.store", "b.store"):
        world.get(Done, Remove("service", name))
    assert world.code(Remove("category", "store")) == "in-use"
    world.get(Done, Remove("dependency", "web store"))
    world.get(Done, Remove("category", "store"))
    world.get(Done, Remove("service", "spare.help"))
    assert "a.store" not in world.catalogue.listeners and not world.catalogue.credentials


def test_a_category_may_depend_on_itself() -> None:
    """Peers find each other; it goes with its dependencies."""
    world = store().add(Dependency("help", "help"), Dependency("help", "store"))
    world.ask(Remove("service", "spare.help"))
    world.get(Done, Remove("category", "help"))
    assert world.operations() == ["dependency-remove", "dependency-remove", "category-remove"]
    assert "help" not in world.catalogue.dependants and "help" not in world.catalogue.dependants["store"]


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        ("category", "none", "unknown-category"),
        ("category", "_", "bad-name"),
        ("service", "none.store", "unknown-service"),
        ("service", "a.none", "unknown-category"),
        ("dependency", "store web", "unknown-dependency"),
        ("dependency", "store", "bad-name"),
        ("listener", "a.store 10.0.0.9:1", "unknown-listener"),
        ("listener", "a.store", "bad-address"),
        ("listener", "a.store 10.0.0.1:" + "9" * 5000, "bad-address"),
        ("host", "none", "unknown-host"),
        ("host", "", "bad-name"),
    ],
)
def test_what_is_not_there_cannot_be_removed(kind: str, name: str, code: str) -> None:
    """Each with its own answer."""
    assert store().code(msgspec.structs.replace(Remove("host", name), kind=kind)) == code


def test_a_removed_listener_stays_removed() -> None:
    """P6: its row stays, offline; only a new instance comes back. Removing it again ends its incident."""
    world = store().in_state("up")
    remove = Remove("listener", f"a.store {AT}")
    world.get(Done, remove)
    assert (world.listener("a.store").state, world.listener("a.store").cause) == (
        "offline",
        "removed by alice",
    )
    assert world.code(REGISTER) == "deregistered"
    world.get(Registered, msgspec.structs.replace(REGISTER, epoch=6))
    world.ask(Deregister("a.store", "", "10.0.0.1", 2028, 6, died=True))
    assert world.catalogue.alerts
    world.get(Done, remove)
    assert world.operations() == ["alert-over"]


def test_a_host_is_remembered_and_removed() -> None:
    """The update address and the watched services are recorded; a repetition changes nothing; names are checked."""
    world = store()
    attend = Attend("H1", ("www.web",), "10.0.0.1", 4865)
    world.get(Done, attend, SERVER)
    assert world.operations() == ["host-watch"]
    assert world.catalogue.hosts["h1"] == Host("h1", "10.0.0.1", 4865, ("www.web",))
    world.get(Done, attend, SERVER)
    assert world.operations() == []
    for bad, code in (
        (Attend("h1", ("a\0.b",), "", 0), "bad-name"),
        (Attend("h1", (), "x", 1), "bad-address"),
    ):
        assert world.code(bad, SERVER) == code
    world.get(Done, Remove("host", "H1"))
    assert not world.catalogue.hosts


TOPOLOGY = (
    Dependency("web", "openuss"),
    Dependency("openuss", "openuss"),
    Service("spare.openuss"),
    Category("openuss", "spare.openuss", Policy(probe="http:/")),
    Category("web"),
    Service("www.web"),
)


def test_a_topology_is_applied_in_any_order_of_its_rows() -> None:
    """A topology may declare its own backup and a category that depends on itself; a repetition changes nothing."""
    for rows in (TOPOLOGY, TOPOLOGY[::-1]):
        world = World()
        world.get(Done, Apply(rows))
        there = list(world.catalogue.all_rows())
        assert len(there) == len(rows) and all(row in there for row in rows)
        assert world.get(Done, Apply(rows, prune=True)).changes == ()


def test_a_dry_run_tells_and_changes_nothing() -> None:
    """Seen when 9: the changes that would be, and the catalogue as it was."""
    world = store()
    before = world.catalogue
    told = world.get(Done, Apply(TOPOLOGY, prune=True, dry_run=True))
    assert world.catalogue is before and world.last.changes == ()
    done = world.get(Done, Apply(TOPOLOGY, prune=True))
    assert done == told and done.changes[0].revision == before.revision + 1


def test_five_mistakes_are_told_at_once() -> None:
    """Each problem names its row, nothing is applied, and a consequence of a problem is not a second problem."""
    rows = (
        Category("good"),
        Category("bad", policy=Policy(probe="icmp")),
        Service("s.bad"),
        Service("s.none"),
        Dependency("good", "bad"),
        Dependency("good", "nothing"),
        Category("other", "gone.good"),
        Service("no-dot"),
    )
    world = store()
    refusal = world.get(Refusal, Apply(rows, prune=True))
    assert refusal.code == "invalid-topology" and world.last.changes == ()
    assert [(problem.index, problem.code) for problem in refusal.problems] == [
        (1, "bad-value"),
        (3, "unknown-category"),
        (5, "unknown-category"),
        (6, "unknown-service"),
        (7, "bad-name"),
    ]
    assert "5 problems" in refusal.message


def test_a_category_declared_twice_and_not_alike_is_a_mistake() -> None:
    """Neither could be the state afterwards; twice the same is none."""
    world = World()
    rows = (Category("A"), Category("a"), Service("s.a"), Category("a", "s.a"))
    (problem,) = world.get(Refusal, Apply(rows)).problems
    assert (problem.index, problem.code) == (3, "exists")
    world.get(Done, Apply(rows[:3]))


def test_so_many_problems_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal must fit into a frame; its text has the true number."""
    monkeypatch.setattr(limits, "PROBLEMS_MAX", 3)
    for count, told in (
        (3, "3 problems, nothing applied"),
        (4, "4 problems, nothing applied; the first 3 are listed"),
    ):
        refusal = World().get(Refusal, Apply((Service("x"),) * count))
        assert len(refusal.problems) == 3 and refusal.message == told
    assert PROBLEMS_MAX == 1000


def test_pruning_removes_what_the_topology_does_not_name() -> None:
    """Pruning removes a category with its own backup service, and a former backup; it refuses objects in use."""
    world = store()
    world.ask(Put(Category("help", "spare.help")))
    world.ask(Put(Category("store", "spare.help")))
    world.up("a.store")
    keep = (
        Category("web"),
        Category("store"),
        Service("a.store"),
        Service("www.web"),
        Dependency("web", "store"),
    )
    done = world.get(Done, Apply(keep, prune=True))
    assert {change.operation for change in done.changes} == {
        "category-set",
        "service-remove",
        "category-remove",
    }
    assert set(world.catalogue.categories) == {"web", "store"} and not world.catalogue.backed
    assert world.code(Apply((), prune=True)) == "in-use"
    world.ask(Remove("listener", f"a.store {AT}"))
    world.get(Done, Apply((), prune=True))
    assert list(world.catalogue.all_rows()) == []


def hosts_of(world: World) -> dict[str, tuple[str, ...]]:
    return world.catalogue.categories["store"].policy.hosts


def test_a_list_of_hosts_stays_until_it_is_removed_by_name() -> None:
    """A program of an earlier version puts or applies the category without the field: no list may vanish with it."""
    world = store()
    world.get(Done, Put(Category("store", policy=Policy(hosts={"a": ("w2", "W1", "w1"), "b": ("w3",)}))))
    assert hosts_of(world) == {"a": ("w1", "w2"), "b": ("w3",)}
    world.get(Done, Put(Category("store", policy=Policy(cap=0.5))))
    world.get(Done, Apply((Category("store"), Service("a.store"))))
    assert hosts_of(world) == {"a": ("w1", "w2"), "b": ("w3",)}
    assert world.get(Done, Apply((Category("store"),))).changes == ()
    world.get(Done, Put(Category("store", policy=Policy(hosts={"a": ("*",)}))))
    assert hosts_of(world) == {"b": ("w3",)}
    world.get(Done, Remove("service", "b.store"))
    assert hosts_of(world) == {}


def test_lists_of_hosts_are_checked() -> None:
    """Names, an end in size over all lists of a category, and no list that shuts every host out."""
    world = store()
    most = tuple(f"w{n}" for n in range(ALLOWED_HOSTS_MAX))
    wrong: tuple[tuple[dict[str, tuple[str, ...]], str], ...] = (
        ({"a": ()}, "bad-value"),
        ({"a": ("*", "w1")}, "bad-value"),
        ({"A": ("w1",)}, "bad-name"),
        ({"a": ("no host",)}, "bad-name"),
        ({"a": (*most, "more")}, "too-large"),
    )
    for hosts, code in wrong:
        assert world.code(Put(Category("store", policy=Policy(hosts=hosts)))) == code
    world.get(Done, Put(Category("store", policy=Policy(hosts={"a": most}))))
    assert world.code(Put(Category("store", policy=Policy(hosts={"b": ("w1",)})))) == "too-large"
