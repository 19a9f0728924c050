"""Worth of one credential and of one host, on real processes: rates, places, networks, hosts of a service, clones."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from compass.model.replies import Refusal, Registered, Reported, Rows, Watching
from compass.model.requests import Fetch, Register, Report, Watch
from compass.model.rows import Alert
from compass.pki.authority import Credentials
from tests.e2e.conftest import check_logs
from tests.e2e.deployment import Deployment, Host, new_address
from tests.e2e.processes import eventually

SERVICE = "chinaserver.openuss"
BURST = 30
DENIED = new_address()
SETTINGS = (
    f"credential_changes_burst = {BURST}\ncredential_changes_per_second = 5.0\n"
    f'probe_networks_denied = ["{DENIED}/32"]\n'
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, authority: Credentials) -> Iterator[Deployment]:
    """Start a deployment whose server has low rates and a denied network."""
    with Deployment(tmp_path_factory.mktemp("gns"), authority, settings=SETTINGS) as deployment:
        deployment.start()
        yield deployment
        check_logs(deployment)


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.create_server((address, 0)) as one:
        one.setblocking(False)
        yield one


def is_untouched(one: socket.socket) -> bool:
    try:
        one.accept()
    except BlockingIOError:
        return True
    return False


def test_one_credential_is_slowed_down(world: Deployment) -> None:
    """W5: beyond the burst a change is refused with the time to wait, and accepted after it."""
    thief, token = world.certify("host", "thief.example.net"), world.token("northwest.openuss")
    with world.link(thief) as link:
        requests = [Register("northwest.openuss", token, "192.0.2.1", 80, n) for n in range(1, BURST + 12)]
        replies = [link.ask(request) for request in requests]
        refused = [reply for reply in replies if isinstance(reply, Refusal)]
        assert all(isinstance(reply, Registered) for reply in replies[:BURST]) and refused
        assert {reply.code for reply in refused} == {"busy"} and 0 < refused[-1].retry_after_seconds <= 0.2
        time.sleep(refused[-1].retry_after_seconds)
        assert isinstance(link.ask(requests[-1]), Registered)


def test_a_host_is_dialled_nowhere_but_at_home(world: Deployment) -> None:
    """W7: the update address of another machine gets no octet from the server."""
    mallory, token = world.certify("host", "mallory.example.net"), world.token(SERVICE)
    with listening("127.0.0.77") as victim:
        with world.link(mallory) as link:
            watching = link.ask(
                Watch(("portal.web",), update_address="127.0.0.77", update_port=victim.getsockname()[1])
            )
            assert isinstance(watching, Watching) and "not dialled at 127.0.0.77" in watching.undialled
        with world.link(mallory) as link:
            assert isinstance(link.ask(Register(SERVICE, token, "192.0.2.2", 80, 1)), Registered)
        time.sleep(1.5)
        assert is_untouched(victim)


def test_a_denied_network_is_not_probed(world: Deployment) -> None:
    """W8: a report about a listener there makes no program connect, and no verdict comes of it."""
    with listening(DENIED) as one, world.link() as link:
        port = one.getsockname()[1]
        link.ask(Register("account.openuso", "", DENIED, port, 1))
        reply = link.ask(Report("account.openuso", DENIED, port))
        assert isinstance(reply, Reported) and reply.state == "suspect"
        time.sleep(1.0)
        assert is_untouched(one)
        assert world.listeners("account.openuso")["account.openuso", port].state == "suspect"


def test_a_service_has_its_hosts(world: Deployment) -> None:
    """W9: with a list, the credential alone registers nothing on another host, and takes over no listener."""
    good, bad = world.certify("host", "good.example.net"), world.certify("host", "bad.example.net")
    token = world.token("northeast.openuss")
    world.opengnsadmin("service", "set", "northeast.openuss", "--hosts", "good.example.net")
    with world.link(good) as link:
        assert isinstance(link.ask(Register("northeast.openuss", token, "192.0.2.3", 80, 1)), Registered)
    with world.link(bad) as link:
        for port in (80, 81):
            refused = link.ask(Register("northeast.openuss", token, "192.0.2.3", port, 2))
            assert isinstance(refused, Refusal) and refused.code == "forbidden"
    assert "good.example.net" in world.opengnsadmin("service", "show", "northeast.openuss")


def cloned(world: Deployment, host: Host) -> Host:
    """A second daemon with the files of the first one, on an address of its own."""
    config = (host.directory / "opengnscd.toml").read_text()
    lines = [line for line in config.splitlines() if not line.startswith(("state_", "address", "api", "socket"))]
    shutil.rmtree(world.directory / "clone", ignore_errors=True)
    clone = Host(host.name, new_address(), world.directory / "clone", "\n".join(lines) + "\n")
    world.programs.append(clone.daemon)
    clone.daemon.start()
    return clone


def test_two_machines_with_one_certificate(world: Deployment) -> None:
    """W11: the server alerts administrators, and the two take turns instead of ending each other twice a second."""
    host = world.add_host("web2", services=("portal.web",))
    host.in_session()
    clone = cloned(world, host)

    def alerts() -> list[str]:
        rows = world.ask(Fetch("alert"), Rows).rows
        return [row.text for row in rows if isinstance(row, Alert) and row.text.startswith("two machines are ")]

    eventually(alerts, "an incident names the host")
    (text,) = alerts()
    assert text.startswith("two machines are web2.example.net: ")
    before = sum(one.daemon.log.read_text().count("session with server") for one in (host, clone))
    time.sleep(2.0)
    after = sum(one.daemon.log.read_text().count("session with server") for one in (host, clone))
    assert after - before <= 4
    for one in (host, clone):
        one.daemon.stop()
