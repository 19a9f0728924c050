"""Hooks and templates with real commands and real files: their input, and their isolation from the daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from twisted.logger import capturedLogs

from compass.agent.hooks.hook import VARIABLE_OCTETS_MAX, HookEvent, HookSettings, environment_of
from compass.agent.hooks.runner import HookRunner, reactions_of
from compass.agent.hooks.subprocesses import OUTPUT_OCTETS_MAX, SHOWN_OCTETS_MAX, CommandRunner
from compass.agent.hooks.template import TemplateSettings
from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.host_api import ReactionStatus
from compass.model.rows import Category, Listener, Row, Service
from tests.e2e.processes import eventually
from tests.support.reactor_thread import ReactorThread

QUICK = {"quiet_seconds": 0.0, "quiet_seconds_max": 0.0}
NAME = "chinaserver.openuss"


def listener(port: int, state: Any = "up", service: str = NAME, **more: Any) -> Listener:
    return Listener(service, "192.0.2.7", port, state, 0.0, 1, **more)


def sight(*rows: Row, revision: int = 7) -> LookupScope:
    """Return the catalogue of a host whose services depend on openuss."""
    world: list[Row] = [Category("openuss", "rescue.backup"), Category("backup")]
    world += [Service(NAME), Service("rescue.backup")]
    return LookupScope(
        catalogue_of([*world, *rows], {}, revision), frozenset({"openuss"}), frozenset({"rescue.backup"})
    )


@pytest.fixture(scope="module")
def thread() -> Iterator[ReactorThread]:
    """A real reactor."""
    thread = ReactorThread()
    yield thread
    thread.stop()


class Host:
    """Part of a daemon that hooks and templates use: a zone, and a catalogue for lookups."""

    def __init__(self, thread: ReactorThread, directory: Path, reactions: Sequence[Any]) -> None:
        self._thread = thread
        self._sight: LookupScope | None = None
        hooks = [one for one in reactions if isinstance(one, HookSettings)]
        templates = [one for one in reactions if isinstance(one, TemplateSettings)]
        self.reactions: HookRunner = thread.call(
            lambda: reactions_of(thread.reactor, hooks, templates, directory / "state", "h1.example.net", "b")
        )
        thread.call(self.reactions.start, self)

    def sight(self) -> LookupScope | None:
        return self._sight

    def sees(self, sight: LookupScope | None) -> None:
        """This is what may be looked up from now on."""
        self._sight = sight
        self._thread.call(self.reactions.changed)

    def status(self) -> list[ReactionStatus]:
        """Return the status of all hooks and templates."""
        return list(self._thread.call(self.reactions.status))

    def is_so(self, what: Callable[[ReactionStatus], bool], words: str, number: int = 0) -> ReactionStatus:
        """Wait until one of them is."""
        return eventually(lambda: (now := self.status()[number]) if what(self.status()[number]) else None, words)

    def turned(self, turns: int, number: int = 0) -> ReactionStatus:
        """Wait until a hook has had a number of turns and is idle."""
        return self.is_so(lambda now: now.turns >= turns and now.state != "running", f"{turns} turns", number)

    def stop(self) -> None:
        """The daemon stops."""
        self._thread.call(self.reactions.stop)


@pytest.fixture
def host(thread: ReactorThread, tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Makes hosts with these hooks and templates."""
    made: list[Host] = []

    def make(*reactions: Any) -> Host:
        made.append(Host(thread, tmp_path, reactions))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def hook(script: str, *arguments: str, **more: Any) -> HookSettings:
    return HookSettings(("openuss",), ("/bin/sh", "-c", script, "hook", *arguments), "tell", **(QUICK | more))


def template(tmp_path: Path, text: str, **more: Any) -> TemplateSettings:
    (tmp_path / "source.j2").write_text(text)
    return TemplateSettings(("openuss",), str(tmp_path / "source.j2"), str(tmp_path / "target"), **(QUICK | more))


LINES = "{% for peer in pool.listeners %}\n{{ peer.endpoint }}\n{% endfor %}\n"


def test_a_hook_gets_all_as_json_and_a_summary_in_its_environment(host: Callable[..., Host], tmp_path: Path) -> None:
    """A change of a category runs a command; a script of three lines needs no JSON."""
    here = host(hook(f"cat > {tmp_path}/json; env | grep ^OPENGNS_ | sort > {tmp_path}/environment"))
    here.sees(sight(listener(1), listener(2, "draining"), revision=41))
    assert here.turned(1).state == "idle"
    told = json.loads((tmp_path / "json").read_bytes())
    assert (told["revision"], told["reason"], told["changed"], told["host"]) == (
        41,
        "start",
        ["openuss"],
        "h1.example.net",
    )
    pool = told["pools"]["openuss"]
    assert pool["source"] == "service"
    assert [peer["endpoint"] for peer in pool["listeners"]] == ["192.0.2.7:1"]
    assert [(peer["port"], peer["state"]) for peer in pool["others"]] == [(2, "draining")]
    assert [service["name"] for service in pool["services"]] == [NAME]
    assert (tmp_path / "environment").read_text().splitlines() == [
        "OPENGNS_CHANGED=openuss",
        "OPENGNS_HOOK=tell",
        "OPENGNS_ON=openuss",
        "OPENGNS_REASON=start",
        "OPENGNS_REVISION=41",
        "OPENGNS_USABLE=openuss=1",
    ]
    here.sees(sight(revision=42))
    here.turned(2)
    # That it is empty now has a number: it is a statement, and no accident.
    assert json.loads((tmp_path / "json").read_bytes())["pools"]["openuss"]["source"] == "none"


def test_nothing_is_done_on_what_is_not_known(host: Callable[..., Host], tmp_path: Path) -> None:
    """P5: a view that is not loaded, and a name that is not known here, are not an empty list."""
    there = template(tmp_path, LINES)
    (tmp_path / "target").write_text("192.0.2.7:1\n")
    elsewhere = HookSettings(("openuso",), ("/bin/false",), **QUICK)  # type: ignore[arg-type]
    here = host(elsewhere, there)
    here.sees(None)
    assert [one.state for one in here.status()] == ["withheld", "withheld"]
    here.sees(sight(listener(1)))
    assert here.turned(1, number=1).state == "idle"
    withheld = here.status()[0]
    assert (withheld.state, withheld.turns) == ("withheld", 0)
    assert "no service of this host depends on category openuso" in withheld.problem
    # The category is gone from sight, which says nothing of its listeners.
    here.sees(LookupScope(Catalogue(revision=9), frozenset()))
    assert here.status()[1].state == "withheld"
    assert (tmp_path / "target").read_text() == "192.0.2.7:1\n"


def test_many_changes_are_one_turn_and_turns_do_not_overlap(host: Callable[..., Host], tmp_path: Path) -> None:
    """Serialised and coalesced: at most one runs and one waits; the last turn sees what is true at the end."""
    lock = tmp_path / "lock"
    script = f"mkdir {lock} || echo overlap >> {tmp_path}/log; cat > {tmp_path}/json; sleep 0.2; rmdir {lock}"
    here = host(hook(script))
    here.sees(sight(listener(1)))
    here.is_so(lambda now: now.state == "running", "it runs")
    for port in range(2, 12):
        here.sees(sight(listener(port), revision=port))
    assert here.turned(2).turns == 2
    assert not (tmp_path / "log").exists()
    told = json.loads((tmp_path / "json").read_bytes())
    assert told["revision"] == 11
    assert [peer["port"] for peer in told["pools"]["openuss"]["listeners"]] == [11]


def test_load_is_no_change_and_neither_is_what_is_again_as_it_was(host: Callable[..., Host], tmp_path: Path) -> None:
    """A listener that reports how busy it is does not have programs reloaded, and nor does one that blinked."""
    here = host(hook("exit 0", quiet_seconds=0.3, quiet_seconds_max=5.0), hook("exit 0"))
    here.sees(sight(listener(1)))
    here.turned(1)
    here.turned(1, number=1)
    here.sees(sight(listener(1, load=0.5), revision=8))
    here.sees(sight(listener(1, "suspect"), revision=9))
    here.sees(sight(listener(1), revision=10))
    here.turned(2, number=1)
    here.is_so(lambda now: now.state == "idle", "it has nothing to do")
    assert here.status()[0].turns == 1


def test_a_hook_that_fails_is_told_and_tried_again(host: Callable[..., Host], tmp_path: Path) -> None:
    """The status shows the failures of a hook with its output until a run succeeds."""
    here = host(
        hook(f'echo "no such luck" >&2; test -e {tmp_path}/luck || exit 3; echo $OPENGNS_REASON > {tmp_path}/out')
    )
    here.sees(sight(listener(1)))
    failed = here.turned(1)
    assert (failed.state, failed.problem) == ("failed", "/bin/sh ended with status 3: no such luck")
    (tmp_path / "luck").touch()
    worked = here.is_so(lambda now: now.state == "idle", "it works again")
    assert (worked.problem, worked.failures) == ("", 0)
    assert (tmp_path / "out").read_text() == "retry\n"


def test_a_hook_that_hangs_is_ended_and_all_that_it_has_started(host: Callable[..., Host], tmp_path: Path) -> None:
    """Time-limited, with its children, though they care for no SIGTERM; another hook has its turn meanwhile."""
    script = f'trap "" TERM; (trap "" TERM; sleep 60; touch {tmp_path}/survived) & echo $! > {tmp_path}/child; sleep 60'
    here = host(hook(script, timeout_seconds=0.2), hook("exit 0"))
    here.sees(sight(listener(1)))
    assert here.turned(1, number=1).state == "idle"
    assert here.turned(1).problem.startswith("/bin/sh was ended: it took more than 0.2 s")
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/cmdline")
    eventually(lambda: not child.exists() or not child.read_bytes(), "its child has ended, too")


def test_a_hook_that_floods_its_output_is_ended(host: Callable[..., Host]) -> None:
    """A command that writes more than the limit is ended, and the status names the limit."""
    here = host(hook("exec yes"))
    here.sees(sight(listener(1)))
    assert here.turned(1).problem == f"/bin/sh was ended: it wrote more than {OUTPUT_OCTETS_MAX} octets"


@pytest.mark.parametrize(("octets", "problem"), [(1000, ""), (1001, "was ended: it wrote more than 1000 octets")])
def test_output_is_taken_up_to_its_bound(thread: ReactorThread, octets: int, problem: str) -> None:
    """At n it is whole, at n + 1 it is too much."""
    commands = CommandRunner(thread.reactor)
    command = [sys.executable, "-c", f"print('x' * {octets}, end='')"]
    ended = thread.call(commands.run, command, b"", 20.0, None, 1000)
    assert (len(ended.output), ended.problem.endswith(problem), bool(ended.problem)) == (1000, True, bool(problem))


def test_input_of_any_size_is_there_and_need_not_be_read(thread: ReactorThread) -> None:
    """The daemon does not wait until a command reads, and reports only the end of its output."""
    commands = CommandRunner(thread.reactor)
    data = b"x" * 5_000_000
    assert thread.call(commands.run, ["wc", "-c"], data, 20.0).output == b"5000000\n"
    assert thread.call(commands.run, ["true"], data, 20.0).problem == ""
    told = thread.call(commands.run, ["sh", "-c", "seq 1000; exit 1"], b"", 20.0).problem
    assert told.endswith("999 | 1000")
    assert len(told) < SHOWN_OCTETS_MAX + 100
    assert "No such file" in thread.call(commands.run, ["/no/such/program"], b"", 20.0).problem
    assert "was killed by signal 9" in thread.call(commands.run, ["sh", "-c", "kill -9 $$"], b"", 20.0).problem


@pytest.mark.parametrize("more", [0, 1])
def test_a_variable_is_whole_or_empty(more: int) -> None:
    """The environment has little room: a value that is too long is left out as a whole, so that no name is cut."""
    name = "a" * (VARIABLE_OCTETS_MAX + more)
    found = environment_of("tell", HookEvent("h", "", 1, "change", (name,), {}))["OPENGNS_CHANGED"]
    assert found == ("" if more else name)


def test_a_template_is_rendered_and_its_program_reloaded_only_when_it_differs(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    """Checked before it gets its place, with its permissions; what changes nothing in the file reloads nothing."""
    check = ("sh", "-c", f'test "$(stat -c %a "$1")" = 600 && cp "$1" {tmp_path}/checked', "check", "{file}")
    reload = ("sh", "-c", f"cat {tmp_path}/target >> {tmp_path}/reloads; echo . >> {tmp_path}/reloads")
    here = host(template(tmp_path, LINES, mode="0600", check=check, reload=reload))
    here.sees(sight(listener(1), listener(2)))
    assert here.turned(1).problem == ""
    target = tmp_path / "target"
    assert target.read_text() == (tmp_path / "checked").read_text() == "192.0.2.7:1\n192.0.2.7:2\n"
    assert target.stat().st_mode & 0o777 == 0o600
    here.sees(sight(listener(1), listener(2), listener(3, "down"), revision=8))
    assert here.turned(2).problem == ""
    here.sees(sight(listener(2), revision=9))
    here.turned(3)
    assert (tmp_path / "reloads").read_text() == "192.0.2.7:1\n192.0.2.7:2\n.\n192.0.2.7:2\n.\n"
    assert sorted(path.name for path in tmp_path.iterdir() if "target" in path.name) == ["target"]


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and mounts need root")
def test_a_target_stays_what_it_is(host: Callable[..., Host], tmp_path: Path) -> None:
    """A link is followed, owner and permissions stay, also for the checked file; a mount is written in place."""
    real, mounted, outside = tmp_path / "real", tmp_path / "mounted", tmp_path / "outside"
    for path in (real, mounted, outside):
        path.write_text("old")
    real.chmod(0o640)
    os.chown(real, 65534, 7)
    (tmp_path / "target").symlink_to("real")
    check = ("sh", "-c", f'stat -c "%a %u %g" "$1" > {tmp_path}/checked', "check", "{file}")
    assert subprocess.run(["mount", "--bind", outside, mounted], check=False).returncode == 0
    try:
        settings = template(tmp_path, LINES, check=check)
        here = host(settings, msgspec.structs.replace(settings, target=str(mounted), check=(), name="m"))
        with capturedLogs() as logs:
            here.sees(sight(listener(1)))
            assert here.turned(1).problem == here.turned(1, 1).problem == ""
        assert outside.read_text() == real.read_text() == "192.0.2.7:1\n"
    finally:
        subprocess.run(["umount", mounted], check=True)
    status = real.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 65534, 7)
    assert (tmp_path / "target").is_symlink()
    assert (tmp_path / "checked").read_text() == "640 65534 7\n"
    notes = [log["note"] for log in logs if "note" in log]
    assert notes == ["it is a mount point"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "target"))) == ["target"]


def test_what_the_check_refuses_does_not_get_its_place(host: Callable[..., Host], tmp_path: Path) -> None:
    """The old file stays, the program is not reloaded, and the refused file is kept for examination."""
    check = ("sh", "-c", 'grep -q :1 "$1" || { echo "line 1: no"; exit 1; }', "check", "{file}")
    here = host(template(tmp_path, LINES, check=check, reload=("touch", str(tmp_path / "reloaded"))))
    here.sees(sight(listener(1)))
    here.turned(1)
    (tmp_path / "reloaded").unlink()
    here.sees(sight(listener(2), revision=8))
    failed = here.turned(2)
    assert failed.problem == f"{tmp_path}/target.checked is not good: sh ended with status 1: line 1: no"
    assert (tmp_path / "target").read_text() == "192.0.2.7:1\n"
    assert (tmp_path / "target.checked").read_text() == "192.0.2.7:2\n"
    assert not (tmp_path / "reloaded").exists()


def test_the_old_file_is_put_back_when_the_program_does_not_take_the_new_one(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    """The old file is put back and the program reloads it; without an old file the new one is removed."""
    reload = ("sh", "-c", f"cat {tmp_path}/target >> {tmp_path}/reloads; ! grep -q :2 {tmp_path}/target")
    here = host(template(tmp_path, LINES, reload=reload))
    here.sees(sight(listener(2)))
    assert here.turned(1).problem == f"reload failed: sh ended with status 1; {tmp_path}/target is taken away again"
    assert not (tmp_path / "target").exists()
    here.sees(sight(listener(1), revision=8))
    here.is_so(lambda now: now.state == "idle", "the program has a good file")
    (tmp_path / "reloads").unlink()
    here.sees(sight(listener(2), revision=9))
    failed = here.is_so(lambda now: now.state == "failed", "the program does not take it")
    assert failed.problem == f"reload failed: sh ended with status 1; the old {tmp_path}/target is back and in use"
    assert (tmp_path / "target").read_text() == "192.0.2.7:1\n"
    assert (tmp_path / "reloads").read_text().startswith("192.0.2.7:2\n192.0.2.7:1\n")


def test_a_reload_that_the_end_of_the_daemon_has_cut_off_is_made_up_for(
    host: Callable[..., Host], tmp_path: Path
) -> None:
    """If the file is right but its program was not notified, the next run of the daemon notifies it."""
    settings = template(tmp_path, LINES, reload=("sh", "-c", f"echo . >> {tmp_path}/begun; sleep 60"))
    first = host(settings)
    first.sees(sight(listener(1)))
    eventually((tmp_path / "begun").exists, "the reload has begun")
    first.stop()
    assert (tmp_path / "target").read_text() == "192.0.2.7:1\n"
    again = host(template(tmp_path, LINES, reload=("sh", "-c", f"echo . >> {tmp_path}/made")))
    again.sees(sight(listener(1)))
    again.turned(1)
    assert (tmp_path / "made").read_text() == ".\n"
    third = host(template(tmp_path, LINES, reload=("sh", "-c", f"echo . >> {tmp_path}/made")))
    third.sees(sight(listener(1)))
    third.turned(1)
    assert (tmp_path / "made").read_text() == ".\n"


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("one\n{% for %}", "source.j2:2: Expected an expression"),
        ("one\n\n{{ pool.lisseners }}", "source.j2:3: 'dict object' has no attribute 'lisseners'"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{% include '../../../etc/passwd' %}", "../../../etc/passwd"),
        ("{{ 'x' * (10 ** 10) }}", "it needs more than 512 MiB"),
        (
            "{% set ns = ['x' * 1000] %}{% for a in range(9000) %}{{ ns[0] }}{% endfor %}",
            "wrote more than 4194304 octets",
        ),
        (ENDLESS, "it took more than 1 s"),
    ],
)
def test_a_template_with_an_error_is_told_clearly_and_contained(
    host: Callable[..., Host], tmp_path: Path, text: str, told: str
) -> None:
    """A failure names its place and affects neither the old file nor another hook."""
    (tmp_path / "target").write_text("what was there")
    seconds = 1.0 if text == ENDLESS else 20.0
    here = host(template(tmp_path, text, timeout_seconds=seconds), hook("exit 0"))
    here.sees(sight(listener(1)))
    failed = here.turned(1, number=1)
    assert failed.state == "failed"
    assert failed.problem.startswith("cannot render: ")
    assert told in failed.problem
    assert (tmp_path / "target").read_text() == "what was there"
    assert here.turned(1).state == "idle"
