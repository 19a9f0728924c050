"""Files that are replaced in one step: an unfinished write leaves the old content, damaged files are bounded."""

from pathlib import Path

import pytest

from compass.system.files import CORRUPT_MAX, replace_file, replacing, set_aside


def test_a_full_row_of_damaged_files(tmp_path: Path) -> None:
    """Damaged files are kept up to a number; then the last one is replaced."""
    for _ in range(CORRUPT_MAX + 2):
        (tmp_path / "x.json").write_text("")
        set_aside(tmp_path / "x.json")
    assert len(list(tmp_path.iterdir())) == CORRUPT_MAX


def test_the_old_content_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    """A write that cannot be finished leaves what was there."""
    path = tmp_path / "x.json"
    replace_file(path, b"old")
    (tmp_path / "x.json.new").mkdir()
    with pytest.raises(OSError, match=r"x\.json\.new"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_block_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    """A file that is open while its content is made replaces the old one only when the block succeeds."""
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path, 0o600) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path, 0o640) as file:
        file.write("new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]
