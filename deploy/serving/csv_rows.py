"""Rows of a table in CSV (RFC 4180)."""

import csv
import io
from typing import Final

from deploy.serving.calls import Refusal

MEDIA_TYPE: Final = "text/csv"

Row = dict[str, str | None]


def read_rows(content: bytes, most: int) -> list[Row]:
    """Rows by the header's names; an empty cell is a missing value. Raises Refusal: 400, or 413 for more than `most`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the CSV is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = _checked(next(lines, []))
        for cells in lines:
            if not cells:
                continue
            if len(cells) != len(header):
                raise Refusal(400, f"line {lines.line_num} of the CSV has {len(cells):,} cells, its header {len(header):,}")
            if len(rows) == most:
                raise Refusal(413, f"the CSV has more than {most:,} rows, the limit: send several requests")
            rows.append({name: cell or None for name, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise Refusal(400, f"line {lines.line_num} of the CSV cannot be read: {error}") from None
    return rows


def _checked(header: list[str]) -> list[str]:
    if not header:
        raise Refusal(400, "the CSV is empty: its first line names the columns")
    seen: set[str] = set()
    for name in header:
        if name in seen:
            raise Refusal(400, f"the CSV's header has '{name}' twice")
        seen.add(name)
    return header
