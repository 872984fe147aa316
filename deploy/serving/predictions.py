"""Predictions for people: raw inputs in, labels and probabilities out."""

import asyncio
from collections.abc import Sequence
from typing import Any

from deploy.serving.body import JSON, media_type, read_object
from deploy.serving.calls import Answer, Call, Refusal
from deploy.serving.deadline import deadline_of
from deploy.serving.entry import Entry
from deploy.serving.lookup import find_model
from deploy.serving.model import Model
from deploy.serving.models import Models
from deploy.serving.multipart import FORM
from deploy.serving.routes import Operation
from deploy.serving.settings import Settings
from deploy.serving.uploads import TAKEN, read_upload
from tasks.core.errors import InputError, TooLargeError
from tasks.core.predictor import Prediction


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
                uploads=(FORM, *TAKEN.values()),
                refusals=(400, 403, 404, 413, 415, 422, 503, 504),
            ),
            Operation(method="GET", path="/v1/models", summary="The models, in words", handler=self.list_models, reply="ModelList"),
        ]

    async def predict(self, call: Call) -> Answer:
        """`{"instances": [raw input, …]}`, a form with files, or a file; an instance that cannot be used is refused with its index (422)."""
        model = find_model(self.models, call)
        if model.generator:
            raise Refusal(400, f"model '{model.name}' continues texts, it predicts no labels: ask /v1/models/{model.name}/generate")
        kind = media_type(call)
        if kind == JSON:
            instances = self._read(call)
        else:
            instances = await asyncio.to_thread(read_upload, call, kind, model.manifest.transform, self.settings)
        check_count(instances, self.settings)
        predictions = await predict_all(model, instances, call, self.settings)
        return Answer(
            {
                "model": model.name,
                "version": model.version,
                "request_id": call.request_id,
                "predictions": [{"label": each.label, "probabilities": each.probabilities} for each in predictions],
            }
        )

    async def list_models(self, call: Call) -> Answer:
        """Those that the caller may ask."""
        models, problems = self.models, self.models.problems()
        names = [name for name in sorted({*models, *problems}) if call.may_ask(name)]
        return Answer({"models": [_described(name, models.get(name), problems.get(name)) for name in names]})

    def _read(self, call: Call) -> list[Any]:
        """The instances in a body of JSON. Raises Refusal."""
        values = read_object(call, self.settings.max_body_bytes)
        unknown = values.keys() - {"instances", "parameters"}
        if unknown:
            raise Refusal(400, f"unknown key '{min(unknown)}'; known: instances, parameters")
        instances = values.get("instances")
        if type(instances) is not list:
            raise Refusal(400, "'instances' is a list of images, texts or rows")
        return instances


def check_count(instances: Sequence[Any], settings: Settings) -> None:
    """Raises Refusal: 400 for none, 413 for too many."""
    if not instances:
        raise Refusal(400, "at least one image, text or row is expected, found none")
    if len(instances) > settings.max_rows:
        raise Refusal(413, f"{len(instances):,} instances at once, the limit is {settings.max_rows:,}: send several requests")


async def predict_all(model: Model, instances: Sequence[Any], call: Call, settings: Settings) -> list[Prediction]:
    """One for each raw instance. Raises Refusal: 413 for too much to read, 422 for one that cannot be used, 503 or 504."""
    try:
        return await model.predict(call, instances, deadline_of(call, settings))
    except TooLargeError as error:
        raise Refusal(413, error.what) from None
    except InputError as error:
        raise Refusal(422, error.what) from None
    except RecursionError:
        raise Refusal(422, "an instance is nested too deep") from None


def _described(name: str, entry: Entry | None, problem: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {"name": name, "ready": entry is not None and entry.model is not None}
    if entry and entry.model:
        manifest = entry.model.manifest
        values |= {
            "version": entry.model.version,
            "variant": entry.model.predictor.variant.name,
            "batch": entry.model.predictor.variant.batch,
            "task": manifest.task,
            "description": manifest.description,
            "labels": manifest.labels,
        }
    if entry and (entry.contest or entry.challenger_problem):
        values["challenger"] = _challenger(entry)
    return values | ({"problem": problem} if problem else {})


def _challenger(entry: Entry) -> dict[str, Any]:
    """How it did beside the champion since this process has both; or why it gets nothing."""
    if entry.contest is None:
        return {"problem": entry.challenger_problem}
    record = entry.contest.record
    return {
        "version": record.challenger.version,
        "traffic": entry.contest.traffic.words,
        "requests": record.challenger.requests,
        "failures": record.challenger.failures,
        "rows": record.counts["rows"],
        "agreement": record.counts["agreed"] / record.counts["rows"] if record.counts["rows"] else None,
    }
