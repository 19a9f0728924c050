"""[[server.alert]]: every mistake is reported, with what would be right."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from compass.daemons.alerts.channels import COMMAND_PER_MINUTE, alert_channels
from compass.daemons.alerts.command import ALERT_COMMAND_SECONDS
from compass.daemons.alerts.webhook import ID_HEADER, SIGNATURE_HEADER, TIME_HEADER, signature_of
from compass.daemons.config.alerts import (
    ADDRESS_MAX,
    ALERTS_MAX,
    RECIPIENTS_MAX,
    AlertSettings,
    ChannelKind,
)
from compass.daemons.config.fields import described
from compass.daemons.config.file import ConfigProblem
from compass.daemons.config.reader import read_server_config
from compass.daemons.config.secrets import SECRET_OCTETS_MAX, SECRET_OCTETS_MIN
from compass.daemons.config.settings import ServerConfig, example
from compass.model.cluster import SILENT_BEATS
from compass.model.limits import ALERT_TEST_SECONDS
from compass.model.rows import Alert
from compass.server.alerts.notifier import ATTEMPT_SECONDS, TAKE_OVER_SECONDS
from compass.server.alerts.outbox import (
    DIGEST_NEWS_MAX,
    PAUSE_SECONDS_MAX,
    PAUSE_SECONDS_MIN,
    PENDING_MAX,
    PER_MINUTE,
    PER_MINUTE_MAX,
    IncidentUpdate,
    Message,
)
from compass.server.alerts.render import render_json

PAGE = (Path(__file__).parents[3] / "docs/reference/alerts.md").read_text()

START = '[server]\nstore = "sqlite:///gns.sqlite3"\n[tls]\ncertificate = "a.crt"\nkey = "a.key"\nauthority = "ca.crt"\n'
MAIL = 'way = "mail"\nto = ["ops@example.org"]\nsender = "gns@example.org"\n'
HOOK = 'way = "webhook"\nurl = "https://pager.example.org/x"\nsecret_file = "s"\n'
COMMAND = 'way = "command"\ncommand = ["true"]\n'


def read(directory: Path, *sections: str) -> ServerConfig:
    (directory / "s").write_bytes(b"x" * SECRET_OCTETS_MIN)
    (directory / "d.toml").write_text(START + "".join(f"[[server.alert]]\n{one}" for one in sections))
    return read_server_config(directory / "d.toml")


def problem(directory: Path, *sections: str) -> str:
    with pytest.raises(ConfigProblem) as told:
        read(directory, *sections)
    assert len(told.value.problems) == 1, told.value.problems
    return told.value.problems[0]


def test_the_ways_are_made_of_the_sections_in_their_order(tmp_path: Path) -> None:
    """Each recipient of mail is a channel; paths are relative to the file; `alert_command` still works."""
    mail = MAIL.replace("]", ', "night@example.org", "ops@example.org"]') + 'kinds = ["failure"]\nper_minute = 3\n'
    config = read(tmp_path, mail, HOOK + 'name = "pager"\n', 'way = "syslog"\n', COMMAND)
    assert config.alerts[1] == AlertSettings(
        "webhook", "pager", url="https://pager.example.org/x", secret_file=str(tmp_path / "s")
    )
    ways = alert_channels(None, ("true",), config.alerts, "gns1")
    assert [(way.name, way.kind) for way in ways] == [
        ("alert_command", "command"),
        ("mail to ops@example.org", "mail"),
        ("mail to night@example.org", "mail"),
        ("pager", "webhook"),
        ("syslog", "syslog"),
        ("command", "command"),
    ]
    assert [ways[0].per_minute, ways[1].per_minute, ways[1].kinds] == [COMMAND_PER_MINUTE, 3, ("failure",)]


def test_the_printed_example_is_a_section_when_its_comment_is_taken_away(tmp_path: Path) -> None:
    """Each key is described."""
    text = example(ServerConfig)
    section = "\n".join(line.removeprefix("# ") for line in text[text.rindex("# [[server.alert]]") :].splitlines())
    section = section.replace("#   #", "  #")
    assert all(f" {key.name} = " in section for key in described(AlertSettings))
    (tmp_path / "d.toml").write_text(START + section)
    assert read_server_config(tmp_path / "d.toml").alerts == (AlertSettings("syslog"),)


def test_the_sections_of_the_documentation_are_good(tmp_path: Path) -> None:
    """The examples of docs/reference/alerts.md are valid, except for programs and secrets that are missing here."""
    [toml] = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    for name in ("mail.password", "pager.secret"):
        (tmp_path / name).write_bytes(b"x" * SECRET_OCTETS_MIN)
    (tmp_path / "d.toml").write_text(START + toml.replace("/usr/local/bin/page", "true"))
    assert [one.way for one in read_server_config(tmp_path / "d.toml").alerts] == list(get_args(ChannelKind))


def test_the_message_of_the_documentation_is_what_arrives() -> None:
    """The message is the same octet for octet, and so is its signature."""
    body = re.findall(r"```json\n(.*?)\n```", PAGE, re.S)[0].encode()
    fields: dict[str, Any] = json.loads(body)
    opened_at = fields["opened_at"]
    news = IncidentUpdate(
        "opened", Alert(fields["id"], fields["kind"], opened_at, fields["text"]), fields["revision"], opened_at
    )
    message = Message(fields["message"], "opened", opened_at, (news,), {"opened": 1})
    assert msgspec.json.encode(render_json(message, fields["server"])) == body
    headers = dict(re.findall(r"^    (Co[-A-Za-z]+): (.*)$", PAGE, re.M))
    assert headers["Content-Length"] == str(len(body)) and headers[ID_HEADER] == message.id
    [secret] = re.findall(r"with the secret `(.*?)`", PAGE)
    signature = signature_of(secret.encode(), message.id, headers[TIME_HEADER], body)
    assert headers[SIGNATURE_HEADER] == signature


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_the_shell_of_the_documentation_finds_the_same_signature(tmp_path: Path) -> None:
    """The shell script works with a secret file as an editor writes it, and the body as received."""
    (tmp_path / "body").write_text(re.findall(r"```json\n(.*?)\n```", PAGE, re.S)[0])
    (tmp_path / "pager.secret").write_text(re.findall(r"with the secret `(.*?)`", PAGE)[0] + "\n")
    [session] = [text for text in re.findall(r"```console\n(.*?)```", PAGE, re.S) if "openssl" in text]
    typed = [line.removeprefix("$ ") for line in session.splitlines() if line.startswith("$ ")]
    found = subprocess.run(["sh", "-c", "\n".join(typed)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split()[0] == session.splitlines()[-1].split()[0]


def test_the_limits_in_the_documentation_are_those_of_the_code() -> None:
    """Each constant in the page exists, with the same number."""
    said = {
        "ALERTS_MAX": f"{ALERTS_MAX} sections",
        "RECIPIENTS_MAX": f"{RECIPIENTS_MAX} recipients",
        "ALERT_COMMAND_SECONDS": f"{ALERT_COMMAND_SECONDS:g} s",
        "DIGEST_NEWS_MAX": f"the first {DIGEST_NEWS_MAX} (",
        "PER_MINUTE": f"`PER_MINUTE`, {PER_MINUTE};",
        "PER_MINUTE_MAX": f"`PER_MINUTE_MAX`, {PER_MINUTE_MAX})",
        "PENDING_MAX": f"{PENDING_MAX:,} incidents",
        "PAUSE_SECONDS_MIN": f"{PAUSE_SECONDS_MIN:g} s (",
        "PAUSE_SECONDS_MAX": f"{PAUSE_SECONDS_MAX / 60:g} minutes",
        "ATTEMPT_SECONDS": f"{ATTEMPT_SECONDS:g} s",
        "ALERT_TEST_SECONDS": f"{ALERT_TEST_SECONDS:g} s",
        "SILENT_BEATS": "five beats" if SILENT_BEATS == 5 else "?",
        "TAKE_OVER_SECONDS": "waits three" if TAKE_OVER_SECONDS == 3 else "?",
    }
    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*_(?:MAX|MIN|SECONDS|BEATS|MINUTE))`", PAGE)) == set(said)
    assert [name for name, text in said.items() if text not in PAGE] == []


def test_the_documentation_s_check_of_a_signature_is_right() -> None:
    """The documented check accepts a webhook's signature, and nothing else."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names: dict[str, Any] = {"Mapping": Mapping, "hmac": hmac, "hashlib": hashlib, "time": time}
    exec(code, names)
    now, body = str(int(time.time())), b'{"event":"test"}'
    signature = signature_of(b"secret", "4711", now, body)
    headers = {ID_HEADER: "4711", TIME_HEADER: now, SIGNATURE_HEADER: signature}
    assert names["is_genuine"](b"secret", headers, body)
    assert not names["is_genuine"](b"secret", headers, body + b" ")
    old = str(int(time.time()) - 301)
    late = {**headers, TIME_HEADER: old, SIGNATURE_HEADER: signature_of(b"secret", "4711", old, body)}
    assert not names["is_genuine"](b"secret", late, body)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("", "[server.alert] needs way: Kind of the channel"),
        ('way = "pigeon"\n', "[server.alert] way: 'pigeon' is not one of mail, webhook, syslog, command"),
        ('way = "mail"\nsender = "a@b"\n', "[[server.alert]] mail needs to: Mail: the recipients."),
        (MAIL + 'url = "https://x.example"\n', "[[server.alert]] mail: url has no effect here; it is a key of webhook"),
        (MAIL.replace("ops@example.org", "ops"), "[[server.alert]] mail: 'ops' is not a mail address"),
        (MAIL.replace("ops@", "a RCPT TO:<x@"), "is not a mail address"),
        (MAIL.replace("ops@", "x" * (ADDRESS_MAX - 11) + "@"), "is not a mail address"),
        (
            MAIL + 'relay = "mx.example.org:25"\n',
            "mx.example.org is not this machine, and unencrypted messages must not",
        ),
        (MAIL + 'relay = "localhost"\n', "[[server.alert]] mail relay: 'localhost' is not of the form name:port"),
        (MAIL + 'user = "gns"\n', "[[server.alert]] mail: user and password_file are needed together"),
        (MAIL + 'user = "u"\npassword_file = "p"\n', "/p cannot be read: No such file or directory"),
        (MAIL + 'authority = "none.pem"\n', "/none.pem cannot be read: No such file or directory"),
        (MAIL + 'authority = "d.toml"\n', "/d.toml holds no certificate in PEM form"),
        (MAIL + 'name = "on call"\n', "name has a space or a character that cannot be printed; use one word"),
        (MAIL + "per_minute = 0\n", "[server.alert] per_minute: "),
        (MAIL + f"per_minute = {PER_MINUTE_MAX + 1}\n", "[server.alert] per_minute: "),
        (MAIL + 'kinds = ["up"]\n', "[server.alert] kinds: "),
        (
            HOOK.replace("https", "http"),
            "pager.example.org is not this machine, and unencrypted",
        ),
        (HOOK.replace("https", "ftp"), "url is not of the form https://name/path"),
        (HOOK.replace("//pager", "//me:secret@pager"), "url holds a password; sign with secret_file instead"),
        (HOOK.replace('secret_file = "s"\n', ""), "[[server.alert]] webhook needs secret_file: "),
        (HOOK.replace('"s"', '"short"'), f"/short has 3 octets; at least {SECRET_OCTETS_MIN} are needed: openssl rand"),
        (HOOK.replace('"s"', '"long"'), f"/long has more than {SECRET_OCTETS_MAX} octets"),
        ('way = "syslog"\ntarget = "/dev/log"\n', "target must be unix:PATH, or udp:, tcp: or tls: with NAME:PORT"),
        ('way = "syslog"\ntarget = "udp:192.0.2.1:514"\n', "192.0.2.1 is not this machine"),
        ('way = "syslog"\ntarget = "udp:localhost:514"\n', "udp needs an address"),
        ('way = "syslog"\nfacility = "kern"\n', "facility must be one of user, daemon, local0"),
        ('way = "command"\n', "[[server.alert]] command needs command: "),
        ('way = "command"\ncommand = ["/no/such"]\n', "there is no program '/no/such'"),
    ],
)
def test_a_mistake_is_told_by_its_key(tmp_path: Path, section: str, told: str) -> None:
    """The message also names the channel of a misplaced key, and refuses unencrypted traffic off the machine (P11)."""
    (tmp_path / "short").write_bytes(b" abc\n")
    (tmp_path / "long").write_bytes(b"x" * (SECRET_OCTETS_MAX + 1))
    found = problem(tmp_path, section)
    assert told in found
    assert "abc" not in found and "secret@" not in found


def test_two_ways_need_two_names(tmp_path: Path) -> None:
    """The state of a channel is stored under its name."""
    assert "2 channels have the name 'webhook'; names must differ" in problem(tmp_path, HOOK, HOOK)
    read(tmp_path, HOOK, HOOK + 'name = "b"\n')


@pytest.mark.parametrize(("count", "good"), [(ALERTS_MAX, True), (ALERTS_MAX + 1, False)])
def test_so_many_sections(tmp_path: Path, count: int, good: bool) -> None:
    """The greatest number is accepted, one more is not."""
    sections: Any = [f'{COMMAND}name = "c{number}"\n' for number in range(count)]
    if good:
        assert len(read(tmp_path, *sections).alerts) == count
    else:
        assert f"{count} sections [[server.alert]]; at most {ALERTS_MAX}" in problem(tmp_path, *sections)


@pytest.mark.parametrize(("count", "good"), [(RECIPIENTS_MAX, True), (RECIPIENTS_MAX + 1, False)])
def test_so_many_recipients(tmp_path: Path, count: int, good: bool) -> None:
    """The greatest number is accepted, one more is not."""
    names = ", ".join(f'"a{number}@example.org"' for number in range(count))
    section = MAIL.replace('"ops@example.org"', names)
    if good:
        assert len(read(tmp_path, section).alerts[0].to) == count
    else:
        assert f"{count} recipients; at most {RECIPIENTS_MAX}" in problem(tmp_path, section)


@pytest.mark.parametrize("octets", [SECRET_OCTETS_MIN, SECRET_OCTETS_MAX])
def test_a_secret_of_that_length_is_one(tmp_path: Path, octets: int) -> None:
    """The shortest and the longest secret are accepted."""
    read(tmp_path)
    (tmp_path / "t").write_bytes(b"x" * octets)
    assert read(tmp_path, HOOK.replace('"s"', '"t"')).alerts[0].secret_file == str(tmp_path / "t")
