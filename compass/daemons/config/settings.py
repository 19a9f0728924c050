"""The configuration files of both daemons as wholes: their sections, and a file with every key.

The classes of the sections are the documentation: `--print-config` writes a file with every key, its default and its
description, and a test reads that file back.
"""

from __future__ import annotations

import textwrap
from typing import Any

import msgspec

from compass.agent.hooks.hook import HookSettings
from compass.agent.hooks.template import TemplateSettings
from compass.agent.registration.own_checks import CheckSettings
from compass.daemons.config import sections
from compass.daemons.config.alerts import AlertSettings
from compass.daemons.config.fields import described

DESCRIPTION_COLUMNS = 100
"""Width of a description in a printed file: fits next to the line numbers of an editor of 120 columns."""


class ServerConfig(msgspec.Struct, frozen=True):
    """The file of opengnssd."""

    server: sections.ServerSettings
    tls: sections.TlsSettings
    dns: sections.ServerDnsSettings | None = None
    """[server.dns]. None: there is no such section, and no DNS."""
    https: sections.HttpsSettings = sections.HttpsSettings()
    """[server.https]."""
    log: sections.LogSettings = sections.LogSettings()
    alerts: tuple[AlertSettings, ...] = ()
    """Each [[server.alert]]."""


class HostConfig(msgspec.Struct, frozen=True):
    """The file of opengnscd."""

    host: sections.HostSettings
    tls: sections.TlsSettings
    dns: sections.DnsSettings | None = None
    """[host.dns]. None: there is no such section, and no DNS."""
    hooks: tuple[HookSettings, ...] = ()
    """Each [[host.hook]]."""
    templates: tuple[TemplateSettings, ...] = ()
    """Each [[host.template]]."""
    checks: tuple[CheckSettings, ...] = ()
    """Each [[host.check]]."""
    log: sections.LogSettings = sections.LogSettings()


def sections_of(kind: type[ServerConfig | HostConfig]) -> dict[str, type[Any]]:
    """Return the sections that a file has at most once, by name, with the class of their keys."""
    if kind is ServerConfig:
        return {
            "server": sections.ServerSettings,
            "tls": sections.TlsSettings,
            "server.dns": sections.ServerDnsSettings,
            "server.https": sections.HttpsSettings,
            "log": sections.LogSettings,
        }
    return {
        "host": sections.HostSettings,
        "tls": sections.TlsSettings,
        "host.dns": sections.DnsSettings,
        "log": sections.LogSettings,
    }


def repeated_of(kind: type[ServerConfig | HostConfig]) -> dict[str, type[Any]]:
    """Return the sections that a file may repeat, by name, with the class of their keys."""
    if kind is ServerConfig:
        return {"server.alert": AlertSettings}
    return {"host.hook": HookSettings, "host.template": TemplateSettings, "host.check": CheckSettings}


def example(kind: type[ServerConfig | HostConfig]) -> str:
    """Return a configuration file with every key, its default and its description; it can be read as it is."""
    lines: list[str] = []
    for name, struct in sections_of(kind).items():
        lines.append(f"[{name}]")
        for key in described(struct):
            lines += _comment(key.description, "# ")
            lines += [f"{'' if key.required else '# '}{key.name} = {toml(key.shown)}", ""]
    for name, struct in repeated_of(kind).items():
        # The whole section is a comment: without the first two characters of each line it is a section.
        lines.append(f"# [[{name}]]")
        for key in described(struct):
            lines += _comment(key.description, "#   # ")
            lines.append(f"#   {'' if key.required else '# '}{key.name} = {toml(key.shown)}")
        lines.append("")
    return "\n".join(lines).rstrip("\n")


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, DESCRIPTION_COLUMNS, initial_indent=indent, subsequent_indent=indent)


def toml(value: Any) -> str:
    """Return a value in TOML, which spells strings, numbers, lists and empty tables as JSON does."""
    return msgspec.json.encode(value).decode()
