"""How an event of the log is written: a line for people, or one JSON object a line for programs that collect logs.

Both say the same. A JSON object has the fields that its sentence names and no others, so nothing is in it that the
text would not show; what the code holds beside a sentence (an object, a failure's frames) never gets out.
"""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from twisted.logger import (
    FileLogObserver,
    LogEvent,
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
)

from compass.model.text import escape_line

Format = Literal["text", "json"]
TEXT_MAX = 16_000
"""Characters of a sentence or of a traceback in one object: collectors cut lines of 16 kB and more in two."""
FIELD_MAX = 1_000
"""Characters of a field: a name or an address has 255 at most, an error's words some hundreds."""

_named = string.Formatter().parse


def observer(form: Format, file: TextIO) -> FileLogObserver:
    """Writes events to a file, a line each."""
    return FileLogObserver(file, json_line if form == "json" else text_line)


def text_line(event: LogEvent) -> str | None:
    """An event as text; what others sent is quoted in it, and must not command the terminal that shows the log.

    Twisted indents the lines after the first, so nobody can make a line of his own either.
    """
    text = formatEventAsClassicLogText(event)
    return None if text is None else "".join(map(_spelled, text))


def json_line(event: LogEvent) -> str | None:
    """An event as a JSON object: `time` (UTC), `level`, `namespace`, `text`, its `fields`, and a `traceback` if any."""
    text = eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)
    failure = event.get("log_failure")
    if not text and failure is None:
        return None
    level = event.get("log_level")
    said: dict[str, Any] = {
        "time": _time(event.get("log_time")),
        "level": level.name if level else "info",
        "namespace": str(event.get("log_namespace", "")),
        "text": _sayable(text[:TEXT_MAX]),
        "fields": fields_of(event),
    }
    if failure is not None:
        said["traceback"] = _sayable(failure.getTraceback()[-TEXT_MAX:])
    # JSON spells line ends and the like by itself; what else cannot be printed is spelled as JSON may, too.
    line = json.dumps(said, ensure_ascii=False)
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in line) + "\n"


def fields_of(event: LogEvent) -> dict[str, Any]:
    """What the sentence names: numbers, booleans and nothing as they are, everything else as the sentence shows it.

    An entry that a worker has said brings its fields along.
    """
    brought = event.get("said_fields")
    if isinstance(brought, dict):
        return {**brought, "worker": event.get("n")}
    try:
        names = sorted({field for _, field, _, _ in _named(event.get("log_format") or "") if field})
    except ValueError:
        return {}
    # Twisted calls what is written with brackets behind it.
    return {name.removesuffix("()"): _field(event, name) for name in names}


def _field(event: LogEvent, name: str) -> Any:
    value = event.get(name, event)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and value - value == 0):
        return value
    return _sayable(formatEvent({**event, "log_format": f"{{{name}}}"})[:FIELD_MAX])


def _time(seconds: Any) -> str:
    when = datetime.fromtimestamp(seconds if isinstance(seconds, int | float) else 0.0, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sayable(text: str) -> str:
    """Without lone surrogates, which UTF-8 cannot spell."""
    return text.encode("utf-8", "backslashreplace").decode()


def _spelled(character: str) -> str:
    return character if character in "\n\t" else escape_line(character, len("\\u0000"))
