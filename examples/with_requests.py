"""requests over a name: `gns://openuss/` in place of a host and a port.

python examples/with_requests.py gns://openuss/
"""

from __future__ import annotations

import sys

from compass.client.requests import Session


def main() -> None:
    """Ask, and print the answer."""
    with Session() as web:
        answer = web.get(sys.argv[1], timeout=3)
        answer.raise_for_status()
        print(answer.text, end="")


if __name__ == "__main__":
    main()
