"""`maasflow traffic`: what the challenger gets, from the registry to the served folder."""

import pytest

from flows.release import direct_traffic
from tasks.core.errors import ConfigError, RegistryError
from tasks.core.served import challenger_at
from tasks.core.workspace import Workspace
from tasks.tracking import CHALLENGER, TRAFFIC, Tracking
from tests.releases import add_champion, add_release
from tests.tiny import Stages


@pytest.fixture
def challenger(tracking: Tracking, stages: Stages) -> str:
    """The version beside the champion, version 1."""
    add_champion(tracking, stages)
    version = add_release(tracking, stages, key="l").version
    tracking.set_alias("points", CHALLENGER, version)
    return version


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("canary 10%", "points version 2 answers 10% of the requests, version 1 the others and what it fails on"),
        ("shadow", "points version 2 is asked in pauses what it would have answered to 100% of the requests, version 1 answers all"),
        ("none", "points version 2 gets none of the requests, version 1 answers all"),
    ],
)
def test_it_is_written_into_the_tag_and_brought_to_the_server(
    words: str, said: str, challenger: str, tracking: Tracking, workspace: Workspace
) -> None:
    assert direct_traffic("points", words) == said
    assert tracking.version("points", challenger).tags[TRAFFIC].startswith(words)
    pointed = challenger_at(workspace.served / "points")
    assert (pointed.traffic if pointed else "none") == words.partition(" ")[0]


def test_words_that_say_no_traffic_change_nothing(challenger: str, tracking: Tracking) -> None:
    with pytest.raises(ConfigError, match="'canary 10' says no traffic"):
        direct_traffic("points", "canary 10")
    assert TRAFFIC not in tracking.version("points", challenger).tags


def test_a_model_without_a_challenger_is_told(tracking: Tracking, stages: Stages) -> None:
    add_champion(tracking, stages)
    with pytest.raises(RegistryError, match="the model 'points' has no challenger"):
        direct_traffic("points", "shadow")
