"""A dataset of the Hugging Face hub, from the local mirror where there is one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from tasks.core.dataset import Dataset
from tasks.core.errors import SourceError, UnreachableError
from tasks.core.raw import read_parquet
from tasks.core.remote import MIRROR, mirror_folder
from tasks.core.workspace import Workspace
from tasks.sources import Part, Source

_EXPORT = "refs/convert/parquet"
"""The branch in which the hub keeps every dataset as `<config>/<split>/<number>.parquet`."""


class HuggingFaceSource(Source):
    """`splits` maps the parts of this dataset to the hub's names of its splits, or to names of which the first that exists is taken.

    The mirror is looked through for `<mirror>/<split>.parquet`, then for the hub's own `<mirror>/<config>/<split>/*.parquet`.
    """

    id: str
    config: str = "default"
    splits: dict[Part, str | Annotated[tuple[str, ...], Field(min_length=1)]] = Field({"train": "train", "test": "test"}, min_length=1)
    mirror: str | None = None
    """The folder's name in the mirror; the last part of the id where not given."""

    def read(self, dataset: Dataset, workspace: Workspace) -> Iterator[tuple[Part, pa.RecordBatch]]:  # noqa: ARG002 - the contract's
        root = mirror_folder()
        mirror = root / (self.mirror or self.id.rpartition("/")[2]) if root else None
        for part, names in self.splits.items():
            splits = (names,) if isinstance(names, str) else names
            for file in (_in_mirror(mirror, self.config, splits) if mirror else []) or self._from_hub(splits, mirror):
                for batch in read_parquet(file, dataset):
                    yield part, batch

    def _from_hub(self, splits: tuple[str, ...], mirror: Path | None) -> list[Path]:
        """The files of the first split that exists, in the hub's cache on this machine, downloaded unless there. Raises SourceError."""
        try:
            from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415 - only where the hub is asked

            names = sorted(HfApi().list_repo_files(self.id, repo_type="dataset", revision=_EXPORT))
            found = next(filter(None, ([name for name in names if name.startswith(f"{self.config}/{split}/")] for split in splits)), [])
            files = [Path(hf_hub_download(self.id, name, repo_type="dataset", revision=_EXPORT)) for name in found]
        except Exception as error:  # the client's, its HTTP library's and the system's errors have no common base
            if isinstance(error, OSError) and error.errno and error.filename:
                raise
            raise self._unreachable(
                splits, mirror, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            ) from error
        if not files:
            known = sorted({"/".join(name.split("/")[:2]) for name in names if name.count("/") == 2})
            raise SourceError(
                f"the hub's dataset '{self.id}' has no split {' or '.join(repr(f'{self.config}/{split}') for split in splits)}",
                f"it has {', '.join(known) or 'none in parquet'}; correct `source.config` or `source.splits` in the dataset file",
            )
        return files

    def _unreachable(self, splits: tuple[str, ...], mirror: Path | None, why: str) -> UnreachableError:
        folder = self.mirror or self.id.rpartition("/")[2]
        wanted = " or ".join(f"{folder}/{split}.parquet" for split in splits)
        tried = f"{MIRROR} has no {wanted}, and " if mirror else ""
        return UnreachableError(
            f"the split {' or '.join(map(repr, splits))} of '{self.id}' cannot be fetched: {tried}the hub does not answer ({why})",
            f"set {MIRROR} to a folder with {wanted}, or use a local file: source: {{kind: parquet, path: …}}",
        )


def _in_mirror(folder: Path, config: str, splits: tuple[str, ...]) -> list[Path]:
    """The files of the first split that the mirror has."""
    for split in splits:
        plain = folder / f"{split}.parquet"
        found = [plain] if plain.is_file() else sorted((folder / config / split).glob("*.parquet"))
        if found:
            return found
    return []
