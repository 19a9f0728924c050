"""A service of the scene: an HTTP server that says who it is, and that it is well at /health."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answering(BaseHTTPRequestHandler):
    """GET / names the service and its address; the failure desk's probe asks for /health."""

    def do_GET(self) -> None:
        who = "{OPENGNS_SERVICE} at {OPENGNS_ADDRESS}:{OPENGNS_PORT}".format_map(os.environ)
        text = "well\n" if self.path == "/health" else f"{who}\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the scene prints the events."""


def main() -> None:
    """Serve where `opengnsc run` says, until a signal ends it."""
    with ThreadingHTTPServer((os.environ["OPENGNS_ADDRESS"], int(os.environ["OPENGNS_PORT"])), Answering) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
