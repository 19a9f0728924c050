"""The configuration files of both daemons as wholes: their sections, and every key for documentation.

The classes of the sections are the documentation: `--print-config` writes a file with every key, its default and its
description, and a test reads that file back.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
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

from compass.agent.hooks.hook import HookSettings
from compass.agent.hooks.template import TemplateSettings
from compass.daemons.config.alerts import AlertSettings
from compass.daemons.config.fields import described
from compass.daemons.config.sections import (
    DnsSettings,
    HostSettings,
    HttpsSettings,
    LogSettings,
    ServerDnsSettings,
    ServerSettings,
    TlsSettings,
)

DESCRIPTION_COLUMNS = 100
"""Width of a description in a printed file: fits next to the line numbers of an editor of 120 columns."""


class ServerConfig(msgspec.Struct, frozen=True):
    """The file of opengnssd."""

    server: ServerSettings
    tls: TlsSettings
    dns: ServerDnsSettings | None = None
    """[server.dns]. None: there is no such section, and no DNS."""
    https: HttpsSettings = HttpsSettings()
    """[server.https]."""
    log: LogSettings = LogSettings()
    alerts: tuple[AlertSettings, ...] = ()
    """Each [[server.alert]]."""


class HostConfig(msgspec.Struct, frozen=True):
    """The file of opengnscd."""

    host: HostSettings
    tls: TlsSettings
    dns: DnsSettings | None = None
    """[host.dns]. None: there is no such section, and no DNS."""
    hooks: tuple[HookSettings, ...] = ()
    """Each [[host.hook]]."""
    templates: tuple[TemplateSettings, ...] = ()
    """Each [[host.template]]."""
    log: LogSettings = LogSettings()


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


def sections_of(kind: type[ServerConfig | HostConfig]) -> dict[str, type[Any]]:
    """Return the sections that a file has at most once, by name, with the class of their keys."""
    if kind is ServerConfig:
        return {
            "server": ServerSettings,
            "tls": TlsSettings,
            "server.dns": ServerDnsSettings,
            "server.https": HttpsSettings,
            "log": LogSettings,
        }
    return {"host": HostSettings, "tls": TlsSettings, "host.dns": DnsSettings, "log": LogSettings}


def repeated_of(kind: type[ServerConfig | HostConfig]) -> dict[str, type[Any]]:
    """Return the sections that a file may repeat, by name, with the class of their keys."""
    if kind is ServerConfig:
        return {"server.alert": AlertSettings}
    return {"host.hook": HookSettings, "host.template": TemplateSettings}


def settings(kind: type[ServerConfig | HostConfig]) -> Iterator[Setting]:
    """Yield every key of a file in order, for its reference page."""
    for name, struct in (sections_of(kind) | repeated_of(kind)).items():
        section = f"[[{name}]]" if name in repeated_of(kind) else f"[{name}]"
        for key in described(struct):
            default = "" if key.required else _toml(key.shown)
            yield Setting(section, key.name, _type_text(key.type), default, key.description)


def example(kind: type[ServerConfig | HostConfig]) -> str:
    """Return a configuration file with every key, its default and its description; it can be read as it is."""
    lines: list[str] = []
    for name, struct in sections_of(kind).items():
        lines.append(f"[{name}]")
        for key in described(struct):
            lines += _comment(key.description, "# ")
            lines += [f"{'' if key.required else '# '}{key.name} = {_toml(key.shown)}", ""]
    for name, struct in repeated_of(kind).items():
        # The whole section is a comment: without the first two characters of each line it is a section.
        lines.append(f"# [[{name}]]")
        for key in described(struct):
            lines += _comment(key.description, "#   # ")
            lines.append(f"#   {'' if key.required else '# '}{key.name} = {_toml(key.shown)}")
        lines.append("")
    return "\n".join(lines).rstrip("\n")


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, DESCRIPTION_COLUMNS, initial_indent=indent, subsequent_indent=indent)


def _toml(value: Any) -> str:
    """Return a value in TOML, which spells strings, numbers, lists and empty tables as JSON does."""
    return msgspec.json.encode(value).decode()


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
