"""Pictures of the console: `python -m tests.console.shots [--listeners 10 1000 10000] [--write build/console]`.

Starts a server over a store with the given number of listeners, opens the console in a real Chromium at 375 and 1440
pixels, light and dark, writes PNG files, and prints the time to the first useful paint and the memory that it needs.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compass.pki.authority import create_authority
from tests.console.browser import NARROW, WIDE, Browser, browser
from tests.console.large_catalogue import fill
from tests.e2e.deployment import Deployment


def main() -> None:
    """Take pictures for each number of listeners."""
    parser = argparse.ArgumentParser(prog="python -m tests.console.shots")
    parser.add_argument("--listeners", type=int, nargs="*", default=[10, 1_000, 10_000])
    parser.add_argument("--at", nargs=3, metavar=("URL", "TOKEN", "CERTIFICATE"), help="of a server that runs already")
    parser.add_argument("--write", type=Path, default=Path("build/console"))
    given = parser.parse_args()
    given.write.mkdir(parents=True, exist_ok=True)
    if given.at:
        url, token, certificate = given.at
        with browser(Path(certificate)) as window:
            shoot(window, url, token, "scene", given.write)
        return
    authority = create_authority("shots", datetime.now(UTC))
    for listeners in given.listeners:
        with tempfile.TemporaryDirectory() as directory:
            store = f"sqlite:///{directory}/store.sqlite"
            fill(store, listeners)
            with Deployment(Path(directory), authority, store=store) as deployment:
                deployment.start(topology="")
                token = deployment.opengnsadmin("token", "add", "shots", "--role", "admin").split()[-1]
                with browser(deployment.directory / "gns1.example.net.crt") as window:
                    shoot(window, deployment.https, token, listeners, given.write)


def shoot(window: Browser, url: str, token: str, listeners: int | str, directory: Path) -> None:
    """Take pictures in all sizes and colour schemes."""
    window.look(*WIDE)
    window.sign_in(url, token)
    window.see("#listener-rows .row.l")
    print(f"{listeners} listeners: {measured(window)}", flush=True)
    for size in (WIDE, NARROW):
        for dark in (False, True):
            window.look(*size, dark=dark)
            window.until(lambda: window.element("#listener-rows .row"), "rows are there")
            window.run("window.scrollTo(0, 0); document.activeElement.blur()")
            name = f"{listeners}-{size[0]}-{'dark' if dark else 'light'}.png"
            whole = size is NARROW
            save(window, directory / name, whole=whole)
    for size, dark in ((WIDE, False), (NARROW, True)):
        window.look(*size, dark=dark)
        window.press(window.see("#listener-rows .row.l button"))
        window.sees("#listener-panel", "Timeline")
        window.until(lambda: "Requesting" not in window.said("#listener-panel"), "it is answered")
        save(window, directory / f"{listeners}-{size[0]}-listener.png")
        window.see("#listener-panel-drain").click()
        window.until(lambda: "Requesting" not in window.said("#ask"), "it is answered")
        save(window, directory / f"{listeners}-{size[0]}-question.png")
        for dialog in ("#ask", "#listener-panel"):
            window.run(f"document.querySelector('{dialog}').close()")
    for complaint in window.complaints():
        print("  the browser complains:", complaint)


def save(window: Browser, path: Path, *, whole: bool = False) -> None:
    """Save the visible part of the page; with `whole`, all of it."""
    window.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    shot: dict[str, Any] = window.driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole, **(_clip(window) if whole else {})}
    )
    path.write_bytes(base64.b64decode(shot["data"]))


def _clip(window: Browser) -> dict[str, Any]:
    width, height = window.run("return [innerWidth, document.documentElement.scrollHeight]")
    return {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}}


def measured(window: Browser) -> str:
    """Reload a page whose token is known. Returns the time until the list is shown, and the heap after it."""
    window.driver.refresh()
    marks = "return performance.getEntriesByName('listeners-shown').map((one) => one.startTime)[0]"
    shown = window.until(lambda: window.run(marks), "the listeners are shown")
    paint = window.run("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
    window.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    heap = window.run("return performance.memory.usedJSHeapSize")
    nodes = window.run("return document.getElementsByTagName('*').length")
    return f"first paint {paint:.0f} ms, listeners shown {shown:.0f} ms, heap {heap / 1e6:.1f} MB, {nodes} elements"


if __name__ == "__main__":
    main()
