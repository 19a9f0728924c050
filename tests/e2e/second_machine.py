"""A second machine that joins with one command: `python -m tests.e2e.second_machine DIRECTORY`.

Run it in network and mount namespaces of its own: it makes a bridge for the server, and a namespace on it, whose
processes have nothing of the deployment but the token.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from compass.model.replies import Rows
from compass.model.requests import Fetch
from compass.pki.authority import create_authority, write_credentials
from tests.e2e import deployment
from tests.e2e.deployment import Deployment
from tests.e2e.lost_host import ip
from tests.e2e.processes import Program, environment, eventually, python

SERVER, MACHINE = "10.77.0.1", "10.77.0.2"
NAME = "second.example.net"


def main(directory: Path) -> None:
    """Invite, join, start the daemon, and wait for its session."""
    deployment.new_address = lambda: SERVER
    ip("link", "set", "lo", "up")
    ip("link", "add", "br0", "type", "bridge")
    ip("address", "add", f"{SERVER}/16", "dev", "br0")
    ip("link", "set", "br0", "up")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    authority = create_authority("tests", datetime.now(UTC))
    write_credentials(directory / "keys", "authority", authority)
    settings = f'authority = "{directory / "keys"}"\n'
    holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
    try:
        _connect(holder.pid, inside)
        with Deployment(directory, authority, settings=settings) as world:
            world.start("")
            token = json.loads(world.opengnsadmin("host", "invite", NAME, "--json"))["token"]
            machine = directory / "machine"
            machine.mkdir()
            config = machine / "opengnscd.toml"
            options = ["--token", token, "--config", str(config), "--state-directory", str(machine / "state")]
            joining = [*inside, *python("compass.daemons.main:host", "join"), *options]
            subprocess.run(joining, env=environment(), check=True)
            Path("/run/opengns").mkdir()
            command = [*inside, *python("compass.daemons.main:host", "--config", str(config))]
            daemon = Program("second", command, machine / "log")
            world.programs.append(daemon)
            daemon.start()
            eventually(lambda: "session with server" in daemon.log.read_text(), "the session")
            assert any(NAME in str(entry) for entry in world.lags()) or world.ask(Fetch("host"), Rows)
            print(f"{NAME} is a host in session")
    finally:
        holder.kill()
        holder.wait()


def _connect(pid: int, inside: list[str]) -> None:
    """Put the namespace of a process on the bridge."""
    own = Path("/proc/self/ns/net").readlink()
    eventually(lambda: Path(f"/proc/{pid}/ns/net").readlink() != own, "the namespace is there")
    ip("link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    ip("link", "set", "v0", "master", "br0", "up")
    for command in ("link set lo up", f"address add {MACHINE}/16 dev eth0", "link set eth0 up"):
        subprocess.run([*inside, "ip", *command.split()], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
