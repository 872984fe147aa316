"""`data/<name>.yaml`: where a dataset comes from, what it holds, what must be true of it, how it is cleaned and split."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tasks.core.config import Config

ColumnType = Literal["image", "text", "number", "category", "label"]
CleaningStep = Literal["trim", "unicode_nfc", "drop_empty", "drop_duplicates"]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
Task = Literal["classification", "language_modelling"]

Value = str | int | float | bool


class Column(Config):
    """What a column of the raw data holds.

    `image` is an encoded file (PNG, JPEG …), `number` is read as float64, `category` as text.
    """

    type: ColumnType
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[Value, ...] = ()
    """For `category`: the only values allowed; empty allows any."""
    classes: tuple[Value, ...] = ()
    """For `label`: the raw values of the classes, in the order of the model's outputs."""
    names: tuple[str, ...] = ()
    """For `label`: what people call the classes, in the same order."""
    others: Literal["refuse", "drop"] = "refuse"
    """For `label`: what becomes of a row whose value is none of `classes`. `refuse` fails the validation, `drop` leaves the row out."""

    @model_validator(mode="after")
    def _label_fits(self) -> Self:
        if (self.type == "label") != bool(self.classes):
            raise ValueError("a label column, and no other, lists its 'classes'")
        if self.type == "label" and len(set(map(str, self.classes))) < 2:
            raise ValueError("a label needs at least two different classes")
        if self.type == "label" and len(set(map(str, self.classes))) < len(self.classes):
            raise ValueError("a class is listed twice")
        if self.type == "label" and self.nullable:
            raise ValueError("a label cannot be nullable: leave rows without a label out of the source")
        if self.type != "label" and self.others != "refuse":
            raise ValueError(f"'others' belongs to a label column, not to {self.type}")
        if self.names and len(self.names) != len(self.classes):
            raise ValueError(f"{len(self.names)} 'names' for {len(self.classes)} 'classes'")
        if len(set(self.names)) < len(self.names):
            raise ValueError("a name in 'names' is listed twice")
        return self

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.categories and self.type != "category":
            raise ValueError(f"'categories' belongs to a category column, not to {self.type}")
        if (self.minimum is not None or self.maximum is not None) and self.type != "number":
            raise ValueError(f"'minimum' and 'maximum' belong to a number column, not to {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"the minimum {self.minimum:g} is above the maximum {self.maximum:g}")
        return self


class Expectations(Config):
    """What must hold of the raw data before anything is trained on it."""

    minimum_rows: Annotated[int, Field(ge=1)] = 50
    duplicates: Annotated[float, Field(ge=0, le=1)] = 0.05
    """The largest share of rows that may repeat another row."""
    smallest_class: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The smallest share of rows that a class may have."""
    extra: tuple[dict[str, Any], ...] = ()
    """Expectations of Great Expectations, as `{type: expect_…, kwargs: {…}}`; see its gallery for the names."""


class Splitting(Config):
    """Shares of the data held out. A split that the source itself delivers is kept as it is and its share ignored."""

    validation: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    seed: int = 0
    by: Literal["content", "order"] = "content"
    """What decides a row's side. `content`: the row itself and `seed`, so equal rows share a side, and a row that also stands in a
    split held out is taken out of the others. `order`, for running texts and time series: the last rows are the test split, those
    before them validation, and no row is taken out but by `cleaning`."""


class Dataset(Config):
    """A dataset file. `source` names an entry of SOURCES and holds its options."""

    description: str = ""
    license: str = ""
    source: dict[str, Any]
    columns: dict[str, Column]
    expectations: Expectations = Expectations()
    cleaning: tuple[CleaningStep, ...] = ("trim", "unicode_nfc", "drop_empty", "drop_duplicates")
    split: Splitting = Splitting()

    @model_validator(mode="after")
    def _can_be_learned_from(self) -> Self:
        labels = [name for name, column in self.columns.items() if column.type == "label"]
        if len(labels) > 1:
            raise ValueError(f"at most one column is the label, found {len(labels)}: {', '.join(labels)}")
        if reserved := [name for name in self.columns if name.startswith("_")]:
            raise ValueError(f"a column's name may not start with '_', which marks maasflow's own columns: {', '.join(reserved)}")
        if labels and not self.features:
            raise ValueError("there is no column beside the label to learn from")
        if not labels and [column.type for column in self.columns.values()] != ["text"]:
            found = ", ".join(f"{name} ({column.type})" for name, column in self.columns.items()) or "none"
            raise ValueError(
                f"no column is the label: give one type: label, or keep one column of type text for a language model; found {found}"
            )
        return self

    @property
    def task(self) -> Task:
        """What there is to learn: the classes of the label, or, where there is none, how the text goes on."""
        return "classification" if self.label else "language_modelling"

    @property
    def label(self) -> str | None:
        """The name of the label column, None for a language model's text."""
        return next((name for name, column in self.columns.items() if column.type == "label"), None)

    @property
    def features(self) -> dict[str, Column]:
        return {name: column for name, column in self.columns.items() if column.type != "label"}

    @property
    def classes(self) -> tuple[Value, ...]:
        """The raw values of the classes; none for a language model's text."""
        return self.columns[self.label].classes if self.label else ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """What people call the classes, in the order of the model's outputs."""
        return (self.columns[self.label].names if self.label else ()) or tuple(map(str, self.classes))
