"""Texts to token ids: what is cut, what is refused, and the way back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import ConfigError, InputError
from tasks.core.ragged import Ragged
from tasks.core.transforms import TextOptions, TextTransform

TEXTS = ["the old man walks", "the tree stands", "slowly walks the old tree"] * 4


def fitted(folder: Path, texts: list[str] = TEXTS, *, running: bool = False, **options: Any) -> TextTransform:
    return TextTransform.fit("text", lambda: iter([{"text": texts}]), TextOptions.parse(options), folder, running=running)


def ids(transform: TextTransform, *instances: Any) -> list[list[int]]:
    found = transform.encode(transform.columns(instances))["ids"]
    assert isinstance(found, Ragged)
    return [found.take([row]).values.tolist() for row in range(len(found))]


def words(transform: TextTransform, text: str) -> list[str]:
    (row,) = ids(transform, text)
    return transform.decode(row).split()


@pytest.mark.parametrize(("keep", "expected"), [("start", ["the", "old"]), ("end", ["tree", "walks"])])
def test_a_long_text_keeps_one_of_its_ends(keep: str, expected: list[str], tmp_path: Path) -> None:
    assert words(fitted(tmp_path, length=2, keep=keep), "the old man stands tree walks") == expected


def test_a_text_of_just_the_length_is_kept_whole(tmp_path: Path) -> None:
    assert words(fitted(tmp_path, length=4), "the old man walks") == ["the", "old", "man", "walks"]


def test_a_running_text_is_never_cut(tmp_path: Path) -> None:
    transform = fitted(tmp_path, ["\n", *TEXTS], running=True, length=2)
    (row,) = ids(transform, "the old man\nwalks slowly")
    assert transform.decode(row) == "the old man\nwalks slowly"
    assert transform.characters(np.array(row)) == len(row) == len("the old man\nwalks slowly")


def test_an_unknown_character_of_a_running_text_counts_as_one(tmp_path: Path) -> None:
    transform = fitted(tmp_path, running=True)
    (row,) = ids(transform, "the 猫 man")
    assert transform.unknown in row
    assert transform.characters(np.array(row)) == 9


def test_a_text_and_an_object_with_it_are_the_same(tmp_path: Path) -> None:
    text, instance = ids(fitted(tmp_path), "the old man", {"text": "the old man"})
    assert text == instance


def test_what_was_never_seen_is_the_unknown_entry(tmp_path: Path) -> None:
    transform = fitted(tmp_path)
    assert ids(transform, "猫") == [[transform.unknown]]


def test_shorter_texts_are_padded_to_the_longest_and_masked(tmp_path: Path) -> None:
    transform = fitted(tmp_path)
    tensors = transform.tensors(transform.encode({"text": ["the old man walks", "tree"]}))
    assert [tensors[name].shape for name in ("input_ids", "attention_mask")] == [(2, 4), (2, 4)]
    assert tensors["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert (tensors["input_ids"][1, 1:] == transform.pad).all()
    assert {array.dtype.name for array in tensors.values()} == {"int64"}
    assert list(tensors) == [spec.name for spec in transform.inputs]


def test_a_row_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    transform = fitted(tmp_path)
    assert ids(transform, *TEXTS[:3]) == [ids(transform, text)[0] for text in TEXTS[:3]]


@pytest.mark.parametrize(("vocabulary", "dtype"), [(300, np.uint16), (70_000, np.uint32)])
def test_ids_are_kept_in_as_few_bytes_as_hold_them(vocabulary: int, dtype: type, tmp_path: Path) -> None:
    transform = fitted(tmp_path).model_copy(update={"vocabulary": vocabulary})
    transform.at(tmp_path)
    found = transform.encode({"text": ["tree"]})["ids"]
    assert isinstance(found, Ragged)
    assert found.values.dtype == dtype


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ("", "item 1: the text is empty"),
        (" \n\t", "item 1: the text is empty"),
        (None, "item 1: expected a text, found nothing"),
        (3, "item 1: expected a text, found int"),
        (["the"], "item 1: expected a text, found list"),
        (b"the", "item 1: expected a text, found bytes"),
        ({"text": 3}, "item 1: expected a text, found int"),
        ({"txt": "the"}, "item 1: expected the key 'text' alone, found txt"),
        ({}, "item 1: expected the key 'text' alone, found none"),
        ("the \ud83d man", "item 1: the text is not valid Unicode: it holds half of a surrogate pair"),
        ("\udc00", "item 1: the text is not valid Unicode: it holds half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_refused(instance: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ids(fitted(tmp_path), "the old man", instance)
    assert caught.value.what == expected


def test_a_running_text_may_be_blank_and_not_empty(tmp_path: Path) -> None:
    transform = fitted(tmp_path, running=True)
    assert len(ids(transform, "  ")[0]) == 2
    with pytest.raises(InputError, match="item 0: the text '' holds nothing that the tokenizer knows"):
        ids(transform, "")


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    transform = fitted(tmp_path, tokenizer="byte_bpe", vocabulary=300)
    (row,) = ids(transform, "the 🐈")
    assert transform.decode(row) == "the 🐈"


def test_a_vocabulary_that_is_too_small_is_told_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^vocabulary: 16 entries are too few for a tokenizer of the kind byte_bpe"):
        fitted(tmp_path, tokenizer="byte_bpe", vocabulary=16)


def test_a_pretrained_tokenizers_own_special_entries_are_known(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: PLC0415 - to write a file as roberta's

    entries = {name: index for index, name in enumerate(("<s>", "<pad>", "</s>", "<unk>", "the", "tree", "<mask>"))}
    tokenizer = Tokenizer(models.WordLevel(entries, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens([name for name in entries if name.startswith("<")])
    brought = tmp_path / "brought.json"
    tokenizer.save(str(brought))
    transform = TextTransform.fit("text", lambda: iter([]), TextOptions(length=4), tmp_path, running=False, pretrained=brought)
    assert (transform.pad, transform.unknown, transform.mask, transform.special) == (1, 3, 6, (0, 1, 2, 3, 6))
    assert ids(transform, "the tree", "the tree the tree the") == [[0, 4, 5, 2], [0, 4, 5, 2]]
    assert transform.decode([0, 4, 5, 2]) == "the tree"
