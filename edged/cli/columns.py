"""Plain columns for terminals, pipes and reports alike: no colour, no box drawing, nothing cut off."""

from __future__ import annotations

from collections.abc import Sequence


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Lines with the head first; columns whose index is in `right` are set flush right."""
    table = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(heads))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
