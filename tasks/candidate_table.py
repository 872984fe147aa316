"""The candidates of a search as a table: its columns, and how they look in a terminal, in Markdown and in a spreadsheet."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tasks.candidate import Candidate


class Found(Protocol):
    """What a search ended with."""

    @property
    def candidates(self) -> Sequence[Candidate]: ...
    @property
    def chosen(self) -> str | None: ...
    @property
    def failed(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Column:
    """A figure of each candidate."""

    head: str
    means: str
    text: Callable[[Candidate], str]
    brief: bool = True
    """Whether it is worth its width in a terminal."""


def _difference(candidate: Candidate) -> str:
    found = candidate.test_difference
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


COLUMNS: Final = (
    Column("kB", "size of its files, in 10³ bytes", lambda each: f"{each.bytes / 1e3:,.1f}", brief=False),
    Column("× fp32", "size beside fp32's", lambda each: f"{each.size_ratio:.2f}"),
    Column("ms, 1 row", "median latency of a request with one row", lambda each: f"{each.latency_ms:.3g}"),
    Column("p99", "99th percentile of the same, ms", lambda each: f"{each.p99_ms:.3g}"),
    Column("rows/s", "throughput in requests with 32 rows", lambda each: f"{each.rows_per_second:,.0f}"),
    Column("MB", "resident memory that a process gains by it, with a request of 32 rows", lambda each: f"{each.memory_mb:,.0f}"),
    Column("load ms", "median time to load it", lambda each: f"{each.load_ms:,.0f}", brief=False),
    Column("validation", "the headline metric on the validation split", lambda each: f"{each.validation:.4f}", brief=False),
    Column("drop", "how much worse than fp32's that is", lambda each: f"{each.validation_drop:+.4f}"),
    Column("test", "the headline metric on the test split", lambda each: f"{each.test:.4f}"),
    Column("test − fp32 [95 %]", "how much better than fp32's that is, with its paired bootstrap interval", _difference, brief=False),
    Column("agrees", "test rows with fp32's label", lambda each: f"{each.agreement:.1%}"),
    Column(
        "ECE",
        "expected calibration error on the test split",
        lambda each: "" if each.calibration_error is None else f"{each.calibration_error:.4f}",
    ),
    Column(
        "in a batch",
        "how far a probability is at most from that of the row alone, when others stand beside it or it is padded longer",
        lambda each: f"±{each.invariance.difference:.1g}",
        brief=False,
    ),
)


def remarks(candidate: Candidate) -> str:
    """The limits that it breaks, whether it takes one row at a time, and whether rows have a thread each."""
    found = candidate.invariance
    alone = f"one row at a time (beside others {found.changed:,} of {found.rows:,} labels change, probabilities by up to {found.difference:.2g})"
    told = [*([alone] if candidate.batch == "one" else []), *(["a thread for each row"] if candidate.parallel == "rows" else [])]
    return "; ".join([*map(str, candidate.misses), *told])


def plain(found: Found) -> str:
    """The columns that fit into a terminal; what was not made comes last, with the reason."""
    columns = [column for column in COLUMNS if column.brief]
    rows = [["", "variant", *(column.head for column in columns), "remarks"]]
    rows += [
        ["→" if each.name == found.chosen else "", each.name, *(column.text(each) for column in columns), remarks(each)]
        for each in found.candidates
    ]
    rows += [["", name, *[""] * len(columns), reason] for name, reason in found.failed.items()]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns) + 2)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows)


def markdown(found: Found) -> str:
    """All columns, the chosen in bold, and what was not made as a list."""
    rows = [["variant", *(column.head for column in COLUMNS), "remarks"], ["---", *["--:"] * len(COLUMNS), "---"]]
    for each in found.candidates:
        name = f"**{each.name}**" if each.name == found.chosen else each.name
        rows.append([name, *(column.text(each) for column in COLUMNS), remarks(each).replace("|", "\\|")])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    left_out = [f"- {name}: {reason}" for name, reason in found.failed.items()]
    return "\n".join([*lines, *(["", "Not made:", "", *left_out] if left_out else [])])


def comma_separated(found: Found) -> str:
    """Every figure as it was measured, which MLflow's page shows as a table."""
    file = io.StringIO()
    figures = [name for name in Candidate.model_fields if name not in ("test_difference", "invariance", "misses")]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*figures, "test_difference", "low", "high", "batch_difference", "chosen", "remarks"])
    for each in found.candidates:
        difference = each.test_difference
        beside = (difference.value, difference.low, difference.high, each.invariance.difference)
        writer.writerow([*(getattr(each, name) for name in figures), *beside, each.name == found.chosen, remarks(each)])
    for name, reason in found.failed.items():
        writer.writerow([name, *[""] * (len(figures) + 4), False, reason])
    return file.getvalue()
