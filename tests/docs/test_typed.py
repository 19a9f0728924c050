"""README and tutorials, typed command by command into a real bash, with the wheel installed and without the checkout.

`make wheel-check` types the tutorial once more from an empty environment, with `pip install` of the wheel.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import TYPED
from tests.docs.typing import SYSTEM_PATH, type_page
from tests.packaging.installed import built, installed

_numbers = count(1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Provide the PATH of an environment with the wheel."""
    directory = tmp_path_factory.mktemp("installed")
    programs = installed(built(directory), directory)
    return f"{programs}:{Path(sys.base_prefix) / 'bin'}:{SYSTEM_PATH}"


def marked(page: str) -> Any:
    """Mark the Chinese pages as long: `test_pages.py` shows that they type the same as the English ones."""
    return pytest.param(page, marks=pytest.mark.long) if ".zh." in page else page


@pytest.mark.parametrize("page", [marked(page) for page in TYPED])
def test_what_is_typed_gives_what_is_shown(page: str, path: str) -> None:
    """Every command of a page has the output that the page shows; parallel runs use other loopback addresses."""
    # A Unix socket's path has at most 107 octets, and `tmp_path` of a parallel run has most of them already.
    home = Path(tempfile.mkdtemp(prefix="typed-"))
    pid = os.getpid()
    network = f"127.{128 + next(_numbers) + 8 * ((pid >> 8) % 14)}.{pid % 256}."
    try:
        wrong = type_page(page, home, path, network)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    assert not wrong, "\n".join(wrong)
