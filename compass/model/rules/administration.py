"""Decisions of administrators: objects, credentials, topologies (function 2.6)."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from immutables import Map

from compass.model import limits, names
from compass.model.replies import CredentialIssued, Done, Problem
from compass.model.requests import Apply, Attend, IssueCredential, Put, Remove, RevokeCredential
from compass.model.rows import ANY_HOST, Category, Credential, Dependency, Host, Service, without_secret
from compass.model.rules.draft import Draft, Refused, refuse
from compass.model.rules.listeners import digest_of, existing_listener, existing_service
from compass.model.rules.shares import check_declaration
from compass.model.rules.tokens import is_of_tokens
from compass.model.rules.validation import Declared, check_host_lists, parse_declared, parse_host, recorded_host


def decide_put(draft: Draft, request: Put) -> Done:
    """Decide the addition or change of an object."""
    row = parse_host(request.row) if isinstance(request.row, Host) else parse_declared(request.row)
    exists = _exists(draft, row)
    if request.create and exists:
        refuse("exists", f"{_kind(row)} {_name(row)} exists already")
    if not request.create and not exists:
        _refuse_unknown(row)
    _put(draft, row)
    return Done(draft.catalogue.revision, draft.shown_changes())


def decide_remove(draft: Draft, request: Remove) -> Done:
    """Remove an unused object; a listener stays as an offline row so that its epoch is known."""
    match request.kind:
        case "category":
            _remove_category(draft, names.parse_label(request.name, "category"))
        case "service":
            _remove_service(draft, existing_service(draft, request.name))
        case "dependency":
            category, _, on = request.name.partition(" ")
            _remove_dependency(draft, Dependency(*(names.parse_label(name, "category") for name in (category, on))))
        case "listener":
            _remove_listener(draft, request.name)
        case "host":
            host = draft.catalogue.hosts.get(names.parse_host_name(request.name))
            if host is None:
                refuse("unknown-host", f"no host {request.name!r} has connected or been added")
            draft.remove("host-remove", host)
    return Done(draft.catalogue.revision, draft.shown_changes())


def decide_issue(draft: Draft, request: IssueCredential) -> CredentialIssued:
    """Issue a credential with the token of the draft."""
    service = existing_service(draft, request.service)
    overlap = request.overlap_seconds
    if overlap is not None and not 0 <= overlap <= limits.OVERLAP_SECONDS_MAX:
        refuse("bad-value", f"overlap {overlap:g} s is not between 0 and ten years")
    for _, old in sorted(draft.catalogue.credentials.get(service, Map()).items()):
        if overlap == 0 or 0 < old.expires_at <= draft.now:
            draft.remove("credential-expire", old)
        elif overlap is not None and (not old.expires_at or old.expires_at > draft.now + overlap):
            draft.set("credential-rotate", msgspec.structs.replace(old, expires_at=draft.now + overlap))
    if len(draft.catalogue.credentials.get(service, Map())) >= limits.CREDENTIALS_PER_SERVICE_MAX:
        refuse(
            "in-use",
            f"{service} has {limits.CREDENTIALS_PER_SERVICE_MAX} credentials, the most there can be; revoke one",
        )
    digest = digest_of(draft.token)
    credential = Credential(digest[:12], service, digest, draft.now)
    draft.set("credential-issue", credential)
    return CredentialIssued(draft.catalogue.revision, without_secret(credential), draft.token)


def decide_revoke(draft: Draft, request: RevokeCredential) -> Done:
    """Revoke a credential; listeners registered with it stay."""
    service = existing_service(draft, request.service)
    credential = draft.catalogue.credentials.get(service, Map()).get(request.id)
    if credential is None:
        refuse("unknown-credential", f"{service} has no credential {request.id[:80]!r}")
    draft.remove("credential-revoke", credential)
    return Done(draft.catalogue.revision)


def decide_attend(draft: Draft, request: Attend) -> Done:
    """Record the services that a host watches and its update address; no change if these are known."""
    watched = parse_host(Host(request.host, request.update_address, request.update_port, request.services))
    row = recorded_host(draft.catalogue, watched)
    if row != draft.catalogue.hosts.get(row.name):
        draft.set("host-watch", row)
    return Done(draft.catalogue.revision)


def decide_apply(draft: Draft, request: Apply) -> Done:
    """Bring the declared objects into the state of a topology. Raises Refused with all problems of the topology."""
    problems: list[Problem] = []
    wanted: list[tuple[int, Declared]] = []
    for index, row in enumerate(request.rows):
        try:
            wanted.append((index, parse_declared(row)))
        except (Refused, names.InvalidName) as problem:
            problems.append(_problem(index, problem))
            if isinstance(row, Category):
                # Rows that refer to the category are not wrong, so the draft, which is dropped, contains it.
                with suppress(names.InvalidName):
                    _put(draft, Category(names.parse_label(row.name)))
    problems += _contradictions(wanted)
    # A category may name a backup service that the same topology declares, so backups are set last.
    for index, row in sorted(wanted, key=lambda entry: _ORDER.index(type(entry[1]))):
        if isinstance(row, Category):
            old = draft.catalogue.categories.get(row.name)
            _attempt(draft, index, msgspec.structs.replace(row, backup=old.backup if old else ""), problems)
        else:
            _attempt(draft, index, row, problems)
    for index, row in wanted:
        if isinstance(row, Category):
            _attempt(draft, index, row, problems)
    if request.prune and not problems:
        _prune(draft, [row for _, row in wanted])
    if problems:
        problems.sort(key=lambda problem: problem.index)
        listed = tuple(problems[: limits.PROBLEMS_MAX])
        rest = f"; the first {len(listed)} are listed" if len(listed) < len(problems) else ""
        refuse("invalid-topology", f"{len(problems)} problems, nothing applied{rest}", problems=listed)
    return Done(draft.catalogue.revision, draft.shown_changes())


_ORDER: tuple[type, ...] = (Category, Service, Dependency)


def _contradictions(wanted: list[tuple[int, Declared]]) -> list[Problem]:
    """Return a problem for each category that a topology declares twice with different values."""
    first: dict[str, Category] = {}
    return [
        Problem(index, "exists", f"category {row.name} is declared twice, and not alike")
        for index, row in wanted
        if isinstance(row, Category) and first.setdefault(row.name, row) != row
    ]


def _attempt(draft: Draft, index: int, row: Declared, problems: list[Problem]) -> None:
    try:
        _put(draft, row)
    except Refused as refused:
        problems.append(_problem(index, refused))


def _problem(index: int, problem: Refused | names.InvalidName) -> Problem:
    if isinstance(problem, Refused):
        return Problem(index, problem.refusal.code, problem.refusal.message)
    return Problem(index, problem.code, str(problem))


def _prune(draft: Draft, wanted: list[Declared]) -> None:
    """Remove the objects that the topology does not name, except tokens: dependencies, then services, then
    categories."""
    named = {(type(row), _name(row)) for row in wanted}
    for name, row in sorted(draft.catalogue.categories.items()):
        # A removed category must not refer to its backup service, which may be removed before it.
        if row.backup and (Category, name) not in named:
            draft.set("category-set", msgspec.structs.replace(row, backup=""))
    catalogue = draft.catalogue
    for category, needs in sorted(catalogue.needs.items()):
        for on in sorted(needs):
            if (Dependency, f"{category} {on}") not in named:
                _remove_dependency(draft, Dependency(category, on))
    for ids in sorted(catalogue.services.values(), key=min):
        for id in sorted(ids):
            if (Service, id) not in named and not is_of_tokens(id):
                _remove_service(draft, id)
    for name in sorted(catalogue.categories):
        if (Category, name) not in named and not is_of_tokens(name):
            _remove_category(draft, name)


def _put(draft: Draft, row: Category | Service | Dependency | Host) -> None:
    """Set a parsed row whose references exist; no change if the same row exists. Raises Refused."""
    match row:
        case Category():
            if row.backup and draft.catalogue.service(row.backup) is None:
                refuse("unknown-service", f"category {row.name}: its backup service {row.backup} does not exist")
            row = _with_hosts(draft, row)
            if draft.catalogue.categories.get(row.name) == row:
                return
        case Service():
            if names.category_of(row.id) not in draft.catalogue.categories:
                refuse("unknown-category", f"service {row.id}: there is no category {names.category_of(row.id)!r}")
        case Dependency():
            for name in (row.category, row.on):
                if name not in draft.catalogue.categories:
                    refuse(
                        "unknown-category",
                        f"dependency of {row.category} on {row.on}: there is no category {name!r}",
                    )
        case Host():
            if draft.catalogue.hosts.get(row.name) == row:
                return
    if isinstance(row, Category | Host) or not _exists(draft, row):
        draft.set(f"{_kind(row)}-{'set' if _exists(draft, row) else 'add'}", row)
        check_declaration(draft.catalogue, row)


def _with_hosts(draft: Draft, row: Category) -> Category:
    """Return a category with the lists of hosts that the request left unchanged, without those that it removes."""
    old = draft.catalogue.categories.get(row.name)
    hosts = {**(old.policy.hosts if old is not None else {}), **row.policy.hosts}
    hosts = {label: names for label, names in hosts.items() if names != (ANY_HOST,)}
    check_host_lists(hosts)
    return msgspec.structs.replace(row, policy=msgspec.structs.replace(row.policy, hosts=hosts))


def _exists(draft: Draft, row: Category | Service | Dependency | Host) -> bool:
    match row:
        case Category():
            return row.name in draft.catalogue.categories
        case Service():
            return draft.catalogue.service(row.id) is not None
        case Dependency():
            return row.on in draft.catalogue.needs.get(row.category, frozenset())
        case Host():
            return row.name in draft.catalogue.hosts


def _refuse_unknown(row: Category | Service | Dependency | Host) -> None:
    match row:
        case Category():
            refuse("unknown-category", f"there is no category {row.name!r}")
        case Service():
            refuse("unknown-service", f"there is no service {row.id!r}")
        case Dependency():
            refuse("unknown-dependency", f"{row.category} does not depend on {row.on}")
        case Host():
            refuse("unknown-host", f"no host {row.name!r} has connected or been added")


def _remove_category(draft: Draft, name: str) -> None:
    row = draft.catalogue.categories.get(name)
    if row is None:
        refuse("unknown-category", f"there is no category {name!r}")
    services = draft.catalogue.services.get(name)
    if services:
        refuse("in-use", f"category {name} has services ({', '.join(sorted(services)[:3])}); remove them first")
    dependants = draft.catalogue.dependants.get(name, frozenset()) - {name}
    if dependants:
        refuse("in-use", f"category {name} is depended on by {', '.join(sorted(dependants)[:3])}")
    for on in sorted(draft.catalogue.needs.get(name, frozenset())):
        draft.remove("dependency-remove", Dependency(name, on))
    draft.remove("category-remove", row)


def _remove_service(draft: Draft, id: str) -> None:
    backed = draft.catalogue.backed.get(id)
    if backed:
        refuse("in-use", f"service {id} is the backup of {', '.join(sorted(backed))}")
    peers = sorted(draft.catalogue.listeners.get(id, Map()).values(), key=lambda peer: (peer.address, peer.port))
    if any(peer.state != "offline" for peer in peers):
        refuse("in-use", f"service {id} has registered listeners; stop or remove them first")
    for peer in peers:
        draft.close_alerts(peer)
        draft.remove("purge", peer)
    for credential in sorted(draft.catalogue.credentials.get(id, Map()).values(), key=lambda row: row.id):
        draft.remove("credential-revoke", credential)
    _forget_policy(draft, id)
    draft.remove("service-remove", Service(id))


def _forget_policy(draft: Draft, id: str) -> None:
    """Remove what the policy says of a removed service: a later service of the same name is another one."""
    label, _, category = id.partition(".")
    row = draft.catalogue.categories.get(category)
    if row is not None and (label in row.policy.pools or label in row.policy.hosts):
        pools = {name: pool for name, pool in row.policy.pools.items() if name != label}
        hosts = {name: allowed for name, allowed in row.policy.hosts.items() if name != label}
        policy = msgspec.structs.replace(row.policy, pools=pools, hosts=hosts)
        draft.set("category-set", msgspec.structs.replace(row, policy=policy))


def _remove_dependency(draft: Draft, row: Dependency) -> None:
    if not _exists(draft, row):
        _refuse_unknown(row)
    draft.remove("dependency-remove", row)


def _remove_listener(draft: Draft, name: str) -> None:
    service, _, endpoint = name.partition(" ")
    old = existing_listener(draft, existing_service(draft, service), *names.parse_endpoint(endpoint))
    if old.state != "offline":
        cause = f"removed by {draft.principal.name}"
        draft.set("remove", msgspec.structs.replace(old, state="offline", changed_at=draft.now, cause=cause))
    draft.close_alerts(old)


def _kind(row: Category | Service | Dependency | Host) -> str:
    return type(row).__name__.lower()


def _name(row: Category | Service | Dependency | Host) -> str:
    match row:
        case Service():
            return row.id
        case Dependency():
            return f"{row.category} {row.on}"
        case Category() | Host():
            return row.name
