"""A recipe in a workspace: with its dataset, the recipe that it starts from, and the digests under which its stages lie."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from tasks import versioning
from tasks.core.bundle import DatasetVersion
from tasks.core.dataset import Dataset
from tasks.core.file_digests import FileDigests
from tasks.core.machine import this_machine
from tasks.core.pretrained import Pretrained
from tasks.core.recipe import Recipe
from tasks.core.stages import StageStore, code_key, content_key
from tasks.core.workspace import Workspace


@dataclass(frozen=True)
class Keys:
    """The digest of everything that each stage's result depends on; `release` covers the whole run."""

    encode: str
    train: str
    evaluate: str
    cross_validate: str
    export: str
    compress: str
    release: str


@dataclass
class Plan:
    """What is to be run."""

    workspace: Workspace
    recipe_name: str
    recipe: Recipe
    dataset: Dataset
    bases_of: tuple[str, ...] = ()
    """The recipes whose trainings wait for this one's weights."""

    @classmethod
    def open(cls, recipe: str, settings: tuple[str, ...] = (), *, root: Path | None = None) -> Self:
        """Read the recipe, with `--set` differences, and its dataset. Raises ConfigError."""
        workspace = Workspace(root) if root else Workspace.current()
        found = workspace.recipe(recipe, settings)
        dataset = workspace.dataset(found.dataset)
        return cls(workspace, recipe, found.fitted_to(dataset.task), dataset)

    @property
    def name(self) -> str:
        """The name of the registered model."""
        return self.recipe.release.name or self.recipe_name

    @property
    def store(self) -> StageStore:
        return StageStore(self.workspace.stages)

    def keys(self, version: DatasetVersion) -> Keys:
        recipe = self.recipe
        encode = content_key("encode", code_key(), version.name, version.digest, recipe.transform, self._pretrained(), self._base_key())
        train = content_key("train", encode, recipe.model, recipe.training, recipe.base)
        evaluate = content_key("evaluate", train, recipe.evaluation)
        cross_validate = content_key("cross_validate", train, recipe.evaluation.folds)
        export = content_key("export", train, self.name)
        compress = content_key("compress", export, recipe.compression, recipe.evaluation, recipe.serving, this_machine())
        return Keys(encode, train, evaluate, cross_validate, export, compress, content_key("release", evaluate, compress, recipe))

    @cached_property
    def base(self) -> "Self | None":
        """The plan whose trained weights this one's training starts from. Raises ConfigError."""
        wanted = self.recipe.base
        if wanted is None:
            return None
        if wanted.recipe in (*self.bases_of, self.recipe_name):
            raise self.recipe.origin.error(
                ("base", "recipe"),
                f"'{wanted.recipe}' would start from itself: {' → '.join((*self.bases_of, self.recipe_name, wanted.recipe))}",
            )
        base = type(self).open(wanted.recipe, root=self.workspace.root)
        base.bases_of = (*self.bases_of, self.recipe_name)
        if wanted.head == "keep" and base.dataset.class_names != self.dataset.class_names:
            raise self.recipe.origin.error(
                ("base", "head"),
                f"the head of '{wanted.recipe}' is for the classes {', '.join(base.dataset.class_names)}; "
                f"'{self.recipe.dataset}' has {', '.join(self.dataset.class_names)}",
                "set base.head to new",
            )
        return base

    def chain(self) -> "Iterator[Self]":
        """This plan, and those whose weights it starts from."""
        yield self
        if self.base:
            yield from self.base.chain()

    def _base_key(self) -> str | None:
        """What the base's weights depend on; None where there is no base, or its data was never built."""
        version = versioning.version(self.base.workspace, self.base.recipe.dataset) if self.base else None
        return self.base.keys(version).train if self.base and version else None

    def _pretrained(self) -> dict[str, str]:
        """The digests of a pretrained model's files, which are read once."""
        found = Pretrained.of(self.recipe.model, self.recipe.origin.below("model"))
        if found is None:
            return {}
        digests = FileDigests(self.workspace.state / "pretrained.json")
        result = {path.name: digests.of(path) for path in found.files}
        digests.save()
        return result
