"""Following pointers: what is loaded, kept and dropped."""

import asyncio
import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.serving.models import Models
from deploy.serving.settings import Settings
from deploy.serving.workers import Workers
from tasks.core.bundle import describe_variant
from tests.serving.conftest import IMAGE, Served, write_onnx
from tests.texts import write_language_model


def models_of(served: Served) -> Models:
    return Models(served.folder, Workers(Settings()))


def versions(models: Models) -> dict[str, str]:
    return {model.name: model.version for model in models.running()}


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip_a_byte(folder: Path) -> None:
    path = folder / "variants" / "fp32.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove_a_file(folder: Path) -> None:
    (folder / "variants" / "fp32.onnx").unlink()


def escape(folder: Path) -> None:
    variant = describe_variant(folder, "fp32").model_dump()
    edit(folder, variants=[variant | {"file": "../3/variants/fp32.onnx"}])


def write_no_onnx(folder: Path) -> None:
    (folder / "variants" / "fp32.onnx").write_bytes(b"not a model")
    edit(folder, variants=[describe_variant(folder, "fp32").model_dump()])


def write_another_onnx(folder: Path) -> None:
    remove_a_file(folder)
    (folder / "variants").rmdir()
    write_onnx(folder / "variants" / "fp32.onnx", IMAGE, 1.0)
    edit(folder, variants=[describe_variant(folder, "fp32").model_dump()])


def remove_a_label(folder: Path) -> None:
    edit(folder, labels=["high"])


def test_pointers_are_followed(served: Served) -> None:
    models = models_of(served)
    models.refresh()
    assert (models.loaded, versions(models)) == (True, {})
    served.serve("people", "3")
    served.add("waiting", "1")
    models.refresh()
    assert versions(models) == {"people": "3"}
    first = models["people"].model
    served.point("people", "3")
    models.refresh()
    assert models["people"].model is first
    served.serve("people", "4")
    models.refresh()
    assert versions(models) == {"people": "4"}
    (served.folder / "people" / "current.json").unlink()
    models.refresh()
    assert versions(models) == {}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip_a_byte, "variants/fp32.onnx differs from its digest"),
        (remove_a_file, "variants/fp32.onnx is missing"),
        (escape, "lies outside of the bundle"),
        (write_no_onnx, "ONNX Runtime cannot load and run its variant 'fp32'"),
        (remove_a_label, "its output 'logits' has the shape [1, 2], expected [1, 1]"),
        (write_another_onnx, "ONNX Runtime cannot load and run its variant 'fp32'"),
        (lambda folder: edit(folder, chosen="int8"), "no variant 'int8'"),
        (lambda folder: edit(folder, format=9), "has the format 9"),
        (lambda folder: edit(folder, colour="red"), "unknown key 'colour'"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "bundle.json cannot be read"),
        (lambda folder: (folder / "bundle.json").unlink(), "its folder is not a bundle"),
    ],
)
def test_a_broken_version_is_told_and_the_old_one_goes_on(served: Served, damage: Callable[[Path], object], says: str) -> None:
    models = models_of(served)
    served.serve("people", "3")
    served.serve("others", "1")
    models.refresh()
    damage(served.add("people", "4"))
    served.point("people", "4")
    models.refresh()
    assert versions(models) == {"people": "3", "others": "1"}
    problem = models["people"].problem
    assert problem.startswith("version 4 cannot be served: ")
    assert says in problem
    assert str(served.folder) not in problem
    served.serve("people", "5")
    models.refresh()
    assert (versions(models)["people"], models["people"].problem) == ("5", "")


def test_a_text_model_without_its_tokenizer_is_told(served: Served) -> None:
    models = models_of(served)
    write_language_model(served.folder / "writer" / "1")
    (served.folder / "writer" / "1" / "tokenizer.json").unlink()
    served.point("writer", "1")
    models.refresh()
    assert models["writer"].problem == "version 1 cannot be served: bundle 'writer': tokenizer.json is missing"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '"3"', '{"version": 3}', '{"version": "../3"}', '{"version": "/"}', '{"version": ""}', "\x00"]
)
def test_an_unreadable_pointer_keeps_what_is_loaded(served: Served, text: str) -> None:
    models = models_of(served)
    served.serve("people", "3")
    models.refresh()
    (served.folder / "people" / "current.json").write_text(text)
    models.refresh()
    assert versions(models) == {"people": "3"}
    assert "its pointer" in models["people"].problem


def test_a_broken_version_is_tried_again_after_ever_longer_pauses_and_told_of_once(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    now, tries = 0.0, []
    models = Models(served.folder, workers := Workers(Settings()), clock=lambda: now)
    served.serve("people", "2")
    models.refresh()
    folder = served.add("people", "3")
    content = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text("{")
    served.point("people", "3")
    for second in range(250):
        now, before = float(second), workers.metrics.of("people").reloads["failed"]
        models.refresh()
        if workers.metrics.of("people").reloads["failed"] > before:
            tries.append(second)
    assert tries == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    (folder / "bundle.json").write_text(content)
    now = 303.0
    models.refresh()
    assert (versions(models), models["people"].problem) == ({"people": "3"}, "")


def test_a_pointer_that_is_written_again_is_followed_at_once(served: Served) -> None:
    models = Models(served.folder, Workers(Settings()), clock=lambda: 0.0)
    folder = served.add("people", "3")
    content = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text("{")
    served.point("people", "3")
    models.refresh()
    (folder / "bundle.json").write_text(content)
    models.refresh()
    assert versions(models) == {}
    served.point("people", "3")
    models.refresh()
    assert versions(models) == {"people": "3"}


def test_strange_names_are_told(served: Served) -> None:
    models = models_of(served)
    served.serve("two words", "1")
    served.serve(".hidden", "1")
    (served.folder / "a file").write_text("")
    models.refresh()
    assert {name: entry.problem.partition(" ")[0] for name, entry in models.items()} == {"two words": "a"}


def test_much_work_runs_beside_the_event_loop_and_agrees(served: Served) -> None:
    models = models_of(served)
    served.serve("people", "3")
    models.refresh()
    model = models["people"].model
    assert model
    rows = np.random.default_rng(0).normal(size=(200_000, 6)).astype(np.float32)

    async def both() -> tuple[Any, Any]:
        found = [await model.batcher.run({"x": each}) for each in (rows, rows[:1])]
        return found[0].outputs["logits"], found[1].outputs["logits"]

    many, one = asyncio.run(both())
    assert many[0] == pytest.approx(one[0])


def both(served: Served, traffic: str) -> Models:
    served.add("people", "3")
    served.add("people", "4", slope=-1.0)
    served.point("people", "3", "4", traffic)
    models = models_of(served)
    models.refresh()
    return models


def test_another_share_loads_nothing(served: Served) -> None:
    models = both(served, "canary 10%")
    before = dict(models["people"].models)
    served.point("people", "3", "4", "canary 50%")
    models.refresh()
    contest = models["people"].contest
    assert contest
    assert contest.traffic.share == 0.5
    assert all(models["people"].models[version] is model for version, model in before.items())


def test_a_challenger_that_is_promoted_is_not_loaded_again(served: Served) -> None:
    models = both(served, "canary 10%")
    promoted = models["people"].models["4"]
    served.point("people", "4")
    models.refresh()
    assert models["people"].model is promoted
    assert models["people"].contest is None


def test_the_two_change_places_without_being_loaded_again(served: Served) -> None:
    models = both(served, "shadow")
    champion, challenger = models["people"].models.values()
    served.point("people", "4", "3", "shadow")
    models.refresh()
    assert models["people"].model is challenger
    assert models["people"].models["3"] is champion


def test_a_challenger_that_is_one_no_more_is_let_go_of(served: Served) -> None:
    models = both(served, "shadow")
    gone = weakref.ref(models["people"].models["4"].predictor)
    # No cycle among what is there now is ever found, as in a server that has loaded its models.
    gc.freeze()
    served.point("people", "3")
    models.refresh()
    gc.unfreeze()
    assert gone() is None
    assert versions(models) == {"people": "3"}


def test_a_contest_is_of_the_same_record_as_before(served: Served) -> None:
    models = both(served, "shadow")
    contest = models["people"].contest
    served.point("people", "3")
    models.refresh()
    served.point("people", "3", "4", "canary 1%")
    models.refresh()
    again = models["people"].contest
    assert contest
    assert again
    assert again.record is contest.record
    assert (contest.over, again.over) == (True, False)


def test_a_challenger_that_cannot_be_loaded_is_tried_again_after_ever_longer_pauses(served: Served) -> None:
    clock = [0.0]
    models = Models(served.folder, Workers(Settings()), lambda: clock[0])
    served.serve("people", "3")
    folder = served.add("people", "4")
    content = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text("{")
    served.point("people", "3", "4", "shadow")
    tried = models.workers.metrics.of("people").reloads
    for moment, times in ((0.0, 1), (0.9, 1), (1.0, 2), (2.9, 2), (3.0, 3)):
        clock[0] = moment
        models.refresh()
        assert tried["challenger failed"] == times
    (folder / "bundle.json").write_text(content)
    clock[0] = 7.0
    models.refresh()
    assert (list(models["people"].models), models["people"].challenger_problem) == (["3", "4"], "")
    assert tried["loaded"] == 1
