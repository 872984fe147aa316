"""Everything that can be wrong with a recipe's components, found before anything is trained."""

from tasks.compression.chain import chains
from tasks.core.dataset import Dataset
from tasks.core.recipe import Recipe
from tasks.encode import pretrained_tokenizer
from tasks.gates import GATES
from tasks.models import build_family


def check(recipe: Recipe, dataset: Dataset) -> None:
    """Build every component that the recipe names. Raises ConfigError, or UnreachableError for a pretrained model."""
    build_family(recipe.model, dataset.task, recipe.origin.below("model"))
    pretrained_tokenizer(recipe, dataset)
    check_release(recipe)


def check_release(recipe: Recipe) -> None:
    """Build every component that comes after training. Raises ConfigError."""
    chains(recipe)
    for index, spec in enumerate(recipe.gates):
        GATES.build(spec, recipe.origin.below("gates", index))
