"""A report of tables and pictures, as Markdown and as one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mien.evaluate.markdown import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2b33; margin: 2rem auto; max-width: 62rem;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; border-bottom: 2px solid #6b7a83; padding: .25rem .9rem .25rem 0; }
td { border-bottom: 1px solid #dfe5e8; padding: .25rem .9rem .25rem 0; }
img { max-width: 100%; display: block; margin: .5rem 0; }
p.note { color: #4c5a62; }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table under a heading, with a sentence below it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What is shown to people. Texts are plain, not markup."""

    title: str
    lead: Sequence[str] = ()
    """Sentences before the tables: the verdict first."""
    tables: Sequence[Table] = ()

    def to_markdown(self) -> str:
        """Headings, sentences and tables."""
        parts = [f"# {self.title}", *self.lead]
        for table in self.tables:
            parts += [f"## {table.title}", markdown_table(table.head, table.rows)]
            parts += [table.note] if table.note else []
        return "\n\n".join(parts) + "\n"

    def to_html(self, figures: Sequence[Figure] = ()) -> str:
        """A page with the pictures in it; opens without a network."""
        parts = [f"<p>{html.escape(line)}</p>" for line in self.lead]
        parts += [f'<img alt="" src="data:image/png;base64,{_png(one)}">' for one in figures]
        parts += [_html_table(table) for table in self.tables]
        title = html.escape(self.title)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n"
            + "\n".join(parts)
            + "\n</body></html>\n"
        )


def _html_table(table: Table) -> str:
    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    rows = "\n".join(line([*row, *[""] * (len(table.head) - len(row))], "td") for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    head = line(table.head, "th")
    return f"<h2>{html.escape(table.title)}</h2>\n<table>{head}\n{rows}</table>{note}"


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode()
