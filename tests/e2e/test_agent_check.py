"""HAProxy asks a real host daemon about its servers: drained, dead and deregistered listeners get no new users."""

from __future__ import annotations

import csv
import shutil
import signal
import socket
from pathlib import Path

import pytest

from compass.model.replies import Reported
from compass.model.requests import Drain
from tests.e2e.conftest import Deploy
from tests.e2e.processes import Program, eventually

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") or ""
CONFIG = """
global
    stats socket {socket} level admin
defaults
    mode tcp
    timeout connect 2s
    timeout client 10s
    timeout server 10s
backend uss
{servers}
"""
SERVER = (
    "    server s{port} {address}:{port} weight 100 check inter 200ms agent-check agent-addr {agent_address} "
    'agent-port {agent_port} agent-inter 100ms agent-send "chinaserver.openuss {address}:{port}\\n"'
)


@pytest.mark.skipif(not HAPROXY, reason="HAProxy is not installed (Debian: haproxy)")
def test_haproxy_follows_the_name_service(deploy: Deploy, tmp_path: Path) -> None:
    """Weights become shares; drain, undrain, death and deregistration are followed; a silent agent changes nothing."""
    deployment = deploy()
    deployment.start()
    host = deployment.add_host("storage", agent=True)
    host.in_session()
    deployment.register(host, "portal.web")
    one, two = (deployment.run(host, "chinaserver.openuss") for _ in range(2))
    place = {"address": host.address, "agent_address": host.address, "agent_port": host.agent_port}
    servers = [SERVER.format(port=port, **place) for port in (one.port, two.port)]
    stats = tmp_path / "haproxy.sock"
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(socket=stats, servers="\n".join(servers)))
    haproxy = Program("haproxy", [HAPROXY, "-db", "-f", str(config)], tmp_path / "haproxy.log")
    deployment.programs.append(haproxy)
    haproxy.start()

    def sees(port: int, status: str, weight: str = "100") -> None:
        def there() -> bool:
            found, share = state_of(stats, port)
            return found.startswith(status) and share == weight

        eventually(there, f"HAProxy sees {port} as {status} {weight}")

    sees(one.port, "UP")
    sees(two.port, "UP")
    deployment.opengnsadmin("listener", "set", "chinaserver.openuss", f"{host.address}:{one.port}", "--weight", "3")
    sees(two.port, "UP", "33")
    drain = Drain("chinaserver.openuss", host.address, one.port)
    deployment.ask(drain, Reported)
    sees(one.port, "DRAIN")
    deployment.ask(Drain("chinaserver.openuss", host.address, one.port, draining=False), Reported)
    sees(one.port, "UP")
    two.signal(signal.SIGKILL)
    # Its own check may be the first to say so: the port is closed.
    sees(two.port, "DOWN", "33")
    host.daemon.stop()
    sees(one.port, "UP")
    host.daemon.start()
    sees(one.port, "UP")


def state_of(stats: Path, port: int) -> tuple[str, str]:
    """Status and weight of a server, from HAProxy's own page."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        try:
            asking.connect(str(stats))
        except OSError:
            return "", ""
        asking.sendall(b"show stat\n")
        text = b"".join(iter(lambda: asking.recv(65536), b"")).decode()
    for row in csv.DictReader(text.removeprefix("# ").splitlines()):
        if row["svname"] == f"s{port}":
            return row["status"], row["weight"]
    return "", ""
