"""The layers of the architecture, kept true: who may import what, also inside functions."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TWISTED = "twisted zope"
# What a layer may import in addition to itself and the standard library.
MAY = {
    "model": "msgspec immutables",
    "wire": "compass.model msgspec",
    "store": "compass.model compass.system msgspec immutables sqlalchemy alembic psycopg",
    "server": f"compass.model compass.wire compass.system msgspec immutables {TWISTED}",
    "agent": f"compass.model compass.wire compass.templates compass.system msgspec immutables {TWISTED}",
    "gateway": f"compass.model compass.system msgspec immutables klein werkzeug prometheus_client {TWISTED}",
    "console": f"compass.gateway compass.model msgspec {TWISTED}",
    "client": "compass.model compass.wire compass.system msgspec h11",
    "client/twisted.py": f"compass.model compass.client msgspec {TWISTED}",
    "client/httpx.py": "compass.model httpx",
    "client/requests.py": "compass.model requests urllib3",
    "cli": "compass.model compass.client compass.system compass.templates msgspec click rich",
    "templates": "",
    "templates/render.py": "compass.model jinja2",
    "pki": f"compass.model cryptography service_identity OpenSSL {TWISTED}",
    "system": "compass.model",
    "system/command_line.py": "compass.model click",
    "admin": "compass.model compass.wire compass.pki compass.system msgspec click rich",
    "admin/commands/store.py": "compass.model compass.client compass.store compass.system "
    "msgspec click rich sqlalchemy",
    "daemons": f"compass click sqlalchemy msgspec OpenSSL cryptography {TWISTED}",
}
# What it must not import although the list above, or being standard, would let it.
IMPURE = "time random secrets os io pathlib socket select ssl logging threading asyncio subprocess"
NEVER = {"model": IMPURE, "wire": IMPURE, "store": "sqlalchemy.orm"}


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Each import in `source`: its line and what is imported, absolute, with the name taken from it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: 1 - node.level or None]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def within(name: str, modules: str) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules.split())


def broken_rules(path: str, source: str) -> Iterator[str]:
    """The rules that a file at `path`, which begins with compass/, breaks: a sentence for each."""
    package = ".".join(Path(path).parts[:-1])
    layer = Path(path).parts[1]
    rule = path.removeprefix("compass/")
    rule = rule if rule in MAY else layer
    for line, name in imports(source, package):
        if layer != "daemons" and within(name, "twisted.internet.reactor"):
            yield f"{path}:{line}: only compass/daemons may import the reactor; take it as an argument"
        elif within(name, NEVER.get(rule, "")):
            yield f"{path}:{line}: {rule} must never import {name}"
        elif name.partition(".")[0] in sys.stdlib_module_names or within(name, f"compass.{layer}") or name == "compass":
            continue
        elif not within(name, MAY.get(rule, "")):
            yield f"{path}:{line}: {rule} must not import {name}; allowed: {MAY.get(rule, 'nothing')}"


def test_every_layer_imports_only_what_the_table_allows() -> None:
    """No file below compass/ imports a layer next to or above it, or a library that is not its business."""
    files = {file.relative_to(ROOT).as_posix(): file for file in sorted((ROOT / "compass").rglob("*.py"))}
    broken = [rule for path, file in files.items() for rule in broken_rules(path, file.read_text("utf-8"))]
    assert not broken, "\n".join(["the table of layers is broken:", *broken])


def test_an_import_hidden_in_a_function_is_seen() -> None:
    """The table cannot be evaded by importing late, relatively, or a package in place of its module."""
    assert [*broken_rules("compass/model/a.py", "def f():\n    import time")]
    assert [*broken_rules("compass/server/a.py", "from ..store import log")]
    assert [*broken_rules("compass/gateway/a.py", "from compass import agent")]
    assert [*broken_rules("compass/store/a.py", "from sqlalchemy import orm")]
    assert [*broken_rules("compass/agent/a.py", "def f():\n    from twisted.internet import reactor")]
    assert [*broken_rules("compass/admin/a.py", "import compass.store")]
    assert [*broken_rules("compass/client/a.py", "import twisted.internet.defer")]
    assert not [*broken_rules("compass/admin/commands/store.py", "import compass.store")]
    assert not [*broken_rules("compass/server/push/a.py", "from .. import failure\nfrom compass.model import names")]
