"""The search with the real Optuna: its space, its study file, and the recipe that the best values make."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from flows.check import check
from tasks.core.errors import ConfigError, MaasflowError
from tasks.core.workspace import Workspace
from tasks.tunable import Tunable, tuned_path
from tasks.tune import Proposal, Pruned, Study, Trial, open_study
from tests.conftest import AddDataset

RECIPE = """\
# yaml-language-server: $schema=../../docs/schema/recipe.json
# people
dataset: people
model: {family: mlp, hidden: [8]}  # small
training:
  learning_rate: 5.0e-3  # by hand
  epochs: 4
"""
SPACE: dict[str, Any] = {
    "training.learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
    "training.batch_size": {"low": 16, "high": 40, "step": 16},
    "model.dropout": {"low": 0, "high": 0.5},
    "model.hidden": {"choices": [[8], [16, 16]]},
}


@pytest.fixture
def people(workspace: Workspace, add_people: AddDataset) -> Workspace:
    add_people()
    (workspace.root / "recipes").mkdir()
    return workspace


def tunable(workspace: Workspace, text: str = RECIPE, **tuning: Any) -> Tunable:
    (workspace.root / "recipes" / "people.yaml").write_text(f"{text}tuning: { ({'space': SPACE} | tuning)!r}\n".replace("True", "true"))
    return Tunable.read(workspace, "people", workspace.recipe("people"), "classification")


def checked(workspace: Workspace, **space: Any) -> None:
    dataset = workspace.dataset("people")
    tunable(workspace, space={key.replace("__", "."): search for key, search in space.items()}).check(
        dataset, lambda recipe: check(recipe, dataset)
    )


def losses(study: Study, count: int) -> list[Trial]:
    """So many trials whose loss is their learning rate."""
    return [study.settle(proposal, "complete", proposal.values["training.learning_rate"], 0.1) for proposal in asked(study, count)]


def asked(study: Study, count: int) -> Any:
    for _ in range(count):
        yield study.ask()


def test_the_first_trial_has_the_recipes_own_values_and_all_lie_in_the_space(people: Workspace) -> None:
    found = tunable(people)
    own = found.own_values({"dropout": 0.0})
    assert own == {"training.learning_rate": 5e-3, "training.batch_size": 32, "model.dropout": 0.0, "model.hidden": [8]}
    with open_study(people.state / "people.db", "s", found, own) as study:
        trials = losses(study, 8)
    assert trials[0].values == own
    assert [trial.own for trial in trials] == [True] + 7 * [False]
    for trial in trials:
        assert trial.values["training.batch_size"] in (16, 32)
        assert 1e-4 <= trial.values["training.learning_rate"] <= 0.1
        assert len(f"{trial.values['model.dropout']:g}".lstrip("0.")) <= 4
        assert found.with_values(trial.values).training.learning_rate == trial.values["training.learning_rate"]
    assert len({trial.values["training.learning_rate"] for trial in trials}) == 8


@pytest.mark.parametrize(
    "space",
    [{"training.learning_rate": {"low": 0.1, "high": 1.0}}, {"training.batch_size": {"low": 15, "high": 65, "step": 10}}],
)
def test_own_values_outside_the_space_are_not_tried(people: Workspace, space: dict[str, Any]) -> None:
    assert tunable(people, space=space).own_values({}) is None


def _killed_in_its_third_trial(found: Tunable, path: Path, values: Any) -> None:
    with open_study(path, "s", found) as study:
        losses(study, 2)
        values.put(study.ask().values)
        values.close()
        values.join_thread()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_study_goes_on_as_if_it_had_not_been(people: Workspace) -> None:
    found, context = tunable(people), multiprocessing.get_context("spawn")
    values = context.Queue()
    process = context.Process(target=_killed_in_its_third_trial, args=(found, people.state / "killed.db", values))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with open_study(people.state / "killed.db", "s", found) as study:
        assert study.finished == 2
        assert losses(study, 4)[0].values == values.get()
        killed = study.trials
    with open_study(people.state / "whole.db", "s", found) as study:
        losses(study, 6)
        assert [(trial.number, trial.values) for trial in study.trials] == [(trial.number, trial.values) for trial in killed]


def test_values_that_kill_their_process_again_and_again_give_way_to_others(people: Workspace) -> None:
    tried = []
    for _ in range(4):
        with open_study(people.state / "s.db", "s", tunable(people)) as study:
            tried.append(study.ask().values)
    assert tried[0] == tried[1] == tried[2] != tried[3]


def test_a_failed_trial_is_kept_with_its_reason_and_does_not_count(people: Workspace) -> None:
    with open_study(people.state / "s.db", "s", tunable(people)) as study:
        study.settle(study.ask(), "failed", None, 0.1, "it diverged")
        losses(study, 1)
    with open_study(people.state / "s.db", "s", tunable(people)) as study:
        assert [(trial.number, trial.state, trial.reason) for trial in study.trials] == [(1, "failed", "it diverged"), (2, "complete", "")]
        assert study.finished == 1


def epochs(proposal: Proposal, value: float) -> None:
    for epoch in range(1, 5):
        proposal.report(epoch, value, last=epoch == 4)


@pytest.mark.parametrize(("metric", "sign"), [("log_loss", 1), ("accuracy", -1)])
def test_a_trial_behind_the_median_is_stopped_after_the_warm_up(people: Workspace, metric: str, sign: int) -> None:
    found = tunable(people, metric=metric, startup=2, warmup_epochs=2)
    with open_study(people.state / "s.db", "s", found) as study:
        for value in (0.2, 0.4):
            proposal = study.ask()
            epochs(proposal, sign * value)
            study.settle(proposal, "complete", sign * value, 0.1)
        behind = study.ask()
        behind.report(2, sign * 0.9, last=False)
        with pytest.raises(Pruned):
            behind.report(3, sign * 0.9, last=False)
        assert study.settle(behind, "pruned", None, 0.1).value == sign * 0.9
        late = study.ask()
        late.report(4, sign * 0.9, last=True)
        study.settle(late, "complete", sign * 0.9, 0.1)
        assert study.best
        assert study.best.value == sign * 0.2
        assert study.finished == 4


def test_without_a_pruner_none_is_stopped(people: Workspace) -> None:
    with open_study(people.state / "s.db", "s", tunable(people, pruner="none", startup=1, warmup_epochs=0)) as study:
        for value in (0.1, 0.2, 0.9):
            proposal = study.ask()
            epochs(proposal, value)
            study.settle(proposal, "complete", value, 0.1)


def test_two_at_once_are_refused_and_a_broken_file_is_told(people: Workspace) -> None:
    found = tunable(people)
    with (
        open_study(people.state / "s.db", "s", found),
        pytest.raises(MaasflowError, match="another `maasflow tune people` is running"),
        open_study(people.state / "s.db", "s", found),
    ):
        pass
    (people.state / "broken.db").write_text("no database, and long enough to look like one to whoever reads it" * 9)
    with pytest.raises(MaasflowError, match="cannot be read"), open_study(people.state / "broken.db", "s", found):
        pass


def test_what_the_trials_share_does_not_depend_on_the_tuned_values_nor_on_how_many_there_are(people: Workspace) -> None:
    content = tunable(people).content()
    assert tunable(people, RECIPE.replace("5.0e-3", "0.01").replace("[8]", "[16, 16]"), trials=99).content() == content
    assert tunable(people, f"{RECIPE}evaluation: {{folds: 3}}\ndescription: other\n").content() == content
    assert tunable(people, RECIPE.replace("epochs: 4", "epochs: 5")).content() != content
    assert tunable(people, startup=9).content() != content
    assert tunable(people, metric="accuracy").content() != content


@pytest.mark.parametrize(
    ("key", "search", "words"),
    [
        ("training__learnin_rate", {"low": 0.1, "high": 0.2}, ["people.yaml:8", "'learnin_rate'", "did you mean 'learning_rate'"]),
        ("model__dropot", {"low": 0.1, "high": 0.2}, ["tuning.space.model.dropot", "did you mean 'dropout'"]),
        ("traning__epochs", {"low": 1, "high": 2}, ["did you mean 'training'"]),
        ("evaluation__folds", {"low": 1, "high": 2}, ["key of model, training, transform"]),
        ("training__epochs", {"low": 0, "high": 2}, ["a trial with 0 is refused", "the least allowed is 1"]),
        ("training__epochs", {"low": 1.5, "high": 2}, ["1.5 is not a whole number"]),
        ("training__epochs", {"low": "one", "high": 2}, ["'one' is not a number"]),
        ("training__epochs", {"low": 2, "high": 1}, ["low, 2, is not below high, 1"]),
        ("training__epochs", {"low": 1}, ["give low and high"]),
        ("training__epochs", {"low": 0, "high": 2, "log": True}, ["low must be above 0"]),
        ("training__epochs", {"low": 1, "high": 9, "step": 2, "log": True}, ["a step"]),
        ("training__epochs", {"low": 1, "high": 9, "choices": [1]}, ["give either choices, or low and high"]),
        ("training__epochs__x", {"low": 1, "high": 2}, ["single value"]),
        ("training__optimizer", {"choices": ["adamw", "adamww"]}, ["adamww is refused", "did you mean 'adamw'"]),
        ("transform__size", {"low": 1, "high": 2}, ["a table's transform has no options"]),
    ],
)
def test_a_space_that_the_recipe_refuses_is_told_before_any_trial(people: Workspace, key: str, search: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        checked(people, **{key: search})
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in error.value.what


def test_a_space_that_fits_is_accepted(people: Workspace) -> None:
    checked(people, **SPACE, training__early_stopping__patience={"low": 1, "high": 3})


def test_no_space_is_told_with_an_example_that_can_be_pasted(people: Workspace) -> None:
    with pytest.raises(ConfigError, match="nothing says what to tune") as error:
        tunable(people, space={})
    lines = error.value.do.splitlines()[1:]
    (people.root / "recipes" / "pasted.yaml").write_text(RECIPE + "\n".join(line[6:] for line in lines) + "\n")
    assert len(people.recipe("pasted").tuning.space) == 3


def test_a_metric_of_another_task_is_refused(people: Workspace) -> None:
    with pytest.raises(ConfigError, match="'nats' is no metric of classification"):
        tunable(people, metric="nats")


def test_the_best_is_the_recipe_with_only_its_values_changed(people: Workspace) -> None:
    found, path = tunable(people), tuned_path(people, "people")
    values = {"training.learning_rate": 1e-5, "training.batch_size": 16, "model.hidden": [16, 16]}
    found.write_tuned(path, "recipes/people-tuned.yaml", values, "Tuned.")
    before, after = found.text.splitlines(), path.read_text().splitlines()
    assert after[0] == "# yaml-language-server: $schema=../docs/schema/recipe.json"
    assert after[1].startswith("# Written by `maasflow tune people`")
    added = [line for line in after[2:] if line not in before]
    assert added == [
        'description: "Tuned."',
        "model: {family: mlp, hidden: [16, 16]}  # small",
        "  learning_rate: 1.0e-05  # by hand",
        "  batch_size: 16",
    ]
    assert [line for line in before[1:] if line not in after] == [
        "model: {family: mlp, hidden: [8]}  # small",
        "  learning_rate: 5.0e-3  # by hand",
    ]
    tuned = people.recipe("people-tuned")
    assert (tuned.model, tuned.training) == ((wanted := found.with_values(values)).model, wanted.training)
    assert [entry.name for entry in (people.root / "recipes").iterdir() if entry.name.startswith(".")] == []


def test_a_description_is_kept_and_a_tuned_recipe_can_be_tuned(people: Workspace) -> None:
    found = tunable(people, f"description: Whoever.\n{RECIPE}")
    found.write_tuned(tuned_path(people, "people"), "people-tuned", {"training.epochs": 2}, "Tuned.")
    again = Tunable.read(people, "people-tuned", people.recipe("people-tuned"), "classification")
    again.write_tuned(tuned_path(people, "people-tuned"), "again", {"training.epochs": 3}, "Again.")
    assert people.recipe("people-tuned-tuned").description == "Whoever. Tuned. Again."
    assert (people.root / "recipes" / "people-tuned-tuned.yaml").read_text().count("Written by") == 1


def test_a_recipe_of_ones_own_is_not_replaced_unless_forced(people: Workspace) -> None:
    path = people.root / "recipes" / "people-tuned.yaml"
    path.write_text("dataset: mine\n")
    with pytest.raises(ConfigError, match="was not written by `maasflow tune`"):
        tuned_path(people, "people")
    assert tuned_path(people, "people", force=True) == path
    tunable(people).write_tuned(path, "x", {"training.epochs": 2}, "")
    assert tuned_path(people, "people") == path


def test_a_recipe_that_cannot_be_edited_is_told_with_the_values(people: Workspace) -> None:
    found = tunable(people, RECIPE.replace("epochs: 4", "epochs: &n 4\n  warmup: 0.0\nevaluation: {folds: *n}"))
    with pytest.raises(ConfigError, match="cannot be edited") as error:
        found.write_tuned(tuned_path(people, "people"), "recipes/people-tuned.yaml", {"training.epochs": 2}, "")
    assert "training.epochs=2" in error.value.do
    assert not tuned_path(people, "people").exists()
