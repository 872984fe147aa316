"""Everything that can be wrong with a recipe's components, found before anything is trained."""

from tasks.compression import COMPRESSORS
from tasks.core.recipe import Recipe
from tasks.gates import GATES
from tasks.models import MODELS


def check(recipe: Recipe) -> None:
    """Build every component that the recipe names. Raises ConfigError."""
    MODELS.build(recipe.model, recipe.origin.below("model"))
    for index, spec in enumerate(recipe.compression.compressors):
        COMPRESSORS.build(spec, recipe.origin.below("compression", "compressors", index))
    for index, spec in enumerate(recipe.gates):
        GATES.build(spec, recipe.origin.below("gates", index))
