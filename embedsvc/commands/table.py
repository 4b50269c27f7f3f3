"""Tables on the terminal."""

from collections.abc import Sequence

from embedsvc.wording.plain import within_line


def write_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as they need to be. Each row stays on one line."""
    table = [list(map(within_line, row)) for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
