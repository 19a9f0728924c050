"""Log formats: lines for people, or one JSON object per line for log collectors.

Both contain the same. A JSON object has the fields that its sentence names and no others, so that it contains nothing
that the text would not show; other values of an event (an object, a failure's frames) are never written.
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
)

from compass.model.text import escape, is_printable_line

Format = Literal["text", "json"]
TEXT_MAX = 16_000
"""Longest sentence or traceback in one object, in characters: collectors split lines of 16 kB and more."""
FIELD_MAX = 1_000
"""Longest field in characters: a name or an address has 255 at most, an error's text some hundreds."""

_named = string.Formatter().parse


def observer(form: Format, file: TextIO) -> FileLogObserver:
    """Return an observer that writes each event to a file as a line."""
    return FileLogObserver(file, json_line if form == "json" else text_line)


def text_line(event: LogEvent) -> str | None:
    """Return an event as one line of text, and the lines of its traceback, if it has one, indented by a tab.

    Quoted input of peers can neither begin a line nor control the terminal that shows the log.
    """
    text, failure = eventAsText(event, includeTraceback=False), event.get("log_failure")
    if not text and failure is None:
        return None
    lines = [escape(text or eventAsText({**event, "log_format": "failure"}, includeTraceback=False))]
    if failure is not None:
        lines += [f"\t{escape(line)}" for line in failure.getTraceback().splitlines()]
    return "\n".join(lines) + "\n"


def json_line(event: LogEvent) -> str | None:
    """Return an event as a JSON object: `time` (UTC), `level`, `namespace`, `text`, `fields`, perhaps a `traceback`."""
    text = eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)
    failure = event.get("log_failure")
    if not text and failure is None:
        return None
    level = event.get("log_level")
    entry: dict[str, Any] = {
        "time": _time(event.get("log_time")),
        "level": level.name if level else "info",
        "namespace": str(event.get("log_namespace", "")),
        "text": _encodable(text[:TEXT_MAX]),
        "fields": fields_of(event),
    }
    if failure is not None:
        entry["traceback"] = _encodable(failure.getTraceback()[-TEXT_MAX:])
    line = json.dumps(entry, ensure_ascii=False)
    return (line if is_printable_line(line) else json.dumps(entry)) + "\n"


def fields_of(event: LogEvent) -> dict[str, Any]:
    """Return the fields that the sentence names: numbers, booleans and None as they are, others as text.

    An entry of a worker contains its fields already.
    """
    of_worker = event.get("worker_fields")
    if isinstance(of_worker, dict):
        return {**of_worker, "worker": event.get("n")}
    try:
        names = sorted({field for _, field, _, _ in _named(event.get("log_format") or "") if field})
    except ValueError:
        return {}
    # Twisted calls a field that is written with brackets.
    return {name.removesuffix("()"): _field(event, name) for name in names}


def _field(event: LogEvent, name: str) -> Any:
    value = event.get(name, event)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and value - value == 0):
        return value
    return _encodable(formatEvent({**event, "log_format": f"{{{name}}}"})[:FIELD_MAX])


def _time(seconds: Any) -> str:
    when = datetime.fromtimestamp(seconds if isinstance(seconds, int | float) else 0.0, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encodable(text: str) -> str:
    """Return the text without lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()
