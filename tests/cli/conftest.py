"""Fixtures of the client library, which `opengnsc` uses."""

from tests.client.conftest import api, port, start  # noqa: F401
