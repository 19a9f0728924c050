"""Exit statuses of `opengnsc` and `opengnsadmin`: one table of their meanings, next to the table of refusal codes."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

Program = Literal["opengnsc", "opengnsadmin"]


class ExitCode(IntEnum):
    """Exit status of either program, for scripts."""

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


_SAME = "command line error; no request was sent"
MEANINGS: dict[ExitCode, dict[Program, str]] = {
    ExitCode.DONE: {
        "opengnsc": "success; a registration that is 'pending' counts: opengnscd delivers it",
        "opengnsadmin": "success",
    },
    ExitCode.FAILED: {
        "opengnsc": "failure on this machine, such as a credential file that cannot be read",
        "opengnsadmin": "failure on this machine: settings, a file, a check of doctor, a question answered with no",
    },
    ExitCode.USAGE: {"opengnsc": _SAME, "opengnsadmin": _SAME},
    ExitCode.NOT_FOUND: {
        "opengnsc": "no such category, service, dependency or listener",
        "opengnsadmin": "no such object",
    },
    ExitCode.NOT_ALLOWED: {
        "opengnsc": "credential not accepted, or a right is missing",
        "opengnsadmin": "certificate, role or credential not accepted",
    },
    ExitCode.CONFLICT: {
        "opengnsc": "a newer instance is registered, or another process uses the port",
        "opengnsadmin": "the object exists or is in use, or a newer instance is registered",
    },
    ExitCode.BAD_INPUT: {
        "opengnsc": "invalid name, address or value",
        "opengnsadmin": "invalid name, address, value or topology",
    },
    ExitCode.UNAVAILABLE: {
        "opengnsc": "opengnscd does not answer or has no data yet: try again later",
        "opengnsadmin": "no server answers, or the server is not ready: try again later",
    },
    ExitCode.MISUNDERSTOOD: {
        "opengnsc": "opengnscd uses another version of the host API",
        "opengnsadmin": "the server uses another protocol or version",
    },
    ExitCode.NONE_USABLE: {"opengnsc": "resolve: the name exists, but no usable listener is registered"},
    ExitCode.CHANGES: {"opengnsadmin": "plan --detailed-exitcode: there are changes to apply"},
    ExitCode.NOT_LISTENING: {"opengnsc": "run: the command did not listen in time and was stopped"},
    ExitCode.NOT_EXECUTABLE: {"opengnsc": "run: the command cannot be executed"},
    ExitCode.NO_COMMAND: {"opengnsc": "run: command not found"},
    ExitCode.INTERRUPTED: {
        "opengnsc": "interrupted (Ctrl-C)",
        "opengnsadmin": "interrupted (Ctrl-C); 'log --follow' then ends with 0",
    },
}
"""Meaning of each status, by the programs that end with it."""

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
    "unknown-authority": ExitCode.NOT_FOUND,
    "exists": ExitCode.CONFLICT,
    "in-use": ExitCode.CONFLICT,
    "stale-epoch": ExitCode.CONFLICT,
    "deregistered": ExitCode.CONFLICT,
    "invalid-topology": ExitCode.BAD_INPUT,
    "not-ready": ExitCode.UNAVAILABLE,
    "busy": ExitCode.UNAVAILABLE,
    "store-unavailable": ExitCode.UNAVAILABLE,
    "unreachable": ExitCode.UNAVAILABLE,
    "foreign-process": ExitCode.BAD_INPUT,
}
"""Exit status of each refusal code."""


def exit_of(code: str) -> ExitCode:
    """Return the status for a refusal code. An unknown code is one of a newer daemon or server."""
    return EXIT_OF_CODE.get(code, ExitCode.MISUNDERSTOOD)


def exit_table(program: Program, *, with_codes: bool = False) -> str:
    """Return the statuses of a program for its help text; `with_codes`: with the refusal codes that lead to each."""
    lines = ["Exit status:"]
    for status, meanings in MEANINGS.items():
        if program in meanings:
            lines.append(f"  {status.value:>3}  {meanings[program]}")
            codes = [code for code, exit in EXIT_OF_CODE.items() if exit is status] if with_codes else []
            lines += [f"       ({', '.join(codes[at : at + 4])})" for at in range(0, len(codes), 4)]
    return "\n".join(lines)
