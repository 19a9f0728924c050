"""The commands of `opengnsc` against a daemon that says what the test wants: text, JSON, statuses."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from compass.cli.main import cli
from compass.client.core.credential import CREDENTIAL_OCTETS_MAX, CredentialProblem, read_credential
from compass.model.exit_codes import EXIT_OF_CODE, MEANINGS, ExitCode, exit_of, exit_table
from compass.model.host_api import (
    CheckStatus,
    HostStatus,
    KnownServer,
    LocalEvent,
    ReactionStatus,
    RegistrationStatus,
    Resolved,
)
from compass.model.replies import CODES, CategoryView, Dependencies, ServiceView
from compass.model.rows import Category, Change, Dependency, Host, Listener, Row, Service
from tests.support.fake_api import CREDENTIAL, SERVICE, LittleApi, Start, outcome, refusal

PEER = Listener(SERVICE, "127.0.0.1", 2028, "up", 1000.5, 7, cause="registered")
SIXTH = Listener(SERVICE, "2001:db8::7", 2028, "suspect", 1000.5, 7, weight=2, metadata={"zone": "b"}, cause="refused")
VIEW = Dependencies(
    "frontpage.web",
    12,
    (
        CategoryView("openuso"),
        CategoryView(
            "openuss", (ServiceView(SERVICE, (PEER, SIXTH)), ServiceView("northwest.openuss")), "rescue.emergency"
        ),
    ),
)


def said(value: Any) -> tuple[int, bytes]:
    """An answer of the daemon, as it spells it."""
    return 200, msgspec.json.encode(value)


def opengnsc(api: LittleApi, *arguments: str, **environment: str) -> Result:
    """A command, in this process."""
    return CliRunner().invoke(cli, arguments, env={"OPENGNS_API": api.place} | environment)


def event(at: int, row: Row, *, removed: bool = False) -> bytes:
    """A change as the daemon streams it."""
    change = Change(at, at - 1, 1000.25, "register", row, removed)
    return f"id: {at}\nevent: change\ndata: {msgspec.json.encode(change).decode()}\n\n".encode()


SNAPSHOT = f"id: 12\nevent: snapshot\ndata: {msgspec.json.encode(VIEW).decode()}\n\n".encode()


def test_every_refusal_has_a_status_and_the_help_has_them_all() -> None:
    """A script can rely on the table; a code that this program does not know is a misunderstanding."""
    assert set(EXIT_OF_CODE) == set(CODES)
    assert set(EXIT_OF_CODE.values()) <= set(MEANINGS)
    table = exit_table("opengnsc", with_codes=True)
    assert all(code in table for code in CODES)
    assert exit_of("invented-tomorrow") is ExitCode.MISUNDERSTOOD
    assert " ".join(table.split()) in " ".join(CliRunner().invoke(cli, ["--help"]).output.split())


@pytest.mark.parametrize("code", CODES)
def test_a_refusal_ends_with_its_status(api: LittleApi, code: str) -> None:
    """The refusal is on the standard error stream, as text and as JSON."""
    api.answers["/v1/resolve/openuss"] = refusal(code, 400, retry_after_seconds=2.0)
    plain = opengnsc(api, "resolve", "openuss")
    assert (plain.exit_code, plain.stdout) == (exit_of(code), "")
    assert plain.stderr == f"opengnsc: refusal: {code} (try again in 2 s) [{code}]\n"
    program = opengnsc(api, "resolve", "openuss", "--json")
    assert (program.exit_code, program.stdout) == (exit_of(code), "")
    told = {"type": "refusal", "code": code, "message": f"refusal: {code}", "retry_after_seconds": 2.0}
    assert json.loads(program.stderr) == told


def test_register_and_deregister_say_what_became_of_it(api: LittleApi) -> None:
    """Function 2.1 and 2.2 with all that can be said about a listener."""
    api.answers = {"/v1/register": outcome(), "/v1/deregister": outcome("offline")}
    given = ("--address", "127.0.0.1", "--weight", "0", "--metadata", "a=1=2", "--pid", "4711", "--credential", "T")
    result = opengnsc(api, "register", "ChinaServer.openuss", "2028", *given)
    assert (result.exit_code, result.output) == (0, "chinaserver.openuss 127.0.0.1:2028: up, revision 5\n")
    sent = {"service": SERVICE, "port": 2028, "credential": "T", "address": "127.0.0.1", "pid": 4711}
    assert api.asked[0].body == sent | {"weight": 0, "metadata": {"a": "1=2"}}
    result = opengnsc(api, "deregister", SERVICE, "2028", "--epoch", "7", "--json", OPENGNS_CREDENTIAL="T")
    assert json.loads(result.output)["state"] == "offline"
    assert api.asked[1].body == {"service": SERVICE, "port": 2028, "credential": "T", "epoch": 7}


def test_what_pool_policies_go_by_is_said_at_registration_and_later(api: LittleApi) -> None:
    """A registration has zone, load and degradation; 'load' reports a new load and prints the outcome."""
    api.answers = {"/v1/register": outcome(), "/v1/load": outcome()}
    given = ("--zone", "north", "--load", "0.5", "--degradation", "0.125", "--credential", "T")
    assert opengnsc(api, "register", SERVICE, "2028", *given).exit_code == 0
    sent = {"service": SERVICE, "port": 2028, "credential": "T"}
    assert api.asked[0].body == sent | {"zone": "north", "load": 0.5, "degradation": 0.125}
    result = opengnsc(api, "load", SERVICE, "2028", "0.25", OPENGNS_CREDENTIAL="T")
    assert (result.exit_code, result.output) == (0, "chinaserver.openuss 127.0.0.1:2028: up, revision 5\n")
    assert api.asked[1].body == sent | {"load": 0.25}


def test_a_pending_registration_is_no_failure(api: LittleApi) -> None:
    """202: the daemon has it, and the caller need not do more."""
    api.answers["/v1/register"] = outcome("pending", revision=0)
    result = opengnsc(api, "register", SERVICE, "2028", OPENGNS_CREDENTIAL="T")
    assert result.exit_code == 0
    assert "pending; no server has accepted it yet" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("register", "nodot", "2028"),
        ("register", SERVICE, "0"),
        ("register", SERVICE, "65536"),
        ("register", SERVICE, "2028", "--address", "example.org"),
        ("register", SERVICE, "2028", "--credential", "T", "--metadata", "novalue"),
        ("register", SERVICE, "2028", "--credential", "T", "--metadata", "a=1", "--metadata", "a=2"),
        ("register", SERVICE, "2028", "--credential", "T", "--credential-file", "/dev/null"),
        ("register", SERVICE, "2028"),
        ("report", SERVICE, "2001:db8::7:2028"),
        ("resolve", "under_score"),
        ("--api", "ftp://127.0.0.1", "status"),
        ("--api", "unix:relative.sock", "status"),
        ("--api", "http://127.0.0.1:notaport", "status"),
        ("run", SERVICE, "--port", "1"),
    ],
)
def test_a_wrong_command_line_sends_no_request(api: LittleApi, arguments: tuple[str, ...]) -> None:
    """Status 2, and a text that says what would be right."""
    result = opengnsc(api, *arguments)
    # Without a credential, the daemon says whether one is needed.
    sent = [asked for asked in api.asked if asked.path != "/v1/status"]
    assert (result.exit_code, result.stdout, sent) == (ExitCode.USAGE, "", [])
    assert "Error: " in result.stderr or "opengnsc: " in result.stderr


def test_query_is_a_tree(api: LittleApi) -> None:
    """Function 2.3: category, service, listener and the backup, each in its place."""
    api.answers["/v1/dependencies/frontpage.web"] = said(VIEW)
    assert opengnsc(api, "query", "frontpage.web").output.splitlines() == [
        "frontpage.web at revision 12",
        "  openuso",
        "    (no services)",
        "  openuss",
        "    chinaserver.openuss",
        "      127.0.0.1:2028      up",
        "      [2001:db8::7]:2028  suspect  weight 2  zone=b  (refused)",
        "    northwest.openuss",
        "      (no listeners)",
        "    backup: rescue.emergency",
        "      (no listeners)",
    ]
    told = json.loads(opengnsc(api, "query", "frontpage.web", "--json").output)
    assert told["categories"][1]["services"][0]["listeners"][0]["weight"] == 1
    api.answers["/v1/dependencies/frontpage.web"] = said(Dependencies("frontpage.web", 3))
    assert "no dependencies" in opengnsc(api, "query", "frontpage.web").output


def test_resolve_prints_addresses_or_has_a_status_of_its_own(api: LittleApi) -> None:
    """Each line has one address, best first; no usable listener has its own status."""
    api.answers["/v1/resolve/openuss"] = said(Resolved("openuss", 5, "service", (SIXTH, PEER)))
    assert opengnsc(api, "resolve", "openuss").stdout == "[2001:db8::7]:2028\n127.0.0.1:2028\n"
    api.answers["/v1/resolve/openuss"] = said(Resolved("openuss", 5, "none", ()))
    empty = opengnsc(api, "resolve", "openuss")
    assert (empty.exit_code, empty.stdout) == (ExitCode.NONE_USABLE, "")
    assert "no usable listener is registered" in empty.stderr
    assert json.loads(opengnsc(api, "resolve", "openuss", "--json").stdout)["source"] == "none"


def test_report_names_listener_and_reason(api: LittleApi) -> None:
    """Function 2.5, unreachable and slow."""
    api.answers["/v1/report"] = outcome("suspect")
    assert opengnsc(api, "report", SERVICE, "[2001:db8::7]:2028").exit_code == 0
    more = ("--slow", "--reporter", "frontpage.web", "--detail", "9 s")
    assert opengnsc(api, "report", SERVICE, "127.0.0.1:2028", *more).exit_code == 0
    assert api.asked[0].body == {"service": SERVICE, "address": "2001:db8::7", "port": 2028}
    reason = {"state": "slow", "reporter": "frontpage.web", "detail": "9 s"}
    assert api.asked[1].body == {"service": SERVICE, "address": "127.0.0.1", "port": 2028} | reason


def test_status_shows_session_view_and_registrations(api: LittleApi) -> None:
    """A daemon without a server, with one process, one held and one pending registration."""
    own = (
        RegistrationStatus(
            SERVICE, "127.0.0.1", 2028, 7, "registered", pid=4711, own_check=CheckStatus("GET /", "", "", 0, 3.2)
        ),
        RegistrationStatus(SERVICE, "127.0.0.1", 2029, 8, "pending", hold=True, problem="no session"),
        RegistrationStatus(
            *(SERVICE, "127.0.0.1", 2030, 9, "registered"), own_check=CheckStatus("GET /", "status 503", "none", 4, 1.0)
        ),
        RegistrationStatus(SERVICE, "127.0.0.1", 2031, 9, "registered", own_check=CheckStatus("GET /")),
    )
    told = HostStatus("h1", "waiting", "", "s", 9, True, ("frontpage.web",), 3, own, "refused by gns1")
    api.answers["/v1/status"] = said(told)
    assert opengnsc(api, "status").output.splitlines() == [
        "host      h1",
        "session   waiting (refused by gns1)",
        "view      revision 9, 3 listeners, for frontpage.web",
        "here      4 registrations",
        "          chinaserver.openuss 127.0.0.1:2028  registered  process 4711",
        "            check GET /: passed, 3 s ago",
        "          chinaserver.openuss 127.0.0.1:2029  pending  held by a connection  (no session)",
        "          chinaserver.openuss 127.0.0.1:2030  registered",
        "            check GET /: none, 4 in a row, 1 s ago  FAILING, so the listener is suspect",
        "          chinaserver.openuss 127.0.0.1:2031  registered",
        "            check GET /: not made yet",
    ]
    empty = HostStatus("h1", "open", "gns1", "", 0, False, (), 0, ())
    api.answers["/v1/status"] = said(empty)
    assert opengnsc(api, "status").output.splitlines() == [
        "host      h1",
        "session   open to gns1",
        "view      not loaded yet, 0 listeners, for no service",
        "here      no registrations",
    ]
    assert json.loads(opengnsc(api, "--json", "status").output)["session"] == "open"


def test_status_shows_hooks_and_templates(api: LittleApi) -> None:
    """Each hook has one line with its names, state and last problem, whatever the output of its command."""
    reactions = (
        ReactionStatus("hook", "on-change", ("openuss",), "failed", 3, 2, 12.3, "on-change ended with status 1:\n no"),
        ReactionStatus("template", "haproxy.cfg", ("openuss", "openuso"), "idle", 1, 0, 4.0),
        ReactionStatus("template", "hosts", ("other",), "withheld", problem="no service of this host depends on it"),
    )
    told = HostStatus("h1", "open", "gns1", "s", 9, True, (), 0, (), reactions=reactions)
    api.answers["/v1/status"] = said(told)
    assert opengnsc(api, "status").output.splitlines()[4:] == [
        "reacts    hook on-change on openuss  failed, 3 turns, the last 12 s ago, failed 2 times"
        "  (on-change ended with status 1: no)",
        "          template haproxy.cfg on openuss, openuso  idle, 1 turn, the last 4 s ago",
        "          template hosts on other  withheld  (no service of this host depends on it)",
    ]
    assert json.loads(opengnsc(api, "--json", "status").output)["reactions"][0]["failures"] == 2


def test_status_shows_every_way_to_a_server(api: LittleApi) -> None:
    """Name, where it leads, where it is known from, how it is, when it is tried next, and why; in columns."""
    servers = (
        KnownServer("gns1.example", "192.0.2.1:4863", "configured", "backing-off", 12.4, 5, "no connection within 5 s"),
        KnownServer("gns1.example", "198.51.100.1:4863", "configured", "open", 0.0, 0, "earlier"),
        KnownServer("gns20.example", "192.0.2.20:4863", "srv", "asked-to-wait", 61.0, 1, "drained"),
        KnownServer("gns3", "[2001:db8::3]:4863", "announced", "connecting", steered=True),
    )
    told = HostStatus("h1", "open", "gns1", "s", 9, True, (), 0, (), servers=servers)
    api.answers["/v1/status"] = said(told)
    assert opengnsc(api, "status").output.splitlines()[4:] == [
        "servers   gns1.example   192.0.2.1:4863      configured  backing off, next try in 12 s"
        "  (no connection within 5 s)",
        "          gns1.example   198.51.100.1:4863   configured  open",
        "          gns20.example  192.0.2.20:4863     srv         asked to wait, next try in 61 s  (drained)",
        "          gns3           [2001:db8::3]:4863  announced   connecting, redirected by another server",
    ]
    shown = json.loads(opengnsc(api, "--json", "status").output)["servers"]
    assert shown[0]["next_try_seconds"] == 12.4 and shown[3]["steered"]


def test_control_characters_of_others_do_not_reach_the_terminal(api: LittleApi) -> None:
    """A cause and a refusal come from elsewhere."""
    bad = msgspec.structs.replace(SIXTH, cause="\x1b[2Jgone")
    view = Dependencies("frontpage.web", 1, (CategoryView("openuss", (ServiceView(SERVICE, (bad,)),)),))
    api.answers["/v1/dependencies/frontpage.web"] = said(view)
    assert "(\\u001b[2Jgone)" in opengnsc(api, "query", "frontpage.web").output
    api.answers["/v1/status"] = 403, {"code": "forbidden", "message": "\x1b[2J"}
    assert "\x1b" not in opengnsc(api, "status").output


CHANGES: list[tuple[Row, bool, str]] = [
    (PEER, False, "listener chinaserver.openuss 127.0.0.1:2028: up"),
    (PEER, True, "listener chinaserver.openuss 127.0.0.1:2028: removed"),
    (Category("openuss", "rescue.emergency"), False, "category openuss: backup rescue.emergency"),
    (Category("openuss"), False, "category openuss: no backup"),
    (Category("openuss"), True, "category openuss: removed"),
    (Service(SERVICE), False, f"service {SERVICE}: added"),
    (Dependency("web", "openuss"), False, "category web: depends on openuss"),
    (Dependency("web", "openuss"), True, "category web: no longer depends on openuss"),
    (Host("h1"), False, "host h1: set"),
]


def test_a_change_is_a_line(api: LittleApi) -> None:
    """Each kind of row that a host can get is one line, after the snapshot; a refusal ends the watch."""
    answers = [(200, "stream"), refusal("unknown-service", 404)]
    api.answers["/v1/watch"] = lambda asked: answers.pop(0)
    api.streams.put([SNAPSHOT, *(event(13, row, removed=removed) for row, removed, _ in CHANGES)])
    result = opengnsc(api, "watch", "frontpage.web")
    assert result.exit_code == ExitCode.NOT_FOUND
    assert result.stdout.splitlines() == [
        "      12  snapshot: frontpage.web depends on openuso, openuss; 2 listeners",
        *(f"      13  00:16:40.250Z  {text}" for _, _, text in CHANGES),
    ]


def test_watch_goes_on_after_the_last_line(api: LittleApi, start: Start) -> None:
    """A lost connection: said once on the standard error stream, resumed by the last revision, nothing left out or
    twice; heartbeats and events of tomorrow are passed over; Ctrl-C ends it without a traceback."""
    api.answers["/v1/watch"] = (200, "stream")
    api.streams.put([SNAPSHOT[:40], SNAPSHOT[40:], b": still here\n\n", event(13, PEER)])
    api.streams.put([b"id: 14\nevent: invented\ndata: {}\n\n", event(15, SIXTH)])
    process = start("watch", "frontpage.web", "--json")
    assert process.stdout is not None
    events = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert [(told["kind"], told["revision"]) for told in events] == [("snapshot", 12), ("change", 13), ("change", 15)]
    again = [api.wait_for("/v1/watch", number).headers.get("Last-Event-ID") for number in (1, 2, 3)]
    assert again == [None, "13", "15"]
    process.send_signal(signal.SIGINT)
    rest, remarks = process.communicate(timeout=20)
    assert (process.returncode, rest) == (ExitCode.INTERRUPTED, "")
    assert remarks.splitlines() == ["opengnsc: opengnscd ended the connection; retrying"] * 2
    assert [told["data"]["type"] for told in events[:1]] == ["dependencies"]


def test_watch_does_not_wait_for_a_daemon_that_was_never_there(tmp_path: Path) -> None:
    """A wrong address is said at once; only what was reached is waited for."""
    result = CliRunner().invoke(cli, ["--api", f"unix:{tmp_path}/nobody.sock", "watch", "frontpage.web"])
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "cannot be reached (No such file or directory): start it, or set its address" in result.stderr


def test_watch_reads_an_event_that_it_cannot_understand_as_a_misunderstanding(api: LittleApi) -> None:
    """Rather than to leave a change out silently."""
    api.answers["/v1/watch"] = (200, "stream")
    api.streams.put([b"id: 14\nevent: change\ndata: {}\n\n"])
    assert opengnsc(api, "watch", "frontpage.web").exit_code == ExitCode.MISUNDERSTOOD


def test_hold_stays_and_registers_again(api: LittleApi, start: Start) -> None:
    """The registration lasts as long as the connection; after a closed connection it is repeated until Ctrl-C."""
    api.answers["/v1/register"] = (200, "stream")
    for state in ("up", "pending"):
        api.streams.put([json.dumps(outcome(state)[1]).encode() + b"\n"])
    process = start("register", SERVICE, "2028", "--hold")
    assert api.wait_for("/v1/register", 3).body["hold"] is True
    process.send_signal(signal.SIGINT)
    assert [": up" in line for line in process.communicate(timeout=20)[0].splitlines()] == [True, False]
    assert process.returncode == ExitCode.INTERRUPTED


def test_what_is_no_daemon_is_recognised(api: LittleApi) -> None:
    """An answer of something else, a failure of the daemon, and half an answer are three different texts."""
    api.answers["/v1/status"] = 200, b"<html>"
    assert opengnsc(api, "status").exit_code == ExitCode.MISUNDERSTOOD
    api.answers["/v1/status"] = 404, b"<html>"
    assert opengnsc(api, "status").exit_code == ExitCode.MISUNDERSTOOD
    api.answers["/v1/status"] = 500, b"<html>"
    broken = opengnsc(api, "status")
    assert (broken.exit_code, "HTTP status 500" in broken.stderr) == (ExitCode.UNAVAILABLE, True)


def test_a_credential_file_is_read_and_its_permissions_are_looked_at(api: LittleApi, tmp_path: Path) -> None:
    """A file that others can read is used, with a warning that does not quote it; the environment comes second."""
    api.answers["/v1/register"] = outcome()
    file = tmp_path / "token"
    file.write_text(f"{CREDENTIAL}\n")
    for mode, warned in ((0o600, False), (0o640, True), (0o604, True)):
        file.chmod(mode)
        given = ("register", SERVICE, "2028", "--credential-file", str(file))
        result = opengnsc(api, *given, OPENGNS_CREDENTIAL="another")
        assert (result.exit_code, f"chmod 600 {file}" in result.stderr) == (0, warned)
        assert CREDENTIAL not in result.output
        assert api.asked[-1].body["credential"] == CREDENTIAL
    opengnsc(api, "register", SERVICE, "2028", "--credential", "T", OPENGNS_CREDENTIAL_FILE=str(file))
    assert api.asked[-1].body["credential"] == "T"
    missing = opengnsc(api, "register", SERVICE, "2028", "--credential-file", str(tmp_path / "none"))
    assert (missing.exit_code, "No such file" in missing.stderr) == (ExitCode.FAILED, True)


def test_a_file_that_is_no_credential_is_refused(tmp_path: Path) -> None:
    """Empty, with words in it, binary, or one octet too long."""
    file = tmp_path / "token"
    for data in (b"", b" \n", b"two words", b"\xff\xfe", b"a\x00b", b"a" * (CREDENTIAL_OCTETS_MAX + 1)):
        file.write_bytes(data)
        with pytest.raises(CredentialProblem):
            read_credential(file, print)
    file.write_bytes(b"a" * CREDENTIAL_OCTETS_MAX)
    file.chmod(0o600)
    assert len(read_credential(file, pytest.fail)) == CREDENTIAL_OCTETS_MAX


def test_completion_is_a_script_of_the_shell(api: LittleApi) -> None:
    """Each of the shells, as text and as JSON."""
    for shell in ("bash", "zsh", "fish"):
        script = opengnsc(api, "completion", shell).output
        assert "_OPENGNSC_COMPLETE" in script
        told = json.loads(opengnsc(api, "completion", shell, "--json").output)
        assert told["source"].strip() == script.strip()
    assert api.asked == []


def test_every_command_teaches_with_an_example() -> None:
    """--help of each."""
    for name in cli.commands:
        assert f"Examples:\n    opengnsc {name}" in CliRunner().invoke(cli, [name, "--help"]).output


def test_an_event_is_the_daemons_own_value(api: LittleApi) -> None:
    """An event in the library equals the daemon's event."""
    from compass.client.core.blocking_api import HostApi, parse_api_endpoint

    api.answers["/v1/watch"] = (200, "stream")
    api.streams.put([SNAPSHOT, event(13, PEER)])
    change = Change(13, 12, 1000.25, "register", PEER)
    events = list(HostApi(parse_api_endpoint(api.place)).watch("frontpage.web", 3))
    assert events == [LocalEvent("snapshot", 12, VIEW), LocalEvent("change", 13, change)]
    assert api.asked[0].headers["Last-Event-ID"] == "3"


def completions(api: LittleApi, *words: str) -> list[str]:
    """Return the offers of a shell for the last word."""
    from click.shell_completion import ShellComplete

    shell = ShellComplete(cli, {}, "opengnsc", "_OPENGNSC_COMPLETE")
    return [item.value for item in shell.get_completions(["--api", api.place, *words[:-1]], words[-1])]


def test_a_shell_completes_the_names_that_the_daemon_knows(api: LittleApi) -> None:
    """Own services, dependencies and their categories; where a service is meant, no category."""
    api.answers["/v1/status"] = said(HostStatus("h", "open", "g", "s", 12, True, ("frontpage.web",), 3, ()))
    api.answers["/v1/dependencies/frontpage.web"] = said(VIEW)
    everything = sorted(["frontpage.web", SERVICE, "northwest.openuss", "openuso", "openuss"])
    assert completions(api, "resolve", "") == everything
    assert completions(api, "resolve", "open") == ["openuso", "openuss"]
    assert completions(api, "report", "north") == ["northwest.openuss"]
    assert completions(api, "report", "openu") == []


def test_a_shell_completes_nothing_where_no_daemon_answers(api: LittleApi) -> None:
    """A completion is never an error on the terminal."""
    assert completions(api, "resolve", "x") == []
    api.answers["/v1/status"] = refusal("not-ready", 503)
    assert completions(api, "resolve", "") == []
