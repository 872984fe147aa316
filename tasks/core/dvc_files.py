"""The files that make a folder a DVC workspace of maasflow's."""

from pathlib import Path
from typing import Final

from tasks.core.stages import write_text

PIPELINE: Final = """\
# Every dataset goes through these stages. Add one as data/<name>.yaml; `maasflow` keeps data/datasets.json, which DVC reads.
vars:
  - data/datasets.json

stages:
  fetch:
    foreach: ${datasets}
    do:
      cmd: python -m tasks.fetch ${item.name}
      params:
        - data/datasets.json:
            - datasets.${key}.fetch
      outs:
        - data/${item.name}/raw

  validate:
    foreach: ${datasets}
    do:
      cmd: python -m tasks.validate ${item.name}
      deps:
        - data/${item.name}/raw
      params:
        - data/datasets.json:
            - datasets.${key}.validate
      outs:
        - data/${item.name}/validated

  prepare:
    foreach: ${datasets}
    do:
      cmd: python -m tasks.prepare ${item.name}
      deps:
        - data/${item.name}/raw
        - data/${item.name}/validated
      params:
        - data/datasets.json:
            - datasets.${key}.prepare
      outs:
        - data/${item.name}/prepared
"""

_CONFIG: Final = """\
[core]
    analytics = false
    check_update = false
    remote = local
['remote "local"']
    url = ../.maasflow/dvc-remote
"""

_WITHOUT_GIT: Final = """\
[core]
    no_scm = true
"""


def init(root: Path) -> None:
    """Make the folder a DVC workspace. What is there already stays as it is."""
    (root / "data").mkdir(parents=True, exist_ok=True)
    files = {"dvc.yaml": PIPELINE, ".dvc/config": _CONFIG, ".dvc/.gitignore": "/cache\n/tmp\n/config.local\n"}
    if not any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents)):
        files[".dvc/config.local"] = _WITHOUT_GIT
    for name, text in files.items():
        if not (root / name).exists():
            write_text(root / name, text)
