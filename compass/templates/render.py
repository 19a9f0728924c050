"""Renders one Jinja2 template, in a sandbox and within bounds: `python -m compass.templates.render`.

On standard input JSON: `source` (a path, or `ready:NAME`), `values`, and what a hook gets, too (host, zone, revision,
reason, changed, pools). On standard output the rendered text, and status 0; or status 1 and a line that says what is
wrong, and where.
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

from compass.templates import PREFIX, READY, ready_names, ready_text

MEMORY_OCTETS_MAX = 512 * 1024 * 1024
"""Address space: the interpreter has some 60 MB, the largest catalogue and the file made of it some 50."""
CPU_SECONDS_MAX = 20
"""CPU time after which the caller has given up."""
SOURCE_OCTETS_MAX = 1024 * 1024
"""A template is a page or two; a larger file is something else."""


def environment_of(loader: BaseLoader) -> ImmutableSandboxedEnvironment:
    """Return the environment for templates: undefined names are errors, and nothing outside can be reached."""
    environment = ImmutableSandboxedEnvironment(
        loader=loader,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Configuration files are no HTML.
        autoescape=False,
    )
    environment.filters["shell"] = lambda value: shlex.quote(str(value))
    environment.filters["variable"] = lambda value: re.sub(r"\W", "_", str(value), flags=re.ASCII).upper()
    return environment


def rendered(what: dict[str, Any]) -> str:
    """The template named in `what`, filled with the rest. Raises TemplateError, OSError and what a template does."""
    source = what["source"]
    if source.startswith(READY):
        name = source.removeprefix(READY)
        if name not in ready_names():
            raise TemplateError(f"there is no template {name!r}; there are {', '.join(ready_names())}")
        environment = environment_of(DictLoader({source: ready_text(name)}))
        template = environment.get_template(source)
    else:
        path = Path(source)
        if path.stat().st_size > SOURCE_OCTETS_MAX:
            raise TemplateError(f"has more than {SOURCE_OCTETS_MAX} octets; is it the right file?")
        template = environment_of(FileSystemLoader(path.parent)).get_template(path.name)
    pools = _spelled(what["pools"])
    first = next(iter(pools.values()))
    return template.render({**what, "pools": pools, "pool": first})


def _spelled(value: Any) -> Any:
    """Text without control characters: what a service says about itself must not begin a line of its own in the
    configuration of a program."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value)
    if isinstance(value, dict):
        return {_spelled(key): _spelled(item) for key, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, list | tuple) else value


def _line_of(error: BaseException, source: str) -> str:
    """`source:line` of the innermost line of a template that the error comes from."""
    if isinstance(error, TemplateSyntaxError):
        return f"{error.filename or error.name or source}:{error.lineno}"
    line, trace = "", error.__traceback__
    while trace is not None:
        # Jinja2 gives the lines of templates in place of those of its code (jinja2.debug).
        name = trace.tb_frame.f_code.co_filename
        if name == source or name.startswith(READY) or name == "<template>":
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return source + line


def _failed(where: str, error: BaseException) -> NoReturn:
    # The message only: a traceback of a template helps no user.
    text = " ".join(str(error).split()) or type(error).__name__
    text = f"it wants more than {MEMORY_OCTETS_MAX >> 20} MiB" if isinstance(error, MemoryError) else text
    print(f"{PREFIX}{where}: {text}")
    sys.exit(1)


def main() -> None:
    """Render what is asked for on standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
    what = json.load(sys.stdin.buffer)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_OCTETS_MAX, MEMORY_OCTETS_MAX))
    try:
        text = rendered(what).encode()
    except OSError as error:
        _failed(what["source"], OSError(error.strerror or str(error)))
    except Exception as error:
        # Whatever a template does, report where; this process does nothing else.
        _failed(_line_of(error, what["source"]), error)
    sys.stdout.buffer.write(text)


if __name__ == "__main__":
    main()
