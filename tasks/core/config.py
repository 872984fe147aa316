"""Typed, frozen configuration read from YAML, with errors that name file, line, key, value and choices."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from tasks.core.errors import ConfigError, did_you_mean

Key = str | int
Values = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """Where values came from, so that an error can point at the line to edit.

    `lines` maps a key path such as ("training", "epochs") to its 1-based line; `prefix` is put before every path.
    """

    file: str = ""
    lines: Mapping[tuple[Key, ...], int] = field(default_factory=dict)
    prefix: tuple[Key, ...] = ()

    def below(self, *keys: Key) -> "Origin":
        return Origin(self.file, self.lines, (*self.prefix, *keys))

    def locate(self, path: Sequence[Key]) -> str:
        """`file:line: key.path`, as far as each is known."""
        full = (*self.prefix, *path)
        line = next((self.lines[full[:n]] for n in range(len(full), 0, -1) if full[:n] in self.lines), None)
        place = f"{self.file}:{line}" if self.file and line else self.file
        return ": ".join(part for part in (place, ".".join(map(str, full))) if part)

    def error(self, path: Sequence[Key], what: str, do: str = "") -> ConfigError:
        return ConfigError(f"{self.locate(path)}: {what}", do)


class Config(BaseModel):
    """A frozen set of typed keys. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @property
    def origin(self) -> Origin:
        return self._origin

    @classmethod
    def parse(cls, values: Mapping[str, Any], origin: Origin | None = None) -> Self:
        """Validate plain values. Raises ConfigError with one line for each mistake."""
        origin = origin or Origin()
        try:
            # Through JSON, so that strict types still let a YAML list become a tuple.
            parsed = cls.model_validate_json(json.dumps(values))
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(cls, detail, origin) for detail in error.errors())) from None
        parsed._origin = origin  # noqa: SLF001 - its own class
        return parsed


ConfigT = TypeVar("ConfigT", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: `no` is a text, `1e-3` a number, a date a text; a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9][0-9_]*$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_yaml(path: Path, label: str | None = None) -> tuple[Values, Origin]:
    """The mapping in a YAML file, and the line of each of its keys."""
    label = label or str(path)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise ConfigError(f"{label}: not UTF-8 text (byte {error.start})", "save the file as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ConfigError(f"{label}:{mark.line + 1 if mark else '?'}: not valid YAML: {error.problem}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{label}: expected keys and values, found {type(values).__name__ if values else 'nothing'}")
    lines: dict[tuple[Key, ...], int] = {}
    _mark(node, (), lines)
    return values, Origin(label, lines)


def override(values: Values, settings: Sequence[str]) -> Values:
    """The values with each `key.path=value` of `--set` applied; the value is read as YAML."""
    result: Values = json.loads(json.dumps(values))
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {setting}: expected KEY.PATH=VALUE", "for example --set training.epochs=3")
        try:
            value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError:
            raise ConfigError(f"--set {setting}: the value is not valid YAML: {text}") from None
        _set(result, path.split("."), value, setting)
    return result


def _set(target: Any, keys: list[str], value: Any, setting: str) -> None:
    key, *rest = keys
    if isinstance(target, list):
        if not key.isdigit() or int(key) >= len(target):
            raise ConfigError(f"--set {setting}: '{key}' is not one of the {len(target)} items there, counted from 0")
        step: Any = int(key)
    elif isinstance(target, dict):
        step = key
    else:
        raise ConfigError(f"--set {setting}: there is a single value ({target!r}) where '{key}' is looked for")
    if not rest:
        target[step] = value
        return
    if isinstance(target, dict) and target.get(step) is None:
        target[step] = {}
    _set(target[step], rest, value, setting)


def _mark(node: yaml.Node | None, path: tuple[Key, ...], lines: dict[tuple[Key, ...], int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*path, key.value)] = key.start_mark.line + 1
            _mark(value, (*path, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _mark(item, (*path, index), lines)


def _explain(cls: type[BaseModel], detail: ErrorDetails, origin: Origin) -> str:
    path = [part for part in detail["loc"] if not (isinstance(part, str) and part.endswith("]"))]
    where, value = origin.locate(path), detail["input"]
    if detail["type"] == "extra_forbidden":
        known = _known(cls, path[:-1])
        return f"{where}: unknown key '{path[-1]}'{did_you_mean(path[-1], known)} Known keys: {', '.join(known)}."
    if detail["type"] == "missing":
        return f"{where}: this key is missing and has no default."
    if detail["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
        return f"{where}: {value!r} is not one of {', '.join(choices)}{did_you_mean(value, choices)}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{where}: {_shown(value)} {message if detail['type'] != 'value_error' else ': ' + message}".replace(" : ", ": ")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _known(cls: type[BaseModel], path: Sequence[Key]) -> list[str]:
    """The keys that the class at the end of the path knows."""
    current: type[BaseModel] | None = cls
    for part in path:
        if current is None or not isinstance(part, str) or part not in current.model_fields:
            continue
        current = next(iter(_models(current.model_fields[part].annotation)), None)
    return sorted(current.model_fields) if current else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
