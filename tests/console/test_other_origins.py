"""Pages of other origins in a real Chromium: nothing that they do reaches either HTTP API, whatever its method."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from compass.model.replies import ServerStatus
from compass.model.requests import Status
from tests.console.browser import Browser, browser, needs_chromium
from tests.e2e.deployment import Deployment, Host

pytestmark = needs_chromium

PAGE = """<!doctype html><title>evil</title><body><script>
const targets = TARGETS, seen = {};
const note = (what, how) => { seen[what] = how; };
const load = (make, url, what) => new Promise(done => {
  const element = make(); element.onload = () => { note(what, "loaded"); done(); };
  element.onerror = () => { note(what, "refused"); done(); };
  element.src = url; if (element.localName === "iframe") setTimeout(done, 1500);
  document.body.append(element);
});
const stream = (url, what) => new Promise(done => {
  const source = new EventSource(url, { withCredentials: true });
  source.onopen = () => { note(what, "loaded"); source.close(); done(); };
  source.onerror = () => { note(what, "refused"); source.close(); done(); };
});
window.attack = async () => {
  for (const url of targets) {
    await load(() => new Image(), url + "?i", "img " + url);
    await load(() => document.createElement("script"), url, "script " + url);
    await stream(url, "stream " + url);
    for (const mode of ["no-cors", "cors"]) {
      for (const method of ["GET", "POST"]) {
        const request = { mode, method, credentials: "include", ...(method === "POST" ? { body: "{}" } : {}) };
        await fetch(url, request).then(answer => note(mode + " " + method + " " + url, answer.type + answer.status),
                                       () => note(mode + " " + method + " " + url, "refused"));
      }
    }
  }
  return seen;
};
</script>"""


@contextmanager
def evil_page(targets: list[str]) -> Iterator[str]:
    """Serve the page from an origin of its own."""
    content = PAGE.replace("TARGETS", json.dumps(targets)).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}/"
        served.shutdown()
        thread.join()


def attacked(window: Browser, targets: list[str]) -> dict[str, str]:
    """Open the page and let it try everything. Returns what came of each attempt."""
    with evil_page(targets) as url:
        window.driver.set_script_timeout(60)
        window.driver.get(url)
        seen: dict[str, str] = window.driver.execute_async_script(
            "const done = arguments[0]; attack().then(done, problem => done({ failed: String(problem) }));"
        )
    assert "failed" not in seen and len(seen) > len(targets)
    return seen


@pytest.fixture(scope="module")
def host(deployment: Deployment) -> Host:
    """A host whose API a page may try to reach."""
    (made,) = deployment.add_hosts("victim")
    return made


def test_a_page_reaches_nothing_of_the_host_s_api(deployment: Deployment, host: Host) -> None:
    """B4: neither images, scripts, streams nor requests without CORS get an answer or change what the host follows."""
    before = host.status()
    assert before is not None
    revision = deployment.ask(Status(), ServerStatus).revision
    paths = [f"/v1/dependencies/x{n}.web" for n in range(3)]
    paths += ["/v1/dependencies/portal.web", "/v1/watch?service=portal.web", "/v1/status", "/healthz", "/nothing"]
    with browser() as window:
        seen = attacked(window, [host.url + path for path in paths])
    assert not any(how == "loaded" or how.startswith(("basic", "cors")) for how in seen.values()), seen
    # A request without CORS gives a page an empty, opaque answer; what was refused is not even that.
    assert not any(how.startswith("opaque") for how in seen.values()), seen
    after = host.status()
    assert after is not None and after.services == before.services
    assert deployment.ask(Status(), ServerStatus).revision == revision


def test_a_page_reaches_nothing_of_the_server_s_api(deployment: Deployment) -> None:
    """B4: the same at the HTTPS port, open paths and the console's files included."""
    paths = ["/v1/status", "/v1/events", "/healthz", "/openapi.json", "/console/", "/console/api.js", "/nothing"]
    with browser(deployment.directory / "gns1.example.net.crt") as window:
        seen = attacked(window, [deployment.https + path for path in paths])
        assert not any(how != "refused" for how in seen.values()), seen
        # A link of that page to the console works: the user follows it.
        with evil_page([]) as url:
            window.driver.get(url)
            window.run(f"location.href = '{deployment.https}/console/'")
            window.see("#signin-form button")
