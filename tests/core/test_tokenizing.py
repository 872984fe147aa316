"""Tokenizers: what each kind learns, and that no text is misread."""

from pathlib import Path
from typing import Any, get_args

import pytest

from tasks.core.errors import BundleError
from tasks.core.tokenizing import MASK, PAD, SPECIAL, UNKNOWN, Kind, learn_tokenizer, read_tokenizer

TEXTS = [
    "the old man walks slowly under the tree",
    "the tree stands under the old house",
    "a man and an old house; a tree and a man",
    "slowly, slowly walks the man",
] * 5
KINDS: tuple[Kind, ...] = get_args(Kind)

every_kind = pytest.mark.parametrize("kind", KINDS)


def learnt(kind: Kind, folder: Path, texts: list[str] = TEXTS, vocabulary: int = 300, **options: Any) -> Any:
    """A tokenizer as a transform has it: learnt, written and read."""
    path = folder / "tokenizer.json"
    learn_tokenizer(kind, vocabulary, lambda: iter([texts[:3], texts[3:]]), **options).save(str(path))
    return read_tokenizer(path)


@every_kind
def test_what_was_learnt_from_comes_back(kind: Kind, tmp_path: Path) -> None:
    tokenizer = learnt(kind, tmp_path)
    for text in TEXTS[:2]:
        found = tokenizer.encode(text)
        assert tokenizer.decode(found.ids) == text
        assert tokenizer.token_to_id(UNKNOWN) not in found.ids


@every_kind
def test_no_vocabulary_is_larger_than_asked_for_and_all_begin_alike(kind: Kind, tmp_path: Path) -> None:
    tokenizer = learnt(kind, tmp_path, vocabulary=270)
    assert tokenizer.get_vocab_size() <= 270
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [0, 1, 2]


@every_kind
def test_the_same_texts_give_the_same_file(kind: Kind, tmp_path: Path) -> None:
    files = set()
    for _ in range(4):
        learnt(kind, tmp_path)
        files.add((tmp_path / "tokenizer.json").read_bytes())
    assert len(files) == 1


def test_characters_are_entries_of_their_own(tmp_path: Path) -> None:
    found = learnt("characters", tmp_path, ["abba b", "aa"])
    assert found.encode("ab ba").tokens == ["a", "b", " ", "b", "a"]


def test_only_the_most_frequent_characters_are_learnt(tmp_path: Path) -> None:
    found = learnt("characters", tmp_path, ["aaa bbb c"], vocabulary=len(SPECIAL) + 2)
    assert found.encode("abc").tokens == ["a", "b", UNKNOWN]


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe", "unigram"])
def test_a_frequent_word_takes_fewer_entries_than_letters(kind: Kind, tmp_path: Path) -> None:
    assert len(learnt(kind, tmp_path).encode("slowly").ids) < len("slowly")


def test_for_bytes_no_text_is_unknown(tmp_path: Path) -> None:
    tokenizer = learnt("byte_bpe", tmp_path)
    for text in ("Ünïcödé 猫 🐈\u200d⬛\n\t", "\x00\x7f", "(ﬁ ½ Å)"):
        found = tokenizer.encode(text)
        assert tokenizer.token_to_id(UNKNOWN) not in found.ids
        assert tokenizer.decode(found.ids) == text


@pytest.mark.parametrize("kind", ["characters", "wordpiece", "unigram"])
def test_forms_of_one_character_are_one(kind: Kind, tmp_path: Path) -> None:
    # A ligature, full width, and an accent of its own.
    tokenizer = learnt(kind, tmp_path, ["the fish café file"] * 5)
    assert tokenizer.encode("the ﬁsh ｃａｆｅ\u0301").ids == tokenizer.encode("the fish café").ids


@every_kind
def test_capital_letters_are_small_ones_where_the_recipe_says_so(kind: Kind, tmp_path: Path) -> None:
    assert (
        learnt(kind, tmp_path, lowercase=True).encode("The OLD man").ids == learnt(kind, tmp_path, lowercase=True).encode("the old man").ids
    )
    assert learnt(kind, tmp_path).encode("The OLD man").ids != learnt(kind, tmp_path).encode("the old man").ids


@every_kind
@pytest.mark.parametrize("special", SPECIAL)
def test_a_special_entry_that_a_text_spells_out_is_text(kind: Kind, special: str, tmp_path: Path) -> None:
    tokenizer = learnt(kind, tmp_path, [*TEXTS, f"the {PAD} and {UNKNOWN} or {MASK}"])
    found = tokenizer.encode(f"the {special} man")
    assert tokenizer.token_to_id(special) not in found.ids
    assert special.strip("[]") in tokenizer.decode(found.ids).replace(" ", "")


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe", "unigram"])
def test_a_vocabulary_without_room_for_single_characters_is_refused(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"single characters|all chars"):
        learnt(kind, tmp_path, ["abcdefghijklmnopqrstuvwxyz"], vocabulary=20)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"version": "1.0", "model": {"type": "Nonsense"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer"):
        read_tokenizer(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer"):
        read_tokenizer(tmp_path / "tokenizer.json")


def test_a_file_that_cuts_and_pads_does_neither_here(tmp_path: Path) -> None:
    tokenizer = learn_tokenizer("wordpiece", 300, lambda: iter([TEXTS]))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = read_tokenizer(tmp_path / "tokenizer.json").encode("the old man walks")
    assert found.tokens == ["the", "old", "man", "walks"]
