"""Hooks of schemathesis for this world: existing names, and parameters that would keep a response open."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import schemathesis

SERVICES = ("portal.web", "northeast.openuss", "account.openuso")
CATEGORIES = ("web", "openuss", "openuso", "rescue")
CREDENTIAL = os.environ.get("APICHECK_CREDENTIAL", "")
LISTENER = os.environ.get("APICHECK_LISTENER", "127.0.0.1:1").rpartition(":")
DRAINED = os.environ.get("APICHECK_DRAINED", "127.0.0.1:1").rpartition(":")
EPOCH = 10**6
WAIT_SECONDS = 0.01
_random = Random(7)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Random names are all unknown and show one answer only, so most of them become names that there are.

    What was made wrong on purpose stays wrong.
    """
    for name in ("wait", "wait_seconds"):
        if isinstance(case.query, dict) and isinstance(case.query.get(name), int | float):
            case.query[name] = min(case.query[name], WAIT_SECONDS)
    if isinstance(case.body, dict) and case.body.get("hold") is True:
        # Its response would never end.
        case.body["hold"] = False
    if isinstance(case.body, dict) and "away" in case.body:
        # Hosts that are sent away are missed, and what they registered is probed.
        case.body["away"] = False
    if not case.meta.generation.mode.is_positive:
        return
    if isinstance(case.query, dict) and "revision" in case.query:
        # One that was not reached yet is refused.
        case.query["revision"] = 0
    for fields in (case.path_parameters, case.query, case.body):
        if isinstance(fields, dict):
            fields |= {name: _known(name, value, fields) for name, value in fields.items()}
            _places(case.operation.path, fields)
    if isinstance(case.body, dict) and case.body.get("pid"):
        # A process that there is not is refused.
        case.body["pid"] = os.getpid()
    if isinstance(case.body, dict):
        _possible(case.body)


def _known(name: str, value: Any, beside: dict[str, Any]) -> Any:
    if not isinstance(value, str) or _random.random() < 0.3 or (name == "name" and "kind" in beside):
        return value
    match name:
        case "service":
            return _random.choice(SERVICES)
        case "name":
            return _random.choice(SERVICES + CATEGORIES)
        case "category" | "on":
            return _random.choice(CATEGORIES)
        case "credential":
            return CREDENTIAL or value
    return value


def _places(path: str, fields: dict[str, Any]) -> None:
    """A listener that there is, in half of the cases; what can be drained at any time is another one."""
    if not {"service", "address", "port"} <= fields.keys():
        return
    if path == "/v1/drain":
        fields |= {"service": "chinaserver.openuss", "address": DRAINED[0], "port": int(DRAINED[2])}
    elif _random.random() < 0.5:
        fields |= {"service": "northeast.openuss", "address": LISTENER[0], "port": int(LISTENER[2])}


def _possible(body: dict[str, Any]) -> None:
    """Set what no schema can say: an existing process, and an epoch that leaves room for the next instance."""
    if isinstance(body.get("pid"), int) and body["pid"] > 0:
        body["pid"] = os.getpid()
    if isinstance(body.get("epoch"), int):
        body["epoch"] = min(body["epoch"], EPOCH)
    if {"name", "to"} <= body.keys():
        # Two names of one kind, and for services of one category; the other requests need the names that there are.
        name, to = str(body["name"]), str(body["to"]).partition(".")[0]
        body["to"] = f"{to}.{name.partition('.')[2]}" if "." in name else to
        body["dry_run"] = True
