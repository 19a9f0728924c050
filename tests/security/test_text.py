"""Text of others: one rule on every way in, one function on every way out."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass.cli.output import lines_of_outcome, lines_of_resolved
from compass.daemons.config.file import ConfigProblem
from compass.daemons.config.reader import read_host_config
from compass.daemons.process.logging import json_line, text_line
from compass.gateway.http.request_input import check_once
from compass.model.host_api import LocalRegister, LocalReport, Outcome, Resolved
from compass.model.requests import Findings, Register, Report, TryWays
from compass.model.rows import Alert, Listener
from compass.model.rules.draft import text_problem
from compass.model.text import UNPRINTABLE, escape, is_printable_line
from compass.server.alerts.outbox import IncidentUpdate, Message
from compass.server.alerts.render import render_json, render_text
from compass.system.systemd import SdNotify
from tests.e2e.processes import environment, python
from tests.support.fake_api import CREDENTIAL, refusal, serving
from tests.support.fake_host_api import Api
from tests.support.reactor_thread import ReactorThread

HOSTILE = {
    "line end": "all is well\nrevision 9: down",
    "carriage return": "a\rb",
    "NUL": "a\0b",
    "escape sequence": "\x1b[2J",
    "C1 sequence": "\x9b2J",
    "bidirectional override": "\u202eelif",
    "bidirectional isolate": "\u2066a",
    "zero width": "ad\u200bmin",
    "byte order mark": "\ufeffa",
    "soft hyphen": "a\u00adb",
    "line separator": "a\u2028b",
    "next line": "a\x85b",
    "variation selector": "a\ufe0f",
    "tag": "a\U000e0041",
    "noncharacter": "a\uffff",
    "lone surrogate": "a\udc80",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_rule_refuses_what_forges_or_hides(text: str) -> None:
    """Every text of a request is checked, at any depth; a credential is compared and never shown."""
    assert not is_printable_line(text) and is_printable_line(escape(text))
    for request in (
        Report("a.b", "10.0.0.1", 80, detail=text),
        Findings(1, True, text),
        TryWays(text),
        LocalReport("a.b", "10.0.0.1", 80, detail=text),
        LocalRegister("a.b", 80, "t", metadata={"k": text}),
        Register("a.b", "t", "10.0.0.1", 80, 1, metadata={text: "v"}),
    ):
        problem = text_problem(request)
        assert "cannot be printed" in problem and is_printable_line(problem)
    assert not text_problem(Register("a.b", text, "10.0.0.1", 80, 1))


@pytest.mark.parametrize("text", ["", "größer", "服务 一", "\u00a0", "🙂", "قال \u0600", "a\u0301", "\ue000"])
def test_the_rule_accepts_what_people_write(text: str) -> None:
    """Letters of any script, marks, blanks and pictures."""
    assert is_printable_line(text) and escape(text) == text
    assert not text_problem(Report("a.b", "10.0.0.1", 80, detail=text))


def test_the_rule_is_the_same_on_every_version_of_python() -> None:
    """Each range is ordered and disjoint, and its neighbours are accepted."""
    edges = [edge for pair in UNPRINTABLE for edge in pair]
    assert edges == sorted(edges) and edges[-1] == sys.maxunicode
    for first, last in UNPRINTABLE:
        assert not is_printable_line(chr(first)) and not is_printable_line(chr(last))
        assert last == sys.maxunicode or is_printable_line(chr(last + 1))


# What arrives.


@pytest.fixture
def api(tmp_path: Path) -> Any:
    thread = ReactorThread()
    served = Api(thread, tmp_path / "api.sock")
    yield served
    for port in served.listening:
        thread.call(port.stopListening)
    thread.stop()


def post(api: Api, body: bytes) -> tuple[int, Any]:
    return api.ask("POST", "/v1/register", body, Content_Type="application/json")


@pytest.mark.parametrize(
    "body",
    [
        b'{"service": "a.b", "port": 80, "credential": "t", "port": 81}',
        b'{"service": "a.b", "port": 80, "credential": "t", "p\\u006frt": 81}',
        b'{"service": "a.b", "port": 80, "credential": "t", "metadata": {"zone": "a", "zone": "b"}}',
        b'{"service": "a.b", "port": 80, "credential": "\\u003a", "credential": ":"}',
    ],
)
def test_a_field_given_twice_is_refused(api: Api, body: bytes) -> None:
    """At any depth and in any spelling; the daemon is not called. A proxy in front may have read the other one."""
    status, answer = post(api, body)
    assert (status, answer["code"]) == (400, "malformed") and "twice" in answer["message"]
    assert api.daemon.asked == []


def test_colons_in_texts_are_not_fields(api: Api) -> None:
    """A body with each field once is accepted, whatever its texts are."""
    api.daemon.answer = Outcome("up", "a.b", "10.0.0.1", 80, 5, 7)
    metadata = {'"a":': ":\\:", "\\": '\\":', "u": "\\u003a"}
    body = json.dumps({"service": "a.b", "port": 80, "credential": "t:", "metadata": metadata})
    assert post(api, body.encode())[0] == 200
    assert api.daemon.asked[0][0].metadata == metadata


class Pairs(list[tuple[str, Any]]):
    """Fields of an object, which may be given twice."""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(':"\\u03aA{}', max_size=6),
    lambda part: (
        st.lists(part, max_size=3) | st.lists(st.tuples(st.text(':"\\ab', max_size=2), part), max_size=3).map(Pairs)
    ),
    max_leaves=12,
)


def written(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{written(part)}" for name, part in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def has_duplicate(value: Any) -> bool:
    parts = [part for _, part in value] if isinstance(value, Pairs) else value if isinstance(value, list) else []
    names = [name for name, _ in value] if isinstance(value, Pairs) else []
    return len(set(names)) < len(names) or any(map(has_duplicate, parts))


@given(JSON, st.booleans())
def test_duplicates_are_found_in_any_json(value: Any, escaped: bool) -> None:
    """The count of colons finds what a comparison of each pair finds."""
    text = written(value).encode()
    text = text.replace(b":a", b":\\u0061").replace(b"\\\\", b"\\u005c") if escaped else text
    if has_duplicate(value):
        with pytest.raises(msgspec.ValidationError, match="twice"):
            check_once(text)
    else:
        check_once(text)


@pytest.mark.parametrize("text", [HOSTILE["line end"], HOSTILE["bidirectional override"], HOSTILE["NUL"]])
def test_unprintable_text_is_refused_at_the_host_api(api: Api, text: str) -> None:
    """Before the daemon is called: it would be pending until a server refuses it."""
    body = {"service": "a.b", "port": 80, "credential": "t", "metadata": {"zone": text}}
    status, answer = post(api, json.dumps(body).encode())
    assert (status, answer["code"]) == (400, "bad-value") and "metadata 'zone'" in answer["message"]
    assert api.daemon.asked == []


def test_unprintable_text_in_a_configuration_is_named(tmp_path: Path) -> None:
    """The text would stand in logs, tables and certificates' names; arguments of programs may have it."""
    (tmp_path / "d.toml").write_text(
        '[host]\nname = "x\\u202e"\nservers = ["gns1"]\nstate_directory = "/tmp/a\\u001b"\n'
        '[[host.hook]]\non = ["openuss"]\nname = "h\\u200b"\ncommand = ["sh", "-c", "true\\ntrue"]\n'
        '[tls]\ncertificate = "c"\nkey = "k"\nauthority = "a"\n'
    )
    with pytest.raises(ConfigProblem) as found:
        read_host_config(tmp_path / "d.toml")
    said = "\n".join(found.value.problems)
    assert "state_directory: contains the character U+001B" in said
    assert "[host.hook] name: contains the character U+200B" in said
    assert "command" not in said and all(is_printable_line(line) for line in str(found.value).split("\n"))


# What is shown.


def test_a_quoted_line_end_is_no_new_line_of_the_log() -> None:
    """Neither as text nor as JSON; a traceback follows on lines of its own, indented."""
    for text in HOSTILE.values():
        event = {"log_format": "it said {said}", "said": text, "log_time": 0.0, "log_namespace": "n"}
        line, entry = text_line(event), json_line(event)
        assert line is not None and is_printable_line(line.removesuffix("\n"))
        assert entry is not None and is_printable_line(entry.removesuffix("\n"))


def test_alerts_are_plain_text() -> None:
    """Rows of an older server are escaped in mails, and in what webhooks and commands get."""
    for text in HOSTILE.values():
        alert = Alert(f"failure {text}", "failure", 1.0, f"it said {text}")
        message = Message("1", "opened", 1.0, (IncidentUpdate("opened", alert, 1, 1.0),), {"opened": 1})
        assert all(is_printable_line(line) for line in render_text(message, "gns1", str).split("\n"))
        fields = render_json(message, "gns1")
        assert is_printable_line(fields["id"]) and is_printable_line(fields["text"])


def test_a_daemons_answer_is_shown_in_one_line() -> None:
    """Also if another program has the daemon's port."""
    for text in HOSTILE.values():
        for line in (
            *lines_of_outcome(Outcome(text, text, text, 1)),  # type: ignore[arg-type]
            *lines_of_resolved(Resolved("a", 1, "service", (Listener("a.b", text, 1, "up", 1.0, 1),))),
        ):
            assert is_printable_line(line)


def test_a_status_cannot_forge_a_notification(tmp_path: Path) -> None:
    """A line end would begin another variable of sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        SdNotify({"NOTIFY_SOCKET": str(tmp_path / "notify")}).status("x\nREADY=1")
        assert manager.recv(100) == b"STATUS=x\\u000aREADY=1"


LOCALES = {
    "C": {"LC_ALL": "C"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1"},
    "UTF-8": {"PYTHONIOENCODING": "utf-8"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_every_locale_shows_every_text(tmp_path: Path, locale: str) -> None:
    """An answer with Chinese: no traceback, and no octet that the locale lacks."""
    with serving(tmp_path / "api.sock") as served:
        served.answers["/v1/report"] = refusal("bad-value", 400, message="服务 \u202e\x1b[2J\nforged")
        run = subprocess.run(
            [*python("compass.cli.main:main"), "report", "a.b", "10.0.0.1:80", "--detail", "slow"],
            env=environment() | {"OPENGNS_API": served.place, "OPENGNS_CREDENTIAL": CREDENTIAL} | LOCALES[locale],
            capture_output=True,
            timeout=60,
            check=False,
        )
    said = run.stderr.decode("latin-1" if locale == "Latin-1" else "ascii" if locale == "ASCII" else "utf-8")
    assert "Traceback" not in said and said.count("\n") == 1 and "\x1b" not in said, said
    assert ("服务" if locale in ("C", "UTF-8") else "\\u670d") in said


@pytest.mark.parametrize(
    ("entry", "arguments"),
    [
        ("compass.cli.main:main", ["report", "a.b", "10.0.0.1:80", "--detail", b"\xff\x1b[2J"]),
        ("compass.cli.main:main", ["query", b"a\xff\n\x1b[2J"]),
        ("compass.cli.main:main", [b"qu\x1b[2Jery"]),
        ("compass.cli.main:main", ["register", "a.b", "1", "--credential", b"\xff\x9b"]),
        ("compass.cli.main:main", ["status", b"--\x1b[2J"]),
        ("compass.admin.main:main", ["listener", b"li\x1b[2Jst"]),
        ("compass.admin.main:main", ["--server", b"gns\xff\x1b[2J", "status"]),
        ("compass.admin.main:main", ["tls", "admin", b"al\xffice\x1b[2J"]),
        ("compass.daemons.main:server", ["--check", "--config", b"/nowhere/\xff\x1b[2J\nx"]),
        ("compass.daemons.main:host", [b"--\x1b[2J"]),
    ],
)
def test_an_argument_of_any_octets_is_answered_in_plain_lines(entry: str, arguments: list[Any], tmp_path: Path) -> None:
    """A script inserts what others wrote; the program must neither fail inside nor pass it to the terminal."""
    command = [*python(entry), *arguments]
    run = subprocess.run(
        command, env=environment() | {"HOME": str(tmp_path)}, capture_output=True, timeout=60, check=False
    )
    said = run.stderr.decode() + run.stdout.decode()
    assert run.returncode != 0 and "Traceback" not in said, said
    assert all(is_printable_line(line) for line in said.split("\n")), said
