"""Exit statuses: what a script can tell outcomes apart by. `opengnsc` and `opengnsadmin` share the numbers."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The status of either program."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    CONFLICT = 5
    BAD_INPUT = 6
    UNAVAILABLE = 7
    MISUNDERSTOOD = 8
    NONE_USABLE = 9
    CHANGES = 10
    NOT_LISTENING = 124
    NOT_EXECUTABLE = 126
    NO_COMMAND = 127
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done; a registration that is 'pending' counts: the daemon delivers it",
    Exit.FAILED: "something on this machine, such as a credential file that cannot be read",
    Exit.USAGE: "the command line is wrong; nothing was asked",
    Exit.NOT_FOUND: "there is no such category, service, dependency or listener",
    Exit.NOT_ALLOWED: "the credential or the right to do this is not accepted",
    Exit.CONFLICT: "a newer instance is there, or the port is taken by another process",
    Exit.BAD_INPUT: "a name, an address or a value that cannot be used",
    Exit.UNAVAILABLE: "opengnscd does not answer, or knows nothing yet: try again later",
    Exit.MISUNDERSTOOD: "the daemon speaks another version of this API",
    Exit.NONE_USABLE: "resolve: the name exists, but nothing registered could be used",
    Exit.NOT_LISTENING: "run: the command did not listen in time and was stopped",
    Exit.NOT_EXECUTABLE: "run: the command cannot be executed",
    Exit.NO_COMMAND: "run: there is no such command",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
}

EXIT_OF_CODE: dict[str, Exit] = {
    "malformed": Exit.MISUNDERSTOOD,
    "unknown-message": Exit.MISUNDERSTOOD,
    "unsupported-version": Exit.MISUNDERSTOOD,
    "out-of-turn": Exit.MISUNDERSTOOD,
    "too-large": Exit.BAD_INPUT,
    "forbidden": Exit.NOT_ALLOWED,
    "bad-credential": Exit.NOT_ALLOWED,
    "bad-name": Exit.BAD_INPUT,
    "bad-address": Exit.BAD_INPUT,
    "bad-value": Exit.BAD_INPUT,
    "unknown-category": Exit.NOT_FOUND,
    "unknown-service": Exit.NOT_FOUND,
    "unknown-dependency": Exit.NOT_FOUND,
    "unknown-listener": Exit.NOT_FOUND,
    "unknown-credential": Exit.NOT_FOUND,
    "unknown-host": Exit.NOT_FOUND,
    "unknown-way": Exit.NOT_FOUND,
    "exists": Exit.CONFLICT,
    "in-use": Exit.CONFLICT,
    "stale-epoch": Exit.CONFLICT,
    "deregistered": Exit.CONFLICT,
    "invalid-topology": Exit.BAD_INPUT,
    "not-ready": Exit.UNAVAILABLE,
    "busy": Exit.UNAVAILABLE,
    "store-unavailable": Exit.UNAVAILABLE,
    "unreachable": Exit.UNAVAILABLE,
}
"""Every refusal's status."""


def exit_of(code: str) -> Exit:
    """The status for a refusal's code; a code that a newer daemon invented is a misunderstanding."""
    return EXIT_OF_CODE.get(code, Exit.MISUNDERSTOOD)


def exit_table() -> str:
    """The statuses, and which refusals lead to them, for a help text."""
    lines = ["Exit status:"]
    for status, meaning in MEANINGS.items():
        lines.append(f"  {status.value:>3}  {meaning}")
        codes = [code for code, exit in EXIT_OF_CODE.items() if exit is status]
        lines += [f"       ({', '.join(codes[at : at + 4])})" for at in range(0, len(codes), 4)]
    return "\n".join(lines)
