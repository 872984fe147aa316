"""`maasflow predict`: the champion's answer for a file, without a server."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.core.bundle import Bundle
from tasks.core.errors import BundleError, InputError, did_you_mean
from tasks.core.generator import Generator, Options
from tasks.core.predictor import Predictor
from tasks.core.served import pointed_at
from tasks.core.workspace import Workspace


def predict_file(name: str, file: Path, variant: str | None = None) -> Iterator[str]:
    """A line of JSON for each input in the file. Raises BundleError, InputError."""
    predictor = Predictor(champion(Workspace.current(), name), variant)
    inputs = read_inputs(file)
    answers = _continued if predictor.manifest.task == "language_modelling" else _predicted
    for answer in answers(predictor, inputs):
        yield json.dumps(answer, ensure_ascii=False)


def _predicted(predictor: Predictor, inputs: list[Any]) -> Iterator[dict[str, Any]]:
    for prediction in predictor.predict(inputs):
        yield {"label": prediction.label, "probabilities": prediction.probabilities}


def _continued(predictor: Predictor, inputs: list[Any]) -> Iterator[dict[str, Any]]:
    """Each input is a prompt. The same one gives the same text, because the seed is always 0."""
    generator = Generator(predictor)
    prompts = generator.transform.columns(inputs)[generator.transform.column]
    for row, prompt in enumerate(prompts):
        try:
            generation = generator.generate(prompt, Options(seed=0))
            text = "".join(generation)
        except InputError as error:
            raise InputError(f"item {row}: {error.what}") from None
        yield {"text": text, "finish_reason": generation.finish_reason}


def champion(workspace: Workspace, name: str) -> Bundle:
    """The verified bundle of the model's champion, from the served folder."""
    version = pointed_at(workspace.served / name)
    if version is None:
        known = sorted(path.name for path in workspace.served.glob("*") if pointed_at(path))
        raise BundleError(
            f"no champion of '{name}' is here{did_you_mean(name, known)}",
            f"served: {', '.join(known) or 'nothing yet'}; release one with maasflow run, or bring it here with maasflow serve",
        )
    return Bundle.open(workspace.served / name / version)


def read_inputs(file: Path) -> list[Any]:
    """The inputs in an image file, a .txt (all of it is one text), a .csv with a header (an empty cell is a missing value), or
    a .json. Raises InputError.
    """
    try:
        match file.suffix.lower():
            case ".json":
                values = json.loads(file.read_text(encoding="utf-8"))
                return _as_list(values)
            case ".txt":
                return [file.read_text(encoding="utf-8-sig")]
            case ".csv":
                with file.open(newline="", encoding="utf-8-sig") as lines:
                    return [{key: value or None for key, value in row.items()} for row in csv.DictReader(lines, strict=True)]
            case _:
                return [file.read_bytes()]
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text (byte {error.start})") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{file} cannot be read as {file.suffix.lstrip('.').upper()}: {error}") from None


def _as_list(values: Any) -> list[Any]:
    """One input, or many: rows of pixels are one image, a list of anything else is a list of inputs. Raises InputError."""
    if isinstance(values, dict) and "instances" in values:
        instances = values["instances"]
        if not isinstance(instances, list):
            raise InputError(f"'instances' is {str(instances)[:60]!r}, expected a list of inputs")
        return instances
    return values if isinstance(values, list) and not _is_image(values) else [values]


def _is_image(values: list[Any]) -> bool:
    """Whether these are [height][width] or [height][width][3] numbers. Raises InputError for an empty row."""
    if not values or not all(isinstance(row, list) for row in values):
        return False
    pixels = [pixel for row in values for pixel in row]
    if [] in values or [] in pixels:
        raise InputError("a row of pixels is empty")
    return _are_numbers(pixels) or all(isinstance(pixel, list) and len(pixel) == 3 and _are_numbers(pixel) for pixel in pixels)


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)
