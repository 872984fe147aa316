"""Random changes of training examples: what each does, and what it leaves alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.core.config import Origin
from tasks.core.errors import ConfigError
from tasks.core.recipe import Augmentation
from tasks.core.transforms import ImageTransform, Transform
from tasks.training.augmentation import augmenter, cross_texts, hide_tokens, move_images
from tests.tiny import encode_tiny

IMAGES = torch.rand(64, 3, 8, 12, generator=torch.Generator().manual_seed(0))
HIDDEN = 1
SPECIAL = torch.tensor([0, 1, 2, 7])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def moved(x: Tensor = IMAGES, **options: Any) -> Tensor:
    return move_images(x, Augmentation.parse(options))


def test_a_flip_of_all_mirrors_exactly() -> None:
    torch.testing.assert_close(moved(flip=1.0), IMAGES.flip(3))


def test_a_share_is_flipped_and_the_rest_is_as_it_was() -> None:
    found = moved(flip=0.5)
    mirrored = [torch.allclose(image, before.flip(2), atol=1e-5) for image, before in zip(found, IMAGES, strict=True)]
    same = [torch.allclose(image, before, atol=1e-5) for image, before in zip(found, IMAGES, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 20 <= sum(mirrored) <= 44


def test_a_shift_moves_by_no_more_than_its_share() -> None:
    x = torch.zeros(200, 1, 9, 9)
    x[:, 0, 4, 4] = 1.0
    found = moved(x, shift=2 / 9)
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    mass = found.sum(dim=(1, 2, 3))
    for places in (rows, columns):
        centre = (found[:, 0] * places).sum(dim=(1, 2)) / mass
        assert (centre - 4).abs().max() <= 2.01
        assert (centre - 4).abs().max() > 1.5
        assert abs(float(centre.mean()) - 4) < 0.3


def test_what_comes_in_from_outside_is_the_borders() -> None:
    torch.testing.assert_close(moved(torch.full((20, 1, 6, 6), 0.7), shift=0.5, rotation=180), torch.full((20, 1, 6, 6), 0.7))


def test_a_rotation_turns_about_the_middle_and_keeps_lengths() -> None:
    # A bar from the middle to the right edge of an image twice as wide as high.
    x = torch.zeros(200, 1, 31, 61)
    x[:, 0, 15, 40:44] = 1.0
    found = moved(x, rotation=20)[:, 0]
    rows, columns = torch.meshgrid(torch.arange(31.0) - 15, torch.arange(61.0) - 30, indexing="ij")
    mass = found.sum(dim=(1, 2))
    y, x_ = ((found * places).sum(dim=(1, 2)) / mass for places in (rows, columns))
    torch.testing.assert_close(torch.hypot(x_, y), torch.full((200,), 11.5), atol=0.3, rtol=0)
    angles = torch.rad2deg(torch.atan2(y, x_))
    assert angles.abs().max() <= 20.5
    assert angles.min() < -15
    assert angles.max() > 15


def test_the_random_state_decides() -> None:
    torch.manual_seed(3)
    one = moved(flip=0.5, shift=0.2, rotation=10)
    torch.manual_seed(3)
    assert torch.equal(one, moved(flip=0.5, shift=0.2, rotation=10))


def texts() -> tuple[Tensor, Tensor]:
    """1000 texts of 5 to 40 tokens, padded with 0, each beginning with the special 2 and ending with 7."""
    lengths = torch.randint(5, 41, (1000, 1))
    places = torch.arange(40)
    mask = (places < lengths).long()
    ids = torch.randint(10, 100, (1000, 40))
    ids[:, 0] = 2
    ids = torch.where(places == lengths - 1, 7, ids)
    return ids * mask, mask


@pytest.mark.parametrize("option", ["word_dropout", "span_mask"])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_about_the_share_of_tokens_is_hidden_and_nothing_special(option: str, share: float) -> None:
    ids, mask = texts()
    found = hide_tokens(ids, mask, Augmentation.parse({option: share}), HIDDEN, SPECIAL)
    changed = found != ids
    assert (found[changed] == HIDDEN).all()
    open_places = mask.bool() & ~torch.isin(ids, SPECIAL)
    assert not changed[~open_places].any()
    assert float(changed[open_places].float().mean()) == pytest.approx(share, rel=0.25)


def test_spans_are_longer_than_single_tokens() -> None:
    ids, mask = torch.full((500, 60), 10), torch.ones(500, 60, dtype=torch.int64)

    def mean_run(**options: float) -> float:
        hidden = hide_tokens(ids, mask, Augmentation.parse(options), HIDDEN, SPECIAL) == HIDDEN
        starts = hidden[:, 1:] & ~hidden[:, :-1]
        return float(hidden.sum() / (starts.sum() + hidden[:, 0].sum()))

    assert mean_run(word_dropout=0.1) == pytest.approx(1 / 0.9, rel=0.1)
    assert mean_run(span_mask=0.1) > 2.5


@pytest.fixture(scope="module")
def transforms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Transform]:
    root: Path = tmp_path_factory.mktemp("augmented")
    return {kind: encode_tiny(root / kind, kind).transform for kind in ("image", "text", "table", "running")}


@pytest.mark.parametrize("kind", ["image", "text", "table", "running"])
def test_no_options_change_nothing(kind: str, transforms: dict[str, Transform]) -> None:
    assert augmenter(Augmentation(), transforms[kind]) is None


@pytest.mark.parametrize(
    ("kind", "option", "advice"),
    [
        ("image", "word_dropout", "known for it: flip, shift, rotation"),
        ("text", "flip", "known for it: word_dropout, span_mask"),
        ("table", "shift", "leave it out"),
        ("running", "span_mask", "leave it out"),
    ],
)
def test_an_option_for_another_kind_of_data_is_refused(kind: str, option: str, advice: str, transforms: dict[str, Transform]) -> None:
    with pytest.raises(ConfigError) as caught:
        augmenter(Augmentation.parse({option: 0.1}), transforms[kind], Origin().below("training"))
    assert caught.value.what.startswith(f"training.augmentation.{option}: '{option}' does not fit a dataset of the kind ")
    assert caught.value.do == advice


def test_a_texts_hidden_tokens_become_the_mask(transforms: dict[str, Transform]) -> None:
    change = augmenter(Augmentation(word_dropout=0.9), transforms["text"])
    assert change
    ids = torch.full((10, 10), 20)
    found = change({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert set(found["input_ids"].flatten().tolist()) == {2, 20}
    assert torch.equal(found["attention_mask"], torch.ones_like(ids))


def test_an_images_pixels_are_changed_after_they_were_standardised() -> None:
    transform = ImageTransform(column="image", mode="L", size=(4, 4), mean=0.5, std=0.5)
    change = augmenter(Augmentation(flip=1.0), transform)
    assert change
    x = torch.from_numpy(transform.tensors(transform.encode({"image": [np.arange(16).reshape(4, 4)]}))["x"])
    torch.testing.assert_close(change({"x": x})["x"], x.flip(3))


def crossed(share: float, lengths: tuple[int, ...] = (5, 8, 3)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Before and after: texts whose ids say which text and place they are of, and which were crossed."""
    ids = torch.arange(100)[:, None] * 10 + torch.arange(8)
    mask = (torch.arange(8) < torch.tensor(lengths).repeat(34)[:100, None]).long()
    found, marks = cross_texts({"input_ids": ids * mask, "attention_mask": mask}, share)
    return ids * mask, found["input_ids"], found["attention_mask"], marks


def test_a_crossed_text_begins_as_itself_and_ends_as_another() -> None:
    before, after, mask, marks = crossed(1.0)
    assert marks.all()
    assert not torch.equal(before, after)
    for text, row, known in zip(range(100), after, mask, strict=True):
        of = [int(index) // 10 for index, there in zip(row, known, strict=True) if there]
        own = sum(1 for each in of if each == text)
        assert len(set(of)) <= 2
        assert of[:own] == [text] * own or own == len(of)
        assert [int(index) % 10 for index, there in zip(row, known, strict=True) if there] == list(range(len(of)))


def test_a_text_that_is_not_crossed_is_as_it_was() -> None:
    before, after, _, marks = crossed(0.5)
    assert 30 <= int(marks.sum()) <= 70
    assert torch.equal(after[~marks], before[~marks])
    assert not crossed(0.0)[3].any()


def test_where_no_token_is_there_is_none_of_another_text_either() -> None:
    _, after, mask, _ = crossed(1.0)
    assert not after[mask == 0].any()
