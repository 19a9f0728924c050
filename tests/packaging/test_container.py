"""The Containerfile without a build: its text, the files that it names, and the steps that make the wheel.

`make image-check` builds both images and runs them.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from compass.cli.main import cli as opengnsc
from compass.client.core.endpoint import DEFAULT_SOCKET, parse_api_endpoint
from tests.packaging import image
from tests.packaging.installed import ROOT

FILE = ROOT / "contrib/container/Containerfile"
KNOWN = {
    *("ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME"),
    *("STOPSIGNAL", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"),
}


def instructions() -> list[tuple[str, str, str]]:
    """Stage, instruction and the rest, in order."""
    found, stage = [], ""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", FILE.read_text()))
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, stage = rest.partition(" AS ")
            assert base and stage, line
        found.append((stage, word, rest))
    return found


def test_each_stage_is_known_and_ends_as_somebody_without_rights() -> None:
    """Stages are made of images with a tag or of stages before; daemons run as a number, not as root."""
    stages: list[str] = []
    for stage, word, rest in instructions():
        assert word in KNOWN, word
        if word == "FROM":
            base = rest.partition(" AS ")[0]
            assert base in stages or base == "${PYTHON_IMAGE}"
            stages.append(stage)
        if word == "ARG":
            assert re.fullmatch(r"PYTHON_IMAGE=[\w./-]+:[\w.-]+", rest)
        if word == "COPY" and (source := re.search(r"--from=(\S+)", rest)):
            assert source[1] in stages
    users = [rest for stage, word, rest in instructions() if word == "USER" and stage == "base"]
    assert users == ["4863:4863"]
    assert stages[-2:] == ["opengnssd", "opengnscd"]


def test_what_is_copied_is_there_and_is_all_that_a_build_needs() -> None:
    """Every path of a COPY from the checkout exists, and setup.cfg names nothing that is not copied."""
    copied = []
    for _, word, rest in instructions():
        if word == "COPY" and "--from" not in rest:
            copied += shlex.split(rest)[:-1]
    assert all((ROOT / path).exists() for path in copied)
    for named in re.findall(r"(?:contrib|examples)/[\w./*-]+|README.md|LICENSE", (ROOT / "setup.cfg").read_text()):
        assert any(named.startswith(path) for path in copied), f"{named} is not copied"


def test_what_is_run_in_a_container_can_be_read() -> None:
    """Commands are lists, programs are ours, the Python among them compiles, and the shell lines have a good syntax."""
    for stage, word, rest in instructions():
        if word == "ENTRYPOINT":
            assert json.loads(rest) == [stage]
        if word == "HEALTHCHECK":
            options, _, command = rest.partition(" CMD ")
            assert {option.partition("=")[0] for option in options.split()} >= {"--interval", "--timeout"}
            program, *arguments = json.loads(command)
            if program == "python":
                ast.parse(arguments[1])
            else:
                assert [program, *arguments] == ["opengnsc", "status"]
        if word == "RUN":
            assert shlex.split(rest)


def test_its_steps_make_a_wheel(tmp_path: Path) -> None:
    """The wheel stage, played on this machine: what it copies is enough for the RUN step that builds."""
    import shutil
    import subprocess

    source, made = tmp_path / "src", tmp_path / "dist"
    source.mkdir()
    steps = [(word, rest) for stage, word, rest in instructions() if stage == "wheel"]
    for word, rest in steps:
        if word == "COPY":
            *paths, target = shlex.split(rest)
            for path in paths:
                to = source / target / path if target.endswith("/") else source / target
                to.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / path).is_dir():
                    shutil.copytree(ROOT / path, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / path, to)
    (build,) = (rest for word, rest in steps if word == "RUN" and "pip wheel" in rest)
    command = shlex.split(build.replace("python", sys.executable, 1).replace("/dist", str(made)))
    subprocess.run([*command, "--no-build-isolation", "--quiet"], cwd=source, check=True)
    assert [path.suffix for path in made.iterdir()] == [".whl"]


CONTAINERS = ROOT / "contrib/container"


def daemon_of_compose() -> tuple[dict[str, Any], dict[str, Any]]:
    """The daemon and the service of the Compose file."""
    services = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())["services"]
    return services["opengnscd"], services["northwest"]


def objects() -> list[dict[str, Any]]:
    """The objects of the Kubernetes file."""
    return list(yaml.safe_load_all((CONTAINERS / "kubernetes.yaml").read_text()))


def options_of_run(command: list[str]) -> dict[str, Any]:
    """The options of an `opengnsc run`, as its own parser reads them, and its command behind `--`."""
    assert command[:2] == ["opengnsc", "run"]
    arguments = [word.replace("$(POD_IP)", "192.0.2.9") for word in command[2:]]
    parsed = opengnsc.commands["run"].make_context("run", arguments).params
    assert parsed["command"]
    return parsed


def test_compose_runs_the_daemon_in_the_hosts_namespaces() -> None:
    """The daemon sees the processes that register and keeps its state, and services share its socket."""
    daemon, service = daemon_of_compose()
    assert (daemon["network_mode"], daemon["pid"]) == ("host", "host")
    places = dict(mount.split(":")[:2] for mount in daemon["volumes"])
    assert {"/etc/opengns", "/run/opengns", "/var/lib/opengns"} <= set(places.values())
    assert "/run/opengns:/run/opengns:ro" in service["volumes"]
    asks = service["environment"]
    assert parse_api_endpoint(asks["OPENGNS_API"]).path == DEFAULT_SOCKET and asks["OPENGNS_API_USER"] == "4863"
    assert options_of_run(service["command"])["port"] == 2028


def test_the_quadlet_runs_the_daemon_in_the_hosts_namespaces() -> None:
    """Podman generates a unit of it; keys that occur several times are read by hand."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in (CONTAINERS / "opengnscd.container").read_text().splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            current.setdefault(key, []).append(value)
    container = sections["Container"]
    assert set(sections) == {"Unit", "Container", "Service", "Install"}
    assert container["Network"] == ["host"] and container["PodmanArgs"] == ["--pid=host"]
    assert {mount.split(":")[1] for mount in container["Volume"]} >= {"/etc/opengns", "/run/opengns"}


def test_kubernetes_runs_one_daemon_on_each_node() -> None:
    """Each daemon has the processes, network, name, state and socket of its node, and no capability."""
    daemons, service = objects()
    assert (daemons["apiVersion"], daemons["kind"]) == ("apps/v1", "DaemonSet")
    pod = daemons["spec"]["template"]["spec"]
    assert pod["hostPID"] and pod["hostNetwork"] and pod["securityContext"]["runAsUser"] == 4863
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert paths == {"config": "/etc/opengns", "state": "/var/lib/opengns", "run": "/run/opengns"}
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert service["kind"] == "Deployment"
    for made in (daemons, service):
        labels = made["spec"]["template"]["metadata"]["labels"]
        assert made["spec"]["selector"]["matchLabels"] == labels
        inner = made["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in inner["volumes"]}
        for one in (*inner.get("initContainers", ()), *inner["containers"]):
            assert {mount["name"] for mount in one["volumeMounts"]} <= volumes


def test_a_pod_registers_its_own_address_and_drains_before_it_is_killed() -> None:
    _, service = objects()
    pod = service["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    asks = {one["name"]: one.get("value") for one in container["env"]}
    assert parse_api_endpoint(asks["OPENGNS_API"]).path == DEFAULT_SOCKET and asks["OPENGNS_API_USER"] == "4863"
    options = options_of_run(container["command"])
    assert options["address"] == "192.0.2.9" and options["port"] == container["ports"][0]["containerPort"]
    assert options["drain"] < pod["terminationGracePeriodSeconds"]


def test_nomad_runs_one_daemon_on_each_client() -> None:
    """Blocks are closed, and the job is of the type that runs everywhere, in the client's namespaces."""
    text = re.sub(r"(?m)^\s*#.*$", "", (CONTAINERS / "opengnscd.nomad.hcl").read_text())
    bare = re.sub(r'"[^"\n]*"', '""', text)
    assert (
        bare.count("{") == bare.count("}") and bare.count("[") == bare.count("]") and '"' not in bare.replace('""', "")
    )
    settings = dict(re.findall(r'(?m)^\s*(\w+)\s*=\s*"([^"]*)"', text))
    assert settings["type"] == "system" and settings["user"] == "4863:4863"
    assert (settings["network_mode"], settings["pid_mode"]) == ("host", "host")
    for place in ("/etc/opengns:/etc/opengns:ro", "/var/lib/opengns:/var/lib/opengns", "/run/opengns:/run/opengns"):
        assert f'"{place}"' in text


def test_builds_keep_the_health_check() -> None:
    """Images of the OCI format have no HEALTHCHECK, so each documented build names the other format."""
    for text in (FILE.read_text(), (ROOT / "docs/howto/container.md").read_text()):
        builds = re.findall(r"podman build.*", text)
        assert len(builds) >= 2 and all("--format docker" in build for build in builds)


def test_the_image_check_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a program that it needs, `make image-check` fails before it does anything."""
    monkeypatch.setattr(image, "NEEDED", ("no-such-program",))
    assert image.missing()[:1] == ["no-such-program"]
    monkeypatch.setattr(sys, "argv", ["image"])
    assert image.main() == 1


def test_the_page_names_each_file() -> None:
    page = (ROOT / "docs/howto/container.md").read_text()
    assert all(file.name in page for file in CONTAINERS.iterdir())
