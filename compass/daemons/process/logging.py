"""Log formats: lines for people, or one JSON object per line for log collectors.

Both contain the same. A JSON object has the fields that its sentence names and no others, so that it contains nothing
that the text would not show; other values of an event (an object, a failure's frames) are never written.
"""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from twisted import logger

from compass.model.text import escape_line

Format = Literal["text", "json"]
TEXT_MAX = 16_000
"""Longest sentence or traceback in one object, in characters: collectors split lines of 16 kB and more."""
FIELD_MAX = 1_000
"""Longest field in characters: a name or an address has 255 at most, an error's text some hundreds."""

_named = string.Formatter().parse


def observer(form: Format, file: TextIO) -> logger.FileLogObserver:
    """Return an observer that writes each event to a file as a line."""
    return logger.FileLogObserver(file, json_line if form == "json" else text_line)


def text_line(event: logger.LogEvent) -> str | None:
    """Return an event as text. Quoted input of peers cannot control the terminal that shows the log.

    Twisted indents the lines after the first one, so a peer cannot forge a line either.
    """
    text = logger.formatEventAsClassicLogText(event)
    return None if text is None else "".join(map(_escaped, text))


def json_line(event: logger.LogEvent) -> str | None:
    """Return an event as a JSON object: `time` (UTC), `level`, `namespace`, `text`, `fields`, perhaps a `traceback`."""
    text = logger.eventAsText(event, includeTraceback=False, includeTimestamp=False, includeSystem=False)
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
    # JSON escapes line ends by itself; all other characters that cannot be printed are escaped in the same way.
    line = json.dumps(entry, ensure_ascii=False)
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in line) + "\n"


def fields_of(event: logger.LogEvent) -> dict[str, Any]:
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


def _field(event: logger.LogEvent, name: str) -> Any:
    value = event.get(name, event)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and value - value == 0):
        return value
    return _encodable(logger.formatEvent({**event, "log_format": f"{{{name}}}"})[:FIELD_MAX])


def _time(seconds: Any) -> str:
    when = datetime.fromtimestamp(seconds if isinstance(seconds, int | float) else 0.0, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encodable(text: str) -> str:
    """Return the text without lone surrogates, which UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def _escaped(character: str) -> str:
    return character if character in "\n\t" else escape_line(character, len("\\u0000"))
