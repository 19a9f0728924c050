"""Decisions about listeners: register, deregister, drain, report, verdict, purge (functions 2.1, 2.2, 2.5)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.octets import octets_of
from compass.model.limits import (
    DETAIL_MAX,
    HOST_SERVICES_MAX,
    LISTENERS_PER_SERVICE_MAX,
    PURGE_AGE_SECONDS_MIN,
    PURGE_OCTETS_MAX,
)
from compass.model.names import category_of, format_endpoint, parse_address, parse_label, parse_port, parse_service_id
from compass.model.replies import Deregistered, Done, Registered, Reported
from compass.model.requests import (
    Deregister,
    Drain,
    Incident,
    Purge,
    Register,
    Report,
    Suspect,
    Verdict,
    WeighedReport,
)
from compass.model.rows import FAILING, IDLE, Listener, State
from compass.model.rules import instances, validation
from compass.model.rules.draft import Draft, refuse, unheld_id
from compass.model.rules.failure import may_condemn
from compass.model.rules.shares import check_parameters, check_registration
from compass.model.rules.validation import check_epoch, check_host, detail_problem, is_doubtful, saw_it_die
from compass.model.text import escape_line


def decide_register(draft: Draft, request: Register) -> Registered:
    """Decide a registration (2.1). An older epoch is refused; an equal one keeps the listener's state."""
    service = _permitted_service(draft, request)
    address, port = parse_address(request.address), parse_port(request.port)
    check_parameters(request)
    old = draft.catalogue.listener(service, address, port)
    epoch = _epoch_for(draft, request, old)
    if old is None and len(draft.catalogue.listeners.get(service, {})) >= LISTENERS_PER_SERVICE_MAX:
        most = LISTENERS_PER_SERVICE_MAX
        refuse("too-large", f"{service} has {most} listeners, the most there can be; purge old ones")
    if old is not None:
        instances.check_succession(draft, old, epoch)
    same = old if old is not None and epoch == old.epoch else None
    # A host that registers its listeners again after a server's restart has no new evidence about their health.
    state: State = instances.state_held(draft.catalogue, same) if same is not None else "up"
    warning = instances.doubt_about(draft, old, service, address)
    row = Listener(
        service=service,
        address=address,
        port=port,
        state=state,
        changed_at=draft.now,
        epoch=epoch,
        host=old.host if old is not None and draft.principal.role == "admin" else draft.principal.name,
        weight=request.weight,
        metadata=request.metadata,
        cause="registered",
        draining=same is not None and same.draining,
        zone=parse_label(request.zone, "zone") if request.zone else "",
        load=float(request.load) or IDLE,
        degradation=float(request.degradation) or IDLE,
        check=request.check,
        failing=request.failing,
    )
    if same is not None and same.state == state:
        row = msgspec.structs.replace(row, changed_at=same.changed_at, cause=same.cause)
    row = instances.apply_own_check(row, same, draft.now)
    if row == same:
        return Registered(draft.catalogue.revision, row.state, changed=False, warning=warning)
    check_registration(draft.catalogue, old, row)
    draft.set(instances.operation_of(same, row), row)
    _settle_alerts(draft, same, row)
    registered = Registered(draft.catalogue.revision, row.state, warning=warning)
    _attend(draft, service)
    return registered


def _settle_alerts(draft: Draft, same: Listener | None, row: Listener) -> None:
    """Close the alerts of a listener that is up, and open one if its own check fails only now."""
    was_unheld = draft.close_incident(unheld_id(row))
    if row.state == "up" or (was_unheld and row.state == "draining"):
        draft.close_alerts(row)
        _settle_cap(draft, row)
    elif row.failing and not (same is not None and same.failing):
        draft.open_alert("failure", row, f"{_named(row)} on host {row.host}: {instances.FAILED}{row.failing}")


def _attend(draft: Draft, service: str) -> None:
    """Record with the registration that a known host watches its own service: its watch changes nothing."""
    host = draft.catalogue.hosts.get(draft.principal.name) if draft.principal.role == "host" else None
    if host is not None and service not in host.services and len(host.services) < HOST_SERVICES_MAX:
        services = tuple(sorted((*host.services, service)))
        draft.set("host-watch", msgspec.structs.replace(host, services=services))


def decide_deregister(draft: Draft, request: Deregister) -> Deregistered:
    """Decide a deregistration (2.2). One of an instance that has been replaced is refused (P6).

    One that arrives before the registration of its instance is recorded, and refuses that registration.
    """
    service = existing_service(draft, request.service)
    if not saw_it_die(draft.catalogue, draft.principal, service, request):
        check_credential(draft, service, request.credential, "deregister")
    old = existing_listener(draft, service, request.address, request.port)
    if old.host != draft.principal.name:
        check_host(draft, service, "deregister")
    check_epoch(draft, request.epoch, old)
    if request.epoch < old.epoch:
        refuse("stale-epoch", f"{_named(old)} belongs to a newer instance, which stays registered", epoch=old.epoch)
    if request.unverified and request.epoch > old.epoch:
        # It was never recorded: what is recorded is another instance, which this host knows nothing about.
        refuse("unknown-listener", f"epoch {request.epoch} of {_named(old)} was never registered", epoch=old.epoch)
    if old.state == "offline" and request.epoch == old.epoch:
        return Deregistered(draft.catalogue.revision, "offline", changed=False)
    if is_doubtful(draft.principal, request, old):
        return Deregistered(draft.catalogue.revision, old.state, changed=False)
    operation, cause = ("died", "its process ended") if request.died else ("deregister", "deregistered")
    # A newer instance that is over before its registration: the host of the older one has to know whose it was.
    host = draft.principal.name if request.epoch > old.epoch and draft.principal.role == "host" else old.host
    row = msgspec.structs.replace(
        old, state="offline", changed_at=draft.now, epoch=request.epoch, cause=cause, host=host
    )
    draft.set(operation, row)
    if request.died:
        draft.close_incident(unheld_id(row))
        draft.open_alert("failure", row, f"{_named(row)} on host {row.host} ended without deregistering")
    else:
        draft.close_alerts(row)
    _settle_cap(draft, row)
    return Deregistered(draft.catalogue.revision, "offline")


def decide_drain(draft: Draft, request: Drain) -> Reported:
    """Decide the begin or end of a drain. A pending verdict stays pending."""
    service = existing_service(draft, request.service)
    check_credential(draft, service, request.credential, "drain" if request.draining else "undrain")
    old = existing_listener(draft, service, request.address, request.port)
    if old.host != draft.principal.name:
        check_host(draft, service, "drain")
    drains = is_draining(old)
    if old.state == "offline" or (request.draining and old.state == "down" and not drains):
        refuse("bad-value", f"{_named(old)} is {old.state}: there is nothing to drain")
    if not request.draining and not drains and old.state != "up":
        refuse("bad-value", f"{_named(old)} is {old.state}, not draining")
    if drains == request.draining:
        return Reported(draft.catalogue.revision, old.state)
    row = msgspec.structs.replace(old, draining=request.draining)
    if old.state not in FAILING:
        state: State = "draining" if request.draining else "up"
        cause = f"{'drained' if request.draining else 'undrained'} by {draft.principal.name}"
        row = msgspec.structs.replace(row, state=state, changed_at=draft.now, cause=cause)
    draft.set("drain" if request.draining else "undrain", row)
    return Reported(draft.catalogue.revision, row.state)


def is_draining(listener: Listener) -> bool:
    """Return whether a listener is drained. A row of an older server shows this only by its state."""
    return listener.draining or listener.state == "draining"


def decide_report(draft: Draft, request: Report) -> Reported:
    """Decide a report (2.5): `unreachable` makes a listener suspect at once; the category's policy defines `slow`.

    A weighed report that does not suffice changes nothing: the detector probes, and the probe decides.
    """
    service = existing_service(draft, request.service)
    if draft.principal.role == "host" and not _uses(draft, service):
        refuse(
            "forbidden",
            f"{draft.principal} may not report {service}: "
            f"none of its services depends on category {category_of(service)}",
        )
    if problem := detail_problem(request):
        refuse("bad-value", problem)
    reporter = parse_service_id(request.reporter) if request.reporter else draft.principal.name
    old = existing_listener(draft, service, request.address, request.port)
    if old.state == "offline":
        refuse("unknown-listener", f"{_named(old)} is not registered any more ({old.cause})")
    if request.state == "slow":
        return _decide_slow(draft, old, reporter, request.detail)
    if old.state in FAILING or (isinstance(request, WeighedReport) and not request.enough):
        return Reported(draft.catalogue.revision, old.state)
    cause = f"reported unreachable by {reporter} on {draft.principal.name}" + _suffix(request.detail)
    return _suspect(draft, "report", old, cause)


def decide_suspect(draft: Draft, request: Suspect) -> Reported:
    """Decide evidence that is not a report: a probe of this instance failed after its host's session was lost."""
    old = draft.catalogue.listener(request.service, request.address, request.port)
    if old is None or old.epoch != request.epoch or old.state == "offline" or old.state in FAILING:
        return Reported(draft.catalogue.revision, old.state if old else "offline")
    return _suspect(draft, "suspect", old, escape_line(request.cause, DETAIL_MAX))


def _suspect(draft: Draft, operation: str, old: Listener, cause: str) -> Reported:
    row = msgspec.structs.replace(old, state="suspect", changed_at=draft.now, cause=cause, draining=is_draining(old))
    draft.set(operation, row)
    return Reported(draft.catalogue.revision, row.state)


def _decide_slow(draft: Draft, old: Listener, reporter: str, detail: str) -> Reported:
    category = draft.catalogue.categories[category_of(old.service)]
    draft.open_alert("slow", old, f"{_named(old)} reported slow by {reporter}{_suffix(detail)}")
    if category.policy.slow == "notify" and old.state == "up":
        cause = f"reported slow by {reporter}{_suffix(detail)}"
        draft.set("slow", msgspec.structs.replace(old, state="slow", changed_at=draft.now, cause=cause))
        return Reported(draft.catalogue.revision, "slow")
    return Reported(draft.catalogue.revision, old.state)


def decide_verdict(draft: Draft, request: Verdict) -> Reported:
    """Decide the detector's verdict.

    A verdict is valid only for the instance that was probed, and `dead` only for a suspect one. Beyond the category's
    cap a listener stays suspect, and administrators are notified once (P8).
    """
    old = draft.catalogue.listener(request.service, request.address, request.port)
    if old is None or old.epoch != request.epoch or old.state == "offline":
        return Reported(draft.catalogue.revision, old.state if old else "offline")
    row, cause = old, escape_line(request.cause, DETAIL_MAX)
    unheld = instances.is_unheld(draft.catalogue, old)
    if request.alive and unheld:
        # Another program may have its address and port by now; only its host knows.
        return Reported(draft.catalogue.revision, old.state)
    if request.alive and old.failing and old.state in FAILING:
        row = instances.answered(old, cause, draft.now)
        if row != old:
            draft.set("suspect", row)
            _settle_cap(draft, row)
    elif request.alive:
        if old.state in FAILING | {"slow"}:
            state: State = "draining" if is_draining(old) else "up"
            row = msgspec.structs.replace(old, state=state, changed_at=draft.now, cause=cause)
            draft.set("retract" if old.state == "suspect" else "recover", row)
        draft.close_alerts(row)
        _settle_cap(draft, row)
    elif old.state == "suspect":
        policy = draft.catalogue.categories[category_of(old.service)].policy
        if not may_condemn(_peers(draft, old), policy.cap):
            text = (
                f"as many listeners of {category_of(old.service)} are down as its cap of {policy.cap:g} lets be: "
                f"{_named(old)} and others that fail stay suspect and are used when nothing better is left"
            )
            draft.open_incident(cap_id(category_of(old.service)), text)
            return Reported(draft.catalogue.revision, old.state)
        if unheld:
            cause = escape_line(f"{instances.UNHELD}, and {cause}", DETAIL_MAX)
        row = msgspec.structs.replace(old, state="down", changed_at=draft.now, cause=cause)
        draft.set("confirm", row)
        draft.open_alert("failure", row, f"{_named(row)} is down: {row.cause}")
    return Reported(draft.catalogue.revision, row.state)


def decide_incident(draft: Draft, request: Incident) -> Reported:
    """Decide an incident of the server itself: one alert at its begin, one at its end."""
    if request.text:
        draft.open_incident(request.id, request.text)
    else:
        draft.close_incident(request.id)
    return Reported(draft.catalogue.revision, "up")


def _settle_cap(draft: Draft, row: Listener) -> None:
    """Close the alert about a category's cap if fewer listeners are down than the cap allows."""
    id = cap_id(category_of(row.service))
    if id in draft.catalogue.alerts:
        category = draft.catalogue.categories.get(category_of(row.service))
        if category is None or may_condemn(_peers(draft, row), category.policy.cap):
            draft.close_incident(id)


def cap_id(category: str) -> str:
    """Return the id of the incident that as many listeners of a category are down as its cap allows."""
    return f"failure cap of {category}"


def _peers(draft: Draft, row: Listener) -> Iterator[Listener]:
    """Return all listeners of a listener's category."""
    return draft.catalogue.listeners_within(category_of(row.service))


def decide_purge(draft: Draft, request: Purge) -> Done:
    """Remove the rows of listeners that have been in the request's state for its age, and their incidents.

    One request removes `PURGE_OCTETS_MAX` octets of rows; the reply says whether there are more.
    """
    if not request.age_seconds >= PURGE_AGE_SECONDS_MIN:
        refuse(
            "bad-value",
            f"age {request.age_seconds:g} s is too young to purge; at least {PURGE_AGE_SECONDS_MIN:g} s",
        )
    before = draft.now - request.age_seconds
    stale = [
        peer
        for peers in draft.catalogue.listeners.values()
        for peer in peers.values()
        if peer.state == request.state and peer.changed_at <= before
    ]
    octets = 0
    for peer in sorted(stale, key=lambda peer: (peer.service, peer.address, peer.port)):
        if octets >= PURGE_OCTETS_MAX:
            return Done(draft.catalogue.revision, draft.shown_changes(), more=True)
        octets += octets_of(peer)
        draft.close_alerts(peer)
        draft.remove("purge", peer)
    return Done(draft.catalogue.revision, draft.shown_changes())


def existing_service(draft: Draft, text: str) -> str:
    """Return the parsed id of an existing service. Raises Refused if its category or the service does not exist."""
    service = parse_service_id(text)
    if category_of(service) not in draft.catalogue.categories:
        refuse("unknown-category", f"there is no category {category_of(service)!r}; an administrator can add it")
    if draft.catalogue.service(service) is None:
        refuse("unknown-service", f"there is no service {service!r}; an administrator can add it")
    return service


def existing_listener(draft: Draft, service: str, address: str, port: int) -> Listener:
    """Return the listener, which may be offline. Raises Refused if there is none."""
    address, port = parse_address(address), parse_port(port)
    listener = draft.catalogue.listener(service, address, port)
    if listener is None:
        refuse("unknown-listener", f"{service} has no listener {format_endpoint(address, port)}")
    return listener


def check_credential(draft: Draft, service: str, token: str, action: str) -> None:
    """Check that the token is a credential of the service; administrators need none. Raises Refused."""
    if not token and (draft.principal.role == "admin" or validation.is_open(draft, service)):
        return
    if not credential_holds(draft.catalogue, service, token, draft.now):
        refuse(
            "bad-credential",
            f"{action} {service}: this is not a credential of {service}"
            if token
            else f"{action} {service}: a credential of {service} is needed; an administrator can issue one",
        )


def _permitted_service(draft: Draft, request: Register) -> str:
    """Return the service of a registration whose credential and host are right. Raises Refused."""
    if draft.in_development:
        validation.declare(draft, parse_service_id(request.service))
    service = existing_service(draft, request.service)
    check_credential(draft, service, request.credential, "register")
    check_host(draft, service, "register")
    return service


def credential_holds(catalogue: Catalogue, service: str, token: str, now: float) -> bool:
    """Return whether the token is a valid credential of the service, compared in constant time."""
    digest = digest_of(token)
    held = False
    for credential in catalogue.credentials.get(service, {}).values():
        current = not credential.expires_at or now < credential.expires_at
        held |= current & hmac.compare_digest(credential.digest, digest)
    return held


def digest_of(token: str) -> str:
    """Return the stored form of a token. A token has 256 random bits, so a plain SHA-256 cannot be searched."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _epoch_for(draft: Draft, request: Register, old: Listener | None) -> int:
    epoch = request.epoch
    if epoch == 0 and draft.principal.role == "admin":
        epoch = old.epoch + 1 if old else 1
    check_epoch(draft, epoch, old)
    return epoch


def _uses(draft: Draft, service: str) -> bool:
    """Return whether the requesting host has services that depend on this one's category or one that it backs up."""
    host = draft.catalogue.hosts.get(draft.principal.name)
    if host is None:
        return False
    provided = {category_of(service), *draft.catalogue.backed.get(service, frozenset())}
    return any(draft.catalogue.needs.get(category_of(own), frozenset()) & provided for own in host.services)


def _named(listener: Listener) -> str:
    return f"{listener.service} at {format_endpoint(listener.address, listener.port)}"


def _suffix(detail: str) -> str:
    return f": {detail}" if detail else ""
