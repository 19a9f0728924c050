"""Histories of real runs: files of lines, and what `opengnsc watch --json` prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from compass.cli.output import as_json
from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import dependencies_of
from compass.model.host_api import LocalEvent
from compass.model.rows import Change
from tests.histories.checker import check
from tests.histories.events import Logged, Received, View
from tests.histories.reading import WatchReader, line_of, read, write
from tests.histories.test_checker import BEGINNING, LIFE, SERVICE, USER, a_run, log_of, without

ROOT = Path(__file__).parents[2]


def test_a_history_comes_back_from_its_files_as_it_was(tmp_path: Path) -> None:
    """The records of several machines are one history again, in the order of time."""
    history = a_run()
    names = sorted({event.who for event in history})
    for name in names:
        write(tmp_path / name, [event for event in history if event.who == name])
    again = read(*(tmp_path / name for name in names))
    assert sorted(map(line_of, again)) == sorted(map(line_of, history))
    assert [event.at for event in again] == sorted(event.at for event in history)
    assert check(again) == []


def test_a_line_that_is_no_event_is_named(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"event": "nothing", "at": 1, "who": "x"}\n')
    with pytest.raises(msgspec.ValidationError, match="nothing"):
        read(tmp_path / "lines")


@pytest.mark.parametrize(("broken", "status"), [(False, 0), (True, 1)])
def test_recorded_runs_are_checked_from_the_command_line(tmp_path: Path, broken: bool, status: int) -> None:
    write(tmp_path / "run", without(a_run(), Received, number=2) if broken else a_run())
    command = [sys.executable, "-m", "tests.histories", str(tmp_path / "run")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == status, ended.stderr
    assert ("P3 at h2" in ended.stdout) == broken


def test_what_a_watching_program_prints_is_read_as_views() -> None:
    """Each line of `opengnsc watch --json` becomes what is known from then on, and the log agrees with it."""
    changes = log_of([*BEGINNING, *LIFE])
    catalogue, reader, views = Catalogue(), WatchReader("h2"), list[View]()
    for change in changes:
        catalogue = catalogue.apply(change)
        data = dependencies_of(catalogue, USER) if change.revision <= len(BEGINNING) else change
        kind: Literal["snapshot", "change"] = "snapshot" if change.revision <= len(BEGINNING) else "change"
        line = as_json(LocalEvent(kind, change.revision, data), indent=None).encode()
        views += reader.read(line, float(change.revision))
    assert [len(view.listeners) for view in views if view.service == SERVICE][-6:] == [1, 1, 1, 1, 0, 1]
    logged = [Logged(99.0, "gns1", change) for change in changes]
    assert check([*views, *logged]) == []
    wrong = msgspec.structs.replace(views[-1], listeners=())
    assert {violation.promise for violation in check([*views, wrong, *logged])} == {"P3", "P5"}


def test_a_service_that_is_not_listed_any_more_is_not_empty_but_unknown() -> None:
    """P5: the end of a dependency empties nothing."""
    reader, catalogue = WatchReader("h2"), Catalogue()
    for change in log_of([*BEGINNING, *LIFE]):
        catalogue = catalogue.apply(change)
    before = LocalEvent("snapshot", 11, dependencies_of(catalogue, USER))
    assert [view.held for view in reader.read(as_json(before, indent=None).encode(), 1.0)] == [True]
    [row] = [change.row for change in log_of(BEGINNING) if change.operation == "dependency-add"]
    catalogue = catalogue.apply(Change(12, 5, 0.0, "dependency-remove", row, True))
    after = LocalEvent("snapshot", 12, dependencies_of(catalogue, USER))
    assert [view.held for view in reader.read(as_json(after, indent=None).encode(), 2.0)] == [False]
