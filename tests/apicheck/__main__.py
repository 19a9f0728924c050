"""Checks real daemons against their OpenAPI documents with schemathesis: `make api-check`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.apicheck.check import check_host

parser = argparse.ArgumentParser(prog="python -m tests.apicheck", description=__doc__)
parser.add_argument("--examples", type=int, default=200, help="so many random requests for each operation")
given = parser.parse_args()
with tempfile.TemporaryDirectory() as directory:
    statuses = [check_host(Path(directory), given.examples)]
sys.exit(max(statuses))
