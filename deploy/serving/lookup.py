"""From a request's path, or from a name, to the model that answers it."""

from deploy.serving.calls import Call, Refusal
from deploy.serving.model import Model
from deploy.serving.models import Models
from tasks.core.errors import did_you_mean


def find_model(models: Models, call: Call) -> Model:
    """The model that the path names, in the version that it names if any. Raises Refusal: 404 or 503."""
    return named_model(models, call.params["name"], call.params.get("version"))


def named_model(models: Models, name: str, version: str | None = None) -> Model:
    """The model of that name, in the version if one is given. Raises Refusal: 404 or 503."""
    entry = models.get(name)
    if entry is None:
        if not models.loaded:
            raise Refusal(503, "the server is loading its models")
        raise Refusal(404, f"there is no model '{name[:80]}'{did_you_mean(name[:80], models)}")
    if entry.model is None:
        raise Refusal(503, f"model '{name}' does not answer: {entry.problem}")
    if version is not None and version != entry.model.version:
        raise Refusal(404, f"model '{name}' serves version {entry.model.version}, not '{version[:80]}'")
    return entry.model
