"""Fixtures of the console's tests: deployments as in the end-to-end tests, and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.console.browser import Browser, browser
from tests.e2e.conftest import authority, deploy, deployment
from tests.e2e.deployment import Deployment

__all__ = ["authority", "deploy", "deployment", "window"]


@pytest.fixture
def window(deployment: Deployment) -> Iterator[Browser]:
    """Open a browser that trusts the deployment's server."""
    with browser(deployment.directory / "gns1.example.net.crt") as window:
        yield window
