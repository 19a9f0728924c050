"""Text from outside: the one rule of which text is accepted, and the one function that makes text fit to be shown.

A text is one printable line. It has no control character and no line end, which could forge a line of a log or control
a terminal; no character that shows nothing or changes the order of others, which could make two different names look
the same; and no lone surrogate, which UTF-8 cannot encode. PostgreSQL also stores no U+0000. Text that a caller chose
is refused if it breaks the rule; text that must be stored or shown is escaped.
"""

from __future__ import annotations

import re

UNPRINTABLE: tuple[tuple[int, int], ...] = (
    (0x00, 0x1F),  # control characters (category Cc), line ends among them
    (0x7F, 0x9F),  # DEL and the control characters of ISO 6429, which begin a sequence as ESC does
    (0xAD, 0xAD),  # soft hyphen; from here on Default_Ignorable_Code_Point, unless another reason is named
    (0x34F, 0x34F),
    (0x61C, 0x61C),  # Arabic letter mark (bidirectional control)
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),  # zero width, and the marks of direction
    (0x2028, 0x202E),  # line and paragraph separator, embedding and override of direction
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xD800, 0xDFFF),  # surrogates (category Cs)
    (0xFDD0, 0xFDEF),  # noncharacters
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),  # byte order mark
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),  # reserved, and the interlinear annotations
    (0xFFFE, 0xFFFF),  # noncharacters, as at the end of each plane
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    *((plane << 16 | 0xFFFE, plane << 16 | 0xFFFF) for plane in range(1, 13)),
    (0xDFFFE, 0xE0FFF),  # and the tags and variation selectors that follow
    *((plane << 16 | 0xFFFE, plane << 16 | 0xFFFF) for plane in range(14, 17)),
)
"""Ranges of code points that a text must not have. They are fixed here, because the tables of Python differ from
version to version, and all servers of a store must decide the same."""

_UNPRINTABLE = re.compile(f"[{''.join(f'{chr(first)}-{chr(last)}' for first, last in UNPRINTABLE)}]")


def is_printable_line(text: str) -> bool:
    """Return whether `text` has no character of UNPRINTABLE."""
    return (text.isascii() and text.isprintable()) or not _UNPRINTABLE.search(text)


def unprintable_in(text: str) -> str:
    """Return the first character of UNPRINTABLE in `text` as `U+XXXX`; empty if there is none."""
    found = _UNPRINTABLE.search(text)
    return f"U+{ord(found[0]):04X}" if found else ""


def escape(text: str) -> str:
    """Return `text` as one printable line, with `\\uXXXX` or `\\UXXXXXXXX` for every character of UNPRINTABLE."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(_escaped, text)


def escape_line(text: str, limit: int) -> str:
    """Return `text` as one printable line of at most `limit` characters; a longer one ends with three dots."""
    # Escapes only make a line longer, so the rest of the text has no effect.
    line = text[: limit + 1]
    if not (line.isascii() and line.isprintable()):
        line = _UNPRINTABLE.sub(_escaped, line)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def escape_in(text: str, encoding: str) -> str:
    """Return `text` with escapes for the characters that `encoding` lacks; line ends stay."""
    try:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        return text.encode("ascii", "backslashreplace").decode("ascii")


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def printable_pattern() -> str:
    """Return the rule as a regular expression for a JSON Schema, with code points of four digits only.

    Characters beyond them are accepted, but the pattern does not describe them: the dialects of regular expressions
    write them differently.
    """
    allowed, first = [], 0
    for start, end in (*UNPRINTABLE, (0x10000, 0x10000)):
        if start > first and first <= 0xFFFF:
            allowed.append(rf"\u{first:04x}-\u{start - 1:04x}")
        first = end + 1
    return f"^[{''.join(allowed)}]*$"
