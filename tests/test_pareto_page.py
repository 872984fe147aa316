"""The page of a search in a real browser."""

import subprocess
from pathlib import Path

from tasks.candidate import Miss, pareto_front
from tasks.compress import write_findings
from tasks.core.machine import this_machine
from tasks.core.recipe import Limits
from tasks.pareto_page import Picture
from tests.browser import find_chromium
from tests.test_compress import candidate
from tests.tiny import Stages


def rendered(page: Path) -> str:
    """The page's elements after its script ran."""
    command = [
        find_chromium(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={page.parent / 'profile'}",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_page_draws_every_candidate_and_names_the_chosen(stages: Stages, tmp_path: Path) -> None:
    page = tmp_path / "pareto.html"
    page.write_bytes((stages.folder("compressed") / "pareto.html").read_bytes())
    found = rendered(page)
    assert found.count("<circle") == len(stages.compression.candidates)
    assert f'<b class="chosen">{stages.compression.chosen}</b> was chosen' in found
    assert 'aria-pressed="true">file size, kB' in found


def test_the_page_asks_nothing_of_a_network(stages: Stages) -> None:
    text = (stages.folder("compressed") / "pareto.html").read_text()
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text


def test_a_page_on_which_nothing_is_chosen_names_the_nearest(tmp_path: Path) -> None:
    large, slow = (candidate(name, misses=(Miss(what=what, value=3, limit=2),)) for name, what in (("fp32", "size"), ("slow", "ms")))
    near = slow.model_copy(update={"misses": (Miss(what="ms", value=2.1, limit=2),)})
    picture = Picture("points", "accuracy", "size", Limits(), (large, near), None, {"other": "not trained"}, this_machine())
    write_findings(picture, tmp_path)
    found = rendered(tmp_path / "pareto.html")
    assert "<title>points: nothing is within the limits</title>" in found
    assert "the nearest is slow, which misses ms by 5.00% (2.1, the limit is 2)" in found
    assert found.count("<circle") == 2
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    found = pareto_front(
        "size",
        [
            candidate("fp32", bytes=100),
            candidate("small", bytes=20, validation_drop=0.01),
            candidate("worse", bytes=20, validation_drop=0.02),
            candidate("larger", bytes=50, validation_drop=0.01),
            candidate("equal", bytes=20, validation_drop=0.01),
        ],
    )
    assert found == {"fp32", "small", "equal"}


def test_the_plot_is_a_picture(stages: Stages) -> None:
    assert (stages.folder("compressed") / "pareto.png").read_bytes().startswith(b"\x89PNG")
