"""`flows/recipes/<name>.yaml`: what to run, as differences from these defaults."""

import re
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, Field, model_validator

from tasks.core.config import Config
from tasks.core.dataset import Task
from tasks.core.machine import Device
from tasks.core.traffic import Traffic

ClassMetric = Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error"]
TextMetric = Literal["nats", "bits", "perplexity"]
"""Of a language model: nats and bits a character, perplexity a token."""
Metric = ClassMetric | TextMetric
LOWER_IS_BETTER: Final[frozenset[str]] = frozenset({"log_loss", "calibration_error", "nats", "bits", "perplexity"})
METRICS: Final[dict[Task, tuple[str, ...]]] = {"classification": get_args(ClassMetric), "language_modelling": get_args(TextMetric)}

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class EarlyStopping(Config):
    """Stop when the validation metric has not improved for `patience` epochs."""

    metric: Metric = "log_loss"
    """For a language model nats where not given."""
    patience: Count = 5


class Augmentation(Config):
    """How training examples are changed at random each time that they are seen. Nothing of it happens to any other split."""

    flip: Share = 0.0
    """Images: the share that is mirrored left to right."""
    shift: Share = 0.0
    """Images: moved by up to this share of their width and height, as a crop at a random place does."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Images: turned by up to so many degrees either way."""
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Texts: the share of tokens that are hidden, each by itself."""
    span_mask: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Texts: the share of tokens that are hidden in runs of three on average (as in SpanBERT, Joshi et al., 2020)."""


class Training(Config):
    """How the model is trained. Rates are per optimizer step, shares are of all steps."""

    epochs: Count = 20
    """Times that the training split is gone through."""
    batch_size: Count = 32
    """Rows whose gradients are computed together. For a language model, the places in the text that are read side by side."""
    window: Count = 128
    """For a language model: tokens between two truncations of the backpropagation. The state is carried over."""
    rows_per_class: Count | None = None
    """Train on at most so many rows of each class, drawn by the seed; on all where not given."""
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
    balance: Literal["none", "weights", "sampling"] = "none"
    """weights: a class counts in the loss by the inverse of its frequency in the training split. sampling: every epoch draws
    as many rows from each class as from any other, with repetition."""
    augmentation: Augmentation = Augmentation()
    """Random changes of the training examples."""
    adversarial: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """For a text: learn each batch again with its embeddings moved towards a wrong answer, by this share of their own norm, as 0.02
    (Miyato et al., 2017). A step takes twice as long; few examples then teach more. 0 does not."""
    freeze_backbone: bool = False
    """Train the head alone, and leave all other weights as they began."""
    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient; 0 leaves it as it is."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """bf16 and fp16 run the forward pass under autocast; fp16 needs a CUDA device. auto is bf16 where the processor multiplies in it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a CUDA device where there is one."""
    compile: bool = False
    """Let torch.compile fuse the model first, which takes a minute and pays in long trainings on a GPU."""
    gradient_checkpointing: bool = False
    """Keep fewer activations and compute them again in the backward pass: less memory, about a third more time."""
    early_stopping: EarlyStopping | None = None
    """Not given: every epoch is trained."""
    keep_best: Metric = "log_loss"
    """The validation metric that decides which epoch's weights are kept. For a language model nats where not given."""
    checkpoint_steps: Count = 500
    """Optimizer steps between checkpoints; a killed run resumes from the newest."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Base(Config):
    """A recipe whose trained weights another training starts from. It is run as far as its training first."""

    recipe: str
    """Its name."""
    head: Literal["new", "keep"] = "new"
    """new: the last layer starts afresh, for other classes. keep: it goes on too; the classes must be the same."""


def _folds(folds: int) -> int:
    if folds == 1:
        raise ValueError("one fold leaves no rows to train on: set 0, or 2 and more")
    return folds


class Evaluation(Config):
    """How the trained model is measured on the test split."""

    metric: Metric = "accuracy"
    """The headline metric: it leads the tables, and compression and the champion gate go by it. For a language model nats where not given."""
    folds: Annotated[int, Field(ge=0, le=100), AfterValidator(_folds)] = 0
    """Also cross-validate: train anew so many times, each time measured on another part of all rows. 0 does not."""
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples for the 95 % intervals."""
    calibration_bins: Annotated[int, Field(ge=2)] = 15
    """Bins of equal width for the expected calibration error."""


Objective = Literal["size", "memory", "latency", "throughput"]


class Limits(Config):
    """What a variant must keep to be chosen. None sets no limit."""

    metric_drop: Annotated[float, Field(ge=0)] | None = 0.01
    """How much worse than fp32 the headline metric may be, on the validation split."""
    latency_ms: Positive | None = None
    """Median for one row, on this machine."""
    size_ratio: Positive | None = None
    """File size over that of fp32."""
    memory_mb: Positive | None = None
    """Resident memory that a process gains by it, in 10⁶ bytes, with a request of 32 rows, on this machine."""


Chains = tuple[dict[str, Any] | tuple[dict[str, Any], ...], ...]


class Compression(Config):
    """Which variants are made, and which is chosen: the best by the objective of those within the limits."""

    compressors: Chains = ({"kind": "int8_dynamic"}, {"kind": "int8_static"})
    """Each makes one variant beside fp32; a list of them makes one together, each from what the one before it left."""
    fallback: Chains = ()
    """More of the same, made only where neither fp32 nor any of the compressors is within the limits: what takes training, as a rule."""
    objective: Objective = "size"
    """What the best variant has least of (bytes, memory, milliseconds for one row) or most of (rows a second, in requests of 32)."""
    limits: Limits = Limits()
    """What a variant must keep to be chosen."""

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        ratio = self.limits.size_ratio
        if not self.compressors and not self.fallback and ratio is not None and ratio < 1:
            raise ValueError(f"without compressors there is only fp32, whose size_ratio is 1, over the limit of {ratio:g}")
        return self


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


class PayloadLog(Config):
    """What the server keeps of requests and answers, in Parquet, for the monitoring of the model."""

    sample: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of requests that is kept; 0 keeps none."""
    redact: tuple[str, ...] = ()
    """Columns that are left out of what is kept. Of a text or an image that is sent alone nothing is kept then."""


class Serving(Config):
    """How the server runs this model."""

    threads: Annotated[int, Field(ge=0)] = 0
    """Threads for one inference; 0 takes one for each core that this process may use."""
    device: Device = "cpu"
    """Where it runs, and is measured: auto takes a CUDA device where there is one. A device that a session does not get is an error."""
    payloads: PayloadLog = PayloadLog()
    golden: Annotated[int, Field(ge=0, le=64)] = 8
    """Rows of the test split that go into the bundle as they are, with each variant's answers, which a server asks for again before it
    serves a version. 0 where no row may be passed on; the check is then left out."""
    challenger: Traffic = Traffic()
    """What a release gets of the requests while it is challenger. It is written into the release's tag `traffic`, which decides."""


class Search(Config):
    """What trials set a key to: a number from `low` to `high`, whole where both and `step` are whole, or one of the `choices`."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Draw evenly over orders of magnitude, as suits a learning rate."""
    step: int | float | None = None
    """Only low, low + step, low + 2 step …"""
    choices: tuple[Any, ...] = ()

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        numbers = (self.low, self.high, self.step)
        if self.choices:
            if numbers != (None, None, None) or self.log:
                raise ValueError("give either choices, or low and high")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, as in {low: 1.0e-4, high: 1.0e-2, log: true}, or choices, as in {choices: [16, 32]}")
        if self.low >= self.high:
            raise ValueError(f"low, {self.low:g}, is not below high, {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low must be above 0, and is {self.low:g}")
        if self.step is not None and (self.log or self.step <= 0):
            raise ValueError("a step must be above 0, and does not go with log")
        return self


class Tuning(Config):
    """What `maasflow tune` searches: trainings with other values, measured on the validation split."""

    space: dict[str, Search] = {}
    """What is tried, by the key's dotted path in the recipe, as in training.learning_rate. Keys of model, training and transform."""
    trials: Count = 20
    """Trainings in all, those that were stopped early among them."""
    metric: Metric | None = None
    """The validation metric that decides; training.keep_best where not given."""
    pruner: Literal["median", "none"] = "median"
    """median: stop a training that is behind the median of the earlier ones at the same epoch."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs in which no training is stopped early."""
    startup: Count = 5
    """The first trials, whose values are drawn at random and none of which is stopped early."""


_GATES: tuple[dict[str, Any], ...] = ({"kind": "parity"}, {"kind": "metric_drop"}, {"kind": "champion"})


class Recipe(Config):
    """A recipe file. `model` names an entry of MODELS, each gate one of GATES, and holds its options."""

    description: str = ""
    """A sentence for whoever reviews the release."""
    dataset: str
    """The name of a file in data/."""
    transform: dict[str, Any] = {}
    """Options of the dataset's transform (image: size, mode …; text: tokenizer, length …; table: none)."""
    model: dict[str, Any]
    base: Base | None = None
    """Another recipe whose trained weights this training starts from."""
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    compression: Compression = Compression()
    gates: tuple[dict[str, Any], ...] = _GATES
    release: Release = Release()
    serving: Serving = Serving()
    tuning: Tuning = Tuning()

    def fitted_to(self, task: Task) -> Self:
        """The recipe with metrics of that task where it names none. Raises ConfigError where it names one of another."""
        stopping = self.training.early_stopping
        named: list[tuple[tuple[str, ...], Config, str]] = [
            (("training",), self.training, "keep_best"),
            (("evaluation",), self.evaluation, "metric"),
        ]
        if stopping:
            named.append((("training", "early_stopping"), stopping, "metric"))
        for path, section, key in named:
            if (key in section.model_fields_set or task == "classification") and getattr(section, key) not in METRICS[task]:
                raise self.origin.error(
                    (*path, key),
                    f"'{getattr(section, key)}' is no metric of {task.replace('_', ' ')}, which is what the dataset is for",
                    f"known: {', '.join(METRICS[task])}",
                )
        if task == "classification":
            return self
        if stopping:
            stopping = _with(stopping, metric="nats")
        fitted = _with(
            self, training=_with(self.training, keep_best="nats", early_stopping=stopping), evaluation=_with(self.evaluation, metric="nats")
        )
        fitted._origin = self._origin  # noqa: SLF001 - its own class
        return fitted


ConfigT = TypeVar("ConfigT", bound=Config)


def _with(section: ConfigT, **defaults: Any) -> ConfigT:
    """The section with these values where it does not give its own."""
    return section.model_copy(
        update={key: value for key, value in defaults.items() if isinstance(value, Config) or key not in section.model_fields_set}
    )
