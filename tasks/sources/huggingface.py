"""A dataset of the Hugging Face hub, from the local mirror where there is one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
from pydantic import Field

from tasks.core.dataset import Dataset
from tasks.core.errors import SourceError, UnreachableError
from tasks.core.raw import read_parquet
from tasks.core.workspace import Workspace
from tasks.sources import Part, Source

MIRROR: Final = "MAASFLOW_MIRROR"
_EXPORT = "refs/convert/parquet"
"""The branch in which the hub keeps every dataset as `<config>/<split>/<number>.parquet`."""


class HuggingFaceSource(Source):
    """`splits` maps the parts of this dataset to the hub's names of its splits.

    The mirror is looked through for `<mirror>/<split>.parquet`, then for the hub's own `<mirror>/<config>/<split>/*.parquet`.
    """

    id: str
    config: str = "default"
    splits: dict[Part, str] = Field({"train": "train", "test": "test"}, min_length=1)
    mirror: str | None = None
    """The folder's name in the mirror; the last part of the id where not given."""

    def read(self, dataset: Dataset, workspace: Workspace) -> Iterator[tuple[Part, pa.RecordBatch]]:  # noqa: ARG002 - the contract's
        mirror = self._mirror()
        for part, split in self.splits.items():
            for file in (_in_mirror(mirror, self.config, split) if mirror else []) or self._from_hub(split, mirror):
                for batch in read_parquet(file, dataset):
                    yield part, batch

    def _mirror(self) -> Path | None:
        """This dataset's folder in the mirror. Raises SourceError for a mirror that is not there."""
        root = os.environ.get(MIRROR)
        if not root:
            return None
        if not Path(root).is_dir():
            raise SourceError(
                f"{MIRROR} is {root}, where there is no folder", f"set {MIRROR} to the folder with the mirrored datasets, or unset it"
            )
        return Path(root) / (self.mirror or self.id.rpartition("/")[2])

    def _from_hub(self, split: str, mirror: Path | None) -> list[Path]:
        """The split's files in the hub's cache on this machine, downloaded unless they are there. Raises SourceError."""
        try:
            from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415 - only where the hub is asked

            names = HfApi().list_repo_files(self.id, repo_type="dataset", revision=_EXPORT)
            found = sorted(name for name in names if name.startswith(f"{self.config}/{split}/"))
            files = [Path(hf_hub_download(self.id, name, repo_type="dataset", revision=_EXPORT)) for name in found]
        except Exception as error:  # the client's, its HTTP library's and the system's errors have no common base
            if isinstance(error, OSError) and error.errno and error.filename:
                raise
            raise self._unreachable(
                split, mirror, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            ) from error
        if not files:
            known = sorted({"/".join(name.split("/")[:2]) for name in names if name.count("/") == 2})
            raise SourceError(
                f"the hub's dataset '{self.id}' has no split '{self.config}/{split}'",
                f"it has {', '.join(known) or 'none in parquet'}; correct `source.config` or `source.splits` in the dataset file",
            )
        return files

    def _unreachable(self, split: str, mirror: Path | None, why: str) -> UnreachableError:
        tried = f"{MIRROR} has no {mirror.name}/{split}.parquet, and " if mirror else ""
        return UnreachableError(
            f"the split '{split}' of '{self.id}' cannot be fetched: {tried}the hub does not answer ({why})",
            f"set {MIRROR} to a folder with {self.id.rpartition('/')[2]}/{split}.parquet, or use a local file: source: {{kind: parquet, path: …}}",
        )


def _in_mirror(folder: Path, config: str, split: str) -> list[Path]:
    plain = folder / f"{split}.parquet"
    return [plain] if plain.is_file() else sorted((folder / config / split).glob("*.parquet"))
