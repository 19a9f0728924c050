"""`[host] servers`: accepted entries, the resulting addresses, and mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from compass.agent.upstream.server_selector import Candidate, ServerAddress
from compass.daemons.config.file import ConfigProblem
from compass.daemons.config.reader import read_host_config, read_server_config
from compass.daemons.config.server_list import ADDRESSES_MAX, ENTRIES_MAX, known_servers
from compass.daemons.config.settings import HostConfig

TLS = '[tls]\ncertificate = "a.crt"\nkey = "a.key"\nauthority = "ca.crt"\n'


def host(directory: Path, servers: str, more: str = "") -> HostConfig:
    path = directory / "opengnscd.toml"
    path.write_text(f'[host]\nservers = [{servers}]\nstate_directory = "s"\naddress = "192.0.2.9"\n{more}\n{TLS}')
    return read_host_config(path)


def ranked(directory: Path, servers: str, prefer: Any = "first") -> dict[str, tuple[int, ...]]:
    """Return the rank of each address, by endpoint."""
    candidates = known_servers(host(directory, servers).host.servers, prefer).candidates
    return {f"{one.server.name} {one.server.address} {one.server.port}": one.rank for one in candidates}


def test_names_addresses_and_lists_of_addresses(tmp_path: Path) -> None:
    """Order is preference; the second address of a server is for failures of the first, and both prove one name."""
    assert ranked(
        tmp_path,
        '"gns1.example.org", "192.0.2.2:4900", '
        '{ name = "GNS3.example.org:4999", addresses = ["192.0.2.3", "2001:db8::3", "[2001:db8::4]:5000"] }',
    ) == {
        "gns1.example.org gns1.example.org 4863": (0, 0),
        "192.0.2.2 192.0.2.2 4900": (1, 0),
        "gns3.example.org 192.0.2.3 4999": (2, 0),
        "gns3.example.org 2001:db8::3 4999": (2, 1),
        "gns3.example.org 2001:db8::4 5000": (2, 2),
    }


def test_two_networks_in_use_and_servers_that_are_equal(tmp_path: Path) -> None:
    """`networks = "active"` makes the addresses of a server equal, `prefer = "any"` the servers."""
    servers = '{ name = "a", addresses = ["192.0.2.1", "198.51.100.1"], networks = "active" }, { name = "b" }'
    assert list(ranked(tmp_path, servers).values()) == [(0, 0), (0, 0), (1, 0)]
    assert list(ranked(tmp_path, servers, "any").values()) == [(0, 0), (0, 0), (0, 0)]


def test_srv_names_have_a_place_in_the_order(tmp_path: Path) -> None:
    """SRV names may stand before, between and after listed servers; a final dot has no meaning."""
    settings = host(tmp_path, '"gns1", "_opengns._tcp.Example.org.", "gns2"').host
    known = known_servers(settings.servers, settings.prefer)
    assert known.services == (("_opengns._tcp.example.org", 1),)
    assert known.candidates[1] == Candidate(ServerAddress("gns2", "gns2", 4863), (2, 0))
    assert known_servers(settings.servers, "any").services == (("_opengns._tcp.example.org", 0),)


def test_announcements_may_take_the_place_of_a_list(tmp_path: Path) -> None:
    """An empty list is a mistake only without announcements."""
    settings = host(tmp_path, "", 'announcements = "239.255.48.63:4863"\nresolver = "192.0.2.53:53"').host
    assert known_servers(settings.servers, settings.prefer).candidates == ()
    with pytest.raises(ConfigProblem, match="servers is empty"):
        host(tmp_path, "")


@pytest.mark.parametrize(
    ("servers", "wrong"),
    [
        ('{ name = "a_b" }', "host name label 'a_b' is not a DNS label"),
        ('{ addresses = ["192.0.2.1"] }', "missing required field `name`"),
        ('{ name = "a", address = "192.0.2.1" }', "unknown field `address`"),
        ('{ name = "a", addresses = ["gns1"] }', "'gns1' is neither an IPv4 nor an IPv6 address"),
        ('{ name = "a", addresses = ["192.0.2.1:0"] }', "port 0 is not between"),
        ('{ name = "a", addresses = ["192.0.2.1", "192.0.2.1:4863"] }', "'a' has one address twice"),
        ('{ name = "a", networks = "both" }', "Invalid enum value 'both'"),
        ('"_opengns._udp.example.org"', "is not an SRV name; write it as in _opengns._tcp.example.org"),
        ('"_opengns._tcp."', "is not an SRV name"),
        ('"_opengns._tcp.a b"', "is not a DNS label"),
        ("5", "Expected `str | object`, got `int`"),
    ],
)
def test_an_entry_that_cannot_be_meant(tmp_path: Path, servers: str, wrong: str) -> None:
    """The message quotes the entry."""
    with pytest.raises(ConfigProblem) as told:
        host(tmp_path, servers)
    assert any("[host] servers" in problem and wrong in problem for problem in told.value.problems), told.value.problems


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ('resolver = "dns.example.org"', "[host] resolver: "),
        ('announcements = "192.0.2.1:4863"', "is no IPv4 multicast group and port"),
        ('announcements = "239.255.48.63"', "is no IPv4 multicast group and port"),
        ('announcements = "239.255.48.63:0"', "is no IPv4 multicast group and port"),
        ('announcements = "[ff02::1]:4863"', "is no IPv4 multicast group and port"),
        ('prefer = "last"', "'last' is not one of first, any"),
    ],
)
def test_a_setting_that_cannot_be_meant(tmp_path: Path, more: str, wrong: str) -> None:
    """Mistakes in the related keys, also of the server, are reported in the same way."""
    with pytest.raises(ConfigProblem, match=re.escape(wrong)):
        host(tmp_path, '"gns1"', more)
    path = tmp_path / "opengnssd.toml"
    path.write_text(f'[server]\nstore = "sqlite:///a"\nannounce = "gns1:1"\n{TLS}')
    with pytest.raises(ConfigProblem, match="announce: 'gns1:1' is no IPv4 multicast group"):
        read_server_config(path)


def test_entries_and_addresses_are_bounded(tmp_path: Path) -> None:
    """The greatest numbers are accepted, one more is not."""
    names = [f'"gns{number}"' for number in range(ENTRIES_MAX + 1)]
    assert len(host(tmp_path, ",".join(names[:-1])).host.servers) == ENTRIES_MAX
    with pytest.raises(ConfigProblem, match=f"more than {ENTRIES_MAX} entries"):
        host(tmp_path, ",".join(names))
    addresses = [f'"192.0.2.{number}"' for number in range(1, ADDRESSES_MAX + 2)]
    assert len(ranked(tmp_path, f'{{ name = "a", addresses = [{",".join(addresses[:-1])}] }}')) == ADDRESSES_MAX
    with pytest.raises(ConfigProblem, match=f"{ADDRESSES_MAX + 1} addresses"):
        host(tmp_path, f'{{ name = "a", addresses = [{",".join(addresses)}] }}')
