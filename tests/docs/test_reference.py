"""The generated parts of docs/reference are current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from compass.model.host_api import CertificateStatus, HostStatus, KnownServer, RegistrationStatus, UnansweredName
from tests.docs.pages import ROOT

PAGES = ("configuration.md", "opengnsadmin.md", "opengnsc.md", "tables.md")


def test_generated_pages_are_current(tmp_path: Path) -> None:
    """Settings and commands are described as the programs describe them; `make man` writes the pages."""
    # In a process of its own: Click keeps with each command the width that its help was first formatted with.
    subprocess.run([sys.executable, ROOT / "contrib/make_reference.py", tmp_path], check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == list(PAGES)
    for name in PAGES:
        current = (tmp_path / name).read_text()
        page = ROOT / "docs/reference" / name
        assert page.read_text() == current, f"docs/reference/{name} is not current: make man"


@pytest.mark.parametrize("kind", [HostStatus, RegistrationStatus, KnownServer, CertificateStatus, UnansweredName])
def test_the_page_names_each_field_of_the_host_s_status(kind: type[msgspec.Struct]) -> None:
    """The table under "Fields of `/v1/status`" has all of them, and of their parts."""
    _, _, text = (ROOT / "docs/reference/http.md").read_text().partition("### Fields of `/v1/status`")
    table = text.partition("\n### ")[0]
    missing = [field for field in kind.__struct_fields__ if f"`{field}`" not in table]
    assert not missing
