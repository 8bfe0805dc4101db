"""Tables on a terminal, and as lines that other programs can read."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

SHORT = 24
"""Characters of a column, other than the last, that are never cut."""
PIPE_WIDTH = 10_000
"""Columns of text where there is no terminal: nothing is cut."""


def print_table(
    names: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """Prints rows of text under their names; columns in ``numbers`` are set to the right."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(names):
        longest = max((len(row[number]) for row in rows), default=0)
        table.add_column(
            Text(name),
            justify="right" if name in numbers else "left",
            overflow="ellipsis",
            no_wrap=True,
            # The last column is the one to be cut where there is too little room.
            min_width=None if name == names[-1] else min(max(len(name), longest), SHORT),
        )
    for row in rows:
        # Text, not str: a clip may be called "[b]", which would be taken for markup.
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def plain_table(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values below each other."""
    width = max((len(name) for name, _ in facts), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {value.replace(chr(10), indent)}" for name, value in facts)
