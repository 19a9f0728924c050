"""Alerts of a real opengnssd at a real SMTP server and a real HTTP server, also when these were down at first."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from compass.model.replies import Rows, ServerStatus, WayList, WayStatus
from compass.model.requests import Fetch, Status, Ways
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import WORLD, Deployment, Host, free_port, new_address
from tests.e2e.processes import eventually
from tests.e2e.sinks import SECRET, HttpSink, LogSink, MailSink, is_genuine

SECTIONS = """
[[server.alert]]
way = "mail"
to = ["ops@example.org", "night@example.org"]
sender = "opengns@example.org"
relay = "{address}:{mail}"

[[server.alert]]
way = "webhook"
name = "pager"
url = "http://{address}:{hook}/hooks/T0K3N"
secret_file = "{secret}"

[[server.alert]]
way = "syslog"
target = "unix:{log}"

[[server.alert]]
way = "command"
command = ["/bin/sh", "-c", "cat >> {told}; echo >> {told}"]
"""


class Post:
    """Receivers of the alerts of a deployment; a test opens the sinks that it needs."""

    def __init__(self, directory: Path) -> None:
        self.address = new_address()
        self.mail_port, self.hook_port = free_port(self.address), free_port(self.address)
        self.secret = directory / "pager.secret"
        self.secret.write_bytes(SECRET + b"\n")
        self.secret.chmod(0o600)
        self.told = directory / "told"
        self.log_path = str(directory / "log.sock")
        self.stack = ExitStack()

    @property
    def sections(self) -> str:
        places = {"mail": self.mail_port, "hook": self.hook_port, "log": self.log_path, "told": self.told}
        return SECTIONS.format(address=self.address, secret=self.secret, **places)

    def mail(self, *answers: str) -> MailSink:
        sink = MailSink(self.address, self.mail_port, *answers)
        self.stack.callback(sink.close)
        return sink

    def hook(self, *answers: int) -> HttpSink:
        sink = HttpSink(self.address, self.hook_port, *answers)
        self.stack.callback(sink.close)
        return sink

    def log(self) -> LogSink:
        sink = LogSink(self.log_path)
        self.stack.callback(sink.close)
        return sink


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    post = Post(tmp_path)
    with post.stack:
        yield post


@pytest.fixture
def deployed(deploy: Deploy, post: Post) -> Deployment:
    """A server with all four ways, and a host."""
    deployment = deploy(settings=post.sections)
    deployment.start()
    web, _ = deployment.add_hosts("web", "storage")
    web.api.dependencies("portal.web")
    deployment.apply(WORLD.replace("[category.openuso]", "[category.openuso]\ncap = 1.0"))
    return deployment


class Listening:
    """A service that dies and comes back."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._host: Host = deployment.hosts["storage"]
        self.port = free_port(self._host.address)
        deployment.register(self._host, "account.openuso", self.port)

    @property
    def id(self) -> str:
        return f"failure account.openuso {self._host.address}:{self.port}"

    def dies(self) -> None:
        outcome = self._deployment.register(self._host, "account.openuso", self.port)
        self._deployment.report(self._deployment.hosts["web"], outcome)
        eventually(lambda: self._alerts() == [self.id], "the incident is open")

    def returns(self) -> None:
        with socket.create_server((self._host.address, self.port)):
            self._deployment.register(self._host, "account.openuso", self.port)
            eventually(lambda: self._alerts() == [], "the incident is over")

    def _alerts(self) -> list[str]:
        rows: Any = self._deployment.ask(Fetch("alert"), Rows).rows
        return [row.id for row in rows]


def ways(deployment: Deployment) -> dict[str, WayStatus]:
    """Return the states of the channels by name."""
    return {way.name: way for way in deployment.ask(Ways(), WayList).ways}


def test_each_way_tells_an_incident_once_when_it_begins_and_once_when_it_is_over(
    deployed: Deployment, post: Post
) -> None:
    """Seen when: "A real SMTP sink and a real HTTP sink receive one alert per incident and one resolved notice".

    Mail to each recipient, a signed webhook, syslog and a command: one opened, one resolved, nothing else.
    """
    mail, hook, log = post.mail(), post.hook(), post.log()
    listening = Listening(deployed)
    listening.dies()
    eventually(lambda: len(mail.mails) == 2 and len(hook.taken) == 1 and post.told.exists(), "it is sent")
    listening.returns()
    eventually(lambda: len(mail.mails) >= 4 and len(hook.taken) >= 2, "the end is sent")
    eventually(lambda: post.told.read_text().count("\n") >= 2, "the command has run twice")
    eventually(lambda: not any(way.pending for way in ways(deployed).values()), "nothing is pending")
    assert [item["event"] for item in hook.taken] == ["opened", "resolved"]
    assert [item["id"] for item in hook.taken] == [listening.id] * 2
    assert all(map(is_genuine, [SECRET] * 2, hook.headers, hook.bodies))
    lines = [json.loads(line) for line in post.told.read_text().splitlines()]
    assert [line["message"] for line in lines] == [item["message"] for item in hook.taken]
    assert [line.split()[5].decode() for line in (log.line(), log.line())] == ["opened", "resolved"]
    assert sorted(mail.recipients) == ["night@example.org"] * 2 + ["ops@example.org"] * 2
    begun, over = [one for one in mail.mails if one["To"] == "ops@example.org"]
    assert [one["Subject"].split()[:2] for one in (begun, over)] == [
        ["[gns1.example.net]", "ALERT:"],
        ["[gns1.example.net]", "over:"],
    ]
    assert over["In-Reply-To"] == begun["Message-ID"] and listening.id in begun.get_content()
    assert "T0K3N" not in deployed.server.shown_log() and SECRET.decode() not in deployed.server.shown_log()


def test_sinks_that_were_down_at_first_get_everything_once(deployed: Deployment, post: Post) -> None:
    """Seen when: "…, also when they were down at first".

    Exactly one message for what had passed when they came up; for what was still open, one then and one at its end.
    """
    passed, still = Listening(deployed), Listening(deployed)
    passed.dies()
    passed.returns()
    still.dies()

    eventually(lambda: ways(deployed)["pager"].problem, "an attempt has failed")
    there = ways(deployed)
    assert there["pager"].problem.startswith(f"{post.address}:{post.hook_port} cannot be reached")
    assert there["pager"].pending == 2 and there["mail to ops@example.org"].pending == 2
    mail, hook = post.mail(), post.hook()
    eventually(lambda: len(hook.taken) >= 2 and len(mail.mails) >= 4, "both are sent")
    still.returns()
    eventually(lambda: len(hook.taken) >= 3 and len(mail.mails) >= 6, "the end is sent")
    told = ("pager", "mail to ops@example.org", "mail to night@example.org")
    eventually(lambda: not any(ways(deployed)[name].pending for name in told), "nothing is pending")
    assert [(item["event"], item["id"]) for item in hook.taken] == [
        ("passed", passed.id),
        ("opened", still.id),
        ("resolved", still.id),
    ]
    assert hook.seen == hook.taken
    for recipient in ("ops@example.org", "night@example.org"):
        said = [one["Subject"].split(" ", 1)[1][:12] for one in mail.mails if one["To"] == recipient]
        assert said == ["over already", "ALERT: accou", "over: accoun"]


def test_a_relay_that_greylists_and_a_receiver_that_fails_get_it_at_last(deployed: Deployment, post: Post) -> None:
    """4xx of SMTP and 5xx of HTTP are tried again; of several attempts with an unknown outcome all have the same id."""
    mail = post.mail("450 greylisted, come back later", "451 and later", "450 and later")
    hook = post.hook(500, 503)
    listening = Listening(deployed)
    listening.dies()
    eventually(lambda: len(mail.mails) == 2 and len(hook.taken) == 1, "it is sent")
    assert mail.asked >= 5 and len(hook.seen) == 3
    assert len({item["message"] for item in hook.seen}) == 1


def test_a_relay_that_refuses_is_told_in_the_log(deployed: Deployment, post: Post) -> None:
    """5xx: that mail is lost, and the next one goes."""
    mail = post.mail("550 no such user here", "550 no such user here")
    listening = Listening(deployed)
    listening.dies()
    eventually(lambda: mail.asked >= 2, "it was tried")
    listening.returns()
    eventually(lambda: len(mail.mails) >= 2, "the end is sent")
    assert {one["Subject"].split()[1] for one in mail.mails} == {"over:"}
    assert "message dropped" in deployed.server.log.read_text()


def test_a_server_that_is_killed_with_something_to_tell_tells_it_when_it_is_back(
    deployed: Deployment, post: Post
) -> None:
    """The server sends nothing that it had sent before."""
    hook = post.hook()
    first = Listening(deployed)
    first.dies()
    eventually(lambda: len(hook.taken) == 1, "the first is sent")
    hook.close()
    second = Listening(deployed)
    second_id = second.id
    outcome = deployed.register(deployed.hosts["storage"], "account.openuso", second.port)
    deployed.report(deployed.hosts["web"], outcome)
    eventually(lambda: deployed.ask(Ways(), WayList).ways[2].pending == 1, "the second is not sent")
    deployed.server.kill()
    again = post.hook()
    deployed.server.start()
    deployed.serves()
    eventually(lambda: again.taken, "the second is sent")
    assert [(item["event"], item["id"]) for item in again.taken] == [("opened", second_id)]


def test_a_server_that_is_killed_again_and_again_sends_its_alerts(deployed: Deployment, post: Post) -> None:
    """The successor of a killed server on the same machine knows that the heartbeat in the store is that of a dead
    process, so it waits neither for beats to be missed nor for what another sender may record.
    """
    hook = post.hook()
    listeners = [Listening(deployed) for _ in range(3)]
    # Not registered again in between: a host that is back later than the reporter would make the listener `up` again.
    outcomes = [deployed.register(deployed.hosts["storage"], "account.openuso", one.port) for one in listeners]

    def sent() -> set[str]:
        return {item["id"] for item in hook.taken}

    for listener, outcome in zip(listeners, outcomes, strict=True):
        deployed.server.kill()
        deployed.server.start()
        deployed.serves()
        deployed.report(deployed.hosts["web"], outcome)
        assert len(deployed.ask(Status(), ServerStatus).servers) == 1
        eventually(lambda id=listener.id: id in sent(), "the alert is sent")  # type: ignore[misc]


def test_an_administrator_tries_the_ways(deployed: Deployment, post: Post) -> None:
    """`alert test`: ok or the reason for each, and a status; `alert ways` shows how they do."""
    hook, log = post.hook(), post.log()
    shown = deployed.opengnsadmin("alert", "test", status=1)
    assert "cannot be reached" in shown and "T0K3N" not in shown
    told = json.loads(deployed.opengnsadmin("alert", "test", "--way", "pager", "--json"))
    assert told == {"type": "ways-tried", "ways": [{"name": "pager", "way": "webhook", "problem": ""}]}
    assert [item["event"] for item in hook.taken] == ["test"] * 2 and b"test of the alerts" in log.line()
    mail = post.mail()
    assert "ok" in deployed.opengnsadmin("alert", "test", "--way", "mail")
    assert sorted(mail.recipients) == ["night@example.org", "ops@example.org"]
    assert "pager" in deployed.opengnsadmin("alert", "ways")
    deployed.opengnsadmin("alert", "test", "--way", "nobody", status=3)
