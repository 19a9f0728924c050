"""Fixture of the tests with clients in other languages: a real daemon on a real file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compass.admin.shell.connection import IdentityFiles, Server
from compass.model.replies import CredentialIssued, Done
from compass.model.requests import Apply, IssueCredential
from tests.interop.administrator import administrator_of_new_server
from tests.interop.clients import ROOT, TIMEOUT_SECONDS
from tests.interop.world import CONFIGURATION, SERVICE, TOPOLOGY, World, certificates, free_port


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The seed's own world in small, served by a real daemon on a real file."""
    files = certificates(tmp_path)
    port = free_port()
    configuration = tmp_path / "opengnssd.toml"
    configuration.write_text(CONFIGURATION.format(directory=tmp_path, port=port))
    run = "from compass.daemons.main import server; server()"
    daemon = subprocess.Popen([sys.executable, "-c", run, "--config", str(configuration)], cwd=ROOT)
    try:
        identity = IdentityFiles(files["admin.crt"], files["admin.key"], files["authority.crt"])
        with administrator_of_new_server(Server("127.0.0.1", port), identity) as administrator:
            assert isinstance(administrator.ask(Apply(TOPOLOGY)), Done)
            issued = administrator.ask(IssueCredential(SERVICE))
            assert isinstance(issued, CredentialIssued)
            yield World(port, files, issued.token, administrator)
    finally:
        daemon.terminate()
        daemon.wait(TIMEOUT_SECONDS)
