"""Tables for people who read them in a terminal or on a page."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; short rows are filled with blanks."""
    full = [[*row, *[""] * (len(head) - len(row))] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in full) for i in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in full]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
