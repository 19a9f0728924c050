"""Codes of refusals, by what each means for a registration."""

from __future__ import annotations

from compass.model.replies import Refusal, Reply

TRANSIENT = frozenset({"unreachable", "not-ready", "busy", "store-unavailable"})
"""Codes of refusals that do not judge the request: it is repeated later."""
FUTILE = frozenset({"bad-credential", "forbidden"})
"""Codes of refusals that a repetition on the next session would only repeat, each time with an entry in the security
log."""
GONE = frozenset({"unknown-listener", "unknown-service", "unknown-category"})
"""Codes of refused deregistrations after which nothing is left to deregister."""
REPLACED = frozenset({"stale-epoch", "deregistered"})
"""Codes of refused registrations after which the instance does not count any more."""


def is_gone(refusal: Refusal) -> bool:
    """Return whether a refused deregistration leaves nothing to deregister."""
    return refusal.code in GONE


def refusal_of(reply: Reply) -> Refusal:
    """Return the refusal, or one for a reply of the wrong kind."""
    return reply if isinstance(reply, Refusal) else Refusal("out-of-turn", f"the server answered with {reply}")
