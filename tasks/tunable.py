"""A recipe with a search space: what may be tuned, whether the recipe takes it, and the recipe file that the best values make."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any, Final

from tasks.core.config import Origin, Values, override, read_yaml
from tasks.core.dataset import Dataset, Task
from tasks.core.errors import ConfigError, did_you_mean
from tasks.core.recipe import LOWER_IS_BETTER, METRICS, Recipe, Search, Tuning
from tasks.core.stages import write_text
from tasks.core.transforms import ImageOptions, TextOptions
from tasks.core.workspace import Workspace
from tasks.core.yaml_edit import flow, with_values

SECTIONS: Final = ("model", "training", "transform")
"""What a training depends on, and so what a space may name."""
_DIGITS = 4
"""Significant digits of a drawn number: more say nothing, and a recipe is for people."""
_MARK = "# Written by `maasflow tune "
_EXAMPLE = """add a section to the recipe, for example
      tuning:
        space:
          training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
          training.batch_size: {low: 16, high: 128, step: 16}
          training.optimizer: {choices: [adamw, sgd]}"""


@dataclass(frozen=True)
class Tunable:
    """A recipe file with its search space."""

    name: str
    text: str
    values: Values
    origin: Origin
    recipe: Recipe
    task: Task

    @classmethod
    def read(cls, workspace: Workspace, name: str, recipe: Recipe, task: Task) -> "Tunable":
        """Raises ConfigError where the recipe has no space or a metric of another task."""
        path = workspace.root / recipe.origin.file
        values, origin = read_yaml(path, recipe.origin.file)
        if not recipe.tuning.space:
            raise ConfigError(f"{origin.file}: nothing says what to tune: tuning.space is missing or empty", _EXAMPLE)
        metric = recipe.tuning.metric
        if metric and metric not in METRICS[task]:
            raise origin.error(
                ("tuning", "metric"), f"'{metric}' is no metric of {task.replace('_', ' ')}", f"known: {', '.join(METRICS[task])}"
            )
        return cls(name, path.read_text(encoding="utf-8"), values, origin, recipe, task)

    @property
    def tuning(self) -> Tuning:
        return self.recipe.tuning

    @property
    def metric(self) -> str:
        return self.tuning.metric or self.recipe.training.keep_best

    @property
    def lower_is_better(self) -> bool:
        return self.metric in LOWER_IS_BETTER

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with these values by key path. Raises ConfigError where it refuses them."""
        settings = as_settings(values)
        return Recipe.parse(override(self.values, settings), self.origin.overridden(settings)).fitted_to(self.task)

    def content(self) -> dict[str, Any]:
        """What the trials have in common: the parts of the recipe that a training depends on, without the tuned values."""
        common = override(self.recipe.model_dump(mode="json"), [f"{path}=null" for path in self.tuning.space])
        return {
            **{section: common[section] for section in (*SECTIONS, "base")},
            "metric": self.metric,
            "tuning": self.tuning.model_dump(mode="json", exclude={"trials", "metric"}),
        }

    def own_values(self, options: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values that the recipe has without tuning, where all lie in the space; `options` are those of its model."""
        dump = {**self.recipe.model_dump(mode="json"), "model": {**options, **self.recipe.model}}
        found = {path: _at(dump, path.split(".")) for path in self.tuning.space}
        return found if all(holds(search, found[path]) for path, search in self.tuning.space.items()) else None

    def check(self, dataset: Dataset, check: Callable[[Recipe], None]) -> None:
        """Hold the ends of every range and every choice against the recipe; `check` looks at its components.

        Raises ConfigError, which names the key and the nearest known one.
        """
        for path, search in self.tuning.space.items():
            section = path.partition(".")[0]
            if section not in SECTIONS or path == section:
                raise self._error(
                    path,
                    f"it has to be a key of {', '.join(SECTIONS)}, such as training.learning_rate{did_you_mean(section, SECTIONS)}",
                    "no other key of a recipe changes what is trained",
                )
            for value in search.choices or ends(search):
                try:
                    blank = Recipe.parse(override(self.values, as_settings({path: value}))).fitted_to(self.task)
                    _check_transform(blank, dataset)
                    check(blank)
                except ConfigError as error:
                    what = error.what.removeprefix(f"--set {path}={flow(value)}: ").removeprefix(f"{path}: ")
                    raise self._error(path, f"a trial with {flow(value)} is refused: {what}", error.do) from None

    def _error(self, path: str, what: str, do: str = "") -> ConfigError:
        return self.origin.error(("tuning", "space", path), what, do)

    def tuned_text(self, values: Mapping[str, Any], description: str) -> str:
        """The recipe's text with these values and this description, and all else as it is. Raises ConfigError where that fails."""
        description = " ".join(filter(None, (self.recipe.description.rstrip(), description)))
        lines = [line for line in self.text.splitlines(keepends=True) if not line.startswith(_MARK)]
        after = next((index for index, line in enumerate(lines) if not line.startswith("# yaml-language-server")), len(lines))
        lines.insert(after, f"{_MARK}{self.name}`, which replaces it: delete this line to keep changes of yours.\n")
        if "description" not in self.values:
            first = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith(("#", "---", "%"))), len(lines))
            lines.insert(first, 'description: ""\n')
        text = with_values("".join(lines), {"description": description, **values})
        return re.sub(r"^(# yaml-language-server: \$schema=)\S*docs/schema/recipe\.json", r"\1../docs/schema/recipe.json", text)

    def write_tuned(self, path: Path, label: str, values: Mapping[str, Any], description: str) -> None:
        """Write the tuned recipe, whole or not at all. Raises ConfigError where its text does not lend itself to it."""
        settings = as_settings(values)
        partial = path.with_name(f".{path.name}.partial")
        try:
            write_text(partial, self.tuned_text(values, description))
            found = read_yaml(partial, label)[0]
            wanted = override(self.values, settings)
            if {**found, "description": ""} != {**wanted, "description": ""}:
                raise ValueError("it reads otherwise")
            partial.replace(path)
        except (ConfigError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.origin.file} is written in a way that cannot be edited by machine (YAML anchors, for example): {error}",
                f"write {label} by hand with these values: {' '.join(settings)}",
            ) from None
        finally:
            partial.unlink(missing_ok=True)


def tuned_path(workspace: Workspace, name: str, *, force: bool = False) -> Path:
    """Where the tuned recipe is written. Raises ConfigError for a file there that is not of our making, unless forced."""
    path = workspace.root / "recipes" / f"{name}-tuned.yaml"
    if not force and path.is_file() and not re.search(f"^{re.escape(_MARK)}", path.read_text(encoding="utf-8"), re.MULTILINE):
        raise ConfigError(
            f"{workspace.shown(path)} is there, and was not written by `maasflow tune`", "rename it, or replace it with --force"
        )
    if len(path.stem) > 80:
        raise ConfigError(f"'{path.stem}' is too long for a recipe's name, which has at most 80 characters", f"rename the recipe '{name}'")
    return path


def as_settings(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The values as `--set` takes them."""
    return tuple(f"{path}={flow(value)}" for path, value in values.items())


def whole(search: Search) -> bool:
    return all(number is None or isinstance(number, int) for number in (search.low, search.high, search.step))


def ends(search: Search) -> tuple[int | float, int | float]:
    """The least and the greatest number that can be drawn."""
    assert search.low is not None
    assert search.high is not None
    if search.step is None:
        return search.low, search.high
    steps = floor((search.high - search.low) / search.step + 1e-9)
    return search.low, rounded(search, search.low + steps * search.step)


def rounded(search: Search, value: float) -> int | float:
    if whole(search):
        return int(value)
    assert search.low is not None
    assert search.high is not None
    return min(max(float(f"{value:.{_DIGITS}g}"), float(search.low)), float(search.high))


def holds(search: Search, value: Any) -> bool:
    """Whether the space has the value."""
    if search.choices:
        return value in search.choices
    if isinstance(value, bool) or not isinstance(value, int | float) or (whole(search) and not isinstance(value, int)):
        return False
    low, high = ends(search)
    steps = (value - low) / search.step if search.step else 0.0
    return low <= value <= high and abs(steps - round(steps)) < 1e-9


def _at(values: Any, path: list[str]) -> Any:
    """What stands at the key path, or None."""
    for key in path:
        if isinstance(values, list) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
        else:
            values = values.get(key) if isinstance(values, dict) else None
    return values


def _check_transform(recipe: Recipe, dataset: Dataset) -> None:
    """Raises ConfigError for options that the dataset's transform does not have."""
    types = {column.type for column in dataset.features.values()}
    origin = Origin(prefix=("transform",))
    if types == {"image"}:
        ImageOptions.parse(recipe.transform, origin)
    elif types == {"text"}:
        TextOptions.parse(recipe.transform, origin)
    elif recipe.transform:
        raise ConfigError("a table's transform has no options")
