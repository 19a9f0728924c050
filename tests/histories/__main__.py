"""`python -m tests.histories FILE...`: check recorded runs, and print what they break."""

import sys
from pathlib import Path

from tests.histories.checker import check
from tests.histories.reading import read

if __name__ == "__main__":
    violations = check(read(*map(Path, sys.argv[1:])))
    print(*violations, sep="\n")
    sys.exit(bool(violations))
