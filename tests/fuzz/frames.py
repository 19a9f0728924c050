"""Frames that no program sends on purpose, through both ends of a session (opengnsp.md, "Framing").

What is sent begins as something good: the frames of `protocols/vectors.json` and the examples of every message. Some
go as they are, some are wounded in the body, the header or a field, some are noise; then the stream is cut anywhere.
The invariant: whatever octets arrive in whatever pieces, `receive` returns events, in bounded memory, and what an end
answers is bounded by what it has received.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, get_args

import msgspec

from compass.model.replies import Done, Refusal, Reply
from compass.model.requests import Pull, Request
from compass.wire import limits, messages
from compass.wire.client_connection import ClientConnection
from compass.wire.connection import Connection
from compass.wire.events import (
    AcknowledgementReceived,
    Event,
    PushReceived,
    ReplyReceived,
    RequestReceived,
    SessionEnded,
    SessionOpened,
)
from compass.wire.frames import HEADER_LENGTH, frame
from compass.wire.messages import Hello, Notice, Welcome, encode
from compass.wire.server_connection import ServerConnection
from compass.wire.states import End
from tests.wire.examples import EXAMPLES, REGISTERED

VECTORS = Path(__file__).parents[2] / "protocols" / "vectors.json"
FRAME_MAX = 4096
"""Limit of the ends under test: small enough that streams reach it."""
FRAMES_PER_SESSION = 40
REUSE = 200
"""Number of times that a damaged body is sent, alone or with others, before a new one: a new one takes long to make."""
POOL = 5_000
ANSWER_OCTETS_MAX = 1_000
"""Octets that an end may answer to one frame: a refusal with its text."""
HELLO = frame(encode(Hello((1,), "fuzz")))
WELCOME = frame(encode(Welcome(1, "gns1", "store", 0, limits.FRAME_MAX_FROM_HOST)))
NOTICE = frame(encode(Notice(REGISTERED)))
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    2**64 - 1,
    -(2**63),
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "a.b",
    "\x00\x1b[2J\n",
    "é" * 50,
    "x" * 3000,
    b"\xff" * 9,
    [],
    [None] * 300,
    {},
    {"type": "hello"},
    {"row": "listener", "service": 1},
    [[[[[[[[]]]]]]]],
)
_HEADER = struct.Struct("!II")


def _members(union: Any) -> tuple[type, ...]:
    """The structs of a union, however it is nested."""
    return tuple(m for one in get_args(union) for m in (_members(one) or (one,)))


def _is_map(body: bytes) -> bool:
    try:
        return isinstance(msgspec.msgpack.decode(body), dict)
    except (ValueError, RecursionError):
        return False


REQUESTS = _members(Request)
REPLIES = _members(Reply)
PUSHED = _members(messages.Pushed)


def bodies(sender: End) -> list[bytes]:
    """Every body that this end may send, from the vectors (refused ones too) and from the examples."""
    vectors = json.loads(VECTORS.read_text())
    frames = [bytes.fromhex(entry["frame"]) for entry in vectors["accepted"] if entry["from"] == sender]
    frames += [bytes.fromhex(entry["frame"]) for entry in vectors["refused"] if entry["to"] != sender]
    found = [encode(example.message) for example in EXAMPLES if example.sender == sender]
    return sorted({*found, *(whole[HEADER_LENGTH:] for whole in frames)})


class Sender:
    """Makes streams for one receiving end from a seed."""

    def __init__(self, random: Random, sender: End) -> None:
        self.random = random
        self._good = bodies(sender)
        self._maps = [body for body in self._good if _is_map(body)]
        self._pool = [self._wounded() for _ in range(POOL)]
        self._sent = 0

    def stream(self, frames: int, numbers: list[int]) -> bytes:
        """Yield this number of frames; `numbers`: request numbers that the receiver expects, used up from the end."""
        out = []
        random = self.random
        for _ in range(frames):
            self._sent += 1
            if self._sent % REUSE == 0:
                self._pool[random.randrange(POOL)] = self._wounded()
            dice = random.random()
            body = random.choice(self._good if dice < 0.2 else self._pool)
            number = numbers.pop() if numbers and random.random() < 0.98 else random.choice((0, 0, 1, 7, 0xFFFFFFFF))
            if dice > 0.997:
                out.append(_HEADER.pack(random.getrandbits(random.choice((4, 12, 13, 32))), number) + body)
            elif dice > 0.996:
                out.append(random.randbytes(random.randrange(40)))
            else:
                out.append(_HEADER.pack(len(body), number) + body)
        return b"".join(out)

    def _wounded(self) -> bytes:
        """A body with something wrong in it, perhaps."""
        random = self.random
        body = bytearray(random.choice(self._good))
        kind = random.randrange(6)
        if kind == 0:
            for _ in range(random.randrange(1, 5)):
                if body:
                    body[random.randrange(len(body))] = random.getrandbits(8)
        elif kind == 1:
            del body[random.randrange(len(body) + 1) :]
        elif kind == 2:
            body += random.randbytes(random.randrange(1, 20))
        elif kind == 3:
            other = random.choice(self._good)
            body[random.randrange(len(body) + 1) :] = other[random.randrange(len(other) + 1) :]
        else:
            message = msgspec.msgpack.decode(random.choice(self._maps))
            for _ in range(random.randrange(1, 3)):
                message[random.choice([*message, "later"])] = self._odd(message)
            body = bytearray(msgspec.msgpack.encode(message))
        return bytes(body[: FRAME_MAX + 1])

    def _odd(self, message: dict[str, Any]) -> Any:
        if self.random.random() < 0.7:
            return self.random.choice(ODD)
        return self.random.choice(list(message.values()))


class Broken(AssertionError):
    """The invariant does not hold; the text has what is needed to see it again."""


class Session:
    """An end under fuzz, from its greeting to its end."""

    def __init__(self, random: Random, end: End) -> None:
        self.random = random
        self.end = end
        self.now = 1000.0
        self.frames = 0
        self.seen: Counter[str] = Counter()
        self.connection: Connection
        self.numbers: list[int] = []
        if end == "server":
            self.connection = _CountingServer(self.now, FRAME_MAX)
            first, self.numbers = HELLO, list(range(FRAMES_PER_SESSION * 2, 0, -1))
        else:
            self.connection = _CountingClient(self.now, "fuzz", FRAME_MAX)
            first = WELCOME
        if random.random() < 0.97:
            self.feed(first)
        if isinstance(self.connection, ClientConnection) and self.connection.state == "open":
            self.numbers = [self.connection.ask(Pull("a.b"), self.now) for _ in range(FRAMES_PER_SESSION)]
            self.numbers += [0] * (FRAMES_PER_SESSION // 4)
            random.shuffle(self.numbers)
        self.connection.bytes_to_send()

    def play(self, sender: Sender) -> None:
        """A stream in pieces; then, perhaps, time passes."""
        random = self.random
        stream = sender.stream(FRAMES_PER_SESSION, self.numbers)
        cuts = sorted(random.randrange(len(stream) + 1) for _ in range(random.randrange(8)))
        for begin, until in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            self.feed(stream[begin:until])
            self._speak()
        self.now += random.choice((0.0, 1.0, 100.0))
        self._check(self.connection.expire(self.now), 0, True)

    def feed(self, piece: bytes) -> None:
        """Give it to the end, and look at what became of it."""
        connection = self.connection
        was_over, before = connection.state == "ended", connection.octets_to_send
        frames = connection.met  # type: ignore[attr-defined]
        try:
            events = connection.receive(piece, self.now)
        except Exception as error:
            raise Broken(f"{self.end}: {piece.hex()} raised {error!r}") from error
        met = connection.met - frames  # type: ignore[attr-defined]
        self.frames += met
        if was_over and events:
            raise Broken(f"{self.end} is not deaf: {events!r}")
        held = connection._reader.held
        if connection.state != "ended" and held > HEADER_LENGTH + FRAME_MAX:
            raise Broken(f"{self.end} holds {held} octets")
        if connection.octets_to_send - before > ANSWER_OCTETS_MAX * (met + 1):
            raise Broken(f"{self.end} answers {met} frames with {connection.octets_to_send - before} octets")
        self._check(events, met, connection.state == "ended")

    def _check(self, events: list[Event], met: int, over: bool) -> None:
        """Each event is what its type says, and only the last one ends."""
        for index, event in enumerate(events):
            self.seen[type(event).__name__] += 1
            good = False
            match event:
                case RequestReceived(number, request):
                    good = self.end == "server" and number > 0 and isinstance(request, REQUESTS)
                case ReplyReceived(number, reply):
                    good = self.end == "client" and number > 0 and isinstance(reply, REPLIES)
                    if isinstance(reply, Refusal):
                        self.seen["Refusal"] += 1
                case PushReceived(message):
                    good = self.end == "client" and isinstance(message, PUSHED)
                case AcknowledgementReceived(acknowledge):
                    good = self.end == "server" and isinstance(acknowledge.revision, int)
                case SessionOpened(peer):
                    good = isinstance(peer, Hello if self.end == "server" else Welcome)
                case SessionEnded(reason):
                    good = index == len(events) - 1 and over and isinstance(reason, str)
            if not good:
                raise Broken(f"{self.end} gave {event!r} as number {index} of {len(events)}")

    def _speak(self) -> None:
        """Do what the end's own shell would do meanwhile: write, answer, push."""
        connection, random = self.connection, self.random
        connection.bytes_to_send()
        if isinstance(connection, ServerConnection):
            for number in list(connection._asked):
                if random.random() < 0.9:
                    connection.reply(number, Done(1), self.now)
            if random.random() < 0.2:
                connection.push(NOTICE, random.randrange(100), self.now)
        elif isinstance(connection, ClientConnection):
            connection.acknowledge(random.randrange(100))


class _CountingServer(ServerConnection):
    met = 0

    def _received(self, number: int, body: bytes, now: float) -> Event | None:
        self.met += 1
        return super()._received(number, body, now)


class _CountingClient(ClientConnection):
    met = 0

    def _received(self, number: int, body: bytes | bytearray, now: float, *, whole: bool = True) -> Event | None:
        self.met += whole
        return super()._received(number, body, now, whole=whole)


def run(seed: int, frames: int, report: Any = None) -> Counter[str]:
    """Send this number of frames through both ends. Returns what happened, counted; raises Broken."""
    random = Random(seed)
    ends: tuple[End, End] = ("server", "client")
    senders = {end: Sender(random, "client" if end == "server" else "server") for end in ends}
    seen: Counter[str] = Counter()
    told = 0
    while seen["frames"] < frames:
        for end in ends:
            session = Session(random, end)
            session.play(senders[end])
            seen.update(session.seen)
            seen["frames"] += session.frames
            seen["sessions"] += 1
        if report is not None and seen["frames"] >= told:
            told += 250_000
            report(seen)
    return seen
