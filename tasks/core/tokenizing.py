"""Tokenizers: learnt from a training split, or read from a file, as the library `tokenizers` has them."""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tasks.core.errors import BundleError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER: Final = "tokenizer.json"
PAD, UNKNOWN, MASK = "[PAD]", "[UNK]", "[MASK]"
SPECIAL: Final = (PAD, UNKNOWN, MASK)
"""The first entries of every vocabulary that is learnt here."""

Kind = Literal["characters", "wordpiece", "byte_bpe", "unigram"]

_LONGEST_WORD: Final = 200
_WITHIN: Final = "##"
"""What wordpiece begins the pieces with that do not begin a word."""
_DECIMALS: Final = 9


Texts = Callable[[], Iterator[Sequence[str]]]
"""Batches of texts, from the beginning at each call."""


def learn_tokenizer(kind: Kind, vocabulary: int, texts: Texts, *, lowercase: bool = False) -> "Tokenizer":
    """A tokenizer of at most `vocabulary` entries learnt from texts, the same one from the same texts. Raises ValueError for too few.

    characters: the most frequent characters. wordpiece: pieces of words (Schuster and Nakajima, 2012). byte_bpe: merged
    pairs of UTF-8 bytes (Radford et al., 2019), for which no text is unknown. unigram: the pieces of a unigram language
    model (Kudo, 2018), which need no spaces between words. All but byte_bpe normalise texts to NFKC first.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: PLC0415 - only for texts

    options: dict[str, Any] = {"vocab_size": vocabulary, "special_tokens": list(SPECIAL), "show_progress": False}
    match kind:
        case "characters":
            # Pairs of which none is merged: each character is an entry of its own.
            entries = {name: index for index, name in enumerate((*SPECIAL, *_characters(texts(), vocabulary - len(SPECIAL), lowercase)))}
            tokenizer = Tokenizer(models.BPE(vocab=entries, merges=[], unk_token=UNKNOWN))
            tokenizer.add_special_tokens(list(SPECIAL))
            tokenizer.decoder = decoders.Fuse()
        case "wordpiece":
            tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=_LONGEST_WORD))
            tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
            trainer: Any = trainers.WordPieceTrainer
        case "byte_bpe":
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
            trainer, options["initial_alphabet"] = trainers.BpeTrainer, pre_tokenizers.ByteLevel.alphabet()
        case "unigram":
            tokenizer = Tokenizer(models.Unigram())
            # A bracket stands alone, or a text that spells out a special entry would be read as that entry.
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Split("[", "isolated")])
            tokenizer.decoder = decoders.Metaspace()
            trainer, options["unk_token"] = trainers.UnigramTrainer, UNKNOWN
    steps = ([] if kind == "byte_bpe" else [normalizers.NFKC()]) + ([normalizers.Lowercase()] if lowercase else [])
    tokenizer.normalizer = normalizers.Sequence(steps)
    if kind == "wordpiece":
        # The library numbers the single characters within words in the order of a hash table, and lets numbers decide between
        # pairs that are equally frequent: they are told to it in an order of their own.
        tokenizer.train_from_iterator(map(list, texts()), trainer(**options | {"vocab_size": 0}))
        options["special_tokens"] = [*SPECIAL, *sorted(entry for entry in tokenizer.get_vocab() if entry.startswith(_WITHIN))]
    try:
        if kind != "characters":
            tokenizer.train_from_iterator(map(list, texts()), trainer(**options))
    except Exception as error:
        if type(error) is not Exception:  # the library raises nothing else
            raise
        raise ValueError(str(error)) from None
    if (size := tokenizer.get_vocab_size()) > vocabulary:
        raise ValueError(f"the single characters alone take {size:,}")
    return _settled(tokenizer)


def _settled(tokenizer: "Tokenizer") -> "Tokenizer":
    """The tokenizer with no special entries but SPECIAL, and without the last bits of sums that were taken in a random order."""
    values = json.loads(tokenizer.to_str())
    values["added_tokens"] = [added for added in values["added_tokens"] if added["content"] in SPECIAL]
    if values["model"]["type"] == "Unigram":
        entries = [(piece, round(score, _DECIMALS)) for piece, score in values["model"]["vocab"]]
        first = len(SPECIAL)
        values["model"]["vocab"] = entries[:first] + sorted(entries[first:], key=lambda entry: (-entry[1], entry[0]))
    settled: Tokenizer = type(tokenizer).from_str(json.dumps(values))
    return settled


def _characters(batches: Iterator[Sequence[str]], count: int, lowercase: bool) -> list[str]:
    """The most frequent characters, in the order of their code points."""
    found: Counter[str] = Counter()
    for batch in batches:
        for text in batch:
            normal = unicodedata.normalize("NFKC", text)
            found.update(normal.lower() if lowercase else normal)
    return sorted(character for character, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:count])


def read_tokenizer(path: Path) -> "Tokenizer":
    """The tokenizer in a file, which cuts and pads nothing, and takes a special token that a text spells out for plain text.

    Raises BundleError.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - only for texts

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exceptions
        raise BundleError(f"{path} is not a tokenizer: {error}", "export the model again, or fetch the pretrained folder again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
