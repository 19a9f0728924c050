"""Fuzzing that looks where it gets to: `make fuzz TARGET=frames SECONDS=60`, with atheris (libFuzzer for Python).

Atheris is no dependency of the project, because it has no wheel for every Python: `pip install atheris` (3.11 has
one). Without it this program says so and ends with status 3. The targets are the readers of octets that others wrote;
the invariants are those of the other fuzzers. What it finds is left in the directory it is run in, as `crash-…`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

EXIT_NO_ATHERIS = 3
ADVICE = """atheris is not installed for this Python, so nothing was fuzzed.
Install it into the project's environment and try again:  .venv/bin/pip install atheris
(it has wheels for some versions of Python only; 'make fuzz-long' and 'make test' fuzz without it)"""

try:
    import atheris
except ImportError:
    print(ADVICE, file=sys.stderr)
    sys.exit(EXIT_NO_ATHERIS)

with atheris.instrument_imports(include=["compass"]):
    from compass.admin.topology import file
    from compass.agent.registration import journal
    from compass.agent.replica import disk_cache
    from compass.daemons.config.file import ConfigProblem
    from compass.daemons.config.reader import read_host_config
    from compass.wire import limits
    from compass.wire.client_connection import ClientConnection
    from compass.wire.frames import frame
    from compass.wire.server_connection import ServerConnection
    from tests.fuzz import frames, test_files
    from tests.wire.link import HELLO, WELCOME, asked

NOW = 1000.0
SCRATCH = Path(tempfile.mkdtemp(prefix="compass-fuzz-"))


def one_frame_stream(data: bytes) -> None:
    """The same octets to both ends after a good greeting; no exception, little held."""
    server = ServerConnection(NOW, limits.FRAME_MAX_FROM_HOST)
    client = ClientConnection(NOW, "fuzz")
    server.receive(HELLO, NOW)
    client.receive(WELCOME, NOW)
    asked(client, 8)
    for end in (server, client):
        end.receive(data, NOW)
        assert end._reader.held <= len(data)
        end.expire(NOW + 1000)


def one_topology(data: bytes) -> None:
    """Read, or refused with mistakes."""
    try:
        file.parse(data.decode("utf-8", "replace"))
    except file.TopologyProblem as problem:
        assert problem.mistakes


def one_config(data: bytes) -> None:
    """Read, or refused with problems."""
    path = SCRATCH / "opengnscd.toml"
    path.write_bytes(data)
    try:
        read_host_config(path)
    except ConfigProblem as problem:
        assert problem.problems


def one_cache(data: bytes) -> None:
    """Yield the octets as they are, and once with a true checksum."""
    test_files.checked_cache(data)
    test_files.checked_cache(test_files.sealed(data))


def one_book(data: bytes) -> None:
    """Read, or refused."""
    try:
        journal._unpacked(data)
    except (ValueError, RecursionError):
        return


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "frames": (
        one_frame_stream,
        lambda: [frame(body, 1) for body in (*frames.bodies("client"), *frames.bodies("server"))],
    ),
    "topology": (one_topology, lambda: [test_files.TOPOLOGY.encode()]),
    "config": (one_config, lambda: [text.encode() for text in test_files.TOMLS]),
    "cache": (one_cache, lambda: [*test_files.CONTENTS, test_files.CONTENTS[0][disk_cache._HEADER.size :]]),
    "book": (one_book, lambda: [test_files.BOOK]),
}
"""Targets that read octets, and what each begins with."""


def main() -> None:
    """`python -m tests.fuzz.coverage_guided TARGET [SECONDS]`."""
    name, seconds = (*sys.argv[1:3], "60")[:2] if len(sys.argv) > 1 else ("", "60")
    if name not in TARGETS:
        sys.exit(f"name one of: {', '.join(TARGETS)}")
    target, corpus = TARGETS[name]
    seeds = SCRATCH / name
    seeds.mkdir()
    for number, data in enumerate(corpus()):
        (seeds / str(number)).write_bytes(data)
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-max_len=8192", "-rss_limit_mb=2048", str(seeds)], target
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
