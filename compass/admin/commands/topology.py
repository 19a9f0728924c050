"""Commands `export`, `plan`, `apply`: the declared part of the catalogue as a file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from compass.admin.shell.context import AdminContext, Failed, write_new_text
from compass.admin.shell.decorators import command
from compass.admin.shell.formats import as_json
from compass.admin.topology.file import TOPOLOGY_MAX, Mistake, Topology, TopologyProblem, dump, locate_problems, parse
from compass.admin.topology.plan import Step, plan_json, plan_lines, plan_summary, steps
from compass.model.exit_codes import ExitCode
from compass.model.replies import Done
from compass.model.requests import Apply, Fetch
from compass.model.rows import Category, Dependency, Service
from compass.model.text import escape_line
from compass.system.command_line import print_text


def topology_commands(group: click.Group) -> None:
    """Add `export`, `plan` and `apply` to the program."""

    @command(group, "export", "export > topology.toml", "export --output topology.toml", "export --json")
    @click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file, in one step.")
    def export(context: AdminContext, output: Path | None) -> None:
        """Print the topology: categories with backup, policy, dependencies and services, as TOML.

        Listeners, credentials and hosts are not part of it. 'apply' reads the file.
        """
        parts = context.rows(Fetch("category"), Fetch("service"), Fetch("dependency"))
        rows = [row for part in parts for row in part.rows if isinstance(row, Category | Service | Dependency)]
        text = dump(rows)
        result = {"type": "topology", "revision": parts[0].revision, "rows": as_json(rows)}
        if output is not None:
            write_new_text(output, text, 0o644)
            context.print_result([f"Wrote {len(rows)} rows of revision {parts[0].revision} to {output}."], result)
        elif context.in_json:
            context.print_result((), result)
        else:
            print_text(text, newline=False)

    prune = click.option("--prune", is_flag=True, help="Remove objects that are not in the file.")
    file = click.argument("file", type=click.Path(path_type=Path, allow_dash=True))

    @command(group, "plan", "plan topology.toml", "export | opengnsadmin plan -", options=(file, prune))
    @click.option("--detailed-exitcode", is_flag=True, help=f"Exit with {ExitCode.CHANGES.value} if there are changes.")
    def plan(context: AdminContext, file: Path, prune: bool, detailed_exitcode: bool) -> None:
        """Show the changes that applying FILE ('-': standard input) would make, without making them."""
        planned, revision = _plan(context, file, _read(file), prune)
        _print_plan(context, planned, revision)
        if planned and detailed_exitcode:
            click.get_current_context().exit(ExitCode.CHANGES.value)

    @command(group, "apply", "apply topology.toml", "apply topology.toml --prune --yes", options=(file, prune))
    @click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
    def apply(context: AdminContext, file: Path, prune: bool, yes: bool) -> None:
        """Apply the topology in FILE: all of it, or nothing if there is any mistake.

        The plan is shown first and must be confirmed. Existing categories get exactly the backup and the policy of
        the file.
        """
        _apply(context, file, prune, yes)


def _apply(context: AdminContext, file: Path, prune: bool, yes: bool) -> None:
    topology = _read(file)
    planned, revision = _plan(context, file, topology, prune)
    if not planned:
        _print_plan(context, planned, revision)
        return
    if not yes:
        if context.in_json or not context.machine.is_interactive():
            raise Failed(ExitCode.FAILED, "there is no terminal to confirm; check 'plan', then use --yes with apply")
        _print_plan(context, planned, revision)
        # Servers close an idle session, and the person may take a while to answer.
        context.close_session()
        if not click.confirm("Apply these changes?", err=True):
            raise Failed(ExitCode.FAILED, "nothing was changed")
    before = _categories(context)
    done = _ask(context, file, topology, Apply(topology.rows, prune))
    made = steps(before, done.changes)
    context.print_result(
        [*(line for line, _ in (plan_lines(made) if yes else [])), f"Applied; revision {done.revision}."],
        plan_json(made, done.revision, applied=True),
    )


def _read(path: Path) -> Topology:
    """Read the topology in a file. Raises Failed with all its mistakes."""
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(TOPOLOGY_MAX + 1)
        else:
            with path.open("rb") as file:
                data = file.read(TOPOLOGY_MAX + 1)
    except OSError as error:
        raise Failed(ExitCode.FAILED, f"cannot read {path}: {error.strerror}") from None
    if len(data) > TOPOLOGY_MAX:
        raise Failed(ExitCode.BAD_INPUT, f"{path} has more than {TOPOLOGY_MAX} octets, the limit of one request")
    try:
        return parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _mistakes_failure(path, (Mistake(line, "not UTF-8"),)) from None
    except TopologyProblem as problem:
        raise _mistakes_failure(path, problem.mistakes) from None


def _mistakes_failure(path: Path, mistakes: tuple[Mistake, ...]) -> Failed:
    text = "\n".join(f"{path}:{mistake.line}: {mistake.message}" for mistake in mistakes)
    details = {
        "type": "problem",
        "kind": "topology",
        "message": f"{len(mistakes)} mistakes, nothing was changed",
        "mistakes": [{"file": str(path), "line": one.line, "message": one.message} for one in mistakes],
    }
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return Failed(ExitCode.BAD_INPUT, f"{count}, nothing was changed:\n{text}", details)


def _ask(context: AdminContext, path: Path, topology: Topology, request: Apply) -> Done:
    """Send the request; problems that the server reports are mapped to lines of the file. Raises Failed."""
    try:
        with context.working(f"{'Comparing' if request.dry_run else 'Applying'} {len(request.rows)} rows"):
            return context.ask(request, Done)
    except Failed as failed:
        if failed.refusal is None or not failed.refusal.problems:
            raise
        raise _mistakes_failure(path, locate_problems(topology, failed.refusal.problems)) from None


def _plan(context: AdminContext, path: Path, topology: Topology, prune: bool) -> tuple[tuple[Step, ...], int]:
    before = _categories(context)
    done = _ask(context, path, topology, Apply(topology.rows, prune, dry_run=True))
    return steps(before, done.changes), done.revision - len(done.changes)


def _categories(context: AdminContext) -> dict[str, Category]:
    return {row.name: row for row in context.rows(Fetch("category"))[0].rows if isinstance(row, Category)}


def _print_plan(context: AdminContext, planned: tuple[Step, ...], revision: int) -> None:
    if not context.in_json:
        for line, colour in plan_lines(planned):
            print_text(escape_line(line, 4096), colour=colour)
    context.print_result([plan_summary(planned)], plan_json(planned, revision, applied=False))
