"""Exit statuses: what a script can tell outcomes apart by. `opengnsc` and `opengnsadmin` share the numbers."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
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


MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done; a registration that is 'pending' counts: the daemon delivers it",
    ExitCode.FAILED: "something on this machine, such as a credential file that cannot be read",
    ExitCode.USAGE: "the command line is wrong; nothing was asked",
    ExitCode.NOT_FOUND: "there is no such category, service, dependency or listener",
    ExitCode.NOT_ALLOWED: "the credential or the right to do this is not accepted",
    ExitCode.CONFLICT: "a newer instance is there, or the port is taken by another process",
    ExitCode.BAD_INPUT: "a name, an address or a value that cannot be used",
    ExitCode.UNAVAILABLE: "opengnscd does not answer, or knows nothing yet: try again later",
    ExitCode.MISUNDERSTOOD: "the daemon speaks another version of this API",
    ExitCode.NONE_USABLE: "resolve: the name exists, but nothing registered could be used",
    ExitCode.NOT_LISTENING: "run: the command did not listen in time and was stopped",
    ExitCode.NOT_EXECUTABLE: "run: the command cannot be executed",
    ExitCode.NO_COMMAND: "run: there is no such command",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
}

EXIT_OF_CODE: dict[str, ExitCode] = {
    "malformed": ExitCode.MISUNDERSTOOD,
    "unknown-message": ExitCode.MISUNDERSTOOD,
    "unsupported-version": ExitCode.MISUNDERSTOOD,
    "out-of-turn": ExitCode.MISUNDERSTOOD,
    "too-large": ExitCode.BAD_INPUT,
    "forbidden": ExitCode.NOT_ALLOWED,
    "bad-credential": ExitCode.NOT_ALLOWED,
    "bad-name": ExitCode.BAD_INPUT,
    "bad-address": ExitCode.BAD_INPUT,
    "bad-value": ExitCode.BAD_INPUT,
    "unknown-category": ExitCode.NOT_FOUND,
    "unknown-service": ExitCode.NOT_FOUND,
    "unknown-dependency": ExitCode.NOT_FOUND,
    "unknown-listener": ExitCode.NOT_FOUND,
    "unknown-credential": ExitCode.NOT_FOUND,
    "unknown-host": ExitCode.NOT_FOUND,
    "unknown-way": ExitCode.NOT_FOUND,
    "exists": ExitCode.CONFLICT,
    "in-use": ExitCode.CONFLICT,
    "stale-epoch": ExitCode.CONFLICT,
    "deregistered": ExitCode.CONFLICT,
    "invalid-topology": ExitCode.BAD_INPUT,
    "not-ready": ExitCode.UNAVAILABLE,
    "busy": ExitCode.UNAVAILABLE,
    "store-unavailable": ExitCode.UNAVAILABLE,
    "unreachable": ExitCode.UNAVAILABLE,
}
"""Every refusal's status."""


def exit_of(code: str) -> ExitCode:
    """The status for a refusal's code; a code that a newer daemon invented is a misunderstanding."""
    return EXIT_OF_CODE.get(code, ExitCode.MISUNDERSTOOD)


def exit_table() -> str:
    """The statuses, and which refusals lead to them, for a help text."""
    lines = ["Exit status:"]
    for status, meaning in MEANINGS.items():
        lines.append(f"  {status.value:>3}  {meaning}")
        codes = [code for code, exit in EXIT_OF_CODE.items() if exit is status]
        lines += [f"       ({', '.join(codes[at : at + 4])})" for at in range(0, len(codes), 4)]
    return "\n".join(lines)
