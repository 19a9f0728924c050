"""The console in a real Chromium, on a real server with real hosts: what an operator sees, without a reload."""

from __future__ import annotations

import http.server
import re
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

from selenium.webdriver.common.keys import Keys

from compass.gateway.server_api.operations import ASKED
from compass.model.replies import LogEntries, Rows
from compass.model.requests import Fetch, ReadLog
from compass.pki.authority import Credentials, create_authority, issue, write_credentials
from tests.console.axe import axe_script, needs_npm, violations
from tests.console.browser import (
    NARROW,
    WIDE,
    Browser,
    believe,
    browser,
    needs_certutil,
    needs_chromium,
    refused_by_browser,
    token,
)
from tests.console.large_catalogue import fill
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, new_address

pytestmark = needs_chromium


def row(place: str) -> str:
    """Return the XPath of a listener's row, by address and port."""
    return f"//div[@role='row'][.//button[text()='{place}']]"


def state_of(window: Browser, place: str) -> str:
    """Return the text of a listener's row, or nothing."""
    found = window.driver.find_elements("xpath", row(place))
    return found[0].text if found else ""


def becomes(window: Browser, place: str, *words: str) -> None:
    """Wait until the row contains all words."""
    window.until(lambda: all(word in state_of(window, place) for word in words), f"{place} is {words}")


def test_an_incident_is_seen_as_it_happens(deployment: Deployment, window: Browser) -> None:
    """Issue 7, "Seen when" 2: "a test registers, kills, drains and watches the page change without a reload"."""
    web, storage = deployment.add_hosts("web1", "store1")
    deployment.register(web, "portal.web")
    window.look(*WIDE)
    window.sign_in(deployment.https, token(deployment, "operator"))
    window.run("window.neverReloaded = true")
    first = deployment.run(storage, "chinaserver.openuss")
    second = deployment.run(storage, "chinaserver.openuss")
    one, two = (f"{storage.address}:{service.port}" for service in (first, second))
    becomes(window, one, "up")
    becomes(window, two, "up")
    window.sees("#verdict", "Nothing has failed")
    window.sees("#why", "2 of 4 categories have no listener (openuso and rescue)")
    window.sees("#f-hosts", "2 of 2")

    first.signal(signal.SIGKILL)
    becomes(window, one, "died")
    window.sees("#verdict", "chinaserver.openuss: 1 of 2 listeners lost")
    window.sees("#n-hosts", "2 of 2 connected, none stale")
    window.sees("#incident-list", "ended without deregistering")
    window.sees("#log-list", "chinaserver.openuss")
    assert "1 of 2 listeners lost" in window.driver.title

    window.press_button(f"{two} of chinaserver.openuss")
    window.sees("#listener-panel", "Users", "1 host", "backup is emergency.rescue")
    window.press_button("Drain …")
    asked = window.sees("#ask", f"Drain {two} of chinaserver.openuss?", "web1.example.net")
    assert "last one in use" in asked and "emergency.rescue has no usable listener either" in asked
    window.press_button("Drain")
    window.sees("#listener-panel", "gets no new users")
    becomes(window, two, "draining")
    assert deployment.listeners()["chinaserver.openuss", second.port].state == "draining"
    window.sees(".row.service", "chinaserver.openuss", "in use", "users go to emergency.rescue")

    window.press_button("Undrain …")
    window.press_button("Undrain")
    becomes(window, two, "up")
    assert deployment.listeners()["chinaserver.openuss", second.port].state == "up"
    assert window.run("return window.neverReloaded") is True
    assert window.complaints() == []


def test_the_server_goes_and_comes_back(deploy: Deploy) -> None:
    """The page shows the age of its data and reconnects by itself; a resumed stream loses no change."""
    deployment = deploy()
    deployment.start()
    with browser(deployment.directory / "gns1.example.net.crt") as window:
        window.look(*WIDE)
        window.sign_in(deployment.https, token(deployment, "operator"))
        window.press_button("show 7 services without any listener yet")
        window.sees("#listener-rows", "portal.web", "no listener yet")
        deployment.server.kill()
        window.sees("#condition", "reconnecting")
        window.sees("#last-update", "last update", "s ago")
        assert "reconnecting" in window.driver.title
        window.sees("#listener-rows", "portal.web")
        deployment.server.start()
        deployment.serves()
        deployment.opengnsadmin("service", "add", "extra.web")
        window.sees("#condition", "live")
        window.sees("#listener-rows", "extra.web")


def test_a_viewer_looks_and_finds_nothing_to_press(deployment: Deployment, window: Browser) -> None:
    """P11: a viewer has no button for refused requests; a forced request is refused by the server, and logged."""
    (host,) = deployment.add_hosts("viewed")
    here = deployment.register(host, "forum.web")
    place = f"{here.address}:{here.port}"
    secret = token(deployment, "guest", "viewer")
    window.look(*WIDE)
    window.sign_in(deployment.https, secret)
    window.sees("#who", "guest.gns-viewer (viewer)")
    becomes(window, place, "up")
    assert window.element("#purge") is None
    window.press_button(f"{place} of forum.web")
    window.sees("#listener-panel", "Users")
    assert not window.driver.find_elements("css selector", "#listener-panel-drain")
    fields = {"service": here.service, "address": here.address, "port": here.port}
    forced: dict[str, Any] = window.driver.execute_async_script(
        """const [fields, token, done] = arguments;
        fetch("/v1/drain", {method: "POST", body: JSON.stringify(fields), headers: {
            "Content-Type": "application/json", Authorization: `Bearer ${token}`}})
          .then(async (response) => done({status: response.status, ...await response.json()}))""",
        fields,
        secret,
    )
    assert forced["status"] == 403
    assert forced["message"] == "viewer 'guest.gns-viewer' may not drain: that needs the role admin or host"
    last = deployment.ask(ReadLog("security", last=1), LogEntries).entries[0]
    assert getattr(last, "principal", "") == "guest.gns-viewer"
    assert secret not in window.driver.current_url and window.complaints() == []


def test_a_wrong_token_and_a_removed_one(deployment: Deployment, window: Browser) -> None:
    """The form shows the server's refusal; a removed token returns the page to the form."""
    window.look(*WIDE)
    window.driver.get(f"{deployment.https}/")
    assert window.driver.current_url == f"{deployment.https}/console/"
    window.see("#token").send_keys("nobody" + Keys.ENTER)
    window.sees("#refused", "the bearer token is unknown", "opengnsadmin token add")
    secret = token(deployment, "brief")
    window.see("#token").clear()
    window.see("#token").send_keys(secret + Keys.ENTER)
    window.sees("#condition", "live")
    window.driver.refresh()
    window.sees("#condition", "live")
    deployment.opengnsadmin("token", "remove", "brief", "--role", "admin")
    window.sees("#refused", "the bearer token is unknown")
    window.driver.refresh()
    window.see("#token")
    assert window.said("#refused") == ""


def test_purge_says_beforehand_what_it_removes(deploy: Deploy, tmp_path: Path) -> None:
    """The dialog shows the count, and the server's refusal of an age below the limit; then the rows are removed."""
    store = f"sqlite:///{tmp_path / 'store.sqlite'}"
    fill(store, 1_000)
    deployment = deploy(store=store)
    deployment.start(topology="")
    with browser(deployment.directory / "gns1.example.net.crt") as window:
        window.look(*WIDE)
        window.sign_in(deployment.https, token(deployment, "operator"))
        window.sees("#n-listeners", "994 of 1,000")
        window.see("#purge").click()
        window.sees("#ask", "nothing would be removed")
        age = window.see("#purge-age")
        age.clear()
        age.send_keys("0.0001")
        window.run(
            "document.getElementById('purge-age').removeAttribute('min');"
            "document.getElementById('purge-age').step = 'any'"
        )
        window.sees("#ask", "This removes 6 rows")
        window.press_button("Purge")
        window.sees("#ask", "too young to purge")
        age.clear()
        age.send_keys("0.001")
        told = window.sees("#ask", "This removes")
        rows = int(told.split("This removes ")[1].split()[0])
        window.press_button("Purge")
        window.sees("#outcome", f"{rows} row")
        window.sees("#n-listeners", f"994 of {1_000 - rows:,}" if rows < 6 else "994")
        assert deployment.ask(Fetch("listener"), Rows).total == 1_000 - rows


def test_ten_thousand_listeners_by_keyboard(deploy: Deploy, tmp_path: Path) -> None:
    """Failures stand first; a search finds one of all; arrows move through the rows; few elements exist."""
    store = f"sqlite:///{tmp_path / 'store.sqlite'}"
    fill(store, 10_000)
    deployment = deploy(store=store)
    deployment.start(topology="")
    with browser(deployment.directory / "gns1.example.net.crt") as window:
        window.look(*WIDE)
        window.sign_in(deployment.https, token(deployment, "operator"))
        window.sees("#n-listeners", "9,940 of 10,000")
        window.sees("#listener-rows", "down")
        window.see("#states button[title='in use']").click()
        window.sees("#n-listeners", "9,753 of 10,000")
        assert len(window.driver.find_elements("css selector", "#listener-rows .row")) < 60
        table = window.see("#listener-table")
        assert int(table.get_attribute("aria-rowcount") or 0) > 9_753
        window.see("#listener-rows .row.l button").send_keys(Keys.END)
        window.until(lambda: "9," in focused(window)[1] or int(focused(window)[1] or 0) > 9_753, "the last row has it")
        last = focused(window)
        window.run(
            "document.activeElement.dispatchEvent("
            "new KeyboardEvent('keydown', {key: 'ArrowUp', bubbles: true, cancelable: true}))"
        )
        assert int(focused(window)[1]) == int(last[1]) - 1
        window.see("#states button[title='in use']").click()
        window.see("#filter").send_keys("127.100.3.3:")
        window.until(lambda: window.said("#n-listeners") == "1 of 10,000", "one is found")
        window.see("#map summary").send_keys(Keys.ENTER)
        window.see("#graph .node[data-name=openuss]").send_keys(Keys.ENTER)
        window.sees("#n-impact", "of openuss")
        window.sees("#impact-text", "forum, mobile and web depend on openuss", "backup of openuss is emergency.rescue")
        window.sees("#n-listeners", "of openuss")


def focused(window: Browser) -> tuple[str, str]:
    """Return the text of the focused element, and the number of its row."""
    text, number = window.run(
        "const one = document.activeElement;"
        "return [one.textContent, one.closest('[aria-rowindex]')?.getAttribute('aria-rowindex') ?? '']"
    )
    return text, number


@needs_npm
def test_nothing_serious_for_people_who_see_or_move_otherwise(deployment: Deployment, window: Browser) -> None:
    """axe-core finds nothing serious or critical: light and dark, wide and narrow, with and without a dialog open."""
    script = axe_script()
    (host,) = deployment.add_hosts("seen")
    here = deployment.register(host, "account.openuso")
    deployment.opengnsadmin("drain", "account.openuso", f"{here.address}:{here.port}")
    place = f"{here.address}:{here.port}"
    window.look(*WIDE)
    window.driver.get(f"{deployment.https}/console/")
    window.see("#token")
    found = [*violations(window, script, "signing in")]
    window.sign_in(deployment.https, token(deployment, "axe"))
    becomes(window, place, "draining")
    for size in (WIDE, NARROW):
        for dark in (False, True):
            window.look(*size, dark=dark)
            what = f"{size[0]} {'dark' if dark else 'light'}"
            window.run("document.getElementById('map').open = true")
            found += violations(window, script, what)
            window.run("document.getElementById('as-list').click(); document.getElementById('log-security').click()")
            found += violations(window, script, f"{what}, list")
            window.run("document.getElementById('as-graph').click()")
            assert window.run("return document.documentElement.scrollWidth") <= size[0]
            window.press_button(f"{place} of account.openuso")
            window.sees("#listener-panel", "Timeline", "Drained")
            found += violations(window, script, f"{what}, sheet")
            window.press_button("Undrain …")
            window.sees("#ask", "Undrain")
            found += violations(window, script, f"{what}, question")
            window.see("#ask").send_keys(Keys.ESCAPE)
            window.see("#listener-panel").send_keys(Keys.ESCAPE)
    assert not found, "\n".join(found)


def test_a_server_that_proves_nothing_is_not_shown(deployment: Deployment) -> None:
    """A browser that does not trust the authority refuses the page, and loads nothing of it."""
    with browser() as stranger:
        assert "ERR_CERT_AUTHORITY_INVALID" in refused_by_browser(stranger, f"{deployment.https}/console/")


@needs_certutil
def test_who_imported_the_authority_is_shown_the_console_and_no_expired_server(
    deployment: Deployment, authority: Credentials, tmp_path: Path
) -> None:
    """An imported authority prevents the warning; an expired certificate of a server is reported as expired."""
    believe(deployment.directory / "authority.crt", tmp_path / "believer")
    with browser(home=tmp_path / "believer") as window:
        window.driver.get(f"{deployment.https}/console/")
        window.see("#token")
    begun = datetime.now(UTC) - timedelta(days=400)
    old = create_authority("old", begun)
    (tmp_path / "old.crt").write_bytes(old.certificate_pem)
    believe(tmp_path / "old.crt", tmp_path / "believer-of-old")
    address = new_address()
    files = write_credentials(tmp_path, "late", issue(old, "server", "gns1.example.net", [address], begun, days=30))
    with serving(address, files) as url, browser(home=tmp_path / "believer-of-old") as window:
        assert "ERR_CERT_DATE_INVALID" in refused_by_browser(window, url)


@contextmanager
def serving(address: str, files: Any) -> Iterator[str]:
    """Serve with any certificate: opengnssd would refuse to start with this one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server = http.server.ThreadingHTTPServer((address, 0), http.server.SimpleHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://{address}:{server.server_port}/console/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_the_api_that_the_page_uses_is_there() -> None:
    """The server answers every path that occurs in the page's files."""
    paths = {operation.path for operation in ASKED} | {"/v1/events", "/v1/who"}
    text = "".join(file.read_text("utf-8") for file in Path("compass/console/page").glob("*.js"))
    named = set(re.findall(r"\"(/v1/[a-z/-]+)\"", text))
    assert {"/v1/drain", "/v1/purge", "/v1/impact", "/v1/events", "/v1/who"} <= named
    assert {path.replace("/v1/logs/updates", "/v1/logs/{log}") for path in named} <= paths
