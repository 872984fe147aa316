"""What a challenger gets of the requests, in words and in a recipe."""

import pytest

from tasks.core.errors import ConfigError
from tasks.core.recipe import Serving
from tasks.core.traffic import Traffic


@pytest.mark.parametrize(
    ("words", "traffic", "share", "said"),
    [
        ("none", "none", 1.0, "none"),
        ("shadow", "shadow", 1.0, "shadow 100%"),
        ("shadow 100%", "shadow", 1.0, "shadow 100%"),
        (" Canary  12.5 % ", "canary", 0.125, "canary 12.5%"),
        ("canary 0%", "canary", 0.0, "canary 0%"),
    ],
)
def test_words_are_read_and_said(words: str, traffic: str, share: float, said: str) -> None:
    found = Traffic.read(words)
    assert (found.traffic, found.share, found.words) == (traffic, share, said)
    assert Traffic.read(found.words).share == share


@pytest.mark.parametrize(
    "words", ["", "canary", "canary 10", "canary 0.1", "canary 101%", "canary -1%", "half", "canary nan%", "none of it"]
)
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=r"says no traffic: expected none, shadow 100% or canary 10%"):
        Traffic.read(words)


def test_a_recipe_gives_none_unless_it_says_so() -> None:
    assert Serving.parse({}).challenger.words == "none"
    assert Serving.parse({"challenger": {"traffic": "canary", "share": 0.1}}).challenger.words == "canary 10%"


@pytest.mark.parametrize("values", [{"traffic": "canary"}, {"traffic": "canary", "share": 10}, {"traffic": "some"}])
def test_a_recipe_that_says_no_traffic_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"challenger"):
        Serving.parse({"challenger": values})
