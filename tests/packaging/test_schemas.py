"""Compose and Kubernetes files against the published schemas, offline: misspelt fields are accepted by no parser."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.packaging.installed import ROOT

CONTAINERS = ROOT / "contrib/container"
OLDEST_KUBERNETES = "1.27"
"""Oldest version that the example is promised for; the newest is the last that the package knows."""


def compose_errors(document: Any) -> list[str]:
    """Return where a document is not as the Compose specification says, and why."""
    schema = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    validator = jsonschema.Draft202012Validator(json.loads(schema))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def kubernetes_errors(document: Any, version: str) -> list[str]:
    """Return the first place where an object is not as the API of this version says, and why; unknown fields count."""
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{error.json_path}: {error.message}"]
    return []


def compose() -> dict[str, Any]:
    """Return the Compose file."""
    document: dict[str, Any] = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())
    return document


def kubernetes() -> list[dict[str, Any]]:
    """Return the objects of the Kubernetes file."""
    return list(yaml.safe_load_all((CONTAINERS / "kubernetes.yaml").read_text()))


def with_value(document: Any, path: str, value: Any) -> Any:
    """Return a copy of a document with one value set; `path` has keys and indexes, separated by `/`."""
    changed = copy.deepcopy(document)
    *way, last = path.split("/")
    place = changed
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    place[last] = value
    return changed


def test_the_compose_file_is_as_the_specification_says() -> None:
    assert compose_errors(compose()) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("services/opengnscd/cap-drop", ["ALL"]),
        ("services/opengnscd/read_only", [True]),
        ("services/northwest/depends_on", {"opengnscd": {"conditions": "service_healthy"}}),
        ("service", {}),
    ],
)
def test_a_wrong_field_of_the_compose_file_is_found(path: str, value: Any) -> None:
    """A misspelt key at three depths, and a value of the wrong type."""
    word = path.split("/")[-1]
    assert any(word in error for error in compose_errors(with_value(compose(), path, value)))


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
def test_the_kubernetes_file_is_as_the_api_says(version: str) -> None:
    for document in kubernetes():
        assert kubernetes_errors(document, version) == []


@pytest.mark.parametrize(
    ("number", "path", "value"),
    [
        (0, "spec/template/spec/hostPid", True),
        (0, "spec/template/spec/containers/0/securityContext/runAsUser", "opengns"),
        (0, "spec/template/spec/containers/0/readinessProbe/exec/commands", ["opengnsc"]),
        (1, "spec/replica", 2),
    ],
)
def test_a_wrong_field_of_the_kubernetes_file_is_found(number: int, path: str, value: Any) -> None:
    """Misspelt keys at several depths, and a value of the wrong type."""
    (error,) = kubernetes_errors(with_value(kubernetes()[number], path, value), OLDEST_KUBERNETES)
    assert path.split("/")[-1] in error


def test_an_object_that_no_version_has_is_an_error() -> None:
    """A kind of another group of the API has no schema, and is not passed over."""
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_errors({**kubernetes()[0], "apiVersion": "batch/v1"}, OLDEST_KUBERNETES)
