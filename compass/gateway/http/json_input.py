"""Check of JSON that callers send: every field occurs once.

RFC 8259, section 4, leaves it open what a field given twice means, and decoders differ: one keeps the first, msgspec
keeps the last in silence. A proxy that checks a request and a daemon that acts on it could read two different requests.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

NAMED_OCTETS_MAX = 64 * 1024
"""Longest body for which the refusal names the field: the search costs more than all other steps."""


def check_once(content: bytes) -> None:
    """Check that no object in JSON has a field twice. Raises MsgspecError, UnicodeDecodeError or RecursionError.

    Duplicates are found by numbers, so that a large body costs little: a colon follows each name of a field, so a text
    has more colons than what it decodes to if a field was given twice.
    """
    try:
        kept = msgspec.json.encode(msgspec.json.decode(content))
    except OverflowError:
        raise msgspec.ValidationError("Integer is out of range") from None
    # Colons in strings are the same on both sides, unless one is written as an escape.
    count = _count_fields if b"\\u003" in content else _count_colons
    if count(content) != count(kept):
        raise msgspec.ValidationError(f"Object contains {_duplicate(content)} twice")


def _count_colons(content: bytes) -> int:
    return content.count(b":")


def _count_fields(content: bytes) -> int:
    """Count the colons outside strings: without escapes, every second part between quotes is outside."""
    parts = content.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    return b"".join(parts[::2]).count(b":")


def _duplicate(content: bytes) -> str:
    """Return the first field that occurs twice, for the text of the refusal."""
    if len(content) > NAMED_OCTETS_MAX:
        return "a field"
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                found.append(name)
            seen.add(name)

    json.loads(content, object_pairs_hook=note)
    return f"the field {found[0][:80]!r}" if found else "a field"
