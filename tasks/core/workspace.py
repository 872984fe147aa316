"""The folder that a user works in: recipes, data, mlruns, and `.maasflow/` for state."""

import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tasks.core.config import Origin, override, read_yaml
from tasks.core.dataset import Dataset
from tasks.core.errors import ConfigError, did_you_mean
from tasks.core.recipe import Recipe

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")


@dataclass(frozen=True)
class Workspace:
    """Paths and files under one root. Nothing is created until it is written to."""

    root: Path

    @classmethod
    def current(cls) -> "Workspace":
        """The folder in MAASFLOW_WORKSPACE, else the working directory or the nearest parent with a `data` folder and a `dvc.yaml`."""
        given = os.environ.get("MAASFLOW_WORKSPACE")
        if given:
            return cls(Path(given).resolve())
        here = Path.cwd()
        found = next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file() and (folder / "data").is_dir()), here)
        return cls(found)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def state(self) -> Path:
        return self.root / ".maasflow"

    @property
    def stages(self) -> Path:
        """Results of stages by content, see `tasks.core.stages`."""
        return self.state / "stages"

    @property
    def served(self) -> Path:
        """Verified bundles of the champions, from which the server starts; see `tasks.deploy`."""
        return self.state / "served"

    @property
    def keys(self) -> Path:
        """Digests of the API keys that the server takes; see `tasks.core.api_keys`."""
        return self.state / "keys.json"

    @property
    def payloads(self) -> Path:
        """What the server keeps of requests and answers; see `deploy.serving.payloads`."""
        return self.state / "payloads"

    @property
    def comparisons(self) -> Path:
        """How challengers did beside their champions; see `tasks.core.comparison`."""
        return self.state / "comparisons"

    @property
    def mlruns(self) -> Path:
        return self.root / "mlruns"

    def raw(self, dataset: str) -> Path:
        return self.data / dataset / "raw"

    def validated(self, dataset: str) -> Path:
        return self.data / dataset / "validated"

    def prepared(self, dataset: str) -> Path:
        return self.data / dataset / "prepared"

    def dataset(self, name: str) -> Dataset:
        """The dataset file `data/<name>.yaml`. Raises ConfigError."""
        return Dataset.parse(*self._read("dataset", name, [self.data]))

    def recipe(self, name: str, settings: tuple[str, ...] = ()) -> Recipe:
        """The recipe file of that name with each `--set` applied. Raises ConfigError."""
        values, origin = self._read("recipe", name, self._recipe_folders())
        return Recipe.parse(override(values, settings), origin.overridden(settings))

    def datasets(self) -> list[str]:
        return _names([self.data])

    def recipes(self) -> list[str]:
        return _names(self._recipe_folders())

    def shown(self, path: Path) -> str:
        """The path as a person in the workspace would type it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def _recipe_folders(self) -> list[Path]:
        return [self.root / "recipes", self.root / "flows" / "recipes", Path(str(resources.files("flows") / "recipes"))]

    def _read(self, noun: str, name: str, folders: list[Path]) -> tuple[dict[str, Any], Origin]:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"'{name}' cannot be a {noun}'s name: it has small letters, digits, '.', '_' and '-' only, and at most 80",
                f"known: {', '.join(_names(folders)) or 'none'}",
            )
        path = next((folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()), None)
        if path is None:
            known = _names(folders)
            raise ConfigError(
                f"there is no {noun} '{name}'{did_you_mean(name, known)}",
                f"known: {', '.join(known) or 'none'}; a new one goes into {self.shown(folders[0])}/{name}.yaml",
            )
        return read_yaml(path, self.shown(path))


def _names(folders: list[Path]) -> list[str]:
    return sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})
