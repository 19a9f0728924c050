"""`protocols/vectors.json` through the client in Perl, which knows messages from the tables of the text alone."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from compass.wire.messages import decode_from_client, decode_from_server
from tests.interop.clients import FOLDER, missing
from tests.wire import make_vectors
from tests.wire.link import plain

VECTORS: dict[str, Any] = json.loads(make_vectors.PATH.read_text())
PIECES = (65_536, 7, 1)
"""Octets that an end receives at once."""

WHY_NOT = missing("perl", "-MJSON::PP")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


@pytest.fixture(scope="module", params=PIECES)
def results(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what the client makes of the vectors, with modules of the core of Perl alone."""
    command = ["perl", str(FOLDER / "client.pl"), "--vectors", str(make_vectors.PATH), "--piece", str(request.param)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stderr) == (0, "")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def pairs(results: dict[str, Any], group: str) -> list[tuple[dict[str, Any], Any]]:
    """Return each vector of a group, of which there are some, with its result."""
    assert VECTORS[group]
    return list(zip(VECTORS[group], results[group], strict=True))


def test_every_group_of_vectors_is_read(results: dict[str, Any]) -> None:
    """A group that is added to the file is added to the client."""
    assert results.keys() == {name for name, value in VECTORS.items() if isinstance(value, list)}


@pytest.mark.parametrize("group", ["accepted", "variants"])
def test_frames_are_read_as_their_messages(results: dict[str, Any], group: str) -> None:
    """Each field that has not its default, and no other."""
    for vector, result in pairs(results, group):
        assert result["message"] == vector["message"], (vector["name"], result["problem"])
        assert result["number"] == vector["number"], vector["name"]


def test_what_is_written_there_is_read_here(results: dict[str, Any]) -> None:
    """ "A writer need not produce the very same octets, but readers MUST read what it produces as the same message."""
    for vector, result in pairs(results, "accepted"):
        octets = bytes.fromhex(result["written"])
        assert octets[:8] == len(octets[8:]).to_bytes(4, "big") + vector["number"].to_bytes(4, "big"), vector["name"]
        message: Any = (decode_from_client if vector["from"] == "client" else decode_from_server)(octets[8:])
        assert plain(message) == vector["message"], vector["name"]


def test_what_is_refused_is_refused_as_written(results: dict[str, Any]) -> None:
    """The code, the number and the fate of the session."""
    for vector, result in pairs(results, "refused"):
        expected = {name: vector[name] for name in ("code", "number", "session")}
        if vector["code"] is None:
            assert result.pop("number") is None
            del expected["number"]
        assert result == expected, vector["name"]


def test_parts_are_put_together(results: dict[str, Any]) -> None:
    """Nothing happens before the last part, then one message arrives."""
    for vector, result in pairs(results, "parts"):
        expected = {"early": 0, "more": 0, "number": vector["number"], "message": vector["message"]}
        assert result == expected, vector["name"]


def test_announcements_are_read_or_dropped(results: dict[str, Any]) -> None:
    """A `message` of null means that the datagram is dropped."""
    for vector, result in pairs(results, "announcements"):
        assert result == vector["message"], vector["name"]


def test_digests_are_equal(results: dict[str, Any]) -> None:
    """Canonical octets of rows, their BLAKE2b, and sums over rows and instances."""
    for vector, result in pairs(results, "digests"):
        assert result == {"octets": vector["octets"], "digest": vector["digest"]}, vector["row"]
    for group in ("sums", "instances"):
        for vector, result in pairs(results, group):
            assert result == vector["digest"], vector
