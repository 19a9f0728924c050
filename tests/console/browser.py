"""Real Chromium without a window. Tests know only what users see of the page."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.e2e.deployment import Deployment
from tests.e2e.processes import eventually

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no browser is installed (Debian: chromium, chromium-driver)"
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-precise-memory-info",
)
WIDE = (1440, 900)
NARROW = (375, 812)

T = TypeVar("T")


def key_hash(certificate: Path) -> str:
    """Return the id of a key that Chromium is to trust: the SHA-256 of the public key, in base 64."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(octets).digest()).decode()


class Browser:
    """Window of the browser."""

    def __init__(self, driver: WebDriver) -> None:
        self.driver = driver

    def look(self, width: int, height: int, *, dark: bool = False, reduced: bool = True) -> None:
        """Set the size of the window, and the user's preference for dark colours."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced else "no-preference"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def sign_in(self, url: str, token: str) -> None:
        """Open the console and type a token."""
        self.driver.get(f"{url}/console/")
        self.see("#token").send_keys(token)
        self.see("#signin-form button").click()
        self.sees("#condition", "live")

    def element(self, selector: str) -> WebElement | None:
        """Return the first matching element that is displayed."""
        for found in self.driver.find_elements(By.CSS_SELECTOR, selector):
            if found.is_displayed():
                return found
        return None

    def see(self, selector: str) -> WebElement:
        """Wait until a matching element is displayed."""
        return self.until(lambda: self.element(selector), f"there is {selector}")

    def said(self, selector: str) -> str:
        """Return the text of the first matching element, or nothing."""
        element = self.element(selector)
        return element.text if element is not None else ""

    def sees(self, selector: str, *words: str) -> str:
        """Wait until the element contains all texts. Returns its text."""

        def there() -> str | None:
            text = self.said(selector)
            return text if all(word in text for word in words) else None

        try:
            return self.until(there, f"{selector} says {words}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.said(selector)!r}") from None

    def button(self, text: str) -> WebElement:
        """Wait for a button with this text, or with a name that begins with it."""

        def there() -> WebElement | None:
            for one in self.driver.find_elements(By.CSS_SELECTOR, "button"):
                name = one.get_attribute("aria-label") or ""
                if (one.text == text or name.startswith(text)) and one.is_displayed():
                    return one
            return None

        return self.until(there, f"there is a button {text!r}")

    def press(self, element: WebElement) -> None:
        """Scroll to an element, away from the bars at the edges of the window, and click it."""
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def press_button(self, text: str) -> None:
        """Wait for a button as `button` does, and press it; one that is replaced meanwhile is looked up again."""

        def pressed() -> bool:
            self.press(self.button(text))
            return True

        self.until(pressed, f"button {text!r} can be pressed")

    def until(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait as `eventually` does; elements that are replaced meanwhile are looked up again."""

        def tried() -> T | None:
            try:
                return condition()
            except StaleElementReferenceException:
                return None

        return eventually(tried, what)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return the result of JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """Return the errors in the browser's console, without refusals of the API."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [one["message"] for one in entries if one["source"] != "network"]


CERTUTIL = shutil.which("certutil")
needs_certutil = pytest.mark.skipif(CERTUTIL is None, reason="certutil is not installed (Debian: libnss3-tools)")


def believe(authority: Path, home: Path) -> None:
    """Import an authority for a browser, as a person does in its settings."""
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    for arguments in (["-N", "--empty-password"], ["-A", "-n", "compass", "-t", "C,,", "-i", str(authority)]):
        subprocess.run([str(CERTUTIL), "-d", f"sql:{store}", *arguments], check=True, timeout=60)


@contextmanager
def browser(*trusted: Path, home: Path | None = None) -> Iterator[Browser]:
    """Open a browser with its own profile that accepts servers with these certificates, or trusts authorities as
    `home` does."""
    surroundings = {**os.environ, **({"HOME": str(home)} if home else {})}
    with tempfile.TemporaryDirectory(prefix="console-browser-") as profile:
        options = Options()
        options.binary_location = str(CHROMIUM)
        for flag in FLAGS:
            options.add_argument(flag)
        options.add_argument(f"--user-data-dir={profile}")
        if trusted:
            options.add_argument(f"--ignore-certificate-errors-spki-list={','.join(map(key_hash, trusted))}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(str(DRIVER), env=surroundings))
        try:
            yield Browser(driver)
        finally:
            driver.quit()


def token(deployment: Deployment, name: str, role: str = "admin") -> str:
    """Return a token, made as an administrator makes it."""
    return deployment.opengnsadmin("token", "add", name, "--role", role).split()[-1]


def refused_by_browser(window: Browser, url: str) -> str:
    """Open a page that the browser must refuse. Returns its message."""
    try:
        window.driver.get(url)
    except WebDriverException as error:
        return str(error.msg)
    return window.driver.page_source
