"""The shared view, written by the daemon's part and read by the library's (protocols/shared-view.md)."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from compass.agent.replica.shared_view import LOOK_SECONDS, SharedMemoryWriter
from compass.client.core.errors import NoneRegistered, NotLoaded, UnknownName
from compass.client.core.shared_view import SharedView
from compass.model.rows import Category, Dependency, Listener, Row, Service, Snapshot
from compass.wire.shared_view import (
    CONTENT_HEADER,
    INDEX_OCTETS,
    NotShared,
    Shared,
    check_index,
    empty_index,
    pack,
    unpack,
)
from tests.e2e.processes import ROOT

SERVICE, NEEDED = "portal.web", "chinaserver.openuss"


def shared(*ports: int, revision: int = 10, **more: str) -> Shared:
    rows: list[Row] = [Category("web"), Service(SERVICE), Category("openuss"), Service(NEEDED)]
    rows += [Dependency("web", "openuss")]
    rows += [Listener(NEEDED, "192.0.2.1", port, "up", 1.0, 1, "web1.example") for port in ports]
    topics = {"web": 1, "openuss": 2, NEEDED: revision}
    return Shared("web1.example", "", "store", (SERVICE,), Snapshot(revision, topics, rows))


class Daemon:
    """A publisher with what it publishes."""

    def __init__(self, directory: Path, told: Shared | None = None, group: int | None = None) -> None:
        self.clock = Clock()
        self.told = told
        self.publisher = SharedMemoryWriter(self.clock, directory, group, self)
        self.publisher.start()

    def shared(self) -> Shared | None:
        return self.told

    def tell(self, told: Shared) -> None:
        self.told = told
        self.publisher.changed()
        self.clock.advance(0)


def ports_of(view: SharedView, name: str = "openuss") -> list[int]:
    return sorted(peer.port for peer in view.listeners(name))


def test_a_lookup_is_right_with_the_next_turn_of_the_daemon(tmp_path: Path) -> None:
    """V1, and no system call in between: the same dictionary answers until the generation moves."""
    daemon = Daemon(tmp_path, shared(80))
    view = SharedView(tmp_path, SERVICE)
    assert ports_of(view) == [80]
    assert view.listeners("openuss") is view.listeners("openuss")
    daemon.tell(shared(80, 81, revision=11))
    assert ports_of(view) == [80, 81]
    assert ports_of(view, NEEDED) == [80, 81]


def test_nothing_known_nothing_such_and_nothing_registered_are_three_answers(tmp_path: Path) -> None:
    """P5, V3: generation 0 is "nothing is known yet"."""
    daemon = Daemon(tmp_path)
    with pytest.raises(NotLoaded, match="nothing has been shared"):
        SharedView(tmp_path, SERVICE)
    daemon.tell(shared())
    view = SharedView(tmp_path, SERVICE)
    with pytest.raises(NoneRegistered):
        view.listeners("openuss")
    with pytest.raises(UnknownName):
        view.listeners("nonesuch")
    with pytest.raises(NotLoaded, match=r"shop\.store"):
        SharedView(tmp_path, "shop.store").listeners("openuss")
    with pytest.raises(NotLoaded, match="does opengnscd run here"):
        SharedView(tmp_path / "elsewhere", SERVICE)


def test_a_reader_outlives_the_daemon_and_goes_on_with_the_next_one(tmp_path: Path) -> None:
    """V2 and V4: the generation never decreases, and the mapped index is the same file."""
    first = Daemon(tmp_path, shared(80))
    view = SharedView(tmp_path, SERVICE)
    first.publisher.stop()
    assert ports_of(view) == [80]
    second = Daemon(tmp_path, shared(90, revision=12))
    assert ports_of(view) == [90]
    second.tell(shared(91, revision=13))
    assert ports_of(view) == [91]


def test_a_daemon_that_died_between_the_two_steps_loses_nothing(tmp_path: Path) -> None:
    """V3: after a crash before the generation was published, the next daemon's generation is later than both."""
    first = Daemon(tmp_path, shared(80))
    view = SharedView(tmp_path, SERVICE)
    assert ports_of(view) == [80]
    (tmp_path / "content").write_bytes(pack(shared(81, revision=11), 2))
    assert ports_of(view) == [80]
    first.publisher.stop()
    Daemon(tmp_path, shared(82, revision=12))
    assert ports_of(view) == [82]
    assert unpack((tmp_path / "content").read_bytes())[1] == 3


def test_what_cannot_be_read_is_made_anew_by_the_daemon_and_told_by_readers(tmp_path: Path) -> None:
    """Damage costs the shared view for a moment, nothing else."""
    for name, octets in (("index", b"short"), ("index", b"x" * INDEX_OCTETS), ("content", b"OGNSVIEW and nothing")):
        Daemon(tmp_path, shared(80)).publisher.stop()
        (tmp_path / name).write_bytes(octets)
        with pytest.raises(NotLoaded):
            SharedView(tmp_path, SERVICE)
        Daemon(tmp_path, shared(81)).publisher.stop()
        assert ports_of(SharedView(tmp_path, SERVICE)) == [81]


def test_a_directory_that_cannot_be_written_costs_the_view_and_not_the_daemon(tmp_path: Path) -> None:
    """The place is taken by a file."""
    (tmp_path / "taken").write_text("")
    daemon = Daemon(tmp_path / "taken", shared(80))
    daemon.tell(shared(81))
    daemon.clock.advance(LOOK_SECONDS)
    assert not daemon.publisher.published
    daemon.publisher.stop()


def test_only_the_group_may_read_when_there_is_one(tmp_path: Path) -> None:
    """And only the daemon may write, with a group or without."""
    for group, modes in ((None, (0o755, 0o644, 0o644)), (os.getgid(), (0o750, 0o640, 0o640))):
        directory = tmp_path / str(group)
        Daemon(directory, shared(80), group)
        places = (directory, directory / "index", directory / "content")
        assert tuple(stat.S_IMODE(place.stat().st_mode) for place in places) == modes


def test_every_damage_of_a_content_is_found() -> None:
    """V3: a bit turned, an octet missing or too many; and the header of a later format is named."""
    whole = pack(shared(80), 7)
    assert unpack(whole) == (shared(80), 7)
    chance = random.Random(1)
    for _ in range(300):
        damaged = bytearray(whole)
        place = chance.randrange(len(damaged))
        if 12 <= place < 24:
            continue  # The reserved octets and the generation: any number is one.
        damaged[place] ^= 1 << chance.randrange(8)
        with pytest.raises(NotShared):
            unpack(bytes(damaged))
    for cut in (whole[:-1], whole + b"x", whole[: CONTENT_HEADER.size], b""):
        with pytest.raises(NotShared):
            unpack(cut)
    later = bytearray(empty_index())
    later[8] = 2
    with pytest.raises(NotShared, match="format 2"):
        check_index(bytes(later))


def test_readers_in_threads_never_see_half_of_a_change(tmp_path: Path) -> None:
    """Whatever they read was published whole, and never an older one after a newer."""
    daemon = Daemon(tmp_path, shared(1000, 2000, revision=1000))
    views = [SharedView(tmp_path, SERVICE) for _ in range(2)]
    wrong: list[list[int]] = []
    over = threading.Event()

    def read(view: SharedView) -> None:
        last = 0
        while not over.is_set():
            ports = ports_of(view)
            if len(ports) != 2 or ports[1] != ports[0] + 1000 or ports[0] < last:
                wrong.append(ports)
            last = ports[0]

    readers = [threading.Thread(target=read, args=(view,)) for view in (*views, views[0])]
    for reader in readers:
        reader.start()
    for step in range(1, 200):
        daemon.tell(shared(1000 + step, 2000 + step, revision=1000 + step))
    over.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert all(ports_of(view) == [1199, 2199] for view in views)


PUBLISH = """
import sys
from pathlib import Path
from tests.agent.replica.test_shared_view import Daemon, shared
daemon = Daemon(Path(sys.argv[1]), shared(1000, 2000))
print("begun", flush=True)
for step in range(1, 1_000_000):
    daemon.tell(shared(1000 + step % 1000, 2000 + step % 1000))
"""


def test_a_daemon_killed_in_the_middle_leaves_a_whole_view(tmp_path: Path) -> None:
    """V3 with real signals: what is there can be read, and the next daemon goes on from it."""
    before = 0
    for _ in range(5):
        command = [sys.executable, "-c", PUBLISH, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert process.stdout is not None
        process.stdout.readline()
        view = SharedView(tmp_path, SERVICE)
        threading.Event().wait(random.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        low, high = ports_of(SharedView(tmp_path, SERVICE))
        assert high == low + 1000
        assert ports_of(view) == [low, high] or ports_of(view)[1] == ports_of(view)[0] + 1000
        generation = unpack((tmp_path / "content").read_bytes())[1]
        assert generation > before
        before = generation
