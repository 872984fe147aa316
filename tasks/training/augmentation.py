"""Random changes of training examples, from torch's random state, so that a resumed training repeats them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tasks.core.config import Origin
from tasks.core.recipe import Augmentation
from tasks.core.transforms import ImageTransform, TextTransform, Transform

Inputs = dict[str, Tensor]
Augment = Callable[[Inputs], Inputs]

_IMAGE, _TEXT = ("flip", "shift", "rotation"), ("word_dropout", "span_mask")
_SPAN = 3
"""Mean length of a hidden run of tokens."""


def augmenter(options: Augmentation, transform: Transform, origin: Origin | None = None) -> Augment | None:
    """What changes a batch of the transform's tensors; None where nothing is to change. Raises ConfigError for another kind of data."""
    wanted = [name for name in (*_IMAGE, *_TEXT) if getattr(options, name)]
    taken = _IMAGE if isinstance(transform, ImageTransform) else _TEXT if isinstance(transform, TextTransform) and transform.length else ()
    for name in wanted:
        if name not in taken:
            known = f"known for it: {', '.join(taken)}" if taken else "leave it out"
            raise (origin or Origin()).error(("augmentation", name), f"'{name}' does not fit a dataset of the kind {transform.kind}", known)
    if not wanted:
        return None
    if isinstance(transform, TextTransform):
        hidden = next((index for index in (transform.mask, transform.unknown) if index is not None), transform.pad)
        special = torch.tensor(transform.special, dtype=torch.int64)
        return lambda inputs: {**inputs, "input_ids": hide_tokens(inputs["input_ids"], inputs["attention_mask"], options, hidden, special)}
    return lambda inputs: {"x": move_images(inputs["x"], options)}


def move_images(x: Tensor, options: Augmentation) -> Tensor:
    """Images [batch, channels, height, width], each mirrored, turned and moved at random; what comes in from outside is the border's."""
    batch, device = len(x), x.device
    angle = (torch.rand(batch, device=device) * 2 - 1) * math.radians(options.rotation)
    mirrored = 1 - 2 * (torch.rand(batch, device=device) < options.flip).to(x.dtype)
    cos, sin = torch.cos(angle), torch.sin(angle)
    # Rows of the inverse map, from places in the new image to places in the old one; a side is 2 long in its coordinates.
    ratio = x.shape[2] / x.shape[3]
    matrix = torch.zeros(batch, 2, 3, device=device)
    matrix[:, 0, 0], matrix[:, 0, 1] = mirrored * cos, -mirrored * sin * ratio
    matrix[:, 1, 0], matrix[:, 1, 1] = sin / ratio, cos
    matrix[:, :, 2] = (torch.rand(batch, 2, device=device) * 2 - 1) * 2 * options.shift
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def hide_tokens(ids: Tensor, mask: Tensor, options: Augmentation, hidden: int, special: Tensor) -> Tensor:
    """Ids [batch, length] with some replaced by `hidden`, but no special one and no padding."""
    chosen = torch.rand(ids.shape, device=ids.device) < options.word_dropout
    if options.span_mask:
        starts = torch.rand(ids.shape, device=ids.device) < options.span_mask / _SPAN
        lengths = torch.empty(ids.shape, device=ids.device).geometric_(1 / _SPAN)
        # A run covers a place if it starts there, or before it and no farther off than it is long.
        reach = torch.where(starts, torch.arange(ids.shape[1], device=ids.device) + lengths, 0.0).cummax(dim=1).values
        chosen |= reach > torch.arange(ids.shape[1], device=ids.device)
    chosen &= mask.bool() & ~torch.isin(ids, special.to(ids.device))
    return torch.where(chosen, hidden, ids)


def cross_texts(inputs: Inputs, share: float) -> tuple[Inputs, Tensor]:
    """Texts [batch, length], a share of which ends, from a random place on, as another of them does; and bool [batch], which those are.

    Instance crossover (Luque, 2019, section 3), at one place.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    other = torch.randperm(len(ids), device=ids.device)
    shorter = torch.minimum(mask.sum(1), mask[other].sum(1))
    place = (torch.rand(len(ids), device=ids.device) * shorter).unsqueeze(1)
    crossed = torch.rand(len(ids), device=ids.device) < share
    own = (torch.arange(ids.shape[1], device=ids.device) < place) | ~crossed.unsqueeze(1)
    return {**inputs, "input_ids": torch.where(own, ids, ids[other]), "attention_mask": torch.where(own, mask, mask[other])}, crossed
