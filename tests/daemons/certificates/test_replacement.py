"""Key and certificate on disk fit at every moment of a replacement."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from compass.daemons.certificates import replacement
from compass.daemons.certificates.replacement import replace_pair, write_problem
from compass.daemons.config.sections import TlsSettings
from compass.pki.authority import Credentials, create_authority, issue, write_credentials
from compass.pki.identity import Identity, load_identity
from compass.system.files import replace_file

NOW = datetime.now(UTC)


class Crash(Exception):
    """End of the process between two steps."""


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[TlsSettings, Credentials]:
    """Files of a host, and the pair that replaces them."""
    authority = create_authority("authority", NOW)
    old, new = (issue(authority, "host", "web1", (), NOW) for _ in range(2))
    write_credentials(tmp_path, "host", old)
    (tmp_path / "authority.crt").write_bytes(authority.certificate_pem)
    certificate, key, trust = (str(tmp_path / name) for name in ("host.crt", "host.key", "authority.crt"))
    return TlsSettings(certificate, key, trust), new


def loaded(settings: TlsSettings) -> Identity:
    return load_identity(Path(settings.key), Path(settings.certificate), Path(settings.authority), NOW)


def crash_after(steps: int) -> Callable[..., str]:
    """Return `replace_file`, which ends the process after a number of files."""
    left = [steps]

    def replace(*arguments: Any, **named: Any) -> str:
        if not left[0]:
            raise Crash
        left[0] -= 1
        return replace_file(*arguments, **named)

    return replace


@pytest.mark.parametrize("steps", range(4))
def test_the_files_fit_after_a_crash_at_any_step(
    pairs: tuple[TlsSettings, Credentials], monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Before the key is replaced the old certificate is used, and from then on the new one."""
    settings, new = pairs
    before = loaded(settings).certificate
    monkeypatch.setattr(replacement, "replace_file", crash_after(steps))
    if steps < 3:
        with pytest.raises(Crash):
            replace_pair(settings, new.key_pem, new.certificate_pem)
    else:
        replace_pair(settings, new.key_pem, new.certificate_pem)
    held = loaded(settings)
    assert (held.certificate == before) == (steps < 2)
    monkeypatch.undo()
    replace_pair(settings, new.key_pem, new.certificate_pem)
    assert Path(settings.certificate).read_bytes() == new.certificate_pem
    assert Path(settings.key).read_bytes() == new.key_pem
    assert Path(settings.key).stat().st_mode & 0o777 == 0o600


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Under the supplied units the key is a credential of systemd, which no process can replace."""
    (tmp_path / "tls").mkdir()
    settings = TlsSettings(str(tmp_path / "tls" / "host.crt"), "/proc/self/host.key", "")
    assert write_problem(settings) == "this daemon cannot write in /proc/self"
    assert write_problem(TlsSettings(settings.certificate, str(tmp_path / "tls" / "host.key"), "")) == ""
