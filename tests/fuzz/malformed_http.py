"""HTTP requests in which one place has octets that some library may take for something else.

A value that a header may have gets a few of them, so does a path, or the size of a chunk. What libraries below the API
read for themselves is all here, whether the API has a use for it or not.
"""

from __future__ import annotations

from random import Random

HEADERS = {
    b"Accept": (
        b"*/*",
        b"text/plain;version=0.0.4;q=0.5, */*;q=0.1",
        b"application/openmetrics-text; version=1.0.0; escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0",
        b"text/event-stream",
    ),
    b"Accept-Encoding": (b"gzip;q=1.0, *;q=0",),
    b"Accept-Language": (b"de-CH, en;q=0.8",),
    b"Authorization": (b"Bearer abc", b"Basic YTpi", b"Digest a=b"),
    b"Connection": (b"close", b"keep-alive, Upgrade"),
    b"Content-Disposition": (b'form-data; name="a"; filename="b"',),
    b"Content-Encoding": (b"gzip",),
    b"Content-Length": (b"5", b"0", b"4611686018427387904"),
    b"Content-Type": (
        b"application/json",
        b"application/json; charset=utf-8",
        b'multipart/form-data; boundary="x"',
        b"application/x-www-form-urlencoded",
    ),
    b"Cookie": (b"a=b; c", b'a="b\\073"'),
    b"Date": (b"Thu, 01 Jan 1970 00:00:00 GMT",),
    b"Expect": (b"100-continue",),
    b"Forwarded": (b'for="[::1]";proto=https',),
    b"Host": (b"127.0.0.1:4866", b"[::1]:4866", b"localhost", b"gns1"),
    b"If-Modified-Since": (b"Thu, 01 Jan 1970 00:00:00 GMT",),
    b"If-None-Match": (b'"abc", W/"def"', b"*"),
    b"Last-Event-ID": (b"3", b"99999999999999999999"),
    b"Origin": (b"https://gns1", b"null"),
    b"Range": (b"bytes=0-1",),
    b"Referer": (b"https://gns1/console/",),
    b"TE": (b"trailers",),
    b"Transfer-Encoding": (b"chunked", b"identity", b"gzip, chunked"),
    b"Upgrade": (b"h2c", b"websocket"),
    b"X-Forwarded-For": (b"10.0.0.1",),
    b"X-HTTP-Method-Override": (b"DELETE",),
}
"""Values that a program might send."""
READ_BY = {
    b"Accept": (b"/metrics",),
    b"Authorization": (b"/v1/who", b"/metrics"),
    b"Host": (b"/v1/status",),
    b"If-None-Match": (b"/openapi.json", b"/v1/status", b"/console/"),
    b"Last-Event-ID": (b"/v1/events", b"/v1/watch"),
    b"Origin": (b"/v1/status",),
}
"""Paths at which such a header means something."""
FRAMING = frozenset((b"Content-Length", b"Transfer-Encoding"))
"""Damages after which it is open where a request ends, and so whether there is an answer yet."""
OCTETS = tuple(bytes((octet,)) for octet in range(256))
"""Methods, each as good as any other."""
TEXTS = (
    b"\r",
    b"\r\n ",
    *(letter.encode() for letter in "\x85\u2028\u2029\u00a0\u200b\u202e\ufeff\ufffe\u00b9\u0663\u0130\U0001f980"),
    b"\xed\x85\xbf",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"=?utf-8?b?/w==?=",
    b"=?utf-8?q?=0A?=",
    b"; x*=utf-8''%ff%0a",
    b"; x*0*=a; x*1=b",
    b'"\\',
    b"(((",
    b"%0d%0a",
    b"%u0000",
    b";version=",
    b";q=",
    b"; boundary=",
    b"; charset=",
    b"::1]",
    b"9" * 40,
    b"." * 40,
)
"""Ends of lines as `str.splitlines` sees them, digits that are none to `int`, UTF-8 that is none, and the inner syntax
of headers."""


def laced(random: Random, request: bytes) -> tuple[bytes, bool]:
    """A request with such octets in it, and whether it must be answered."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    framed = False
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        name = random.choice(tuple(HEADERS))
        if random.random() < 0.7:
            lines = [line for line in lines if not line.startswith(name + b":")]
        framed |= name in FRAMING
        value = _with_octets(random, random.choice(HEADERS[name]))
        if name in READ_BY and first.startswith(b"GET ") and random.random() < 0.7:
            first = b"GET %s HTTP/1.1" % random.choice(READ_BY[name])
        if random.random() < 0.03:
            name = _with_octets(random, name)
        lines.insert(random.randrange(len(lines) + 1), name + b": " + value)
    if random.random() < 0.1:
        first = _with_octets(random, first)
        framed = True
    if body and random.random() < 0.1:
        lines = [line for line in lines if line.partition(b":")[0] not in FRAMING]
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunks(random, body)
        framed = True
    return b"\r\n".join((first, *lines)) + b"\r\n\r\n" + body, not framed


def _with_octets(random: Random, text: bytes) -> bytes:
    made = text
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(made) + 1)
        made = made[:at] + random.choice(random.choice((OCTETS, TEXTS))) + made[at + random.choice((0, 0, 1)) :]
    return made


def _chunks(random: Random, body: bytes) -> bytes:
    """Return one chunk with something in its size, its extension, its end or the trailer."""
    parts = [b"%x" % len(body), b";a=b", b"\r\n", body, b"\r\n", b"0", b"\r\n", b"A: b\r\n", b"\r\n"]
    for at in random.sample((0, 1, 2, 4, 5, 6, 7), random.choice((1, 1, 2))):
        parts[at] = _with_octets(random, parts[at])
    return b"".join(parts)
