"""Screenshots of the console for the documents: `make screenshots`, or `python -m tests.console.screenshots`.

Starts a server with real hosts, lets the shop grow from three services to a thousand listeners and break, and takes
pictures at 375 and 1440 pixels, light and dark, after each step. All of them are for a person to judge; a few are in
the documents.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from compass.pki.authority import create_authority
from tests.console.browser import NARROW, WIDE, Browser, browser
from tests.console.palette import indexed
from tests.console.shop import Shop
from tests.console.shots import save
from tests.e2e.deployment import Deployment

DOCS = Path("docs/reference/console")
LISTENERS = 1_000
OCTETS_MAX = 150_000
"""Octets of a picture in the documents: a reader's first page must not be megabytes."""
CHOSEN = {
    "three-1440-light": "calm",
    "one-1440-dark": "wide-dark",
    "one-375-dark": "narrow-dark",
    "ten-1440-light": "wide-light",
    "ten-375-light": "narrow-light",
    "timeline-1440-light": "timeline",
}
"""Pictures in the documents, by their names among all."""


def main() -> None:
    """Take all pictures, and copy the chosen ones."""
    parser = argparse.ArgumentParser(prog="python -m tests.console.screenshots")
    parser.add_argument("--listeners", type=int, default=LISTENERS)
    parser.add_argument("--write", type=Path, default=Path("build/console"), help="all pictures (%(default)s)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the chosen ones (%(default)s)")
    given = parser.parse_args()
    given.write.mkdir(parents=True, exist_ok=True)
    authority = create_authority("shop", datetime.now(UTC))
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory), authority) as deployment:
        shop = Shop(deployment)
        shop.open()
        token = deployment.opengnsadmin("token", "add", "operator", "--role", "admin").split()[-1]
        with browser(deployment.directory / "gns1.example.net.crt") as window:
            window.look(*WIDE)
            window.sign_in(deployment.https, token)
            window.sees("#verdict", "All well")
            shoot(window, "three", given.write)
            shop.grow(given.listeners)
            shop.break_one()
            window.sees("#verdict", "ledger.pay is lost")
            shoot(window, "one", given.write)
            shop.break_ten()
            window.sees("#verdict", "3 services lost")
            window.sees("#n-incidents", "10 open incidents")
            shoot(window, "ten", given.write)
            shoot_timeline(window, given.write)
            for complaint in window.complaints():
                print("the browser complains:", complaint)
    with browser() as window:
        for name, chosen in CHOSEN.items():
            picture = indexed(window, (given.write / f"{name}.png").read_bytes())
            assert len(picture) <= OCTETS_MAX, f"{chosen}.png has {len(picture):,} octets"
            (given.docs / f"{chosen}.png").write_bytes(picture)


def shoot(window: Browser, name: str, directory: Path) -> None:
    """Take the first screen in all sizes and colour schemes, and the whole page of a phone."""
    window.driver.refresh()
    window.see("#listener-rows .row")
    window.until(lambda: window.said("#f-hosts") not in ("", "–", "none yet"), "hosts are known")
    window.until(lambda: "#" in window.said("#log-list"), "the log is there")
    for size in (WIDE, NARROW):
        for dark in (False, True):
            window.look(*size, dark=dark)
            window.run("window.scrollTo(0, 0); document.activeElement.blur()")
            scheme = "dark" if dark else "light"
            save(window, directory / f"{name}-{size[0]}-{scheme}.png")
        save(window, directory / f"{name}-{size[0]}-whole.png", whole=True)


def shoot_timeline(window: Browser, directory: Path) -> None:
    """Take the panel of a listener that is down, with its timeline."""
    for size, dark in ((WIDE, False), (NARROW, True)):
        window.look(*size, dark=dark)
        window.press(window.see("#listener-rows .row.is-down button"))
        window.sees("#listener-panel .timeline", "Registered", "Down")
        window.until(lambda: "Requesting" not in window.said("#listener-panel"), "it is answered")
        save(window, directory / f"timeline-{size[0]}-{'dark' if dark else 'light'}.png")
        window.run("document.querySelector('#listener-panel').close()")


if __name__ == "__main__":
    main()
