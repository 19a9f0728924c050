"""The wheel, built once and installed outside of the checkout.

The libraries are those of the environment of these tests, by a path file: fetching them again shows nothing of
compass. `make wheel-check` fetches them, into an empty environment.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def built(directory: Path) -> Path:
    """The wheel, made there from a copy: what other builds left in the checkout must not get into it."""
    source = directory / "source"
    kept = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    wanted = ("compass/", "contrib/", "examples/", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
    for name in kept.stdout.decode().split("\0"):
        if name.startswith(wanted) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(source)]
    subprocess.run(command, check=True, cwd=directory)
    (wheel,) = directory.glob("*.whl")
    return wheel


def installed(wheel: Path, directory: Path) -> Path:
    """An environment with the wheel in it; its `bin`."""
    home = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run([*PIP, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    # A plain path: the path files in there, that of the editable checkout too, are not followed.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def names(wheel: Path) -> list[str]:
    """Return the names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()
