"""The figures of a release, taken again on this machine before it is promoted here."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks import versioning
from tasks.core.bundle import Bundle, DatasetVersion, Manifest
from tasks.core.encoded import Encoded
from tasks.core.errors import DataError, MaasflowError
from tasks.core.stages import StageStore
from tasks.core.workspace import Workspace
from tasks.encode import EncodeResult, encode_by
from tasks.parent import encode_key, require_dataset
from tasks.remeasure import record, remeasure
from tasks.tracking import Release, Tracking

_log = logging.getLogger("maasflow")


def measure_again(workspace: Workspace, tracking: Tracking, release: Release, manifest: Manifest, why: str) -> str:
    """Measure a release on its dataset's rows, record it with the release, and hold it against its recipe; what to tell.

    `why` says where it was measured. Raises DataError where the rows cannot be had here, GateError where a figure is beyond its limit.
    """
    _log.info("%s; its figures are taken again", why)
    try:
        version = _dataset(workspace, release, manifest)
    except MaasflowError as error:
        raise DataError(
            f"{why}, and the rows to measure it here cannot be had: {error.what}",
            f"{f'{error.do}; ' if error.do else ''}or go on without: maasflow promote {release.name} {release.version} --unmeasured",
        ) from error
    prepared = workspace.prepared(version.name)
    with TemporaryDirectory() as folder:
        bundle = Bundle.open(tracking.fetch_bundle(release.name, release.version, Path(folder)))
        encoded = StageStore(workspace.stages).run(
            "encode", encode_key(manifest, version), EncodeResult, lambda out: encode_by(bundle, prepared, out)
        )
        found = remeasure(bundle, Encoded(encoded.folder))
    record(tracking, release, found)
    found.require(release)
    return f"measured again here: {found.figure}; its run in MLflow has all in {found.file}"


def _dataset(workspace: Workspace, release: Release, manifest: Manifest) -> DatasetVersion:
    """The release's dataset, built here where it is not. Raises MaasflowError where that is another version, or cannot be built."""
    name, words = manifest.lineage.dataset.name, f"{release.name} version {release.version}"
    if pinned := versioning.version(workspace, name):
        # Before anything is built: a promotion changes no dataset.
        require_dataset(manifest, words, pinned)
    version = versioning.build(workspace, name, log=_log.info)
    require_dataset(manifest, words, version)
    return version
