"""The host API's OpenAPI document (3.1), made from the very structs that are read and written."""

from __future__ import annotations

from typing import Any

import msgspec

from compass.model.local import (
    HostStatus,
    LocalDeregister,
    LocalDrain,
    LocalLoad,
    LocalRegister,
    LocalReport,
    Outcome,
    Resolved,
)
from compass.model.replies import Dependencies, Refusal
from compass.model.rows import Change

_REF = "#/components/schemas/{name}"
_KINDS = (
    LocalRegister,
    LocalDeregister,
    LocalDrain,
    LocalLoad,
    LocalReport,
    Outcome,
    Resolved,
    HostStatus,
    Dependencies,
    Change,
    Refusal,
)


def document() -> dict[str, Any]:
    """The whole document, ready for JSON."""
    schemas, components = msgspec.json.schema_components(_KINDS, ref_template=_REF)
    named: dict[Any, Any] = dict(zip(_KINDS, schemas, strict=True))

    def content(kind: type) -> dict[str, Any]:
        return {"application/json": {"schema": named[kind]}}

    def operation(
        summary: str,
        answer: type | None,
        *,
        body: type | None = None,
        path: str = "",
        query: tuple[tuple[str, bool], ...] = (),
        media: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        parameters = [_parameter(path, "path", required=True)] if path else []
        parameters += [_parameter(name, "query", required=required) for name, required in query]
        done = media or (content(answer) if answer is not None else {"application/json": {}})
        described: dict[str, Any] = {
            "summary": summary,
            "parameters": parameters,
            "responses": {
                "200": {"description": "Done.", "content": done},
                "default": {"description": "Refused; the code says why.", "content": content(Refusal)},
            },
        }
        if body is not None:
            described["requestBody"] = {"required": True, "content": content(body)}
            described["responses"]["202"] = {
                "description": "No server could be asked; kept on disk and delivered when one returns.",
                "content": done,
            }
        return described

    events = {"text/event-stream": {"schema": {"type": "string"}}}
    paths = {
        "/v1/dependencies/{service}": {"get": operation("What a service depends on.", Dependencies, path="service")},
        "/v1/resolve/{name}": {
            "get": operation("The listeners of a service or category to use.", Resolved, path="name")
        },
        "/v1/register": {"post": operation("A listener comes up.", Outcome, body=LocalRegister)},
        "/v1/deregister": {"post": operation("A listener goes away.", Outcome, body=LocalDeregister)},
        "/v1/load": {"post": operation("How busy a listener of this host is.", Outcome, body=LocalLoad)},
        "/v1/drain": {"post": operation("A listener takes no new users.", Outcome, body=LocalDrain)},
        "/v1/report": {"post": operation("A listener was found dead or slow.", Outcome, body=LocalReport)},
        "/v1/watch": {
            "get": operation(
                "Events `snapshot` (data: Dependencies) and `change` (data: Change); the id is the revision.",
                None,
                query=(("service", True), ("since", False)),
                media=events,
            )
        },
        "/v1/status": {"get": operation("The daemon in figures.", HostStatus)},
        "/openapi.json": {"get": operation("This document.", None)},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "OpenGNS host API", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    }


def _parameter(name: str, place: str, *, required: bool) -> dict[str, Any]:
    kind = "integer" if name == "since" else "string"
    return {"name": name, "in": place, "required": required, "schema": {"type": kind}}
