"""The console in an incident, in a real Chromium: what is wrong, since when, for whom, and who does not know yet."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from compass.pki.authority import Credentials
from tests.console.axe import axe_script, needs_npm, violations
from tests.console.broken_shop import fill_broken
from tests.console.browser import NARROW, WIDE, Browser, browser, needs_chromium, token
from tests.e2e.conftest import Deploy, check_logs
from tests.e2e.deployment import Deployment, Host
from tests.e2e.test_https import client

pytestmark = needs_chromium

HEADER_MAX = {WIDE: 140, NARROW: 200}
"""Pixels of the top of the page: what is wrong stands below it, and must not be pushed off the screen."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, authority: Credentials) -> Iterator[Deployment]:
    """Return a server over a store with ten incidents."""
    directory = tmp_path_factory.mktemp("shop")
    store = f"sqlite:///{directory / 'store.sqlite'}"
    fill_broken(store)
    with Deployment(directory, authority, store=store) as deployment:
        deployment.start(topology="")
        yield deployment
        check_logs(deployment)


@pytest.fixture(scope="module")
def broken(shop: Deployment) -> Iterator[Browser]:
    """Return a browser that shows the ten incidents."""
    with browser(shop.directory / "gns1.example.net.crt") as window:
        window.look(*WIDE)
        window.sign_in(shop.https, token(shop, "operator"))
        window.sees("#n-incidents", "10 open incidents")
        yield window


def bottom(window: Browser, selector: str) -> float:
    """Return the lower edge of the first matching element in the window."""
    edge: float = window.run("return document.querySelector(arguments[0]).getBoundingClientRect().bottom", selector)
    return edge


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_what_is_worst_stands_first_within_the_first_screen(broken: Browser, size: tuple[int, int], dark: bool) -> None:
    """Issue 15, item 5: "what is wrong must be obvious in five seconds at 375 and 1440 pixels, dark and light"."""
    broken.look(*size, dark=dark)
    broken.run("window.scrollTo(0, 0)")
    broken.sees("#verdict", "3 services lost: shop and ledger.pay")
    broken.sees("#since", "since", "(3 min)")
    broken.sees("#why", "10 of 1,210 listeners lost")
    assert broken.said("#f-listeners") == "1,200 of 1,210"
    groups = broken.driver.find_elements("css selector", "#incident-list .group")
    titles = [group.find_element("css selector", "button.title").text for group in groups]
    assert titles == [
        "shop: 2 of 3 services lost",
        "ledger.pay is lost",
        "stock: 3 of 453 listeners lost",
        "users.auth: 1 of 151 listeners lost",
    ]
    assert ["is-ill" in (group.get_attribute("class") or "") for group in groups] == [True, True, False, False]
    red, amber = (broken.run("return getComputedStyle(arguments[0]).borderLeftColor", groups[at]) for at in (0, 2))
    assert red == broken.run("return getComputedStyle(document.querySelector('#verdict')).color") != amber
    assert "cart and list" in groups[0].text and "users go to sorry.spare (150 in use)" in groups[0].text
    assert bottom(broken, "#top") <= HEADER_MAX[size]
    assert bottom(broken, "#incident-list .group:nth-child(2)") < size[1]
    assert broken.run("return document.querySelector('#map').getBoundingClientRect().top") > size[1]
    assert broken.run("return document.documentElement.scrollWidth") <= size[0]
    assert broken.run("return document.querySelector('#clock').textContent").endswith(" UTC")


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_impact_of_the_worst_is_shown_and_that_of_what_is_chosen(broken: Browser, size: tuple[int, int]) -> None:
    """The page names users of what is lost, direct and indirect ones; a category is chosen and left."""
    broken.look(*size)
    broken.sees("#n-impact", "of what is lost")
    broken.sees("#impact-text", "front and shop depend on shop and pay: 4 services on 3 hosts.")
    broken.sees("#impact-graph", "cart.shop", "ledger.pay", "list.shop", "front", "mail")
    broken.press_button("shop: 2 of 3 services lost")
    broken.sees("#n-impact", "of shop")
    broken.sees("#impact-text", "front depends on shop: 1 service on 3 hosts.", "mail depends on those.", "sorry.spare")
    broken.sees("#impact-graph", "cart.shop", "0 of 3 in use", "front", "1 service, 3 hosts", "mail")
    if size is NARROW:
        broken.sees("#impact-graph", "through cart.shop and list.shop")
        assert broken.element("#impact-graph svg[role=group]") is None
    broken.press(broken.see("#impact-graph [data-key='1 front']"))
    broken.sees("#n-impact", "of front")
    broken.sees("#n-listeners", "of front")
    broken.press_button("Show all")
    broken.sees("#n-impact", "of what is lost")
    broken.press_button("users.auth: 1 of 151 listeners lost")
    broken.sees("#n-impact", "of users.auth")
    broken.press_button("users.auth: 1 of 151 listeners lost")
    broken.press_button("shop: 2 of 3 services lost")
    broken.press_button("Show all")


def test_a_link_leads_to_one_incident_and_its_text_can_be_copied(broken: Browser, shop: Deployment) -> None:
    """Each incident has a fragment that works before the page is read and later; its text has the link in it."""
    broken.look(*NARROW)
    link = "#incident=failure%20users.auth%20127.96.9.1%3A9000"
    broken.driver.get(f"{shop.https}/console/{link}")
    broken.driver.refresh()
    broken.sees("#incident-list .marked", "users.auth 127.96.9.1:9000", "node0", "ended without deregistering")
    assert broken.run("return document.activeElement.textContent") == "users.auth 127.96.9.1:9000"
    broken.run("location.hash = '#incident=failure%20gone.shop%20127.0.0.1%3A1'")
    broken.sees("#outcome", "not open any more")
    broken.run("location.hash = '#listener=cart.shop%20127.96.2.1%3A9000'")
    broken.sees("#listener-panel", "127.96.2.1:9000", "died")
    broken.run("document.querySelector('#listener-panel').close()")
    broken.until(lambda: broken.run("return location.hash") == "", "the closed panel has no link")
    broken.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    broken.press_button("Copy a text about shop")
    broken.sees("#outcome", "Copied")
    copied = broken.run("return window.copied")
    assert copied.startswith("shop: 2 of 3 services lost\nSince 20")
    for part in ("- 20", "cart.shop 127.96.2.1:9000 on node0", "Impact: front depends on shop", "Seen by gns1"):
        assert part in copied
    assert copied.splitlines()[-1].startswith(f"{shop.https}/console/#incident=failure%20")
    broken.run("navigator.clipboard.writeText = async () => { throw new Error('refused'); }")
    broken.press_button("Copy a text about shop")
    assert "shop: 2 of 3 services lost" in (broken.see("#ask textarea").get_attribute("value") or "")
    broken.run("document.querySelector('#ask').close()")


@needs_npm
def test_axe_finds_nothing_serious_in_an_incident(broken: Browser) -> None:
    """axe-core finds nothing serious or critical with incidents unfolded, in both sizes and schemes."""
    script = axe_script()
    found: list[str] = []
    broken.press_button("shop: 2 of 3 services lost")
    for size in (WIDE, NARROW):
        for dark in (False, True):
            broken.look(*size, dark=dark)
            broken.see("#impact-graph [data-key='1 front']")
            found += violations(broken, script, f"{size[0]} {'dark' if dark else 'light'}")
    broken.press_button("shop: 2 of 3 services lost")
    assert not found, "\n".join(found)
    assert broken.complaints() == []


@pytest.fixture(scope="module")
def live(deployment: Deployment) -> Iterator[tuple[Host, Host, Browser]]:
    """Return two hosts, the first of which uses what the second one serves, and a browser that shows both."""
    web, storage = deployment.add_hosts("web1", "store1")
    deployment.register(web, "portal.web")
    with browser(deployment.directory / "gns1.example.net.crt") as window:
        window.look(*WIDE)
        window.sign_in(deployment.https, token(deployment, "historian"))
        yield web, storage, window


def test_the_timeline_of_a_listener_says_what_happened_and_who_found_it(
    deployment: Deployment, live: tuple[Host, Host, Browser]
) -> None:
    """Registered, reported by whom, probed, suspect, down; drained: with times and causes, and as it happens."""
    web, storage, window = live
    first = deployment.register(storage, "northeast.openuss")
    second = deployment.register(storage, "northeast.openuss")
    window.press_button(f"{second.address}:{second.port} of northeast.openuss")
    window.sees("#listener-panel .timeline", "Registered", "by store1.example.net")
    window.press_button("Drain …")
    window.press_button("Drain")
    window.sees("#listener-panel .timeline", "Drained", "by historian.gns-admin")
    window.run("document.querySelector('#listener-panel').close()")
    deployment.report(web, first)
    window.sees("#verdict", "northeast.openuss")
    window.press_button(f"{first.address}:{first.port} of northeast.openuss")
    timeline = window.sees("#listener-panel .timeline", "Down", "Incident opened", "Registered")
    for part in ("reported unreachable by portal.web on web1.example.net", "Probe by server gns1", "Report of web1"):
        assert part in timeline, timeline
    order = [timeline.index(word) for word in ("Down", "Suspect", "Registered")]
    assert order == sorted(order), timeline
    window.sees("#listener-panel", "This is all that the log has")
    window.run("document.querySelector('#listener-panel').close()")


def test_a_host_with_a_stale_revision_stands_first_until_it_has_caught_up(
    deployment: Deployment, live: tuple[Host, Host, Browser]
) -> None:
    """The hosts that do not hold the present state are listed with what they hold and since when they lag."""
    slow, other, window = live
    deployment.quiet(slow)
    os.kill(slow.daemon.pid, signal.SIGSTOP)
    try:
        deployment.register(other, "northwest.openuss")

        def first() -> str:
            text = window.said("#host-rows .row")
            return text if "web1.example.net" in text and "lagging" in text else ""

        row = window.until(first, "the stale host stands first")
        assert "(" in row and " s)" in row, row
        window.sees("#n-hosts", "1 stale")
    finally:
        os.kill(slow.daemon.pid, signal.SIGCONT)
    window.sees("#n-hosts", "none stale")


def test_an_empty_installation_is_shown_what_to_do_first(deploy: Deploy) -> None:
    """Not rows of nothing: three commands, of which those that are done are marked."""
    deployment = deploy()
    deployment.start(topology="")
    with browser(deployment.directory / "gns1.example.net.crt") as window:
        window.look(*NARROW)
        window.sign_in(deployment.https, token(deployment, "novice"))
        window.sees("#verdict", "Nothing is registered")
        steps = window.sees(
            "#first", "opengnsadmin apply", "opengnsadmin host invite", "opengnscd join", "opengnsc run"
        )
        assert "Done" not in steps
        deployment.opengnsadmin("category", "add", "shop")
        deployment.opengnsadmin("service", "add", "cart.shop")
        window.sees("#first-services", "Done")
        with client(deployment, deployment.admin) as admin:
            fields: dict[str, Any] = {"service": "cart.shop", "address": "127.0.0.9", "port": 80, "epoch": 1}
            fields["credential"] = ""
            answer: httpx.Response = admin.post("/v1/register", json=fields)
            assert answer.status_code == 200, answer.text
        window.until(lambda: window.element("#first") is None, "the steps are over")
        window.sees("#verdict", "Nothing has failed")
        window.sees("#why", "no host has come yet")
        window.look(*WIDE)
        window.sees("#listener-rows .row.l .host", "by alice")
