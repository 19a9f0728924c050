"""Which of two instances of one service at one address and port counts: the newer one, as long as it lives (P6).

Both may live on different hosts, by a copied configuration or because an address moved. Then the newer one counts and
the host of the older one is refused with the other host's name; when the newer one is over, the older one may take an
epoch above it and register again.
"""

from __future__ import annotations

from itertools import islice

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience
from compass.model.names import category_of, format_endpoint
from compass.model.rows import Listener, State
from compass.model.rules.draft import Draft, refuse
from compass.model.rules.unheld import is_unheld

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
