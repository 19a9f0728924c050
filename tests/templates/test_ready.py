"""Templates of compass: each renders what its program accepts, for every kind of pool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compass.model.catalogue.catalogue import catalogue_of
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.names import parse_endpoint
from compass.model.rows import Category, Listener, Row, Service
from compass.model.selection.pool_view import pools_of
from compass.templates import ready_names
from compass.templates.render import SOURCE_OCTETS_MAX, render

NAME = "chinaserver.openuss"
PATIENCE_SECONDS = 40.0


def listener(endpoint: str, service: str = NAME, state: Any = "up", **more: Any) -> Listener:
    address, port = parse_endpoint(endpoint)
    return Listener(service, address, port, state, 0.0, 1, **more)


BOTH = [
    listener("192.0.2.7:2028", weight=1000),
    listener("[2001:db8::7]:2028", weight=0),
    listener("192.0.2.9:2028", state="down"),
    listener("192.0.2.8:80", "north.openuss"),
]
RESCUE = listener("192.0.2.99:1", "rescue.backup")
WORLDS = {
    "both families and a backup": [*BOTH, RESCUE],
    "only the backup": [RESCUE],
    "nothing at all": [],
}


def pools(rows: list[Listener], *names: str) -> Any:
    world: list[Row] = [Category("openuss", "rescue.backup"), Category("backup"), Service("rescue.backup")]
    world += [Service(NAME), Service("north.openuss"), *rows]
    found = pools_of(
        LookupScope(catalogue_of(world, {}, 5), frozenset({"openuss"}), frozenset({"rescue.backup"})), names
    )
    assert isinstance(found, dict)
    return json.loads(msgspec.json.encode(found))


def ready(name: str, rows: list[Listener], *names: str, **values: str) -> str:
    what = {"host": "h1.example.net", "zone": "b", "revision": 5, "reason": "change", "changed": names}
    return render({**what, "source": f"ready:{name}", "values": values, "pools": pools(rows, *names)})


def takes(path: Path, text: str, *command: str) -> None:
    """Check that the program accepts the file."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed (Debian: {command[0]})")
    path.write_text(text)
    filled = [argument.replace("{file}", str(path)) for argument in command]
    ended = subprocess.run(filled, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr + text


@pytest.mark.parametrize("world", WORLDS)
def test_haproxy_takes_its_configuration(tmp_path: Path, world: str) -> None:
    """Weights are within HAProxy's bounds, the backup is a backup, and two names have two ports."""
    more = {"bind": "127.0.0.1:8081", "bind_chinaserver.openuss": "127.0.0.1:8082", "stats": "/tmp/stats"}
    text = ready("haproxy", WORLDS[world], "north.openuss", NAME, **more)
    takes(tmp_path / "haproxy.cfg", text, "haproxy", "-c", "-q", "-f", "{file}")
    assert text.count("weight 256 check") == (1 if world.startswith("both") else 0)
    assert text.count("rise 1 backup\n") == (1 if world.startswith("both") else 0)
    assert text.count(" backup\n") == (3 if world.startswith("both") else 0)
    assert "weight 0" not in text
    assert ("192.0.2.99:1" in text) == (world != "nothing at all")
    assert "192.0.2.9:2028" not in text


def test_haproxy_takes_what_lets_it_ask_dns(tmp_path: Path) -> None:
    """A category becomes a front end for each of its services; the file does not depend on the listeners."""
    more = {"bind_north.openuss": "127.0.0.1:8082", "dns": "127.0.0.2:53"}
    text = ready("haproxy-dns", BOTH, "openuss", **more)
    takes(tmp_path / "haproxy.cfg", text, "haproxy", "-c", "-q", "-f", "{file}")
    assert "server-template north.openuss- 32 _north._tcp.openuss.gns\n" in text
    assert "    nameserver host tcp@127.0.0.2:53\n" in text
    assert "    nameserver host udp@127.0.0.2:53\n" in ready("haproxy-dns", BOTH, "openuss", dns="udp@127.0.0.2:53")
    assert text == ready("haproxy-dns", [], "openuss", **more)


@pytest.mark.parametrize("world", WORLDS)
def test_nginx_takes_its_configuration(tmp_path: Path, world: str) -> None:
    """nginx refuses an upstream without servers: the template answers 503 instead."""
    more = {"pid": f"{tmp_path}/pid", "temp": str(tmp_path), "listen_chinaserver.openuss": "127.0.0.1:8082"}
    text = ready("nginx", WORLDS[world], "north.openuss", NAME, **more)
    takes(tmp_path / "nginx.conf", text, "nginx", "-t", "-q", "-c", "{file}")
    assert text.count("return 503") == (2 if world == "nothing at all" else 0)
    assert text.count("fail_timeout=1s backup;") == (1 if world.startswith("both") else 0)


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_listeners_of_weight_0_serve_when_there_are_no_others(name: str) -> None:
    """A balancer whose servers all have no weight answers 503."""
    reserve = [listener("192.0.2.7:2028", weight=0), listener("192.0.2.8:2028", weight=0)]
    text = ready(name, reserve, NAME)
    assert " backup" not in text
    assert text.count("weight 1 " if name == "haproxy" else "weight=1 ") == 2


def test_keepalived_drains_by_weight_0(tmp_path: Path) -> None:
    """LVS keeps the connections of a real server of weight 0, and ends those of one that is removed."""
    rows = [
        listener("192.0.2.7:1", weight=3),
        listener("192.0.2.7:2", weight=0),
        listener("192.0.2.7:3", weight=5, state="draining"),
        listener("192.0.2.7:4", state="down"),
        listener("[2001:db8::7]:5", state="draining"),
        RESCUE,
    ]
    text = ready("keepalived", rows, NAME)
    takes(tmp_path / "keepalived.conf", text, "keepalived", "-t", "-f", "{file}")
    words = text.split()
    weights = {words[at + 2]: words[at + 5] for at, word in enumerate(words) if word == "real_server"}
    assert weights == {"1": "3", "2": "0", "3": "0"}
    assert "sorry_server 192.0.2.99 1\n" in text
    text = ready("keepalived", [rows[1], rows[2], RESCUE], NAME)
    takes(tmp_path / "keepalived.conf", text, "keepalived", "-t", "-f", "{file}")
    words = text.split()
    weights = {words[at + 2]: words[at + 5] for at, word in enumerate(words) if word == "real_server"}
    # Nothing else is up: the listener of weight 0 is there for that.
    assert weights == {"2": "1", "3": "0"}


@pytest.mark.parametrize("world", WORLDS)
def test_keepalived_takes_its_configuration(tmp_path: Path, world: str) -> None:
    """A virtual server has real servers of its own family only, and the backup as its sorry server."""
    more = {"port_chinaserver.openuss": "81", "address_chinaserver.openuss": "2001:db8::1"}
    text = ready("keepalived", WORLDS[world], "north.openuss", NAME, **more)
    takes(tmp_path / "keepalived.conf", text, "keepalived", "-t", "-f", "{file}")
    assert text.count("real_server") == {"both families and a backup": 2, "only the backup": 1}.get(world, 0)
    assert text.count("sorry_server") == (1 if world.startswith("both") else 0)


def test_hosts_has_each_address_once(tmp_path: Path) -> None:
    """The file also has the usual entries."""
    lines = ready("hosts", [*BOTH, listener("192.0.2.7:2029")], "openuss", zone="example").splitlines()
    found = [line.split() for line in lines if line and not line.startswith("#")]
    assert ["127.0.0.1", "localhost"] in found
    assert ["127.0.1.1", "h1.example.net", "h1"] in found
    addresses = [address for address, *names in found if names == ["openuss.example"]]
    assert addresses == ["192.0.2.7", "2001:db8::7", "192.0.2.8"]


@pytest.mark.parametrize("world", WORLDS)
def test_a_shell_reads_the_variables(tmp_path: Path, world: str) -> None:
    """The variables are set, and empty without listeners."""
    (tmp_path / "env").write_text(ready("env", WORLDS[world], NAME))
    script = f'set -aeu; . {tmp_path}/env; echo "$CHINASERVER_OPENUSS_ENDPOINTS $CHINASERVER_OPENUSS_SOURCE"'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    expected = {
        "both families and a backup": "192.0.2.7:2028,[2001:db8::7]:2028 service",
        "only the backup": "192.0.2.99:1 backup",
        "nothing at all": " none",
    }
    assert (said.stdout.rstrip("\n"), said.stderr) == (expected[world], "")


def test_json_is_what_a_hook_is_told() -> None:
    """The file has all data of a hook, in any order of keys."""
    text = json.loads(ready("json", BOTH, "openuss", NAME))
    assert text == {"host": "h1.example.net", "zone": "b", "revision": 5, "pools": pools(BOTH, "openuss", NAME)}


def test_every_ready_template_is_tried_here() -> None:
    """Each template of compass has a test with its program."""
    assert ready_names() == ["env", "haproxy", "haproxy-dns", "hosts", "json", "keepalived", "nginx"]


def test_what_a_service_says_of_itself_adds_no_line(tmp_path: Path) -> None:
    """Metadata comes from every holder of a credential: a line break in it would be a line of configuration."""
    (tmp_path / "my.j2").write_text("{{ pool.listeners[0].metadata.note }}{{ 'a b' | shell }} {{ 'a-b.c' | variable }}")
    found = pools([listener("192.0.2.7:1", metadata={"note": "x\nexec rm\u2028"})], NAME)
    text = render({"source": str(tmp_path / "my.j2"), "values": {}, "pools": found})
    assert text == "x\\u000aexec rm\\u2028'a b' A_B_C"


@pytest.mark.parametrize("more", [0, 1])
def test_a_source_is_read_up_to_its_bound(tmp_path: Path, more: int) -> None:
    """A template of the greatest size is rendered; a larger file is refused."""
    (tmp_path / "my.j2").write_text("x" * (SOURCE_OCTETS_MAX + more))
    what = {"source": str(tmp_path / "my.j2"), "values": {}, "pools": pools([], NAME)}
    if more:
        with pytest.raises(Exception, match="is it the right file"):
            render(what)
    else:
        assert len(render(what)) == SOURCE_OCTETS_MAX


MIXED = [
    listener("192.0.2.7:2028"),
    listener("192.0.2.8:80", "north.openuss"),
    listener("192.0.2.9:80", "north.openuss"),
]
PARTS = {
    "haproxy": (r"^backend (\S+)$", "bind", "frontend in-"),
    "nginx": (r"^    upstream (\S+) {$", "listen", "        listen "),
    "keepalived": (r"^# (\S+): service$", "address", "virtual_server "),
}
"""Template: the beginning of the part of a service, its value for a place, and what a place begins with."""


@pytest.mark.parametrize("template", PARTS)
def test_the_services_of_a_category_are_not_mixed(template: str) -> None:
    """Each has its own listeners, since they hold different content, and a place only if the values name one for it."""
    begin, value, place = PARTS[template]
    where = {"bind": "192.0.2.100:80", "listen": "192.0.2.100:80", "address": "192.0.2.100"}[value]

    def parts(*names: str, **values: str) -> dict[str, set[str]]:
        found = re.split(begin, ready(template, MIXED, *names, **values), flags=re.MULTILINE)[1:]
        return {
            name: set(re.findall(r"192\.0\.2\.[789]\b", text))
            for name, text in zip(found[::2], found[1::2], strict=True)
        }

    text = ready(template, MIXED, "openuss", **{f"{value}_north.openuss": where, value: "192.0.2.1"})
    assert text.count(place) == 1 and where in text and "192.0.2.1 " not in text
    own = {NAME: {"192.0.2.7"}, "north.openuss": {"192.0.2.8", "192.0.2.9"}}
    both = {f"{value}_{name}": where for name in own}
    assert parts("openuss", **both) == own
    assert parts("openuss", NAME, **both) == own, "a service that is named as well is there once"
    assert ready(template, MIXED, "openuss", **both).count(place) == 2
    assert ready(template, MIXED, "openuss").count(place) == 0


def test_services_over_dns_share_no_front_end() -> None:
    """Two front ends at one port would mix them as well."""
    text = ready("haproxy-dns", MIXED, "openuss", bind="192.0.2.100:80")
    assert text.count("backend ") - text.count("default_backend ") == 2 and "frontend" not in text
    text = ready("haproxy-dns", MIXED, "openuss", **{"bind_north.openuss": "192.0.2.100:80"})
    assert text.count("frontend in-") == 1 and "default_backend north.openuss" in text
