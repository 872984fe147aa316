"""The Open Inference Protocol v2 without a transport: what REST and gRPC both offer, checked alike."""

import math
from collections.abc import Container, Iterable, Sequence
from importlib import metadata
from typing import Any, Final, TypeVar

from deploy.serving.calls import Call, Refusal
from deploy.serving.deadline import deadline_of
from deploy.serving.life import Life
from deploy.serving.lookup import named_model
from deploy.serving.model import Model
from deploy.serving.models import Models
from deploy.serving.settings import Settings
from deploy.serving.tensors import Given, read_tensor
from deploy.serving.work import Work
from tasks.core.transforms import Tensors, TensorSpec

_MOST_VALUES: Final = 2**24
"""Numbers in one answer: a language model gives one for each entry of its vocabulary at each token."""
_NOT_OFFERED: Final = ("classification", "shared_memory_region")
"""Parameters of a tensor, of Triton's extensions, without which it would be another answer than the client takes it for."""

_Item = TypeVar("_Item")


class Inference:
    """The protocol's operations on the served models. All of them raise Refusal."""

    def __init__(self, models: Models, life: Life, settings: Settings) -> None:
        self.models = models
        self.life = life
        self.settings = settings
        self.version = metadata.version("maasflow")

    def server_metadata(self) -> dict[str, Any]:
        """Server Metadata."""
        return {"name": "maasflow", "version": self.version, "extensions": ["binary_tensor_data"]}

    def check_ready(self) -> dict[str, str]:
        """Health, server ready: by model, why its newest version is not served. Raises Refusal (503) where nothing is.

        The protocol wants every model ready; here one is enough, because a single broken bundle must not take the other
        models out of a load balancer. The problems and the models' own ready tell of it.
        """
        if self.life.draining:
            raise Refusal(503, "the server is shutting down")
        if not self.models.loaded:
            raise Refusal(503, "the server is loading its models")
        problems = self.models.problems()
        if not self.models.running():
            raise Refusal(503, "; ".join(f"{name}: {problem}" for name, problem in problems.items()) or "no model is served yet")
        return problems

    def ready_model(self, name: str, version: str | None) -> Model:
        """Health, model ready: the model, where it is."""
        if self.life.draining:
            raise Refusal(503, "the server is shutting down")
        return named_model(self.models, name, version)

    def model_metadata(self, name: str, version: str | None) -> dict[str, Any]:
        """Model Metadata. `properties.problem` says why a newer version is not served, where one is not.

        `properties.batch` is "one" where the rows of a request are run one at a time. `properties.traffic` says what the challenger
        gets, and `properties.challenger_problem` why it gets nothing.
        """
        model = named_model(self.models, name, version)
        variant = model.predictor.variant
        properties = {"variant": variant.name, "batch": variant.batch}
        if problem := self.models.problem(model.name):
            properties["problem"] = problem
        if entry := self.models.get(model.name):
            properties |= {"challenger_problem": entry.challenger_problem} if entry.challenger_problem else {}
            if entry.contest:
                properties["traffic"] = f"version {entry.contest.challenger.version}: {entry.contest.traffic.words}"
        return {
            "name": model.name,
            "versions": list(entry.models) if entry else [model.version],
            "platform": "onnxruntime_onnx",
            "inputs": [_tensor_metadata(spec) for spec in model.manifest.inputs],
            "outputs": [_tensor_metadata(spec) for spec in model.manifest.outputs],
            "properties": properties,
        }

    async def run(self, call: Call, model: Model, inputs: Iterable[tuple[str, Given]], wanted: Sequence[str], seconds: float) -> Work:
        """Inference: the work, done, within so many seconds. It holds the wanted outputs, and others of the model."""
        known = [spec.name for spec in model.manifest.outputs]
        for name in wanted:
            if name not in known:
                raise Refusal(400, f"model '{model.name}' has no output '{name}', it has {', '.join(known)}")
        tensors = self._tensors(by_name("inputs", inputs), model)
        deadline = deadline_of(call, self.settings, seconds)
        if call.spend:
            await call.spend(model.batcher.units(tensors))
        work = await model.batcher.run(tensors, deadline)
        if model.contest and (contest := model.contest()):
            contest.answered(model, tensors, work)
        return work

    def _tensors(self, given: dict[str, Given], model: Model) -> Tensors:
        """The tensors of a request by name, checked against the model's inputs and each other."""
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


def by_name(key: str, items: Iterable[tuple[str, _Item]]) -> dict[str, _Item]:
    """Each of a request's inputs or outputs by its name. Raises Refusal where two have the same."""
    named: dict[str, _Item] = {}
    for name, item in items:
        if name in named:
            raise Refusal(400, f"'{key}' has '{name}' twice")
        named[name] = item
    return named


def check_parameters(name: str, parameters: Container[str]) -> None:
    """Raises Refusal for what an input or output is asked for and would not get; what else is unknown is not used."""
    for parameter in _NOT_OFFERED:
        if parameter in parameters:
            raise Refusal(400, f"'{name}' has the parameter '{parameter}': this server does not have that extension")


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


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype, "shape": [-1, *spec.shape]}
