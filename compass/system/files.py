"""Files that are replaced in one step and keep what they are, and damaged files that are put out of the way.

A reader finds the old content or the new. The file stays where its links lead, and keeps its owner, group, attributes
and, unless the caller names a mode, its permissions. What cannot be replaced is written in place, and the caller learns
why: a mount point, a file with other hard links, a device or pipe, a file whose directory or owner does not allow it.

In a directory that everyone may write, a link or file of another user is not trusted: it is neither followed nor is its
owner kept, since it may have been put there to catch a secret or to redirect a write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

CORRUPT_MAX = 10
"""Damaged files kept for people to examine; after that the last one is replaced."""
LINKS_MAX = 40
"""Links that are followed to a file: the limit of Linux (path_resolution(7))."""
COPY_OCTETS = 1024 * 1024
"""Octets copied at a time into a file that is written in place."""
_KERNEL_FILES = "/proc/"
"""Links of the kernel lead to open files, not to names: /dev/stdout."""
_NOT_REPLACEABLE = {
    errno.EBUSY: "it is a mount point",
    errno.EXDEV: "it is a mount point",
    errno.EACCES: "its directory cannot be written",
    errno.EPERM: "its directory or its owner does not allow it",
    errno.EROFS: "its directory is read-only",
}
"""Reasons for writing a file in place, by the error of the attempt to replace it."""


def replace_file(
    path: Path,
    data: bytes,
    mode: int | None = 0o600,
    *,
    new_mode: int | None = None,
    like: Path | None = None,
    group: int | None = None,
    durable: bool = True,
) -> str:
    """Replace the content of `path`, after a power cut too if `durable`. Returns why the file was written in place, or
    what could not be kept; usually empty. Raises OSError.

    `mode` None: that of the file; of a new one `new_mode`, or what the process's umask leaves of 0666. `like`: another
    file that has the owner and the permissions.
    """
    with _replaced(path, _Attributes(mode, new_mode, like, group), durable=durable) as replacement:
        _write_all(replacement.descriptor, data)
    return replacement.reason


@contextlib.contextmanager
def replacing(path: Path, mode: int) -> Iterator[IO[str]]:
    """Open a file that replaces `path` when the block ends without an exception, durable by then. Raises OSError."""
    with (
        _replaced(path, _Attributes(mode)) as replacement,
        os.fdopen(replacement.descriptor, "w", encoding="utf-8", closefd=False) as file,
    ):
        yield file


def set_aside(path: Path, why: str = "corrupt") -> Path:
    """Rename a file that cannot be used to `STEM.corrupt-N`. Returns the new path, raises OSError."""
    for number in range(1, CORRUPT_MAX + 1):
        aside = path.with_name(f"{path.stem}.{why}-{number}")
        if not aside.exists():
            break
    path.replace(aside)
    return aside


def file_in_memory(data: bytes) -> IO[bytes]:
    """Return a file without a name, at its beginning: the whole input of a command, before the command runs."""
    file: IO[bytes] = os.fdopen(os.memfd_create("input", os.MFD_CLOEXEC), "w+b")
    file.write(data)
    file.flush()
    file.seek(0)
    return file


class _Attributes(NamedTuple):
    """Attributes that a caller wants; see `replace_file`."""

    mode: int | None
    new_mode: int | None = None
    like: Path | None = None
    group: int | None = None


class _Old(NamedTuple):
    """File that is there: its path behind all links, its status, and whether its owner is trusted."""

    path: Path
    status: os.stat_result
    is_trusted: bool


class _Replacement:
    """New content, in a temporary file next to the old one, or without a name if it is to be written in place."""

    def __init__(self, target: Path, descriptor: int, temporary: Path | None, reason: str) -> None:
        self.target = target
        self.descriptor = descriptor
        self.temporary = temporary
        self.reason = reason

    def commit(self, durable: bool) -> None:
        """Put the content into its place. Raises OSError."""
        if durable:
            os.fsync(self.descriptor)
        if self.temporary is not None:
            try:
                self.temporary.replace(self.target)
            except OSError as error:
                if error.errno not in _NOT_REPLACEABLE:
                    raise
                self.reason = _NOT_REPLACEABLE[error.errno]
            else:
                self.temporary = None
                if durable:
                    _sync_directory(self.target.parent)
                return
        _write_in_place(self.target, self.descriptor, durable=durable)

    def close(self) -> None:
        """Remove what is left of the temporary file."""
        os.close(self.descriptor)
        if self.temporary is not None:
            with contextlib.suppress(OSError):
                self.temporary.unlink()


@contextlib.contextmanager
def _replaced(path: Path, wanted: _Attributes, *, durable: bool = True) -> Iterator[_Replacement]:
    target = _behind_links(path)
    try:
        replacement = _begin(target, wanted)
        try:
            yield replacement
            replacement.commit(durable)
        finally:
            replacement.close()
    except OSError as error:
        # The temporary file's name means nothing to people.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _begin(target: Path, wanted: _Attributes) -> _Replacement:
    """Open a temporary file with the attributes of the old one, or one without a name if that is not possible."""
    old = _old(target)
    if old is not None and stat.S_ISDIR(old.status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    reason = _reason_to_write_in_place(target, old)
    if reason:
        return _Replacement(target, _nameless(), None, reason)
    model = old if wanted.like is None else _old(_behind_links(wanted.like))
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}")
    mode = _mode(wanted, model)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, 0o666 if mode is None else 0o600)
    except OSError as error:
        if error.errno not in _NOT_REPLACEABLE or old is None or not os.access(target, os.W_OK):
            raise
        return _Replacement(target, _nameless(), None, _NOT_REPLACEABLE[error.errno])
    replacement = _Replacement(target, descriptor, temporary, "")
    try:
        return _with_attributes(replacement, model, mode, wanted)
    except BaseException:
        replacement.close()
        raise


def _with_attributes(
    replacement: _Replacement, model: _Old | None, mode: int | None, wanted: _Attributes
) -> _Replacement:
    """Give the temporary file its attributes. If the process may not keep the owner, the file is written in place; if
    it may not do that either, the file gets the process's owner."""
    descriptor = replacement.descriptor
    if model is not None and model.is_trusted:
        _copy_extended(model.path, descriptor)
        if not _keep_owner(model.status, descriptor) and wanted.like is None:
            if os.access(replacement.target, os.W_OK):
                replacement.close()
                return _Replacement(replacement.target, _nameless(), None, "its owner cannot be kept otherwise")
            replacement.reason = "its owner could not be kept: the process may not set it"
    if wanted.group is not None:
        os.fchown(descriptor, -1, wanted.group)
    if mode is not None:
        os.fchmod(descriptor, mode)
    return replacement


def _mode(wanted: _Attributes, model: _Old | None) -> int | None:
    if wanted.mode is not None:
        return wanted.mode
    return stat.S_IMODE(model.status.st_mode) if model is not None and model.is_trusted else wanted.new_mode


def _behind_links(path: Path) -> Path:
    """Return the path of the file that `path` leads to. Raises OSError."""
    for _ in range(LINKS_MAX):
        try:
            link = path.lstat()
        except FileNotFoundError:
            return path
        if not stat.S_ISLNK(link.st_mode):
            return path
        if not _is_trusted(path, link):
            text = "is a link of another user in a directory that everyone may write; remove it"
            raise PermissionError(errno.EACCES, text, str(path))
        following = path.parent / path.readlink()
        if str(following).startswith(_KERNEL_FILES):
            return path
        path = following
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _old(path: Path) -> _Old | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return _Old(path, status, _is_trusted(path, status))


def _is_trusted(path: Path, status: os.stat_result) -> bool:
    """Return whether a file was put there by this user or by one that the directory belongs to."""
    directory = path.parent.stat()
    return not directory.st_mode & stat.S_IWOTH or status.st_uid in (os.geteuid(), directory.st_uid)


def _reason_to_write_in_place(target: Path, old: _Old | None) -> str:
    if old is None or not old.is_trusted:
        return ""
    if not stat.S_ISREG(old.status.st_mode) or stat.S_ISLNK(target.lstat().st_mode):
        return "it is no regular file"
    return "it has other hard links" if old.status.st_nlink > 1 else ""


def _keep_owner(old: os.stat_result, descriptor: int) -> bool:
    """Set owner and group; return whether the process may."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid):
        return True
    try:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    except PermissionError:
        return False
    return True


def _copy_extended(old: Path, descriptor: int) -> None:
    """Copy access lists and labels, as far as the file system and the process's rights allow."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(old):
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(old, name))


def _nameless() -> int:
    return os.memfd_create("replacement", os.MFD_CLOEXEC)


def _write_in_place(target: Path, source: int, *, durable: bool) -> None:
    """Overwrite a file, and restore its old content if that fails. Raises OSError."""
    is_regular = stat.S_ISREG(target.stat().st_mode)
    descriptor = os.open(target, (os.O_RDWR if is_regular else os.O_WRONLY) | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not is_regular:
            _copy(lambda at: os.pread(source, COPY_OCTETS, at), descriptor)
            return
        before = os.memfd_create("before", os.MFD_CLOEXEC)
        try:
            _copy(lambda at: os.pread(descriptor, COPY_OCTETS, at), before)
            try:
                _overwrite(descriptor, source)
            except OSError:
                _overwrite(descriptor, before)
                raise
        finally:
            os.close(before)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _overwrite(descriptor: int, source: int) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.ftruncate(descriptor, _copy(lambda at: os.pread(source, COPY_OCTETS, at), descriptor))


def _copy(read: Callable[[int], bytes], to: int) -> int:
    """Write all that `read` returns from an offset on. Returns the number of octets."""
    at = 0
    while data := read(at):
        _write_all(to, data)
        at += len(data)
    return at


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
