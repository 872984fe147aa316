"""The Open Inference Protocol v2 over REST (https://github.com/kserve/open-inference-protocol), without extensions."""

import math
import time
from importlib import metadata
from typing import Any, Final

from deploy.serving.body import read_object
from deploy.serving.calls import Answer, Call, Refusal
from deploy.serving.deadline import deadline_of
from deploy.serving.life import Life
from deploy.serving.lookup import find_model
from deploy.serving.model import Model
from deploy.serving.models import Models
from deploy.serving.routes import Operation
from deploy.serving.settings import Settings
from deploy.serving.tensors import read_tensor
from tasks.core.transforms import Tensors, TensorSpec

_MOST_VALUES: Final = 2**24
"""Numbers in one answer: a language model gives one for each entry of its vocabulary at each token."""


class OpenInference:
    """Its operations on the served models. Section names are the protocol's."""

    def __init__(self, models: Models, life: Life, settings: Settings) -> None:
        self.models = models
        self.life = life
        self.settings = settings
        self.version = metadata.version("maasflow")

    def operations(self) -> list[Operation]:
        """The busiest first, because routes are tried in order."""
        operations = []
        for versions, which in (("", ""), ("/versions/{version}", ", a version given")):
            path = "/v2/models/{name}" + versions
            operations += [
                Operation(
                    method="POST",
                    path=f"{path}/infer",
                    summary=f"Tensors in, tensors out{which}",
                    handler=self.infer,
                    request="InferRequest",
                    reply="InferReply",
                    refusals=(400, 403, 404, 413, 415, 503, 504),
                ),
                Operation(
                    method="GET",
                    path=f"{path}/ready",
                    summary=f"Whether a model answers{which}",
                    handler=self.model_ready,
                    reply="ModelReady",
                    refusals=(404, 503),
                ),
                Operation(
                    method="GET",
                    path=path,
                    summary=f"A model's inputs and outputs{which}",
                    handler=self.model_metadata,
                    reply="ModelMetadata",
                    refusals=(404, 503),
                ),
            ]
        return [
            *operations,
            Operation(
                method="GET", path="/v2/health/live", summary="Whether the server runs", handler=self.live, reply="ServerLive", scope=None
            ),
            Operation(
                method="GET",
                path="/v2/health/ready",
                summary="Whether the server answers for at least one model",
                handler=self.ready,
                reply="ServerReady",
                refusals=(503,),
                scope=None,
            ),
            Operation(
                method="GET", path="/v2", summary="The server's name and version", handler=self.server_metadata, reply="ServerMetadata"
            ),
        ]

    async def server_metadata(self, _: Call) -> Answer:
        """Server Metadata."""
        return Answer({"name": "maasflow", "version": self.version, "extensions": []})

    async def live(self, _: Call) -> Answer:
        """Health, server live. True while draining too: a server that is about to end needs no restart."""
        return Answer({"live": True})

    async def ready(self, _: Call) -> Answer:
        """Health, server ready.

        The protocol wants every model ready; here one is enough, because a single broken bundle must not take the other
        models out of a load balancer. `problems` and the models' own ready tell of it.
        """
        if self.life.draining:
            raise Refusal(503, "the server is shutting down")
        if not self.models.loaded:
            raise Refusal(503, "the server is loading its models")
        problems = {name: entry.problem for name, entry in self.models.items() if entry.problem}
        if not self.models.running():
            raise Refusal(503, "; ".join(f"{name}: {problem}" for name, problem in problems.items()) or "no model is served yet")
        return Answer({"ready": True, "problems": problems})

    async def model_ready(self, call: Call) -> Answer:
        """Health, model ready."""
        if self.life.draining:
            raise Refusal(503, "the server is shutting down")
        model = find_model(self.models, call)
        return Answer({"name": model.name, "ready": True})

    async def model_metadata(self, call: Call) -> Answer:
        """Model Metadata. `properties.problem` says why a newer version is not served, where one is not.

        `properties.batch` is "one" where the rows of a request are run one at a time.
        """
        model = find_model(self.models, call)
        variant = model.predictor.variant
        properties = {"variant": variant.name, "batch": variant.batch}
        problem = self.models[model.name].problem if model.name in self.models else ""
        if problem:
            properties["problem"] = problem
        return Answer(
            {
                "name": model.name,
                "versions": [model.version],
                "platform": "onnxruntime_onnx",
                "inputs": [_tensor_metadata(spec) for spec in model.manifest.inputs],
                "outputs": [_tensor_metadata(spec) for spec in model.manifest.outputs],
                "properties": properties,
            }
        )

    async def infer(self, call: Call) -> Answer:
        """Inference."""
        start = time.perf_counter()
        model = find_model(self.models, call)
        values = read_object(call, self.settings.max_body_bytes)
        identity = values.get("id")
        if identity is not None and type(identity) is not str:
            raise Refusal(400, f"'id' is a text, found {identity!r}")
        wanted = _outputs(values, model)
        tensors = self._inputs(values, model)
        if call.spend:
            await call.spend(model.batcher.units(tensors))
        work = await model.batcher.run(tensors, deadline_of(call, self.settings))
        outputs = [
            {"name": name, "datatype": "FP32", "shape": work.outputs[name].shape, "data": work.outputs[name].ravel()} for name in wanted
        ]
        reply = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
        answer = Answer(reply if identity is None else {**reply, "id": identity})
        model.batcher.around(work, start)
        return answer

    def _inputs(self, values: dict[str, Any], model: Model) -> Tensors:
        """The tensors of a request by name, checked against the model's inputs and each other. Raises Refusal."""
        given = _named(values.get("inputs"), "inputs")
        specs = model.manifest.inputs
        names = [spec.name for spec in specs]
        for name in given:
            if name not in names:
                raise Refusal(400, f"model '{model.name}' has no input '{name}', it has {', '.join(names)}")
        tensors = {}
        for spec in specs:
            if spec.name not in given:
                raise Refusal(400, f"the input '{spec.name}' is missing")
            tensors[spec.name] = read_tensor(given[spec.name], spec)
        rows = {len(tensor) for tensor in tensors.values()}
        if len(rows) > 1:
            raise Refusal(400, f"the inputs differ in their numbers of rows: {', '.join(map(str, sorted(rows)))}")
        if max(rows) > self.settings.max_rows:
            raise Refusal(413, f"{max(rows):,} rows at once, the limit is {self.settings.max_rows:,}: send several requests")
        if model.predictor.dynamic:
            _check_sizes(tensors, model)
        return tensors


def _check_sizes(tensors: Tensors, model: Model) -> None:
    """Sizes that the manifest leaves open: raises Refusal for what is too long, differs, or would be answered with too much."""
    sizes: dict[int, str] = {}
    for spec in model.manifest.inputs:
        for size, said in zip(tensors[spec.name].shape[1:], spec.shape, strict=True):
            if said >= 0:
                continue
            if spec.longest is not None and size > spec.longest:
                raise Refusal(400, f"input '{spec.name}' is {size:,} long, the model '{model.name}' takes at most {spec.longest:,}")
            sizes.setdefault(size, spec.name)
    if len(sizes) > 1:
        raise Refusal(400, f"the inputs differ in length: {', '.join(f'{name!r} is {size:,} long' for size, name in sizes.items())}")
    (length,) = sizes
    rows = len(next(iter(tensors.values())))
    values = sum(rows * math.prod(length if size < 0 else size for size in spec.shape) for spec in model.manifest.outputs)
    if values > _MOST_VALUES:
        raise Refusal(413, f"the answer would hold {values:,} numbers, the limit is {_MOST_VALUES:,}: send fewer rows or shorter ones")


def _named(given: Any, key: str) -> dict[str, dict[str, Any]]:
    """The objects of a list by their 'name'. Raises Refusal."""
    if type(given) is not list or not given:
        raise Refusal(400, f"'{key}' is a list of at least one object")
    named = {}
    for item in given:
        name = item.get("name") if type(item) is dict else None
        if type(name) is not str:
            raise Refusal(400, f"each of '{key}' is an object with a 'name'")
        if name in named:
            raise Refusal(400, f"'{key}' has '{name}' twice")
        named[name] = item
    return named


def _outputs(values: dict[str, Any], model: Model) -> list[str]:
    """The names of the outputs to send: those asked for, else all. Raises Refusal."""
    known = [spec.name for spec in model.manifest.outputs]
    if "outputs" not in values:
        return known
    wanted = list(_named(values["outputs"], "outputs"))
    for name in wanted:
        if name not in known:
            raise Refusal(400, f"model '{model.name}' has no output '{name}', it has {', '.join(known)}")
    return wanted


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype, "shape": [-1, *spec.shape]}
