"""What a file for `maasflow predict` holds: one input or many."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.predict import predict_file, read_inputs
from tasks.core.errors import InputError
from tasks.core.stages import write_text
from tasks.core.workspace import Workspace
from tests.texts import write_classifier, write_language_model

GREY = [[0, 255], [1.0, 2]]
RGB = [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
ROW = {"age": 31, "port": "S"}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize(
    "one",
    [GREY, RGB, [[7]], [[1, 2], [3]], ROW, "aGVsbG8=", 5, None],
    ids=["grey", "rgb", "pixel", "ragged", "row", "base64", "number", "null"],
)
def test_one_input(tmp_path: Path, one: Any) -> None:
    assert read_inputs(write(tmp_path, "one.json", json.dumps(one))) == [one]


@pytest.mark.parametrize(
    "many",
    [[], [ROW], [ROW, ROW], ["aGVsbG8="], [1, 2], [GREY], [GREY, GREY], [RGB], [RGB, RGB], [GREY, "aGVsbG8="], [[1, None]]],
    ids=["none", "a row", "rows", "base64", "numbers", "grey", "greys", "rgb", "rgbs", "mixed", "not pixels"],
)
def test_many_inputs(tmp_path: Path, many: list[Any]) -> None:
    assert read_inputs(write(tmp_path, "many.json", json.dumps(many))) == many
    assert read_inputs(write(tmp_path, "many.json", json.dumps({"instances": many}))) == many


def test_instances_are_taken_as_they_are(tmp_path: Path) -> None:
    assert read_inputs(write(tmp_path, "request.json", json.dumps({"instances": GREY}))) == GREY


@pytest.mark.parametrize("instances", [5, None, "text", ROW])
def test_instances_that_are_no_list_are_refused(tmp_path: Path, instances: Any) -> None:
    with pytest.raises(InputError, match="expected a list of inputs"):
        read_inputs(write(tmp_path, "request.json", json.dumps({"instances": instances})))


@pytest.mark.parametrize("rows", [[[]], [[1, 2], []], [[[]]], [[[1, 2, 3], []]]])
def test_an_empty_row_is_refused(tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(InputError, match="a row of pixels is empty"):
        read_inputs(write(tmp_path, "image.json", json.dumps(rows)))


def test_an_empty_cell_of_a_csv_is_a_missing_value(tmp_path: Path) -> None:
    file = write(tmp_path, "people.csv", "\ufeffage,port\r\n31,S\r\n,\r\n,Q\r\n")
    assert read_inputs(file) == [{"age": "31", "port": "S"}, {"age": None, "port": None}, {"age": None, "port": "Q"}]


def test_all_of_a_txt_is_one_text(tmp_path: Path) -> None:
    assert read_inputs(write(tmp_path, "one.txt", "\ufeffA good\r\nday, 你好\n")) == ["A good\nday, 你好\n"]
    assert read_inputs(write(tmp_path, "empty.TXT", "")) == [""]


def answers(file: Path, name: str) -> list[Any]:
    return [json.loads(line) for line in predict_file(name, file)]


@pytest.fixture
def texts(workspace: Workspace) -> Path:
    """The workspace's folder, in which the text models `moods` and `writer` are served."""
    for name, make in (("moods", write_classifier), ("writer", write_language_model)):
        make(workspace.served / name / "1")
        write_text(workspace.served / name / "current.json", '{"version": "1"}')
    return workspace.root


def test_texts_are_answered_in_every_form(texts: Path) -> None:
    (one,) = answers(write(texts, "one.txt", "a good day\n"), "moods")
    assert one["label"] == "good"
    forms = {
        "one.json": '"a good day"',
        "many.json": '["a good day"]',
        "key.json": '{"text": "a good day"}',
        "rows.csv": "text\na good day\n",
    }
    for name, content in forms.items():
        assert answers(write(texts, name, content), "moods") == [one]
    assert [each["label"] for each in answers(write(texts, "two.csv", "text\ngood\nbad\n"), "moods")] == ["good", "bad"]


def test_a_prompt_is_continued_in_the_same_way_each_time(texts: Path) -> None:
    file = write(texts, "prompt.txt", "First Citizen:\n")
    (first,) = answers(file, "writer")
    assert (len(first["text"]), first["finish_reason"]) == (128, "length")
    assert answers(file, "writer") == [first]
    assert answers(write(texts, "prompts.json", '["First Citizen:\\n", ""]'), "writer")[0] == first


@pytest.mark.parametrize(
    ("name", "model", "content", "says"),
    [
        ("empty.txt", "moods", "", "item 0: the text is empty"),
        ("gap.csv", "moods", "text\ngood\n,\n", "item 1"),
        ("wrong.csv", "moods", "words\ngood\n", "item 0: expected the key 'text' alone, found words"),
        ("image.png", "moods", "", "item 0: expected a text, found bytes"),
        ("null.json", "writer", '["a", null]', "item 1: the prompt cannot be read: expected a text, found nothing"),
    ],
)
def test_what_is_no_text_is_told(texts: Path, name: str, model: str, content: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        answers(write(texts, name, content), model)


def test_any_other_file_is_an_image(tmp_path: Path) -> None:
    assert read_inputs(write(tmp_path, "image.PNG", b"\x89PNG")) == [b"\x89PNG"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("one.txt", b"a \xff", r"one\.txt is not UTF-8 text \(byte 2\)"),
        ("people.csv", b"age,port\n31,\xff\n", r"people\.csv is not UTF-8 text"),
        ("people.csv", 'age,port\n31,"S', r"people\.csv cannot be read as CSV"),
        ("one.json", b'{"port": "\xff"}', r"one\.json is not UTF-8 text \(byte 10\)"),
        ("one.json", '{"age": 31', r"one\.json cannot be read as JSON"),
        ("one.json", "", r"one\.json cannot be read as JSON"),
    ],
)
def test_a_broken_file_is_one_message(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_inputs(write(tmp_path, name, content))
