"""Draw the state diagrams in `protocols/opengnsp/behaviour/sessions.md` from the table of states.

python -m tests.wire.make_diagrams
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from compass.wire.states import End, diagram

PATH = Path(__file__).parents[2] / "protocols" / "opengnsp" / "behaviour" / "sessions.md"


def drawn(document: str) -> str:
    """Replace what stands between each pair of markers. Returns the new text of the chapter."""
    for end in get_args(End):
        block = f"<!-- states:{end} -->\n```mermaid\n{diagram(end)}\n```\n<!-- /states:{end} -->"
        marked = re.findall(rf"<!-- states:{end} -->.*?<!-- /states:{end} -->", document, flags=re.DOTALL)
        if len(marked) != 1:
            raise ValueError(f"{PATH}: {len(marked)} pairs of markers states:{end} instead of one")
        document = document.replace(marked[0], block)
    return document


if __name__ == "__main__":
    PATH.write_text(drawn(PATH.read_text()))
    print(f"{PATH}: diagrams drawn")
