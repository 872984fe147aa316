"""Cross-validate: how many folds the rows allow."""

from pathlib import Path

import pytest

from tasks.core.errors import ConfigError
from tasks.cross_validate import cross_validate
from tests.tiny import TABLE, recipe, write_prepared


def test_more_folds_than_rows_are_refused_before_any_is_trained(tmp_path: Path) -> None:
    prepared = write_prepared(tmp_path / "prepared", rows={"train": 12, "validation": 4, "test": 4})
    with pytest.raises(ConfigError, match=r"^evaluation\.folds: 50 folds are more than the \d+ different rows of any class") as caught:
        cross_validate(recipe(evaluation={"folds": 50}), TABLE, prepared, tmp_path)
    assert caught.value.do.startswith("set at most ")
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]


def test_one_fold_is_none() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.folds: .*one fold leaves no rows to train on"):
        recipe(evaluation={"folds": 1})
