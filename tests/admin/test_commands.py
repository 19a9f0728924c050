"""Every command against a real session with a server that decides by the real rules."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import compass
from compass.admin.main import cli
from compass.admin.shell.context import AdminContext
from compass.admin.shell.decorators import WATCH_SECONDS_MAX, WATCH_SECONDS_MIN
from compass.model.exit_codes import EXIT_OF_CODE, ExitCode
from compass.model.replies import CODES, LogEntries, Refusal, Told
from compass.model.requests import Apply, Fetch, IssueCredential, Put, ReadLog, Register, Report, Status
from compass.model.rows import Category
from compass.model.rules.draft import Principal
from compass.model.rules.tokens import principal_of
from compass.system.command_line import CheckedGroup
from tests.admin.conftest import Program
from tests.support.fake_machine import FakeMachine
from tests.support.fake_server import LittleServer
from tests.support.installation import free_port

USS = str(Path(__file__).parents[2] / "examples" / "uss.toml")
ALICE = Principal("admin", "alice", "127.0.0.1:1")


@pytest.fixture
def uss(program: Program, server: LittleServer) -> Program:
    """The program, and a server with the example's topology and one listener."""
    program.done("apply", USS, "--yes")
    program.done("listener", "add", "chinaserver.openuss", "192.0.2.7:2028", "--metadata", "rack=7")
    return program


def press_ctrl_c() -> None:
    """Interrupt the program, which runs in the main thread, wherever it waits."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def leaves(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)


def test_every_command_teaches_with_an_example(program: Program) -> None:
    """--help of each command names the command in an example that one can copy."""
    for path, command in leaves(cli):
        text = program.done(*path, "--help", options=[])
        assert command.help, path
        if path[0] != "tls":
            assert f"opengnsadmin {' '.join(path[:1])}" in text.split("Examples:")[1], path


def test_every_command_prints_json_when_asked(uss: Program, tmp_path: Path) -> None:
    """--json gives one JSON document from every command, whether it stands before or after the command."""
    uss.done("host", "add", "old7.example.net")
    uss.done("category", "add", "spare")
    credential = json.loads(uss.done("--json", "credential", "add", "portal.web"))["credential"]["id"]
    endpoint = ("chinaserver.openuss", "192.0.2.7:2028")
    runs: list[tuple[str, ...]] = [
        ("category", "add", "extra"),
        ("category", "set", "extra", "--slow", "notify"),
        ("category", "list"),
        ("category", "show", "openuss"),
        ("category", "remove", "extra"),
        ("service", "add", "one.spare"),
        ("service", "set", "one.spare", "--pool", "least-used"),
        ("service", "set", "one.spare", "--hosts", "web1.example.net"),
        ("service", "list"),
        ("service", "show", "chinaserver.openuss"),
        ("service", "rename", "one.spare", "two.spare"),
        ("category", "rename", "spare", "other", "--dry-run"),
        ("category", "rename", "spare", "other", "--begin"),
        ("category", "rename", "spare", "other", "--end"),
        ("category", "rename", "other", "spare"),
        ("service", "remove", "two.spare"),
        ("dependency", "add", "web", "spare"),
        ("dependency", "list"),
        ("dependency", "remove", "web", "spare"),
        ("credential", "add", "forum.web"),
        ("credential", "list"),
        ("credential", "remove", "portal.web", credential),
        ("token", "add", "grafana"),
        ("token", "list"),
        ("token", "remove", "grafana"),
        ("host", "add", "new1.example.net"),
        ("host", "set", "new1.example.net", "--barred"),
        ("host", "list"),
        ("host", "invite", "new2.example.net"),
        ("host", "show", "new1.example.net"),
        ("host", "remove", "new1.example.net"),
        ("listener", "add", "northeast.openuss", "192.0.2.8:2028"),
        ("listener", "set", *endpoint, "--weight", "3"),
        ("listener", "list"),
        ("listener", "show", *endpoint),
        ("drain", *endpoint),
        ("undrain", *endpoint),
        ("listener", "remove", *endpoint),
        ("listener", "purge", "--older-than", "1h"),
        ("alert", "list"),
        ("alert", "ways"),
        ("alert", "test"),
        ("server", "drain"),
        ("server", "undrain"),
        ("digest",),
        ("log", "updates"),
        ("log", "security"),
        ("log", "admin"),
        ("impact", "openuss"),
        ("explain", "openuss"),
        ("status",),
        ("lag",),
        ("export",),
        ("plan", USS),
        ("apply", USS, "--yes"),
        ("doctor",),
        ("completion", "bash"),
        ("completion", "zsh"),
        ("completion", "fish"),
    ]
    for run in runs:
        assert isinstance(json.loads(uss.done(*run, "--json")), dict), run
    for run in (("category", "list"), ("status",), ("tls", "init", "--directory", str(tmp_path / "tls"))):
        assert json.loads(uss.done("--json", *run)), run
    untested = {path for path, command in leaves(cli) if not isinstance(command, click.Group)}
    untested -= {run[:2] for run in runs} | {run[:1] for run in runs}
    # Those of the store itself are in test_offline.py, those of init in tests/e2e/test_init.py.
    assert {path[0] for path in untested} - {"backup", "restore", "store"} == {"tls", "init"}


def test_objects_are_added_shown_changed_and_removed(program: Program, server: LittleServer) -> None:
    """An administrator makes a category, sees it, changes one thing of it and the rest stays, and removes it."""
    program.done("category", "add", "OpenUSS", "--probe", "http:/health", "--probe-attempts", "3")
    program.done("service", "add", "chinaserver.openuss")
    program.done("category", "set", "openuss", "--backup", "chinaserver.openuss")
    program.done("category", "set", "openuss", "--slow", "notify")
    row = server.catalogue.categories["openuss"]
    assert (row.backup, row.policy.probe, row.policy.probe_attempts, row.policy.slow) == (
        "chinaserver.openuss",
        "http:/health",
        3,
        "notify",
    )
    assert "http:/health" in program.done("category", "list")
    program.done("dependency", "add", "openuss", "openuss")
    shown = program.done("category", "show", "openuss")
    assert "chinaserver.openuss" in shown and "dependants" in shown
    assert program.run("category", "remove", "openuss").exit_code == ExitCode.CONFLICT
    program.done("category", "set", "openuss", "--no-backup")
    program.done("dependency", "remove", "openuss", "openuss")
    program.done("service", "remove", "chinaserver.openuss")
    program.done("category", "remove", "openuss")
    assert not server.catalogue.categories
    assert "No category found." in program.done("category", "list")


def test_a_name_is_changed_in_one_step_or_in_two(uss: Program, server: LittleServer) -> None:
    """The plan, the refusal with what to do, both names with the next step, and what is left."""
    rename = ("service", "rename", "ChinaServer.openuss", "north.openuss")
    uss.done("credential", "add", "chinaserver.openuss")
    refused = uss.run(*rename, "--dry-run")
    assert refused.exit_code == ExitCode.CONFLICT and "192.0.2.7:2028" in refused.stderr
    assert "opengnsadmin service rename chinaserver.openuss north.openuss --begin" in refused.stderr
    shown = uss.done(*rename, "--begin")
    assert "rename-add service north.openuss" in shown and "rename-remove" not in shown
    assert "'opengnsadmin service rename chinaserver.openuss north.openuss --end'" in shown
    assert uss.run(*rename, "--begin", "--end").exit_code == ExitCode.USAGE
    uss.done("listener", "remove", "chinaserver.openuss", "192.0.2.7:2028")
    before = server.catalogue
    plan = uss.done(*rename, "--end", "--dry-run")
    assert "- service chinaserver.openuss\n" in plan and "+ listener north.openuss 192.0.2.7:2028\n" in plan
    assert server.catalogue is before and "nothing was changed" in plan
    assert "have to name north.openuss" in uss.done(*rename, "--end")
    assert server.catalogue.service("chinaserver.openuss") is None
    assert len(server.catalogue.credentials["north.openuss"]) == 1
    assert "renamed from chinaserver.openuss" in uss.done("listener", "show", "north.openuss", "192.0.2.7:2028")
    uss.done("category", "rename", "openuss", "Storage")
    assert "north.storage" in uss.done("category", "show", "storage") and "openuss" not in server.catalogue.categories
    assert '"name":"openuss","to":"storage"' in uss.done("log", "admin")


def test_a_service_and_a_host_are_shown_with_what_is_theirs(uss: Program, server: LittleServer) -> None:
    """The output for people has the row, then its listeners (and a service's credentials)."""
    uss.done("credential", "add", "chinaserver.openuss")
    shown = uss.done("service", "show", "chinaserver.openuss")
    assert "192.0.2.7:2028" in shown and "credentials:" in shown and "never" in shown
    uss.done("host", "add", "web1.example.net", "--barred")
    shown = uss.done("host", "show", "WEB1.example.net")
    assert re.search(r"barred +yes", shown) and "No matching listeners." in shown
    uss.done("host", "set", "web1.example.net", "--not-barred")
    assert not server.catalogue.hosts["web1.example.net"].barred


def test_a_set_without_anything_to_set_is_a_usage_error(uss: Program) -> None:
    """`set` says what could be given, and contradictions are not sent."""
    for arguments in (
        ("category", "set", "openuss"),
        ("category", "set", "openuss", "--backup", "portal.web", "--no-backup"),
        ("listener", "set", "chinaserver.openuss", "192.0.2.7:2028"),
        ("listener", "set", "chinaserver.openuss", "192.0.2.7:2028", "--metadata", "a=b", "--no-metadata"),
        ("listener", "add", "chinaserver.openuss", "192.0.2.7:2029", "--metadata", "rack"),
        ("host", "set", "web1.example.net"),
        ("log", "updates", "--last", "3", "--after", "1"),
        ("log", "updates", "--last", "10001"),
        ("listener", "list", "--older-than", "soon"),
    ):
        assert uss.run(*arguments).exit_code == ExitCode.USAGE, arguments


def test_a_listener_is_changed_without_becoming_another_instance(uss: Program, server: LittleServer) -> None:
    """Weight and metadata change; the epoch and what is not named stay."""
    before = server.catalogue.listeners["chinaserver.openuss"]["192.0.2.7", 2028]
    uss.done("listener", "set", "chinaserver.openuss", "192.0.2.7:2028", "--weight", "7")
    after = server.catalogue.listeners["chinaserver.openuss"]["192.0.2.7", 2028]
    assert (after.weight, after.metadata, after.epoch) == (7, {"rack": "7"}, before.epoch)
    uss.done("listener", "set", "chinaserver.openuss", "192.0.2.7:2028", "--no-metadata")
    assert server.catalogue.listeners["chinaserver.openuss"]["192.0.2.7", 2028].metadata == {}
    again = uss.run("listener", "add", "chinaserver.openuss", "192.0.2.7:2028")
    assert again.exit_code == ExitCode.CONFLICT and "listener set" in again.stderr
    uss.done("listener", "remove", "chinaserver.openuss", "192.0.2.7:2028")
    uss.done("listener", "add", "chinaserver.openuss", "192.0.2.7:2028")
    assert "epoch" in uss.done("listener", "show", "chinaserver.openuss", "192.0.2.7:2028")


def test_listeners_are_listed_by_place_state_and_age(uss: Program) -> None:
    """Each filter leaves out what does not fit."""
    assert "192.0.2.7:2028" in uss.done("listener", "list", "--within", "OpenUSS", "--state", "up")
    assert "192.0.2.7:2028" in uss.done("listener", "list", "--older-than", "0s")
    for filter in (("--within", "web"), ("--state", "down"), ("--older-than", "1h")):
        assert uss.done("listener", "list", *filter) == "No matching listeners.\n"


def test_drained_listeners_are_drained_until_they_are_not(uss: Program, server: LittleServer) -> None:
    """`drain` and `undrain` change the state of one listener."""
    uss.done("drain", "chinaserver.openuss", "192.0.2.7:2028")
    assert "draining" in uss.done("listener", "list")
    uss.done("undrain", "chinaserver.openuss", "192.0.2.7:2028")
    assert server.catalogue.listeners["chinaserver.openuss"]["192.0.2.7", 2028].state == "up"


def test_a_token_is_shown_once_or_written_for_its_owner_only(
    uss: Program, server: LittleServer, tmp_path: Path
) -> None:
    """The token is printed, or with --output only written to a file of mode 0600."""
    file = tmp_path / "token"
    file.write_text("old")
    told = uss.done("credential", "add", "account.openuso", "--output", str(file))
    token = file.read_text().strip()
    assert token not in told and file.stat().st_mode & 0o777 == 0o600
    register = Register("account.openuso", token, "192.0.2.9", 2028, 1)
    assert not isinstance(server.decide(register, Principal("host", "web1", "")), Refusal)
    assert len(uss.done("credential", "add", "account.openuso", "--overlap", "1h").split()[-1]) >= 43
    assert "in 59 min" in uss.done("credential", "list", "--within", "account.openuso")


def test_bearer_tokens_are_made_listed_and_removed(uss: Program, server: LittleServer, tmp_path: Path) -> None:
    """Each has a name and a role; a topology that does not name them leaves them alone."""
    viewer = uss.done("token", "add", "Grafana").split()[-1]
    file = tmp_path / "token"
    uss.done("token", "add", "deploy", "--role", "admin", "--output", str(file))
    admin = file.read_text().strip()
    assert principal_of(server.catalogue, viewer, "192.0.2.1", 0.0) == Principal(
        "viewer", "grafana.gns-viewer", "192.0.2.1"
    )
    assert principal_of(server.catalogue, admin, "192.0.2.1", 0.0) == Principal(
        "admin", "deploy.gns-admin", "192.0.2.1"
    )
    uss.done("apply", USS, "--prune", "--yes")
    lines = [line.split() for line in uss.done("token", "list").splitlines()]
    assert [line[:2] for line in lines] == [["NAME", "ROLE"], ["deploy", "admin"], ["grafana", "viewer"]]
    uss.done("token", "add", "grafana", "--overlap", "1h")
    uss.done("token", "remove", "grafana", lines[2][2])
    assert principal_of(server.catalogue, viewer, "", 0.0) is None
    assert uss.done("token", "list").count("grafana") == 1
    uss.done("token", "remove", "deploy", "--role", "admin")
    assert principal_of(server.catalogue, admin, "", 0.0) is None
    assert uss.run("token", "remove", "deploy").exit_code == ExitCode.NOT_FOUND
    assert uss.run("token", "add", "a.b").exit_code == ExitCode.BAD_INPUT


def test_no_token_is_made_that_cannot_be_written(uss: Program, server: LittleServer, tmp_path: Path) -> None:
    """An unwritable place is found out before the server is asked; nothing is left behind by a refusal."""
    result = uss.run("credential", "add", "account.openuso", "--output", str(tmp_path / "no" / "token"))
    assert result.exit_code == ExitCode.FAILED and "cannot write" in result.stderr
    assert not any(isinstance(request, IssueCredential) for request in server.asked)
    result = uss.run("credential", "add", "nobody.openuso", "--output", str(tmp_path / "token"))
    assert result.exit_code == ExitCode.NOT_FOUND and not list(tmp_path.glob("*token*"))


@pytest.mark.parametrize("code", CODES)
def test_every_refusal_has_its_exit_status(code: Any, program: Program, server: LittleServer) -> None:
    """A script can distinguish refusals; --json prints the refusal itself on the error stream."""
    server.override = lambda request: Refusal(code, "no, because", 2.0)
    result = program.run("status")
    assert result.exit_code == EXIT_OF_CODE[code] >= 3
    assert "no, because" in result.stderr and code in result.stderr and "2 s" in result.stderr
    result = program.run("status", "--json")
    assert result.exit_code == EXIT_OF_CODE[code] and json.loads(result.stderr)["code"] == code


def test_an_answer_of_another_kind_is_not_misread(program: Program, server: LittleServer) -> None:
    """A server that answers something else is misunderstood, and that has its own status."""
    server.override = lambda request: Told("x", 1)
    assert program.run("status").exit_code == ExitCode.MISUNDERSTOOD


def test_bad_names_are_refused_before_anybody_is_asked(program: Program, server: LittleServer) -> None:
    """A name that cannot be one costs no session."""
    for arguments in (
        ("category", "add", "no_label"),
        ("service", "add", "chinaserver"),
        ("listener", "show", "a.b", "localhost:80"),
        ("drain", "a.b", "192.0.2.7"),
        ("impact", "a.b", "192.0.2.7:0"),
    ):
        assert program.run(*arguments).exit_code == ExitCode.BAD_INPUT, arguments
    assert not server.asked


def test_what_does_not_exist_is_said_to_be_unknown(program: Program) -> None:
    """`show` and `set` of nothing end with the status of unknown objects."""
    for arguments in (
        ("category", "show", "nothing"),
        ("service", "show", "no.thing"),
        ("host", "show", "nobody"),
        ("listener", "show", "no.thing", "192.0.2.7:1"),
        ("credential", "remove", "no.thing", "123"),
    ):
        assert program.run(*arguments).exit_code == ExitCode.NOT_FOUND, arguments


def test_incidents_and_impact_are_shown(uss: Program, server: LittleServer) -> None:
    """A reported listener opens an incident; impact names those who depend on it."""
    report = Report("chinaserver.openuss", "192.0.2.7", 2028, "slow", detail="3 s")
    server.decide(report, ALICE)
    assert "reported slow" in uss.done("alert", "list")
    assert "open incidents  1" in uss.done("status")
    for name in (("openuss",), ("chinaserver.openuss",), ("chinaserver.openuss", "192.0.2.7:2028")):
        assert "portal.web" in uss.done("impact", *name)
    assert "openuss" in uss.done("impact", "emergency.rescue")
    assert "No host has watched" in uss.done("lag")


def test_many_rows_come_in_pages(program: Program, server: LittleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond one page are asked for until all are there."""
    monkeypatch.setattr("compass.admin.shell.context.PAGE", 2)
    for name in "abcde":
        program.done("category", "add", name)
    rows = json.loads(program.done("category", "list", "--json"))["rows"]
    assert [row["name"] for row in rows] == list("abcde")


def test_rows_that_change_while_they_are_read_are_read_again(program: Program, server: LittleServer) -> None:
    """An export is of one moment; where none can be had, it says so instead."""
    count = iter(range(100))

    def busy(request: Any) -> None:
        if isinstance(request, Fetch):
            server.decide(Put(Category(f"c{next(count)}"), create=True), ALICE)

    server.override = busy
    assert program.run("export").exit_code == ExitCode.UNAVAILABLE
    count = iter([50])

    def once(request: Any) -> None:
        if isinstance(request, Fetch) and request.kind == "service":
            for number in count:
                server.decide(Put(Category(f"d{number}"), create=True), ALICE)

    server.override = once
    assert "[category.d50]" in program.done("export")


def test_logs_are_read_from_the_end_and_from_a_number(uss: Program, server: LittleServer) -> None:
    """--last counts from the end, --after from a number; what was trimmed is said."""
    entries = json.loads(uss.done("log", "updates", "--last", "2", "--json"))["entries"]
    assert [entry["number"] for entry in entries] == [
        server.catalogue.revision - 1,
        server.catalogue.revision,
    ]
    assert "192.0.2.7:2028" in uss.done("log", "updates")
    assert "apply" in uss.done("log", "admin")
    del server.logs["updates"][:3]
    result = uss.run("log", "updates", "--after", "1", "--json")
    assert "begins at number 4" in result.stderr
    assert json.loads(result.stdout)["entries"][0]["number"] == 4
    assert "No entries." in uss.done("log", "security")


def test_long_logs_are_read_to_their_end(uss: Program, server: LittleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """--after reads all pages."""
    monkeypatch.setattr("compass.admin.commands.status.LOG_PAGE", 3)
    entries = json.loads(uss.done("log", "updates", "--after", "0", "--json"))["entries"]
    assert [entry["number"] for entry in entries] == list(range(1, server.catalogue.revision + 1))


def test_a_followed_log_shows_news_across_a_broken_session_until_interrupted(
    uss: Program, server: LittleServer
) -> None:
    """--follow prints what is committed later, also after its session broke; Ctrl-C ends it with status 0."""
    waits = 0

    def stage(request: Any) -> None:
        nonlocal waits
        if isinstance(request, ReadLog) and request.wait_seconds:
            waits += 1
            if waits == 1:
                server.hang_up()
            elif waits == 2:
                server.decide(Put(Category("news"), create=True), ALICE)
            elif waits == 3:
                press_ctrl_c()

    server.override = stage
    result = uss.run("log", "updates", "--last", "1", "--follow", "--json")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["change"]["row"]["row"] for line in lines] == ["listener", "category"]
    assert "reconnecting in" in result.stderr


def test_a_followed_log_ends_when_the_right_is_missing(certificates: Path, uss: Program, server: LittleServer) -> None:
    """A refusal that will not pass ends --follow with its status."""
    server.override = lambda request: (
        None
        if not isinstance(request, ReadLog)
        else Refusal("forbidden", "no")
        if request.wait_seconds
        else LogEntries(())
    )
    assert uss.run("log", "updates", "--follow").exit_code == ExitCode.NOT_ALLOWED


def test_ctrl_c_ends_other_commands_with_130(uss: Program, server: LittleServer) -> None:
    """An interrupted command says by its status that it did not finish."""

    def interrupt(request: Any) -> None:
        if isinstance(request, Status):
            press_ctrl_c()
            threading.Event().wait(0.2)

    server.override = interrupt
    assert uss.run("status").exit_code == ExitCode.INTERRUPTED


def test_a_host_certificate_may_not_administer(uss: Program, server: LittleServer) -> None:
    """The role in the certificate is refused, and the refusal names it and is in the security log."""
    result = uss.run("category", "list", options=uss.of("host", server.port))
    assert result.exit_code == ExitCode.NOT_ALLOWED and "role admin" in result.stderr
    assert "web1.example.net" in uss.done("log", "security")


def test_a_request_larger_than_the_server_takes_is_not_sent(certificates: Path, tmp_path: Path) -> None:
    """The server's limit is known from its welcome, so the session is not lost to it."""
    server = LittleServer(
        certificates / "server.crt",
        certificates / "server.key",
        certificates / "authority.crt",
        frame_max=120,
    )
    try:
        result = Program(certificates, server.port, tmp_path).run("apply", USS, "--yes")
        assert result.exit_code == ExitCode.BAD_INPUT and "accepts 120" in result.stderr
        assert not any(isinstance(request, Apply) for request in server.asked)
    finally:
        server.stop()


def test_terminals_do_not_obey_what_strangers_wrote(uss: Program, server: LittleServer) -> None:
    """Control characters and markup in a row are printed as what they are."""
    server.override = lambda request: Told("[bold]\x1b[2J", 1) if not isinstance(request, Fetch) else None
    shown = uss.done("impact", "openuss")
    assert "[bold]\\u001b[2J" in shown and "\x1b" not in shown


def test_the_hosts_that_may_register_a_service(uss: Program) -> None:
    """Set, shown with the service and with its category, exported, and removed again."""
    shown = json.loads(uss.done("--json", "service", "show", "chinaserver.openuss"))
    assert shown["hosts"] == []
    uss.done("service", "set", "chinaserver.openuss", "--hosts", "WEB2.example.net, web1.example.net")
    shown = json.loads(uss.done("--json", "service", "show", "chinaserver.openuss"))
    assert shown["hosts"] == ["web1.example.net", "web2.example.net"]
    assert "web1.example.net web2.example.net" in uss.done("service", "show", "chinaserver.openuss")
    assert "hosts of chinaserver" in uss.done("category", "show", "openuss")
    assert 'hosts = { chinaserver = ["web1.example.net", "web2.example.net"] }' in uss.done("export")
    uss.done("service", "set", "chinaserver.openuss", "--any-host")
    assert json.loads(uss.done("--json", "service", "show", "chinaserver.openuss"))["hosts"] == []


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        (("members",), "Try: opengnsadmin host list, or opengnsadmin lag"),
        (("server", "list"), "Try: opengnsadmin status"),
        (("resolve", "a.b"), "Try: opengnsc resolve SERVICE"),
        (("nonsense",), "No such command 'nonsense'.\n"),
    ],
)
def test_names_that_people_try(program: Program, typed: tuple[str, ...], advice: str) -> None:
    """The name that other programs have for a command is answered with the name that it has here."""
    result = program.run(*typed)
    assert result.exit_code == 2 and advice in result.stderr


def test_every_hint_names_a_command_that_exists(program: Program) -> None:
    """No hint leads to another 'No such command', and none hides a command."""
    for group, prefix in ((cli, ()), (cli.get_command(click.Context(cli), "server"), ("server",))):
        assert isinstance(group, CheckedGroup)
        for name, hint in group.hints.items():
            assert program.run(*prefix, name, "--help").exit_code == 2, name
            for words in (part.split() for part in hint.split(", or ")):
                if words[0] == "opengnsadmin":
                    known = [word for word in words[1:] if word.islower()]
                    command = known[: 2 if known[0] in ("host", "service", "listener") else 1]
                    assert program.run(*command, "--help").exit_code == 0, hint


def test_the_version_and_the_log_by_its_long_name(uss: Program) -> None:
    """Both are what people type first."""
    first, libraries = uss.done("--version", options=[]).splitlines()
    assert first == f"opengnsadmin {compass.__version__}"
    assert libraries.startswith("with Python 3.") and "Twisted" in libraries and "pyOpenSSL" in libraries
    assert uss.done("log", "administration") == uss.done("log", "admin")


def test_what_is_watched_is_shown_again_and_again(program: Program, server: LittleServer) -> None:
    """--watch: the change between two looks is there, a server that is lost is a note, and Ctrl-C ends it with 130."""
    closed = [f"--server=127.0.0.1:{free_port()}", *program.settings[1:]]
    turns: Iterator[Any] = iter((lambda: program.done("category", "add", "seen"), None))

    class Watched(FakeMachine):
        def sleep(self, seconds: float) -> None:
            assert seconds == 0.5
            turn = next(turns)
            if turn is None:
                raise KeyboardInterrupt
            turn()

    arguments = [*program.settings, "category", "list", "--watch", "--interval", "0.5"]
    result = CliRunner().invoke(cli, arguments, obj=AdminContext(Watched(program.home)))
    assert result.exit_code == 130
    first, second = result.stdout.rstrip().split("\n\n")
    assert "seen" not in first and "seen" in second
    turns = iter((lambda: None, None))
    arguments = [*closed, "category", "list", "--watch", "--interval", "0.5"]
    result = CliRunner().invoke(cli, arguments, obj=AdminContext(Watched(program.home)))
    assert result.exit_code == 130 and result.stdout.strip() == ""
    assert result.stderr.count("opengnsadmin: ") == 2 and "nothing listens there" in result.stderr


@pytest.mark.parametrize("seconds", ["0.1", "3600", "0.09", "3601"])
def test_the_pause_of_watch_has_bounds(program: Program, seconds: str) -> None:
    """WATCH_SECONDS_MIN and WATCH_SECONDS_MAX."""
    result = program.run("category", "list", "--interval", seconds)
    assert result.exit_code == (0 if float(seconds) in (WATCH_SECONDS_MIN, WATCH_SECONDS_MAX) else 2)


def test_what_is_wrong_is_not_repeated(program: Program) -> None:
    """A refusal of the first look ends the command."""
    assert program.run("service", "show", "no.such", "--watch").exit_code == 3


def test_a_server_that_starts_is_waited_for(program: Program, server: LittleServer) -> None:
    """--wait: commands that follow the start of a server in a script; without it they fail at once."""
    closed = [f"--server=127.0.0.1:{free_port()}", *program.settings[1:]]
    assert program.run("status", options=closed).exit_code == ExitCode.UNAVAILABLE
    began = time.monotonic()
    waited = program.run("--wait", "0.5", "status", options=closed)
    assert waited.exit_code == ExitCode.UNAVAILABLE and 0.5 <= time.monotonic() - began < 20
    # The second of two servers answers, and no time is waited for the first one.
    assert program.done("--wait", "3600", "category", "list") == "No category found.\n"


def test_explain_says_why_a_listener_is_returned_or_not(uss: Program) -> None:
    """The command explains rows of the server; unknown hosts and names are refused with the next step."""
    assert "192.0.2.7:2028: returned. It is up." in uss.done("explain", "chinaserver.openuss")
    uss.done("listener", "remove", "chinaserver.openuss", "192.0.2.7:2028")
    shown = json.loads(uss.done("explain", "chinaserver.openuss", "--json"))
    assert shown["source"] == "none"
    assert [(row["state"], row["returned"]) for row in shown["listeners"]] == [("offline", False)]
    for arguments in (("nothing.openuss",), ("openuss", "--host", "absent.example.net")):
        refused = uss.run("explain", *arguments)
        assert refused.exit_code == ExitCode.NOT_FOUND, refused.output
