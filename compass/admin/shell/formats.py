"""Formats of times, durations and structs for tables and JSON."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

import msgspec


class TimeFormat(msgspec.Struct, frozen=True):
    """Format of times: the current time (UNIX seconds), and the time zone (None: this machine's)."""

    now: float
    zone: tzinfo | None = None


def as_json(value: Any) -> Any:
    """Convert structs to dictionaries with tag and all fields, also in containers; other values stay unchanged."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        tag = {config.tag_field: config.tag} if config.tag_field else {}
        return tag | {name: as_json(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item) for item in value]
    return value


def format_time(time: float, clock: TimeFormat) -> str:
    """Format a UNIX time in ISO 8601 with its age; `-` for 0, which stands for never."""
    if not time:
        return "-"
    moment = datetime.fromtimestamp(time, clock.zone)
    if clock.zone is None:
        moment = moment.astimezone()
    age = clock.now - time
    relative = f"{format_duration(age)} ago" if age >= 0 else f"in {format_duration(-age)}"
    return f"{moment.isoformat(timespec='seconds')} ({relative})"


def format_duration(seconds: float) -> str:
    """Format a duration in its one or two largest units: `3 d 4 h`, `12 s`."""
    left = int(seconds)
    parts: list[tuple[int, str]] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, name))
    return " ".join(f"{count} {name}" for count, name in parts[:2] if count) or "0 s"
