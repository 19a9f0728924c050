"""An ASGI application that is registered while it is served.

    OPENGNS_SERVICE=chinaserver.openuss OPENGNS_CREDENTIAL_FILE=chinaserver.token ADDRESS=127.0.0.1 PORT=8001 \\
        uvicorn examples.asgi_app:app --host 127.0.0.1 --port 8001

Frameworks (FastAPI, Starlette, Quart, Django) are ASGI applications, too: `app = Registered(FastAPI(), ...)`.
"""

from __future__ import annotations

import os

from compass.client.asgi import Message, Receive, Registered, Send

SERVICE = os.environ.get("OPENGNS_SERVICE", "chinaserver.openuss")
ADDRESS, PORT = os.environ.get("ADDRESS", ""), int(os.environ.get("PORT", "8000"))


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Says who it is."""
    if scope["type"] != "http":
        raise RuntimeError(f"{scope['type']} is not served here")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    text = f"{SERVICE} on port {PORT}, an ASGI application\n"
    await send({"type": "http.response.body", "body": text.encode()})


app = Registered(application, SERVICE, PORT, address=ADDRESS)
