"""Promote: who made what champion, when, and after what."""

import getpass
import os
from datetime import UTC, datetime

import pytest

from tasks.promote import promote
from tasks.tracking import CHALLENGER, CHAMPION, Release, Tracking
from tests.releases import add_release
from tests.tiny import Stages


@pytest.fixture
def releases(tracking: Tracking, stages: Stages) -> list[Release]:
    """Two versions, the second of which is challenger."""
    found = [add_release(tracking, stages, key=key) for key in ("k", "l")]
    tracking.set_alias("points", CHALLENGER, "2")
    return found


def test_the_first_champion_follows_none(tracking: Tracking, releases: list[Release]) -> None:
    found = promote(tracking, releases[0])
    assert (found.name, found.version, found.alias, found.previous) == ("points", "1", CHAMPION, None)
    assert tracking.version("points", "1").tags["previous_champion"] == "none"


def test_the_version_says_who_when_and_after_what(tracking: Tracking, releases: list[Release], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    promote(tracking, releases[0])
    assert promote(tracking, releases[1]).previous == "1"
    tags = tracking.version("points", "2").tags
    assert (tags["promoted_by"], tags["previous_champion"]) == ("ada", "1")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(tags["promoted_at"])).total_seconds()) < 60


def test_the_alias_moves_and_a_challenger_is_one_no_more(tracking: Tracking, releases: list[Release]) -> None:
    promote(tracking, releases[0])
    assert tracking.version("points", "2").aliases == (CHALLENGER,)
    promote(tracking, releases[1])
    assert [tracking.version("points", version).aliases for version in ("1", "2")] == [(), (CHAMPION,)]


def test_doing_it_twice_changes_nothing(tracking: Tracking, releases: list[Release]) -> None:
    promote(tracking, releases[0])
    first = promote(tracking, releases[1])
    before = tracking.version("points", "2")
    assert promote(tracking, before) == first
    assert tracking.version("points", "2") == before


def test_going_back_is_a_promotion_like_any_other(tracking: Tracking, releases: list[Release]) -> None:
    promote(tracking, releases[0])
    promote(tracking, releases[1])
    assert promote(tracking, releases[0]).previous == "2"
    assert tracking.champions() == {"points": "1"}


def test_the_note_stands_before_the_alias_moves(tracking: Tracking, releases: list[Release], monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tracking.client, "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(tracking, releases[0])
    assert "promoted_by" in tracking.version("points", "1").tags
    assert tracking.champions() == {}
    promote(tracking, releases[0])
    assert tracking.champions() == {"points": "1"}


def test_a_user_without_an_account_is_a_number(tracking: Tracking, releases: list[Release], monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    promote(tracking, releases[0])
    assert tracking.version("points", "1").tags["promoted_by"] == f"user {os.getuid()}"
