"""JSON Schemas of an HTTP API: those of the model's structs, strict for requests and open for answers.

The rules of a field stand at the field (`compass.model.names`, `compass.model.limits`); msgspec puts them into the
schema of its struct and does not enforce them. Here a request's schema gets what no field can say, and an answer's
schema loses the rules: the answer may come from a newer server, whose rules are others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.inspect import Metadata, StructType, type_info

from compass.model.limits import ALLOWED_HOSTS_MAX, POOLS_PER_CATEGORY_MAX
from compass.model.names import DEPENDENCY, HOST, LABEL, LISTENER, SERVICE
from compass.model.rows import ANY_HOST
from compass.model.selection.policies import LOCALITIES, POLICIES

_RULES = frozenset(
    ("pattern", "minimum", "maximum", "exclusiveMinimum", "maxLength", "maxItems", "maxProperties", "propertyNames")
) | {"not", "examples"}
"""Keywords that the rules of fields use."""

_HOSTS_SHOWN_MAX = 100
"""Names in one list in the schema: a schema cannot bound all lists together."""

FIELDS: dict[str, dict[str, dict[str, Any]]] = {
    "Policy": {
        "pool": {"enum": list(POLICIES)},
        "pools": {
            # Labels of services, in lower case.
            "propertyNames": {"pattern": LABEL["pattern"].replace("A-Z", "")},
            "maxProperties": POOLS_PER_CATEGORY_MAX,
            "additionalProperties": {"enum": list(POLICIES)},
        },
        "locality": {"enum": list(LOCALITIES)},
        "hosts": {
            "propertyNames": {"pattern": LABEL["pattern"].replace("A-Z", "")},
            "maxProperties": ALLOWED_HOSTS_MAX // _HOSTS_SHOWN_MAX,
            "additionalProperties": {
                "anyOf": [
                    {"type": "array", "items": HOST, "minItems": 1, "maxItems": _HOSTS_SHOWN_MAX},
                    {"const": [ANY_HOST]},
                ]
            },
        },
    }
}
"""Rules of fields whose values are named above the rows: `selection/policies.py` imports `rows.py`."""

STRUCTS: dict[str, dict[str, Any]] = {
    "Remove": {
        "oneOf": [
            {"properties": {"kind": {"const": kind}, "name": name}}
            for kind, name in (
                ("category", LABEL),
                ("service", SERVICE),
                ("dependency", DEPENDENCY),
                ("listener", LISTENER),
                ("host", HOST),
            )
        ]
    },
    "Rename": {"oneOf": [{"properties": {"name": name, "to": name}} for name in (LABEL, SERVICE)]},
}
"""Rules between the fields of a struct."""


def of_request(name: str, schema: dict[str, Any], kind: type[msgspec.Struct] | None = None) -> dict[str, Any]:
    """Return the schema of a struct that requests contain: closed to unknown fields, and with all rules.

    With `kind`, the struct is a whole request: rules of its fields replace bounds of the encoding (64-bit integers).
    """
    if schema.get("type") != "object":
        return schema
    rules = {**(_rules_of(kind) if kind is not None else {}), **FIELDS.get(name, {})}
    properties = {field: {**part, **rules.get(field, {})} for field, part in schema.get("properties", {}).items()}
    return {**schema, "properties": properties, "additionalProperties": False, **STRUCTS.get(name, {})}


def without_tag(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a body without its required `type`: the path says which message it is."""
    return {**schema, "required": [name for name in schema.get("required", ()) if name != "type"]}


def of_answer(schema: Any) -> Any:
    """Return a schema without the rules of fields."""
    if isinstance(schema, list):
        return [of_answer(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: part for key, part in schema.items() if key not in _RULES}
    if "type" in kept:
        # A choice next to a type is a rule as well; without a type it is a union.
        kept.pop("anyOf", None)
    if "properties" in kept:
        kept["properties"] = {name: of_answer(part) for name, part in kept["properties"].items()}
    return {key: part if key == "properties" else of_answer(part) for key, part in kept.items()}


def closed(components: dict[str, Any], names: Iterable[str]) -> set[str]:
    """Return these components and all that they refer to."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += referred(components[name])
    return found


def referred(schema: Any) -> list[str]:
    """Return the components that a part of a document refers to."""
    return re.findall(r"'\$ref': '#/components/schemas/(\w+)'", repr(schema))


def _rules_of(kind: type[msgspec.Struct]) -> dict[str, dict[str, Any]]:
    """Return the rules at the fields of a struct."""
    struct = type_info(kind)
    assert isinstance(struct, StructType)
    found = {field.name: field.type for field in struct.fields}
    return {name: one.extra_json_schema or {} for name, one in found.items() if isinstance(one, Metadata)}
