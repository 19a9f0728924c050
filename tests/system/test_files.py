"""Files that are replaced in one step: they keep what they are, and an unfinished write leaves the old content."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compass.system.files import CORRUPT_MAX, LINKS_MAX, replace_file, replacing, set_aside

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and owners need root")
SOMEONE = 65534


def by_text(path: Path, data: bytes, mode: int = 0o600) -> str:
    """`replacing` as the other function."""
    with replacing(path, mode) as file:
        file.write(data.decode())
    return ""


@pytest.fixture
def mounts() -> Iterator[Callable[[Path, Path], None]]:
    """Bind mounts of files, unmounted after the test."""
    made: list[Path] = []

    def mount(source: Path, target: Path, *options: str) -> None:
        done = subprocess.run(["mount", "--bind", source, target], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"this machine allows no mounts: {done.stderr.decode()}")
        made.append(target)

    yield mount
    for target in reversed(made):
        subprocess.run(["umount", target], check=True)


def test_a_full_row_of_damaged_files(tmp_path: Path) -> None:
    """Damaged files are kept up to a number; then the last one is replaced."""
    for _ in range(CORRUPT_MAX + 2):
        (tmp_path / "x.json").write_text("")
        set_aside(tmp_path / "x.json")
    assert len(list(tmp_path.iterdir())) == CORRUPT_MAX


def test_the_old_content_stays_until_the_new_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that cannot be finished leaves what was there and nothing else; the error names the file."""
    path = tmp_path / "x.json"
    replace_file(path, b"old")

    def fail(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*/x\.json'"):
        replace_file(path, b"new")
    monkeypatch.undo()
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


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


@pytest.mark.parametrize("write", [replace_file, by_text])
def test_links_are_followed(tmp_path: Path, write: Callable[..., str]) -> None:
    """Relative, absolute, several in a row, and one that leads to no file yet; each stays a link."""
    (tmp_path / "available").mkdir()
    (tmp_path / "enabled").mkdir()
    real = tmp_path / "available" / "x"
    links = [tmp_path / "enabled" / name for name in ("a", "b", "c")]
    links[0].symlink_to("../available/x")
    links[1].symlink_to(links[0])
    links[2].symlink_to("b")
    for number, link in enumerate(links):
        write(link, b"%d" % number)
        assert (real.read_bytes(), real.is_symlink(), link.is_symlink()) == (b"%d" % number, False, True)
    assert len(list(tmp_path.rglob("*"))) == 6


@pytest.mark.parametrize(("count", "fits"), [(LINKS_MAX - 1, True), (LINKS_MAX, False)])
def test_links_without_end_are_an_error(tmp_path: Path, count: int, fits: bool) -> None:
    """A loop, and one more than LINKS_MAX allows."""
    (tmp_path / "0").write_text("old")
    for number in range(count):
        (tmp_path / str(number + 1)).symlink_to(str(number))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels") as failed:
        replace_file(tmp_path / "loop", b"")
    assert failed.value.errno == errno.ELOOP
    if fits:
        replace_file(tmp_path / str(count), b"new")
    else:
        with pytest.raises(OSError, match="Too many levels"):
            replace_file(tmp_path / str(count), b"new")
    assert (tmp_path / "0").read_text() == ("new" if fits else "old")


@pytest.mark.parametrize(
    ("mode", "new_mode", "there", "expected"),
    [
        (0o600, None, 0o644, 0o600),
        (None, 0o644, 0o640, 0o640),
        (None, 0o644, None, 0o644),
        (None, None, None, 0o666 & ~0o027),
        (None, None, 0o600, 0o600),
    ],
)
def test_modes(tmp_path: Path, mode: int | None, new_mode: int | None, there: int | None, expected: int) -> None:
    """The mode is what the caller names, else what is there, else that of new files, else what the umask leaves."""
    path = tmp_path / "x"
    if there is not None:
        path.touch()
        path.chmod(there)
    before = os.umask(0o027)
    try:
        replace_file(path, b"new", mode, new_mode=new_mode)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == expected


@ROOT
@pytest.mark.parametrize("write", [replace_file, by_text])
def test_owner_and_group_stay(tmp_path: Path, write: Callable[..., str]) -> None:
    path = tmp_path / "x"
    path.touch()
    os.chown(path, SOMEONE, 7)
    write(path, b"new")
    status = path.stat()
    assert (status.st_uid, status.st_gid, path.read_bytes()) == (SOMEONE, 7, b"new")


@ROOT
def test_a_file_of_another_user_is_written_in_place_without_root(tmp_path: Path) -> None:
    """The process may not set the owner: in place it stays. Without the right to write the file, it is replaced."""
    for mode, expected in ((0o666, "cannot be kept otherwise 0"), (0o644, f"could not be kept {SOMEONE}")):
        directory = tmp_path / oct(mode)
        directory.mkdir()
        path = directory / "x"
        path.touch()
        path.chmod(mode)
        os.chown(directory, SOMEONE, SOMEONE)
        code = (
            f"import os, sys; sys.path[:0] = {sys.path!r}; from pathlib import Path\n"
            "from compass.system.files import replace_file\n"
            f"os.chdir({str(directory)!r}); os.setgroups([]); os.setgid({SOMEONE}); os.setuid({SOMEONE})\n"
            f"print(replace_file(Path('x'), b'new', None), os.stat('x').st_uid)"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        for part in expected.rsplit(" ", 1):
            assert part in run.stdout, run.stderr
        assert (path.read_bytes(), list(directory.iterdir())) == (b"new", [path])


@ROOT
@pytest.mark.parametrize("write", [replace_file, by_text])
def test_a_mount_point_is_written_in_place(
    tmp_path: Path, mounts: Callable[[Path, Path], None], write: Callable[..., str]
) -> None:
    """The same as a container's configuration is: longer and shorter contents, and nothing is left lying."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.write_text("old")
    inside.touch()
    mounts(outside, inside)
    for data in (b"a longer content than before", b"s"):
        note = write(inside, data)
        assert (outside.read_bytes(), inside.read_bytes()) == (data, data)
    assert write is by_text or note == "it is a mount point"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "outside"]


@ROOT
def test_a_mount_that_is_read_only_is_an_error_that_names_it(
    tmp_path: Path, mounts: Callable[[Path, Path], None]
) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.write_text("old")
    inside.touch()
    mounts(outside, inside)
    subprocess.run(["mount", "-o", "remount,bind,ro", inside], check=True)
    with pytest.raises(OSError, match=r"Read-only file system: '.*/inside'"):
        replace_file(inside, b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "outside"]


@ROOT
def test_a_file_in_a_read_only_directory_is_written_in_place(
    tmp_path: Path, mounts: Callable[[Path, Path], None]
) -> None:
    """A writable file mounted into a read-only root, as in a container."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    (root / "x").touch()
    outside.write_text("old")
    mounts(root, root)
    mounts(outside, root / "x")
    subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
    assert replace_file(root / "x", b"new") == "its directory is read-only"
    assert outside.read_text() == "new"


def test_what_is_no_file_of_its_own_is_written_in_place(tmp_path: Path) -> None:
    """Other hard links have the content too; a device and a pipe stay what they are; a directory is an error."""
    path, other = tmp_path / "x", tmp_path / "y"
    path.write_text("old")
    os.link(path, other)
    assert replace_file(path, b"new") == "it has other hard links"
    assert other.read_text() == "new"
    assert replace_file(Path("/dev/null"), b"new") == "it is no regular file"
    assert Path("/dev/null").is_char_device()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path, b"")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from pathlib import Path; from compass.system.files import replace_file\n"
            "replace_file(Path('/dev/stdout'), b'shown')",
        ],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout == b"shown"


def test_a_failed_write_in_place_restores_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is not all or nothing, but as near as can be."""
    path = tmp_path / "x"
    path.write_text("old content")
    os.link(path, tmp_path / "y")
    usual = os.write
    calls: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        calls.append(bytes(data))
        if len(calls) == 3:
            usual(descriptor, bytes(data)[:2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return usual(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    monkeypatch.undo()
    assert path.read_text() == "old content"


@ROOT
@pytest.mark.parametrize("write", [replace_file, by_text])
def test_in_a_directory_of_everyone_nothing_of_others_is_trusted(tmp_path: Path, write: Callable[..., str]) -> None:
    """A link that leads elsewhere, a file whose owner would read a secret, a hard link to another file."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    victim = tmp_path / "victim"
    victim.write_text("victim")
    (shared / "link").symlink_to(victim)
    os.chown(shared / "link", SOMEONE, SOMEONE, follow_symlinks=False)
    with pytest.raises(PermissionError, match="link of another user"):
        write(shared / "link", b"secret")
    (shared / "caught").touch()
    (shared / "caught").chmod(0o666)
    os.chown(shared / "caught", SOMEONE, SOMEONE)
    write(shared / "caught", b"secret", 0o600)
    status = (shared / "caught").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
    os.chown(victim, SOMEONE, SOMEONE)
    os.link(victim, shared / "hard")
    write(shared / "hard", b"secret")
    assert victim.read_text() == "victim"


@ROOT
def test_attributes_stay(tmp_path: Path) -> None:
    """Access lists and labels, as far as the file system has them."""
    path = tmp_path / "x"
    path.touch()
    try:
        os.setxattr(path, "user.label", b"mine")
    except OSError as error:
        pytest.skip(f"the file system has none: {error}")
    replace_file(path, b"new")
    assert os.getxattr(path, "user.label") == b"mine"


def test_a_socket_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        with pytest.raises(OSError, match="No such device"):
            replace_file(path, b"")
        assert path.is_socket()
