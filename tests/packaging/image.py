"""Build both images of the Containerfile and run them: `python -m tests.packaging.image`, as root, with the network.

The base image is made of Debian's packages, because a registry of images is not needed then. The containers run with
the isolation of chroot in network and process namespaces of their own, so that nothing of them is left at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tests.packaging.installed import ROOT

FILE = ROOT / "contrib/container/Containerfile"
BASE = ROOT / "build/image-base.tar"
"""Root of the base image; kept for the next run, as `make clean` removes it."""
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
NEEDED = ("buildah", "mmdebstrap", "unshare", "ip", "tar")
IMAGES = ("opengnssd", "opengnscd")
USER = 4863
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5
SERVICE = "portal.web"
PORT = 8001
TOPOLOGY = '[category.web]\ndepends_on = ["web"]\nservices = ["portal"]\n'


def missing() -> list[str]:
    """Return what is needed and not there."""
    return [name for name in NEEDED if shutil.which(name) is None] + (["root"] if os.geteuid() else [])


class Buildah:
    """The program buildah with a store of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._command = ["buildah", "--root", str(directory / "root"), "--runroot", str(directory / "runroot")]

    def command(self, *arguments: str) -> list[str]:
        """Return a command line."""
        return [*self._command, *arguments]

    def output(self, *arguments: str) -> str:
        """Run it and return its output; what it writes to the standard error is shown if it fails."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"buildah {arguments[0]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout.strip()


def pip_mounts(directory: Path) -> list[str]:
    """Return the mounts by which pip in a build has the settings of this machine: a file, and each path in it."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = value.strip("'")
    (directory / "pip.conf").write_text("[global]\n" + "".join(f"{name} = {settings[name]}\n" for name in settings))
    words = {word.removeprefix("file://") for value in settings.values() for word in value.split()}
    # An index in a directory refers to the files that lie next to it.
    words = {word.removesuffix("/simple") for word in words}
    paths = sorted(word for word in words if word.startswith("/") and Path(word).exists())
    mounts = [f"{path}:{path}:ro" for path in paths]
    return [f"--volume={mount}" for mount in [f"{directory / 'pip.conf'}:/etc/pip.conf:ro", *mounts]]


def build(buildah: Buildah) -> None:
    """Build the base image and both targets."""
    if not BASE.exists():
        BASE.parent.mkdir(exist_ok=True)
        unfinished = BASE.with_suffix(".unfinished.tar")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(unfinished)]
        timed("base system from Debian's packages", lambda: subprocess.run(command, check=True))
        unfinished.rename(BASE)
    file = buildah.directory / "Base"
    file.write_text(f"FROM scratch\nADD {BASE.name} /\n")
    arguments = ["build", "--isolation=chroot", f"--file={file}", "--tag=localhost/python", str(BASE.parent)]
    timed("base image", lambda: buildah.output(*arguments))
    for target in IMAGES:
        options = ["--format=docker", "--isolation=chroot", "--layers", "--build-arg=PYTHON_IMAGE=localhost/python"]
        options += [*pip_mounts(buildah.directory), f"--file={FILE}", f"--target={target}", f"--tag=localhost/{target}"]
        timed(f"image {target}", partial(buildah.output, "build", *options, str(ROOT)))


def timed(what: str, act: Callable[[], object]) -> None:
    """Act, and print how long it took."""
    began = time.monotonic()
    act()
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


class Container:
    """A container of one of the images."""

    def __init__(self, buildah: Buildah, image: str, mounts: Mapping[Path, str], variables: Mapping[str, str]) -> None:
        self._buildah = buildah
        self.image = image
        self._name = buildah.output("from", f"localhost/{image}")
        shown = json.loads(buildah.output("inspect", "--type=image", f"localhost/{image}"))
        self.config = shown["Docker"]["config"]
        # buildah mounts a VOLUME over what is mounted there by an option; Podman and Docker do not.
        for place in set(self.config["Volumes"]) & set(mounts.values()):
            buildah.output("config", f"--volume={place}-", self._name)
        self._options = [f"--volume={path}:{place}" for path, place in mounts.items()]
        self._options += [f"--env={name}={value}" for name, value in variables.items()]

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs a command in the container, as the user of the image."""
        return self._buildah.command("run", "--isolation=chroot", *self._options, self._name, "--", *arguments)

    def output(self, *arguments: str) -> str:
        """Run a command that must succeed, and return its output."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{self.image}: {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def start(self, arguments: Sequence[str], log: Path) -> None:
        """Start a command in the background; it ends with this process's namespace."""
        with log.open("wb") as file:
            subprocess.Popen(self.command(*arguments), stdout=file, stderr=file)

    def entrypoint(self, log: Path) -> None:
        """Start what the image starts by itself."""
        self.start(self.config["Entrypoint"], log)

    def user_is_not_root(self) -> None:
        """Compare the user of the image, and of a process in the container, with the promised one."""
        uid = self.output("id", "-u")
        if uid != str(USER) or self.config["User"] != f"{USER}:{USER}":
            raise SystemExit(f"{self.image}: user {uid}, {self.config['User']} in the image, and not {USER}")
        print(f"{self.image}: runs as user {uid}")

    def becomes_healthy(self) -> None:
        """Run the HEALTHCHECK of the image until it succeeds."""
        kind, *check = self.config["Healthcheck"]["Test"]
        if kind != "CMD":
            raise SystemExit(f"{self.image}: HEALTHCHECK is {kind}")
        waits(f"{self.image}: HEALTHCHECK {check[0]} exits 0", self.command(*check), "")


def waits(what: str, command: Sequence[str], wanted: str) -> None:
    """Repeat a command until it succeeds and its output has `wanted`; print what was waited for."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.returncode and wanted in done.stdout:
            print(what, flush=True)
            return
        if time.monotonic() > until:
            raise SystemExit(f"not within {PATIENCE_SECONDS:g} s: {what}\n{done.stdout}{done.stderr}")
        time.sleep(PAUSE_SECONDS)


def play(buildah: Buildah) -> None:
    """Run a server, a host that joins it, and a service in a third container that the host then resolves."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    places = {name: buildah.directory / name for name in ("gns", "store", "etc", "state", "run", "join")}
    for place in places.values():
        place.mkdir()
        os.chown(place, USER, USER)
    etc, variable, run = "/etc/opengns", "/var/lib/opengns", "/run/opengns"
    asks = {"OPENGNSADMIN_CONFIG": f"{etc}/admin/admin.toml"}
    server = Container(
        buildah, "opengnssd", {places["gns"]: etc, places["store"]: variable, places["join"]: "/join"}, asks
    )
    mounts = {places["etc"]: etc, places["state"]: variable, places["run"]: run, places["join"]: "/join"}
    host = Container(buildah, "opengnscd", mounts, {})
    asks = {"OPENGNS_API": f"unix:{run}/opengnscd.sock", "OPENGNS_API_USER": str(USER)}
    asks["OPENGNS_CREDENTIAL_FILE"] = "/join/token"
    service = Container(buildah, "opengnscd", {places["run"]: run, places["join"]: "/join"}, asks)
    for container in (server, host):
        container.user_is_not_root()
    server.output("opengnsadmin", "init", "server", "127.0.0.1", "--sign")
    options = ["--directory", f"{etc}/admin", "--server", "127.0.0.1"]
    server.output("opengnsadmin", "init", "admin", "alice", *options)
    server.entrypoint(buildah.directory / "opengnssd.log")
    server.becomes_healthy()
    (places["join"] / "topology.toml").write_text(TOPOLOGY)
    server.output("opengnsadmin", "apply", "/join/topology.toml", "--yes")
    server.output("opengnsadmin", "credential", "add", SERVICE, "--output", "/join/token")
    server.output("opengnsadmin", "host", "invite", "web1", "--output", "/join/web1.join")
    print(host.output("opengnscd", "join", "--token-file", "/join/web1.join").splitlines()[0])
    settings = places["etc"] / "opengnscd.toml"
    settings.write_text(settings.read_text().replace("[host]\n", f'[host]\nservices = ["{SERVICE}"]\n', 1))
    host.entrypoint(buildah.directory / "opengnscd.log")
    host.becomes_healthy()
    serves = ["python", "-m", "http.server", str(PORT), "--bind", "127.0.0.1"]
    register = ["opengnsc", "run", SERVICE, "--address", "127.0.0.1", "--port", str(PORT), "--", *serves]
    service.start(register, buildah.directory / "service.log")
    found = f"127.0.0.1:{PORT}"
    waits(f"opengnsc resolve {SERVICE}: {found}", host.command("opengnsc", "resolve", SERVICE), found)


def main() -> int:
    """Build and run; with `--play DIRECTORY`, in the namespaces, only run. Returns the exit status."""
    if sys.argv[1:2] == ["--play"]:
        play(Buildah(Path(sys.argv[2])))
        return 0
    if absent := missing():
        print(f"needed: {', '.join(absent)} (Debian: buildah, mmdebstrap, util-linux, iproute2)", file=sys.stderr)
        return 1
    began = time.monotonic()
    # Not in memory, where /tmp may be: the store has several copies of a small system.
    directory = Path(tempfile.mkdtemp(prefix="opengns-image-", dir="/var/tmp"))
    try:
        build(Buildah(directory))
        apart = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        status = subprocess.run([*apart, sys.executable, "-m", "tests.packaging.image", "--play", str(directory)])
        if status.returncode:
            for log in directory.glob("*.log"):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
    finally:
        subprocess.run(Buildah(directory).command("rm", "--all"), capture_output=True)
        subprocess.run(Buildah(directory).command("rmi", "--all", "--force"), capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)
    print(f"all in {time.monotonic() - began:.0f} s")
    return status.returncode


if __name__ == "__main__":
    sys.exit(main())
