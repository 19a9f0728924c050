"""A deployment over network namespaces, in which one host is cut off by dropped packets: `python -m … DIRECTORY`.

Run it in a network namespace of its own (`unshare --net`): it makes a bridge there for the server, and for each host a
namespace that hangs on it. Taking a host's port off the bridge drops its packets; no process is notified.
`LOST_HOST_HOSTS`: how many hosts. `LOST_HOST_SILENT=1`: nothing happens meanwhile, so that only TCP finds out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from compass.model.replies import Rows
from compass.model.requests import Fetch
from compass.model.rows import Listener
from compass.pki.authority import create_authority
from tests.e2e import deployment
from tests.e2e.deployment import HTTP_SERVICE, WORLD, Deployment, Host
from tests.e2e.processes import Program, eventually

NAME = "chinaserver.openuss"
GRACE = "grace_seconds = 1.0\nprobe_timeout_seconds = 0.3"
WAIT_SECONDS = 60.0


def ip(*arguments: str) -> None:
    """The command of that name."""
    subprocess.run(["ip", *arguments], check=True)


class Namespaces(Deployment):
    """Every host in a namespace of its own, on 10.77.0.0/16; the server on the bridge."""

    def __init__(self, directory: Path) -> None:
        addresses = (f"10.77.{number // 250}.{1 + number % 250}" for number in count())
        deployment.new_address = lambda: next(addresses)
        ip("link", "set", "lo", "up")
        ip("link", "add", "br0", "type", "bridge")
        ip("address", "add", "10.77.0.1/16", "dev", "br0")
        ip("link", "set", "br0", "up")
        # A free port of a host's address is looked for here, where that address is not.
        Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text("1")
        super().__init__(directory, create_authority("tests", datetime.now(UTC)))
        self.ports: dict[str, str] = {}
        self.pids: dict[str, int] = {}
        self.holders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Namespaces:
        return self

    def add_host(self, name: str, **_: Any) -> Host:
        """A host's daemon and a listener, in a namespace."""
        full_name, address = f"{name}.example.net", deployment.new_address()
        self.certify("host", full_name)
        config = f'[host]\nservers = ["{self.address}:{self.port}"]\n'
        host = Host(full_name, address, self.directory / name, config + self._tls(full_name))
        path = host.directory / "opengnscd.toml"
        path.write_text(path.read_text().replace(f'api = "{address}:', 'api = "127.0.0.1:'))
        self.hosts[name] = host
        holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        own = Path("/proc/self/ns/net").readlink()
        eventually(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != own, "the namespace is there")
        at = self.ports[name] = f"v{len(self.ports)}"
        ip("link", "add", at, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        ip("link", "set", at, "master", "br0", "up")
        for command in ("link set lo up", f"address add {address}/16 dev eth0", "link set eth0 up"):
            subprocess.run([*inside, "ip", *command.split()], check=True)
        serving = Program(name, [*inside, sys.executable, "-c", HTTP_SERVICE, address, "8001"], host.directory / "web")
        host.daemon._command[:0] = inside
        for program in (serving, host.daemon):
            self.programs.append(program)
            program.start()
        self.holders.append(holder)
        self.pids[name] = serving.pid
        return host

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for holder in self.holders:
            holder.kill()
            holder.wait()


def main(directory: Path, hosts: int, silent: bool) -> None:
    """Cut one off, look at what the others see, connect it again."""
    with Namespaces(directory) as world:
        world.start(WORLD.replace("probe_timeout_seconds = 0.3", GRACE))
        names = [f"h{number}" for number in range(hosts)]
        world.add_hosts(*names)
        for name in names:
            world.register(world.hosts[name], NAME, 8001, pid=world.pids[name])
            world.hosts[name].api.dependencies("portal.web")
        lost, others = names[0], names[1:]
        everybody = {world.hosts[name].address for name in names}
        at = world.hosts[lost].address

        def seen(name: str) -> set[str]:
            return {peer.address for peer in world.hosts[name].api.resolve(NAME).listeners}

        for name in names:
            eventually(lambda name=name: seen(name) == everybody, f"{name} knows all")  # type: ignore[misc]
        before = world.revision
        ip("link", "set", world.ports[lost], "nomaster")
        began = time.monotonic()
        if not silent:
            world.register(world.hosts[others[0]], "account.openuso", 9001)
        while any(at in seen(name) for name in others):
            assert all(everybody - {at} <= seen(name) for name in others), "the others go on"
            assert time.monotonic() - began < WAIT_SECONDS
            time.sleep(0.1)
        gone = time.monotonic() - began
        eventually(lambda: "confirm" in operations(world, before), "the verdict")
        assert operations(world, before) == ["suspect", "confirm"], operations(world, before)
        epoch = row_at(world, at).epoch
        before = world.revision
        ip("link", "set", world.ports[lost], "master", "br0")
        began = time.monotonic()
        for name in names:
            eventually(lambda name=name: seen(name) == everybody, f"{name} has it back", WAIT_SECONDS)  # type: ignore[misc]
        back = time.monotonic() - began
        world.hosts[lost].in_session()
        time.sleep(3.0)
        assert operations(world, before) == ["recover"], operations(world, before)
        row = row_at(world, at)
        assert (row.state, row.epoch) == ("up", epoch)
        print(
            f"{hosts} hosts, one cut off: gone from every answer after {gone:.1f} s, back after {back:.1f} s, no flap"
        )


def operations(world: Deployment, after: int) -> list[str]:
    """Return what became of the listeners of the one service since a revision."""
    return [entry.operation for entry in world.updates(after) if entry.subject == NAME]


def row_at(world: Deployment, address: str) -> Listener:
    """The service's listener on a host."""
    rows = world.ask(Fetch("listener", within=NAME), Rows).rows
    return next(row for row in rows if isinstance(row, Listener) and row.address == address)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ.get("LOST_HOST_HOSTS", "4")), os.environ.get("LOST_HOST_SILENT", "") == "1")
