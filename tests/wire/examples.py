"""Examples of every message: between them every field has a value that is not its default.

`tests/wire/make_vectors.py` writes them into `protocols/vectors.json`; the document's exchanges use the same world.
"""

from __future__ import annotations

from typing import NamedTuple

from compass.model import replies, requests, rows
from compass.model.catalogue.digest import instance_digest, to_hex
from compass.wire import messages
from compass.wire.states import End


class Example(NamedTuple):
    """A message as one end sends it, with its request number (0: it expects no reply and is none)."""

    name: str
    sender: End
    number: int
    message: messages.Message


TOKEN = "tFhZ2cQkZy7H0m1mXwq3S8m0v8yq5Jf2w1dYp9bKcQ0"
STORE = "6f1c2e0a9d3b4c57"
POLICY = rows.Policy("http:/health", 2.5, 3, "notify", 4.0)
JUDGED = rows.Policy(
    reporters=2, witnesses=1, cap=0.5, grace_seconds=9.0, flaps=5, flap_seconds=900.0, hold_seconds=30.0
)
POOLED = rows.Policy(
    pool="least-used",
    pools={"chinaserver": "round-robin"},
    locality="zone",
    hosts={"chinaserver": ("web1", "web2")},
    open=True,
)
CATEGORY = rows.Category("openuss", "spare.emergency", POLICY)
SERVICE = rows.Service("chinaserver.openuss")
DEPENDENCY = rows.Dependency("web", "openuss")
LISTENER = rows.Listener(
    service="chinaserver.openuss",
    address="192.0.2.17",
    port=2028,
    state="up",
    changed_at=1790000000.25,
    epoch=1790000000123456,
    host="uss1.example",
    weight=10,
    metadata={"rack": "b7"},
    cause="registered",
)
SIX = rows.Listener("spare.emergency", "2001:db8::1", 80, "suspect", 1790000001.0, 7, cause="reported unreachable")
CREDENTIAL = rows.Credential("9f86d081884c", "chinaserver.openuss", "9f" * 32, 1790000000.0, 1790086400.0)
HOST = rows.Host("web1.example", "192.0.2.30", 4865, ("portal.web",), True)
ALERT = rows.Alert("failure chinaserver.openuss 192.0.2.17:2028", "failure", 1790000002.5, "it is down")
REGISTERED = rows.Change(41, 37, 1790000000.25, "register", LISTENER)
DRAINED = rows.Change(
    45, 41, 1790000003.0, "confirm", rows.Listener("a.b", "::1", 1, "down", 1790000003.0, 7, draining=True)
)
LOADED = rows.Change(
    46,
    45,
    1790000004.0,
    "register",
    rows.Listener("a.b", "::1", 1, "up", 1790000003.0, 7, zone="b7", load=0.5, degradation=0.125),
)
CHECKED = rows.Change(
    47,
    46,
    1790000005.0,
    "check-failed",
    rows.Listener(
        "a.b",
        "::1",
        1,
        "suspect",
        1790000005.0,
        7,
        cause="its own check failed: HTTP status 503",
        check="GET /health, every 5 s, fails after 3",
        failing="HTTP status 503",
        checked_at=1790000005.0,
    ),
)
EVIDENCE = (
    replies.Evidence("report", "web1.example", 1790000001.0, detail="timed out"),
    replies.Evidence("probe", "gns1", 1790000001.5, True),
)
PURGED = rows.Change(42, 41, 1790000003.0, "purge", LISTENER, removed=True)
NEEDS = rows.Change(43, 30, 1790000004.0, "dependency-add", DEPENDENCY)
BACKED = rows.Change(44, 31, 1790000004.5, "category-set", CATEGORY)
SNAPSHOT = rows.Snapshot(43, {"openuss": 31, "chinaserver.openuss": 41}, [CATEGORY, SERVICE, LISTENER])

INSTANCE = rows.Instance("chinaserver.openuss", "192.0.2.17", 2028, 1790000000123456)
HOLDS = to_hex(instance_digest(("chinaserver.openuss", "192.0.2.17", 2028), 1790000000123456))


def _client(*entries: tuple[str, int, messages.ClientMessage]) -> list[Example]:
    return [Example(name, "client", number, message) for name, number, message in entries]


def _server(*entries: tuple[str, int, messages.ServerMessage]) -> list[Example]:
    return [Example(name, "server", number, message) for name, number, message in entries]


EXAMPLES: list[Example] = [
    *_client(
        ("hello", 0, messages.Hello((1,), "example-client 0.1")),
        ("acknowledge", 0, messages.Acknowledge(41)),
        ("acknowledge with a gap", 0, messages.Acknowledge(37, "gap")),
        ("register", 1, requests.Register("chinaserver.openuss", TOKEN, "192.0.2.17", 2028, 1790000000123456)),
        (
            "register with everything",
            2,
            requests.Register("chinaserver.openuss", TOKEN, "2001:db8::1", 2028, 7, 10, {"rack": "b7"}),
        ),
        ("deregister", 3, requests.Deregister("chinaserver.openuss", TOKEN, "192.0.2.17", 2028, 7)),
        ("deregister of the dead", 4, requests.Deregister("chinaserver.openuss", TOKEN, "192.0.2.17", 2028, 7, True)),
        (
            "deregister of an instance that may live",
            34,
            requests.Deregister("chinaserver.openuss", TOKEN, "192.0.2.17", 2028, 7, True, True),
        ),
        ("drain", 5, requests.Drain("chinaserver.openuss", "192.0.2.17", 2028, credential=TOKEN)),
        ("undrain", 6, requests.Drain("chinaserver.openuss", "192.0.2.17", 2028, draining=False)),
        ("pull", 7, requests.Pull("portal.web")),
        ("watch", 8, requests.Watch(("portal.web",))),
        ("watch resumed", 9, requests.Watch(("portal.web", "shop.web"), STORE, 41, "192.0.2.30", 4865, True)),
        ("watch of a host that probes", 33, requests.Watch(("portal.web",), probes=True)),
        ("findings", 34, requests.Findings(7, False, "no answer within 1 s")),
        (
            "watch of a host that takes suspicions",
            37,
            requests.Watch(
                ("portal.web",), STORE, 41, resync=True, probes=True, suspicions=True, instance="5f0c2e17a9b3d468"
            ),
        ),
        ("pull of a client that has seen more elsewhere", 38, requests.Pull("portal.web", STORE, 45)),
        ("fetch of a client that has seen more elsewhere", 39, requests.Fetch("category", store=STORE, seen=45)),
        ("impact of a client that has seen more elsewhere", 40, requests.Impact("openuss", STORE, 45)),
        ("examine", 35, requests.Examine("chinaserver.openuss", "192.0.2.17", 2028)),
        ("steer", 37, requests.Steer(True, ("gns2.example:4863",), 300.0)),
        ("steer the only server", 37, requests.Steer(seconds=0.0, force=True)),
        ("steer back", 38, requests.Steer(away=False)),
        ("ways", 40, requests.Ways()),
        ("try-ways", 41, requests.TryWays()),
        ("try-ways of one name", 42, requests.TryWays("mail")),
        ("invite", 43, requests.Invite("web3.example", ("192.0.2.9",), 600.0)),
        ("renew", 44, requests.Renew(bytes.fromhex("3081b5"))),
        ("put of a policy", 36, requests.Put(rows.Category("openuss", policy=JUDGED))),
        ("put of a pool policy", 37, requests.Put(rows.Category("openuss", policy=POOLED))),
        (
            "register of a loaded listener",
            38,
            requests.Register(
                "chinaserver.openuss", TOKEN, "192.0.2.17", 2028, 7, zone="b7", load=0.5, degradation=0.125
            ),
        ),
        (
            "register of a listener whose own check fails",
            11,
            requests.Register(
                "chinaserver.openuss",
                TOKEN,
                "192.0.2.17",
                2028,
                7,
                check="GET /health, every 5 s, fails after 3",
                failing="HTTP status 503",
            ),
        ),
        ("report", 10, requests.Report("chinaserver.openuss", "192.0.2.17", 2028)),
        (
            "report of a slow listener",
            11,
            requests.Report("chinaserver.openuss", "192.0.2.17", 2028, "slow", "portal.web", "9 s for a page"),
        ),
        ("put of a category", 12, requests.Put(CATEGORY, create=True)),
        ("put of a service", 13, requests.Put(SERVICE)),
        ("put of a dependency", 14, requests.Put(DEPENDENCY)),
        ("put of a host", 15, requests.Put(HOST)),
        ("remove", 16, requests.Remove("listener", "chinaserver.openuss 192.0.2.17:2028")),
        ("rename", 17, requests.Rename("openuss", "storage")),
        (
            "rename of a service, the end of two steps, by a dry run",
            18,
            requests.Rename("chinaserver.openuss", "north.openuss", "end", force=True, dry_run=True),
        ),
        ("issue-credential", 17, requests.IssueCredential("chinaserver.openuss")),
        ("issue-credential that rotates", 18, requests.IssueCredential("chinaserver.openuss", 3600.0)),
        ("revoke-credential", 19, requests.RevokeCredential("chinaserver.openuss", "9f86d081884c")),
        ("apply", 20, requests.Apply((CATEGORY, SERVICE, DEPENDENCY), prune=True, dry_run=True)),
        ("purge", 21, requests.Purge(86400.0, "down")),
        ("fetch", 22, requests.Fetch("listener", "openuss", state="up", limit=100, after=200)),
        ("fetch of a page", 22, requests.Fetch("listener", pages=True)),
        ("fetch of the next page", 22, requests.Fetch("listener", cursor="chinaserver.openuss 192.0.2.17 2028")),
        ("lag of a page", 26, requests.Lag(pages=True)),
        ("lag of the next page", 26, requests.Lag(cursor="web1.example")),
        ("read-log of a page", 25, requests.ReadLog("updates", 40, pages=True)),
        ("fetch of one", 23, requests.Fetch("category", name="openuss")),
        ("impact", 24, requests.Impact("chinaserver.openuss")),
        ("read-log", 25, requests.ReadLog("updates", 40, 100, 10, 20.0)),
        ("status", 26, requests.Status()),
        ("lag", 0xFFFFFFFF, requests.Lag()),
        ("acknowledge with a difference", 0, messages.Acknowledge(5000, "differs")),
        ("watch of a daemon that names its run", 39, requests.Watch(("portal.web",), instance="5f0c2e17a9b3d468")),
        ("watch of a host that compares", 37, requests.Watch(("portal.web",), digest=1)),
        (
            "watch of a host that compares what it holds",
            37,
            requests.Watch(("portal.web",), holds=HOLDS, trouble="/var/lib/opengns/host/registrations.json was lost"),
        ),
        ("disown", 41, requests.Disown((INSTANCE,), "registrations.json was lost")),
        ("digest", 38, requests.Digest()),
        ("digest at a revision", 39, requests.Digest(45)),
        ("hello of a client that accepts parts", 0, messages.Hello((1,), "example-client 0.1", 1073741824)),
    ),
    *_server(
        ("welcome", 0, messages.Welcome(1, "gns1.example", STORE, 41, 65536, "example-server 0.1")),
        (
            "welcome of a server that renews",
            0,
            messages.Welcome(1, "gns1.example", STORE, 41, 65536, "example-server 0.2", renews="9f" * 32),
        ),
        ("notice of a listener", 0, messages.Notice(REGISTERED)),
        ("notice of a removal", 0, messages.Notice(PURGED)),
        ("notice that widens", 0, messages.Notice(NEEDS, SNAPSHOT)),
        ("notice of a category", 0, messages.Notice(BACKED, rows.Snapshot(44, {"spare.emergency": 20}, [SIX]))),
        ("notice of a draining listener", 0, messages.Notice(DRAINED)),
        ("notice of a loaded listener", 0, messages.Notice(LOADED)),
        ("notice of a listener whose own check fails", 0, messages.Notice(CHECKED)),
        ("bookmark", 0, messages.Bookmark(5000)),
        ("resync", 0, messages.Resync(SNAPSHOT)),
        ("inquiry", 0, messages.Inquiry(7, "chinaserver.openuss", "192.0.2.17", 2028)),
        (
            "suspicion",
            0,
            messages.Suspicion(
                "chinaserver.openuss", "192.0.2.17", 2028, 7, 30.0, "reported unreachable by portal.web on web1.example"
            ),
        ),
        ("suspicion withdrawn", 0, messages.Suspicion("chinaserver.openuss", "192.0.2.17", 2028, 7, 0.0)),
        ("recorded", 0, messages.Recorded((INSTANCE, rows.Instance("portal.web", "::1", 8080, 2**63 - 1, "web2")))),
        ("goodbye", 0, messages.Goodbye("this server stops", 0.5)),
        ("goodbye to elsewhere", 0, messages.Goodbye("it is drained", 60.0, ("gns2.example:4863", "192.0.2.3:4863"))),
        (
            "case-file",
            30,
            replies.CaseFile(
                50, LISTENER, EVIDENCE, "alive: answered the probe", 1790000001.5, "check", 4, 1790000060.0, True
            ),
        ),
        ("registered", 1, replies.Registered(41, "up")),
        ("registered with a doubt", 2, replies.Registered(41, "up", warning="127.0.0.1 is a loopback address")),
        ("registered already", 2, replies.Registered(41, "up", changed=False)),
        ("deregistered", 3, replies.Deregistered(42, "offline")),
        ("deregistered already", 4, replies.Deregistered(42, "offline", changed=False)),
        ("not deregistered, for it answers a probe", 4, replies.Deregistered(42, "up", changed=False)),
        ("reported", 5, replies.Reported(43, "suspect")),
        (
            "dependencies",
            7,
            replies.Dependencies(
                "portal.web",
                43,
                (
                    replies.CategoryView(
                        "openuss",
                        (replies.ServiceView("chinaserver.openuss", (LISTENER,)),),
                        "spare.emergency",
                        (SIX,),
                    ),
                ),
            ),
        ),
        (
            "dependencies with pools",
            8,
            replies.Dependencies(
                "portal.web",
                43,
                (replies.CategoryView("openuss", pool="round-robin", pools={"a": "random"}, locality="zone"),),
            ),
        ),
        ("watching", 8, replies.Watching(STORE, 43, SNAPSHOT, ("shop.web",))),
        ("watching resumed", 9, replies.Watching(STORE, 43)),
        ("watching undialled", 9, replies.Watching(STORE, 43, undialled="host 'web1' is not dialled at 10.0.0.9")),
        ("done", 12, replies.Done(44, (BACKED,))),
        ("credential-issued", 17, replies.CredentialIssued(45, rows.Credential("9f", "a.b", "", 1.5), TOKEN)),
        ("rows", 22, replies.Rows(45, (rows.without_secret(CREDENTIAL), HOST, ALERT), 7)),
        ("rows of a page", 22, replies.Rows(45, (LISTENER,), 7, "chinaserver.openuss 192.0.2.17 2028")),
        ("log-entries of a page", 25, replies.LogEntries((), 1, more=True)),
        ("done with more to purge", 21, replies.Done(46, (PURGED,), more=True)),
        ("told", 24, replies.Told("openuss", 45, ("web",), ("portal.web",), ("web1.example",), ("openuso",))),
        (
            "log-entries",
            25,
            replies.LogEntries(
                (
                    rows.UpdateEntry(
                        41, 1790000000.25, "register", "chinaserver.openuss", "192.0.2.17", 2028, "up", REGISTERED
                    ),
                    rows.SecurityEntry(
                        3,
                        1790000005.0,
                        "register",
                        "chinaserver.openuss",
                        '{"address":"192.0.2.17"}',
                        "192.0.2.9:51000",
                        "web9.example",
                        "this is not a credential of chinaserver.openuss",
                    ),
                    rows.AdministrationEntry(
                        9, 1790000006.0, "remove", '{"kind":"host"}', "192.0.2.2:51001", "alice", "done", 45
                    ),
                ),
                floor=2,
            ),
        ),
        ("lags of a page", 26, replies.Lags(45, (replies.HostLag("web1.example", True, 43, 1),), "web1.example")),
        ("lags", 26, replies.Lags(45, (replies.HostLag("web1.example", True, 43, 1, "gap"),))),
        (
            "server-status",
            27,
            replies.ServerStatus(
                "gns1.example",
                "example-server 0.1",
                STORE,
                45,
                1789990000.0,
                3,
                2,
                {"listener": 1},
                {"up": 1},
                (ALERT,),
                "sqlite 3.50",
            ),
        ),
        (
            "server-status during a store outage",
            28,
            replies.ServerStatus(
                "gns1.example",
                "example-server 0.1",
                STORE,
                45,
                1789990000.0,
                3,
                2,
                {"listener": 1},
                {"up": 1},
                engine="postgresql 18.1",
                trouble="it has not answered for 12 s",
            ),
        ),
        (
            "server-status of a drained server",
            28,
            replies.ServerStatus(
                "gns1.example", "example-server 0.1", STORE, 45, 1789990000.0, 3, 2, {}, {}, away=True, more_alerts=7
            ),
        ),
        (
            "server-status with listeners that died during a store outage",
            28,
            replies.ServerStatus(
                "gns1.example",
                "example-server 0.1",
                STORE,
                45,
                1789990000.0,
                3,
                2,
                {"listener": 9},
                {"up": 4, "offline": 5},
                trouble="it has not answered for 12 s",
                died=3,
                lost_services=2,
                trouble_seconds=41.5,
            ),
        ),
        ("steered", 29, replies.Steered(2)),
        ("steered to others", 29, replies.Steered(2, ("gns2.example", "gns3.example"))),
        (
            "invited",
            29,
            replies.Invited("web3.example", "c2VjcmV0", STORE, "9f" * 32, 1790000600.0, 4864),
        ),
        (
            "certified",
            28,
            replies.Certified(
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
                "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n",
            ),
        ),
        (
            "ways-tried",
            30,
            replies.WaysTried(
                (
                    replies.WayTried("mail to ops@example.org", "mail"),
                    replies.WayTried("pager", "webhook", "pager.example.org answers 503"),
                )
            ),
        ),
        (
            "way-list",
            30,
            replies.WayList(
                (
                    replies.WayStatus("mail to ops@example.org", "mail", True, told_at=1790000001.0),
                    replies.WayStatus(
                        "pager", "webhook", True, 2, 5, 1790000001.5, 1790000003.5, "pager.example.org answers 503"
                    ),
                )
            ),
        ),
        (
            "lags of several servers",
            26,
            replies.Lags(45, (replies.HostLag("web2.example", True, 45, 0, server="gns2.example"),)),
        ),
        (
            "server-status of several servers",
            27,
            replies.ServerStatus(
                "gns1.example",
                "example-server 0.1",
                STORE,
                45,
                1789990000.0,
                3,
                2,
                {"listener": 1},
                {"up": 1},
                servers=(
                    replies.KnownServer(
                        "gns1.example", "5d41402abc4b2a76", "example-server 0.1", "keeper", 45, 0, 3, 2, 1789990000.0
                    ),
                    replies.KnownServer(
                        "gns2.example",
                        "7d793037a0760186",
                        "example-server 0.0",
                        "silent",
                        41,
                        4,
                        1,
                        0,
                        1789980000.0,
                        75.5,
                    ),
                ),
            ),
        ),
        (
            "refusal",
            12,
            replies.Refusal("stale-epoch", "registered by a newer instance", retry_after_seconds=1.0, epoch=8),
        ),
        (
            "refusal of a topology",
            20,
            replies.Refusal(
                "invalid-topology",
                "1 problems, nothing applied",
                problems=(replies.Problem(4, "unknown-category", "there is no category 'wbe'"),),
            ),
        ),
        (
            "refusal with the host of the newer instance",
            13,
            replies.Refusal("stale-epoch", "registered by a newer instance on host web2", epoch=8, host="web2"),
        ),
        ("refusal of the session", 0, replies.Refusal("out-of-turn", "a second hello")),
        ("bookmark with a digest", 0, messages.Bookmark(5000, "9f" * 32)),
        ("catalogue-digest", 26, replies.CatalogueDigest("gns1.example", STORE, 45, "9f" * 32)),
    ),
]
