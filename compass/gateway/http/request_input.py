"""Input of a request: JSON in its body, or path and query, decoded by its type into a struct of the model.

The protocol skips unknown fields; for JSON written by hand a slip should be reported. So a body is checked against the
strict twin of each struct, which has no room for unknown fields. RFC 8259, section 4, leaves it open what a field given
twice means: a proxy that checks a request and a daemon that acts on it could read two different requests, so no field
may occur twice.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec
from twisted.web.server import Request

from compass.gateway.http.openapi import JSON, Operation
from compass.gateway.http.request import BoundedRequest, RequestRejected
from compass.model.replies import Refusal
from compass.model.rules.draft import text_problem

QUERY_FIELDS_MAX = 64
"""Most fields in one query: more than any operation has."""
NAMED_OCTETS_MAX = 64 * 1024
"""Longest body for which the refusal names the field: the search costs more than all other steps."""


def read_body(request: Request, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Return the input in the request's body. Raises RequestRejected."""
    declared = cast(BoundedRequest, request).declared.partition(";")[0].strip().lower()
    if declared != JSON:
        text = f"the body must be {JSON}, not {declared[:80] or 'without a type'}"
        raise RequestRejected(415, Refusal("malformed", text))
    content: bytes = cast(Any, request.content).read()
    try:
        asked = _decoded(content, kind)
        check_once(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRejected(400, Refusal("malformed", f"{error}; see /openapi.json")) from None
    return _text(asked)


def read_query(request: Request, operation: Operation, placed: Mapping[str, str]) -> msgspec.Struct | None:
    """Return the input in path and query. Raises RequestRejected."""
    fields: dict[str, Any] = {**placed, **operation.fixed}
    for name, value in _query_pairs(request):
        if name not in operation.query_fields:
            known = ", ".join(operation.query_fields)
            hint = f"known fields: {known}" if known else "this path has no query"
            raise RequestRejected(400, Refusal("malformed", f"the query has no field {name[:80]!r}; {hint}"))
        if name in fields:
            raise RequestRejected(400, Refusal("malformed", f"the query has {name!r} twice"))
        fields[name] = value
    if operation.asks is None:
        return None
    try:
        asked = msgspec.convert(fields, operation.asks, strict=False)
    except msgspec.ValidationError as error:
        raise RequestRejected(400, Refusal("malformed", f"{error}; see /openapi.json")) from None
    return _text(asked)


def _text(asked: msgspec.Struct) -> msgspec.Struct:
    """Return the input, if its texts are printable lines. Raises RequestRejected."""
    if problem := text_problem(asked):
        raise RequestRejected(400, Refusal("bad-value", problem))
    return asked


def _query_pairs(request: Request) -> list[tuple[str, str]]:
    query = request.uri.partition(b"?")[2].decode("ascii", "replace")
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        text = f"the query must be percent-encoded UTF-8 with at most {QUERY_FIELDS_MAX} fields"
        raise RequestRejected(400, Refusal("malformed", text)) from None


def _decoded(content: bytes, kind: type[msgspec.Struct]) -> msgspec.Struct:
    """Return the struct in JSON. A struct of its strict twin would be of another type, so a correct body is read twice,
    by typed decoders that need 20 ms for 30,000 rows; an incorrect one ends at the first mistake."""
    try:
        _decoder(kind).decode(content)
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        # For JSON Schema 80.0 is the integer 80, which is rare: only then is JSON read without its types.
        if "got `float`" not in str(error):
            raise
    raw = _with_integers(msgspec.json.decode(content))
    msgspec.convert(raw, _decoder(kind).type)
    return msgspec.convert(raw, kind)


def _with_integers(raw: Any) -> Any:
    """Return JSON with 80.0 as 80."""
    match raw:
        case float():
            return int(raw) if raw.is_integer() else raw
        case dict():
            return {name: _with_integers(part) for name, part in raw.items()}
        case list():
            return [_with_integers(part) for part in raw]
    return raw


@cache
def _decoder(kind: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_strict(kind))


@cache
def _strict(kind: Any) -> Any:
    """Return the type with the strict twin of each struct in it."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _twin(kind)
    parts = get_args(kind)
    if not parts or not any(part is not _strict(part) for part in parts if _is_type(part)):
        return kind
    strict = tuple(_strict(part) if _is_type(part) else part for part in parts)
    if get_origin(kind) is Annotated:
        return Annotated[strict]
    if isinstance(kind, types.UnionType) or get_origin(kind) is Union:
        return Union[strict]  # noqa: UP007
    return get_origin(kind)[strict]


def _is_type(part: Any) -> bool:
    """Return whether an argument of a generic type is a type: not an ellipsis or a value of a Literal."""
    return isinstance(part, type) or get_origin(part) is not None


def _twin(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    hints = get_type_hints(kind, include_extras=True)
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        default = cast(Any, msgspec.field)(
            default=field.default, default_factory=field.default_factory, name=field.encode_name
        )
        fields.append((field.name, _strict(hints[field.name]), default))
    config = kind.__struct_config__
    return msgspec.defstruct(
        kind.__name__,
        fields,
        tag=config.tag,
        tag_field=config.tag_field,
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=True,
        module=kind.__module__,
    )


def check_once(content: bytes) -> None:
    """Check that no object in JSON has a field twice. Raises MsgspecError, UnicodeDecodeError or RecursionError.

    Duplicates are found by numbers, so that a large body costs little: a colon follows each name of a field, so a text
    has more colons than what it decodes to if a field was given twice.
    """
    try:
        kept = msgspec.json.encode(msgspec.json.decode(content))
    except OverflowError:
        raise msgspec.ValidationError("Integer is out of range") from None
    # Colons in strings are the same on both sides, unless one is written as an escape.
    count = _count_fields if b"\\u003" in content else _count_colons
    if count(content) != count(kept):
        raise msgspec.ValidationError(f"Object contains {_duplicate(content)} twice")


def _count_colons(content: bytes) -> int:
    return content.count(b":")


def _count_fields(content: bytes) -> int:
    """Count the colons outside strings: without escapes, every second part between quotes is outside."""
    parts = content.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    return b"".join(parts[::2]).count(b":")


def _duplicate(content: bytes) -> str:
    """Return the first field that occurs twice, for the text of the refusal."""
    if len(content) > NAMED_OCTETS_MAX:
        return "a field"
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                found.append(name)
            seen.add(name)

    json.loads(content, object_pairs_hook=note)
    return f"the field {found[0][:80]!r}" if found else "a field"
