"""The generated parts of docs/reference are current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from compass.model.host_api import (
    CertificateStatus,
    CheckStatus,
    HostStatus,
    KnownServer,
    ReactionStatus,
    RegistrationStatus,
    UnansweredName,
)
from compass.model.replies import CategoryView, Dependencies, ServiceView
from compass.model.rows import Change
from tests.docs.pages import ROOT

PAGES = ("configuration.md", "opengnsadmin.md", "opengnsc.md", "tables.md")
SHOWN = {
    "Events of `/v1/watch`": (Dependencies, CategoryView, ServiceView, Change),
    "Fields of `/v1/status`": (
        HostStatus,
        RegistrationStatus,
        CheckStatus,
        KnownServer,
        ReactionStatus,
        CertificateStatus,
        UnansweredName,
    ),
}
"""Sections of the page of the HTTP APIs, and the structures whose fields they list."""


def test_generated_pages_are_current(tmp_path: Path) -> None:
    """Settings and commands are described as the programs describe them; `make man` writes the pages."""
    # In a process of its own: Click keeps with each command the width that its help was first formatted with.
    subprocess.run([sys.executable, ROOT / "contrib/make_reference.py", tmp_path], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == list(PAGES)
    for name in PAGES:
        current = (tmp_path / name).read_text()
        page = ROOT / "docs/reference" / name
        assert page.read_text() == current, f"docs/reference/{name} is not current: make man"


@pytest.mark.parametrize("heading", SHOWN)
def test_every_field_of_a_structure_is_in_its_table(heading: str) -> None:
    """Programs that read events and the status of a host need no `/openapi.json` to know what is there."""
    page = (ROOT / "docs/reference/http.md").read_text()
    (section,) = re.findall(rf"^### {re.escape(heading)}\n(.*?)^#", page, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`(\w+)`", section))
    for structure in SHOWN[heading]:
        missing = {field.name for field in msgspec.structs.fields(structure)} - named
        assert not missing, f"{structure.__name__}: {missing}"
