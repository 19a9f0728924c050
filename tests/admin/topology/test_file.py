"""Topology files: read with all their mistakes, written, compared, applied."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from compass.admin.topology import file
from compass.admin.topology.file import TOPOLOGY_MAX, Locator, TopologyProblem, dump, parse
from compass.admin.topology.plan import Step, plan_lines, plan_summary, steps
from compass.model.exit_codes import ExitCode
from compass.model.replies import Problem, Refusal
from compass.model.requests import Apply, Register
from compass.model.rows import Category, Change, Dependency, Policy, Service
from tests.admin.conftest import Program
from tests.support.fake_server import LittleServer, declared

USS = Path(__file__).parents[3] / "examples" / "uss.toml"

FIVE_MISTAKES = """\
[category.web]
depends_on = ["openuso", "openuss"]
services = ["portal"]
colour = "red"

[category.openuso]
services = [
    "account",
    "not a label",
]
probe_attempts = "two"

[category.openuss]
services = ["northeast"]
backup = "emergency.rescue"
depends_on = ["nothing"]
"""


def mistakes(text: str) -> list[tuple[int, str]]:
    with pytest.raises(TopologyProblem) as caught:
        parse(text)
    return [(mistake.line, mistake.message) for mistake in caught.value.mistakes]


def test_the_example_is_the_world_it_says() -> None:
    """The example declares the seed's own world, with the lines its rows come from."""
    read = parse(USS.read_text())
    assert Category("openuss", "emergency.rescue", Policy(probe="http:/health")) in read.rows
    assert {row.id for row in read.rows if isinstance(row, Service)} == {
        "portal.web",
        "forum.web",
        "account.openuso",
        "chinaserver.openuss",
        "northeast.openuss",
        "northwest.openuss",
        "emergency.rescue",
    }
    assert {(row.category, row.on) for row in read.rows if isinstance(row, Dependency)} == {
        ("web", "openuso"),
        ("web", "openuss"),
    }
    assert USS.read_text().splitlines()[read.lines[0] - 1] == "[category.web]"


def test_all_five_mistakes_are_reported_with_their_lines() -> None:
    """A file with five mistakes of five kinds gives all five at once."""
    found = mistakes(FIVE_MISTAKES)
    assert [line for line, _ in found] == [4, 9, 11, 15, 16]
    for (_, message), expected in zip(
        found,
        ["unknown key 'colour'", "not a DNS label", "probe_attempts", "'emergency.rescue'", "'nothing'"],
        strict=True,
    ):
        assert expected in message


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("", 1, "no category"),
        ("[category.a]\n[category.a]\n", 2, "not TOML"),
        ("[category.a\n", 1, "not TOML"),
        ("x = 1\n[category.a]\n", 1, "unknown key 'x'"),
        ("category = 3\n", 1, "must be a table"),
        ("[category]\na = 3\n", 2, "must be a table"),
        ("[category.a]\n[category.A]\n", 2, "declared twice"),
        ('[category."a b"]\n', 1, "not a DNS label"),
        ('[category.a]\nservices = "x"\n', 2, "a list of strings"),
        ("[category.a]\nservices = [1]\n", 2, "1 is not a string"),
        ('[category.a]\nservices = ["x", "y",\n  "X"]\n', 3, "listed twice"),
        ('[category.a]\nservices = ["x.a"]\n', 2, "before the dot"),
        ('[category.a]\ndepends_on = ["a", "a"]\n', 2, "listed twice"),
        ("[category.a]\nbackup = 3\n", 2, "must be a string"),
        ('[category.a]\nbackup = "x"\n', 2, "service.category"),
        ('[category.a]\nprobe = "udp"\n', 2, "neither tcp nor http"),
        ("[category.a]\nprobe_timeout_seconds = nan\n", 2, "probe_timeout_seconds"),
        ("[category.a]\nprobe_attempts = 11\n", 2, "1 to 10"),
        ("[category.a]\nprobe_attempts = true\n", 2, "Expected `int`"),
        ('[category.a]\nslow = "often"\n', 2, "slow"),
        ('[category.a]\npool = "fastest"\n', 2, "none of round-robin, weighted-round-robin"),
        ('[category.a]\nlocality = "planet"\n', 2, "none of none, zone, host"),
        ('[category.a]\nservices = ["x"]\npools = { y = "random" }\n', 3, "'y' is not among the services"),
        ('[category.a]\nservices = ["x"]\npools = { x = "fastest" }\n', 3, "pool 'fastest'"),
        ('[category.a]\nservices = ["x"]\nhosts = { y = ["w1"] }\n', 3, "'y' is not among the services"),
        ('[category.a]\nservices = ["x"]\nhosts = { x = [] }\n', 3, "x has an empty list"),
        ('[category.a]\nservices = ["x"]\nhosts = { x = ["no host"] }\n', 3, "hosts: "),
        ("[category.a]\nrecovery_seconds = 61\n", 2, "at most 60"),
        ("category.a.recovery_seconds = 61\n", 1, "at most 60"),
    ],
)
def test_each_mistake_is_reported_with_its_line(text: str, line: int, expected: str) -> None:
    """Each way to be wrong has its words and its line."""
    (found,) = mistakes(text)
    assert found[0] == line and expected in found[1]


def test_what_is_nested_without_end_is_no_topology() -> None:
    """A hostile file ends in a sentence, not in a traceback."""
    assert mistakes("x = " + "[" * 100_000)


def test_the_locator_falls_back_to_what_is_around() -> None:
    """If the line of an item is not found, that of the nearest enclosing item is used."""
    where = Locator('\n[category.a]\nservices = ["x"]\n')
    assert where.line("category", "a", "services", item="x") == 3
    assert where.line("category", "a", "services", item="y") == 3
    assert where.line("category", "a", "backup") == 2
    assert where.line("elsewhere") == 1


def test_what_is_written_is_read_again() -> None:
    """dump and parse are inverse, for every field and for long lists."""
    pools = {"s7": "least-used", "0-s": "round-robin"}
    policy = Policy('http:/a"\\b', 0.25, 7, "notify", 1e-07, pool="priority", pools=pools, locality="host")
    policy = msgspec.structs.replace(policy, hosts={"s7": ("web1.example.net", "web2.example.net"), "0-s": ("*",)})
    rows: list[file.Declared] = [
        Category("a", "s0.b", policy),
        *(Service(f"{label}.a") for label in pools),
        Category("b"),
        *(Service(f"s{number}.b") for number in range(20)),
        Dependency("a", "b"),
        Dependency("b", "b"),
    ]
    assert sorted(parse(dump(rows)).rows, key=repr) == sorted(rows, key=repr)
    assert dump(list(reversed(rows))) == dump(rows)
    read = parse(USS.read_text()).rows
    assert sorted(parse(dump(read)).rows, key=repr) == sorted(read, key=repr)


def test_a_topology_may_be_as_large_as_a_request_and_no_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit it is taken, one octet below it is not."""
    from compass.wire.messages import encode

    size = len(encode(Apply(parse(USS.read_text()).rows)))
    monkeypatch.setattr(file, "TOPOLOGY_MAX", size)
    assert parse(USS.read_text()).rows
    monkeypatch.setattr(file, "TOPOLOGY_MAX", size - 1)
    assert "apply it in parts" in mistakes(USS.read_text())[0][1]


def test_a_file_of_the_largest_size_is_read_and_no_larger_one(program: Program, tmp_path: Path) -> None:
    """The error names the limit, and the file is not parsed."""
    file = tmp_path / "large.toml"
    text = USS.read_text()
    file.write_text(text + "#" * (TOPOLOGY_MAX - len(text.encode())))
    assert "+ category web" in program.done("plan", str(file))
    file.write_text(text + "#" * (TOPOLOGY_MAX - len(text.encode()) + 1))
    result = program.run("plan", str(file))
    assert result.exit_code == ExitCode.BAD_INPUT and str(TOPOLOGY_MAX) in result.stderr


def test_a_plan_is_one_step_for_each_row() -> None:
    """The server's several changes of a category are one difference, and a change back is none."""
    old = Category("a")
    new = Category("a", "s.a", Policy(probe_attempts=3))
    changes = [
        Change(1, 0, 0.0, "category-set", Category("a")),
        Change(2, 1, 0.0, "service-add", Service("s.a")),
        Change(3, 2, 0.0, "category-set", new),
        Change(4, 3, 0.0, "category-set", Category("b")),
        Change(5, 4, 0.0, "dependency-remove", Dependency("a", "c"), True),
    ]
    planned = steps({"a": old, "b": Category("b")}, changes)
    assert planned == (
        Step("set", "category", "a", (("backup", "none", "s.a"), ("probe_attempts", "2", "3"))),
        Step("add", "service", "s.a"),
        Step("remove", "dependency", "a c"),
    )
    assert [line for line, _ in plan_lines(planned)] == [
        "~ category a",
        "    backup: none -> s.a",
        "    probe_attempts: 2 -> 3",
        "+ service s.a",
        "- dependency a c",
    ]
    assert plan_summary(planned) == "3 changes: 1 to add, 1 to set, 1 to remove."


def test_a_plan_changes_nothing(program: Program, server: LittleServer) -> None:
    """plan shows the changes without making them; the exit status reflects them only on request."""
    before = server.catalogue
    shown = program.done("plan", str(USS))
    assert "+ category openuss" in shown and "backup: emergency.rescue" in shown and "to add" in shown
    assert program.run("plan", str(USS), "--detailed-exitcode").exit_code == ExitCode.CHANGES
    assert server.catalogue == before
    program.done("apply", str(USS), "--yes")
    assert program.run("plan", str(USS), "--detailed-exitcode").exit_code == ExitCode.DONE
    assert "No changes:" in program.done("plan", "-", stdin=USS.read_text())
    assert "No changes:" in program.done("apply", str(USS))


def test_an_export_makes_the_same_catalogue_on_an_empty_server(
    program: Program, server: LittleServer, certificates: Path, tmp_path: Path
) -> None:
    """export on one server and apply on another: what was declared is the same, value for value."""
    program.done("apply", str(USS), "--yes")
    program.done("category", "set", "web", "--slow", "notify", "--recovery-seconds", "0.5")
    program.done("dependency", "add", "openuss", "openuss")
    file = tmp_path / "exported.toml"
    program.done("export", "--output", str(file))
    assert program.done("export") == file.read_text()
    other = LittleServer(certificates / "server.crt", certificates / "server.key", certificates / "authority.crt")
    try:
        there = Program(certificates, other.port, tmp_path)
        there.done("apply", str(file), "--yes", "--prune")
        assert declared(other.catalogue) == declared(server.catalogue)
        assert there.done("export") == file.read_text()
    finally:
        other.stop()


def test_apply_asks_and_takes_no_for_an_answer(program: Program, server: LittleServer) -> None:
    """A person sees the plan and must confirm; without a terminal, --yes is required."""
    refused = program.run("apply", str(USS))
    assert refused.exit_code == ExitCode.FAILED and "--yes" in refused.stderr
    program.interactive = True
    declined = program.run("apply", str(USS), stdin="n\n")
    assert declined.exit_code == ExitCode.FAILED and "+ category web" in declined.stdout
    assert program.run("apply", str(USS), "--json", stdin="y\n").exit_code == ExitCode.FAILED
    assert not server.catalogue.categories
    assert "Applied; revision" in program.done("apply", str(USS), stdin="y\n")
    assert "web" in server.catalogue.categories


def test_prune_removes_what_the_file_does_not_name(program: Program, server: LittleServer) -> None:
    """Other objects are removed only with --prune, and the plan says so."""
    program.done("apply", str(USS), "--yes")
    program.done("category", "add", "spare")
    assert "No changes:" in program.done("plan", str(USS))
    assert "- category spare" in program.done("plan", str(USS), "--prune")
    told = json.loads(program.done("apply", str(USS), "--prune", "--yes", "--json"))
    assert told["applied"] and [change["name"] for change in told["changes"]] == ["spare"]
    assert "spare" not in server.catalogue.categories


def test_nothing_is_sent_of_a_file_with_mistakes(program: Program, server: LittleServer, tmp_path: Path) -> None:
    """All mistakes come with file and line, as JSON too, and the server is not even asked."""
    file = tmp_path / "wrong.toml"
    file.write_text(FIVE_MISTAKES)
    result = program.run("apply", str(file), "--yes")
    assert result.exit_code == ExitCode.BAD_INPUT and "5 mistakes" in result.stderr
    for line in (4, 9, 11, 15, 16):
        assert f"{file}:{line}: " in result.stderr
    told = json.loads(program.run("plan", str(file), "--json").stderr)
    assert [mistake["line"] for mistake in told["mistakes"]] == [4, 9, 11, 15, 16]
    file.write_bytes(b"[category.a]\n# \xff\n")
    assert f"{file}:2: not UTF-8" in program.run("plan", str(file)).stderr
    assert "cannot read" in program.run("plan", str(tmp_path / "none.toml")).stderr
    assert not server.asked


def test_problems_found_by_the_server_are_reported_at_their_lines(
    program: Program, server: LittleServer, tmp_path: Path
) -> None:
    """A refused topology is mapped back to the lines that its rows come from."""
    problems = (
        Problem(2, "in-use", "first"),
        Problem(0, "bad-value", "second"),
        Problem(99, "exists", "third"),
    )
    server.override = lambda request: (
        Refusal("invalid-topology", "3 problems", problems=problems) if isinstance(request, Apply) else None
    )
    file = tmp_path / "refused.toml"
    file.write_text('\n[category.a]\nservices = [\n"x",\n"y",\n]\n')
    result = program.run("plan", str(file))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.stderr.splitlines()[1:] == [
        f"{file}:1: third",
        f"{file}:5: first",
        f"{file}:2: second",
    ] or (f"{file}:5: first" in result.stderr and f"{file}:2: second" in result.stderr)


def test_pruning_a_service_that_is_used_is_refused_by_the_real_rules(
    program: Program, server: LittleServer, tmp_path: Path
) -> None:
    """Nothing is half done: a service with a listener stays, and so does all the rest."""
    program.done("apply", str(USS), "--yes")
    program.done("listener", "add", "forum.web", "192.0.2.1:80")
    assert any(isinstance(request, Register) for request in server.asked)
    before = server.catalogue
    file = tmp_path / "less.toml"
    file.write_text(USS.read_text().replace('"portal", "forum"', '"portal"'))
    result = program.run("apply", str(file), "--prune", "--yes")
    assert result.exit_code == ExitCode.CONFLICT and "forum.web" in result.stderr
    assert server.catalogue == before
