"""`data/<name>.yaml`: where a dataset comes from, what it holds, what must be true of it, how it is cleaned and split."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tasks.core.config import Config

ColumnType = Literal["image", "text", "number", "category", "label"]
CleaningStep = Literal["trim", "unicode_nfc", "drop_empty", "drop_duplicates"]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

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

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if (self.type == "label") != bool(self.classes):
            raise ValueError("a label column, and no other, lists its 'classes'")
        if self.type == "label" and len(set(map(str, self.classes))) < 2:
            raise ValueError("a label needs at least two different classes")
        if self.type == "label" and len(set(map(str, self.classes))) < len(self.classes):
            raise ValueError("a class is listed twice")
        if self.type == "label" and self.nullable:
            raise ValueError("a label cannot be nullable: leave rows without a label out of the source")
        if self.names and len(self.names) != len(self.classes):
            raise ValueError(f"{len(self.names)} 'names' for {len(self.classes)} 'classes'")
        if len(set(self.names)) < len(self.names):
            raise ValueError("a name in 'names' is listed twice")
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
    def _one_label_and_a_feature(self) -> Self:
        labels = [name for name, column in self.columns.items() if column.type == "label"]
        if len(labels) != 1:
            raise ValueError(f"exactly one column is the label, found {len(labels)}" + (f": {', '.join(labels)}" if labels else ""))
        if reserved := [name for name in self.columns if name.startswith("_")]:
            raise ValueError(f"a column's name may not start with '_', which marks maasflow's own columns: {', '.join(reserved)}")
        if not self.features:
            raise ValueError("there is no column beside the label to learn from")
        return self

    @property
    def label(self) -> str:
        """The name of the label column."""
        return next(name for name, column in self.columns.items() if column.type == "label")

    @property
    def features(self) -> dict[str, Column]:
        return {name: column for name, column in self.columns.items() if column.type != "label"}

    @property
    def classes(self) -> tuple[Value, ...]:
        return self.columns[self.label].classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """What people call the classes, in the order of the model's outputs."""
        return self.columns[self.label].names or tuple(map(str, self.classes))
