"""Which candidates are made, which are trained, and what another budget costs."""

import errno
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest

from tasks.compress import CompressResult, compress
from tasks.compression import COMPRESSORS, Compressor, Subject
from tasks.compression.chain import chains
from tasks.compression.graph import GraphOptimized
from tasks.compression.prune import Prune
from tasks.core.stages import StageStore
from tests.conftest import REPOSITORY
from tests.flows.conftest import environment
from tests.tiny import Stages, recipe

TRAINED: list[tuple[float, int]] = []
"""The share of neurons that went, and the epochs, of everything that was made by `Lesson`."""


class Counted(Prune):
    """Pruning that is noted."""

    def compress(self, source: Path, target: Path, subject: Subject) -> None:
        TRAINED.append((self.neurons, self.epochs))
        super().compress(source, target, subject)


class Useless(Compressor):
    """It would take training, and makes nothing smaller."""

    epochs: int = 4

    def taught(self, share: float) -> Self:
        return self.model_copy(update={"epochs": round(self.epochs * share)})

    def compress(self, source: Path, target: Path, subject: Subject) -> None:
        assert not self.epochs, "it was trained for nothing"
        target.write_bytes(source.read_bytes())


@pytest.fixture(autouse=True)
def _in_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    import tasks.compression as package  # noqa: PLC0415 - to put them where a catalog's line may point

    for kind, component in (("counted", Counted), ("useless", Useless)):
        monkeypatch.setattr(package, component.__name__, component, raising=False)
        monkeypatch.setitem(COMPRESSORS._entries, kind, f"tasks.compression:{component.__name__}")
    TRAINED.clear()


def searched(stages: Stages, out: Path, store: StageStore | None = None, **compression: Any) -> CompressResult:
    out.mkdir()
    return compress(recipe(compression=compression), stages.encoded, stages.folder("exported"), out, stages.folder("trained"), store)


def test_what_could_win_is_trained_to_the_end(stages: Stages, tmp_path: Path) -> None:
    found = searched(stages, tmp_path / "out", compressors=[{"kind": "counted", "epochs": 2}], limits={"metric_drop": None})
    assert TRAINED == [(0.5, 0), (0.5, 2)]
    assert found.chosen == "counted"


def test_what_is_no_better_than_what_needs_no_training_is_not_trained(stages: Stages, tmp_path: Path) -> None:
    found = searched(stages, tmp_path / "out", compressors=[{"kind": "int8_dynamic"}, {"kind": "useless"}], limits={"metric_drop": None})
    assert found.failed == {"useless": "not trained: what needs no training is better by the objective, size"}


def test_what_is_too_large_is_not_trained(stages: Stages, tmp_path: Path) -> None:
    limits = {"size_ratio": 0.9, "metric_drop": None}
    found = searched(stages, tmp_path / "out", compressors=[{"kind": "counted", "epochs": 1}, {"kind": "useless"}], limits=limits)
    assert found.failed["useless"].startswith("not trained: its size beside fp32, 1.0")
    assert found.chosen == "counted"


def test_of_many_the_better_half_is_trained_to_the_end(stages: Stages, tmp_path: Path) -> None:
    shares = (0.2, 0.4, 0.6, 0.8)
    kinds = [{"kind": "counted", "neurons": share, "epochs": 4} for share in shares]
    found = searched(stages, tmp_path / "out", compressors=kinds, limits={"metric_drop": None})
    assert sorted(TRAINED)[:4] == sorted([(share, epochs) for share in shares for epochs in (0, 1)])[:4]
    assert sum(epochs == 4 for _, epochs in TRAINED) == 2
    behind = [reason for reason in found.failed.values() if reason.startswith("not trained to the end: after a quarter its validation")]
    assert len(behind) == 2


def test_what_begins_with_the_same_training_is_ahead_with_it(stages: Stages, tmp_path: Path) -> None:
    tails = ({"kind": "int8_weights"}, {"kind": "int8_dynamic"})
    kinds = [[{"kind": "counted", "neurons": share, "epochs": 4}, tail] for share in (0.2, 0.4, 0.6) for tail in tails]
    found = searched(stages, tmp_path / "out", compressors=kinds, limits={"metric_drop": None})
    assert sum(epochs == 4 for _, epochs in TRAINED) == 2
    assert all(reason.startswith("not trained to the end: after a quarter") for reason in found.failed.values())
    assert (len(found.failed), len(found.candidates)) == (2, 1 + 4)


def test_another_budget_chooses_anew_without_making_anything(stages: Stages, tmp_path: Path) -> None:
    store, kinds = StageStore(tmp_path / "store"), [{"kind": "counted", "epochs": 1}]
    first = searched(stages, tmp_path / "first", store, compressors=kinds, limits={"metric_drop": None})
    made = len(TRAINED)
    again = searched(stages, tmp_path / "again", store, compressors=kinds, limits={"metric_drop": 0.5})
    assert len(TRAINED) == made
    assert [each.name for each in again.candidates] == [each.name for each in first.candidates]
    assert [each.test for each in again.candidates] == [each.test for each in first.candidates]


def test_a_search_that_was_broken_off_keeps_what_it_had(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, kinds = StageStore(tmp_path / "store"), [{"kind": "counted", "epochs": 1}, {"kind": "useless"}]
    with monkeypatch.context() as broken:

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        broken.setattr(Useless, "compress", interrupt)
        with pytest.raises(KeyboardInterrupt):
            searched(stages, tmp_path / "first", store, compressors=kinds)
    assert TRAINED == [(0.5, 0)]
    searched(stages, tmp_path / "again", store, compressors=kinds, limits={"metric_drop": None})
    assert TRAINED == [(0.5, 0), (0.5, 1)]


def test_the_fallback_is_left_out_where_others_are_within_the_limits(stages: Stages, tmp_path: Path) -> None:
    found = searched(stages, tmp_path / "out", compressors=[], fallback=[{"kind": "counted"}])
    assert found.failed == {"counted": "not needed: others are within the limits"}
    assert TRAINED == []


def test_the_fallback_is_made_where_no_other_is_within_the_limits(stages: Stages, tmp_path: Path) -> None:
    fallback, limits = [{"kind": "counted", "epochs": 1}], {"size_ratio": 0.9, "metric_drop": None}
    found = searched(stages, tmp_path / "out", compressors=[{"kind": "graph"}], fallback=fallback, limits=limits)
    assert [each.name for each in found.candidates] == ["fp32", "graph", "counted"]
    assert found.chosen == "counted"


def test_variants_of_one_kind_are_told_apart_by_the_words_among_their_options() -> None:
    static = [{"kind": "int8_static", "method": method, "rows": 64} for method in ("minmax", "percentile", "percentile")]
    found = chains(recipe(compression={"compressors": static, "fallback": [[{"kind": "prune"}, {"kind": "graph"}]]}))
    assert [chain.name for chain in found] == ["int8_static", "int8_static-percentile", "int8_static-2", "prune.graph"]
    assert [chain.fallback for chain in found] == [False, False, False, True]


_KILLED_AS_IT_MAKES_THE_THIRD = """
import os, signal, sys
from pathlib import Path
from tasks.compress import compress
from tasks.compression.int8_weights import Int8Weights
from tasks.core.encoded import Encoded
from tasks.core.stages import StageStore
from tests.tiny import recipe
def killed(self, source, target, subject):
    target.write_bytes(b"half a file")
    os.kill(os.getpid(), signal.SIGKILL)
Int8Weights.compress = killed
root, out, store = map(Path, sys.argv[1:])
compress(recipe(compression={"compressors": [{"kind": kind} for kind in ("graph", "int8_dynamic", "int8_weights")]}),
    Encoded(root / "encoded"), root / "exported", out, root / "trained", StageStore(store))
"""


def test_a_search_that_was_killed_makes_nothing_again_that_it_had_made(stages: Stages, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    out.mkdir()
    command = [sys.executable, "-c", _KILLED_AS_IT_MAKES_THE_THIRD, str(stages.root), str(out), str(tmp_path / "store")]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*/*/result.json")}
    assert len(before) == 6, "what all begin from, two variants, and the answers of these and of fp32"
    kinds = [{"kind": kind} for kind in ("graph", "int8_dynamic", "int8_weights")]
    found = searched(stages, tmp_path / "again", StageStore(tmp_path / "store"), compressors=kinds)
    assert [each.name for each in found.candidates] == ["fp32", "graph", "int8_dynamic", "int8_weights"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list((tmp_path / "store").glob("*/*.partial"))


def test_a_disk_that_fills_up_costs_the_candidate_in_hand_alone(stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, kinds = StageStore(tmp_path / "store"), [{"kind": "counted", "epochs": 0}, {"kind": "graph"}]

    def full(_self: Any, _source: Path, target: Path, _subject: Subject) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as filled:
        filled.setattr(GraphOptimized, "compress", full)
        with pytest.raises(OSError, match="No space left"):
            searched(stages, tmp_path / "first", store, compressors=kinds)
    found = searched(stages, tmp_path / "again", store, compressors=kinds)
    assert [each.name for each in found.candidates] == ["fp32", "counted", "graph"]
    assert TRAINED == [(0.5, 0)]
