"""What validation found: each check, the rows that fail it, and where to look."""

from pathlib import Path

from tasks.core.config import Config

EXAMPLES = 5
"""Failing rows that a report shows for each check."""


class Check(Config):
    """One expectation. `column` is empty where it concerns whole rows or the whole table."""

    expectation: str
    column: str = ""
    success: bool
    unexpected: int = 0
    """Rows that fail; classes, for an expectation about classes."""
    examples: tuple[str, ...] = ()
    detail: str = ""
    """What was expected, and what was found where that is one figure."""


class Report(Config):
    """`report.json`. `file` is the one to edit where an expectation is wrong, and not the data."""

    dataset: str
    file: str
    success: bool
    rows: dict[str, int]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.success)

    def table(self) -> str:
        """The failed checks as aligned text, with examples below each."""
        cells = [("expectation", "column", "rows", "expected")]
        cells += [
            (check.expectation, check.column or "—", f"{check.unexpected:,}" if check.unexpected else "—", check.detail)
            for check in self.failed
        ]
        widths = [max(len(row[index]) for row in cells) for index in range(3)]
        lines = [f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in cells]
        for place, check in reversed(list(enumerate(self.failed, start=1))):
            lines[place + 1 : place + 1] = [f"    {example}" for example in check.examples]
        return "\n".join(lines)


def read_report(path: Path) -> Report:
    """The report in a `validated` folder's `report.json`."""
    return Report.model_validate_json(path.read_bytes())
