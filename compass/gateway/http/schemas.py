"""What the rules of the model take, said in JSON Schema, so that a client or a fuzzer knows it beforehand.

The structs say the types; names, addresses and ranges are judged by the rules of the model, which refuse in words.
Here is the same once more for machines, by the names of the fields, which mean one thing everywhere. Only what can be
sent is refined: an answer may come from a newer server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from compass.model.limits import (
    DETAIL_MAX,
    EPOCH_MAX,
    FETCH_LIMIT_MAX,
    FLAP_SECONDS_MAX,
    FLAPS_MAX,
    GRACE_SECONDS_MAX,
    HOST_NAME_MAX,
    HOST_SERVICES_MAX,
    LABEL_MAX,
    METADATA_ENTRIES_MAX,
    METADATA_KEY_MAX,
    METADATA_VALUE_MAX,
    OVERLAP_SECONDS_MAX,
    POOLS_PER_CATEGORY_MAX,
    PORT_MAX,
    PROBE_ATTEMPTS_MAX,
    PROBE_PATH_MAX,
    PROBE_TIMEOUT_SECONDS_MAX,
    PURGE_AGE_SECONDS_MIN,
    RECOVERY_SECONDS_MAX,
    REPORTERS_NEEDED_MAX,
    STEER_SECONDS_MAX,
    WEIGHT_MAX,
    WITNESSES_MAX,
)
from compass.model.selection.policies import LOCALITIES, POLICIES

_LABEL = f"[A-Za-z0-9]([A-Za-z0-9-]{{0,{LABEL_MAX - 2}}}[A-Za-z0-9])?"
LABEL = {"type": "string", "pattern": f"^{_LABEL}$", "examples": ["openuss"]}
SERVICE = {"type": "string", "pattern": rf"^{_LABEL}\.{_LABEL}$", "examples": ["chinaserver.openuss"]}
NAME = {"type": "string", "pattern": rf"^{_LABEL}(\.{_LABEL})?$", "examples": ["openuss", "chinaserver.openuss"]}
HOST = {"type": "string", "pattern": rf"^{_LABEL}(\.{_LABEL})*$", "maxLength": HOST_NAME_MAX}
PLAIN = r"^[^\u0000-\u001f\u007f-\u009f]*$"
"""Without control characters."""
ADDRESS = {
    "type": "string",
    "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}],
    # Nobody in particular, everybody, and groups.
    "not": {"pattern": r"^(0\.0\.0\.0|255\.255\.255\.255|22[4-9]\..*|23\d\..*|[fF][fF].*|[0:]+|.*:.*\..*)$"},
    "examples": ["192.0.2.7", "2001:db8::1"],
}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
PORT = {"type": "integer", "minimum": 1, "maximum": PORT_MAX}
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_FIRST_OCTET = "(1[0-9][0-9]|2[01][0-9]|22[0-3]|[1-9][0-9]?)"
LISTENER = {
    "type": "string",
    "pattern": rf"^{_LABEL}\.{_LABEL} ({_FIRST_OCTET}(\.{_OCTET}){{3}}|\[2001:db8:(:[1-9a-f][0-9a-f]{{0,3}}){{1,5}}\])"
    r":([1-5][0-9]{0,4}|6[0-4][0-9]{3}|[1-9][0-9]{0,3})$",
    "examples": ["chinaserver.openuss 192.0.2.7:2028"],
}
"""A service with an endpoint. Any IPv6 address will do in brackets; the pattern says no more than is easily said."""
LOG_WAIT_SECONDS_MAX = 20.0
"""As in the protocol's limits, which are none of a gateway's business; a test sees that they agree."""


INSTEAD_MAX = 8
"""Likewise: servers to go to instead."""


def _or_empty(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, or nothing."""
    return {"anyOf": [schema, {"const": ""}]}


FIELDS: dict[str, dict[str, Any]] = {
    "service": SERVICE,
    "category": LABEL,
    "on": LABEL,
    "address": ADDRESS,
    "port": PORT,
    "epoch": {"type": "integer", "minimum": 1, "maximum": EPOCH_MAX},
    "weight": {"type": "integer", "minimum": 0, "maximum": WEIGHT_MAX},
    "metadata": {
        "type": "object",
        "maxProperties": METADATA_ENTRIES_MAX,
        "propertyNames": {"minLength": 1, "maxLength": METADATA_KEY_MAX, "pattern": PLAIN},
        "additionalProperties": {"type": "string", "maxLength": METADATA_VALUE_MAX, "pattern": PLAIN},
    },
    "seen": {"type": "integer"},
    "load": SHARE,
    "degradation": SHARE,
    "zone": _or_empty(LABEL),
    "pool": {"enum": list(POLICIES)},
    "pools": {
        "type": "object",
        # Names of services, in small letters.
        "propertyNames": {"pattern": f"^{_LABEL}$".replace("A-Z", "")},
        "maxProperties": POOLS_PER_CATEGORY_MAX,
        "additionalProperties": {"enum": list(POLICIES)},
    },
    "locality": {"enum": list(LOCALITIES)},
    "detail": {"type": "string", "maxLength": DETAIL_MAX, "pattern": PLAIN},
    "reporter": _or_empty(SERVICE),
    "backup": _or_empty(SERVICE),
    "overlap_seconds": {"type": ["number", "null"], "minimum": 0, "maximum": OVERLAP_SECONDS_MAX},
    "age_seconds": {"type": "number", "minimum": PURGE_AGE_SECONDS_MIN},
    "probe": {"type": "string", "pattern": rf"^(tcp|http:/[\u0021-\u007e]{{0,{PROBE_PATH_MAX - 1}}})$"},
    "probe_timeout_seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": PROBE_TIMEOUT_SECONDS_MAX},
    "probe_attempts": {"type": "integer", "minimum": 1, "maximum": PROBE_ATTEMPTS_MAX},
    "recovery_seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": RECOVERY_SECONDS_MAX},
    "reporters": {"type": "integer", "minimum": 1, "maximum": REPORTERS_NEEDED_MAX},
    "witnesses": {"type": "integer", "minimum": 0, "maximum": WITNESSES_MAX},
    "cap": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "grace_seconds": {"type": "number", "minimum": 0, "maximum": GRACE_SECONDS_MAX},
    "flaps": {"type": "integer", "minimum": 1, "maximum": FLAPS_MAX},
    "flap_seconds": {"type": "number", "minimum": 0, "maximum": FLAP_SECONDS_MAX},
    "hold_seconds": {"type": "number", "minimum": 0, "maximum": FLAP_SECONDS_MAX},
    "update_address": _or_empty(ADDRESS),
    "update_port": {"type": "integer", "minimum": 0, "maximum": PORT_MAX},
    "services": {"type": "array", "items": SERVICE, "maxItems": HOST_SERVICES_MAX},
}
"""What a field of this name may be."""

FIELDS_OF: dict[tuple[str, str], dict[str, Any]] = {
    ("Category", "name"): LABEL,
    ("Host", "name"): HOST,
    ("Service", "id"): SERVICE,
    ("NameAsked", "name"): NAME,
    ("LocalRegister", "address"): _or_empty(ADDRESS),
    ("LocalRegister", "pid"): {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    ("LocalLoad", "address"): _or_empty(ADDRESS),
    ("LocalDeregister", "address"): _or_empty(ADDRESS),
    ("LocalDeregister", "epoch"): {"type": "integer", "minimum": 0, "maximum": EPOCH_MAX},
    ("Fetch", "limit"): {"type": "integer", "minimum": 1, "maximum": FETCH_LIMIT_MAX},
    ("ReadLog", "after"): {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    ("ReadLog", "wait_seconds"): {"type": "number", "minimum": 0, "maximum": LOG_WAIT_SECONDS_MAX},
    ("Impact", "name"): {"anyOf": [NAME, LISTENER]},
    ("Register", "epoch"): {"type": "integer", "minimum": 0, "maximum": EPOCH_MAX},
    ("Digest", "revision"): {"type": "integer", "minimum": 0},
    ("Steer", "seconds"): {"type": "number", "minimum": 0, "maximum": STEER_SECONDS_MAX},
    ("Steer", "instead"): {
        "type": "array",
        "maxItems": INSTEAD_MAX,
        "items": {
            "type": "string",
            "pattern": rf"^({_LABEL}\.){{0,3}}[A-Za-z]([A-Za-z0-9-]{{0,20}}[A-Za-z0-9])?(:[1-9][0-9]{{0,3}})?$",
        },
    },
    ("RevokeCredential", "id"): {"type": "string"},
}
"""Where it means something else in one struct."""

MORE: dict[str, dict[str, Any]] = {
    "Remove": {
        "oneOf": [
            {"properties": {"kind": {"const": kind}, "name": name}}
            for kind, name in (
                ("category", LABEL),
                ("service", SERVICE),
                ("dependency", {"type": "string", "pattern": f"^{_LABEL} {_LABEL}$", "examples": ["web openuss"]}),
                ("listener", LISTENER),
                ("host", HOST),
            )
        ]
    }
}
"""What holds between the fields of a struct."""


def of_bodies(kind: str, schema: dict[str, Any], *, tag_optional: bool = False) -> dict[str, Any]:
    """The schema of a struct that can be sent: refined, and closed to fields that there are not.

    `tag_optional`: the path says already which message it is, so its `type` may be left out.
    """
    if schema.get("type") != "object":
        return schema
    properties = {name: _refined(kind, name, part) for name, part in schema.get("properties", {}).items()}
    made = {**schema, "properties": properties, "additionalProperties": False, **MORE.get(kind, {})}
    if tag_optional:
        made["required"] = [name for name in schema.get("required", ()) if name != "type"]
    return made


def closed(components: dict[str, Any], names: Iterable[str]) -> set[str]:
    """These components and all that they refer to."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += referred(components[name])
    return found


def referred(schema: Any) -> list[str]:
    """The components that a part of a document refers to."""
    return re.findall(r"'\$ref': '#/components/schemas/(\w+)'", repr(schema))


def _refined(kind: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    more = FIELDS_OF.get((kind, name), FIELDS.get(name))
    if more is None or "$ref" in schema or "enum" in schema:
        return schema
    kept = {key: value for key, value in schema.items() if key in ("description", "default")}
    return {**kept, **more}
