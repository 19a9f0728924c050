"""Templates that come with compass, and the program that renders these and others (docs/reference/hooks.md).

A program that needs a template rendered runs `RENDER_COMMAND` with JSON on its standard input, and imports nothing: a
template is foreign code, which may allocate all memory or never end.
"""

from __future__ import annotations

import sys
from importlib.resources import files

READY = "ready:"
"""Prefix of sources that are templates of compass."""
RENDER_COMMAND = (sys.executable, "-W", "ignore", "-m", "compass.templates.render")
PREFIX = "render: "
"""Prefix of the output line that reports a failure."""
RENDERED_OCTETS_MAX = 4 * 1024 * 1024
"""Longest rendered file in octets: ten thousand listeners, with some hundred octets for each."""
RENDER_SECONDS = 20.0
"""Time limit of rendering, which needs a tenth of a second; only a machine with other problems is this slow."""
_SUFFIX = ".j2"


def ready_names() -> list[str]:
    """Return the names of the templates of compass."""
    found = (entry.name for entry in (files(__name__) / "ready").iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX))


def ready_text(name: str) -> str:
    """Return the text of a template of compass. Raises KeyError."""
    if name not in ready_names():
        raise KeyError(name)
    return (files(__name__) / "ready" / (name + _SUFFIX)).read_text("utf-8")


def reported_failure(output: bytes) -> str:
    """Return the failure that the program reported in its output; empty if there is none."""
    line = output.decode(errors="replace").rpartition(PREFIX)
    return line[2].strip() if line[1] else ""
