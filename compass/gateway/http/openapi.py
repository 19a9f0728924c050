"""Operations of an HTTP API as data: its routes and its OpenAPI document are made from one table.

An operation names the structs of its request and its answer, which are those of the model: the document and the code
that decodes and encodes cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from compass.gateway.http.schemas import closed, of_answer, of_request, referred, without_tag
from compass.model.replies import Refusal

JSON = "application/json"
EVENTS = "text/event-stream"
TEXT = "text/plain"
_EVENT = {
    "description": "One event of the stream (HTML, section 9.2.6). `data` is JSON.",
    "type": "object",
    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["event", "data"],
}
"""Schema of a stream's events: in OpenAPI 3.1 a stream has no schema of its own, and tools take this one."""
_REF = "#/components/schemas/{name}"
_FIELD = re.compile(r"{(\w+)}")


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """Operation of an API: one path with one method."""

    method: Literal["GET", "POST"]
    path: str
    """Path as OpenAPI writes it: `/v1/resolve/{name}` contains the field `name` of `asks`."""
    summary: str
    asks: type[msgspec.Struct] | None = None
    """Type of the request, read from the body of a POST, or from path and query of a GET. None: no input."""
    fixed: dict[str, Any] = {}
    """Fields of `asks` whose values the path implies."""
    omitted: tuple[str, ...] = ()
    """Fields of `asks` that this operation does not have."""
    answers: Any = None
    """Type of the answer; None: JSON that is described elsewhere."""
    media: str = JSON
    may_be_pending: bool = False
    """True if 202 is a possible status."""
    no_authentication: bool = False
    """True if callers need not authenticate."""
    is_page: bool = False
    """True for a page for browsers: links of other sites may lead to it."""
    headers: tuple[str, ...] = ()
    """Headers of the request that have an effect."""

    @property
    def path_fields(self) -> tuple[str, ...]:
        """Fields of `asks` in the path."""
        return tuple(_FIELD.findall(self.path))

    @property
    def query_fields(self) -> tuple[str, ...]:
        """Fields of `asks` in the query."""
        names = msgspec.structs.fields(self.asks) if self.asks is not None and self.method == "GET" else ()
        left = {*self.path_fields, *self.fixed, *self.omitted}
        return tuple(field.name for field in names if field.name not in left)


def document(
    title: str,
    description: str,
    operations: Sequence[Operation],
    events: Sequence[type[msgspec.Struct]],
    security: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the OpenAPI document (3.1), ready for JSON.

    `events`: types of the data of streams. `security`: security schemes, any one of which suffices.
    """
    bodies = [one.asks for one in operations if one.asks is not None]
    answers = [one.answers for one in operations if one.answers is not None and one.media == JSON]
    kinds = [*bodies, *answers, *events, Refusal]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    spelled = _OpenApiWriter(dict(zip(map(repr, kinds), schemas, strict=True)), components)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = spelled.operation(operation, bool(security))
    components = spelled.components(one.asks for one in operations if one.asks is not None and one.method == "POST")
    used = closed(components, [*referred(paths), *(kind.__name__ for kind in events)])
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1", "description": description},
        "paths": paths,
        "components": {"schemas": {name: schema for name, schema in components.items() if name in used}},
    }
    if security:
        made["components"]["securitySchemes"] = security
        made["security"] = [{name: []} for name in security]
    return made


class _OpenApiWriter:
    """Writer of operations and types in OpenAPI's form."""

    def __init__(self, schemas: dict[str, Any], components: dict[str, Any]) -> None:
        self._schemas = schemas
        self._components = components

    def operation(self, operation: Operation, secured: bool) -> dict[str, Any]:
        done = {operation.media: self._done(operation)}
        described: dict[str, Any] = {
            "summary": operation.summary,
            "operationId": _identifier(operation),
            "parameters": self._parameters(operation),
            "responses": {
                "200": {"description": "Done.", "content": done},
                "default": {
                    "description": "Refused; the code gives the reason.",
                    "content": {JSON: {"schema": self._schemas[repr(Refusal)]}},
                },
            },
        }
        if operation.method == "GET" and operation.media == JSON:
            described["responses"]["200"]["headers"] = {
                "ETag": {"description": "For If-None-Match.", "schema": {"type": "string"}}
            }
            described["responses"]["304"] = {"description": "Unchanged since the ETag of If-None-Match."}
        if operation.method == "POST":
            schema = self._schemas[repr(operation.asks)]
            described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
        if operation.may_be_pending:
            described["responses"]["202"] = {
                "description": "No server is reachable; the request is on disk and will be delivered later.",
                "content": done,
            }
        if secured and operation.no_authentication:
            described["security"] = []
        return described

    def components(self, bodies: Iterable[type[msgspec.Struct]]) -> dict[str, Any]:
        """Return the schemas that are referred to: strict for requests, open for answers."""
        asked = {kind.__name__: kind for kind in bodies}
        reached = closed(self._components, asked)
        made = {}
        for name, schema in self._components.items():
            made[name] = of_request(name, schema, asked.get(name)) if name in reached else of_answer(schema)
            if name in asked:
                made[name] = without_tag(made[name])
        return made

    def _done(self, operation: Operation) -> dict[str, Any]:
        if operation.media == EVENTS:
            return {"schema": _EVENT}
        if operation.media != JSON:
            return {"schema": {"type": "string"}}
        return {"schema": self._schemas[repr(operation.answers)]} if operation.answers is not None else {}

    def _parameters(self, operation: Operation) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for name in operation.headers:
            made.append({"name": name, "in": "header", "required": False, "schema": {"type": "string"}})
        if operation.asks is None or operation.method != "GET":
            return made
        schema = of_request(operation.asks.__name__, self._components[operation.asks.__name__], operation.asks)
        for place, names in (("path", operation.path_fields), ("query", operation.query_fields)):
            for name in names:
                own = dict(schema["properties"][name])
                about = own.pop("description", "")
                required = place == "path" or name in schema.get("required", ())
                made.append({"name": name, "in": place, "required": required, "schema": own})
                if about:
                    made[-1]["description"] = about
        return made


def _identifier(operation: Operation) -> str:
    """Return a name for generated clients, such as getV1ResolveName."""
    words = re.findall(r"[A-Za-z0-9]+", operation.path)
    return operation.method.lower() + "".join(word.capitalize() for word in words)
