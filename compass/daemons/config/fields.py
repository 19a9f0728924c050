"""Keys of a section of a configuration file, with descriptions and examples from the fields (msgspec.Meta).

Descriptions are annotations, so that a key, its limits, its default and its meaning are one line of one class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Meta
from msgspec.inspect import Metadata, StructType, Type, type_info


class Key(msgspec.Struct, frozen=True):
    """Key of a section."""

    name: str
    type: Type
    required: bool
    description: str
    shown: Any
    """Value that `--print-config` prints: the default, or the example of a required key."""


def about(description: str, *examples: object) -> Meta:
    """Return the annotation of a key: its meaning, and for a required key the example that is printed."""
    return Meta(description=description, examples=list(examples) or None)


def described(section: type[Any]) -> Iterator[Key]:
    """Yield the keys of a section in order. Raises KeyError for a field without description, or without example."""
    struct = type_info(section)
    assert isinstance(struct, StructType)
    for field in struct.fields:
        kind = field.type
        notes = (kind.extra_json_schema or {}) if isinstance(kind, Metadata) else {}
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        shown = notes["examples"][0] if field.required else default
        yield Key(field.name, kind, field.required, notes["description"], shown)


def description_of(section: type[Any], name: str) -> str:
    """Return the description of one key. Raises StopIteration if the section does not have the key."""
    return next(key.description for key in described(section) if key.name == name)
