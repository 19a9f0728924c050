"""Command `digest`: compares the catalogues of several servers."""

from __future__ import annotations

from contextlib import ExitStack

import click

from compass.admin.shell.connection import AdminSession, ConnectionFailed, Server
from compass.admin.shell.context import SOFTWARE, AdminContext
from compass.admin.shell.decorators import command
from compass.admin.shell.tables import TableView
from compass.model.exit_codes import ExitCode
from compass.model.limits import ADMIN_CONNECT_SECONDS
from compass.model.replies import CatalogueDigest, Refusal
from compass.model.requests import Digest


def digest_command(group: click.Group) -> None:
    """Add `digest` to the program."""

    @command(group, "digest", "digest", "--server gns1.example.net --server gns2.example.net digest", "digest --json")
    def digest(context: AdminContext) -> None:
        """Compare the catalogues of all servers of the settings, at one revision that each of them has reached.

        A digest is one number for all rows of a server. Servers also compare by themselves and open an incident if
        they differ. The exit status is 0 if all are equal, 1 if one differs, 7 if one does not answer.
        """
        with context.working("Waiting for the servers to reach one revision"):
            answers = ask_all(context)
        digests = {server: answer for server, answer in answers.items() if isinstance(answer, CatalogueDigest)}
        equal = len({(one.store, one.revision, one.digest) for one in digests.values()}) == 1
        lines = tuple(
            (str(server), answer.server, str(answer.revision), answer.digest)
            if isinstance(answer, CatalogueDigest)
            else (str(server), "-", "-", answer)
            for server, answer in answers.items()
        )
        complete = len(digests) == len(answers)
        verdict = "not all answered" if not complete else "equal" if equal else "different"
        servers = [
            {"address": str(server), "answer": answer if isinstance(answer, CatalogueDigest) else None}
            | ({} if isinstance(answer, CatalogueDigest) else {"problem": answer})
            for server, answer in answers.items()
        ]
        context.print_result(
            TableView(("at", "server", "revision", "digest"), lines),
            {"type": "digests", "equal": equal, "complete": complete, "servers": servers},
        )
        context.print_note(f"{len(digests)} of {len(answers)} servers: {verdict}.")
        if digests and not equal:
            click.get_current_context().exit(ExitCode.FAILED.value)
        if not complete:
            click.get_current_context().exit(ExitCode.UNAVAILABLE.value)


def ask_all(context: AdminContext) -> dict[Server, CatalogueDigest | str]:
    """Return each server's digest at the lowest revision among them, or the reason why there is none."""
    answers: dict[Server, CatalogueDigest | str] = {}
    with ExitStack() as stack:
        links: dict[Server, AdminSession] = {}
        for server in context.settings.servers:
            try:
                session = AdminSession.connect((server,), context.settings.identity, ADMIN_CONNECT_SECONDS, SOFTWARE)
                links[server] = stack.enter_context(session)
            except ConnectionFailed as problem:
                answers[server] = str(problem)
        for server, session in links.items():
            answers[server] = _answer(session, Digest())
        reached = {answer.revision for answer in answers.values() if isinstance(answer, CatalogueDigest)}
        for server, session in links.items():
            answer = answers[server]
            if isinstance(answer, CatalogueDigest) and answer.revision > min(reached):
                answers[server] = _answer(session, Digest(min(reached)))
    return {server: answers[server] for server in context.settings.servers}


def _answer(session: AdminSession, request: Digest) -> CatalogueDigest | str:
    try:
        reply = session.ask(request)
    except ConnectionFailed as problem:
        return str(problem)
    if isinstance(reply, CatalogueDigest):
        return reply
    if isinstance(reply, Refusal) and reply.code == "unknown-message":
        return "this server is older and does not support digests"
    return reply.message if isinstance(reply, Refusal) else f"answered with {type(reply).__name__}"
