"""`flows/recipes/<name>.yaml`: what to run, as differences from these defaults."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from tasks.core.config import Config

Metric = Literal["accuracy", "macro_f1", "log_loss", "calibration_error"]
LOWER_IS_BETTER: frozenset[str] = frozenset({"log_loss", "calibration_error"})

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class EarlyStopping(Config):
    """Stop when the validation metric has not improved for `patience` epochs."""

    metric: Metric = "log_loss"
    patience: Count = 5


class Training(Config):
    """How the model is trained. Rates are per optimizer step, shares are of all steps."""

    epochs: Count = 20
    """Times that the training split is gone through."""
    batch_size: Count = 32
    """Rows whose gradients are computed together."""
    accumulation: Count = 1
    """Batches whose gradients are summed before one optimizer step."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw decouples the weight decay from the gradient, adam and sgd add it to the gradient."""
    learning_rate: Positive = 1e-3
    """The rate after the warm-up and before the schedule lowers it."""
    momentum: Share = 0.9
    """For sgd."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls after the warm-up: not at all, or to 0 at the last step."""
    warmup: Share = 0.0
    """The share of all steps in which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Falls on weights, not on biases or norms."""
    l1: Annotated[float, Field(ge=0)] = 0.0
    """Factor of the sum of absolute weights that is added to the loss."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of each target that is spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced weighs a class in the loss by the inverse of its frequency in the training split."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient; 0 leaves it as it is."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 run the forward pass under autocast; fp16 needs a CUDA device."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a CUDA device where there is one."""
    early_stopping: EarlyStopping | None = None
    """Not given: every epoch is trained."""
    keep_best: Metric = "log_loss"
    """The validation metric that decides which epoch's weights are kept."""
    checkpoint_steps: Count = 500
    """Optimizer steps between checkpoints; a killed run resumes from the newest."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Evaluation(Config):
    """How the trained model is measured on the test split."""

    metric: Metric = "accuracy"
    """The headline metric: it leads the tables, and compression and the champion gate go by it."""
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples for the 95 % intervals."""
    calibration_bins: Annotated[int, Field(ge=2)] = 15
    """Bins of equal width for the expected calibration error."""


class Limits(Config):
    """What a variant must keep to be chosen. None sets no limit."""

    metric_drop: Annotated[float, Field(ge=0)] | None = 0.01
    """How much worse than fp32 the headline metric may be, on the validation split."""
    latency_ms: Positive | None = None
    """Median for one row, on this machine."""
    size_ratio: Positive | None = None
    """File size over that of fp32."""


class Compression(Config):
    """Which variants are made, and which is chosen: the best by the objective of those within the limits."""

    compressors: tuple[dict[str, Any], ...] = ({"kind": "int8_dynamic"}, {"kind": "int8_static"})
    """Each makes one variant beside fp32."""
    objective: Literal["size", "latency", "throughput"] = "size"
    """What the best variant has least of (bytes, milliseconds for one row) or most of (rows a second, in calls of 32)."""
    limits: Limits = Limits()
    """What a variant must keep to be chosen."""


def _model_name(name: str) -> str:
    """It names folders, addresses and MLflow's model."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,79}", name):
        raise ValueError("a model's name has small letters, digits, '.', '_' and '-' only, and at most 80")
    return name


class Release(Config):
    """What happens when all gates pass: `automatic` promotes at once, `review` leaves a challenger waiting."""

    name: Annotated[str, AfterValidator(_model_name)] | None = None
    """The registered model's name; the recipe's name where not given."""
    approval: Literal["automatic", "review"] = "review"


class Serving(Config):
    """How the server runs this model."""

    threads: Annotated[int, Field(ge=0)] = 0
    """Threads for one inference; 0 takes one for each core that this process may use."""


_GATES: tuple[dict[str, Any], ...] = ({"kind": "parity"}, {"kind": "metric_drop"}, {"kind": "champion"})


class Recipe(Config):
    """A recipe file. `model` names an entry of MODELS, each gate one of GATES, and holds its options."""

    description: str = ""
    """A sentence for whoever reviews the release."""
    dataset: str
    """The name of a file in data/."""
    transform: dict[str, Any] = {}
    """Options of the dataset's transform (image: size, mode …; table: none yet)."""
    model: dict[str, Any]
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    compression: Compression = Compression()
    gates: tuple[dict[str, Any], ...] = _GATES
    release: Release = Release()
    serving: Serving = Serving()
