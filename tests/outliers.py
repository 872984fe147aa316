"""The points of `tests.tiny`, but for one row of the validation and one of the test split, in which a number slipped by three places."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests import tiny

INT8 = {"compression": {"compressors": [{"kind": "int8_dynamic"}], "limits": {"metric_drop": 1.0}}}


def run_with_outliers(root: Path, **sections: Any) -> tiny.Stages:
    """A net that is trained on good rows. Quantised dynamically, it loses sight of every row beside the bad one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny._MAKERS, "outliers", _slipped)
        patch.setitem(tiny.DATASETS, "outliers", tiny.TABLE)
        return tiny.Stages.run(root, "outliers", **{**INT8, **sections})


def _slipped(random: np.random.Generator, rows: int) -> tiny.Rows:
    columns, targets = tiny._table(random, rows)
    if rows != tiny.ROWS["train"]:
        values = columns["b"].to_numpy(zero_copy_only=False).copy()
        values[0] = 1500.0
        columns["b"] = pa.array(values, from_pandas=True)
    return columns, targets
