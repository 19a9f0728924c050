"""`opengnsc template`: what comes with compass, and what it gives with what a daemon knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compass.model.exit_codes import ExitCode
from compass.model.host_api import HostStatus
from compass.templates import ready_names
from tests.cli.test_main import VIEW, opengnsc, said
from tests.support.fake_api import LittleApi


@pytest.fixture
def daemon(api: LittleApi) -> LittleApi:
    """A daemon that knows what frontpage.web depends on: openuss with one usable listener of two, and openuso."""
    api.answers["/v1/status"] = said(HostStatus("h1", "open", "gns1", "s", 12, True, ("frontpage.web",), 2, ()))
    api.answers["/v1/dependencies/frontpage.web"] = said(VIEW)
    return api


def test_templates_are_listed_and_shown(api: LittleApi) -> None:
    """Each with what it is for, and as text to begin one's own with."""
    listed = opengnsc(api, "template", "list").output.splitlines()
    assert [line.split()[0] for line in listed] == ready_names()
    assert listed[ready_names().index("haproxy")].endswith("whose servers are the listeners to use now")
    assert set(json.loads(opengnsc(api, "template", "list", "--json").output)) == set(ready_names())
    assert "virtual_server" in opengnsc(api, "template", "show", "keepalived").output
    wrong = opengnsc(api, "template", "show", "apache")
    assert (wrong.exit_code, "available: env, haproxy," in wrong.output) == (ExitCode.NOT_FOUND, True)


def test_a_template_is_tried_with_what_the_daemon_knows(daemon: LittleApi, tmp_path: Path) -> None:
    """The same pools as the daemon would give it, values of one's own, nothing written."""
    tried = opengnsc(
        daemon, "template", "try", "haproxy", "--on", "openuss", "--value", "bind_chinaserver.openuss=127.0.0.1:81"
    )
    assert tried.exit_code == 0, tried.output
    assert "    bind 127.0.0.1:81\n" in tried.output
    assert "server chinaserver.openuss-127.0.0.1-2028 127.0.0.1:2028 weight 1" in tried.output
    assert "2001:db8" not in tried.output
    (tmp_path / "my.j2").write_text("{{ host }} {{ revision }} {{ pools | join(',') }}: {{ pool.source }}\n")
    every = opengnsc(daemon, "template", "try", str(tmp_path / "my.j2"))
    assert every.output == "h1 12 openuso,openuss: none\n"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["apache"], ExitCode.NOT_FOUND, "unknown template 'apache'; available: env, "),
        (["./no.j2"], ExitCode.FAILED, "file not found: ./no.j2"),
        (["env", "--on", "no.openuss"], ExitCode.NOT_FOUND, "there is no service 'no.openuss'"),
        (["env", "--on", "other"], ExitCode.NOT_FOUND, "no service of this host depends on category other"),
        (["env", "--value", "bind"], ExitCode.USAGE, "must be KEY=VALUE"),
        (["env", "--on", "-"], ExitCode.USAGE, "Invalid value for '--on'"),
    ],
)
def test_a_template_that_cannot_be_tried_is_an_error(
    daemon: LittleApi, arguments: list[str], status: ExitCode, told: str
) -> None:
    """Each with its exit status."""
    result = opengnsc(daemon, "template", "try", *arguments)
    assert (result.exit_code, told in result.output) == (status, True), result.output


def test_a_template_with_an_error_names_its_line(daemon: LittleApi, tmp_path: Path) -> None:
    """And so does the command, in text and in JSON."""
    (tmp_path / "my.j2").write_text("one\n{{ pool.sauce }}\n")
    result = opengnsc(daemon, "template", "try", str(tmp_path / "my.j2"), "--json")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert json.loads(result.stderr)["message"].endswith("my.j2:2: 'dict object' has no attribute 'sauce'")


def test_a_host_without_services_has_nothing_to_fill_a_template_with(api: LittleApi) -> None:
    """The error says what to do."""
    api.answers["/v1/status"] = said(HostStatus("h1", "open", "gns1", "s", 12, True, (), 0, ()))
    result = opengnsc(api, "template", "try", "env")
    assert result.exit_code == ExitCode.NOT_FOUND
    assert "[host] services" in result.output
