"""httpx over a name: `gns://openuss/` in place of a host and a port.

python examples/with_httpx.py gns://openuss/
python examples/with_httpx.py gns://openuss/ --asyncio
"""

from __future__ import annotations

import asyncio
import sys

import httpx

from compass.client.httpx import async_mounts, mounts


def ask(url: str) -> str:
    """Blocking."""
    with httpx.Client(mounts=mounts()) as web:
        return web.get(url).raise_for_status().text


async def ask_on_asyncio(url: str) -> str:
    """Three at once on asyncio."""
    async with httpx.AsyncClient(mounts=async_mounts()) as web:
        answers = await asyncio.gather(*(web.get(url) for _ in range(3)))
    return "".join(answer.raise_for_status().text for answer in answers)


if __name__ == "__main__":
    print(asyncio.run(ask_on_asyncio(sys.argv[1])) if "--asyncio" in sys.argv else ask(sys.argv[1]), end="")
