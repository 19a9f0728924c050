"""The daemon's answers as text for people and as JSON for programs. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from compass.model.host_api import (
    CheckStatus,
    HostStatus,
    KnownServer,
    LocalEvent,
    Outcome,
    ReactionStatus,
    Resolved,
    UnansweredName,
)
from compass.model.names import format_endpoint
from compass.model.replies import Dependencies
from compass.model.rows import Category, Change, Dependency, Listener, Service, key_of
from compass.model.text import escape_line

LINE_MAX = 1000
"""Longest line of text in characters; a cause is a sentence."""


def as_json(value: Any, indent: int | None = 2) -> str:
    """Return a value as JSON with all fields, also those with default values, which the protocol leaves out."""
    return json.dumps(_to_json(value), indent=indent)


def _to_json(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        fields = {name: _to_json(getattr(value, name)) for name in value.__struct_fields__}
        tag = value.__struct_config__
        return {tag.tag_field: tag.tag, **fields} if tag.tag_field else fields
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value


def lines_of_outcome(outcome: Outcome) -> list[str]:
    """Format the outcome of a registration, deregistration or report."""
    at = escape_line(f"{outcome.service} {format_endpoint(outcome.address, outcome.port)}", LINE_MAX)
    if outcome.state == "pending":
        why = escape_line(outcome.why, LINE_MAX) or "no server has accepted it yet"
        return [f"{at}: pending; {why}; opengnscd keeps it and delivers it"]
    return [f"{at}: {escape_line(outcome.state, LINE_MAX)}, revision {outcome.revision}"]


def lines_of_resolved(resolved: Resolved) -> list[str]:
    """Format one address and port per line, best first."""
    return [escape_line(format_endpoint(peer.address, peer.port), LINE_MAX) for peer in resolved.listeners]


def tree_of(dependencies: Dependencies) -> list[str]:
    """Format dependencies (function 2.3) as a tree: category, service, listener, backup."""
    lines = [f"{dependencies.service} at revision {dependencies.revision}"]
    if not dependencies.categories:
        lines.append("  no dependencies; an administrator can add one: opengnsadmin dependency add")
    for category in dependencies.categories:
        lines.append(f"  {category.category}")
        for service in category.services:
            lines.append(f"    {service.id}")
            lines += _peers(service.listeners, "      ", "(no listeners)")
        if not category.services:
            lines.append("    (no services)")
        if category.backup:
            lines.append(f"    backup: {category.backup}")
            lines += _peers(category.backup_listeners, "      ", "(no listeners)")
    return [escape_line(line, LINE_MAX) for line in lines]


def _peers(peers: Iterable[Listener], indent: str, otherwise: str) -> list[str]:
    shown = [(format_endpoint(peer.address, peer.port), _listener_text(peer)) for peer in peers]
    width = max((len(endpoint) for endpoint, _ in shown), default=0)
    return [f"{indent}{endpoint:<{width}}  {rest}" for endpoint, rest in shown] or [indent + otherwise]


def _listener_text(peer: Listener) -> str:
    weight = f"  weight {peer.weight}" if peer.weight != 1 else ""
    metadata = "".join(f"  {key}={value}" for key, value in sorted(peer.metadata.items()))
    # The cause of `up` is the registration.
    cause = f"  ({peer.cause})" if peer.cause and peer.state != "up" else ""
    return peer.state + weight + metadata + cause


def line_of_event(event: LocalEvent) -> str:
    """Format an event as one line: the revision, the time, and the change."""
    if isinstance(event.data, Change):
        when = datetime.fromtimestamp(event.data.time, UTC).strftime("%H:%M:%S.%f")[:-3]
        return escape_line(f"{event.revision:>8}  {when}Z  {_change_text(event.data)}", LINE_MAX)
    categories = event.data.categories
    count = sum(len(service.listeners) for category in categories for service in category.services)
    names = ", ".join(category.category for category in categories) or "nothing"
    return escape_line(
        f"{event.revision:>8}  snapshot: {event.data.service} depends on {names}; {count} listeners", LINE_MAX
    )


def _change_text(change: Change) -> str:
    match change.row:
        case Listener() as peer:
            state = "removed" if change.removed else _listener_text(peer)
            return f"listener {peer.service} {format_endpoint(peer.address, peer.port)}: {state}"
        case Category() as category:
            backup = f"backup {category.backup}" if category.backup else "no backup"
            return f"category {category.name}: {'removed' if change.removed else backup}"
        case Service() as service:
            return f"service {service.id}: {'removed' if change.removed else 'added'}"
        case Dependency() as dependency:
            verb = "no longer depends on" if change.removed else "depends on"
            return f"category {dependency.category}: {verb} {dependency.on}"
        case other:
            return f"{other.__struct_config__.tag} {key_of(other)}: {'removed' if change.removed else 'set'}"


def lines_of_status(status: HostStatus) -> list[str]:
    """Format the daemon's status, with the registrations, hooks and servers of this host."""
    session = {"open": f"open to {status.server}"}.get(status.session, status.session)
    lines = [
        f"host      {status.host}",
        f"session   {session}" + (f" ({status.problem})" if status.problem else ""),
        f"view      {f'revision {status.revision}' if status.loaded else 'not loaded yet'}, "
        f"{status.listeners} listeners, for {', '.join(status.services) or 'no service'}",
        f"here      {len(status.registrations) or 'no'} registration{'s'[: len(status.registrations) != 1]}",
    ]
    for number, problem in enumerate(one.problem for one in status.certificates if one.problem):
        lines.append(f"{'' if number else 'tls':<9} {problem}")
    for own in status.registrations:
        kept = f"  process {own.pid}" if own.pid else "  held by a connection" if own.hold else ""
        notes = f"not verified: {own.unverified}" if own.unverified else "", own.problem
        why = f"  ({'; '.join(filter(None, notes))})" if any(notes) else ""
        lines.append(f"          {own.service} {format_endpoint(own.address, own.port)}  {own.state}{kept}{why}")
        if own.own_check is not None:
            lines.append(f"            {_check_line(own.own_check)}")
    lines += [f"warning   {warning}" for warning in status.warnings]
    lines += [_unanswered_line(one, bool(number)) for number, one in enumerate(status.unanswered)]
    for number, reaction in enumerate(status.reactions):
        lines.append(("          " if number else "reacts    ") + _hook_line(reaction))
    for number, line in enumerate(_server_lines(status.servers)):
        lines.append(("          " if number else "servers   ") + line)
    return [escape_line(line, LINE_MAX) for line in lines]


def _unanswered_line(one: UnansweredName, is_further: bool) -> str:
    """Format a name that is asked for and has no listener."""
    why = f"asked for again and again for {one.seconds:.0f} s" if one.seconds else "a template renders it"
    hint = "" if is_further else "; which ones failed: opengnsadmin alert list"
    return f"{'' if is_further else 'missing':<9} {one.name} has no listener ({why}{hint})"


def _check_line(check: CheckStatus) -> str:
    """Format a check of a listener as one line: what is checked, the last result and when, and whether it fails."""
    if check.ago_seconds < 0:
        return f"check {check.what}: not made yet"
    result = f"{check.last}, {check.failures} in a row" if check.last else "passed"
    fails = "  FAILING, so the listener is suspect" if check.failing else ""
    return f"check {check.what}: {result}, {check.ago_seconds:.0f} s ago{fails}"


def _hook_line(reaction: ReactionStatus) -> str:
    """Format a hook or a template as one line: names that it watches, state, and the last problem."""
    turns = f", {reaction.turns} turn{'s'[: reaction.turns != 1]}" if reaction.turns else ""
    last = f", the last {reaction.ago_seconds:.0f} s ago" if reaction.ago_seconds >= 0 else ""
    again = f", failed {reaction.failures} times" if reaction.failures > 1 else ""
    why = f"  ({' '.join(reaction.problem.split())})" if reaction.problem else ""
    return f"{reaction.kind} {reaction.name} on {', '.join(reaction.on)}  {reaction.state}{turns}{last}{again}{why}"


def _server_lines(servers: Sequence[KnownServer]) -> list[str]:
    """Format one known address of a server per line, preferred first: name, endpoint, source, state, problem."""
    cells = [(known.name, known.endpoint, known.source, _server_state(known)) for known in servers]
    widths = [max(len(row[column]) for row in cells) for column in range(3)] if cells else []
    lines = []
    for *columns, state in cells:
        padded = [f"{text:<{width}}" for text, width in zip(columns, widths, strict=True)]
        lines.append("  ".join([*padded, state]))
    return lines


def _server_state(known: KnownServer) -> str:
    wait = f", next try in {known.next_try_seconds:.0f} s" if known.next_try_seconds else ""
    sent = ", redirected by another server" if known.steered else ""
    why = f"  ({known.problem})" if known.problem and known.state != "open" else ""
    return known.state.replace("-", " ") + wait + sent + why
