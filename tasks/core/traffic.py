"""What a challenger gets of the requests for its model: nothing, a copy of some, or some to answer."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from tasks.core.config import Config
from tasks.core.errors import ConfigError

Kind = Literal["none", "shadow", "canary"]

_WORDS: Final = re.compile(r"(none|shadow|canary)(?: +(\d{1,3}(?:\.\d{1,6})?) ?%)?")


class Traffic(Config):
    """A challenger's part in the requests for its model, beside the champion."""

    traffic: Kind = "none"
    """shadow: it is asked in pauses what it would have answered, and nobody sees it. canary: it answers a share of the requests."""
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of the requests; a canary has to say it."""

    @model_validator(mode="after")
    def _says_how_much(self) -> Self:
        if self.traffic == "canary" and "share" not in self.model_fields_set:
            raise ValueError("a canary answers a share of the requests: say which, as in {traffic: canary, share: 0.1}")
        return self

    @classmethod
    def read(cls, words: str) -> Self:
        """From the words that stand in the registry, as `shadow`, `canary 10%` or `none`. Raises ConfigError."""
        found = _WORDS.fullmatch(words.strip().lower())
        share = None if found is None or found[2] is None else float(found[2]) / 100
        if found is None or (share or 0.0) > 1 or (found[1] == "canary" and share is None):
            raise ConfigError(f"'{words[:40]}' says no traffic: expected none, shadow 100% or canary 10%, with a share of at most 100%")
        return cls.parse({"traffic": found[1]} | ({} if share is None else {"share": share}))

    @property
    def words(self) -> str:
        """As `read` takes them."""
        return self.traffic if self.traffic == "none" else f"{self.traffic} {self.share * 100:.6g}%"
