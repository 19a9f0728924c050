"""`opengnsc doctor`: what each check says of a host, and what it advises."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from compass.cli.doctor import resolver_problem, zone_problem
from compass.cli.main import cli
from compass.model.host_api import (
    CertificateStatus,
    CheckStatus,
    HostStatus,
    KnownServer,
    RegistrationStatus,
    UnansweredName,
)
from compass.model.replies import CategoryView, Dependencies, ServiceView
from compass.model.rows import Listener
from tests.support.fake_api import SERVICE, LittleApi

LEAF = CertificateStatus("leaf", "CN=web1", "/etc/opengns/host.crt", 1_900_000_000.0)
HERE = RegistrationStatus("portal.web", "192.0.2.1", 80, 5, "registered", pid=7)
WELL = HostStatus(
    "web1.example.net", "open", "gns1.example.net", "s", 12, True, ("portal.web",), 3, (HERE,), certificates=(LEAF,)
)
VIEW = Dependencies(
    "portal.web",
    12,
    (CategoryView("openuss", (ServiceView(SERVICE, (Listener(SERVICE, "127.0.0.1", 2028, "up", 1000.5, 7),)),)),),
)


def doctor(api: LittleApi, status: HostStatus, *arguments: str) -> Result:
    """Run the command against a daemon with a status."""
    api.answers["/v1/status"] = 200, msgspec.json.encode(status)
    api.answers["/v1/dependencies/portal.web"] = 200, msgspec.json.encode(VIEW)
    return CliRunner().invoke(cli, ["doctor", *arguments], env={"OPENGNS_API": api.place})


@contextmanager
def dns_server(code: int) -> Iterator[str]:
    """Serve DNS answers without records, with a response code, at the address that this context has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            question, client = server.recvfrom(512)
            server.sendto(question[:2] + bytes([0x84, code]) + question[4:], client)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_host_that_is_well(api: LittleApi) -> None:
    """Each check is a line, and the exit status is 0."""
    result = doctor(api, WELL)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    for line in (
        f"ok      daemon       opengnscd of host web1.example.net answers at {api.place}",
        "ok      tls leaf     CN=web1, until 2030-03-17",
        "ok      session      open to gns1.example.net",
        "ok      view         revision 12, 3 listeners, for portal.web",
        "ok      listener     portal.web 192.0.2.1:80: registered",
    ):
        assert line in lines
    assert lines[-1] == f"None of {sum(line.startswith('ok') for line in lines)} checks failed."


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"session": "waiting", "server": "", "problem": "gns1.example.net:4863: connection refused"},
        "failed  session      waiting: gns1.example.net:4863: connection refused",
        "see the servers below; lookups go on from the last view meanwhile",
    ),
    (
        {"loaded": False},
        "failed  view         not loaded: nothing can be resolved",
        "let the daemon reach a server once",
    ),
    (
        {
            "certificates": (
                msgspec.structs.replace(LEAF, condition="invalid", problem="CN=web1 expired on 2026-01-01; renew it"),
            )
        },
        "failed  tls leaf     CN=web1 expired on 2026-01-01",
        "renew it",
    ),
    (
        {"warnings": ("the state directory cannot be written: No space left on device; make room",)},
        "failed  warning      the state directory cannot be written: No space left on device",
        "make room",
    ),
    (
        {"registrations": (msgspec.structs.replace(HERE, problem="does not answer at this address: refused"),)},
        "failed  listener     portal.web 192.0.2.1:80: registered, but does not answer at this address: refused",
        "",
    ),
    (
        {"registrations": (msgspec.structs.replace(HERE, own_check=CheckStatus("tcp", failing="no answer")),)},
        "failed  listener     portal.web 192.0.2.1:80: registered, but no answer",
        "",
    ),
    (
        {"registrations": (msgspec.structs.replace(HERE, state="pending"),)},
        "failed  listener     portal.web 192.0.2.1:80: pending",
        "",
    ),
    (
        {"unanswered": (UnansweredName("desk.shop", 20.0),)},
        "failed  lookup       desk.shop is asked for and has no listener",
        "start one, or see why there is none: opengnsadmin explain desk.shop --host web1.example.net",
    ),
    (
        {"servers": (KnownServer("gns1", "192.0.2.9:4863", "configured", "backing-off", 8.0, 3, "no route to host"),)},
        "failed  server       gns1 at 192.0.2.9:4863 (configured): no route to host, next attempt in 8 s",
        "check name, port and network with 'opengnsadmin --server 192.0.2.9:4863 doctor'",
    ),
]


@pytest.mark.parametrize(("changed", "line", "advice"), FAULTS, ids=[line[8:20].strip() for _, line, _ in FAULTS])
def test_each_fault_is_a_line_with_its_advice(api: LittleApi, changed: dict[str, Any], line: str, advice: str) -> None:
    """The exit status is 1, and the last line counts."""
    result = doctor(api, msgspec.structs.replace(WELL, **changed))
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert line in lines
    if advice:
        assert lines[lines.index(line) + 1].strip() == f"-> {advice}"
    assert lines[-1].startswith("1 of ")


def test_a_daemon_that_does_not_answer_is_the_only_check(api: LittleApi) -> None:
    """Checks that depend on it are left out."""
    result = CliRunner().invoke(cli, ["doctor", "--json"], env={"OPENGNS_API": f"{api.place}x"})
    assert result.exit_code == 1
    (only,) = json.loads(result.output)["checks"]
    assert (only["name"], only["ok"]) == ("daemon", False) and "systemctl status opengnscd" in only["next"]


@pytest.mark.parametrize(("code", "word"), [(0, "ok"), (5, "failed")])
def test_the_daemon_s_dns_is_asked(api: LittleApi, code: int, word: str) -> None:
    """A zone that is refused, as after a change of the configuration, is a failed check."""
    with dns_server(code) as endpoint:
        result = doctor(api, msgspec.structs.replace(WELL, dns=endpoint, dns_zone="gns"))
    (line,) = [line for line in result.output.splitlines() if " dns " in line]
    assert line.split()[0] == word
    assert ("answers for the zone gns" if word == "ok" else "response code 5") in line


def test_names_that_the_system_s_resolver_does_not_find_are_advised_to_be_forwarded(api: LittleApi) -> None:
    """The name is one that this host depends on."""
    with dns_server(0) as endpoint:
        result = doctor(api, msgspec.structs.replace(WELL, dns=endpoint, dns_zone="invalid"))
    assert result.exit_code == 1
    assert f"the system's resolver does not find {SERVICE}.invalid" in result.output
    assert f"forward the zone invalid to {endpoint}" in result.output


def test_what_is_no_dns_server() -> None:
    """Nothing there, and no answer in time, are sentences."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        free = silent.getsockname()[1]
    assert zone_problem(f"127.0.0.1:{free}", "gns") == "Connection refused"
    assert "is not of the form address:port" in zone_problem("nowhere", "gns")


def test_the_system_s_resolver() -> None:
    """A name of the hosts file is found."""
    assert resolver_problem("localhost") == ""
    assert resolver_problem("no.such.invalid")
