"""Free text from outside: what tables, logs and terminals can hold of it.

PostgreSQL stores no U+0000, UTF-8 spells no lone surrogate, and a log line or a terminal must not obey a control
character. Text that a caller chose is refused for them; text that must be kept anyway has them escaped.
"""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""The Unicode categories Cc (control) and Cs (surrogate)."""


def is_printable_line(text: str) -> bool:
    """Return whether `text` has neither control characters nor lone surrogates."""
    return not _UNSTORABLE.search(text)


def escape_line(text: str, limit: int) -> str:
    """`text` in one storable line of at most `limit` characters; what cannot be stored is spelled as `\\uXXXX`."""
    # No longer text can make a shorter line, so the rest need not be looked at.
    line = _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text[: limit + 1])
    return line if len(line) <= limit else line[: limit - 3] + "..."
