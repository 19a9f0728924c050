"""Digests of histories: two trees that behave alike give the same ones, however their classes and modules are called.

An event is encoded as JSON: field names and tags of the histories and of the wire, and no names of Python. Wording is
left out, so that a sentence may be corrected: causes, texts of alerts, descriptions of faults. A second digest of each
history includes the wording. The length of a message moves the moments at which others arrive, so after a change of
wording compare histories of a network that ignores lengths (`--any-wording`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from tests.histories.events import Event
from tests.simulation.network import Network

WORDING = frozenset({"cause", "text", "what", "problem"})
"""Fields with sentences for people. Whether they are empty is part of a history; the sentence is not."""
HASH_SEED = "1"
"""PYTHONHASHSEED of every run that prints digests. Two credentials of a service that expire in one transaction get
their revisions in the order of a map, which follows the hashes of strings: seeds 117 and 232 have such a rotation."""
PIECE_OCTETS = 128
"""Size of every piece in the buffers of a network that ignores lengths: a small message's."""


class Digests(msgspec.Struct, frozen=True):
    """SHA-256 of one history, hexadecimal: without its wording, and with it."""

    events: int
    plain: str
    worded: str

    def line(self, seed: int) -> str:
        """Return the line in the file with all seeds."""
        return f"{seed} {self.events} {self.plain} {self.worded}\n"


def digests_of(history: Iterable[Event]) -> Digests:
    """Both digests of a history."""
    plain, worded, count = sha256(), sha256(), 0
    encoder = msgspec.json.Encoder(order="deterministic")
    for event in history:
        count += 1
        value = msgspec.to_builtins(event)
        worded.update(encoder.encode(value) + b"\n")
        plain.update(encoder.encode(_without_wording(value)) + b"\n")
    return Digests(count, plain.hexdigest(), worded.hexdigest())


def _without_wording(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: bool(held) if key in WORDING else _without_wording(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_without_wording(held) for held in value]
    return value


def summary(played: dict[int, Digests]) -> str:
    """Return the digest of all histories, in the order of their seeds."""
    lines = sorted(played.items())
    plain = sha256("".join(f"{seed} {one.plain}\n" for seed, one in lines).encode()).hexdigest()
    worded = sha256("".join(f"{seed} {one.worded}\n" for seed, one in lines).encode()).hexdigest()
    events = sum(one.events for one in played.values())
    return f"digest of {len(played)} histories ({events} events): {plain}\nwith their wording: {worded}"


def write(played: dict[int, Digests], path: Path) -> None:
    """Return a line for each seed: seed, number of events, digest without wording, digest with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(one.line(seed) for seed, one in sorted(played.items())))


@contextmanager
def lengths_ignored() -> Iterator[None]:
    """Play campaigns on networks where the length of a message decides neither when it arrives nor who is slow."""
    network: Any = Network
    pieces, size = network.pieces, network.size
    network.pieces, network.size = _cut_after_the_first_octet, lambda self, piece: PIECE_OCTETS
    try:
        yield
    finally:
        network.pieces, network.size = pieces, size


def _cut_after_the_first_octet(network: Network, data: bytes, random: Random) -> list[bytes]:
    whole = random.random() > network.split
    return [data] if whole or len(data) < 2 else [data[:1], data[1:]]
