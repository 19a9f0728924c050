"""The pure halves of `opengnsadmin`: arguments become requests, replies become tables and JSON."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import msgspec
import pytest

from compass.admin.shell import build_request
from compass.admin.shell.formats import TimeFormat, as_json, format_duration, format_time
from compass.admin.shell.tables import (
    TableView,
    log_line,
    sentences,
    table_of_impact,
    table_of_lags,
    table_of_listener,
    table_of_rows,
    table_of_servers,
    table_of_status,
)
from compass.model.replies import (
    CaseFile,
    CredentialIssued,
    Deregistered,
    Done,
    Evidence,
    HostLag,
    KnownServer,
    Lags,
    LogEntries,
    Refusal,
    Registered,
    Reported,
    Rows,
    ServerStatus,
    Told,
)
from compass.model.requests import (
    Drain,
    Fetch,
    Impact,
    Put,
    Register,
    Remove,
)
from compass.model.rows import (
    AdministrationEntry,
    Alert,
    Category,
    Change,
    Credential,
    Dependency,
    Host,
    Listener,
    Policy,
    SecurityEntry,
    Service,
    UpdateEntry,
)

CLOCK = TimeFormat(1_000_000.0, UTC)
PEER = Listener("S.c".lower(), "2001:db8::1", 80, "down", 999_000.0, 9, "h1", 2, {"rack": "7"}, "gone")
ROW = Category("web", "e.r", Policy(probe="http:/x", probe_attempts=4))


@pytest.mark.parametrize(
    ("made", "request_"),
    [
        (build_request.add_category("Web", {}), Put(Category("web"), create=True)),
        (
            build_request.add_category("web", {"backup": "E.R", "slow": "notify", "recovery_seconds": 3.0}),
            Put(Category("web", "e.r", Policy(slow="notify", recovery_seconds=3.0)), create=True),
        ),
        (build_request.change_category(ROW, {"backup": ""}), Put(Category("web", "", ROW.policy))),
        (
            build_request.change_category(ROW, {"probe": "tcp", "probe_timeout_seconds": 2.0}),
            Put(Category("web", "e.r", Policy(probe_timeout_seconds=2.0, probe_attempts=4))),
        ),
        (
            build_request.add_listener("s.c", "[2001:DB8::1]:80", {"weight": 5, "metadata": {"a": "b"}}),
            Register("s.c", "", "2001:db8::1", 80, 0, 5, {"a": "b"}),
        ),
        (
            build_request.change_listener(PEER, {"weight": 0}),
            Register("s.c", "", "2001:db8::1", 80, 9, 0, {"rack": "7"}),
        ),
        (build_request.change_listener(PEER, {"metadata": {}}), Register("s.c", "", "2001:db8::1", 80, 9, 2, {})),
        (build_request.remove_listener("S.c", "192.0.2.1:80"), Remove("listener", "s.c 192.0.2.1:80")),
        (build_request.fetch_listener("S.c", "[2001:DB8::1]:80"), Fetch("listener", name="s.c [2001:db8::1]:80")),
        (build_request.drain_listener("s.c", "192.0.2.1:80", False), Drain("s.c", "192.0.2.1", 80, False)),
        (build_request.impact("Web", None), Impact("web")),
        (build_request.impact("S.c", None), Impact("s.c")),
        (build_request.impact("s.c", "192.0.2.1:80"), Impact("s.c 192.0.2.1:80")),
    ],
)
def test_arguments_become_requests(made: Any, request_: Any) -> None:
    """Names in any case become canonical; values that are not named stay."""
    assert made == request_


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("90s", 90),
        ("30m", 1800),
        ("1h", 3600),
        ("1d12h", 129600),
        ("2w", 1209600),
        ("1w1d1h1m1s", 694861),
    ],
)
def test_lengths_of_time_are_written_with_units(text: str, seconds: float) -> None:
    """Units go from weeks down to seconds."""
    assert build_request.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "1.5h", "-1h", "1s1h", "1 h", "1y"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    """A number alone could mean anything, so it is not taken."""
    with pytest.raises(ValueError, match="90s"):
        build_request.duration(text)


def test_metadata_is_key_and_value() -> None:
    """The value may hold further equals signs, and be empty; a key may not be there twice."""
    assert build_request.metadata(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for wrong in (["a"], ["=b"], ["a=b", "a=c"]):
        with pytest.raises(ValueError, match=r"KEY=VALUE|duplicate key"):
            build_request.metadata(wrong)


def test_the_age_limit_itself_is_old_enough() -> None:
    """--older-than 1000 s: a state of exactly that age is listed, a younger one not."""
    assert build_request.older_than([PEER], 1000.0, 1_000_000.0) == (PEER,)
    assert build_request.older_than([PEER], 1000.0, 999_999.0) == ()


def test_times_show_the_moment_and_the_age() -> None:
    """ISO 8601 with its zone; the past, the future and never."""
    assert format_time(999_940.0, CLOCK) == "1970-01-12T13:45:40+00:00 (1 min ago)"
    assert format_time(1_003_660.0, CLOCK) == "1970-01-12T14:47:40+00:00 (in 1 h 1 min)"
    assert format_time(0.0, CLOCK) == "-"
    assert format_time(999_940.0, TimeFormat(1_000_000.0)).endswith("(1 min ago)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3661, "1 h 1 min"),
        (86400, "1 d"),
        (90061, "1 d 1 h"),
        (86460, "1 d"),
    ],
)
def test_ages_have_two_units(seconds: float, text: str) -> None:
    """More than two would not be read."""
    assert format_duration(seconds) == text


ISO = "1970-01-12T13:30:00+00:00 (16 min 40 s ago)"


@pytest.mark.parametrize(
    ("kind", "row", "line"),
    [
        ("category", ROW, ("web", "e.r", "http:/x", "1 s", "4", "alert", "2 s")),
        ("category", Category("a"), ("a", "-", "tcp", "1 s", "2", "alert", "2 s")),
        ("service", Service("s.c"), ("s.c", "c")),
        ("dependency", Dependency("a", "b"), ("a", "b")),
        ("listener", PEER, ("s.c", "[2001:db8::1]:80", "down", ISO, "2", "h1", "gone")),
        ("credential", Credential("1f", "s.c", "", 999_000.0), ("s.c", "1f", ISO, "never")),
        ("credential", Credential("1f", "s.c", "", 999_000.0, 999_000.0), ("s.c", "1f", ISO, ISO)),
        ("host", Host("h1", "::1", 4865, ("a.b", "c.d"), True), ("h1", "yes", "[::1]:4865", "a.b c.d")),
        ("host", Host("h1"), ("h1", "no", "-", "-")),
        ("alert", Alert("failure x", "failure", 999_000.0, "text"), ("failure", ISO, "text")),
    ],
)
def test_rows_become_lines(kind: str, row: Any, line: tuple[str, ...]) -> None:
    """Each kind of row has its columns; none of them says there are none."""
    sheet = table_of_rows(kind, [row], CLOCK)
    assert sheet.lines == (line,) and len(sheet.columns) == len(line)
    assert table_of_rows(kind, [], CLOCK).empty_text


def test_one_listener_is_shown_whole() -> None:
    """The table has epoch, metadata, evidence and last changes, each with its time."""
    lines = table_of_listener(PEER, CLOCK, None, ()).lines
    assert lines[-7:-5] == (("draining", "no"), ("epoch", "9"))
    assert lines[-5:-2] == (("zone", "-"), ("load", "0, and 0 more with each user"), ("metadata rack", "7"))
    assert lines[-2] == ("own check", "none")
    checked = msgspec.structs.replace(PEER, check="GET /, every 5 s, fails after 3", checked_at=999_000.0)
    for failing, shown in (("", "passes"), ("status 503", "fails: status 503")):
        row = msgspec.structs.replace(checked, failing=failing)
        assert table_of_listener(row, CLOCK, None, ()).lines[-3:-1] == (
            ("own check", "GET /, every 5 s, fails after 3"),
            ("its result", f"{shown}, since {ISO}"),
        )
    assert lines[-1] == ("evidence", "unknown, this server is older")
    found = (
        Evidence("report", "web1", 999_000.0, detail="timed out"),
        Evidence("findings", "web2", 999_000.0, alive=True),
    )
    case = CaseFile(7, PEER, found, "alive: answered web2", 999_000.0, "suspicion", 4, 0.0, doubting=True)
    entry = UpdateEntry(
        6, 999_000.0, "confirm", "s.c", "2001:db8::1", 80, "down", Change(6, 5, 999_000.0, "confirm", PEER)
    )
    lines = table_of_listener(PEER, CLOCK, case, [entry]).lines
    assert lines[-8:] == (
        ("evidence", f"{ISO}: reported by web1: timed out"),
        ("evidence", f"{ISO}: probed indirectly by web2: alive"),
        ("last decision", f"alive: answered web2, {ISO}"),
        ("running check", "suspicion"),
        ("recent failures", "4"),
        ("kept out until", "-"),
        ("the server", "distrusts its own probes"),
        ("change", f"revision 6, {ISO}: confirm, down: {PEER.cause}"),
    )
    quiet = table_of_listener(PEER, CLOCK, CaseFile(7, PEER), []).lines
    assert ("evidence", "none") in quiet and ("last decision", "none since the server started") in quiet


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Done(7), ["Done; revision 7."]),
        (
            Done(8, (Change(8, 0, 0.0, "drain", PEER), Change(9, 0, 0.0, "purge", PEER, True))),
            [
                "revision 8: drain listener s.c [2001:db8::1]:80 down",
                "revision 9: purge listener s.c [2001:db8::1]:80",
            ],
        ),
        (Registered(7, "up"), ["revision 7: up"]),
        (Registered(7, "up", False), ["Already up; revision 7."]),
        (Deregistered(7, "offline", False), ["Already offline; revision 7."]),
        (Reported(7, "draining"), ["revision 7: draining"]),
        (CredentialIssued(7, Credential("1f", "s.c", "", 1.0), "t"), ["revision 7: credential 1f of s.c"]),
    ],
)
def test_answered_changes_become_sentences(reply: Any, told: list[str]) -> None:
    """Each says at which revision it stands; none repeats the token."""
    assert sentences(reply) == told


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            UpdateEntry(3, 999_000.0, "register", "s.c", "::1", 80, "up", Change(3, 0, 0.0, "register", PEER)),
            ("3", ISO, "register", "s.c", "[::1]:80", "up"),
        ),
        (
            UpdateEntry(4, 999_000.0, "service-add", "s.c", "", 0, "", Change(4, 0, 0.0, "x", Service("s.c"))),
            ("4", ISO, "service-add", "s.c", "-", "-"),
        ),
        (
            SecurityEntry(5, 999_000.0, "register", "s.c", "{}", "192.0.2.1:9", "h1", "no credential"),
            ("5", ISO, "register", "s.c", "192.0.2.1:9", "h1", "no credential"),
        ),
        (
            AdministrationEntry(6, 999_000.0, "put", "{}", "192.0.2.1:9", "alice", "done", 4),
            ("6", ISO, "put", "alice", "192.0.2.1:9", "done", "4", "{}"),
        ),
    ],
)
def test_log_entries_become_lines(entry: Any, line: tuple[str, ...]) -> None:
    """Every field that the log promises is in the line."""
    assert log_line(entry, CLOCK) == line


def pairs(sheet: TableView) -> dict[str, str]:
    """A sheet of two columns as a dictionary."""
    return {line[0]: line[1] for line in sheet.lines}


def test_figures_become_tables() -> None:
    """Status, lag and impact."""
    status = ServerStatus(
        "s1", "compass", "abc", 9, 999_000.0, 3, 2, {"service": 4}, {"up": 3, "down": 1}, (), "sqlite"
    )
    lines = pairs(table_of_status(status, CLOCK))
    assert (lines["store"], lines["started"], lines["service rows"]) == ("abc (sqlite)", ISO, "4")
    assert (lines["sessions"], lines["listeners"]) == ("3, 2 of them watching", "1 down, 3 up")
    lags = Lags(9, (HostLag("h1", True, 7, 2), HostLag("h2", False, 12, 0, "gap")))
    assert table_of_lags(lags).lines == (
        ("h1", "-", "open", "7", "2", "ok"),
        ("h2", "-", "none", "12", "0", "gap"),
    )
    lags = Lags(9, (HostLag("h1", True, 9, 0, server="s2"),))
    assert table_of_lags(lags).lines == (("h1", "s2", "open", "9", "0", "ok"),)
    told = pairs(table_of_impact(Told("s.c", 9, ("web",), ("a.web", "b.web"), ("h1",))))
    assert told["their services"] == "a.web b.web" and told["backup of"] == "-"


def test_all_servers_over_a_store_are_a_table() -> None:
    """Each server has one line with the figures that an operator needs."""
    known = (
        KnownServer("s1", "ab", "compass/1", "keeper", 9, 0, 3, 2, 999_000.0),
        KnownServer("s2", "cd", "compass/0", "silent", 7, 2, 1, 0, 999_000.0, 61.25),
    )
    sheet = table_of_servers(ServerStatus("s1", "compass", "abc", 9, 0.0, 3, 2, {}, {}, servers=known), CLOCK)
    assert [line[:5] for line in sheet.lines] == [
        ("s1", "keeper", "9", "0", "3, 2 watching"),
        ("s2", "silent", "7", "2", "1, 0 watching"),
    ]
    assert [line[-1] for line in sheet.lines] == ["0 s ago", "1 min 1 s ago"]
    assert not table_of_servers(ServerStatus("s1", "compass", "abc", 9, 0.0, 3, 2, {}, {}), CLOCK).lines


def test_json_has_every_field_and_the_tag() -> None:
    """A program need not know what the defaults are."""
    assert as_json(Rows(3, (Category("a"),), 1)) == {
        "type": "rows",
        "revision": 3,
        "rows": [
            {
                "row": "category",
                "name": "a",
                "backup": "",
                "policy": {
                    "probe": "tcp",
                    "probe_timeout_seconds": 1.0,
                    "probe_attempts": 2,
                    "slow": "alert",
                    "recovery_seconds": 2.0,
                    "reporters": 1,
                    "witnesses": 2,
                    "cap": 0.8,
                    "grace_seconds": 5.0,
                    "flaps": 3,
                    "flap_seconds": 600.0,
                    "hold_seconds": 60.0,
                    "pool": "weighted-random",
                    "pools": {},
                    "locality": "none",
                    "hosts": {},
                    "open": False,
                },
            }
        ],
        "total": 1,
        "cursor": "",
    }
    assert as_json(Refusal("in-use", "no"))["problems"] == []
    assert as_json(LogEntries(())) == {"type": "log-entries", "entries": [], "floor": 0, "more": False}
    assert as_json({"a": {1.5}, "b": None}) == {"a": [1.5], "b": None}
