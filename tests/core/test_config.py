"""Configuration: what YAML means here, and that each mistake is told with its file, line, key, value and choices."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tasks.core.config import Config, Origin, override, read_yaml
from tasks.core.errors import ConfigError


class Inner(Config):
    patience: Annotated[int, Field(ge=1)] = 5
    metric: Literal["accuracy", "loss"] = "loss"


class Outer(Config):
    name: str
    epochs: int = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    flag: bool = False
    size: tuple[int, int] | None = None
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] = {}
    classes: tuple[str | int | float | bool, ...] = ()
    options: dict[str, Any] = {}


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Outer]:
    def parse(text: str) -> Outer:
        path = tmp_path / "x.yaml"
        path.write_text(text, encoding="utf-8")
        return Outer.parse(*read_yaml(path, "x.yaml"))

    return parse


MISTAKES = {
    "a text where a whole number belongs": ("name: a\nepochs: x", "x.yaml:2: epochs: 'x' is not a whole number"),
    "a fraction where a whole number belongs": ("name: a\nepochs: 1.5", "x.yaml:2: epochs: 1.5 is not a whole number"),
    "a whole number written as a fraction": ("name: a\nepochs: 5.0", "x.yaml:2: epochs: 5.0 is not a whole number: write 5"),
    "a text where a number belongs": ("name: a\nrate: fast", "x.yaml:2: rate: 'fast' is not a number"),
    "infinity": ("name: a\nrate: .inf", "x.yaml:2: rate: '.inf' is not a number"),
    "a number where a text belongs": ("name: 12", "x.yaml:1: name: 12 is not a text: put it in quotes, '12'"),
    "yes is a text": ("name: a\nflag: yes", "x.yaml:2: flag: 'yes' is not true or false"),
    "nothing": ("name: a\nepochs:", "x.yaml:2: epochs: null is not a whole number"),
    "too small": ("name: a\nrate: 0", "x.yaml:2: rate: 0 is too small: it must be above 0"),
    "too large": ("name: a\nrate: 1", "x.yaml:2: rate: 1 is too large: it must be below 1"),
    "below the least": ("name: a\ninner: {patience: 0}", "x.yaml:2: inner.patience: 0 is too small: the least allowed is 1"),
    "missing": ("epochs: 1", "x.yaml: name: this key is missing and has no default"),
    "unknown": (
        "name: a\ninner:\n  patiense: 3",
        "x.yaml:3: inner.patiense: unknown key 'patiense'; did you mean 'patience'? Known keys: patience, metric",
    ),
    "unknown, and like nothing": ("name: a\ninner:\n  zzz: 3", "x.yaml:3: inner.zzz: unknown key 'zzz'. Known keys: patience, metric"),
    "unknown in a list": (
        "name: a\nmany:\n  - patience: 2\n  - metrics: loss",
        "x.yaml:4: many.1.metrics: unknown key 'metrics'; did you mean 'metric'? Known keys: patience, metric",
    ),
    "unknown under a free name that is also a key": (
        "name: a\nnamed:\n  patience:\n    metrik: loss",
        "x.yaml:4: named.patience.metrik: unknown key 'metrik'; did you mean 'metric'? Known keys: patience, metric",
    ),
    "not a choice": (
        "name: a\ninner: {metric: Acuracy}",
        "x.yaml:2: inner.metric: 'Acuracy' is not one of accuracy, loss; did you mean 'accuracy'?",
    ),
    "not a mapping": ("name: a\ninner: 3", "x.yaml:2: inner: 3 is not a set of keys and values"),
    "not a list": ("name: a\nmany: {metric: loss}", 'x.yaml:2: many: {"metric": "loss"} is not a list'),
    "a list too short": ("name: a\nsize: [8]", "x.yaml:2: size: [8] has too few items"),
    "a list too long": ("name: a\nsize: [8, 8, 8]", "x.yaml:2: size: [8, 8, 8] has 3 items, the most allowed is 2"),
    "no member of a union, told once": ("name: a\nclasses:\n  - 1\n  - [2]", "x.yaml:4: classes.1: [2] is not a single value"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_reads_as_a_sentence_that_points_at_its_line(name: str, read: Callable[[str], Outer]) -> None:
    text, expected = MISTAKES[name]
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value) == expected


def test_all_mistakes_are_told_at_once(read: Callable[[str], Outer]) -> None:
    with pytest.raises(ConfigError) as caught:
        read("name: 1\nepochs: x\nrate: 7")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["name", "epochs", "rate"]


def test_a_long_value_is_cut(read: Callable[[str], Outer]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f"name: a\nepochs: {'x' * 1000}")
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("010", 10),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
        ("1.2.3", "1.2.3"),
        ("~", None),
        ("", None),
        ("'12'", "12"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object, read: Callable[[str], Outer]) -> None:
    found = read(f"name: a\noptions: {{key: {text}}}").options["key"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: a\nname: b", "x.yaml:2: not valid YAML: the key 'name' is given twice"),
        (b"options:\n  1: a\n  '1': b", "x.yaml:3: not valid YAML: the key '1' is given twice"),
        (b"name: [1", "x.yaml:1: not valid YAML"),
        (b"name: a\n? [1, 2]\n: b", "x.yaml:2: not valid YAML: a key is a single value"),
        (b"name: !!binary aGk=", "x.yaml:1: not valid YAML: could not determine a constructor"),
        (b"name: !!python/object/apply:os.getcwd []", "x.yaml:1: not valid YAML: could not determine a constructor"),
        (b"name: \x00", "x.yaml: not valid YAML"),
        (b"name: caf\xe9", "x.yaml: not UTF-8 text (byte 9)"),
        (b"name: a\n---\nname: b", "x.yaml:2: not valid YAML"),
        (b"options: &a [*a]", "x.yaml: nested too deeply"),
        (b"", "x.yaml: expected keys and values, found nothing"),
        (b"- 1", "x.yaml: expected keys and values, found a list"),
        (b"word", "x.yaml: expected keys and values, found a single value"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path, "x.yaml")
    assert str(caught.value).startswith(expected)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes("\ufeffname: ä\r\nepochs: x\r\n".encode())
    values, origin = read_yaml(path, "x.yaml")
    assert values == {"name": "ä", "epochs": "x"}
    assert origin.locate(("epochs",)) == "x.yaml:2: epochs"


def test_configs_are_frozen(read: Callable[[str], Outer]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        read("name: a").epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("epochs=3", {"epochs": 3}),
        ("inner.patience=3", {"inner": {"patience": 3, "metric": "loss"}}),
        ("rate=1e-3", {"rate": 0.001}),
        ("size=[8, 9]", {"size": (8, 9)}),
        ("many.1.patience=9", {"many": ({"patience": 2, "metric": "loss"}, {"patience": 9, "metric": "loss"})}),
        ("many=[]", {"many": ()}),
        ("options={a: 1, b: no}", {"options": {"a": 1, "b": "no"}}),
        ("options.a=x=y", {"options": {"a": "x=y"}}),
        ("inner=null", {"inner": None}),
        ("inner=", {"inner": None}),
    ],
)
def test_set_replaces_one_value(setting: str, expected: dict[str, object]) -> None:
    values = {"name": "a", "many": [{"patience": 2}, {}], "inner": {"metric": "loss"}}
    assert expected.items() <= Outer.parse(override(values, [setting])).model_dump().items()


def test_set_leaves_the_given_values_alone() -> None:
    values = {"name": "a", "many": [{"patience": 2}]}
    override(values, ["many.0.patience=3"])
    assert values == {"name": "a", "many": [{"patience": 2}]}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("epochs", "--set epochs: expected KEY.PATH=VALUE"),
        ("=3", "--set =3: expected KEY.PATH=VALUE"),
        ("many.7.patience=3", "'7' is not one of the 1 items there, counted from 0"),
        ("many.last.patience=3", "'last' is not one of the 1 items there"),
        ("name.first=3", "there is a single value ('a') where 'first' is looked for"),
        ("size=[8", "the value is not valid YAML: [8"),
    ],
)
def test_a_set_that_leads_nowhere_is_refused(setting: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override({"name": "a", "many": [{}]}, [setting])
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("epochs=x", "--set epochs=x: 'x' is not a whole number"),
        ("inner={patience: x}", "--set inner={patience: x}: inner.patience: 'x' is not a whole number"),
        ("epoch=3", "--set epoch=3: unknown key 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_a_wrong_set_is_blamed_by_its_own_text_and_not_by_the_files_line(setting: str, expected: str) -> None:
    origin = Origin("x.yaml", {("epochs",): 7}).overridden([setting])
    with pytest.raises(ConfigError) as caught:
        Outer.parse(override({"name": "a", "epochs": 1}, [setting]), origin)
    assert str(caught.value).startswith(expected)


def test_a_component_is_blamed_below_the_key_that_holds_it() -> None:
    origin = Origin("x.yaml", {("model",): 4, ("model", "patience"): 5}).below("model")
    with pytest.raises(ConfigError, match=r"^x\.yaml:5: model\.patience: 0 is too small"):
        Inner.parse({"patience": 0}, origin)


def test_a_mistake_without_a_place_begins_with_what_is_wrong() -> None:
    assert str(Origin().error((), "wrong", "mend it")) == "wrong\n  → mend it"


plain = st.characters(min_codepoint=32, max_codepoint=126)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(plain),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(plain, max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_parsing_ends_with_a_config_or_a_config_error(values: dict[str, Any]) -> None:
    with suppress(ConfigError):
        Outer.parse({"name": "a"} | values)


@given(json_values)
def test_a_value_of_set_may_be_written_as_json(value: Any) -> None:
    assert override({}, [f"a={json.dumps(value)}"]) == {"a": value}
