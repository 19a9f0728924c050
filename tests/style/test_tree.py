"""The tree below compass/: no circles of files or folders, no full folders, and files that are found by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.style.shape import Shape
from tests.style.terms import TERMS
from tests.style.tree import Tree, circles, mutual

FOUND_MIN = 44
"""Of the 48 terms."""


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree()


def test_no_two_folders_import_each_other(tree: Tree) -> None:
    """A folder does not import one that imports it, also not for types alone."""
    assert not mutual(tree.folders)


def test_folders_form_no_circle(tree: Tree) -> None:
    """No folder reaches itself through others."""
    assert not circles(tree.folders)


def test_files_form_no_circle(tree: Tree) -> None:
    """No file reaches itself through others."""
    assert not circles(tree.imports)


def test_no_folder_is_full() -> None:
    """A folder has at most 13 modules."""
    assert not Shape().full_folders()


def test_a_stranger_finds_the_file_by_its_name(tree: Tree) -> None:
    """At least 44 of 48 terms of the field lead to the right file, by the names of folders, files and classes alone."""
    assert len(TERMS) == 48
    missed = tree.missed()
    assert len(TERMS) - len(missed) >= FOUND_MIN, "\n".join(missed)


def test_every_path_of_the_terms_exists() -> None:
    """A file that moves takes its entry in the table of terms along."""
    root = Path(__file__).parents[2] / "compass"
    gone = [f"{term}: {path}" for term, paths in TERMS.items() for path in paths if not (root / path).exists()]
    assert not gone


def test_imports_and_circles_are_found_wherever_they_hide(tmp_path: Path) -> None:
    """An import in a function, a relative one, and one for types alone count as any other."""
    files = {
        "compass/__init__.py": "",
        "compass/a/__init__.py": "",
        "compass/a/one.py": "def f():\n    from compass.a.deep import two\n",
        "compass/a/deep/__init__.py": "",
        "compass/a/deep/two.py": "if TYPE_CHECKING:\n    from ...b.three import Name\n",
        "compass/b/three.py": "import compass.a.one\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tree = Tree(tmp_path / "compass")
    assert tree.imports["compass/a/one.py"] == {"compass/a/deep/two.py"}
    assert tree.imports["compass/a/deep/two.py"] == {"compass/b/three.py"}
    assert not mutual(tree.folders)
    assert circles(tree.folders) == ["compass/a, compass/a/deep, compass/b"]
    assert circles(tree.imports) == ["compass/a/deep/two.py, compass/a/one.py, compass/b/three.py"]
    assert mutual({"a": {"b"}, "b": {"a"}}) == ["a and b"]


def test_a_term_is_found_by_whole_words(tmp_path: Path) -> None:
    """Spelling of compounds does not matter; a word inside another one is not found."""
    folder = tmp_path / "compass"
    (folder / "gate").mkdir(parents=True)
    (folder / "gate" / "rate_limit.py").write_text("class HTTPServerLimit: ...\n")
    (folder / "gate" / "separate_limit.py").write_text("class OpenApi: ...\n")
    tree = Tree(folder)
    assert tree.find("rate limit") == tree.find("HTTP server") == {"compass/gate/rate_limit.py"}
    assert tree.find("Open API") == {"compass/gate/separate_limit.py"}
    assert not tree.find("paration")
    assert tree.missed({"rate limit": ("gate/rate_limit.py",), "tls": ("gate/rate_limit.py",)}) == [
        "tls: expected gate/rate_limit.py, found nothing"
    ]
