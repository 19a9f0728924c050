"""Free text from outside, as tables, logs and terminals can hold it.

PostgreSQL stores no U+0000, UTF-8 encodes no lone surrogate, and a log line or a terminal must not execute a control
character. Text that a caller chose is refused if it has such characters; in text that must be stored they are escaped.
"""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""The Unicode categories Cc (control) and Cs (surrogate)."""


def is_printable_line(text: str) -> bool:
    """Return whether `text` has neither control characters nor lone surrogates."""
    return not _UNSTORABLE.search(text)


def escape_line(text: str, limit: int) -> str:
    """Return `text` as one storable line of at most `limit` characters, with `\\uXXXX` for what cannot be stored."""
    # Escapes only make a line longer, so the rest of the text has no effect.
    line = _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text[: limit + 1])
    return line if len(line) <= limit else line[: limit - 3] + "..."
