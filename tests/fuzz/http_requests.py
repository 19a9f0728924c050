"""HTTP requests that no program should send: good ones, laced ones, odd ones, damaged ones, from a seed."""

from __future__ import annotations

import json
from random import Random
from typing import Any
from urllib.parse import quote

from tests.fuzz.malformed_http import laced

SERVICES = (
    "portal.web",
    "store.disk",
    "no.such",
    "portal",
    "Portal.WEB",
    "a..b",
    "",
    "x" * 70 + ".web",
    "é.web",
    "%00.web",
)
PLACES = ("10.0.0.1", "10.0.0.2", "", "::1", "0.0.0.0", "256.1.1.1", "10.0.0.1\x00", "localhost", "1" * 300)
NUMBERS = (8001, 8002, 8003, 0, -1, 65536, 2**63, 2**64, 10**30, 1.5, True)
METHODS = ("GET", "POST", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "get", "G\x00T", "")
PATHS = (
    "/v1/dependencies/{service}",
    "/v1/resolve/{service}",
    "/v1/register",
    "/v1/deregister",
    "/v1/report",
    "/v1/watch?service={service}",
    "/v1/watch?service={service}&since={number}",
    "/v1/watch",
    "/v1/status",
    "/openapi.json",
    "/",
    "",
    "*",
    "//v1/status",
    "/v1/../v1/status",
    "/v1/resolve/%2e%2e/{service}",
    "/v1/resolve/{service}/",
    "http://elsewhere.example/v1/status",
    "/v1/watch?service={service}&service=%ff%fe&;=&&since=",
    "/" + "a/" * 200,
    "/v1/prometheus/{category}",
    "/v1/dependencies/{service}?since={number}&wait=0.5",
    "/v1/dependencies/{service}?wait={number}",
    "/metrics",
    "/healthz",
    "/readyz",
)
HEADERS = (
    "Host: 127.0.0.1:4866",
    "Host: localhost",
    "Host: [::1]:4866",
    "Host: evil.example",
    "Host: [",
    "Host: ",
    "Host: \xff\xfe",
    "Origin: http://evil.example",
    "Origin: ",
    "Last-Event-ID: 3",
    "Last-Event-ID: -1",
    "Last-Event-ID: " + "9" * 400,
    "Last-Event-ID: \u0663",
    "Expect: 100-continue",
    "Connection: close",
    "Connection: Upgrade",
    "Upgrade: h2c",
    "Accept-Encoding: gzip;q=1.0, *;q=0",
    "Cookie: " + "a=b; " * 30,
    "Range: bytes=0-1",
    "X: " + "y" * 3000,
    ": no name",
    "no colon",
    " folded",
    "Content-Length: 5",
    "Transfer-Encoding: identity",
    "If-None-Match: *",
)
TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "text/plain",
    "multipart/form-data; boundary=x",
    "",
    "a" * 300,
)
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**63,
    2**64,
    1e308,
    "",
    "\x00",
    "\ud800",
    "x" * 5000,
    [],
    [[]] * 50,
    {},
    {"a": {"b": 1}},
)
STREAMED = ("/v1/watch", "/v1/register")
"""Paths whose good answers may stay open."""


class Maker:
    """Makes requests; `tokens` are credentials that the services really have."""

    def __init__(self, random: Random, tokens: dict[str, str]) -> None:
        self._random = random
        self._tokens = tokens

    def request(self) -> tuple[bytes, bool]:
        """Return the octets of one request, and whether it must be answered because it is not damaged."""
        random = self._random
        dice = random.random()
        if dice < 0.55:
            return self._good(), True
        if dice < 0.65:
            return laced(random, self._good())
        if dice < 0.75:
            return self._odd(), False
        octets = bytearray(self._good() if dice < 0.9 else self._odd())
        for _ in range(random.randrange(1, 6)):
            at = random.randrange(len(octets) + 1)
            kind = random.randrange(4)
            if kind == 0 and at < len(octets):
                octets[at] = random.getrandbits(8)
            elif kind == 1:
                octets[at:at] = random.randbytes(random.randrange(1, 8))
            elif kind == 2:
                del octets[at : at + random.randrange(1, 30)]
            else:
                octets[at:at] = random.choice(
                    (b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0\r\n\r\n", b"ffffffffff\r\n")
                )
        return bytes(octets), False

    def _good(self) -> bytes:
        """Return what a program would send, with whatever values."""
        random = self._random
        if random.random() < 0.4:
            path = random.choice(PATHS[:2] + PATHS[5:10] + PATHS[-6:])
            return self._head("GET", self._filled(path), ["Host: 127.0.0.1"]) + b"\r\n"
        path = random.choice(("/v1/register", "/v1/deregister", "/v1/report"))
        body = self._body(path)
        if random.random() < 0.2:
            chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:]) if part)
            headers = ["Host: 127.0.0.1", "Content-Type: application/json", "Transfer-Encoding: chunked"]
            return self._head("POST", path, headers) + b"\r\n" + chunks + b"0\r\n\r\n"
        headers = ["Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        return self._head("POST", path, headers) + b"\r\n" + body

    def _odd(self) -> bytes:
        random = self._random
        body = random.choice(
            (b"", b"x", self._body("/v1/register"), self._body("/v1/report"), b"[" * 3000, b"{}" * 40_000)
        )
        headers = random.sample(HEADERS, random.randrange(6))
        if random.random() < 0.6:
            headers.append(f"Content-Type: {random.choice(TYPES)}")
        dice = random.random()
        if dice < 0.6:
            headers.append(f"Content-Length: {len(body)}")
        elif dice < 0.7:
            headers.append(
                f"Content-Length: {random.choice(('-1', '+5', '0x10', '99999999999999999999', '65537', '1, 1', ''))}"
            )
        elif dice < 0.8:
            headers.append("Transfer-Encoding: chunked")
            body = random.choice(
                (b"", b"zz\r\n", b"-1\r\n", b"5;ext=" + b"e" * 2000 + b"\r\nhello\r\n0\r\n\r\n", b"0\r\nA: b\r\n\r\n")
            )
        path = self._filled(random.choice(PATHS))
        return self._head(random.choice(METHODS), path, headers) + b"\r\n" + body

    def _head(self, method: str, path: str, headers: list[str]) -> bytes:
        version = (
            "HTTP/1.1"
            if self._random.random() < 0.97
            else self._random.choice(("HTTP/1.0", "HTTP/2", "HTTP/9", "http", ""))
        )
        return "".join(f"{line}\r\n" for line in (f"{method} {path} {version}", *headers)).encode("utf-8", "replace")

    def _filled(self, path: str) -> str:
        service, number = self._random.choice(SERVICES), self._random.choice(NUMBERS)
        category = quote(service.partition(".")[2])
        filled = path.replace("{service}", quote(service)).replace("{category}", category)
        return filled.replace("{number}", str(number))

    def _body(self, path: str) -> bytes:
        """A wish, most often one that the host understands."""
        random = self._random
        service = random.choice(SERVICES[:2]) if random.random() < 0.6 else random.choice(SERVICES)
        wish: dict[str, Any] = {
            "service": service,
            "port": random.choice(NUMBERS[:3]) if random.random() < 0.7 else random.choice(NUMBERS),
        }
        if path == "/v1/report":
            wish["address"] = random.choice(PLACES)
            wish["state"] = random.choice(("unreachable", "slow", "up", ""))
            wish["detail"] = random.choice(("", "no answer", "x" * 300, "\x1b[2J"))
        else:
            wish["credential"] = (
                self._tokens.get(service, "") if random.random() < 0.7 else random.choice(("", "wrong", "é"))
            )
            if random.random() < 0.3:
                wish["address"] = random.choice(PLACES)
            if path == "/v1/register":
                if random.random() < 0.3:
                    wish["pid"] = random.choice((11, 12, 0, -1, 2**31, 2**63 - 1))
                if random.random() < 0.2:
                    wish["hold"] = random.choice((True, False))
                if random.random() < 0.2:
                    wish["metadata"] = random.choice(
                        ({}, {"a": "b"}, {"k": "v" * 300}, {str(n): "" for n in range(40)}, {"\x00": "\x1b"})
                    )
                if random.random() < 0.2:
                    wish["weight"] = random.choice((0, 1, 65535, 65536, -1, 2**63, 2**64 - 1))
            elif random.random() < 0.3:
                wish["epoch"] = random.choice((0, 1, -1, 2**62, 2**63 - 1, 2**63, 2**64 - 1))
        if random.random() < 0.15:
            wish[random.choice([*wish, "later"])] = random.choice(ODD)
        body = json.dumps(wish, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
        return body[: random.randrange(len(body) + 1)] if random.random() < 0.03 else body
