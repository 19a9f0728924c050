"""HTTP statuses of refusals: one table for every HTTP API; a test checks that it covers every code."""

from __future__ import annotations

STATUS: dict[str, int] = {
    "malformed": 400,
    "unknown-message": 501,
    "unsupported-version": 501,
    "out-of-turn": 502,
    "too-large": 413,
    "forbidden": 403,
    "bad-credential": 403,
    "bad-name": 400,
    "bad-address": 400,
    "bad-value": 400,
    "unknown-category": 404,
    "unknown-service": 404,
    "unknown-dependency": 404,
    "unknown-listener": 404,
    "unknown-credential": 404,
    "unknown-host": 404,
    "unknown-way": 404,
    "unknown-authority": 404,
    "exists": 409,
    "in-use": 409,
    "stale-epoch": 409,
    "deregistered": 410,
    "invalid-topology": 422,
    "not-ready": 503,
    "busy": 503,
    "store-unavailable": 503,
    "unreachable": 503,
    "foreign-process": 409,
}
"""Status by refusal code. `unknown-message`, `unsupported-version` and `out-of-turn` are a server's answers to this
daemon: the gateway is at fault, not its client."""


def status_of(code: str) -> int:
    """Return the HTTP status of a refusal's code; 502 for a code of a newer server."""
    return STATUS.get(code, 502)
