"""From a request's path, or from a name, to the model that answers it."""

from deploy.serving.calls import Call, Refusal
from deploy.serving.model import Model
from deploy.serving.models import Models
from tasks.core.errors import did_you_mean


def find_model(models: Models, call: Call, *, tensors: bool = False) -> Model:
    """The model that answers the call: that which the path names, in the version that it names if any. Raises Refusal: 404 or 503.

    `tensors` says that the call brings these, rather than what a model makes its own tensors of.
    """
    return answering_model(models, call, call.params["name"], call.params.get("version"), tensors=tensors)


def answering_model(models: Models, call: Call, name: str, version: str | None = None, *, tensors: bool = False) -> Model:
    """The model of that name that answers the call: where no version is given, the champion, or the challenger in its place.

    Raises Refusal: 404 or 503.
    """
    entry = models.get(name)
    if version is None and entry is not None and entry.model is not None:
        return entry.contest.choose(call, tensors=tensors) if entry.contest else entry.model
    return named_model(models, name, version)


def named_model(models: Models, name: str, version: str | None = None) -> Model:
    """The model of that name, in the version if one is given, else the champion. Raises Refusal: 404 or 503."""
    entry = models.get(name)
    if entry is None:
        if not models.loaded:
            raise Refusal(503, "the server is loading its models")
        if problem := models.problem(name):
            raise Refusal(503, f"model '{name}' is not here yet: {problem}")
        raise Refusal(404, f"there is no model '{name[:80]}'{did_you_mean(name[:80], models)}")
    if entry.model is None:
        raise Refusal(503, f"model '{name}' does not answer: {models.problem(name)}")
    if version is None or version == entry.model.version:
        return entry.model
    if entry.contest and version in entry.contest.models:
        return entry.contest.models[version]
    raise Refusal(404, f"model '{name}' serves version {' and '.join(entry.models)}, not '{version[:80]}'")
