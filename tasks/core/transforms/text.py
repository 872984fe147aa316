"""Texts to token ids, and back."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr

from tasks.core.config import Config
from tasks.core.errors import InputError, TooLargeError
from tasks.core.file_digests import sha256
from tasks.core.ragged import Ragged
from tasks.core.tokenizing import MASK, PAD, TOKENIZER, UNKNOWN, Kind, learn_tokenizer, read_tokenizer
from tasks.core.transforms.fitted import Arrays, Chunks, Columns, Fitted, Tensors, TensorSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TextOptions(Config):
    """What a recipe may say about a text transform."""

    tokenizer: Kind | None = None
    """Learnt from the training split; wordpiece where not given, characters for a language model. A pretrained model brings its own."""
    vocabulary: Annotated[int, Field(ge=16, le=1_000_000)] = 16_000
    """The most entries that a tokenizer learns."""
    lowercase: bool = False
    """Whether a tokenizer that is learnt takes capital letters for small ones."""
    length: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    """The most tokens of a text; of a longer one the rest is cut off. A language model reads texts whole."""
    keep: Literal["start", "end"] = "start"
    """Which part of a longer text is kept."""


class TextTransform(Fitted):
    """One text column to `input_ids` and `attention_mask`: int64 [batch, length], padded to the batch's longest.

    Without `length`, for a language model, `input_ids` alone.
    """

    stored: ClassVar[tuple[str, ...]] = ("ids",)

    kind: Literal["text"] = "text"
    column: str
    tokenizer: str
    """SHA-256 of the file TOKENIZER."""
    vocabulary: int
    length: int | None
    keep: Literal["start", "end"]
    pad: int
    unknown: int | None
    mask: int | None
    special: tuple[int, ...]
    """Ids that stand for no piece of a text."""

    _folder: Path = PrivateAttr(default=Path())
    _most: int | None = PrivateAttr(default=None)
    """Characters in one call."""

    @classmethod
    def fit(cls, column: str, chunks: Chunks, options: TextOptions, folder: Path, *, running: bool, pretrained: Path | None = None) -> Self:
        """Learn the tokenizer, or take the `pretrained` file, and write it to the folder. A `running` text is never cut."""
        if pretrained:
            tokenizer = read_tokenizer(pretrained)
        else:
            kind = options.tokenizer or ("characters" if running else "wordpiece")
            try:
                tokenizer = learn_tokenizer(kind, options.vocabulary, lambda: _texts(chunks, column), lowercase=options.lowercase)
            except ValueError as error:
                what = f"{options.vocabulary:,} entries are too few for a tokenizer of the kind {kind}: {error}"
                raise options.origin.error(("vocabulary",), what, "raise it, or choose another tokenizer") from None
        tokenizer.save(str(folder / TOKENIZER))
        special = {added.content: index for index, added in tokenizer.get_added_tokens_decoder().items() if added.special}
        special |= {name: index for name in (PAD, UNKNOWN, MASK) if (index := tokenizer.token_to_id(name)) is not None}
        fitted = cls(
            column=column,
            tokenizer=sha256(folder / TOKENIZER),
            vocabulary=tokenizer.get_vocab_size(),
            length=None if running else options.length,
            keep=options.keep,
            pad=_first(special, PAD, "<pad>") or 0,
            unknown=_first(special, UNKNOWN, "<unk>"),
            mask=_first(special, MASK, "<mask>"),
            special=tuple(sorted(special.values())),
        )
        fitted.at(folder)
        return fitted

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        ids = TensorSpec(name="input_ids", dtype="INT64", shape=(-1,), vocabulary=self.vocabulary, longest=self.length)
        mask = TensorSpec(name="attention_mask", dtype="INT64", shape=(-1,), vocabulary=2, longest=self.length)
        return (ids,) if self.length is None else (ids, mask)

    @property
    def files(self) -> dict[str, str]:
        return {TOKENIZER: self.tokenizer}

    def at(self, folder: Path) -> None:
        self._folder = folder

    def limit(self, *, characters: int, pixels: int) -> None:  # noqa: ARG002 - the base class's
        self._most = characters

    def columns(self, instances: Sequence[Any]) -> Columns:
        """Texts, or objects with the column, as columns. Raises InputError for an object with another key."""
        for row, item in enumerate(instances):
            if isinstance(item, dict) and set(item) != {self.column}:
                raise InputError(f"item {row}: expected the key '{self.column}' alone, found {', '.join(map(str, item)) or 'none'}")
        return {self.column: [item[self.column] if isinstance(item, dict) else item for item in instances]}

    def encode(self, columns: Columns) -> Arrays:
        """Token ids, the smallest unsigned integers that hold them.

        Raises InputError for what is no text, or an empty one, and TooLargeError.
        """
        texts = list(columns[self.column])
        if self._most is not None and (size := sum(len(text) for text in texts if isinstance(text, str))) > self._most:
            raise TooLargeError(f"{size:,} characters at once, the limit is {self._most:,}: send less at once")
        for row, text in enumerate(texts):
            if problem := self._problem(text):
                raise InputError(f"item {row}: {problem}")
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=self.length is not None)]
        for row, ids in enumerate(rows):
            if not ids:
                raise InputError(f"item {row}: the text {texts[row][:60]!r} holds nothing that the tokenizer knows")
        return {"ids": Ragged.of(rows, np.uint16 if self.vocabulary <= 2**16 else np.uint32)}

    def tensors(self, encoded: Arrays) -> Tensors:
        ids = encoded["ids"]
        assert isinstance(ids, Ragged)
        values, mask = ids.padded(self.pad)
        return {"input_ids": values} if self.length is None else {"input_ids": values, "attention_mask": mask}

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones left out."""
        text: str = self._tokenizer.decode(list(ids))
        return text

    def characters(self, ids: npt.NDArray[Any]) -> int:
        """How many characters of a text the ids stand for; an unknown one for one."""
        return len(self.decode(ids.tolist())) + int((ids == self.unknown).sum() if self.unknown is not None else 0)

    def _problem(self, text: Any) -> str | None:
        if not isinstance(text, str):
            return f"expected a text, found {'nothing' if text is None else type(text).__name__}"
        if self.length is not None and not text.strip():
            return "the text is empty"
        # What JSON's \ud800 becomes: half of a character, which no tokenizer takes.
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            return "the text is not valid Unicode: it holds half of a surrogate pair"
        return None

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        tokenizer = read_tokenizer(self._folder / TOKENIZER)
        if self.length is not None:
            tokenizer.enable_truncation(self.length, direction="right" if self.keep == "start" else "left")
        return tokenizer


def _texts(chunks: Chunks, column: str) -> Iterator[Any]:
    return (chunk[column] for chunk in chunks())


def _first(special: dict[str, int], *names: str) -> int | None:
    return next((special[name] for name in names if name in special), None)
