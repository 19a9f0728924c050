"""Server of the console's files, over real sockets and TLS, and rules for the files themselves."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from compass.admin.shell.connection import IdentityFiles
from compass.console.pages import HEADERS, POLICY, Console
from compass.pki.authority import create_authority, issue, write_credentials
from tests.e2e.deployment import Deployment
from tests.e2e.test_https import client, token

PAGE = Path("compass/console/page")


def test_the_files_come_with_what_keeps_a_browser_to_them(deployment: Deployment) -> None:
    """Every caller may read the files; each has its type, its tag, and the headers that forbid everything else."""
    names = Console().names
    assert set(names) == {file.name for file in PAGE.iterdir()} and "index.html" in names
    with client(deployment) as stranger:
        for name in names:
            answer = stranger.get(f"/console/{name}")
            assert answer.status_code == 200 and answer.content == (PAGE / name).read_bytes()
            for header, value in HEADERS.items():
                assert answer.headers[header] == value
            again = stranger.get(f"/console/{name}", headers={"If-None-Match": answer.headers["ETag"]})
            assert again.status_code == 304 and not again.content
            assert stranger.head(f"/console/{name}").headers["Content-Length"] == str(len(answer.content))
        assert stranger.get("/console/").content == (PAGE / "index.html").read_bytes()
        assert stranger.get("/console/").headers["Content-Type"] == "text/html; charset=utf-8"
        for path in ("/", "/console"):
            led = stranger.get(path)
            assert led.status_code == 308 and led.headers["Location"] == "/console/"


@pytest.mark.parametrize("name", ["nothing.js", "..%2F__init__.py", "%2e%2e%2fpages.py", "pages.py", "a/b", "x?y=1"])
def test_nothing_else_is_served(deployment: Deployment, name: str) -> None:
    """Names are looked up in memory and never become a path of the disk."""
    with client(deployment) as stranger:
        answer = stranger.get(f"/console/{name}")
        assert answer.status_code in (400, 404) and answer.json()["type"] == "refusal"
        assert stranger.post("/console/index.html").status_code == 405


def test_the_policy_allows_files_of_this_server_and_nothing_else() -> None:
    """The policy allows 'self' only, nothing inline, no frame, which suffices for the files."""
    sources = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert sources.pop("require-trusted-types-for") == "'script'"
    assert set(sources.values()) == {"'none'", "'self'"}
    assert {name for name, value in sources.items() if value == "'self'"} == {
        "script-src",
        "style-src",
        "connect-src",
        "img-src",
    }
    for file in PAGE.iterdir():
        text = file.read_text("utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            file
        )
        foreign = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not foreign, (file, foreign)
        assert len(text.splitlines()) < 400, file


class _Inline(HTMLParser):
    """Parser that finds what the policy would refuse."""

    found: tuple[str, ...] = ()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wrong = [name for name, _ in attrs if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and not dict(attrs).get("src")):
            wrong.append(tag)
        self.found += tuple(wrong)


def test_the_page_has_nothing_inline() -> None:
    """The page contains no inline scripts, styles or listeners."""
    parser = _Inline()
    parser.feed((PAGE / "index.html").read_text("utf-8"))
    assert parser.found == ()


def test_who_one_is_and_what_one_may(deployment: Deployment) -> None:
    """The identity by token or certificate determines what the page offers."""
    with client(deployment, deployment.admin) as alice:
        who = alice.get("/v1/who").json()
        assert (who["role"], who["name"]) == ("admin", "alice") and {"drain", "purge", "fetch"} <= set(who["may"])
    with client(deployment, token=token(deployment, "looks")) as viewer:
        who = viewer.get("/v1/who").json()
        assert who["name"] == "looks.gns-viewer" and "fetch" in who["may"]
        assert not {"drain", "purge", "put", "apply"} & set(who["may"])
    with client(deployment, deployment.certify("host", "h1.example.net")) as host:
        assert "fetch" not in host.get("/v1/who").json()["may"]
    with client(deployment) as stranger:
        assert stranger.get("/v1/who").status_code == 401


def test_a_certificate_of_the_wrong_kind_is_told_so(deployment: Deployment) -> None:
    """Issue 7, "Bad input": "a browser with an expired or wrong certificate" gets a clear message, others work.

    One of the wrong role gets the server's words, which the page shows; an expired one, and one of another authority,
    end in the handshake, and the browser says so.
    """
    with client(deployment, deployment.certify("server", "gns9.example.net")) as wrong:
        refused = wrong.get("/v1/who")
        assert (
            refused.status_code == 403 and "has the role server; host or admin is needed" in refused.json()["message"]
        )
    with client(deployment, _foreign(deployment)) as foreign, pytest.raises(httpx.TransportError):
        foreign.get("/console/")
    with client(deployment) as stranger:
        assert stranger.get("/console/").status_code == 200


def test_an_expired_certificate_is_told_in_the_handshake(tmp_path: Path) -> None:
    """A certificate of last year fails in the handshake; a caller without a certificate still sees the sign-in form."""
    begun = datetime.now(UTC) - timedelta(days=400)
    authority = create_authority("old", begun)
    with Deployment(tmp_path, authority) as deployment:
        deployment.start()
        files = write_credentials(tmp_path, "late", issue(authority, "admin", "late", [], begun, days=30))
        late = IdentityFiles(files.certificate, files.key, tmp_path / "authority.crt")
        with client(deployment, late) as refused, pytest.raises(httpx.TransportError, match="expired"):
            refused.get("/console/")
        with client(deployment) as stranger:
            assert stranger.get("/console/").status_code == 200


def _foreign(deployment: Deployment) -> IdentityFiles:
    return deployment.certify("admin", "mallory", authority=create_authority("elsewhere", datetime.now(UTC)))
