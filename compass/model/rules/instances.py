"""Decisions about single instances: what their host's own check says, what their host holds, and which of two counts.

A server's probe sees that a port accepts connections; the host's own check sees whether the service works. So a check
that fails makes a listener `suspect`, no probe brings it back, and the first success does. A probe that fails as well
makes it `down`, like every suspect listener. A listener that is `down` when its check passes again is probed.

A host's book may be lost, and a store may be restored from a backup: then a row is left whose end no host will notice.
Its host says so, and the row becomes suspect. The failure detector probes it as every suspect one; an answered probe
does not bring it back, because another program may have the address and port by now. It is registered again, or it
ends. The open incident about it is the mark that it is not held (opengnsp, "Rows and books").

Two instances of one service at one address and port may live on different hosts, by a copied configuration or because
an address moved. Then the newer one counts (P6), and the host of the older one is refused with the other host's name;
when the newer one is over, the older one may take an epoch above it and register again.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience
from compass.model.limits import CHECK_MAX, DETAIL_MAX, INSTANCES_PER_MESSAGE_MAX
from compass.model.names import category_of, format_endpoint, parse_address, parse_port, parse_service_id
from compass.model.replies import Done
from compass.model.requests import Disown, Register
from compass.model.rows import FAILING, Listener, State
from compass.model.rules.draft import Draft, refuse, unheld_id
from compass.model.text import escape_line

FAILED = "its own check failed: "
PASSES = "its own check passes again"
CHECK_FAILED = "check-failed"
CHECK_PASSED = "check-passed"


class CheckResults:
    """Results of one check: whether it fails. `failing`: the problem as it stands, if it failed before."""

    def __init__(self, failures: int, failing: str = "") -> None:
        self.failing = failing
        self.in_a_row = 0
        """Failures since the last success."""
        self.last = ""
        """Problem of the last check; empty: it passed, or there was none."""
        self._failures = failures

    def note(self, problem: str) -> bool:
        """Record a result; empty: the check passed. Returns whether `failing` has changed."""
        self.last = problem
        self.in_a_row = self.in_a_row + 1 if problem else 0
        before = self.failing
        if not problem:
            self.failing = ""
        elif not before and self.in_a_row >= self._failures:
            self.failing = problem
        return self.failing != before


def check_texts(request: Register) -> None:
    """Check the texts of a host's own check. Raises Refused."""
    for name, text, most in (("check", request.check, CHECK_MAX), ("failing", request.failing, DETAIL_MAX)):
        if len(text) > most:
            refuse("bad-value", f"{name} has {len(text)} characters; at most {most}")
    if request.failing and not request.check:
        refuse("bad-value", "failing without check: a problem needs the check that found it")


def apply_own_check(row: Listener, old: Listener | None, now: float) -> Listener:
    """Return a registered row with the state that its own check leaves it. `old`: the row of the same instance."""
    if not row.check and (old is None or not old.failing):
        return row
    checked_at = now if row.check else 0.0
    if old is not None and row.check and (old.check, bool(old.failing)) == (row.check, bool(row.failing)):
        checked_at = old.checked_at
    row = msgspec.structs.replace(row, checked_at=checked_at)
    drains = row.draining or row.state == "draining"
    if row.failing and row.state not in FAILING:
        cause = escape_line(FAILED + row.failing, DETAIL_MAX)
        return msgspec.structs.replace(row, state="suspect", changed_at=now, cause=cause, draining=drains)
    if old is not None and old.failing and not row.failing and row.state == "suspect":
        return msgspec.structs.replace(row, state="draining" if drains else "up", changed_at=now, cause=PASSES)
    return row


def operation_of(old: Listener | None, row: Listener) -> str:
    """Return the operation of a registration. `old`: the row of the same instance."""
    if old is None or bool(old.failing) == bool(row.failing):
        return "register"
    return CHECK_FAILED if row.failing else CHECK_PASSED


def answered(old: Listener, cause: str, now: float) -> Listener:
    """Return the row of a listener whose own check fails, after it has answered a probe: `suspect` at best."""
    if old.state != "down":
        return old
    text = escape_line(f"{cause}, but {FAILED}{old.failing}", DETAIL_MAX)
    return msgspec.structs.replace(old, state="suspect", changed_at=now, cause=text)


UNHELD = "its host does not hold it"
"""Beginning of the cause of such a listener."""


def is_unheld(catalogue: Catalogue, listener: Listener) -> bool:
    """Return whether a listener is out of use because its host does not hold it."""
    return bool(catalogue.alerts) and listener.state in FAILING and unheld_id(listener) in catalogue.alerts


def is_recorded_for(listener: Listener | None, host: str, epoch: int) -> bool:
    """Return whether a row is that of this instance of a host, and not offline."""
    return listener is not None and listener.host == host and listener.epoch == epoch and listener.state != "offline"


def decide_disown(draft: Draft, request: Disown) -> Done:
    """Mark the instances that their host does not hold. One that is recorded differently by now stays as it is."""
    if len(request.instances) > INSTANCES_PER_MESSAGE_MAX:
        refuse("too-large", f"{len(request.instances)} instances in one request; at most {INSTANCES_PER_MESSAGE_MAX}")
    for instance in request.instances:
        service, address = parse_service_id(instance.service), parse_address(instance.address)
        row = draft.catalogue.listener(service, address, parse_port(instance.port))
        if row is not None and is_recorded_for(row, draft.principal.name, instance.epoch):
            _disown(draft, row, request.detail)
    return Done(draft.catalogue.revision)


def _disown(draft: Draft, row: Listener, detail: str) -> None:
    if is_unheld(draft.catalogue, row):
        return
    why = f": {detail}" if detail else ""
    endpoint = format_endpoint(row.address, row.port)
    # Before the row changes, so that all who follow the row know why.
    draft.open_incident(
        unheld_id(row),
        f"{row.service} at {endpoint} is recorded for host {row.host}, which does not hold it{why}; it is used last "
        f"until it is registered again. If it has ended, run 'opengnsadmin listener remove {row.service} {endpoint}'",
    )
    # Further evidence against a listener that fails is no change of it; the incident is the mark.
    if row.state not in FAILING:
        cause = escape_line(f"{UNHELD}{why}", DETAIL_MAX)
        draining = row.draining or row.state == "draining"
        lost = msgspec.structs.replace(row, state="suspect", changed_at=draft.now, cause=cause, draining=draining)
        draft.set("disown", lost)


HOSTS_READ_MAX = 1_000
"""Hosts read for a warning about a loopback address: a millisecond; a deployment has few hosts that depend on nothing.
"""


def check_succession(draft: Draft, old: Listener, epoch: int) -> None:
    """Check that an instance is not older than the recorded one, and not over itself. Raises Refused.

    `deregistered` with a host: the recorded instance of that other host is over, and a newer epoch is accepted.
    """
    endpoint = format_endpoint(old.address, old.port)
    other = old.host if draft.principal.role == "host" and old.host != draft.principal.name else ""
    if epoch < old.epoch and other and _is_over(draft.catalogue, old):
        text = f"{old.service} at {endpoint} was registered later by host {other}, and that instance is over"
        refuse("deregistered", f"{text}; register with a newer epoch", epoch=old.epoch, host=other)
    if epoch < old.epoch:
        by = f"a newer instance on host {other}" if other else "a newer instance"
        refuse("stale-epoch", f"{old.service} at {endpoint} was registered by {by}", epoch=old.epoch, host=other)
    if epoch == old.epoch and old.state == "offline":
        text = f"this instance of {old.service} at {endpoint} is over ({old.cause})"
        refuse("deregistered", f"{text}; only a new one can register", epoch=old.epoch, host=other)


def state_held(catalogue: Catalogue, old: Listener) -> State:
    """Return the state of an instance that its host registers again."""
    if is_unheld(catalogue, old):
        return "draining" if old.draining else "up"
    return old.state


def doubt_about(draft: Draft, old: Listener | None, service: str, address: str) -> str:
    """Return what a host should know about its registration; empty: there is nothing."""
    host = draft.principal.name
    if draft.principal.role != "host":
        return ""
    if old is not None and old.host not in ("", host) and not _is_over(draft.catalogue, old):
        return (
            f"it takes the place of the instance of host {old.host} at the same address and port, which may run on; "
            "if that is not intended, register one of them with another address or port"
        )
    if _is_loopback(address) and (other := _dependant_elsewhere(draft.catalogue, service, host)):
        return (
            f"{address} is a loopback address, and host {other} depends on {category_of(service)}: there it is another "
            "machine; register the address of this host"
        )
    return ""


def _is_over(catalogue: Catalogue, listener: Listener) -> bool:
    return listener.state in ("offline", "down") or is_unheld(catalogue, listener)


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _dependant_elsewhere(catalogue: Catalogue, service: str, host: str) -> str:
    """Return another host whose services depend on a service; empty: there is none."""
    members = audience(catalogue, Listener(service, "", 0, "up", 0.0, 0))
    if not members:
        return ""
    for other in islice(catalogue.hosts.values(), HOSTS_READ_MAX):
        if other.name != host and any(category_of(own) in members for own in other.services):
            return other.name
    return ""
