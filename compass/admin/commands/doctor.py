"""Command `doctor`: checks everything that a command needs, one after another.

A failed check says what to do next; checks that depend on it are left out.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec

from compass.admin.shell.config import Settings, SettingsProblem
from compass.admin.shell.connection import AdminSession, ConnectionFailed, Server, connect_tcp, context_of, start_tls
from compass.admin.shell.context import SOFTWARE, AdminContext
from compass.admin.shell.decorators import command
from compass.admin.shell.tables import TableView
from compass.model.exit_codes import ExitCode
from compass.model.limits import ADMIN_CONNECT_SECONDS
from compass.model.replies import Refusal, ServerStatus
from compass.model.requests import Status
from compass.model.rules.certificates import NOTICE_DAYS
from compass.pki.authority import AuthorityError, describe
from compass.pki.identity import IdentityError, load_identity


class Check(msgspec.Struct, frozen=True):
    """Result of one check. `next`: what to do about it."""

    name: str
    ok: bool
    found: str
    next: str = ""


def doctor_command(group: click.Group) -> None:
    """Add `doctor` to the program."""

    @command(group, "doctor", "doctor", "--server gns2.example.net:4863 doctor", "doctor --json")
    def doctor(context: AdminContext) -> None:
        """Check settings, certificates, names, the network, TLS, and the server's status.

        The exit status is 0 if every check is ok, else 1.
        """
        checks = list(examine(context))
        lines = tuple(("ok" if one.ok else "failed", one.name, one.found, one.next) for one in checks)
        context.print_result(TableView(("", "check", "found", "next"), lines), {"type": "doctor", "checks": checks})
        if not all(one.ok for one in checks):
            click.get_current_context().exit(ExitCode.FAILED.value)


def examine(context: AdminContext) -> Iterator[Check]:
    """Yield all checks, in the order in which they depend on each other."""
    try:
        settings = context.settings
    except SettingsProblem as problem:
        for one in problem.problems:
            yield Check("settings", False, one, "see 'opengnsadmin --help'")
        return
    yield Check("settings", True, f"from {settings.config}" if settings.config else "from the command line")
    now = datetime.fromtimestamp(context.machine.now(), UTC)
    yield from _certificate("certificate", settings.identity.certificate, now, "admin")
    yield from _certificate("authority", settings.identity.authority, now, "")
    yield from _further_certificates(settings, now)
    try:
        context_of(settings.identity)
    except ConnectionFailed as problem:
        yield Check("key", False, str(problem), "copy both files of 'opengnsadmin tls admin NAME'")
        return
    yield Check("key", True, f"{settings.identity.key} belongs to the certificate")
    for server in settings.servers:
        yield from _server(settings, server)


def _certificate(what: str, path: Path, now: datetime, role: str) -> Iterator[Check]:
    try:
        description = describe(path.read_bytes())
    except OSError as error:
        yield Check(what, False, f"{path} cannot be read: {error.strerror}", "check the path and its permissions")
        return
    except AuthorityError as error:
        yield Check(
            what, False, f"{path}: {error}", "create one with 'opengnsadmin tls', or use your own PKI's in PEM form"
        )
        return
    begins, ends = datetime.fromisoformat(description["not_before"]), datetime.fromisoformat(description["not_after"])
    who = description["name"] or description["subject"]
    if now < begins:
        yield Check(
            what, False, f"{who} is valid only from {begins:%Y-%m-%d %H:%M} UTC", "check the clock of this machine"
        )
    elif now >= ends:
        yield Check(what, False, f"{who} expired on {ends:%Y-%m-%d}", "create a new one with 'opengnsadmin tls'")
    else:
        soon = "create a new one soon" if ends - now < timedelta(days=NOTICE_DAYS[0]) else ""
        yield Check(what, True, f"{who}, until {ends:%Y-%m-%d}", soon)
    if role and description["role"] == role:
        yield Check("role", True, role)
    elif role and description["role"]:
        yield Check(
            "role",
            False,
            description["role"],
            f"use a certificate of the role {role}: 'opengnsadmin tls admin NAME'",
        )
    elif role:
        yield Check("role", True, "none in the certificate", "the server's role rules decide")


def _further_certificates(settings: Settings, now: datetime) -> Iterator[Check]:
    """Yield a check of each certificate of the chain that is not the first of its file."""
    files = settings.identity
    try:
        identity = load_identity(files.key, files.certificate, files.authority, now)
    except IdentityError:
        return  # The checks of the files say why.
    first = identity.authorities[0].subject.rfc4514_string()
    for one in identity.certificates(now)[1:]:
        if one.role == "authority" and one.subject == first:
            continue
        found, _, advice = (one.problem(now.timestamp()) or one.notice(now.timestamp())).partition("; ")
        valid = f"{one.subject}, until {datetime.fromtimestamp(one.not_after, UTC):%Y-%m-%d}"
        yield Check(one.role, not one.problem(now.timestamp()), found or valid, advice)


def _server(settings: Settings, server: Server) -> Iterator[Check]:
    """Yield the checks of one server, from its name to its status."""
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        yield Check(f"{server} name", False, f"{error}", "check the spelling and DNS")
        return
    yield Check(f"{server} name", True, " ".join(sorted({str(entry[4][0]) for entry in found})))
    step = "TCP"
    try:
        plain = connect_tcp(server, ADMIN_CONNECT_SECONDS)
        yield Check(f"{server} TCP", True, "connected")
        step = "TLS"
        name = settings.identity.server_name or server.host
        secured = start_tls(plain, context_of(settings.identity), server, name, settings.identity.authority)
        yield Check(f"{server} TLS", True, f"{secured.version()}, name {name} proven")
        step = "hello"
        with AdminSession(secured, server, SOFTWARE, ADMIN_CONNECT_SECONDS) as session:
            software = session.welcome.software or "OpenGNSP"
            yield Check(f"{server} hello", True, f"{software}, protocol version {session.welcome.version}")
            step = "status"
            yield _status(server, session)
    except ConnectionFailed as problem:
        why, _, what_next = str(problem).removeprefix(f"{server}: ").rpartition("; ")
        yield Check(f"{server} {step}", False, why or what_next, what_next if why else "")


def _status(server: Server, session: AdminSession) -> Check:
    reply = session.ask(Status())
    if isinstance(reply, ServerStatus) and reply.trouble:
        next_step = "repair the database; lookups still work, and hosts retry their registrations"
        return Check(f"{server} status", False, f"store unavailable: {reply.trouble}", next_step)
    if isinstance(reply, ServerStatus):
        open_alerts = f", {len(reply.alerts)} open incidents" if reply.alerts else ""
        return Check(f"{server} status", True, f"{reply.server} at revision {reply.revision}{open_alerts}")
    why = reply.message if isinstance(reply, Refusal) else f"answered with {type(reply).__name__}"
    return Check(f"{server} status", False, why, "use an administrator's certificate, or wait until it is ready")
