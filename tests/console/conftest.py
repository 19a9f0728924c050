"""The console's tests look at deployments as the end-to-end tests do, with a browser beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.console.browser import Browser, browser
from tests.e2e.conftest import authority, deploy, deployment
from tests.e2e.deployment import Deployment

__all__ = ["authority", "deploy", "deployment", "window"]


@pytest.fixture
def window(deployment: Deployment) -> Iterator[Browser]:
    """A browser that takes the deployment's server for what it says it is."""
    with browser(deployment.directory / "gns1.example.net.crt") as window:
        yield window
