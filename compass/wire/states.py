"""States of a session as one table (opengnsp.md, "Sessions"), from which the diagram in the protocol is generated.

Client or server open the connection (a server dials a host that keeps no session). In a session the *client* is the end
that sends the hello, independent of who has connected. An input that is not in the table ends the session.
"""

from __future__ import annotations

from typing import Literal

End = Literal["server", "client"]
SessionState = Literal["greeting", "open", "ended"]
Input = Literal[
    "hello", "welcome", "request", "reply", "acknowledge", "push", "goodbye", "refusal", "violation", "timeout"
]

TABLE: dict[End, dict[SessionState, dict[Input, SessionState]]] = {
    "server": {
        "greeting": {"hello": "open", "violation": "ended", "timeout": "ended"},
        "open": {"request": "open", "acknowledge": "open", "violation": "ended", "timeout": "ended"},
        "ended": {},
    },
    "client": {
        "greeting": {
            "welcome": "open",
            "refusal": "ended",
            "goodbye": "ended",
            "violation": "ended",
            "timeout": "ended",
        },
        "open": {
            "reply": "open",
            "push": "open",
            "goodbye": "ended",
            "refusal": "ended",
            "violation": "ended",
            "timeout": "ended",
        },
        "ended": {},
    },
}
"""Transitions of each end by its input. `refusal`: a refusal without a request number, of the session itself."""


def diagram(end: End) -> str:
    """Return the table of one end as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> greeting"]
    for state, moves in TABLE[end].items():
        targets: dict[SessionState, list[str]] = {}
        for given, target in moves.items():
            targets.setdefault(target, []).append(given)
        lines += [f"    {state} --> {target}: {', '.join(given)}" for target, given in targets.items()]
    return "\n".join([*lines, "    ended --> [*]"])
