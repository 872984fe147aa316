"""Inputs as MLflow's clients send them (https://mlflow.org/docs/latest/genai/serving/#api-specifications): a table, or a list of values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from deploy.serving.calls import Refusal
from tasks.core.transforms import CategoryColumn, NumberColumn, TableTransform, TextTransform, Transform

FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


def read_rows(values: Mapping[str, Any]) -> list[Any]:
    """The rows of whichever form was sent: objects by column, or values without a name. Raises Refusal."""
    forms = [form for form in FORMS if form in values]
    if len(forms) != 1:
        raise Refusal(400, f"exactly one of {', '.join(FORMS)} is expected, found {' and '.join(forms) or 'none'}")
    (form,) = forms
    given = values[form]
    if form == "dataframe_split":
        return _split(given)
    if form == "inputs" and type(given) is dict:
        return _by_column(given)
    if type(given) is not list:
        raise Refusal(400, f"'{form}' is a list of rows{', or an object of columns' if form == 'inputs' else ''}")
    if form == "dataframe_records" and not all(type(row) is dict for row in given):
        raise Refusal(400, f"each of '{form}' is an object by column")
    return given


def instances_of(rows: Sequence[Any], transform: Transform) -> list[Any]:
    """The rows as the transform takes them, their columns checked. Raises Refusal.

    What a model of one column calls it does not matter, where the rows have one too.
    """
    columns = {name for row in rows if type(row) is dict for name in row}
    named = any(type(row) is dict for row in rows)
    if isinstance(transform, TableTransform):
        if named:
            cells: list[NumberColumn | CategoryColumn] = [*transform.numbers, *transform.categories]
            _check(columns, [cell.column for cell in cells], [cell.column for cell in cells if not cell.nullable])
        return list(rows)
    if named and len(columns) != 1:
        _check(columns, [transform.column], [transform.column])
    values = [next(iter(row.values()), None) if type(row) is dict else row for row in rows]
    if isinstance(transform, TextTransform):
        # A column of an array of two dimensions.
        return [value[0] if type(value) is list and len(value) == 1 else value for value in values]
    return values


def _split(given: Any) -> list[Any]:
    """As pandas has it in `to_dict(orient="split")`."""
    columns, data = (given.get("columns"), given.get("data")) if type(given) is dict else (None, None)
    if type(columns) is not list or type(data) is not list or given.keys() - {"columns", "data", "index"}:
        raise Refusal(400, "'dataframe_split' is an object with the lists 'columns' and 'data', and 'index' if need be")
    # pandas counts columns that have no names.
    if not all(type(name) in (str, int) for name in columns) or len(set(map(str, columns))) < len(columns):
        raise Refusal(400, "'columns' are names, each of which is there once")
    for row, cells in enumerate(data):
        if type(cells) is not list or len(cells) != len(columns):
            raise Refusal(400, f"row {row} of 'data' is not a list of {len(columns):,}, as many as there are 'columns'")
    return [dict(zip(map(str, columns), cells, strict=True)) for cells in data]


def _by_column(given: Mapping[str, Any]) -> list[Any]:
    if not all(type(values) is list for values in given.values()):
        raise Refusal(400, "each column of 'inputs' is a list")
    lengths = {len(values) for values in given.values()}
    if len(lengths) > 1:
        raise Refusal(400, f"the columns of 'inputs' differ in length: {', '.join(map(str, sorted(lengths)))}")
    return [dict(zip(given, cells, strict=True)) for cells in zip(*given.values(), strict=True)]


def _check(found: set[str], known: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in found]
    unknown = sorted(found.difference(known))
    if missing or unknown:
        what = [f"{len(names):,} {kind} ({_listed(names)})" for kind, names in (("missing", missing), ("unknown", unknown)) if names]
        raise Refusal(400, f"the columns are not the model's: {', '.join(what)}; it takes {_listed(known)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:80]) for name in names)
