"""MLflow's scoring protocol, so that whoever asks `mlflow models serve` may ask this server unchanged
(https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/#inference-server-specification).
"""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from deploy.serving.body import media_type, read_object, unpacked
from deploy.serving.calls import Answer, Call, Refusal
from deploy.serving.csv_rows import MEDIA_TYPE as CSV
from deploy.serving.csv_rows import read_rows as read_csv
from deploy.serving.frames import FORMS, instances_of, read_rows
from deploy.serving.generations import OPTIONS, read_flag, read_options, refuse_unknown, whole
from deploy.serving.lookup import answering_model
from deploy.serving.model import Model
from deploy.serving.models import Models
from deploy.serving.origin import refuse_other_sites
from deploy.serving.predictions import check_count, predict_all
from deploy.serving.routes import Handler, Operation
from deploy.serving.settings import Settings
from deploy.serving.writers import Writers, generator_of
from tasks.core.generator import Options


class Invocations:
    """`/invocations` and what MLflow's clients ask beside it.

    Errors have the shape that they have everywhere here: MLflow's clients show the body of an answer that is not 200, and read no key.
    """

    def __init__(self, models: Models, writers: Writers, ready: Handler, settings: Settings) -> None:
        self.models = models
        self.writers = writers
        self.ready = ready
        """Raises Refusal where the server does not answer."""
        self.settings = settings
        self.version = metadata.version("maasflow")

    def operations(self) -> list[Operation]:
        invoke = [
            Operation(
                method="POST",
                path=path,
                summary=f"MLflow's scoring protocol{of}",
                handler=self.invoke,
                request="InvocationRequest",
                reply="InvocationReply",
                uploads=(CSV,),
                refusals=(400, 403, 404, 413, 415, 422, 503, 504),
            )
            for path, of in (
                ("/invocations", ", where one model is served"),
                ("/invocations/{name}", ""),
                # Where `mlflow.deployments.get_deploy_client(ADDRESS).predict(endpoint=NAME, …)` asks.
                ("/endpoints/{name}/invocations", ", for MLflow's deployment client"),
            )
        ]
        ping = [
            Operation(
                method="GET",
                path=path,
                summary="Whether the server answers for at least one model, as MLflow has it",
                handler=self.ping,
                reply="text/plain",
                refusals=(503,),
                scope=None,
            )
            for path in ("/ping", "/health")
        ]
        version = Operation(method="GET", path="/version", summary="The server's version", handler=self.tell_version, reply="text/plain")
        return [*invoke, *ping, version]

    async def invoke(self, call: Call) -> Answer:
        """`{"predictions": […]}`, one for each row: its label, or with the parameter `probabilities` an object with these beside
        it; a language model's is the text's continuation, and its parameters are those of `/generate`.
        """
        model = self._model(call)
        rows, params = self._read(call)
        instances = instances_of(rows, model.manifest.transform)
        check_count(instances, self.settings)
        if model.generator:
            return Answer({"predictions": await self._continuations(model, instances, params, call)}, headers=model.told)
        refuse_unknown(params, ("probabilities",))
        probabilities = read_flag(params, "probabilities")
        predictions = await predict_all(model, instances, call, self.settings)
        if probabilities:
            described = [{"label": each.label, "probabilities": each.probabilities} for each in predictions]
            return Answer({"predictions": described}, headers=model.told)
        return Answer({"predictions": [each.label for each in predictions]}, headers=model.told)

    async def ping(self, call: Call) -> Answer:
        await self.ready(call)
        return Answer(b"\n", media_type="text/plain")

    async def tell_version(self, _: Call) -> Answer:
        """maasflow's own: MLflow's clients hold it against nothing."""
        return Answer(self.version.encode(), media_type="text/plain")

    def _model(self, call: Call) -> Model:
        """The one that the path names, or the only one that the caller may ask. Raises Refusal."""
        if "name" in call.params:
            return answering_model(self.models, call, call.params["name"])
        names = [name for name in sorted(self.models) if call.may_ask(name)]
        if len(names) > 1:
            raise Refusal(400, f"several models are served: ask /invocations/NAME for one of {', '.join(names)}")
        if not names and self.models.loaded:
            raise Refusal(404, "no model is served here")
        return answering_model(self.models, call, next(iter(names), ""))

    def _read(self, call: Call) -> tuple[list[Any], Mapping[str, Any]]:
        """The rows and the parameters. Raises Refusal."""
        if media_type(call) == CSV:
            refuse_other_sites(call)
            return list(read_csv(unpacked(call, self.settings.max_body_bytes), self.settings.max_rows)), {}
        # MLflow's clients write a missing number as Python does.
        values = read_object(call, self.settings.max_body_bytes, nan=True)
        refuse_unknown(values, (*FORMS, "params"))
        params = values["params"] if values.get("params") is not None else {}
        if type(params) is not dict:
            raise Refusal(400, "'params' is an object")
        return read_rows(values), params

    async def _continuations(self, model: Model, prompts: Sequence[Any], params: Mapping[str, Any], call: Call) -> list[str]:
        """Of each prompt, one after the other."""
        refuse_unknown(params, OPTIONS)
        options = read_options(params, self.settings.max_tokens, Options().max_tokens)
        for index, prompt in enumerate(prompts):
            if type(prompt) is not str:
                raise Refusal(422, f"item {index}: expected a text, found {type(prompt).__name__}")
        if call.spend:
            await call.spend(len(prompts) * options.max_tokens)
        if call.trace:
            call.trace.note_model(model)
        with self.writers.one():
            generations = await self.writers.begin(generator_of(model), prompts, options)
            return [await whole(self.writers.pieces(generation)) for generation in generations]
