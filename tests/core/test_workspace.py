"""The workspace: where things are, and that looking creates nothing."""

from pathlib import Path

import pytest

from tasks.core.errors import ConfigError
from tasks.core.workspace import Workspace

DATASET = "source: {kind: csv}\ncolumns:\n  x: {type: number}\n  y: {type: label, classes: [a, b]}\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_nearest_parent_with_data_and_dvc_is_the_workspace(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    write(workspace.root / "dvc.yaml", "")
    below = workspace.data / "digits" / "raw"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Workspace.current() == workspace


def test_any_folder_is_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAASFLOW_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Workspace.current() == Workspace(tmp_path)


def test_the_environment_decides_where_it_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAASFLOW_WORKSPACE", str(tmp_path / "elsewhere"))
    assert Workspace.current() == Workspace(tmp_path / "elsewhere")


def test_a_dataset_is_read_with_the_path_that_a_person_would_type(workspace: Workspace) -> None:
    write(workspace.data / "mine.yaml", DATASET + "splitt: 1\n")
    with pytest.raises(ConfigError, match=r"^data/mine\.yaml:5: splitt: unknown key 'splitt'; did you mean 'split'\?"):
        workspace.dataset("mine")


def test_an_own_recipe_goes_before_a_shipped_one_and_takes_settings(workspace: Workspace) -> None:
    for folder, epochs in (("recipes", 3), ("flows/recipes", 4)):
        write(workspace.root / folder / "mine.yaml", f"dataset: a\nmodel: {{family: mlp}}\ntraining: {{epochs: {epochs}}}\n")
    assert workspace.recipe("mine").training.epochs == 3
    assert workspace.recipe("mine", ("training.epochs=9",)).training.epochs == 9


def test_a_wrong_setting_is_blamed_on_the_command_line(workspace: Workspace) -> None:
    write(workspace.root / "recipes" / "mine.yaml", "dataset: a\nmodel: {family: mlp}\ntraining: {epochs: 3}\n")
    with pytest.raises(ConfigError, match=r"^--set training\.epochs=x: 'x' is not a whole number"):
        workspace.recipe("mine", ("training.epochs=x",))


def test_an_unknown_name_lists_the_known_ones_and_where_a_new_one_goes(workspace: Workspace) -> None:
    write(workspace.data / "digits.yaml", DATASET)
    with pytest.raises(ConfigError) as caught:
        workspace.dataset("digit")
    assert caught.value.what == "there is no dataset 'digit'; did you mean 'digits'?"
    assert caught.value.do == "known: digits; a new one goes into data/digit.yaml"


@pytest.mark.parametrize("name", ["../data/digits", "/etc/passwd", "Digits", "", "a b", "x" * 300, "a\0"])
def test_a_name_is_never_a_path(name: str, workspace: Workspace) -> None:
    write(workspace.data / "digits.yaml", DATASET)
    with pytest.raises(ConfigError, match="cannot be a dataset's name"):
        workspace.dataset(name)


def test_looking_creates_nothing(workspace: Workspace) -> None:
    workspace.recipes()
    workspace.datasets()
    _ = (workspace.state, workspace.stages, workspace.served, workspace.mlruns, workspace.prepared("x"))
    assert [path.name for path in workspace.root.iterdir()] == ["data"]


def test_a_path_outside_of_the_workspace_is_shown_whole(workspace: Workspace) -> None:
    assert workspace.shown(workspace.data / "x.yaml") == "data/x.yaml"
    assert workspace.shown(Path("/elsewhere/x.yaml")) == "/elsewhere/x.yaml"
