"""Generator of `protocols/vectors.json`: `python -m tests.wire.make_vectors`.

The accepted vectors are `tests/wire/examples.py` as this program encodes them. Variants and refusals are written octet
by octet or from plain maps, never by the program's own encoder, which could not make them. Run it after a change of the
protocol, and read the difference: a changed line of an old vector is a broken promise (P13).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from compass.model.catalogue.digest import canonical, digest_of_rows, instance_digest, row_digest, to_hex
from compass.model.limits import EPOCH_MAX, PORT_MAX
from compass.model.rows import Category, Listener
from compass.wire import limits
from compass.wire.announcement import MAGIC
from compass.wire.frames import frame
from compass.wire.messages import encode
from tests.wire.examples import ALERT, CATEGORY, CREDENTIAL, DEPENDENCY, EXAMPLES, HOST, LISTENER, SERVICE, SIX

PATH = Path(__file__).parents[2] / "protocols" / "vectors.json"
ABOUT = (
    "OpenGNSP version 1 in frames. 'accepted': 'frame' (hexadecimal) and 'message' (MessagePack as JSON; fields that "
    "have their default are left out, octets are base64) are equivalent; 'from' names the end that sends it. "
    "'variants': other octets that a reader must read as 'message'. 'refused': a session in which the reading end "
    "'to' has received 'before' from its peer (and, when the client reads, has sent 'asked' requests, numbered from "
    "1) and then receives 'frame'; a server has answered no request of 'before'. 'code' and 'number' are those of the "
    "refusal that a server sends for it (null: it sends nothing); a client sends none, and its request 'number' is "
    "refused with the code; 'session' is the state afterwards: 'alive' or 'ended'. The server accepts bodies of "
    "'server_frame_max' octets, the client of 'client_frame_max'. A 'frame' may end before its body does. "
    "'announcements': UDP datagrams; a 'message' of null means that the 'datagram' is dropped. 'parts': a client that "
    "has sent 'asked' requests, numbered from 1, receives 'frames' after a welcome; each is the frame of a part "
    "('octets' in hexadecimal) with the request number 'number', and together they are 'message'. 'digests': 'octets' "
    "are the canonical octets of 'row', 'digest' is their BLAKE2b; 'sums': 'digest' is the digest of the rows of "
    "'digests' at the indexes 'rows'; 'instances': 'digest' is that of what a host holds."
)
Plain = dict[str, Any]
_pack = msgspec.msgpack.encode


def accepted() -> list[Plain]:
    """Every example with its frame."""
    return [
        {
            "name": example.name,
            "from": example.sender,
            "number": example.number,
            "message": msgspec.to_builtins(example.message),
            "frame": frame(encode(example.message), example.number).hex(),
        }
        for example in EXAMPLES
    ]


def variants() -> list[Plain]:
    """Frames that no encoder of ours makes and every reader takes."""
    pull = {"type": "pull", "service": "portal.web"}
    watch = {"type": "watch", "services": ["portal.web"]}
    policy = {"row": "category", "name": "web", "policy": {"probe_attempts": 3, "colour": "red"}}
    kept = {"row": "category", "name": "web", "policy": {"probe_attempts": 3}}

    def variant(name: str, sender: str, number: int, message: Plain, body: bytes) -> Plain:
        return {
            "name": name,
            "from": sender,
            "number": number,
            "message": message,
            "frame": frame(body, number).hex(),
        }

    return [
        variant("an unknown field is skipped", "client", 1, pull, _pack({**pull, "later": {"deep": [1, None]}})),
        variant("a field with its default", "client", 1, watch, _pack({**watch, "store": "", "since": 0})),
        variant("the tag comes last", "client", 1, pull, _pack({"service": "portal.web", "type": "pull"})),
        variant("lengths in four octets", "client", 1, pull, _wide(pull)),
        variant(
            "an integer where a number of seconds is due",
            "client",
            1,
            {"type": "purge", "age_seconds": 86400.0},
            _pack({"type": "purge", "age_seconds": 86400}),
        ),
        variant(
            "an unknown field within a row is skipped",
            "client",
            1,
            {"type": "put", "row": kept},
            _pack({"type": "put", "row": policy}),
        ),
        variant(
            "an unknown field within a notice is skipped",
            "server",
            0,
            {
                "type": "notice",
                "change": {"revision": 9, "previous": 4, "time": 1.5, "operation": "category-set", "row": kept},
            },
            _pack(
                {
                    "type": "notice",
                    "later": True,
                    "change": {
                        "revision": 9,
                        "previous": 4,
                        "time": 1.5,
                        "operation": "category-set",
                        "row": {**policy, "later": 1},
                        "by": "alice",
                    },
                }
            ),
        ),
    ]


def _wide(message: Plain) -> bytes:
    """A map of strings with every length in its longest form (map 32, str 32)."""

    def text(value: str) -> bytes:
        return b"\xdb" + len(value).to_bytes(4, "big") + value.encode()

    return b"\xdf" + len(message).to_bytes(4, "big") + b"".join(text(k) + text(v) for k, v in message.items())


def refused() -> list[Plain]:
    """Return inputs that a peer may not send, with the resulting state of the session."""
    hello = frame(_pack({"type": "hello", "versions": [1]}))
    welcome = frame(
        _pack({"type": "welcome", "version": 1, "server": "s", "store": "x", "revision": 0, "frame_max": 65536})
    )
    pull = _pack({"type": "pull", "service": "portal.web"})
    taken: list[Plain] = []

    def at_server(name: str, data: bytes, code: str | None, number: int, session: str, *before: bytes) -> None:
        entry = {"to": "server", "before": [one.hex() for one in before], "asked": 0}
        taken.append({"name": name, **entry, "frame": data.hex(), "code": code, "number": number, "session": session})

    def at_client(name: str, data: bytes, code: str | None, session: str, *before: bytes, asked: int = 0) -> None:
        entry = {"to": "client", "before": [one.hex() for one in before], "asked": asked}
        number = int.from_bytes(data[4:8], "big")
        taken.append({"name": name, **entry, "frame": data.hex(), "code": code, "number": number, "session": session})

    too_long = (limits.FRAME_MAX_FROM_HOST + 1).to_bytes(4, "big") + b"\0\0\0\1"
    # Of the session itself: it ends.
    at_server("too long", too_long, "too-large", 0, "ended", hello)
    at_server("longer than any memory", b"\xff\xff\xff\xff\0\0\0\1", "too-large", 0, "ended", hello)
    at_server("request before hello", frame(pull, 1), "out-of-turn", 0, "ended")
    at_server(
        "acknowledge before hello", frame(_pack({"type": "acknowledge", "revision": 1})), "out-of-turn", 0, "ended"
    )
    at_server("not MessagePack before hello", frame(b"GET / HTTP/1.1", 1), "malformed", 0, "ended")
    at_server("unknown type before hello", frame(_pack({"type": "later"}), 1), "unknown-message", 0, "ended")
    at_server("second hello", hello, "out-of-turn", 0, "ended", hello)
    at_server(
        "no common version", frame(_pack({"type": "hello", "versions": [2, 3]})), "unsupported-version", 0, "ended"
    )
    at_server("no version at all", frame(_pack({"type": "hello", "versions": []})), "unsupported-version", 0, "ended")
    at_server("hello without versions", frame(_pack({"type": "hello"})), "malformed", 0, "ended")
    at_server("request number 0", frame(pull, 0), "out-of-turn", 0, "ended", hello)
    at_server("request number in use", frame(pull, 7), "out-of-turn", 0, "ended", hello, frame(pull, 7))
    at_server("malformed with a number in use", frame(b"", 7), "malformed", 0, "ended", hello, frame(pull, 7))
    at_server(
        "malformed acknowledge", frame(_pack({"type": "acknowledge", "revision": "1"})), "malformed", 0, "ended", hello
    )
    # Of one request: it is refused by its number and the session goes on.
    at_server("empty body", frame(b"", 2), "malformed", 2, "alive", hello)
    at_server("not MessagePack", frame(b"\xc1", 2), "malformed", 2, "alive", hello)
    at_server("not a map", frame(_pack([1, 2]), 2), "malformed", 2, "alive", hello)
    at_server("no type", frame(_pack({"service": "portal.web"}), 2), "malformed", 2, "alive", hello)
    at_server("type that is no string", frame(_pack({"type": 5}), 2), "malformed", 2, "alive", hello)
    at_server("unknown type", frame(_pack({"type": "later"}), 2), "unknown-message", 2, "alive", hello)
    at_server("a server's message", frame(_pack({"type": "registered"}), 2), "unknown-message", 2, "alive", hello)
    at_server("field missing", frame(_pack({"type": "pull"}), 2), "malformed", 2, "alive", hello)
    at_server("wrong type of a field", frame(_pack({"type": "pull", "service": 5}), 2), "malformed", 2, "alive", hello)
    at_server("null for a string", frame(_pack({"type": "pull", "service": None}), 2), "malformed", 2, "alive", hello)
    at_server(
        "binary for a string", frame(_pack({"type": "pull", "service": b"a.b"}), 2), "malformed", 2, "alive", hello
    )
    at_server(
        "number with a fraction for an integer",
        frame(_pack({"type": "watch", "services": ["a.b"], "since": 1.0}), 2),
        "malformed",
        2,
        "alive",
        hello,
    )
    at_server(
        "word that a field does not know",
        frame(_pack({"type": "fetch", "kind": "colour"}), 2),
        "malformed",
        2,
        "alive",
        hello,
    )
    at_server("unknown row", frame(_pack({"type": "put", "row": {"row": "colour"}}), 2), "malformed", 2, "alive", hello)
    at_server("key that is no string", frame(b"\x82\xa4type\xa4pull\x05\x06", 2), "malformed", 2, "alive", hello)
    at_server("not UTF-8", frame(b"\x82\xa4type\xa4pull\xa7service\xa1\xff", 2), "malformed", 2, "alive", hello)
    at_server("octets after the map", frame(pull + b"\0", 2), "malformed", 2, "alive", hello)
    at_server("length that cuts the map", frame(pull[:-1], 2), "malformed", 2, "alive", hello)
    at_server(
        "array that lies about its length",
        frame(b"\x82\xa4type\xa5watch\xa8services\xdd\xff\xff\xff\xff", 2),
        "malformed",
        2,
        "alive",
        hello,
    )
    at_server(
        "nested too deeply",
        frame(b"\x83\xa4type\xa4pull\xa7service\xa3a.b\xa1x" + b"\x91" * 3000 + b"\xc0", 2),
        "malformed",
        2,
        "alive",
        hello,
    )
    # Skipped, or waited for.
    at_server("unknown type that expects no reply", frame(_pack({"type": "later"}), 0), None, 0, "alive", hello)
    at_server("truncated: the rest is waited for", frame(pull, 2)[:-1], None, 2, "alive", hello)
    # At the client.
    reply = _pack({"type": "done", "revision": 1})
    notice = _pack({"type": "bookmark", "revision": 1})
    client_too_long = (limits.FRAME_MAX_FROM_SERVER + 1).to_bytes(4, "big") + b"\0\0\0\1"
    at_client("too long for the client", client_too_long, None, "ended", welcome)
    at_client("push before welcome", frame(notice), None, "ended")
    at_client("reply before welcome", frame(reply, 1), None, "ended")
    at_client("welcome to a version not offered", welcome.replace(b"version\1", b"version\2"), None, "ended")
    at_client("second welcome", welcome, None, "ended", welcome)
    at_client("reply to nothing", frame(reply, 1), None, "ended", welcome)
    at_client("notice that cannot be read", frame(_pack({"type": "notice"})), None, "ended", welcome)
    at_client(
        "refusal of the session",
        frame(_pack({"type": "refusal", "code": "busy", "message": "m"})),
        None,
        "ended",
        welcome,
    )
    at_client("goodbye", frame(_pack({"type": "goodbye", "reason": "r"})), None, "ended", welcome)
    at_client("unknown push is skipped", frame(_pack({"type": "later"})), None, "alive", welcome)
    at_client("reply of unknown type", frame(_pack({"type": "later"}), 1), "unknown-message", "alive", welcome, asked=1)
    at_client("reply that cannot be read", frame(b"\xc1", 1), "malformed", "alive", welcome, asked=1)
    at_client(
        "refusal with a code of a later version",
        frame(_pack({"type": "refusal", "code": "later", "message": "m"}), 1),
        "later",
        "alive",
        welcome,
        asked=1,
    )
    part = _pack({"type": "part", "octets": reply[:3]})
    at_client("part before welcome", frame(part), None, "ended")
    at_client("part of a reply to nothing", frame(part, 1), None, "ended", welcome)
    at_client("part that is not complete", frame(part, 1), None, "alive", welcome, asked=1)
    instead = frame(part, 1) + frame(_pack({"type": "refusal", "code": "busy", "message": "m"}), 1)
    at_client("refusal in place of the rest", instead, "busy", "alive", welcome, asked=1)
    at_client("push between parts of another", frame(notice), None, "ended", welcome, frame(part))
    within = _pack({"type": "part", "octets": _pack({"type": "part", "octets": b"", "last": True}), "last": True})
    at_client("part within a part", frame(within, 1), None, "ended", welcome, asked=1)
    nonsense = _pack({"type": "part", "octets": b"\xc1", "last": True})
    at_client("parts that cannot be read", frame(nonsense, 1), "malformed", "alive", welcome, asked=1)
    unknown = _pack({"type": "part", "octets": _pack({"type": "later"}), "last": True})
    at_client("unknown push in parts is skipped", frame(unknown), None, "alive", welcome)
    at_client("part whose octets are text", frame(_pack({"type": "part", "octets": "x"})), None, "ended", welcome)
    return taken


ROWS = (
    CATEGORY,
    Category("web"),
    SERVICE,
    LISTENER,
    SIX,
    Listener(
        "a.b", "::1", 1, "down", 1790000003.0, 2**63 - 1, metadata={"z": "", "é": "ü", "a": "中文"}, draining=True
    ),
    DEPENDENCY,
    CREDENTIAL,
    HOST,
    ALERT,
)
"""Rows whose digests the vectors contain."""


def digests() -> list[Plain]:
    """Rows, their canonical octets and their digests."""
    return [
        {"row": msgspec.to_builtins(row), "octets": canonical(row).hex(), "digest": to_hex(row_digest(row))}
        for row in ROWS
    ]


def sums() -> list[Plain]:
    """Digests of several rows: none, one, all in either order, some whose sum overflows."""
    chosen = [[], [2], list(range(len(ROWS))), list(reversed(range(len(ROWS)))), [3, 4, 5]]
    return [{"rows": places, "digest": to_hex(digest_of_rows(ROWS[place] for place in places))} for places in chosen]


def instances() -> list[Plain]:
    """Digests of what a host holds: of single instances, and of several."""
    held = [("a.b", "192.0.2.1", 1, 1), ("chinaserver.openuss", "2001:db8::1", PORT_MAX, EPOCH_MAX)]
    books = [[], held[:1], held[1:], held, held[::-1]]
    return [
        {
            "instances": [dict(zip(("service", "address", "port", "epoch"), one, strict=True)) for one in book],
            "digest": to_hex(sum(instance_digest(one[:3], one[3]) for one in book)),
        }
        for book in books
    ]


def in_parts() -> list[Plain]:
    """Messages in parts: with the number of a request, pushed, and cut within a character and within a number."""
    reply = {"type": "done", "revision": 70000}
    watching = {"type": "watching", "store": "\u540d\u5b57", "revision": 70000}
    topics = {"revision": 70000, "topics": {"openuss": 70000}, "rows": [{"row": "category", "name": "openuss"}]}
    resync = {"type": "resync", "snapshot": topics}

    def vector(name: str, number: int, message: Plain, *lengths: int) -> Plain:
        body = _pack(message)
        made: list[Plain] = []
        for length in lengths:
            made.append({"type": "part", "octets": body[:length]})
            body = body[length:]
        made.append({"type": "part", "octets": body, "last": True})
        return {
            "name": name,
            "asked": 1,
            "number": number,
            "message": message,
            "parts": [{**part, "octets": part["octets"].hex()} for part in made],
            "frames": [frame(_pack(part), number).hex() for part in made],
        }

    return [
        vector("one part", 1, reply),
        vector("two parts", 1, reply, 7),
        vector("an octet in each", 1, reply, *[1] * (len(_pack(reply)) - 1)),
        vector("a part without octets", 1, reply, 5, 0),
        vector("the last without octets", 1, reply, len(_pack(reply))),
        vector("cut within a character", 1, watching, _pack(watching).index(b"\xe5") + 1),
        vector("pushed", 0, resync, 20, 20),
    ]


def announcements() -> list[Plain]:
    """Datagrams of servers that announce themselves, and what is none."""
    least = {"type": "announcement", "server": "gns1.example", "port": 4863}
    most = {**least, "addresses": ["192.0.2.2", "2001:db8::2"], "next_seconds": 30.0}
    many = {**least, "addresses": [f"192.0.2.{number}" for number in range(limits.ANNOUNCED_ADDRESSES_MAX + 1)]}
    padded = {**least, "later": "x" * limits.ANNOUNCEMENT_OCTETS_MAX}

    def vector(name: str, datagram: bytes, message: Plain | None) -> Plain:
        return {"name": name, "message": message, "datagram": datagram.hex()}

    def dropped(name: str, message: Plain) -> Plain:
        return vector(name, MAGIC + _pack(message), None)

    return [
        vector("at the address it comes from", MAGIC + _pack(least), least),
        vector("with two addresses", MAGIC + _pack(most), most),
        vector("an unknown field is skipped", MAGIC + _pack({**most, "later": [1]}), most),
        vector("capitals", MAGIC + _pack({**least, "server": "GNS1.Example"}), least),
        vector(
            "too often is taken as once a second",
            MAGIC + _pack({**least, "next_seconds": 0}),
            {**least, "next_seconds": 1.0},
        ),
        vector("too seldom", MAGIC + _pack({**least, "next_seconds": 1e9}), {**least, "next_seconds": 300.0}),
        vector("empty", b"", None),
        vector("without the 8 octets", _pack(least), None),
        vector("of a later version", MAGIC[:-1] + b"\x02" + _pack(least), None),
        vector("the 8 octets alone", MAGIC, None),
        vector("octets after the map", MAGIC + _pack(least) + b"\0", None),
        vector("a map that is cut", MAGIC + _pack(least)[:-1], None),
        vector("nested too deeply", MAGIC + b"\x81\xa1x" + b"\x91" * 900 + b"\xc0", None),
        dropped("too long", padded),
        dropped("of another type", {**least, "type": "hello"}),
        dropped("without a server", {"type": "announcement", "port": 4863}),
        dropped("a name that is none", {**least, "server": "gns1.example\n"}),
        dropped("an empty name", {**least, "server": ""}),
        dropped("port 0", {**least, "port": 0}),
        dropped("a port that is no number", {**least, "port": "4863"}),
        dropped("too many addresses", many),
        dropped("a name for an address", {**least, "addresses": ["gns1.example"]}),
        dropped("the group itself for an address", {**least, "addresses": ["239.255.48.63"]}),
        dropped("no number of seconds", {**least, "next_seconds": float("nan")}),
    ]


def text() -> str:
    """The whole file: one vector to a line."""
    parts = [
        f' "about": {json.dumps(ABOUT)}',
        ' "version": 1',
        f' "server_frame_max": {limits.FRAME_MAX_FROM_HOST}',
        f' "client_frame_max": {limits.FRAME_MAX_FROM_SERVER}',
    ]
    sections = {
        "accepted": accepted(),
        "variants": variants(),
        "refused": refused(),
        "parts": in_parts(),
        "announcements": announcements(),
        "digests": digests(),
        "sums": sums(),
        "instances": instances(),
    }
    for name, vectors in sections.items():
        lines = ",\n".join("  " + json.dumps(vector) for vector in vectors)
        parts.append(f' "{name}": [\n{lines}\n ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(text())
    print(f"{PATH}: {len(accepted())} accepted, {len(variants())} variants, {len(refused())} refused")
