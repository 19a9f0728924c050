"""The quick form of `python -m tests.fuzz`: the same fuzzers, another seed and a thousandth of the time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import dns, frames, http, opengnsp_requests
from tests.fuzz.http_server import ServerApi

SEED = 20


def test_frames() -> None:
    """Whatever octets arrive in whatever pieces, both ends give events in bounded memory and say little to it."""
    seen = frames.run(SEED, 40_000)
    events = ("RequestReceived", "ReplyReceived", "PushReceived", "AcknowledgementReceived", "SessionEnded", "Refusal")
    assert min(seen[name] for name in events) > 100, seen


def test_http_requests(tmp_path: Path) -> None:
    """No request to the host's API fails inside, what is a request is answered, and every status was meant."""
    seen = http.run(SEED, 3_000, tmp_path)
    assert {"status 200", "status 202", "status 400", "status 404", "status 413"} <= seen.keys(), seen


def test_http_requests_to_a_server(tmp_path: Path) -> None:
    """Nor any request to the server's API; and the store is what the server believes."""
    seen = http.run(SEED, 2_000, tmp_path, kind=ServerApi)
    assert {f"status {status}" for status in (200, 400, 401, 403, 404, 422)} <= seen.keys(), seen


def test_dns_packets() -> None:
    """Whatever packet comes, nothing fails inside, and every answer is one that a strict parser reads."""
    seen = dns.run(SEED, 6_000)
    outcomes = ("NOERROR", "NXDOMAIN", "REFUSED", "FORMERR", "NOTIMP", "BADVERS", "silence")
    assert min(seen[name] for name in outcomes) > 20, seen


def test_questions_to_a_server(tmp_path: Path) -> None:
    """Requests of every type with hostile values: all answered, none a failure, and the store is what is believed."""
    seen = opengnsp_requests.run(SEED, 3_000, tmp_path)
    for kind in ("Register Registered", "Put Done", "Apply invalid-topology", "Watch Watching", "Status ServerStatus"):
        assert seen[kind], kind


def test_a_fuzzer_that_finds_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An end that raises, an API that fails and a server that fails are all found: the fuzzers are not blind."""

    def broken(*_: object) -> None:
        raise KeyError("planted")

    with monkeypatch.context() as planted:
        planted.setattr("compass.wire.server_connection.ServerConnection._acknowledged", broken)
        with pytest.raises(frames.Broken, match="planted"):
            frames.run(SEED, 5_000)
    with monkeypatch.context() as planted:
        planted.setattr("compass.agent.local_api.LocalApi.resolve", broken)
        with pytest.raises(http.Broken, match=r"planted|500"):
            http.run(SEED, 1_000, tmp_path)
    with monkeypatch.context() as planted:
        planted.setattr("compass.gateway.dns.zone.Zone._apex", broken)
        with pytest.raises(dns.Broken, match="planted"):
            dns.run(SEED, 1_000)
    with monkeypatch.context() as planted:
        planted.setattr("compass.gateway.dns.messages._QUESTION_AT", b"\xc0\xff")
        with pytest.raises(dns.Broken, match="which is no message"):
            dns.run(SEED, 1_000)
    with monkeypatch.context() as planted:
        planted.setattr("compass.server.queries.status.StatusReporter.status", broken)
        with pytest.raises(http.Broken, match=r"log says how|planted"):
            opengnsp_requests.run(SEED, 1_000, tmp_path / "server")


def test_coverage_guided_fuzzing_without_its_library_says_what_to_do() -> None:
    """atheris is optional, and the output says so when nothing was fuzzed."""
    program = "import runpy, sys; sys.modules['atheris'] = None; runpy.run_module('tests.fuzz.coverage_guided')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert "nothing was fuzzed" in ended.stderr and "pip install atheris" in ended.stderr
