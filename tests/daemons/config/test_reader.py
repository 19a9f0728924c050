"""Configuration files: each mistake is reported by its key, all at once, and the printed example can be read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from compass.agent.hooks.hook import LIMIT_SECONDS_MAX, QUIET_SECONDS_MAX, HookSettings
from compass.agent.hooks.runner import REACTIONS_MAX
from compass.agent.hooks.template import TemplateSettings
from compass.agent.registration.own_checks import CONFIGURED_CHECKS_MAX, CheckSettings
from compass.daemons.config.bounds import (
    CHANGES_MAX,
    CHANGES_PER_SECOND_MIN,
    KEEP_OCTETS_MAX,
    KEEP_OCTETS_MIN,
    NETWORKS_MAX,
)
from compass.daemons.config.fields import described
from compass.daemons.config.file import CONFIG_OCTETS_MAX, ConfigProblem
from compass.daemons.config.reader import (
    SOCKET_OCTETS_MAX,
    parse_listen,
    read_host_config,
    read_server_config,
)
from compass.daemons.config.sections import (
    KEEP_MAX,
    KEEP_MIN,
    REFRESH_SECONDS_MAX,
    STORE_WAIT_SECONDS_MAX,
    STORE_WAIT_SECONDS_MIN,
    WORKERS_MAX,
)
from compass.daemons.config.settings import HostConfig, ServerConfig, example, repeated_of, sections_of
from compass.daemons.net.listen import networks_of
from compass.model.limits import PORT_MAX
from compass.model.names import SERVER_PORT, InvalidName, parse_server
from compass.server.commit.log_trimmer import LogBounds
from compass.server.commit.store_access import STORE_WAIT_SECONDS
from compass.server.sessions.rate_limit import ChangeRates, Rate
from compass.wire.limits import REPLY_SECONDS
from contrib.setting_types import settings

REPEATED: tuple[type[Any], ...] = (HookSettings, TemplateSettings)
TLS = '[tls]\ncertificate = "a.crt"\nkey = "a.key"\nauthority = "ca.crt"\n'
SERVER = '[server]\nstore = "sqlite:///gns.sqlite3"\n'
HOST = '[host]\nservers = ["gns1"]\nstate_directory = "state"\naddress = "192.0.2.1"\n'


def server(tmp_path: Path, text: str) -> ServerConfig:
    (tmp_path / "d.toml").write_text(text)
    return read_server_config(tmp_path / "d.toml")


def host(tmp_path: Path, text: str) -> HostConfig:
    (tmp_path / "d.toml").write_text(text)
    return read_host_config(tmp_path / "d.toml")


def problems(read: Any, tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigProblem) as told:
        read(tmp_path, text)
    assert all(line.startswith(f"{tmp_path}/d.toml: ") for line in str(told.value).splitlines())
    return told.value.problems


@pytest.mark.parametrize(("kind", "read"), [(ServerConfig, server), (HostConfig, host)])
def test_the_example_can_be_read_as_it_is_and_with_every_comment_taken_away(
    tmp_path: Path, kind: Any, read: Any
) -> None:
    """A key that is uncommented has the default that its description names."""
    text = example(kind)
    uncommented = re.sub(r"(?m)^# (\w+ = )", r"\1", text)
    assert uncommented.count("\n# ") < text.count("\n# ")
    assert read(tmp_path, text) == read(tmp_path, uncommented)


@pytest.mark.parametrize("kind", [ServerConfig, HostConfig])
def test_every_key_is_described_and_printed(kind: Any) -> None:
    """Every key has a description, an example if it is required, and a line in the printed file."""
    keys = [key for settings_of_section in sections_of(kind).values() for key in described(settings_of_section)]
    assert all(key.description and (key.shown or not key.required) for key in keys)
    printed = example(kind)
    assert all(re.search(rf"(?m)^(# )?{key.name} = ", printed) for key in keys)


@pytest.mark.parametrize("kind", [ServerConfig, HostConfig])
def test_every_key_is_listed_for_the_reference_page(kind: Any) -> None:
    """Each key appears once with its section, type, default and description."""
    listed = [*settings(kind)]
    sections = sections_of(kind) | repeated_of(kind)
    assert len(listed) == sum(len(struct.__struct_fields__) for struct in sections.values())
    assert len({(one.section, one.key) for one in listed}) == len(listed)
    by_key = {(one.section, one.key): one for one in listed}
    assert by_key["[log]", "format"].type == "one of `json`, `text`"
    assert (by_key["[tls]", "key"].default, by_key["[tls]", "admin"].default) == ("", "[]")
    if kind is ServerConfig:
        assert by_key["[server]", "workers"].type == f"integer, 1 to {WORKERS_MAX}"
        assert by_key["[[server.alert]]", "to"].type == "list of strings"


def test_the_example_of_a_hook_and_a_template_is_a_section_when_its_comment_is_taken_away(tmp_path: Path) -> None:
    """The section is valid once its programs and files exist."""
    text = example(HostConfig)
    lines = [line.removeprefix("# ") for line in text[text.index("# [[host.hook]]") :].splitlines()]
    sections = "\n".join(lines).replace("/usr/local/bin/on-change", "/bin/true").replace("/etc/haproxy/haproxy", "h")
    assert all(f" {key.name} = " in sections for kind in REPEATED for key in described(kind))
    read = host(tmp_path, HOST + TLS + sections)
    assert read.hooks == (HookSettings(("openuss",), ("/bin/true",)),)
    assert read.templates == (TemplateSettings(("openuss",), "ready:haproxy", str(tmp_path / "h.cfg")),)


def test_mistakes_in_hooks_and_templates_are_told(tmp_path: Path) -> None:
    """Each mistake is reported by section and key, all in one run; paths are relative to the file."""
    hook = '[[host.hook]]\non = ["openuss"]\ncommand = ["true"]\n'
    made = (
        '[[host.template]]\non = ["OpenUSS", "openuss"]\nsource = "my.j2"\ntarget = "out"\ncheck = ["true", "{file}"]\n'
    )
    (tmp_path / "my.j2").touch()
    read = host(tmp_path, HOST + hook * 2 + made + 'values = { bind = "*:80" }\n' + TLS)
    assert [len(read.hooks), read.templates[0].on, read.templates[0].values] == [2, ("openuss",), {"bind": "*:80"}]
    assert read.templates[0].source == str(tmp_path / "my.j2")
    told = problems(
        host,
        tmp_path,
        HOST
        + '[[host.hook]]\non = []\ncommand = []\n[[host.hook]]\non = ["a.b.c"]\ncommand = ["/no/such"]\n'
        + "timeout_seconds = 0\nquiet_seconds = 3\n"
        + made.replace("my.j2", "no.j2")
        + made.replace('"my.j2"', '"ready:haprox"').replace('"out"', '"no/out"').replace('["true"', '["/no/such"')
        + 'mode = "rw"\nreloads = 5\n'
        + made
        + "[[host.hook]]\n"
        + TLS,
    )
    expected = [
        "[host.hook] on is empty",
        "[host.hook] command is empty",
        "[host.hook] timeout_seconds: Expected `float` > 0",
        "[host.hook] on: ",
        "[host.hook] command: there is no program '/no/such'",
        "[host.hook] quiet_seconds is more than quiet_seconds_max",
        "[host.hook] needs on: ",
        "[host.hook] needs command: ",
        f"[host.template] source: there is no file {tmp_path}/no.j2",
        "[host.template] has no key 'reloads'; did you mean 'reload'?",
        "[host.template] check: there is no program '/no/such'",
        "[host.template] source: there is no ready:haprox; did you mean ready:haproxy?",
        f"[host.template] target: there is no directory {tmp_path}/no",
        "[host.template] mode: 'rw' is not octal",
        f"[host.template] target: 2 templates would write {tmp_path}/out",
    ]
    assert sorted(begin for begin in expected if not any(line.startswith(begin) for line in told)) == [], told
    assert len(told) == len(expected), told
    wrong = problems(host, tmp_path, HOST + "[host.hook]\non = []\n" + TLS)
    assert wrong == ["[host.hook] must be written [[host.hook]]: there may be several"]


@pytest.mark.parametrize("more", [0, 1])
def test_a_host_has_so_many_hooks_and_no_more(tmp_path: Path, more: int) -> None:
    """Hooks are limited, since each may have a process of its own."""
    text = HOST + '[[host.hook]]\non = ["openuss"]\ncommand = ["true"]\n' * (REACTIONS_MAX + more) + TLS
    if more:
        assert problems(host, tmp_path, text) == [f"{REACTIONS_MAX + 1} hooks and templates; at most {REACTIONS_MAX}"]
    else:
        assert len(host(tmp_path, text).hooks) == REACTIONS_MAX


@pytest.mark.parametrize(
    ("line", "good"),
    [
        (f"timeout_seconds = {LIMIT_SECONDS_MAX}", True),
        (f"timeout_seconds = {LIMIT_SECONDS_MAX + 1}", False),
        (f"quiet_seconds_max = {QUIET_SECONDS_MAX}", True),
        (f"quiet_seconds_max = {QUIET_SECONDS_MAX + 1}", False),
        ("quiet_seconds = 0", True),
        ("quiet_seconds = -1", False),
    ],
)
def test_a_hooks_times_have_bounds(tmp_path: Path, line: str, good: bool) -> None:
    """The greatest time is accepted, one second more is not."""
    text = HOST + f'[[host.hook]]\non = ["openuss"]\ncommand = ["true"]\n{line}\n' + TLS
    if good:
        assert host(tmp_path, text)
    else:
        assert line.partition(" ")[0] in problems(host, tmp_path, text)[0]


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """Twelve mistakes give twelve sentences: a wrong type of one key hides no other mistake."""
    told = problems(
        host,
        tmp_path,
        '[host]\nserver = ["gns1"]\naddress = "web1"\napi = "192.0.2.1:80"\nsession = "keeep"\nrefresh_seconds = "5"'
        '\nupdate = 4865\nsocket = "a\\u0000b"\nstate_directory = 5\n[tsl]\nkey = "k"\n[tls]\nkey = "k"\n'
        'host = ["a", 7]\nauthority = "a"\n',
    )
    expected = [
        "there is no section [tsl]; did you mean [tls]?",
        "[host] has no key 'server'; did you mean 'servers'?",
        "[host] needs servers: ",
        "[host] state_directory: Expected `str`, got `int`",
        "[host] socket: contains a NUL character",
        "[host] update: Expected `str`, got `int`",
        "[host] session: 'keeep' is not one of keep, short",
        "[host] refresh_seconds: '5' is neither a number nor auto",
        "[tls] needs certificate: ",
        "[tls] host: Expected `str`, got `int` - at `$[1]`",
        "[host] address: address 'web1' is neither",
        "[host] api: 192.0.2.1 is not a loopback address",
    ]
    assert len(told) == len(expected)
    for sentence, begin in zip(told, expected, strict=True):
        assert sentence.startswith(begin)


def test_a_key_far_from_any_other_gets_no_guess(tmp_path: Path) -> None:
    """A distant name is not suggested; a value in place of a section is reported as such."""
    told = problems(
        server, tmp_path, 'server = 5\nxylophone = 1\n[tls]\nkey = "k"\ncertificate = "c"\nauthority = "a"\n'
    )
    assert told == ["there is no section [xylophone]", "server is a value; it must be a section [server]"]


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ("listen = []", "listen is empty"),
        ('listen = ["gns1:4863"]', "'gns1' is neither an IPv4 nor an IPv6 address"),
        ('listen = ["0.0.0.0:http"]', "'0.0.0.0:http': the port is not a number"),
        ('listen = ["[::]:65536"]', "port 65536 is not between 1 and 65535"),
        ('listen = ["127.0.0.1:1", "127.0.0.1:1"]', "names port 1 of 127.0.0.1 twice"),
        ('listen = ["[::]:1", "0.0.0.0:1"]', r"\[::\]:1 includes 0.0.0.0"),
        ('listen = ["0.0.0.0:1", "127.0.0.1:1"]', "0.0.0.0:1 includes every IPv4 address"),
        ('alert_command = ["no-such-program"]', "there is no program 'no-such-program'"),
        ('alert_command = ["./d.toml"]', "d.toml', or it is not executable"),
        (
            '[server.https]\nlisten = ["[::]:4864", "0.0.0.0:4864"]',
            r"\[server.https\] listen: \[::\]:4864 includes 0.0.0.0",
        ),
        ('[server.https]\nlisen = ["[::]:4864"]', r"\[server.https\] has no key 'lisen'; did you mean 'listen'"),
        ("https = 5", r"server.https is a value; it must be a section \[server.https\]"),
        (f"keep_updates = {KEEP_MIN - 1}", "`int` >= 1000"),
        ("workers = 0", "`int` >= 1"),
        (f"workers = {WORKERS_MAX + 1}", "`int` <= 64"),
        (f"keep_others = {KEEP_MAX + 1}", "`int` <= 1000000000"),
        (f"keep_updates_octets = {KEEP_OCTETS_MIN - 1}", "`int` >= 16777216"),
        (f"keep_others_octets = {KEEP_OCTETS_MAX + 1}", "`int` <= 1099511627776"),
        ('probe_networks = ["10.0.0.1/8"]', r"\[server\] probe_networks: '10.0.0.1/8' is not a network such as"),
        ('probe_networks_denied = ["all"]', r"\[server\] probe_networks_denied: 'all' is not a network such as"),
        (f"probe_networks = {['10.0.0.1'] * (NETWORKS_MAX + 1)}", "has 257 networks; at most 256"),
        ("credential_changes_per_second = 0", "`float` >= 0.1"),
        ("credential_changes_burst = 0", "`int` >= 1"),
        (f"host_changes_per_second = {CHANGES_MAX + 1}", "`float` <= 1000000"),
        (f"host_changes_burst = {CHANGES_MAX + 1}", "`int` <= 1000000"),
        (f"store_wait_seconds = {STORE_WAIT_SECONDS_MIN - 0.01}", "`float` >= 0.1"),
        (f"store_wait_seconds = {STORE_WAIT_SECONDS_MAX + 0.01}", "`float` <= 20.0"),
    ],
)
def test_a_server_is_told_what_is_wrong(tmp_path: Path, lines: str, wrong: str) -> None:
    """Each rule of [server] has its own sentence."""
    (told,) = problems(server, tmp_path, f"{SERVER}{lines}\n{TLS}")
    assert re.search(wrong, told)


@pytest.mark.parametrize(
    ("store", "wrong"),
    [
        ("mysql://host/db", "a store's URL is"),
        ("gns.sqlite3", "a store's URL is"),
        ("sqlite://", "in memory and would be lost"),
        ("sqlite:///:memory:", "in memory and would be lost"),
    ],
)
def test_a_store_is_a_file_or_a_postgresql(tmp_path: Path, store: str, wrong: str) -> None:
    """P1: a store that would not survive is refused."""
    (told,) = problems(server, tmp_path, f'[server]\nstore = "{store}"\n{TLS}')
    assert wrong in told


def test_a_section_within_a_section(tmp_path: Path) -> None:
    """The HTTPS API is served only if its section names an address."""
    assert server(tmp_path, f"{SERVER}{TLS}").https.listen == ()
    read = server(tmp_path, f'{SERVER}[server.https]\nlisten = ["[::]:4864"]\n{TLS}')
    assert read.https.listen == ("[::]:4864",) and read.server.listen == ("[::]:4863",)


def test_a_server_may_keep_the_least_and_the_most(tmp_path: Path) -> None:
    """The limits themselves are accepted, and so are different addresses on one port."""
    lines = 'listen = ["0.0.0.0:1", "[::1]:1", "127.0.0.1:2"]\nalert_command = ["true", "x"]\n'
    read = server(tmp_path, f"{SERVER}{lines}keep_updates = {KEEP_MIN}\nkeep_others = {KEEP_MAX}\n{TLS}").server
    assert read.workers == 1
    assert server(tmp_path, f"{SERVER}workers = {WORKERS_MAX}\n{TLS}").server.workers == WORKERS_MAX
    assert (read.keep_updates, read.keep_others, read.alert_command) == (KEEP_MIN, KEEP_MAX, ("true", "x"))


def test_the_networks_that_a_daemon_probes(tmp_path: Path) -> None:
    """A daemon on the loopback alone probes the loopback; with the keys, what they say."""
    lines = 'probe_networks = ["10.0.0.0/8", "2001:db8::/32"]\nprobe_networks_denied = ["10.9.0.0/16"]\n'
    read = server(tmp_path, f"{SERVER}{lines}{TLS}").server
    networks = networks_of(read, ["0.0.0.0"])
    asked = ("10.1.1.1", "10.9.1.1", "2001:db8::1", "192.0.2.1")
    assert [bool(networks.refusal(address)) for address in asked] == [False, True, False, True]
    read = server(tmp_path, f"{SERVER}probe_networks = {['10.0.0.1'] * NETWORKS_MAX}\n{TLS}").server
    assert len(networks_of(read, ["::"]).allowed) == NETWORKS_MAX
    read = server(tmp_path, f"{SERVER}{TLS}").server
    for own, is_local in ((["127.0.0.1", "::1"], True), (["127.0.0.1", "::"], False), (["192.0.2.1"], False)):
        assert networks_of(read, own).is_local is is_local


def test_the_bounds_of_the_log_and_of_changes(tmp_path: Path) -> None:
    """The limits themselves are accepted; without the keys they are the server's own constants."""
    least = f"keep_updates_octets = {KEEP_OCTETS_MIN}\nkeep_others_octets = {KEEP_OCTETS_MAX}\nhost_changes_burst = 1\n"
    rates = f"credential_changes_per_second = {CHANGES_PER_SECOND_MIN}\nhost_changes_per_second = {CHANGES_MAX}\n"
    read = server(tmp_path, f"{SERVER}{least}{rates}credential_changes_burst = {CHANGES_MAX}\n{TLS}").server
    assert (read.keep_updates_octets, read.keep_others_octets) == (KEEP_OCTETS_MIN, KEEP_OCTETS_MAX)
    assert (read.credential_changes_per_second, read.credential_changes_burst) == (CHANGES_PER_SECOND_MIN, CHANGES_MAX)
    assert (read.host_changes_per_second, read.host_changes_burst) == (CHANGES_MAX, 1)
    read = server(tmp_path, f"{SERVER}{TLS}").server
    kept = (read.keep_updates, read.keep_others, read.keep_updates_octets, read.keep_others_octets)
    assert LogBounds(*kept) == LogBounds()
    rates_read = ChangeRates(
        Rate(read.credential_changes_per_second, read.credential_changes_burst),
        Rate(read.host_changes_per_second, read.host_changes_burst),
    )
    assert rates_read == ChangeRates()


@pytest.mark.parametrize("seconds", [STORE_WAIT_SECONDS_MIN, STORE_WAIT_SECONDS_MAX])
def test_the_wait_for_a_store_may_be_short_or_long(tmp_path: Path, seconds: float) -> None:
    """The wait is shorter than the patience of clients; its default is the server's own constant."""
    assert server(tmp_path, f"{SERVER}store_wait_seconds = {seconds}\n{TLS}").server.store_wait_seconds == seconds
    assert server(tmp_path, f"{SERVER}{TLS}").server.store_wait_seconds == STORE_WAIT_SECONDS
    assert STORE_WAIT_SECONDS_MAX < REPLY_SECONDS


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ('session = "short"', "session = short needs update"),
        ('api = "localhost:4866"', "'localhost' is neither"),
        ('api = "0.0.0.0:4866"', "0.0.0.0 is not a loopback address"),
        ('agent = "192.0.2.1:4867"', "[host] agent: 192.0.2.1 is not a loopback address"),
        ('api = ""\nsocket = ""', "api and socket are both empty"),
        ('update = "192.0.2.2:4865"', "servers would connect to 192.0.2.1, not to 192.0.2.2"),
        ('update = "192.0.2.1"', "is not of the form address:port"),
        ("refresh_seconds = 0.5", "`float` >= 1.0"),
        (f"refresh_seconds = {REFRESH_SECONDS_MAX + 1}", "`float` <= 86400.0"),
        ("refresh_seconds = nan", "`float` >= 1.0"),
        ('zone = "two words"', "zone 'two words' is not a DNS label"),
        ('services = ["nodot"]', "service id 'nodot' is not of the form service.category"),
        (f"services = {[f's{n}.c' for n in range(257)]}", "services names 257; at most 256"),
        ("dns = 1", "host.dns is a value; it must be a section"),
        ('[host.dns]\nlisten = "0.0.0.0:53"', "0.0.0.0 is not a loopback address"),
        ('[host.dns]\nlisten = "192.0.2.1:53"', "put a resolver of yours in front of it"),
        ('[host.dns]\nlisten = "127.0.0.1"', "is not of the form address:port"),
        ('[host.dns]\nzone = "a b"', "host name label 'a b' is not a DNS label"),
        ("[host.dns]\nttl = -1", "`int` >= 0"),
        ("[host.dns]\nttl = 3601", "`int` <= 3600"),
        ('[host.dns]\nlisten_on = "127.0.0.1:53"', "[host.dns] has no key 'listen_on'"),
        ("refresh_seconds = inf", "`float` <= 86400.0"),
    ],
)
def test_a_host_is_told_what_is_wrong(tmp_path: Path, lines: str, wrong: str) -> None:
    """Each rule of [host] has its own sentence."""
    (told,) = problems(host, tmp_path, f"{HOST}{lines}\n{TLS}")
    assert wrong in told


def test_dns_is_where_the_file_says_so(tmp_path: Path) -> None:
    """Without its section there is no DNS; on a server the section needs an address, since a host may run there."""
    assert host(tmp_path, HOST + TLS).dns is None and server(tmp_path, SERVER + TLS).dns is None
    of_host, of_server = (
        host(tmp_path, f"{HOST}[host.dns]\n{TLS}").dns,
        server(tmp_path, f"{SERVER}[server.dns]\n{TLS}").dns,
    )
    assert of_host is not None and (of_host.listen, of_host.zone, of_host.ttl) == ("127.0.0.1:4853", "gns", 0)
    assert of_server is not None and (of_server.listen, of_server.zone) == ("", "gns")
    named = host(tmp_path, f'{HOST}zone = "North"\n[host.dns]\nzone = "Svc.example.org."\n{TLS}')
    assert named.dns is not None and (named.dns.zone, named.host.zone) == ("svc.example.org", "north")
    (told,) = problems(server, tmp_path, f'{SERVER}[server.dns]\nlisten = "192.0.2.1:53"\n{TLS}')
    assert told.startswith("[server.dns] listen: 192.0.2.1 is not a loopback address")


def test_a_host_without_servers_is_told(tmp_path: Path) -> None:
    """An empty list and a misspelt server are mistakes."""
    (told,) = problems(host, tmp_path, HOST.replace('"gns1"', "") + TLS)
    assert "servers is empty" in told
    (told,) = problems(host, tmp_path, HOST.replace('"gns1"', '"gns1", "a_b"') + TLS)
    assert told.startswith("[host] servers: host name label 'a_b' is not a DNS label")


@pytest.mark.parametrize(
    "lines",
    [
        'update = "192.0.2.1:4865"\nsession = "short"',
        'update = "0.0.0.0:4865"',
        'update = "[::]:4865"',
        'api = ""',
        'socket = ""\napi = "[::1]:4866"',
        f"refresh_seconds = {REFRESH_SECONDS_MAX}\n",
        "refresh_seconds = 1",
        'refresh_seconds = "auto"',
        f"services = {[f's{n}.c' for n in range(256)]}",
        'zone = "North-1"',
        "[host.dns]",
        '[host.dns]\nlisten = ""\nzone = "svc.Example.org."\nttl = 3600',
        '[host.dns]\nlisten = "[::1]:53"',
    ],
)
def test_a_host_may_be_set_up_so(tmp_path: Path, lines: str) -> None:
    """Everything that the descriptions promise is accepted."""
    assert host(tmp_path, f"{HOST}{lines}\n{TLS}").host.address == "192.0.2.1"


def test_the_path_of_a_socket_has_as_many_octets_as_the_kernel_takes(tmp_path: Path) -> None:
    """The longest path is accepted; a longer one is refused with both lengths."""
    longest = "/" + "s" * (SOCKET_OCTETS_MAX - 1)
    assert host(tmp_path, f'{HOST}socket = "{longest}"\n{TLS}').host.socket == longest
    (told,) = problems(host, tmp_path, f'{HOST}socket = "{longest}s"\n{TLS}')
    assert f"has {SOCKET_OCTETS_MAX + 1} octets; at most {SOCKET_OCTETS_MAX}" in told


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file means the same wherever the daemon is started from."""
    directory = tmp_path / "etc"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    (directory / "alert").touch(mode=0o755)
    (directory / "s.toml").write_text(f'{SERVER}alert_command = ["./alert"]\n{TLS}')
    (directory / "h.toml").write_text(f'{HOST}socket = "gns.sock"\n{TLS}')
    read = read_server_config(Path("etc/s.toml"))
    assert read.server.store == f"sqlite:///{directory}/gns.sqlite3"
    assert read.server.alert_command == (f"{directory}/alert",)
    assert (read.tls.certificate, read.tls.key) == (f"{directory}/a.crt", f"{directory}/a.key")
    assert read.tls.authority == f"{directory}/ca.crt"
    of_host = read_host_config(Path("etc/h.toml")).host
    assert (of_host.socket, of_host.state_directory) == (f"{directory}/gns.sock", f"{directory}/state")
    (directory / "s.toml").write_text(f'[server]\nstore = "postgresql://gns:secret@db/gns"\n{TLS}')
    assert read_server_config(directory / "s.toml").server.store == "postgresql+psycopg://gns:secret@db/gns"


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """A directory, a missing or unreadable file, and other encodings and formats are reported."""
    file = tmp_path / "d.toml"

    def told() -> str:
        with pytest.raises(ConfigProblem) as raised:
            read_server_config(file)
        return str(raised.value)

    assert told() == f"{file}: cannot be read: No such file or directory"
    file.mkdir()
    assert told() == f"{file}: cannot be read: Is a directory"
    file.rmdir()
    file.write_bytes(b'[server]\nname = "\xff"')
    assert "is not TOML: 'utf-8' codec" in told()
    for text in ("[server", f"a = {'[' * 100_000}", f"a = {'9' * 5000}"):
        file.write_text(text)
        assert f"{file}: is not TOML: " in told()
    if os.geteuid() != 0:
        file.chmod(0)
        assert told() == f"{file}: cannot be read: Permission denied"


def test_a_file_is_read_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: a longer file is refused, and an endless one is not read to its end."""
    text = SERVER + TLS
    assert server(tmp_path, text + "#" * (CONFIG_OCTETS_MAX - len(text))).server.keep_updates == 1_000_000
    (told,) = problems(server, tmp_path, text + "#" * (CONFIG_OCTETS_MAX + 1 - len(text)))
    assert told == f"has more than {CONFIG_OCTETS_MAX} octets; is it the right file?"
    with pytest.raises(ConfigProblem, match="has more than"):
        read_server_config(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("gns1", ("gns1", 4863)),
        ("GNS1.Example.ORG:5000", ("gns1.example.org", 5000)),
        ("192.0.2.1", ("192.0.2.1", 4863)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[2001:db8::1]", ("2001:db8::1", 4863)),
        ("[2001:db8:0::1]:65535", ("2001:db8::1", 65535)),
    ],
)
def test_a_server_is_named_in_many_ways(text: str, endpoint: tuple[str, int]) -> None:
    """Names and addresses are accepted with and without a port."""
    assert parse_server(text) == endpoint


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("gns1:0", "port 0 is not between"),
        ("gns1:65536", "port 65536 is not between"),
        ("gns1:", "'gns1:': the port is not a number"),
        ("gns1:gns", "'gns1:gns': the port is not a number"),
        ("2001:db8::1", "write an IPv6 address in brackets"),
        ("[gns1]:1", "'gns1' is neither"),
        ("999.1.1.1", "'999.1.1.1' is neither"),
        ("0.0.0.0", "is not one that a dependant can connect to"),
        ("", "is not a DNS label"),
        ("gns 1", "is not a DNS label"),
    ],
)
def test_a_server_that_cannot_be_meant(text: str, wrong: str) -> None:
    """The message quotes the text of the file."""
    with pytest.raises(InvalidName, match=re.escape(wrong)):
        parse_server(text)


def test_a_listener_may_be_everywhere() -> None:
    """Wildcards are for listening only."""
    assert parse_listen("0.0.0.0:1") == ("0.0.0.0", 1)
    assert parse_listen("[::]:4863") == ("::", SERVER_PORT)
    assert parse_listen("[::1]:4863") == ("::1", 4863)
    with pytest.raises(InvalidName):
        parse_listen("*:4863")


def test_how_logs_are_written_and_who_reads_metrics(tmp_path: Path) -> None:
    """The default is text for logs and authentication for metrics; a misspelt value is reported."""
    assert server(tmp_path, SERVER + TLS).log.format == host(tmp_path, HOST + TLS).log.format == "text"
    json = '[log]\nformat = "json"\n'
    assert server(tmp_path, SERVER + TLS + json).log.format == host(tmp_path, HOST + TLS + json).log.format == "json"
    assert server(tmp_path, SERVER + TLS).https.metrics == "known"
    told = problems(host, tmp_path, HOST + TLS + '[log]\nformat = "xml"\nlevel = "info"\n')
    assert any("[log] format: 'xml' is not one of text, json" in line for line in told)
    assert any("[log] has no key 'level'" in line for line in told)
    (told_of_metrics,) = problems(server, tmp_path, SERVER + '[server.https]\nmetrics = "all"\n' + TLS)
    assert "[server.https] metrics: 'all' is not one of known, open" in told_of_metrics


def test_the_ports_of_workers_end_where_ports_end(tmp_path: Path) -> None:
    """There must be a port for each possible worker."""
    last = PORT_MAX - WORKERS_MAX + 1

    def file(port: int) -> str:
        return f'{SERVER}[server.https]\nworker_ports = "127.0.0.1:{port}"\n{TLS}'

    assert server(tmp_path, file(last)).https.worker_ports == f"127.0.0.1:{last}"
    (told,) = problems(server, tmp_path, file(last + 1))
    assert f"at most {last}" in told


def test_balancers_and_names_of_the_https_port(tmp_path: Path) -> None:
    """Balancers are addresses or networks; without keys there is none, and the certificate's names suffice."""
    read = server(
        tmp_path, f'{SERVER}balancers = ["192.0.2.1", "2001:db8::/32"]\n[server.https]\nnames = ["gns"]\n{TLS}'
    )
    assert read.server.balancers == ("192.0.2.1", "2001:db8::/32") and read.https.names == ("gns",)
    read = server(tmp_path, SERVER + TLS)
    assert read.server.balancers == read.https.names == ()
    (told,) = problems(server, tmp_path, SERVER + 'balancers = ["192.0.2.1/24"]\n' + TLS)
    assert "[server] balancers" in told and "is not a network such as 192.0.2.0/24" in told


CHECK = '[[host.check]]\nservice = "a.b"\nport = 80\n'


def test_checks_are_read(tmp_path: Path) -> None:
    """[[host.check]]: names in canonical form, and the defaults of every check."""
    read = host(tmp_path, HOST + CHECK.replace("a.b", "A.B") + 'http = "/health"\naddress = "::ffff:10.0.0.1"\n' + TLS)
    assert read.checks == (CheckSettings("a.b", 80, "10.0.0.1", "/health"),)
    assert (read.checks[0].interval_seconds, read.checks[0].failures, read.checks[0].timeout_seconds) == (5.0, 3, 1.0)


def test_mistakes_in_checks_are_told(tmp_path: Path) -> None:
    """Each with what would be right."""
    told = problems(
        host,
        tmp_path,
        HOST
        + CHECK.replace("a.b", "a")
        + 'http = "health"\n'
        + CHECK.replace("80", "81")
        + 'http = "/"\ncommand = ["/no/such"]\ninterval_seconds = 0.1\n'
        + CHECK * 2
        + CHECK.replace("80", "0")
        + TLS,
    )
    expected = [
        "[host.check] service: service id 'a' is not of the form service.category",
        "[host.check] http: 'health' is no path",
        "[host.check] http and command exclude each other",
        "[host.check] command: there is no program '/no/such'",
        "[host.check] interval_seconds 0.1 is not between 0.2 and 3600",
        "[host.check] service: 2 checks of a.b at port 80; one command can do all",
        "[host.check] port: Expected `int` >= 1",
    ]
    assert sorted(begin for begin in expected if not any(line.startswith(begin) for line in told)) == [], told
    assert len(told) == len(expected), told


@pytest.mark.parametrize("more", [0, 1])
def test_a_host_has_a_bounded_number_of_checks(tmp_path: Path, more: int) -> None:
    """Checks are limited, because each costs a connection every few seconds."""
    text = "".join(CHECK.replace("80", str(1 + port)) for port in range(CONFIGURED_CHECKS_MAX + more))
    if more:
        problem = f"{CONFIGURED_CHECKS_MAX + 1} sections [[host.check]]; at most {CONFIGURED_CHECKS_MAX}"
        assert problems(host, tmp_path, HOST + text + TLS) == [problem]
    else:
        assert len(host(tmp_path, HOST + text + TLS).checks) == CONFIGURED_CHECKS_MAX


def test_development_mode_serves_the_loopback_only(tmp_path: Path) -> None:
    """Each other address is refused by its key, and so is the default, which is every address."""
    line = "development = true\n"
    with pytest.raises(ConfigProblem, match=r"\[server\] listen: \[::\]:4863 is not on a loopback address"):
        server(tmp_path, SERVER + line + TLS)
    listen = 'listen = ["127.0.0.1:1", "192.0.2.1:2"]\n'
    https = '[server.https]\nlisten = ["0.0.0.0:3", "[::1]:4"]\nworker_ports = "192.0.2.1:5"\n'
    with pytest.raises(ConfigProblem) as caught:
        server(tmp_path, SERVER + line + listen + https + TLS)
    assert [text in str(caught.value) for text in ("127.0.0.1:1", "192.0.2.1:2", "0.0.0.0:3", "[::1]:4", ".1:5")] == [
        False,
        True,
        True,
        False,
        True,
    ]
    good = server(tmp_path, SERVER + line + 'listen = ["127.0.0.1:1", "[::1]:1"]\n' + TLS)
    assert good.server.development
    with pytest.raises(ConfigProblem, match=r"\[host\] address: '192.0.2.1' is not a loopback address"):
        host(tmp_path, HOST + line + TLS)
    with pytest.raises(ConfigProblem, match=r"\[host\] address: 'auto' is not a loopback address"):
        host(tmp_path, HOST.replace('address = "192.0.2.1"\n', "") + line + TLS)
    here = HOST.replace("192.0.2.1", "127.0.0.1")
    with pytest.raises(ConfigProblem, match=r"\[host\] update: 0.0.0.0:4865 is not on a loopback address"):
        host(tmp_path, here + line + 'update = "0.0.0.0:4865"\n' + TLS)
    assert host(tmp_path, here + line + TLS).host.development
