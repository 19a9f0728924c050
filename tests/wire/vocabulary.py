"""All structs that can be on the wire, found by following the types from the messages on."""

from __future__ import annotations

import typing
from typing import Any

import msgspec

from compass.wire import messages
from compass.wire.announcement import Announcement


def _reached(annotation: Any, found: dict[type[msgspec.Struct], None]) -> None:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        if annotation not in found:
            found[annotation] = None
            for inner in typing.get_type_hints(annotation).values():
                _reached(inner, found)
        return
    for inner in typing.get_args(annotation):
        _reached(inner, found)


def _collected() -> list[type[msgspec.Struct]]:
    found: dict[type[msgspec.Struct], None] = {}
    _reached(messages.Message, found)
    _reached(Announcement, found)
    return list(found)


WIRE_STRUCTS: list[type[msgspec.Struct]] = _collected()
MESSAGES: list[type[msgspec.Struct]] = [s for s in WIRE_STRUCTS if s.__struct_config__.tag_field == "type"]
