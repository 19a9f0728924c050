"""Templates that come with compass, and the program that renders these and others (docs/reference/hooks.md).

A caller runs `RENDER_COMMAND` with JSON on its standard input, and imports nothing: a template is foreign code, which
may use all the memory and never end.
"""

from __future__ import annotations

import sys
from importlib.resources import files

READY = "ready:"
"""A source that begins so is one of the templates that come with compass."""
RENDER_COMMAND = (sys.executable, "-W", "ignore", "-m", "compass.templates.render")
PREFIX = "render: "
"""The line in which it says what is wrong begins so."""
RENDERED_OCTETS_MAX = 4 * 1024 * 1024
"""Limit of a rendered file: ten thousand listeners, with some hundred octets for each."""
RENDER_SECONDS = 20.0
"""Rendering takes a tenth of a second; a machine that is this slow has other worries."""
_SUFFIX = ".j2"


def ready_names() -> list[str]:
    """The names of the templates that come with compass."""
    found = (entry.name for entry in (files(__name__) / "ready").iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX))


def ready_text(name: str) -> str:
    """Return the text of one template. Raises KeyError."""
    if name not in ready_names():
        raise KeyError(name)
    return (files(__name__) / "ready" / (name + _SUFFIX)).read_text("utf-8")


def said(output: bytes) -> str:
    """Return the problem that the program reported in its output; empty if there is none."""
    line = output.decode(errors="replace").rpartition(PREFIX)
    return line[2].strip() if line[1] else ""
