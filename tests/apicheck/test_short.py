"""The quick form of `make api-check`: fewer requests, and without the phase that tries every boundary."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apicheck.check import check_host, check_server

EXAMPLES = 3
QUICK = ["--phases", "examples,fuzzing"]


def test_the_host_s_api_does_what_its_document_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Random requests, right and wrong ones: each answer has the status, type and shape that the document names."""
    assert check_host(tmp_path, EXAMPLES, QUICK) == 0, capfd.readouterr().out


def test_the_server_s_api_does_what_its_document_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Likewise over TLS, with a token."""
    assert check_server(tmp_path, EXAMPLES, QUICK) == 0, capfd.readouterr().out
