"""Renderer of one Jinja2 template, in a sandbox and within bounds: `python -m compass.templates.render`.

Standard input is JSON: `source` (a path, or `ready:NAME`), `values`, and the data that hooks get as well (host, zone,
revision, reason, changed, pools). Standard output is the rendered text, with status 0; or a line with the mistake and
its place, with status 1.
"""

from __future__ import annotations

import json
import re
import resource
import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import BaseLoader, DictLoader, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from compass.model.text import escape, escape_in
from compass.templates import PREFIX, READY, ready_names, ready_text

MEMORY_OCTETS_MAX = 512 * 1024 * 1024
"""Limit of address space: the interpreter needs some 60 MB, the largest catalogue and its rendered file some 50."""
CPU_SECONDS_MAX = 20
"""Limit of CPU time: the caller gives up after the same time."""
SOURCE_OCTETS_MAX = 1024 * 1024
"""Longest template: a page or two is usual; a larger file is something else."""


def environment_of(loader: BaseLoader) -> ImmutableSandboxedEnvironment:
    """Return an environment in which undefined values are errors and a template has no access to anything outside."""
    environment = ImmutableSandboxedEnvironment(
        loader=loader,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Configuration files are not HTML.
        autoescape=False,
    )
    environment.filters["shell"] = lambda value: shlex.quote(str(value))
    environment.filters["variable"] = lambda value: re.sub(r"\W", "_", str(value), flags=re.ASCII).upper()
    return environment


def render(data: dict[str, Any]) -> str:
    """Return the template `data["source"]`, rendered with the data. Raises TemplateError, OSError, or any exception of
    the template's code."""
    source = data["source"]
    if source.startswith(READY):
        name = source.removeprefix(READY)
        if name not in ready_names():
            raise TemplateError(f"there is no template {name!r}; known templates: {', '.join(ready_names())}")
        environment = environment_of(DictLoader({source: ready_text(name)}))
        template = environment.get_template(source)
    else:
        path = Path(source)
        if path.stat().st_size > SOURCE_OCTETS_MAX:
            raise TemplateError(f"has more than {SOURCE_OCTETS_MAX} octets; is it the right file?")
        template = environment_of(FileSystemLoader(path.parent)).get_template(path.name)
    pools = _escaped(data["pools"])
    first = next(iter(pools.values()))
    return template.render({**data, "pools": pools, "pool": first})


def _escaped(value: Any) -> Any:
    """Return a value with all unprintable characters escaped: a service's metadata must not begin a new line in the
    configuration of a program."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {_escaped(key): _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list | tuple) else value


def _line_of(error: BaseException, source: str) -> str:
    """Return `source:line` of the innermost template line at which the error occurred."""
    if isinstance(error, TemplateSyntaxError):
        return f"{error.filename or error.name or source}:{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        # Jinja2 replaces the lines of its compiled code by those of templates (jinja2.debug).
        name = trace.tb_frame.f_code.co_filename
        if name == source or name.startswith(READY) or name == "<template>":
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return source + line


def _failed(where: str, error: BaseException) -> NoReturn:
    # The message only: a traceback of a template helps no user.
    text = escape(" ".join(str(error).split())) or type(error).__name__
    text = f"it needs more than {MEMORY_OCTETS_MAX >> 20} MiB" if isinstance(error, MemoryError) else text
    print(escape_in(f"{PREFIX}{escape(where)}: {text}", sys.stdout.encoding))
    sys.exit(1)


def main() -> None:
    """Render the template named on standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
    data = json.load(sys.stdin.buffer)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_OCTETS_MAX, MEMORY_OCTETS_MAX))
    try:
        text = render(data).encode()
    except OSError as error:
        _failed(data["source"], OSError(error.strerror or str(error)))
    except Exception as error:
        # Every exception of a template is reported with its line; this process does nothing else.
        _failed(_line_of(error, data["source"]), error)
    sys.stdout.buffer.write(text)


if __name__ == "__main__":
    main()
