"""Identity of a running daemon: files that are replaced, dates that become wrong and right, and how often it logs."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from compass.daemons.config.sections import TlsSettings
from compass.daemons.net.live_identity import LOOK_SECONDS, LiveIdentity
from compass.pki.authority import Credentials, issue, write_credentials
from tests.pki.conftest import AUTHORITY, NOW


class Machine:
    """Files of a host's identity, and a clock that the test moves."""

    def __init__(self, directory: Path) -> None:
        self.clock: Any = Clock()
        self.files = write_credentials(directory, "own", made(10))
        trusted = directory / "authority.crt"
        trusted.write_bytes(AUTHORITY.certificate_pem)
        self.settings = TlsSettings(str(self.files.certificate), str(self.files.key), str(trusted))
        self.recovered = 0
        self._written = 0

    def now(self) -> Any:
        return NOW + timedelta(seconds=self.clock.seconds())

    def identity(self) -> LiveIdentity:
        live = Live(self)
        live.recovered.append(self._count)
        live.start()
        return live

    def put(self, *, certificate: bytes | None = None, key: bytes | None = None) -> None:
        """Replace files."""
        for path, content in ((self.files.certificate, certificate), (self.files.key, key)):
            if content is not None:
                path.write_bytes(content)
                self._written += 1
                os.utime(path, ns=(self._written, self._written))

    def pass_days(self, days: float) -> None:
        """Let time pass in steps of an hour; in each of them there is a look."""
        for _ in range(int(days * 24)):
            self.clock.advance(3600.0)

    def _count(self) -> None:
        self.recovered += 1


class Live(LiveIdentity):
    """Identity with the clock of the test."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(machine.clock, machine.settings, "host")

    def now(self) -> Any:
        return self.machine.now()


def made(days: int, name: str = "web1") -> Credentials:
    return issue(AUTHORITY, "host", name, [], NOW, days=days)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "tls")


@pytest.fixture
def logged() -> Any:
    lines: list[str] = []

    def observe(event: Any) -> None:
        if "live_identity" in str(event.get("log_namespace")):
            lines.append(str(event.get("text") or event.get("warning")))

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    yield lines
    globalLogPublisher.removeObserver(observer)


def test_a_coming_end_is_said_each_day_and_a_wrong_date_each_hour(machine: Machine, logged: list[str]) -> None:
    """The daemon runs all the time: only its clock shows the time."""
    live = machine.identity()
    machine.pass_days(5)
    days = [line.partition(" expires in ")[2].partition(" days")[0] for line in logged]
    assert days == ["10", "9", "8", "7", "6", "5"]
    del logged[:]
    machine.pass_days(5.1)
    assert "expired on" in logged[-1] and live.problems()
    del logged[:]
    machine.clock.pump([60.0] * 180)
    assert len(logged) == 3, "three hours of a wrong date"


def test_replaced_files_are_used_without_a_restart(machine: Machine, logged: list[str]) -> None:
    """The old certificate may have ended: the next connection has the new one, and the daemon tries at once."""
    live = machine.identity()
    machine.pass_days(10.1)
    assert live.problems()
    new = made(400)
    machine.put(certificate=new.certificate_pem, key=new.key_pem)
    machine.clock.advance(2.0)
    assert live.problems() == () and machine.recovered == 1
    assert live.current().certificate.not_valid_after_utc == NOW + timedelta(days=400)
    assert any("was replaced: new connections use it" in line for line in logged)


def test_files_that_do_not_fit_yet_are_not_reported(machine: Machine, logged: list[str]) -> None:
    """The certificate and its key are replaced one after the other; only what stays so is a mistake."""
    live, new = machine.identity(), made(400)
    del logged[:]
    machine.put(certificate=new.certificate_pem)
    machine.clock.advance(LOOK_SECONDS)
    assert logged == [] and live.current().certificate.not_valid_after_utc == NOW + timedelta(days=10)
    machine.clock.advance(LOOK_SECONDS)
    assert len(logged) == 1 and "new files cannot be used" in logged[0] and "is not the key of" in logged[0]
    machine.put(key=new.key_pem)
    machine.clock.advance(LOOK_SECONDS)
    assert live.current().certificate.not_valid_after_utc == NOW + timedelta(days=400)


@pytest.mark.parametrize(("days", "name", "why"), [(1, "web1", "expired on"), (400, "web2", "is for 'web2'")])
def test_worse_files_do_not_replace_good_ones(
    machine: Machine, logged: list[str], days: int, name: str, why: str
) -> None:
    """An expired certificate in place of a valid one, or that of another host, is reported and not used."""
    live = machine.identity()
    machine.pass_days(2)
    del logged[:]
    new = made(days, name)
    machine.put(certificate=new.certificate_pem, key=new.key_pem)
    machine.clock.advance(LOOK_SECONDS)
    machine.clock.advance(LOOK_SECONDS)
    assert any("new files cannot be used" in line and why in line for line in logged)
    assert live.current().certificate.not_valid_after_utc == NOW + timedelta(days=10)


def test_a_clock_that_becomes_right_is_noticed(machine: Machine, logged: list[str]) -> None:
    """The daemon starts before the begin of its certificate, and tries again as soon as it may."""
    machine.clock.advance(-7200)
    live = machine.identity()
    assert "set the clock" in live.problems()[0] and machine.recovered == 0
    machine.clock.rightNow += 7200
    machine.clock.advance(2.0)
    assert live.problems() == () and machine.recovered == 1
    assert "all certificates of this daemon are valid now" in logged


def test_a_refusal_by_the_peer_names_the_own_certificate(machine: Machine) -> None:
    """The text has the file, since when, and that a newer one lies there."""
    live = machine.identity()
    machine.pass_days(10.1)
    text = live.refused("certificate expired")
    assert f"in {machine.files.certificate} expired on" in text and "opengnsadmin tls host" in text
    new = made(400)
    machine.put(certificate=new.certificate_pem, key=new.key_pem)
    assert "has been replaced meanwhile, and the next connection uses it" in live.refused("certificate expired")
    machine.clock.advance(0)
    assert machine.recovered == 1
