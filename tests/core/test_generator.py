"""Continuing a text: against the same model read in one go, and in every way that it can end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.bundle import Bundle
from tasks.core.errors import BundleError, ConfigError, InputError
from tasks.core.generator import Generation, Generator, Options, sample
from tasks.core.language import WINDOW
from tasks.core.pieces import Decoding, Stops
from tasks.core.predictor import Predictor
from tasks.core.tokenizing import Kind
from tasks.core.transforms import TextTransform
from tests.texts import TEXTS, fit, write_classifier, write_language_model

PROMPT = "First Citizen:\n"


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator(Predictor(write_language_model(tmp_path_factory.mktemp("models") / "writer")))


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    folder = tmp_path_factory.mktemp("models") / "bytewise"
    return Generator(Predictor(write_language_model(folder, kind="byte_bpe", texts=[*TEXTS, "你好,世界 🙂"])))


def written(generator: Generator, prompt: str = PROMPT, **options: Any) -> str:
    return "".join(generator.generate(prompt, Options.parse(options)))


def ended(generation: Generation) -> tuple[str, str | None, int]:
    return "".join(generation), generation.finish_reason, generation.completion_tokens


def read_at_once(generator: Generator, ids: list[int]) -> list[int]:
    """The most probable id after each, from one call."""
    (logits,) = generator.predictor.run(["logits"], {"input_ids": np.array([ids]), **generator.begin()})
    return [int(each) for each in np.where(generator.usual, logits[0], -np.inf).argmax(axis=-1)]


@pytest.mark.parametrize("prompt", [PROMPT, "a", TEXTS[1] * 40], ids=["short", "one", "windows"])
def test_greedy_tokens_are_those_of_the_whole_text_read_in_one_go(writer: Generator, prompt: str) -> None:
    generation = writer.generate(prompt, Options(max_tokens=30, temperature=0))
    text, reason, tokens = ended(generation)
    ids = writer.encode(prompt).tolist()
    assert (reason, tokens, generation.prompt_tokens) == ("length", 30, len(ids))
    found = writer.encode(prompt + text).tolist()
    assert found[: len(ids)] == ids
    assert read_at_once(writer, found)[len(ids) - 1 : -1] == found[len(ids) :]


def test_a_long_prompt_can_be_left_between_its_windows(writer: Generator) -> None:
    generation = writer.generate("a" * (3 * WINDOW + 1), Options(max_tokens=1))
    assert [next(generation) for _ in range(3)] == ["", "", ""]
    assert generation.completion_tokens == 0
    assert next(generation)


def test_the_same_seed_gives_the_same_text_and_another_one_another(writer: Generator) -> None:
    assert written(writer, seed=7) == written(writer, seed=7)
    assert written(writer, seed=7) != written(writer, seed=8)
    assert written(writer, seed=-1) == written(writer, seed=-1)
    assert written(writer) != written(writer)


def test_special_ids_are_never_written(writer: Generator, bytewise: Generator) -> None:
    for generator in (writer, bytewise):
        logits = np.where(generator.usual, -1e3, 1e3)
        masked = np.where(generator.usual, logits, -np.inf)
        ids = {sample(masked, Options(temperature=2), np.random.default_rng(seed)) for seed in range(200)}
        assert not ids & set(generator.transform.special)
        assert len(ids) > 10


def test_an_empty_prompt_begins_a_line(writer: Generator) -> None:
    generation = writer.generate("", Options(max_tokens=20, temperature=0))
    assert "".join(generation) == written(writer, "\n", max_tokens=20, temperature=0)
    assert generation.prompt_tokens == 0


def test_without_a_newline_the_seed_draws_the_first_token(tmp_path: Path) -> None:
    generator = Generator(Predictor(write_language_model(tmp_path / "words", kind="wordpiece")))
    assert generator.newline().size == 0
    texts = {written(generator, "", seed=seed, max_tokens=5, temperature=0) for seed in range(20)}
    assert len(texts) > 5
    assert written(generator, "", seed=3) == written(generator, "", seed=3)
    assert not any(text.startswith(" ") for text in texts)


def test_unknown_characters_in_a_prompt_are_read_as_unknown(writer: Generator) -> None:
    assert len(written(writer, "ROMEO 你好", max_tokens=10)) == 10


@pytest.mark.parametrize(("prompt", "says"), [("\ud800", "surrogate"), (b"bytes", "expected a text"), (None, "expected a text")])
def test_a_prompt_that_is_no_text_is_refused(writer: Generator, prompt: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"^the prompt cannot be read: .*{says}"):
        writer.generate(prompt, Options())


def test_a_classifier_does_not_write(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="'moods' is no language model"):
        Generator(Predictor(write_classifier(tmp_path / "moods")))


def test_a_language_model_predicts_no_labels(writer: Generator) -> None:
    with pytest.raises(InputError, match="'writer' continues texts"):
        writer.predictor.predict(["a text"])


def test_an_answer_that_is_not_finite_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Generator(Predictor(write_language_model(tmp_path / "writer")))
    state = {name: values + np.float32(np.nan) for name, values in generator.begin().items()}
    monkeypatch.setattr(generator, "begin", lambda: state)
    with pytest.raises(InputError, match="no finite answer"):
        written(generator)


# Where it stops.


def test_the_text_ends_before_a_stop_that_spans_tokens(writer: Generator) -> None:
    whole = written(writer, seed=1)
    for start in (1, 17, 60):
        stop = whole[start : start + 5]
        text, reason, tokens = ended(writer.generate(PROMPT, Options(seed=1, stop=(stop,))))
        assert text == whole[: whole.index(stop)]
        assert (reason, tokens) == ("stop", len(text) + 5)


def test_the_first_of_several_stops_counts_and_one_may_come_alone(writer: Generator) -> None:
    whole = written(writer, seed=1)
    assert written(writer, seed=1, stop=[whole[50:54], whole[9:12], "never written"]) == whole[: whole.index(whole[9:12])]
    assert written(writer, seed=1, stop=whole[9:12]) == whole[: whole.index(whole[9:12])]


def test_what_only_begins_like_a_stop_is_told_at_the_end(writer: Generator) -> None:
    whole = written(writer, seed=1)
    assert written(writer, seed=1, stop=[whole[-3:] + "never written"]) == whole


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_a_stop_is_found_however_the_pieces_cut_it(text: str, strings: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    stops, told, stopped = Stops(strings), "", False
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        piece, stopped = stops.push(text[start:end])
        told += piece
        assert not any(string in told for string in strings)
        if stopped:
            break
    told += stops.end()
    assert text.startswith(told)
    assert stopped == any(string in text for string in strings)
    assert stopped or told == text


# What it tells.


@pytest.fixture(scope="module")
def transforms(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, TextTransform]:
    folder = tmp_path_factory.mktemp("tokenizers")
    kinds: Sequence[Kind] = ("characters", "wordpiece", "byte_bpe", "unigram")
    return {kind: fit(folder / kind, running=True, kind=kind, texts=[*TEXTS, "你好,世界 🙂 naïve"]) for kind in kinds}


@pytest.mark.parametrize("kind", ["characters", "wordpiece", "byte_bpe", "unigram"])
@given(data=st.data())
def test_pieces_of_any_ids_are_exactly_what_they_decode_to(transforms: dict[Kind, TextTransform], kind: Kind, data: st.DataObject) -> None:
    transform = transforms[kind]
    usual = st.sampled_from([each for each in range(transform.vocabulary) if each not in transform.special])
    context, ids = data.draw(st.lists(usual, max_size=3)), data.draw(st.lists(usual, max_size=30))
    if kind == "byte_bpe":
        # A prompt is whole characters.
        context = [each for each in context if "\ufffd" not in transform.decode([each])]
    decoding = Decoding(transform.decode, context)
    pieces = [*(decoding.push(each) for each in ids), decoding.end()]
    assert "".join(pieces) == transform.decode([*context, *ids])[len(transform.decode(context)) :]


@given(st.text(max_size=40))
def test_characters_of_several_bytes_come_whole(bytewise: Generator, text: str) -> None:
    decoding = Decoding(bytewise.transform.decode)
    pieces = [decoding.push(each) for each in (bytewise.encode(text) if text else [])]
    assert "".join([*pieces, decoding.end()]) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_is_told_only_when_nothing_can_complete_it(bytewise: Generator) -> None:
    (first, second, *_), (letter,) = bytewise.encode("🌍"), bytewise.encode("x")
    decoding = Decoding(bytewise.transform.decode)
    assert [decoding.push(first), decoding.push(second), decoding.push(letter)] == ["", "", "\ufffdx"]
    assert decoding.end() == ""


def test_bytes_that_never_are_a_character_are_told_all_the_same(bytewise: Generator) -> None:
    text, reason, tokens = ended(bytewise.generate("你好", Options(max_tokens=200, seed=1, temperature=2)))
    assert (reason, tokens) == ("length", 200)
    assert "\ufffd" in text


# How it chooses.

LOGITS = np.log(np.array([0.1, 0.4, 0.3, 0.2]))


def shares(**options: Any) -> list[float]:
    random, chosen = np.random.default_rng(0), Options(**options)
    counts = np.bincount([sample(LOGITS, chosen, random) for _ in range(4000)], minlength=4)
    return [float(count) for count in counts / 4000]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.3, 0.2]),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 9 / 30, 4 / 30]),
        ({"temperature": 1e-300}, [0, 1, 0, 0]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_k": 99}, [0.1, 0.4, 0.3, 0.2]),
        ({"top_p": 0.0}, [0, 1, 0, 0]),
        ({"top_p": 0.6}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_p": 0.71}, [0, 4 / 9, 3 / 9, 2 / 9]),
        ({"top_k": 3, "top_p": 0.5}, [0, 4 / 7, 3 / 7, 0]),
    ],
)
def test_tokens_come_as_often_as_they_should(options: dict[str, Any], expected: list[float]) -> None:
    assert shares(**options) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_tokens": 0}, "max_tokens: 0 is too small"),
        ({"temperature": 3}, "temperature: 3 is too large"),
        ({"top_k": 0}, "top_k: 0 is too small"),
        ({"top_p": 1.5}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop: .* has 5 items, the most allowed is 4"),
        ({"stop": 5}, "stop: 5 is not a list"),
        ({"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_wrong_options_are_told(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Options.parse(values)


def test_bundles_are_opened_with_their_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "writer"
    write_language_model(folder)
    first, second = (Generator(Predictor(Bundle.open(folder))) for _ in range(2))
    assert written(first, seed=1) == written(second, seed=1)
