"""Entry points of the rules: `decide` for requests that may change the catalogue, `answer` for those that only read.

Both check the rights of the principal first, and both return a Decision, so that every refused right is written to the
security log in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from compass.model.catalogue.catalogue import Catalogue
from compass.model.limits import SUBJECT_MAX
from compass.model.names import InvalidName
from compass.model.replies import Refusal, Reply
from compass.model.requests import (
    Apply,
    Attend,
    Deregister,
    Digest,
    Disown,
    Drain,
    Examine,
    Fetch,
    Findings,
    Impact,
    Incident,
    Invite,
    IssueCredential,
    Lag,
    Pull,
    Purge,
    Put,
    ReadLog,
    ReadRequest,
    Register,
    Remove,
    Rename,
    Renew,
    Report,
    RevokeCredential,
    Status,
    Steer,
    Suspect,
    TryWays,
    Undecided,
    Verdict,
    Watch,
    Ways,
    WeighedReport,
)
from compass.model.rows import AdministrationEntry, SecurityEntry
from compass.model.rules import administration, instances, listeners, queries, renaming
from compass.model.rules.draft import Decision, Draft, Principal, Refused, is_odd, parameters_of, refuse, text_problem
from compass.model.text import escape_line

_ROLES: tuple[tuple[frozenset[str], tuple[type, ...]], ...] = (
    (frozenset({"host", "admin"}), (Register, Deregister, Drain, Report, WeighedReport)),
    (frozenset({"host"}), (Disown, Findings, Watch, Renew)),
    (frozenset({"host", "admin", "viewer"}), (Pull,)),
    (frozenset({"admin", "viewer"}), (Fetch, Impact, ReadLog, Status, Digest, Lag, Examine, Ways)),
    (frozenset({"admin"}), (Put, Remove, Rename, IssueCredential, RevokeCredential, Apply, Purge)),
    (frozenset({"admin"}), (Steer, TryWays, Invite)),
    (frozenset({"server"}), (Suspect, Incident, Verdict, Attend)),
)
ROLES: dict[type, frozenset[str]] = {request: roles for roles, requests in _ROLES for request in requests}
"""Roles that may make a request, by its type."""

_DECISIONS: dict[type, Callable[[Draft, Any], Reply]] = {
    Register: listeners.decide_register,
    Deregister: listeners.decide_deregister,
    Drain: listeners.decide_drain,
    Report: listeners.decide_report,
    WeighedReport: listeners.decide_report,
    Disown: instances.decide_disown,
    Suspect: listeners.decide_suspect,
    Incident: listeners.decide_incident,
    Verdict: listeners.decide_verdict,
    Purge: listeners.decide_purge,
    Put: administration.decide_put,
    Remove: administration.decide_remove,
    Rename: renaming.decide_rename,
    IssueCredential: administration.decide_issue,
    RevokeCredential: administration.decide_revoke,
    Attend: administration.decide_attend,
    Apply: administration.decide_apply,
}
_ANSWERS: dict[type, Callable[[Catalogue, Any], Reply]] = {
    Pull: queries.query_pull,
    Fetch: queries.query_fetch,
    Impact: queries.query_impact,
}
_LOGGED_FOR_ADMINS = frozenset(
    {Put, Remove, Rename, IssueCredential, RevokeCredential, Apply, Purge, Register, Deregister, Drain}
)
_SECURITY_CODES = frozenset({"forbidden", "bad-credential"})


def decide(
    catalogue: Catalogue,
    request: Undecided,
    principal: Principal,
    now: float,
    token: str,
    in_development: bool = False,
) -> Decision:
    """Decide a request on this catalogue: pure, so that it can be decided again if another server committed first.

    `now`: UNIX time in seconds. `token`: 256 fresh random bits as text, used if a credential is to be issued.
    `in_development`: registrations declare services in open categories.
    """
    return _conclude(Draft(catalogue, principal, now, token, in_development), request, _DECISIONS[type(request)])


def answer(catalogue: Catalogue, request: ReadRequest, principal: Principal, now: float) -> Decision:
    """Answer a request that changes nothing, from memory."""
    query = _ANSWERS[type(request)]
    return _conclude(Draft(catalogue, principal, now), request, lambda draft, _: query(draft.catalogue, request))


def permit(catalogue: Catalogue, request: Any, principal: Principal, now: float) -> Decision | None:
    """Return None if the principal may make a request that a shell answers, otherwise the decision that refuses it."""
    try:
        check_right(catalogue, type(request), principal)
        _check_text(request)
    except Refused as refused:
        return _refused(catalogue, request, principal, now, refused.refusal)
    return None


def permit_unread(
    catalogue: Catalogue, kind: type[Struct], principal: Principal, now: float
) -> tuple[Refusal, SecurityEntry] | None:
    """Return None if the principal may make requests of a type, otherwise the refusal and its entry in the security
    log: nothing of the request has been read."""
    try:
        check_right(catalogue, kind, principal)
    except Refused as refused:
        reason, operation = refused.refusal.message, _operation(kind)
        return refused.refusal, SecurityEntry(0, now, operation, "", "{}", principal.origin, principal.name, reason)
    return None


def check_right(catalogue: Catalogue, kind: type[Struct], principal: Principal) -> None:
    """Check that the principal's role includes requests of a type and that its host is not barred. Raises Refused."""
    allowed = ROLES[kind]
    if principal.role not in allowed:
        refuse(
            "forbidden",
            f"{principal} may not {_operation(kind)}: that needs the role {' or '.join(sorted(allowed))}",
        )
    if barred(catalogue, principal):
        refuse("forbidden", f"{principal} may not {_operation(kind)}: an administrator has barred this host")


def _check_text(request: Any) -> None:
    if problem := text_problem(request):
        refuse("bad-value", problem)


def barred(catalogue: Catalogue, principal: Principal) -> bool:
    """Return whether the principal is a host that an administrator has barred."""
    host = catalogue.hosts.get(principal.name) if principal.role == "host" else None
    return host is not None and host.barred


def _conclude(draft: Draft, request: Any, rule: Callable[[Draft, Any], Reply]) -> Decision:
    catalogue, principal, now = draft.catalogue, draft.principal, draft.now
    try:
        check_right(catalogue, type(request), principal)
        # Servers make their own requests from texts that were checked or escaped when they arrived.
        if principal.role != "server" and is_odd(repr(request)):
            _check_text(request)
        reply = rule(draft, request)
    except Refused as refused:
        return _refused(catalogue, request, principal, now, refused.refusal)
    except InvalidName as problem:
        return _refused(catalogue, request, principal, now, Refusal(problem.code, str(problem)))
    if isinstance(request, Apply | Rename) and request.dry_run:
        return Decision(catalogue, (), reply)
    entry = _administration(request, principal, now, "done", draft.catalogue.revision)
    if draft.declared:
        entry = _entry("declare", request, principal, now, "done", draft.catalogue.revision)
    return Decision(draft.catalogue, tuple(draft.changes), reply, administration=entry)


def _refused(catalogue: Catalogue, request: Any, principal: Principal, now: float, refusal: Refusal) -> Decision:
    security = None
    if refusal.code in _SECURITY_CODES:
        security = SecurityEntry(
            number=0,
            time=now,
            operation=_operation(type(request)),
            subject=_subject(request),
            parameters=parameters_of(request),
            origin=principal.origin,
            principal=principal.name,
            reason=refusal.message,
        )
    entry = _administration(request, principal, now, refusal.code, catalogue.revision)
    return Decision(catalogue, (), refusal, security, entry)


def _administration(
    request: Any, principal: Principal, now: float, outcome: str, revision: int
) -> AdministrationEntry | None:
    if principal.role != "admin" or type(request) not in _LOGGED_FOR_ADMINS or getattr(request, "dry_run", False):
        return None
    return _entry(_operation(type(request)), request, principal, now, outcome, revision)


def _entry(
    operation: str, request: Any, principal: Principal, now: float, outcome: str, revision: int
) -> AdministrationEntry:
    return AdministrationEntry(
        number=0,
        time=now,
        operation=operation,
        arguments=parameters_of(request),
        origin=principal.origin,
        principal=principal.name,
        outcome=outcome,
        revision=revision,
    )


def _operation(kind: type[Struct]) -> str:
    """Return the name of the message."""
    return str(kind.__struct_config__.tag or kind.__name__.lower())


def _subject(request: Any) -> str:
    for field in ("service", "name"):
        value = getattr(request, field, "")
        if value:
            return escape_line(value, SUBJECT_MAX)
    return ""
