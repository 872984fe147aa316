"""The recipe's defaults and bounds."""

import pytest

from tasks.core.errors import ConfigError
from tasks.core.recipe import LOWER_IS_BETTER, Recipe

SMALLEST = {"dataset": "digits", "model": {"family": "mlp"}}


def test_a_recipe_states_only_what_differs_from_the_defaults() -> None:
    recipe = Recipe.parse(SMALLEST)
    assert recipe.training.epochs > 1
    assert recipe.release.approval == "review"
    assert {gate["kind"] for gate in recipe.gates} == {"parity", "metric_drop", "champion"}


def test_a_recipe_survives_its_own_json() -> None:
    recipe = Recipe.parse(SMALLEST | {"training": {"early_stopping": {"patience": 2}}, "gates": [{"kind": "floor", "least": 0.9}]})
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "epochs", 0),
        ("training", "learning_rate", 0),
        ("training", "label_smoothing", 1),
        ("training", "warmup", 1.1),
        ("training", "optimizer", "lion"),
        ("training", "keep_best", "loss"),
        ("evaluation", "bootstrap", 99),
        ("evaluation", "calibration_bins", 1),
        ("compression", "objective", "speed"),
        ("compression", "compressors", ["int8_dynamic"]),
        ("release", "approval", True),
        ("serving", "threads", -1),
    ],
)
def test_a_value_beyond_its_bounds_is_refused(section: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.{key}"):
        Recipe.parse(SMALLEST | {section: {key: value}})


def test_the_metrics_of_which_less_is_better_are_metrics() -> None:
    for metric in LOWER_IS_BETTER:
        assert Recipe.parse(SMALLEST | {"evaluation": {"metric": metric}}).evaluation.metric == metric
