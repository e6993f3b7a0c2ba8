"""Markdown in which no text of the data becomes markup."""

from collections.abc import Iterator, Sequence


def cell(text: str) -> str:
    """Returns a text that is one cell or one line, whatever it holds."""
    plain = " ".join(text.split()).replace("\\", "\\\\")
    for mark, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "\\`"), ("@", "&#64;")):
        plain = plain.replace(mark, written)
    for mark in "*[]~":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table."""
    yield f"| {' | '.join(map(cell, columns))} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(map(cell, row))} |"
