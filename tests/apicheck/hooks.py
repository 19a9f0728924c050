"""What schemathesis is told about this world: names that there are, and what would keep a response open."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import schemathesis

SERVICES = ("portal.web", "chinaserver.openuss", "northeast.openuss", "account.openuso")
CATEGORIES = ("web", "openuss", "openuso", "rescue")
TOKEN = os.environ.get("APICHECK_CREDENTIAL", "")
ADDRESS, _, _port = os.environ.get("APICHECK_LISTENER", "127.0.0.1:1").rpartition(":")
PORT = int(_port)
_random = Random(7)


def _known(name: str, value: Any) -> Any:
    """Most often something that there is: random names are all unknown, and show one answer only."""
    if not isinstance(value, str) or _random.random() < 0.3:
        return value
    match name:
        case "service":
            return _random.choice(SERVICES)
        case "name":
            return _random.choice(SERVICES + CATEGORIES)
        case "category" | "on":
            return _random.choice(CATEGORIES)
        case "credential":
            return TOKEN or value
    return value


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Names in paths."""
    if not isinstance(path_parameters, dict):
        return path_parameters
    return {name: _known(name, value) for name, value in path_parameters.items()}


@schemathesis.hook
def map_query(context: Any, query: Any) -> Any:
    """Nobody waits for minutes."""
    if isinstance(query, dict) and isinstance(query.get("wait"), int | float):
        query["wait"] = min(query["wait"], 0.01)
    return query


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Names in bodies."""
    if not isinstance(body, dict):
        return body
    known = {name: _known(name, value) for name, value in body.items()}
    if TOKEN and known.get("credential") == TOKEN:
        known["service"] = "chinaserver.openuss"
    if _random.random() < 0.5 and {"service", "address", "port"} <= known.keys() and isinstance(known["service"], str):
        known |= {"service": "chinaserver.openuss", "address": ADDRESS, "port": PORT}
    return known


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A registration that is held would never end its response, and a process that is not there cannot serve."""
    if isinstance(case.body, dict):
        if case.body.get("hold") is True:
            case.body["hold"] = False
        if isinstance(case.body.get("pid"), int) and case.body["pid"] > 0:
            case.body["pid"] = os.getpid()
