"""Files and command lines that are damaged, mistyped or made up: the program says what is wrong, and nothing worse."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from compass.admin.main import cli as opengnsadmin
from compass.admin.shell.config import Given, SettingsProblem, read_settings
from compass.admin.shell.context import AdminContext
from compass.admin.topology import file
from compass.agent.registration.journal import RegistrationJournal
from compass.agent.replica.disk_cache import (
    _HEADER,
    FORMAT,
    MAGIC,
    Cache,
    CachedReplica,
    ReplicaContent,
    Unusable,
    packed,
    unpacked,
)
from compass.agent.replica.replica import Replica
from compass.agent.replica.wanted_services import WantedServices
from compass.cli.main import cli as opengnsc
from compass.daemons.config.file import ConfigProblem
from compass.daemons.config.reader import read_host_config, read_server_config
from compass.daemons.config.settings import HostConfig, ServerConfig
from compass.daemons.config.settings import example as example_config
from compass.model.host_api import LocalRegister
from compass.model.names import parse_service_id
from compass.system.machine import Machine
from tests.fuzz.http import critical
from tests.support.agent_world import view_of
from tests.support.fake_machine import FakeMachine
from tests.support.virtual_world import World
from tests.wire.examples import BACKED, SNAPSHOT

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TOPOLOGY = """
[category.web]
depends_on = ["openuss"]
services = ["portal", "forum"]

[category.openuss]
services = ["northeast"]
backup = "emergency.rescue"
probe = "http:/health"
probe_timeout_seconds = 0.5
slow = "notify"

[category.rescue]
services = ["emergency"]
"""
SETTINGS = 'server = "127.0.0.1:1"\ncertificate = "a.crt"\nkey = "a.key"\nauthority = "b.crt"\nserver_name = "x"\n'
BITS = (
    '"',
    "[",
    "]",
    "=",
    "\n",
    "#",
    "'''",
    "{a=1}",
    "nan",
    "-1",
    "1e400",
    "true",
    "\x00",
    "é",
    "\u202e",
    "[[x]]",
    '""',
)
TOMLS = (
    example_config(ServerConfig).replace("# ", ""),
    example_config(ServerConfig),
    example_config(HostConfig),
    TOPOLOGY,
    SETTINGS,
)


@st.composite
def toml(draw: st.DrawFn) -> bytes:
    """A good file with some lines gone, doubled or changed, or with octets that do not belong."""
    lines = draw(st.sampled_from(TOMLS)).splitlines()
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del lines[at]
            lines = lines or [""]
        elif kind == 1:
            lines.insert(at, draw(st.sampled_from(lines)))
        elif kind == 2:
            cut = draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:cut] + draw(st.sampled_from(BITS)) + lines[at][cut:]
        else:
            key = lines[at].partition("=")[0].strip("# ") or "x"
            lines[at] = f"{key} = {draw(st.sampled_from((*BITS, '[1]', '[[]]', '10', '{}', '1979-05-27')))}"
    data = "\n".join(lines).encode()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=6)) + data[at:]
    return data


@contextmanager
def written(data: bytes, name: str) -> Iterator[Path]:
    """A file with that content, in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, name)
        path.write_bytes(data)
        yield path


@QUICK
@given(data=toml())
@example(data=b"[" * 100_000)
@example(data=b"a = " + b"[" * 100_000)
@example(data=b"\xff")
@pytest.mark.parametrize("read", [read_server_config, read_host_config])
def test_configuration_files(read: Callable[[Path], Any], data: bytes) -> None:
    """A file is read, or all that is wrong with it is listed."""
    with written(data, "x.toml") as path:
        try:
            assert isinstance(read(path), ServerConfig | HostConfig)
        except ConfigProblem as problem:
            assert problem.problems and all(problem.problems)


@QUICK
@given(data=toml())
@example(data=b"[" * 100_000)
@example(data=b"server = " + b"[" * 100_000)
@example(data=b"\xff")
def test_settings_of_administrators(data: bytes) -> None:
    """Likewise what opengnsadmin reads."""
    with written(data, "admin.toml") as path:
        try:
            read_settings(Given(config=str(path)), {}, path.parent)
        except SettingsProblem as problem:
            assert problem.problems and all(problem.problems)


@QUICK
@given(data=toml())
@example(data=b"category = " + b"[" * 100_000)
@example(data=b"[category.x]\nprobe_timeout_seconds = nan")
def test_topology_files(data: bytes) -> None:
    """A topology is read and can be written and read again, or each mistake is listed with its line."""
    text = data.decode("utf-8", "replace")
    try:
        found = file.parse(text)
    except file.TopologyProblem as problem:
        assert all(1 <= mistake.line <= text.count("\n") + 1 and mistake.message for mistake in problem.mistakes)
        return
    again = file.parse(file.dump(found.rows))
    assert set(map(repr, again.rows)) == set(map(repr, found.rows))


CONTENT = CachedReplica("store", ("portal.web",), SNAPSHOT, True, ("portal.web",))
CONTENTS = tuple(packed(content) for content in (CONTENT, msgspec.structs.replace(CONTENT, loaded=False)))


def wounded(data: bytes, wounds: list[tuple[int, int]], cut: int, tail: bytes) -> bytes:
    """Octets overwritten, the end cut off, something else behind it."""
    octets = bytearray(data)
    for place, octet in wounds:
        octets[place % len(octets)] = octet
    return bytes(octets[: max(0, len(octets) - cut)]) + tail


WOUNDS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4)
CUTS = st.sampled_from((0, 0, 0, 1, 50))
TAILS = st.sampled_from((b"", b"", b"", b"\n", b"\xff", b"{}"))


@QUICK
@given(data=st.sampled_from(CONTENTS), wounds=WOUNDS, cut=CUTS, tail=TAILS)
def test_catalogue_caches(data: bytes, wounds: list[tuple[int, int]], cut: int, tail: bytes) -> None:
    """A cache that is not just as it was written is set aside and not served."""
    damaged = wounded(data, wounds, cut, tail)
    with written(damaged, "catalogue.msgpack") as path:
        found = Cache(
            Clock(), path.parent, ReplicaContent(Replica(), WantedServices(RegistrationJournal(path.parent)))
        ).load()
        assert (found is None) == (damaged != data)
        assert [other.name for other in path.parent.iterdir()] == [path.name if found else "catalogue.corrupt-1"]


def sealed(body: bytes) -> bytes:
    """A cache file with a true checksum over whatever it is."""
    return _HEADER.pack(MAGIC, FORMAT, len(body), hashlib.sha256(body).digest()) + body


def checked_cache(data: bytes) -> None:
    """A view is refused by name, or what is in it can be asked without harm."""
    try:
        cached = unpacked(data)
    except Unusable as problem:
        assert str(problem)
        return
    replica = Replica()
    replica.restore(cached.store, cached.services, cached.held)
    view = view_of(replica)
    for name in ("portal.web", "openuss", "chinaserver.openuss", "spare.emergency"):
        view.resolve(name)
        if "." in name:
            view.dependencies(parse_service_id(name))
    packed(CachedReplica(replica.store, (), replica.held(), True, ()))


@QUICK
@given(wounds=WOUNDS, cut=CUTS, tail=TAILS)
@example(wounds=[], cut=0, tail=b"\xc1")
def test_caches_with_a_true_checksum_over_nonsense(wounds: list[tuple[int, int]], cut: int, tail: bytes) -> None:
    """The file may be that of another program."""
    checked_cache(sealed(wounded(CONTENTS[0][_HEADER.size :], wounds, cut, tail)))


def registrations() -> bytes:
    """A book as the program writes it."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(1, Path(directory))
        tokens = world.declare({"web": ["portal.web"]})
        world.server()
        host = world.host("h")
        world.run(1.0)
        for port, more in ((8000, {"metadata": {"a": "b"}, "weight": 3}), (8001, {"hold": True})):
            world.wait(host.daemon.register(LocalRegister("portal.web", port, tokens["portal.web"], **more)))
        return (Path(directory) / "h" / "registrations.json").read_bytes()


BOOK = registrations()
MACHINE = Machine(host="h")
"""Machine that has written the journal."""


@QUICK
@given(wounds=WOUNDS, cut=CUTS, tail=TAILS)
@example(wounds=[(5, 0xFF)], cut=0, tail=b"")
def test_books_of_registrations(wounds: list[tuple[int, int]], cut: int, tail: bytes) -> None:
    """A journal is read, or set aside; never half of it."""
    with written(wounded(BOOK, wounds, cut, tail), "registrations.json") as path:
        book = RegistrationJournal(path.parent, MACHINE)
        book.load()
        names = sorted(other.name for other in path.parent.iterdir())
        foreign = ["registrations.foreign-1"] if book.problem else []
        assert names == ([*foreign, "registrations.json"] if book.last_epoch else ["registrations.corrupt-1"])
        assert book.next_epoch(1.0) > 0


@settings(QUICK, max_examples=4)
@given(wounds=WOUNDS.filter(bool))
def test_daemons_that_find_a_damaged_book(wounds: list[tuple[int, int]]) -> None:
    """A daemon starts with whatever it finds, settles with a server, and takes registrations."""
    with tempfile.TemporaryDirectory() as directory, critical() as found:
        world = World(1, Path(directory))
        tokens = world.declare({"web": ["portal.web"]})
        world.server()
        (world.directory / "h").mkdir()
        (world.directory / "h" / "registrations.json").write_bytes(wounded(BOOK, wounds, 0, b""))
        host = world.host("h")
        world.run(3.0)
        outcome = world.wait(host.daemon.register(LocalRegister("portal.web", 9000, tokens["portal.web"])))
        assert outcome.state == "up"
    assert not found


LINES = (
    "portal.web web 10.0.0.1:80 10.0.0.1 80 0 -1 99999999999999999999 nan 1h -5d a.b.c . : [::1]:80 updates security",
    "--json --help -h --api --server --config --limit --within --state --yes --prune --overlap --weight --follow",
    "--credential --credential-file --metadata a=b = --pid --address --last --barred --backup --probe /nonexistent",
    "/dev/null up down reported é \x1b[2J \udcff",
)
"""A command line can hold anything but NUL."""
WORDS = [word for line in LINES for word in line.split(" ")]


def names_of(group: click.Command) -> list[tuple[str, ...]]:
    """Every command below, as the words that lead to it."""
    if not isinstance(group, click.Group):
        return [()]
    return [(), *((name, *rest) for name, sub in group.commands.items() for rest in names_of(sub))]


def invoked(cli: click.Command, arguments: list[str], **more: Any) -> None:
    """Run a program once: it ends with a status and a word about it, not with an exception."""
    result = CliRunner().invoke(cli, arguments, **more)
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exc_info)
    assert 0 <= result.exit_code < 128
    assert result.exit_code == 0 or result.output


CLIENT = [words for words in names_of(opengnsc) if words != ("run",)]
ADMIN = names_of(opengnsadmin)
TYPED = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)
REST = st.lists(st.sampled_from(WORDS) | TYPED, max_size=5)


@QUICK
@given(command=st.sampled_from(CLIENT), rest=REST)
def test_arguments_of_opengnsc(command: tuple[str, ...], rest: list[str]) -> None:
    """Whatever is typed, with no daemon there."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {"OPENGNS_API": f"unix:{directory}/none", "OPENGNS_CREDENTIAL": "t"}
        invoked(opengnsc, [*command, *rest], env=environment)


@QUICK
@given(command=st.sampled_from(ADMIN), rest=REST)
def test_arguments_of_opengnsadmin(command: tuple[str, ...], rest: list[str]) -> None:
    """Whatever is typed, with no certificate there; what it writes, it writes to the named place."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        try:
            context = AdminContext(FakeMachine(Path(directory)))
            invoked(opengnsadmin, ["--server", "127.0.0.1:1", *command, *rest], obj=context, input="")
        finally:
            os.chdir(before)


def test_the_examples_are_good() -> None:
    """The fuzzers begin with what is read without a complaint."""
    assert len(file.parse(TOPOLOGY).rows) == 8
    assert unpacked(CONTENTS[0]) == CONTENT and BACKED.row in SNAPSHOT.rows
    with written(BOOK, "registrations.json") as path:
        book = RegistrationJournal(path.parent, MACHINE)
        book.load()
        assert len(book.all()) == 2
