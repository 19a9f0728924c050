"""The deployments of real processes, as the end-to-end tests have them."""

from tests.e2e.conftest import authority, deploy, pytest_runtest_makereport

__all__ = ["authority", "deploy", "pytest_runtest_makereport"]
