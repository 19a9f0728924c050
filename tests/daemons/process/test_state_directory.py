"""`opengnscd --check` tries the state directory: without it a daemon would need a server at its next start."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compass.daemons.config.file import ConfigProblem
from compass.daemons.process.state_directory import ROOM_OCTETS, check_state_directory

CONFIG = Path("opengnscd.toml")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system without room."""
    if os.geteuid():
        pytest.skip("mounts a file system, which needs root")
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_OCTETS // 2}", "small", str(tmp_path)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_fails_the_check(small: Path) -> None:
    """The problem names the directory, the reason and what follows; nothing stays in the directory."""
    with pytest.raises(ConfigProblem) as problem:
        check_state_directory(CONFIG, small)
    assert f"state_directory: {small} cannot be written: No space left on device" in str(problem.value)
    assert list(small.iterdir()) == []


def test_a_directory_with_room_or_none_yet_passes(tmp_path: Path) -> None:
    """The daemon makes a directory that does not exist; a server has none."""
    for path in (tmp_path, tmp_path / "later", None):
        check_state_directory(CONFIG, path)
    assert list(tmp_path.iterdir()) == []
