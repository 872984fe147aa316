"""Predictions for people: raw inputs in, labels and probabilities out."""

from typing import Any

from deploy.serving.body import read_object
from deploy.serving.calls import Answer, Call, Refusal
from deploy.serving.deadline import deadline_of
from deploy.serving.lookup import find_model
from deploy.serving.models import Entry, Models
from deploy.serving.routes import Operation
from deploy.serving.settings import Settings
from tasks.core.errors import InputError


class Predictions:
    """`/v1`: the models in words, and what they say of images, texts and rows."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models = models
        self.settings = settings

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/models/{name}/predict",
                summary="Images, texts or rows in, labels and probabilities out",
                handler=self.predict,
                request="PredictRequest",
                reply="PredictReply",
                refusals=(400, 404, 413, 415, 422, 503),
            ),
            Operation(method="GET", path="/v1/models", summary="The models, in words", handler=self.list_models, reply="ModelList"),
        ]

    async def predict(self, call: Call) -> Answer:
        """`{"instances": [raw input, …]}`; one that cannot be used is refused with its index (422)."""
        model = find_model(self.models, call)
        values = read_object(call, self.settings.max_body_bytes)
        if model.generator:
            raise Refusal(400, f"model '{model.name}' continues texts, it predicts no labels: ask /v1/models/{model.name}/generate")
        unknown = values.keys() - {"instances", "parameters"}
        if unknown:
            raise Refusal(400, f"unknown key '{min(unknown)}'; known: instances, parameters")
        instances = values.get("instances")
        if type(instances) is not list or not instances:
            raise Refusal(400, "'instances' is a list of at least one image, text or row")
        if len(instances) > self.settings.max_rows:
            raise Refusal(413, f"{len(instances):,} instances at once, the limit is {self.settings.max_rows:,}: send several requests")
        try:
            predictions = await model.predict(call, instances, deadline_of(call, self.settings))
        except InputError as error:
            raise Refusal(422, error.what) from None
        except RecursionError:
            raise Refusal(422, "an instance is nested too deep") from None
        return Answer(
            {
                "model": model.name,
                "version": model.version,
                "predictions": [{"label": each.label, "probabilities": each.probabilities} for each in predictions],
            }
        )

    async def list_models(self, call: Call) -> Answer:
        """Those that the caller may ask."""
        entries = sorted(self.models.items())
        return Answer({"models": [_described(name, entry) for name, entry in entries if call.key is None or call.key.may_ask(name)]})


def _described(name: str, entry: Entry) -> dict[str, Any]:
    values: dict[str, Any] = {"name": name, "ready": entry.model is not None}
    if entry.model:
        manifest = entry.model.manifest
        values |= {
            "version": entry.model.version,
            "variant": entry.model.predictor.variant.name,
            "batch": entry.model.predictor.variant.batch,
            "task": manifest.task,
            "description": manifest.description,
            "labels": manifest.labels,
        }
    return values | ({"problem": entry.problem} if entry.problem else {})
