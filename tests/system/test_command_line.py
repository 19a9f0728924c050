"""Output of the programs: colours."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from compass.system.command_line import print_text


@click.command()
def shown() -> None:
    """Print a line in a colour."""
    print_text("down", colour="red")


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"),
    [(True, "", True), (True, "1", False), (False, "", False), (False, "1", False)],
)
def test_colours_are_for_terminals_whose_user_wants_them(terminal: bool, no_color: str, coloured: bool) -> None:
    """NO_COLOR counts if it is not empty (no-color.org)."""
    result = CliRunner().invoke(shown, color=terminal, env={"NO_COLOR": no_color})
    assert result.output == ("\x1b[31mdown\x1b[0m\n" if coloured else "down\n")
