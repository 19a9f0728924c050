"""Checks real daemons against their OpenAPI documents with schemathesis: `make api-check`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.apicheck.check import check_host, check_server

parser = argparse.ArgumentParser(prog="python -m tests.apicheck", description=__doc__)
parser.add_argument("--examples", type=int, default=200, help="so many random requests for each operation")
parser.add_argument("--api", choices=["host", "server"], help="only this one")
given = parser.parse_args()
statuses = []
for name, check in (("host", check_host), ("server", check_server)):
    if given.api in (None, name):
        with tempfile.TemporaryDirectory() as directory:
            statuses.append(check(Path(directory), given.examples, []))
sys.exit(max(statuses))
