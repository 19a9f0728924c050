"""A WSGI application for gunicorn; it is registered by `gunicorn_conf.py`, and uses another service itself.

    OPENGNS_SERVICE=portal.web OPENGNS_CREDENTIAL_FILE=portal.token ADDRESS=127.0.0.1 PORT=8002 \\
        gunicorn --config examples/gunicorn_conf.py examples.wsgi_app:app
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from compass import client

SERVICE = os.environ.get("OPENGNS_SERVICE", "portal.web")


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    """Says which process answers, and whom it would ask. Each worker process watches for itself."""
    try:
        peers = ", ".join(f"{peer.address}:{peer.port}" for peer in client.resolve("openuss").listeners)
        status, text = "200 OK", f"{SERVICE}, process {os.getpid()}, would ask {peers}\n"
    except client.NobodyThere as problem:
        status, text = "503 Service Unavailable", f"{problem}\n"
    start_response(status, [("Content-Type", "text/plain")])
    return [text.encode()]
