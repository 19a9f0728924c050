"""Every key of the configuration files with its type in words, as the reference pages show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec.inspect import (
    CustomType,
    DictType,
    FloatType,
    IntType,
    LiteralType,
    Metadata,
    StructType,
    Type,
    UnionType,
    VarTupleType,
)

from compass.daemons.config.fields import described
from compass.daemons.config.settings import HostConfig, ServerConfig, repeated_of, sections_of, toml


class Setting(NamedTuple):
    """Key of a configuration file, as documentation shows it."""

    section: str
    """Section with its brackets: `[server]`, or `[[server.alert]]` for one that may be repeated."""
    key: str
    type: str
    """Type in words, with its bounds."""
    default: str
    """Default in TOML; empty if the key is required."""
    description: str


def settings(kind: type[ServerConfig | HostConfig]) -> Iterator[Setting]:
    """Yield every key of a file in order, for its reference page."""
    for name, struct in (sections_of(kind) | repeated_of(kind)).items():
        section = f"[[{name}]]" if name in repeated_of(kind) else f"[{name}]"
        for key in described(struct):
            default = "" if key.required else toml(key.shown)
            yield Setting(section, key.name, _type_text(key.type), default, key.description)


def _type_text(kind: Type) -> str:
    match kind:
        case Metadata():
            return _type_text(kind.type)
        case IntType() | FloatType():
            return ("integer" if isinstance(kind, IntType) else "number") + _bounds(kind)
        case LiteralType():
            return "one of " + ", ".join(f"`{value}`" for value in kind.values)
        case VarTupleType():
            return f"list of {_plural(_type_text(kind.item_type))}"
        case UnionType():
            return " or ".join(_type_text(one) for one in kind.types)
        case DictType():
            return f"table of {_plural(_type_text(kind.value_type))}"
        case StructType() | CustomType():
            return "table"
        case _:
            return "string"


def _plural(text: str) -> str:
    if text.startswith("one of "):
        return text.removeprefix("one of ")
    return " or ".join(f"{word}s" for word in text.split(" or "))


def _bounds(kind: IntType | FloatType) -> str:
    """Return `, 1 to 64`, or the lower bound alone."""
    least = kind.ge if kind.ge is not None else kind.gt
    over = "more than " if kind.gt is not None else ""
    if least is not None and kind.le is not None:
        return f", {over}{least:,.15g} to {kind.le:,.15g}"
    return f", {over or 'at least '}{least:,.15g}" if least is not None else ""
