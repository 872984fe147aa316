"""What servers found out about a champion and its challenger, read and summed."""

from pathlib import Path

import pytest

from tasks.core.comparison import Comparison, Seconds, Tally, comparison_file, read_comparison
from tasks.core.errors import ConfigError


def add(folder: Path, process: str, rows: int, agreed: int, bounds: tuple[float, ...] = (0.1, 1.0), challenger: str = "4") -> None:
    seconds = Seconds(bounds=bounds, counts=(1, 2, 0), total=rows / 10)
    sides = [Tally(version=version, requests=rows, failures=1, seconds=seconds) for version in ("3", challenger)]
    found = Comparison(
        model="people",
        champion=sides[0],
        challenger=sides[1],
        rows=rows,
        agreed=agreed,
        dropped=2,
        since=f"2026-01-0{rows}",
        until=f"2026-02-0{rows}",
    )
    path = comparison_file(folder, found, process)
    path.parent.mkdir(exist_ok=True)
    path.write_text(found.model_dump_json())


def test_all_processes_are_summed(tmp_path: Path) -> None:
    add(tmp_path, "a", 4, 4)
    add(tmp_path, "b", 2, 1)
    add(tmp_path, "c", 9, 9, challenger="5")
    add(tmp_path, "d", 9, 9, challenger="4-5")
    found = read_comparison(tmp_path, "people", "3", "4")
    assert found
    assert (found.rows, found.agreed, found.dropped, found.agreement) == (6, 5, 4, 5 / 6)
    assert (found.since, found.until) == ("2026-01-02", "2026-02-04")
    for side in (found.champion, found.challenger):
        assert (side.requests, side.failures, side.seconds.counts) == (6, 2, (2, 4, 0))
        assert side.seconds.mean == pytest.approx(0.1)


def test_where_nothing_was_found_out_there_is_nothing(tmp_path: Path) -> None:
    assert read_comparison(tmp_path, "people", "3", "4") is None


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2}', "[1]"])
def test_what_is_no_comparison_is_named(tmp_path: Path, text: str) -> None:
    add(tmp_path, "a", 4, 4)
    (tmp_path / "people" / "3-4-b.json").write_text(text)
    with pytest.raises(ConfigError, match=r"3-4-b\.json is no comparison"):
        read_comparison(tmp_path, "people", "3", "4")


def test_histograms_of_other_bounds_are_not_added(tmp_path: Path) -> None:
    add(tmp_path, "a", 4, 4)
    add(tmp_path, "b", 4, 4, bounds=(0.2, 1.0))
    with pytest.raises(ConfigError, match="other bounds"):
        read_comparison(tmp_path, "people", "3", "4")
