"""Hooks of gunicorn: the master registers the port for all of its workers, once it listens.

    gunicorn --config examples/gunicorn_conf.py examples.wsgi_app:app

The daemon watches the master's process; the master replaces a worker that dies, and the registration stays.
"""

from __future__ import annotations

import os
from typing import Any

from compass import client

ADDRESS, PORT = os.environ.get("ADDRESS", "127.0.0.1"), int(os.environ.get("PORT", "8000"))
SERVICE = os.environ.get("OPENGNS_SERVICE", "portal.web")

bind = f"{ADDRESS}:{PORT}"
workers = 2
registrations: list[client.Registration] = []


def when_ready(server: Any) -> None:
    """The master listens."""
    registrations.append(client.register(SERVICE, PORT, address=ADDRESS))


def on_exit(server: Any) -> None:
    """The master ends."""
    for registration in registrations:
        registration.end()
