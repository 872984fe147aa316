"""`maasflow promote` where the release was measured: on this machine, or on another."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from tasks.core.bundle import Bundle
from tasks.core.predictor import this_place
from tasks.core.workspace import Workspace
from tasks.export import BUNDLE
from tasks.places import tag_of
from tasks.remeasure import RemeasureResult
from tasks.tracking import BUNDLE_PATH, CHAMPION, Release, Tracking
from tests.flows.conftest import maasflow, patched
from tests.releases import as_from_elsewhere, spoil, stored

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tracking(own_release: Path) -> Tracking:
    return Tracking.of(Workspace(own_release))


@pytest.fixture
def first(tracking: Tracking) -> Iterator[Release]:
    """The release that is champion when a test begins."""
    tracking.set_alias("small", CHAMPION, "1")
    yield tracking.version("small", "1")
    tracking.set_alias("small", CHAMPION, "1")


AddElsewhere = Callable[..., Release]


@pytest.fixture
def add_elsewhere(tracking: Tracking, first: Release) -> AddElsewhere:
    """Register the first release's bundle, changed, as one that another machine measured."""

    def add(change: Callable[[Path], None] = lambda _: None) -> Release:
        with TemporaryDirectory() as folder:
            bundle = Path(shutil.copytree(stored(tracking, first), Path(folder) / BUNDLE))
            as_from_elsewhere(bundle)
            change(bundle)
            key = uuid4().hex
            run = tracking.run("small", "elsewhere", key)
            run.artifacts(bundle, BUNDLE_PATH)
            run.end()
        return tracking.register("small", run.id, key, {}, "")

    return add


def champion(tracking: Tracking) -> str:
    return tracking.champions()["small"]


def test_on_another_machine_it_is_measured_again_recorded_and_promoted_and_not_a_second_time(
    own_release: Path, tracking: Tracking, add_elsewhere: AddElsewhere, tmp_path: Path
) -> None:
    release = add_elsewhere()
    done = maasflow(own_release, "promote", "small", release.version)
    assert done.code == 0, done.err
    said, told = done.out.splitlines()
    assert said == f"small version {release.version} is champion, after version 1"
    assert re.match(r"measured again here: int8_\w+ has a test accuracy of 0\.\d+ \(in its bundle 0\.\d+\) and takes .* ms a row", told)
    assert "was measured on another machine (here: system " in done.err
    place = this_place()
    record = tracking.client.download_artifacts(release.run, f"machines/{place.fingerprint}.json", str(tmp_path))
    assert RemeasureResult.parse(json.loads(Path(record).read_text())).passed
    assert tracking.version("small", release.version).tags[tag_of(place)].startswith("passed: ")
    assert maasflow(own_release, "promote", "small", "1").out == f"small version 1 is champion, after version {release.version}\n"
    again = maasflow(own_release, "promote", "small", release.version)
    assert (again.out, again.err) == (f"{said}\n", "")


def test_on_the_machine_it_is_from_nothing_is_measured_nor_imported_for_it(own_release: Path, first: Release) -> None:
    told = "import atexit; atexit.register(lambda: print(sorted({'torch', 'prefect', 'onnx', 'tasks.remeasure'} & set(sys.modules))))"
    done = patched(own_release, told, "promote", "small", first.version)
    assert done.code == 0, done.err
    assert re.fullmatch(r"small version 1 is champion, after .*\n\[\]\n", done.out)


def test_what_does_not_keep_its_limits_here_is_not_promoted_and_no_flag_helps(
    own_release: Path, tracking: Tracking, add_elsewhere: AddElsewhere
) -> None:
    release = add_elsewhere(spoil)
    done = maasflow(own_release, "promote", "small", release.version)
    assert done.code == 1
    said = rf"small version {release.version} fails \d of 4 checks on this machine \((batch, )?golden, metric_drop, limits\.metric_drop\); nothing was promoted"
    assert re.search(said, done.err), done.err
    assert "FAIL  limits.metric_drop" in done.err
    assert f"maasflow compress small@{release.version}" in done.err
    assert "Traceback" not in done.err
    assert tracking.version("small", release.version).tags[tag_of(this_place())].startswith("failed (")
    refused = maasflow(own_release, "promote", "small", release.version, "--unmeasured")
    assert refused.code == 1
    assert "was measured on this machine and failed (" in refused.err
    assert champion(tracking) == "1"


def _of_dataset(**changes: str) -> Callable[[Path], None]:
    """Let a bundle say that it was made of another dataset."""

    def change(folder: Path) -> None:
        bundle = Bundle.open(folder)
        lineage = bundle.manifest.lineage
        dataset = lineage.dataset.model_copy(update=changes)
        Bundle(folder, bundle.manifest.replace(lineage=lineage.model_copy(update={"dataset": dataset}))).write()

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_of_dataset(digest="f" * 32), "was trained on digits ffffffff, the workspace has "),
        (_of_dataset(name="digts"), "there is no dataset 'digts'; did you mean 'digits'?"),
    ],
)
def test_without_its_rows_it_says_what_to_do_and_goes_on_only_when_told_to(
    change: Callable[[Path], None], why: str, own_release: Path, tracking: Tracking, add_elsewhere: AddElsewhere
) -> None:
    release = add_elsewhere(change)
    lock = (own_release / "dvc.lock").read_text()
    done = maasflow(own_release, "promote", "small", release.version)
    assert done.code == 1
    assert "and the rows to measure it here cannot be had: " in done.err
    assert why in done.err
    assert f"or go on without: maasflow promote small {release.version} --unmeasured" in done.err
    assert champion(tracking) == "1"
    assert (own_release / "dvc.lock").read_text() == lock
    unmeasured = maasflow(own_release, "promote", "small", release.version, "--unmeasured")
    assert unmeasured.code == 0, unmeasured.err
    assert "\nnot measured here: " in unmeasured.out
    assert champion(tracking) == release.version
    assert tracking.version("small", release.version).tags[tag_of(this_place())].startswith("not measured, as was asked for; ")


_COMPRESSED_ELSEWHERE = """
import flows.steps
from tasks.export import BUNDLE
from tests.releases import as_from_elsewhere
work = flows.steps.compress_stage
def elsewhere(recipe, encoded, exported, out, *rest):
    found = work(recipe, encoded, exported, out, *rest)
    as_from_elsewhere(out / BUNDLE)
    return found
flows.steps.compress_stage = elsewhere
"""


def test_a_promotion_without_review_is_held_to_the_same_with_a_compression_that_claims_another_machine(
    own_release: Path, tracking: Tracking
) -> None:
    done = patched(own_release, _COMPRESSED_ELSEWHERE, "run", "small", "--set", "release.name=auto-small", "--set", "training.seed=3")
    assert done.code == 0, done.err
    assert "champion, after none; measured again here: " in done.out
    assert tracking.version("auto-small", "1").tags[tag_of(this_place())].startswith("passed: ")
