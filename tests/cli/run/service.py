"""Service to run under `opengnsc run`: it listens, logs its signals, and ends as the options say.

service.py FILE [--deaf] [--end STATUS] [--stubborn]
"""

import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    file, options = Path(sys.argv[1]), sys.argv[2:]
    with file.open("a", buffering=1) as log:

        def note(number: int, frame: FrameType | None) -> None:
            log.write(f"{signal.Signals(number).name}\n")
            if number == signal.SIGTERM and "--stubborn" not in options:
                sys.exit(int(options[options.index("--end") + 1]) if "--end" in options else 0)

        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, note)
        place = (os.environ.get("OPENGNS_ADDRESS", "127.0.0.1"), int(os.environ["OPENGNS_PORT"]))
        known = sorted(name for name in os.environ if name.startswith("OPENGNS_"))
        log.write(f"pid {os.getpid()} {' '.join(known)} {os.environ['OPENGNS_SERVICE']}\n")
        if "--deaf" in options:
            signal.pause()
        with socket.create_server(place) as listening:
            while True:
                listening.accept()[0].close()


main()
