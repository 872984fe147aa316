"""Typed, frozen configuration read from YAML, with errors that name file, line, key, value and choices."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from tasks.core.errors import ConfigError
from tasks.core.mistakes import Key, mistakes

Values = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """Where values came from, so that an error can point at the line to edit.

    `lines` maps a key path such as ("training", "epochs") to its 1-based line; `prefix` is put before every path;
    `settings` are the `--set` that stand in for lines of the file.
    """

    file: str = ""
    lines: Mapping[tuple[Key, ...], int] = field(default_factory=dict)
    prefix: tuple[Key, ...] = ()
    settings: tuple[str, ...] = ()

    def below(self, *keys: Key) -> "Origin":
        return replace(self, prefix=(*self.prefix, *keys))

    def overridden(self, settings: Sequence[str]) -> "Origin":
        """The origin of what `override` makes of the values."""
        return replace(self, settings=(*self.settings, *settings))

    def locate(self, path: Sequence[Key]) -> str:
        """`file:line: key.path`, as far as each is known; `--set …: key.path` for what a `--set` gave."""
        full = (*self.prefix, *path)
        dotted = ".".join(map(str, full))
        line = next((self.lines[full[:n]] for n in range(len(full), 0, -1) if full[:n] in self.lines), None)
        place = f"{self.file}:{line}" if self.file and line else self.file
        for setting in reversed(self.settings):
            key = setting.partition("=")[0]
            if f"{dotted}.".startswith(f"{key}."):
                return f"--set {setting}" if dotted == key else f"--set {setting}: {dotted}"
        return ": ".join(part for part in (place, dotted) if part)

    def error(self, path: Sequence[Key], what: str, do: str = "") -> ConfigError:
        return ConfigError(": ".join(part for part in (self.locate(path), what) if part), do)


class Config(BaseModel):
    """A frozen set of typed keys. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

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
            raise ConfigError("\n".join(str(origin.error(*mistake)) for mistake in mistakes(cls, values, error))) from None
        parsed._origin = origin  # noqa: SLF001 - its own class
        return parsed


ConfigT = TypeVar("ConfigT", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars, so that `no` is a text, `1e-3` a number and `010` ten. Keys are texts, and one given twice is an error.

    Infinity and not-a-number stay texts: no setting takes them.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is a single value", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key_node.value}' is given twice", key_node.start_mark)
            seen.add(key_node.value)
            key_node.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node))


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _tag in ("binary", "timestamp", "omap", "pairs", "set"):
    # None of these has a form in JSON, which all values pass through.
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", yaml.SafeLoader.yaml_constructors[None])


def read_yaml(path: Path, label: str | None = None) -> tuple[Values, Origin]:
    """The mapping in a YAML file, and the line of each of its keys."""
    label = label or str(path)
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        lines: dict[tuple[Key, ...], int] = {}
        _mark(yaml.compose(text, Loader=_Loader), (), lines)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{label}: not UTF-8 text (byte {error.start})", "save the file as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ConfigError(f"{label}:{mark.line + 1 if mark else '?'}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{label}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ConfigError(f"{label}: nested too deeply, or an alias stands inside what it names") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else "a list" if isinstance(values, list) else "a single value"
        raise ConfigError(f"{label}: expected keys and values, found {found}")
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
