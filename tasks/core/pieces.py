"""A text that grows token by token, told in pieces."""

from collections.abc import Callable, Sequence
from typing import Final

# What a decoder writes where bytes are no character, or not a whole one yet.
_BROKEN: Final = "\ufffd"
_LONGEST_PART: Final = 3
"""Bytes of a character, in UTF-8, that may be there while it is not whole."""


class Decoding:
    """Token ids to the pieces of text that they add, each of whole characters.

    The pieces together are exactly what all ids decode to after the `context`, whose own text is not told. Some decoders
    write a token otherwise at the beginning of a text, so a few ids before each piece are decoded with it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids = list(context)
        self._start, self._settled = 0, len(context)
        self._told = 0
        """Characters after the settled ids that were told."""

    def push(self, token: int) -> str:
        """What is certain once this id has come."""
        self._ids.append(token)
        text = self._unsettled()
        broken = len(text) - len(text.rstrip(_BROKEN))
        certain = len(text) - min(broken, _LONGEST_PART)
        piece = text[self._told : certain]
        self._told = max(self._told, certain)
        if text and not broken:
            self._start, self._settled, self._told = self._settled, len(self._ids), 0
        return piece

    def end(self) -> str:
        """What was held back: parts of a character that is never completed."""
        piece = self._unsettled()[self._told :]
        self._told += len(piece)
        return piece

    def _unsettled(self) -> str:
        settled = self._decode(self._ids[self._start : self._settled])
        return self._decode(self._ids[self._start :])[len(settled) :]


class Stops:
    """A text up to the first of some strings, however the pieces that it comes in cut them."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """What may be told now, and whether the text ends with it."""
        text = self._held + piece
        found = [place for string in self._strings if (place := text.find(string)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        certain = len(text) - max((_begun(text, string) for string in self._strings), default=0)
        self._held = text[certain:]
        return text[:certain], False

    def end(self) -> str:
        """What was held back, because a string could have begun with it."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, string: str) -> int:
    """The length of the longest end of the text that the string begins with."""
    return next((length for length in range(min(len(text), len(string) - 1), 0, -1) if text.endswith(string[:length])), 0)
